from __future__ import annotations

import pytest

from errata.winrate import ChatJudge, Planted, ScoreJudge, check_judge

from .chats import Scripted, fewer_rude

PLANTED = [
    *(Planted(id=f"r{k}", prompt=f"say {k}", good="one two", spoiled="one rude two", kind="rude") for k in range(4)),
    *(Planted(id=f"m{k}", prompt=f"say {k}", good="one two", spoiled="one", kind="missing") for k in range(2)),
    Planted(id="w", prompt="say 9", good="one two", spoiled="one six", kind="wrong"),
]
CONTROL = [Planted(id=f"c{k}", prompt="say 1", good="one red", spoiled="red one", kind="none") for k in range(4)]


def by(slices):
    return {one.name: (one.prompts, one.win_rate) for one in slices}


def test_a_judge_that_sees_one_kind_only() -> None:
    found = check_judge(ChatJudge(Scripted(fewer_rude), name="j"), PLANTED, control=CONTROL)
    assert by(found.kinds) == {"missing": (2, 0.5), "rude": (4, 1.0), "wrong": (1, 0.5)}
    assert (found.pairs, found.right, found.tied, found.wrong, found.invalid) == (7, 4, 3, 0, 0)
    assert found.accuracy.mean == 5.5 / 7
    assert (found.consistency, found.first_position, found.control_tied) == (1.0, 0.5, 1.0)
    assert found.cost == pytest.approx(2 * 11 * 0.001)


def test_a_judge_that_likes_length() -> None:
    longer = ScoreJudge(lambda answers: [len(a.split()) for _, _, a in answers], name="long")
    found = check_judge(longer, PLANTED)
    assert by(found.lengths) == {"good is shorter": (4, 0.0), "as long": (1, 0.5), "good is longer": (2, 1.0)}
    assert found.wrong == 4
    assert (found.consistency, found.first_position, found.control_tied) == (None, None, None)


def test_a_judge_that_likes_the_first_place() -> None:
    found = check_judge(ChatJudge(Scripted(lambda *_: "first"), name="j"), PLANTED, control=CONTROL)
    assert (found.consistency, found.first_position, found.accuracy.mean) == (0.0, 1.0, 0.5)
    assert found.control_tied == 1.0


def test_a_judge_that_does_not_answer() -> None:
    found = check_judge(ChatJudge(Scripted(lambda *_: None, cost=None), name="j"), PLANTED)
    assert (found.invalid, found.tied, found.accuracy, found.cost) == (7, 0, None, None)
    assert (found.kinds, found.lengths) == ((), ())


def test_no_answer_on_a_control_is_no_tie() -> None:
    planted = {one.good for one in PLANTED}
    judge = ChatJudge(Scripted(lambda _, a, b: "tie" if {a, b} & planted else None), name="j")
    assert check_judge(judge, PLANTED, control=CONTROL).control_tied == 0.0


def test_too_few() -> None:
    with pytest.raises(ValueError, match="two or more"):
        check_judge(ChatJudge(Scripted(fewer_rude), name="j"), PLANTED[:1])
