from __future__ import annotations

import pytest

from errata.types import Verdict
from errata.winrate import verdicts_from_scores, win_rate


def test_higher_wins_and_equal_is_half() -> None:
    verdicts = verdicts_from_scores({"b": 2.0, "a": 1.0, "c": -3.0}, {"a": 1.0, "b": 1.5, "c": 0.0})
    assert verdicts == [Verdict(id="b", score=1.0), Verdict(id="a", score=0.5), Verdict(id="c", score=0.0)]
    assert win_rate(verdicts) == 0.5
    assert win_rate(verdicts[:2]) == 0.75


def test_the_two_sides_mirror() -> None:
    ours, theirs = {"a": 1.0, "b": 2.0, "c": 5.0}, {"a": 0.0, "b": 2.0, "c": 9.0}
    there, back = verdicts_from_scores(ours, theirs), verdicts_from_scores(theirs, ours)
    assert [verdict.score for verdict in there] == [1 - verdict.score for verdict in back]


def test_a_prompt_of_one_side_only_is_named() -> None:
    with pytest.raises(ValueError, match=r"the baseline has no score for 1 prompts .'b'."):
        verdicts_from_scores({"a": 1.0, "b": 1.0}, {"a": 1.0})
    with pytest.raises(ValueError, match=r"the candidate has no score for 2 prompts .'x', 'y'."):
        verdicts_from_scores({"a": 1.0}, {"a": 1.0, "y": 0.0, "x": 0.0})


def test_nan_is_no_score() -> None:
    with pytest.raises(ValueError, match=r"prompt 'a'.*NaN"):
        verdicts_from_scores({"a": 1.0}, {"a": float("nan")})
    with pytest.raises(ValueError, match=r"prompt 'a'.*NaN"):
        verdicts_from_scores({"a": float("nan")}, {"a": 1.0})


def test_no_verdict_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no verdict"):
        win_rate([])
