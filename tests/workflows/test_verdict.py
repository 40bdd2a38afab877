"""Each condition by itself: what just holds, what just fails, what is said, and what to do next."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from errata.winrate import Interval
from errata.workflows import Comparison, DraftFigures, Limits, Measured, TokenLogprobs, decide
from errata.workflows.edit_points import EditPointFigures, PointsCompared
from errata.workflows.verdict import AnewCompared, Drafter, JudgedPairs

OLD = DraftFigures(rows=100, edit_cost=Interval(5, 4, 6), length=20.0, ended=0.9, repetition=0.1)
NEW = replace(OLD, edit_cost=Interval(4, 3, 5))
ALONG = EditPointFigures(
    rows=100, points=200, written=0.4, preferred=0.5, margin=-1.0, missed=9.0, otherwise=2.0, otherwise_share=0.04
)


def compared(low: float, high: float, **changed: Any) -> Comparison:
    mean = (low + high) / 2
    given = {"rows": 100, "users": None, "by_row": mean, "wins": 0.5, "ties": 0.3, "losses": 0.2, "detectable": 0.7}
    return Comparison(**{**given, "difference": Interval(mean, low, high), **changed})


POINTS = PointsCompared(
    old=ALONG,
    new=replace(ALONG, written=0.8, missed=4.0, otherwise=3.0, otherwise_share=0.06),
    missed=compared(-6.0, -4.0),
    otherwise=compared(0.5, 1.5),
)
GOOD = Measured(
    points=POINTS,
    drafter=Drafter(rows=100, again=0.9, logged_cost=5.0),
    old={"greedy": OLD, "sampled": OLD},
    new={"greedy": NEW, "sampled": NEW},
    comparison={"greedy": compared(1.0, 3.0), "sampled": compared(1.0, 3.0)},
    old_tokens=TokenLogprobs(good=-4.0, bad=-1.0, kept=-1.0),
    new_tokens=TokenLogprobs(good=-2.0, bad=-3.0, kept=-1.1),
    old_general=3.0,
    new_general=3.1,
)


def failing(found: Measured, limits: Limits | None = None) -> list[str]:
    decision = decide(found, limits or Limits())
    failed = [one for one in decision.conditions if not one.holds]
    assert decision.promoted is (not failed)
    assert all(one.remedy for one in failed), "what fails says what to do"
    assert all(one.said.endswith(".") and "{" not in one.said for one in decision.conditions)
    return [one.name for one in failed]


def changed(decoding: str, **figures: Any) -> Measured:
    return replace(GOOD, new={**GOOD.new, decoding: replace(NEW, **figures)})


def missed(comparison: Comparison) -> Measured:
    return replace(GOOD, points=replace(POINTS, missed=comparison))


def test_a_certain_improvement_that_breaks_nothing_is_promoted_however_far_it_is_from_what_was_sent() -> None:
    """Every limit is reached and none is passed; the model drafted the log itself, so distance decides nothing."""
    decision = decide(GOOD, Limits())
    assert failing(GOOD) == []
    assert decision.reasons == (
        "Of the words that people changed, the new model would by itself still get 4.00 a draft wrong, the old model "
        "9.00: 5.00 fewer, 56 % (with 95 % certainty at least 4.00).",
    )
    assert decision.next.startswith("Let some people work with model/")
    assert "edit_cost" not in [one.name for one in decision.conditions]


@pytest.mark.parametrize("high", [0.0, 0.1])
def test_an_improvement_within_the_noise_is_refused(high: float) -> None:
    found = missed(compared(-1.0, high))
    assert failing(found) == ["edit_points"]
    (reason,) = decide(found, Limits()).reasons
    assert "which cannot be told from chance (between 1.00 fewer and 0." in reason
    needed = {0.0: "about 200 needed", 0.1: "about 250 needed"}[high]
    assert f"Too few rows: 100 judged, {needed} to be certain." in reason
    assert "--heldout-share" in decide(found, Limits()).next


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": 5}, "Too few rows: 5 judged, at least 6 needed."),
        ({"users": 4}, "Too few users: 4 judged, at least 6 needed."),
        ({"users": 8, "detectable": None}, "Too few users: 8 judged, and so few show nothing for certain."),
        ({"rows": 7, "detectable": 1.0}, "Too few rows: 7 judged, about 35 needed to be certain."),
        ({"detectable": 0.3}, "100 rows were judged, and chance was against it."),
    ],
)
def test_a_refusal_for_want_of_rows_says_how_many(changed: dict[str, Any], said: str) -> None:
    decision = decide(missed(compared(-1.0, 0.1, **changed)), Limits())
    assert said in decision.reasons[0]
    assert ("--judge-by rows" in decision.next) is (changed.get("users") == 4)


def test_whichever_way_one_counts_it_has_to_fall() -> None:
    assert failing(missed(compared(-6.0, -4.0, by_user=-0.1))) == []
    found = missed(compared(-6.0, -4.0, by_user=0.2))
    assert failing(found) == ["edit_points"]
    assert "But where every user counts once it does not fall: 0.2 words." in decide(found, Limits()).reasons[0]


def test_a_rise_does_not_ask_for_more_rows() -> None:
    decision = decide(missed(compared(-0.1, 0.3)), Limits())
    assert "More rows to judge by would not help." in decision.reasons[0]
    assert "--epochs" in decision.next


def test_users_decide_and_rows_must_not_say_the_contrary() -> None:
    by_users = compared(-1.0, -0.2, users=20)
    assert "0.6 fewer over 20 users" in decide(missed(by_users), Limits()).reasons[0]
    found = missed(replace(by_users, by_row=0.3))
    assert failing(found) == ["edit_points"]
    assert "But where every row counts once it does not fall: 0.3 words." in decide(found, Limits()).reasons[0]


@pytest.mark.parametrize(
    ("rows", "high", "said"), [(7, -0.48, "at least 0.5)"), (7, -0.04, "at least a little)"), (100, -0.48, "0.48)")]
)
def test_few_rows_have_few_decimals(rows: int, high: float, said: str) -> None:
    reason = decide(missed(compared(-1.52, high, rows=rows)), Limits()).reasons[0]
    assert said in reason
    assert bool(re.search(r"\d\.\d\d", reason)) is (rows > 7)


def test_a_log_without_changed_words_proves_nothing() -> None:
    none = replace(ALONG, points=0, written=None, preferred=None, margin=None, missed=0.0)
    found = replace(GOOD, points=replace(POINTS, old=none, new=none, missed=compared(0, 0), otherwise=compared(0, 0)))
    assert failing(found) == ["edit_points"]


def test_over_editing_has_a_limit_and_must_not_cost_more_than_is_won() -> None:
    def over(share: float, words: float) -> Measured:
        return replace(GOOD, points=replace(POINTS, new=replace(POINTS.new, otherwise_share=share, otherwise=words)))

    assert failing(over(0.14, 7.0)) == []
    assert failing(over(0.141, 6.9)) == ["over_editing"]
    assert failing(over(0.141, 6.9), Limits(max_over_editing=0.2)) == []
    assert failing(over(0.14, 7.01)) == ["net_words"]
    assert "--kept-weight" in decide(over(0.5, 1.0), Limits()).next


def test_an_editor_decides_first_and_the_edit_points_must_not_get_worse_for_certain() -> None:
    anew = AnewCompared(
        editor="plain", old=15.2, new=0.4, words=compared(-18.0, -12.0, rows=52), unedited=0, rewritten=1, drafts=104
    )
    decision = decide(replace(missed(compared(-1.0, 1.0)), anew=anew), Limits())
    assert decision.promoted
    assert decision.reasons == (
        "plain still changes 0.4 words in a draft of the new model, 15.2 in one of the old: 15.0 fewer, 99 % (with "
        "95 % certainty at least 12.0).",
    )
    assert failing(replace(missed(compared(0.1, 1.0)), anew=anew)) == ["edit_points"]
    assert failing(replace(GOOD, anew=replace(anew, words=compared(-18.0, 0.5)))) == ["edited_anew"]


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("people", "People still change 0.4 words in a draft of the new model"),
        ("the editor strict", "The editor strict still changes 0.4 words"),
        ("m@http://127.0.0.1", "m@http://127.0.0.1 still changes 0.4 words"),
    ],
)
def test_who_edits_is_told_in_a_sentence(editor: str, said: str) -> None:
    words = compared(-18.0, -12.0, rows=52)
    anew = AnewCompared(editor=editor, old=15.2, new=0.4, words=words, unedited=2, rewritten=60, drafts=104)
    (reason,) = decide(replace(GOOD, anew=anew), Limits()).reasons
    assert reason.startswith(said)
    they = "they" if editor == "people" else "it"
    assert f" {they.title()} gave nothing for 2 of 104 drafts. But {they} wrote 60 of 104 drafts anew" in reason


def test_where_another_model_drafted_the_log_the_distance_decides_too() -> None:
    other = replace(GOOD, drafter=Drafter(rows=100, again=0.03, logged_cost=4.0))
    assert failing(other) == ["edit_cost"]
    nearer = replace(other, comparison={**other.comparison, "greedy": compared(-1.5, -0.5)})
    assert failing(nearer) == []
    assert failing(replace(other, drafter=replace(other.drafter, told="model"))) == []
    assert failing(replace(GOOD, drafter=replace(GOOD.drafter, told="other"))) == ["edit_cost"]


def test_a_model_that_is_not_the_drafters_equal_is_refused_by_name() -> None:
    """28 words where the logged drafts left 10: promoted once."""
    worse = replace(
        GOOD,
        drafter=Drafter(rows=100, again=0.0, logged_cost=10.0),
        old={**GOOD.old, "greedy": replace(OLD, edit_cost=Interval(28, 26, 30))},
        comparison={**GOOD.comparison, "greedy": compared(-1.5, -0.5)},
    )
    assert failing(worse) == ["drafter"]
    (reason,) = decide(worse, Limits()).reasons
    assert reason == (
        "--model does not seem to have written the logged drafts. It writes 0 % of them again. It leaves 28.0 words to "
        "correct where the logged drafts left 10.0; up to 1.5 times as many would do."
    )
    assert "--drafted-by model" in decide(worse, Limits()).next
    assert failing(worse, Limits(max_drafter_gap=3)) == []


@pytest.mark.parametrize(("side", "ended"), [("old", 0.49), ("new", 0.49), ("old", 0.0)])
def test_where_most_drafts_are_cut_nothing_is_promoted(side: str, ended: float) -> None:
    """No draft came to an end under a cap of 40 tokens: promoted once."""
    figures = {"old": OLD, "new": NEW, side: replace(OLD, ended=ended)}
    found = replace(GOOD, **{name: {**getattr(GOOD, name), "greedy": figures[name]} for name in ("old", "new")})
    assert "drafts_end" in failing(found)
    assert decide(found, Limits()).next == "Let drafts come to an end: double --max-new-tokens, in another --out."


def test_a_judge_must_not_prefer_the_old_model_for_certain() -> None:
    judged = JudgedPairs(judge="j", pairs=40, invalid=2, rate=0.4, low=0.3, high=0.5)
    assert failing(replace(GOOD, judged=judged)) == []
    assert failing(replace(GOOD, judged=replace(judged, high=0.49))) == ["judge"]


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
    assert not {"general_loss", "kept_tokens", "judge", "edited_anew", "drafter"} & set(names)


def test_every_reason_is_told() -> None:
    found = replace(changed("greedy", length=90.0), points=replace(POINTS, missed=compared(-1, 1)), new_general=9.0)
    reasons = decide(found, Limits()).reasons
    assert len(reasons) == 3
    decision = decide(found, Limits())
    assert [one.remedy for one in decision.conditions if not one.holds] == [decision.next, *decision.then]
    assert decide(GOOD, Limits()).then == ()
    both = replace(found, new={name: replace(NEW, length=90.0, ended=0.1) for name in ("greedy", "sampled")})
    decision = decide(both, Limits())
    assert decision.next.startswith("Let drafts come to an end"), "before what was found by drafts that are cut"
    assert len(decision.then) == len(set(decision.then)) == 3, "each thing once"
    assert "Greedy drafts have 90 tokens, 20 with the old model" in reasons[1]
    assert "9.00 nats a token, 3.00 with the old model; it may rise by 0.10." in reasons[2]
