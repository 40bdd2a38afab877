"""The study of dense rewards on a tiny world, and what it concludes from numbers made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts import load


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "ppo_study")


def flags(out: Path, **settings: object) -> list[str]:
    small = {"seeds": 1, "prompts": 64, "heldout": 4, "start-responses": 32, "workers": 1, "max-new-tokens": 12}
    given = [f"--out={out}", "--steps=1", *(f"--{key}={value}" for key, value in (small | settings).items())]
    return [*given, "--rows", "48"]


def result(greedy: float, sampled: float) -> dict[str, Any]:
    return {"greedy": {"mean_defects": greedy}, "sampled": {"mean_defects": sampled}, "warnings": []}


@pytest.mark.slow
def test_methods_are_trained_measured_and_kept(recipe: ModuleType, tmp_path: Path) -> None:
    some = ["--methods", "edited", "token at the end", "penalties and sequence"]
    assert recipe.main([*flags(tmp_path), *some]) == 0
    summary = json.loads((tmp_path / "report.json").read_text())
    names = list(summary["results"])
    assert [name.split(" 48")[0] for name in names] == ["start", "edited", "token at the end", "penalties and sequence"]
    for (found,) in summary["results"].values():
        for decoding in ("greedy", "sampled"):
            assert {"mean_defects", "edit_cost", "kl", "defects_by_kind"} <= found[decoding].keys()
    assert summary["results"]["start"][0]["greedy"]["kl"] == 0
    rewards = {path.name for path in (tmp_path / "seed-0" / "reward").iterdir() if path.is_dir()}
    assert {"sequence_edited 48", "token 48"} <= rewards
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("seed-0/winrate/*.json")}
    assert recipe.main([*flags(tmp_path), *some]) == 0
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("seed-0/winrate/*.json")}


def test_a_control_pays_the_same_sum_elsewhere(recipe: ModuleType) -> None:
    values = [1.0, -2.0, 0.5]
    assert recipe.PAID["token at the end"](values) == [0.0, 0.0, -0.5]
    assert recipe.PAID["sequence spread"]([0.0, 0.0, 3.0]) == [1.0, 1.0, 1.0]


def test_penalties_are_the_product_s_own(recipe: ModuleType, tmp_path: Path) -> None:
    study = recipe.Study(recipe.Settings(out=tmp_path), seed=0)
    first, second = study.streams(recipe.Arm(method="penalties and sequence", values={"discount": 0.8}))
    assert (first.reward.name, first.penalties_only, first.terminal) == ("token 1000", True, False)
    assert (second.reward.name, second.penalties_only, second.terminal) == ("sequence_edited 1000", False, True)


def test_every_searched_method_has_the_same_budget(recipe: ModuleType) -> None:
    assert {len(tries) for tries in recipe.TRIES.values()} == {6}
    assert recipe.CHOSEN.keys() == recipe.REWARDS.keys() > recipe.TRIES.keys()
    for method, tries in recipe.TRIES.items():
        assert recipe.CHOSEN[method] in tries


def test_the_best_tries_of_each_method_are_tried_again(recipe: ModuleType) -> None:
    arms = [
        recipe.START,
        *(recipe.Arm(method=m, values={"kl_coefficient": k}) for m in ("edited", "token") for k in range(4)),
    ]
    found = {arm.name: [result(k, 10.0 - 2 * k)] for k, arm in enumerate(arms)}  # the later, the fewer together
    chosen = recipe.best_tries(arms, found)
    assert [(arm.method, arm.values["kl_coefficient"]) for arm in chosen] == [
        *(("token", k) for k in (3, 2, 1)),
        *(("edited", k) for k in (3, 2, 1)),
    ]


def test_the_claim_is_told_from_numbers_by_hand(recipe: ModuleType) -> None:
    start, edited, token = recipe.START, recipe.Arm(method="edited"), recipe.Arm(method="token")
    found = {
        start.name: [result(9, 9)] * 2,
        edited.name: [result(2.0, 3.0), result(4.0, 3.0)],
        token.name: [result(1.0, 2.0), result(3.0, 4.0)],
    }
    told = recipe.against_edited([start, edited, token], found)
    assert list(told) == [token.name]
    mean, low, high = told[token.name]["greedy − half"]
    assert mean == pytest.approx(0.5)  # 1 − 1 and 3 − 2
    # 12.706 is t of one degree of freedom.
    assert high - mean == pytest.approx(mean - low) == pytest.approx(12.706 * 0.5, rel=1e-3)
    assert told[token.name]["sampled"][0] == 0
    assert told[token.name]["greedy"] == pytest.approx([-1.0, -1.0, -1.0])


def test_what_cannot_be_run_is_refused(recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe.main(flags(tmp_path, prompts=40)) == 1
    assert "40 prompts are too few for 48 edits" in capsys.readouterr().err
    assert recipe.main([*flags(tmp_path), "--methods", "none"]) == 1
    assert "no method 'none'" in capsys.readouterr().err
