from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from errata.winrate import (
    CurvePoint,
    LearningCurve,
    Summary,
    combine_seeds,
    read_summary,
    summary_from_json,
    summary_to_json,
    write_summary,
)


def place(plain: Any, path: str, value: object) -> None:
    *parts, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parts:
        plain = plain[part]
    plain[last] = value


def with_win(summary: Summary, seed: int, win_rate: float, cost: float, **changes: Any) -> Summary:
    """The summary as another seed might have it: other numbers for the second arm, greedy."""
    arm = summary.arms[1]
    greedy = replace(arm.greedy, win_rate=win_rate, edit_cost=cost, **changes)
    return replace(summary, seeds=(seed,), arms=(summary.arms[0], replace(arm, greedy=greedy), *summary.arms[2:]))


def test_round_trip(summary: Summary, tmp_path: Path) -> None:
    write_summary(tmp_path / "winrate" / "summary.json", summary)
    assert read_summary(tmp_path / "winrate" / "summary.json") == summary
    assert summary_from_json(summary_to_json(summary)) == summary


def test_the_file_has_the_keys_that_readers_count_on(summary: Summary) -> None:
    plain = summary_to_json(summary)
    assert list(plain) == ["seeds", "arms", "controls", "reward_models", "curves", "data", "examples"]
    assert plain["seeds"] == [0]
    arm = plain["arms"][8]
    assert {"name", "seconds", "sampled", "greedy"} == arm.keys()
    wanted = {"win_rate", "ci_low", "ci_high", "mean_defects", "edit_cost", "mean_length", "kl", "well_formed"}
    for decoded in (arm["sampled"], arm["greedy"], plain["controls"][0]["sampled"]):
        assert wanted | {"entropy", "defects_by_kind", "outsider"} <= decoded.keys()
        assert {"win_rate", "ci_low", "ci_high"} <= decoded["outsider"].keys()
    assert plain["controls"][1].keys() == {"name", "temperature", "sampled"}
    assert plain["reward_models"][0]["auc_bad_kept"] is None
    assert plain["reward_models"][0]["best_of_8"].keys() == {"win_rate", "mean_defects"}
    assert plain["curves"][0].keys() == {"arm", "points"}
    point = plain["curves"][0]["points"][0]
    assert point.keys() == {"step", "seconds", "kl", "proxy_reward", "mean_defects", "win_rate"}
    assert plain["examples"][0].keys() == {"prompt", "before", "after", "name"}
    assert plain["examples"][0]["before"]["tokens"][0].keys() == {"text", "value", "outlined"}


def test_any_text_survives(summary: Summary, tmp_path: Path) -> None:
    text = "\ud800 \x00 \u202e </script> 🔬"
    example = replace(summary.examples[0], prompt=text)
    write_summary(tmp_path / "s.json", replace(summary, examples=(example,)))
    assert read_summary(tmp_path / "s.json").examples[0].prompt == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_and_nothing_is_written(summary: Summary, tmp_path: Path, value: float) -> None:
    path = tmp_path / "s.json"
    write_summary(path, summary)
    before = path.read_bytes()
    bad = with_win(summary, 0, 0.5, 1.0, kl=value)
    with pytest.raises(ValueError, match=r"summary\.arms\[1\]\.greedy\.kl is -?(nan|inf): give None"):
        write_summary(path, bad)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_nan_is_refused(summary: Summary, tmp_path: Path) -> None:
    plain = summary_to_json(summary)
    place(plain, "curves/1/points/2/proxy_reward", math.nan)
    path = tmp_path / "s.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=r"s\.json: summary\.curves\[1\]\.points\[2\]\.proxy_reward is nan"):
        read_summary(path)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("arms/0/greedy/win_rat", 0.5, r"summary\.arms\[0\]\.greedy has the unknown key 'win_rat'"),
        ("arms/0/greedy/win_rate", None, r"summary\.arms\[0\]\.greedy\.win_rate is None, where float is due"),
        ("arms/0/greedy/win_rate", "0.5", r"win_rate is '0\.5', where float is due"),
        ("arms/0/greedy/win_rate", True, r"win_rate is True, where float is due"),
        ("arms/0/greedy", 1, r"summary\.arms\[0\]\.greedy is 1, where an object is due"),
        ("arms", {}, r"summary\.arms is \{\}, where a list is due"),
        ("data", [], r"summary\.data is \[\], where an object is due"),
        ("seeds/0", 1.5, r"summary\.seeds\[0\] is 1\.5, where int is due"),
        ("examples/0/before/tokens/0/outlined", 1, r"outlined is 1, where bool is due"),
    ],
)
def test_a_wrong_field_is_named(summary: Summary, path: str, value: object, said: str) -> None:
    plain = summary_to_json(summary)
    place(plain, path, value)
    with pytest.raises(ValueError, match=said):
        summary_from_json(plain)


def test_a_missing_field_is_named_unless_it_has_a_default(summary: Summary) -> None:
    plain = summary_to_json(summary)
    del plain["controls"], plain["arms"][0]["greedy"]["entropy"]
    assert summary_from_json(plain).controls == ()
    del plain["arms"][2]["greedy"]["kl"]
    with pytest.raises(ValueError, match=r"summary\.arms\[2\]\.greedy lacks the key 'kl'"):
        summary_from_json(plain)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_summary_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=r"s\.json"):
        read_summary(tmp_path / "s.json")


