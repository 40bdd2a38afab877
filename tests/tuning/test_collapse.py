from __future__ import annotations

import pytest

from errata.tuning.collapse import signs_of_collapse

GOOD = {
    "objective/scores": 1.0,
    "objective/kl": 2.0,
    "response/length": 20.0,
    "response/repetition": 0.05,
    "response/ended": 0.9,
    "policy/entropy_avg": 1.5,
    "val/explained_variance": 0.5,
}


def run(*changes: dict[str, float], steps: int = 10) -> list[dict[str, float]]:
    """Good steps, then five of each change."""
    return [GOOD] * steps + [{**GOOD, **change} for change in changes for _ in range(5)]


def names(lines: list[dict[str, float]]) -> list[str]:
    return [sign.name for sign in signs_of_collapse(lines)]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("length", {"objective/scores": 2.0, "response/length": 31.0}),
        ("repetition", {"objective/scores": 2.0, "response/repetition": 0.3}),
        ("no end", {"response/ended": 0.0}),
        ("entropy", {"policy/entropy_avg": 0.1}),
        ("critic", {"val/explained_variance": -0.1}),
    ],
)
def test_each_sign_is_seen_alone(name: str, change: dict[str, float]) -> None:
    (sign,) = signs_of_collapse(run(change))
    assert sign.name == name
    assert ";" in sign.words or ":" in sign.words, "what is seen, and what helps"
    assert sign.stops == (name != "critic")


def test_a_good_run_is_left_alone() -> None:
    better = {"objective/scores": 3.0, "objective/kl": 5.0, "policy/entropy_avg": 0.8}
    assert names(run()) == names(run(better)) == []
    assert names(run({"response/length": 60.0, "objective/scores": 0.5})) == [], "longer, but not for the reward"
    assert names([{"step": 0.0}, *run({"response/ended": 0.0}, steps=4)]) == [], "too early to tell"


def test_a_length_that_falls_and_comes_back_is_not_yet_a_reason_to_stop() -> None:
    """As of a policy that first drops what is wrong, and then learns that more is paid for."""
    shorter = {"objective/scores": 2.0, "response/length": 17.0}
    (sign,) = signs_of_collapse(run(shorter, {"objective/scores": 3.0, "response/length": 20.0}))
    assert (sign.name, sign.stops) == ("longer", False)
    assert "had 17 tokens at their shortest, have 20" in sign.words
    assert names(run(shorter, {"objective/scores": 3.0, "response/length": 19.0})) == []
    assert names(run(shorter, {"objective/scores": 0.5, "response/length": 20.0})) == [], "not for the reward"
    assert names(run(shorter, {"objective/scores": 3.0, "response/length": 31.0})) == ["length"], "said once"


def test_a_jump_of_the_kl_is_one_within_a_step() -> None:
    assert names([*run(), {**GOOD, "objective/kl": 20.0}]) == ["KL"]
    slowly = [{**GOOD, "objective/kl": 1.15**k} for k in range(30)]
    assert names(slowly) == []


def test_a_policy_that_never_ended_is_told_so_and_not_stopped() -> None:
    (sign,) = signs_of_collapse([{**GOOD, "response/ended": 0.0}] * 10)
    assert not sign.stops
    assert "--max-new-tokens" in sign.words
