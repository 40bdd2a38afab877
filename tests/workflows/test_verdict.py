"""Each condition by itself: what just holds, what just fails, and what is said."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from errata.winrate import Interval
from errata.workflows import Comparison, DraftFigures, Limits, Measured, TokenLogprobs, decide

OLD = DraftFigures(rows=100, edit_cost=Interval(5, 4, 6), length=20.0, ended=0.9, repetition=0.1)
NEW = replace(OLD, edit_cost=Interval(4, 3, 5))


def compared(low: float, high: float, **changed: Any) -> Comparison:
    mean = (low + high) / 2
    given = {"rows": 100, "users": None, "by_row": mean, "wins": 0.5, "ties": 0.3, "losses": 0.2, "detectable": 0.7}
    return Comparison(**{**given, "difference": Interval(mean, low, high), **changed})


GOOD = Measured(
    old={"greedy": OLD, "sampled": OLD},
    new={"greedy": NEW, "sampled": NEW},
    comparison={"greedy": compared(-1.5, -0.5), "sampled": compared(-1.5, -0.5)},
    old_tokens=TokenLogprobs(good=-4.0, bad=-1.0, kept=-1.0),
    new_tokens=TokenLogprobs(good=-2.0, bad=-3.0, kept=-1.1),
    old_general=3.0,
    new_general=3.1,
)


def failing(found: Measured, limits: Limits | None = None) -> list[str]:
    decision = decide(found, limits or Limits())
    names = [one.name for one in decision.conditions if not one.holds]
    assert decision.promoted is (not names)
    return names


def changed(decoding: str, **figures: Any) -> Measured:
    return replace(GOOD, new={**GOOD.new, decoding: replace(NEW, **figures)})


def test_a_certain_improvement_that_breaks_nothing_is_promoted() -> None:
    """Every limit is reached and none is passed."""
    decision = decide(GOOD, Limits())
    assert decision.promoted
    (reason,) = decision.reasons
    assert reason == (
        "Decoded greedily, what is left to correct falls: 4.00 words a draft, 5.00 with the old model, a difference of "
        "−1.00 (95 % interval −1.50 to −0.50)."
    )
    assert len(decision.conditions) == 10


@pytest.mark.parametrize("high", [0.0, 0.1])
def test_an_improvement_within_the_noise_is_refused(high: float) -> None:
    found = replace(GOOD, comparison={**GOOD.comparison, "greedy": compared(-1.0, high)})
    assert failing(found) == ["edit_cost"]
    (reason,) = decide(found, Limits()).reasons
    assert "cannot be told from unchanged" in reason
    needed = {0.0: "about 200 needed", 0.1: "about 250 needed"}[high]
    assert f"Too few rows to be certain of so small a difference: 100 judged, {needed}." in reason


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": 5}, "Too few rows: 5 judged, at least 6 needed; hold out more."),
        (
            {"users": 4},
            "Too few users: 4 judged, at least 6 needed; hold out more, or let rows decide (--judge-by rows)",
        ),
        ({"users": 8, "detectable": None}, "Too few users: 8 judged, and they would show no difference for certain"),
        ({"rows": 7, "detectable": 1.0}, "Too few rows to be certain of so small a difference: 7 judged, about 35"),
        ({"detectable": 0.3}, "100 rows show a difference from about 0.30 words on."),
    ],
)
def test_a_refusal_for_want_of_rows_says_how_many(changed: dict[str, Any], said: str) -> None:
    found = replace(GOOD, comparison={**GOOD.comparison, "greedy": compared(-1.0, 0.1, **changed)})
    (reason,) = decide(found, Limits()).reasons
    assert said in reason


def test_a_rise_does_not_ask_for_more_rows() -> None:
    found = replace(GOOD, comparison={**GOOD.comparison, "greedy": compared(-0.1, 0.3)})
    assert "more rows would not help" in decide(found, Limits()).reasons[0]


def test_users_decide_and_rows_must_not_say_the_contrary() -> None:
    by_users = compared(-1.0, -0.2, users=20)
    decision = decide(replace(GOOD, comparison={**GOOD.comparison, "greedy": by_users}), Limits())
    assert "over 20 users a mean difference of −0.6 (95 % interval −1.0 to −0.2)" in decision.reasons[0]
    found = replace(GOOD, comparison={**GOOD.comparison, "greedy": replace(by_users, by_row=0.3)})
    assert failing(found) == ["edit_cost"]
    assert "But counted by row it does not fall: a difference of 0.3." in decide(found, Limits()).reasons[0]


@pytest.mark.parametrize(
    ("rows", "low", "high", "said"),
    [(7, -1.52, -0.48, "−1.5 to −0.5"), (7, -1.52, -0.04, "−1.52 to −0.04"), (100, -1.52, -0.48, "−1.52 to −0.48")],
)
def test_few_rows_have_few_decimals_and_no_end_that_is_not_0_reads_as_0(
    rows: int, low: float, high: float, said: str
) -> None:
    found = replace(GOOD, comparison={**GOOD.comparison, "greedy": compared(low, high, rows=rows)})
    assert f"(95 % interval {said})" in decide(found, Limits()).reasons[0]


def test_sampled_drafts_may_stay_and_must_not_get_worse() -> None:
    assert failing(replace(GOOD, comparison={**GOOD.comparison, "sampled": compared(0.0, 1.0)})) == []
    worse = replace(GOOD, comparison={**GOOD.comparison, "sampled": compared(0.1, 1.0)})
    assert failing(worse) == ["sampled_edit_cost"]
    assert "Sampled, what is left to correct rises" in decide(worse, Limits()).reasons[0]


@pytest.mark.parametrize("decoding", ["greedy", "sampled"])
@pytest.mark.parametrize(
    ("name", "holds", "fails"),
    [("repetition", 0.15, 0.151), ("length", 30.0, 30.1), ("ended", 0.85, 0.849)],
)
def test_what_drafts_are_like_has_limits(decoding: str, name: str, holds: float, fails: float) -> None:
    assert failing(changed(decoding, **{name: holds})) == []
    found = changed(decoding, **{name: fails})
    assert failing(found) == [f"{decoding}_{name}"]
    assert decoding in decide(found, Limits()).reasons[0].casefold()


def test_getting_shorter_ending_more_and_repeating_less_is_no_fault() -> None:
    assert failing(changed("greedy", length=1.0, ended=1.0, repetition=0.0)) == []


def test_forgetting_and_kept_tokens_have_limits() -> None:
    assert failing(replace(GOOD, new_general=3.11)) == ["general_loss"]
    assert failing(replace(GOOD, new_tokens=replace(GOOD.new_tokens, kept=-1.11))) == ["kept_tokens"]
    assert failing(replace(GOOD, new_general=3.4), Limits(max_general_rise=0.4)) == []
    assert failing(replace(GOOD, new_general=math.nan)) == ["general_loss"]


def test_what_was_not_measured_has_no_condition() -> None:
    none = TokenLogprobs(good=None, bad=None, kept=None)
    found = replace(GOOD, old_general=None, new_general=None, old_tokens=none, new_tokens=none)
    names = [one.name for one in decide(found, Limits()).conditions]
    assert "general_loss" not in names
    assert "kept_tokens" not in names


def test_every_reason_is_told() -> None:
    found = replace(
        changed("greedy", length=90.0), comparison={**GOOD.comparison, "greedy": compared(-1, 1)}, new_general=9.0
    )
    reasons = decide(found, Limits()).reasons
    assert len(reasons) == 3
    assert "Greedy drafts have 90.00 tokens, 20.00 with the old model" in reasons[1]
    assert "9.00 nats a token, 3.00 with the old model; the limit is a rise by 0.10." in reasons[2]