def test_seeds_combine_by_hand(summary: Summary) -> None:
    seeds = [
        with_win(summary, 3, 0.6, 4.0, kl=1.0, defects_by_kind={"a": 1.0, "b": 2.0}),
        with_win(summary, 1, 0.7, 2.0, kl=2.0, defects_by_kind={"a": 3.0}),
        with_win(summary, 2, 0.8, 3.0, kl=None, defects_by_kind={"a": 2.0, "b": 1.0}),
    ]
    both = combine_seeds(seeds)
    assert both.seeds == (3, 1, 2)
    greedy = both.arms[1].greedy
    # Mean .7, s = .1, t(2, .975) / √3 = 2.484138.
    assert (greedy.win_rate, greedy.ci_low, greedy.ci_high) == pytest.approx((0.7, 0.4515862, 0.9484138), rel=1e-6)
    assert (greedy.edit_cost, greedy.edit_cost_low, greedy.edit_cost_high) == pytest.approx((3.0, 0.515862, 5.484138))
    assert greedy.per_seed is not None
    assert greedy.per_seed.win_rate == (0.6, 0.7, 0.8)
    assert greedy.per_seed.edit_cost == (4.0, 2.0, 3.0)
    assert greedy.kl == 1.5  # of the seeds that have one
    assert greedy.defects_by_kind == {"a": 2.0, "b": 1.0}  # a kind that a seed lacks is 0 there
    assert greedy.mean_length == summary.arms[1].greedy.mean_length
    assert both.examples == summary.examples
    assert summary_from_json(summary_to_json(both)) == both


def test_every_number_is_a_mean(summary: Summary) -> None:
    def times(plain: Any, factor: float) -> Any:
        """The same summary with every number but seeds, steps, win rates and examples multiplied."""
        if isinstance(plain, dict):
            kept = {"seeds", "step", "win_rate", "ci_low", "ci_high", "examples", "temperature"}
            return {key: part if key in kept else times(part, factor) for key, part in plain.items()}
        if isinstance(plain, list):
            return [times(part, factor) for part in plain]
        return plain * factor if isinstance(plain, (int, float)) else plain

    plain = summary_to_json(summary)
    first, second = ({**times(plain, factor), "seeds": [seed]} for seed, factor in ((0, 1.0), (1, 3.0)))
    both = summary_to_json(combine_seeds([summary_from_json(first), summary_from_json(second)]))
    wanted = times(plain, 2.0)
    for key in ("reward_models", "curves", "data", "examples"):
        assert both[key] == pytest.approx(wanted[key]) if key == "data" else flat(both[key]) == flat(wanted[key])
    assert both["arms"][4]["seconds"] == pytest.approx(wanted["arms"][4]["seconds"])
    assert both["controls"][1]["temperature"] == 0.5
    outsider = both["controls"][1]["sampled"]["outsider"]
    assert (outsider["win_rate"], outsider["per_seed"]["win_rate"]) == (pytest.approx(0.624), [0.624, 0.624])


def flat(plain: Any) -> list[Any]:
    """The leaves, numbers rounded away from the last bits."""
    if isinstance(plain, dict):
        return [leaf for key, part in plain.items() for leaf in [key, *flat(part)]]
    if isinstance(plain, list):
        return [leaf for part in plain for leaf in flat(part)]
    return [float(f"{plain:.9g}") if isinstance(plain, float) else plain]


def test_curves_are_averaged_where_all_seeds_have_the_step(summary: Summary) -> None:
    def curve(steps: dict[int, float]) -> tuple[LearningCurve, ...]:
        points = tuple(
            CurvePoint(step=step, seconds=None, kl=None, proxy_reward=value, mean_defects=1.0, win_rate=None)
            for step, value in steps.items()
        )
        return (LearningCurve(arm="ppo", points=points),)

    short, long = (
        replace(summary, curves=curve({0: 1.0, 10: 2.0})),
        replace(summary, curves=curve({10: 5.0, 0: 2.0, 20: 9.0})),
    )
    for pair in ([short, replace(long, seeds=(1,))], [long, replace(short, seeds=(1,))]):
        points = combine_seeds(pair).curves[0].points
        assert [(point.step, point.proxy_reward, point.kl) for point in points] == [(0, 1.5, None), (10, 3.5, None)]


def test_one_seed_keeps_its_bootstrap(summary: Summary) -> None:
    assert combine_seeds([summary]) == summary


def test_what_does_not_combine_is_said(summary: Summary) -> None:
    other = replace(summary, seeds=(1,))
    with pytest.raises(ValueError, match="no summary"):
        combine_seeds([])
    with pytest.raises(ValueError, match="comes twice"):
        combine_seeds([summary, summary])
    with pytest.raises(ValueError, match="one seed each"):
        combine_seeds([summary, combine_seeds([replace(summary, seeds=(5,)), other])])
    with pytest.raises(ValueError, match=r"seed 1 has the arms .*seed 0 has"):
        combine_seeds([summary, replace(other, arms=other.arms[:-1])])
    with pytest.raises(ValueError, match="seed 1 has the controls"):
        combine_seeds([summary, replace(other, controls=())])
    model = replace(other.reward_models[0], objective="another")
    with pytest.raises(ValueError, match="objective differs between the seeds"):
        combine_seeds([summary, replace(other, reward_models=(model, other.reward_models[1]))])
    arm = replace(other.arms[0], greedy=replace(other.arms[0].greedy, outsider=None))
    with pytest.raises(ValueError, match=r"start.greedy.outsider is missing for some seeds"):
        combine_seeds([summary, replace(other, arms=(arm, *other.arms[1:]))])
