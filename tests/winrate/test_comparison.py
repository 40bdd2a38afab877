from __future__ import annotations

import dataclasses
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.types import Demonstration
from errata.winrate import (
    ChatJudge,
    Ruling,
    ScoreJudge,
    compare_rulings,
    contest,
    pair_up,
    read_contest,
    swapped,
    write_contest,
)

from .chats import Scripted, fewer_rude


def rows(texts, **extra):
    """Answers to the prompts p0, p1, …"""
    return [
        Demonstration(id=f"p{k}", prompt=f"say {k}", response=text, extra={"topic": "ab"[k % 2], **extra})
        for k, text in enumerate(texts)
    ]


BASELINE = rows(["one rude", "two rude rude", "six", "red rude", "blue", "cat", "dog rude", "here"])
GOOD = rows(["one", "two", "six rude", "red now", "blue", "cat", "dog", "here"])
"""Wins 0, 1, 3, 6; loses 2; the rest is alike."""
LONG = rows(
    [
        "one one one one rude",
        "two rude rude two two",
        "six",
        "red",
        "blue blue blue rude",
        "cat",
        "dog rude",
        "here here",
    ]
)


def polite(answers):
    return [-answer.count("rude") for _, _, answer in answers]


POLITE = ScoreJudge(polite, name="polite", value="minus rude words")


def test_by_hand() -> None:
    found, rulings = contest({"good": GOOD}, BASELINE, POLITE, baseline_name="old", group_field="topic")
    (arm,) = found.arms
    assert (arm.prompts, arm.wins, arm.ties, arm.losses, arm.invalid) == (8, 4, 3, 1, 0)
    assert arm.win_rate.mean == 5.5 / 8
    assert arm.standard_error == pytest.approx(0.1315261, rel=1e-6)  # s = .372012 with the divisor 7, over √8
    assert arm.detectable == pytest.approx(2.8 * ((5 + 2) / 4 / 10 / 8) ** 0.5)  # five decided, and two besides
    assert (arm.valid, arm.win_rate_invalid_tied) == (8, 5.5 / 8)
    assert (arm.mean_length, arm.baseline_length) == (10 / 8, 13 / 8)
    assert (arm.longer_wins, arm.longer_agreement.mean) == (3 / 8, 0.0)  # longer once and shorter three times
    assert (arm.mean_value, arm.baseline_value) == (-1 / 8, -5 / 8)
    assert (arm.consistency, arm.first_position) == (None, None)
    assert [(one.name, one.prompts, one.win_rate) for one in arm.by_group] == [("a", 4, 0.625), ("b", 4, 0.75)]
    assert [(one.name, one.prompts, one.win_rate) for one in arm.by_length] == [
        ("shorter", 3, 1.0),
        ("alike", 4, 0.625),
        ("longer", 1, 0.0),
    ]
    assert (arm.by_length[2].interval.low, arm.by_length[2].interval.high) == (0, 0.975)
    assert arm.verdicts == {f"p{k}": score for k, score in enumerate([1, 1, 0, 1, 0.5, 0.5, 1, 0.5])}
    assert [ruling.score for ruling in rulings["good"]] == list(arm.verdicts.values())
    assert found.differences == ()
    assert found.baseline == "old"
    assert any("few" in warning for warning in found.warnings)


def test_a_chat_judge_of_two_arms() -> None:
    """It prefers the first where the prompt is p0, and cannot be understood on p3."""

    def word(request, first, second):
        return "first" if request == "say 0" else None if request == "say 3" else fewer_rude(request, first, second)

    chat = Scripted(word)
    found, _ = contest({"good": GOOD, "long": LONG}, BASELINE, ChatJudge(chat, name="scripted"))
    good, long = found.arms
    assert (good.wins, good.ties, good.losses, good.invalid) == (2, 4, 1, 1)
    assert good.invalid_ids == ("p3",)
    assert (good.valid, good.win_rate.mean) == (7, (2 + 4 * 0.5) / 7)
    assert good.win_rate_invalid_tied == (2 + 5 * 0.5) / 8
    assert good.verdicts["p3"] is None
    assert sum(one.prompts for one in good.by_length) == 7
    # Asked on p0, p1, p2, p6; of the 8 words 2 are "first" by habit, of the other 6 each good answer was first once.
    assert (good.consistency, good.first_position) == (3 / 4, 5 / 8)
    assert (long.wins, long.losses, long.invalid) == (0, 1, 1)
    (difference,) = found.differences
    assert (difference.first, difference.second) == ("good", "long")
    assert difference.prompts == 7
    assert difference.difference.mean == pytest.approx(good.win_rate.mean - long.win_rate.mean)
    assert difference.p_value == pytest.approx(10 / 16, abs=0.02)  # +½ −½ +½ +½: |S*| ≥ 1 in 10 of 16
    assert found.spent.cost == pytest.approx(0.001 * len(chat.asks))
    assert found.spent.input_tokens == 100 * len(chat.asks)
    assert any("1 of 8 pairs have no valid verdict" in warning for warning in found.warnings)
    assert found.judge.models == ("scripted-1",)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 9)), min_size=2, max_size=30))
def test_swapping_the_sides_mirrors_everything(counts) -> None:
    ours = rows(["rude " * a + "one " * n for a, _, n in counts])
    theirs = rows(["rude " * b + "two" for _, b, _ in counts])
    pairs = pair_up({"arm": ours}, theirs)
    back = {"arm": swapped(pairs["arm"])}

    def word(request, first, second):
        """Biased to the first, and at a loss with some."""
        a, b = first.count("rude"), second.count("rude")
        return None if a + b == 3 else "first" if a <= b else "second"

    judge = ChatJudge(Scripted(word), name="scripted")
    (there,) = compare_rulings(pairs, {"arm": judge(pairs["arm"])}, judge.identity).arms
    (here,) = compare_rulings(back, {"arm": judge(back["arm"])}, judge.identity).arms
    assert (here.win_rate is None) == (there.win_rate is None) == (there.invalid == len(counts))
    if there.valid < 2:
        return
    assert here.win_rate.mean == pytest.approx(1 - there.win_rate.mean)
    assert (here.wins, here.ties, here.losses, here.invalid) == (there.losses, there.ties, there.wins, there.invalid)
    assert (here.consistency, here.first_position) == (there.consistency, there.first_position)
    assert here.standard_error == pytest.approx(there.standard_error)
    assert here.length_controlled.mean == pytest.approx(1 - there.length_controlled.mean, abs=1e-6)
    assert here.longer_agreement == there.longer_agreement
    mirrored = {"shorter": "longer", "longer": "shorter", "alike": "alike"}
    assert {mirrored[one.name]: pytest.approx(1 - one.win_rate) for one in here.by_length} == {
        one.name: one.win_rate for one in there.by_length
    }


@pytest.mark.parametrize("valid", [0, 1, 2])
def test_a_verdict_that_is_not_valid_is_in_no_rate(valid) -> None:
    """Two wins and thirty invalid ones are 100 % of two, not 53 % of 32; of none there is no rate."""
    arm, base = rows(["one"] * 32), rows(["two"] * 32)
    rulings = [Ruling(score=1.0 if k < valid else 0.5, valid=k < valid) for k in range(32)]
    other = [Ruling(score=0.0)] * 32
    pairs = pair_up({"arm": arm, "other": arm}, base)
    found = compare_rulings(pairs, {"arm": rulings, "other": other}, POLITE.identity, groups=["a"] * 32)
    one = found.arms[0]
    assert (one.prompts, one.valid, one.invalid) == (32, valid, 32 - valid)
    assert (one.win_rate and one.win_rate.mean) == (1.0 if valid else None)
    assert one.win_rate_invalid_tied == ((valid + (32 - valid) / 2) / 32 if valid else None)
    assert [each.prompts for each in one.by_group] == ([valid] if valid else [])
    difference = found.differences[0]
    assert (difference.prompts, difference.difference and difference.difference.mean) == (valid, 1.0 if valid else None)
    assert (difference.p_value is None) == (valid == 0)
    said = "no valid verdict, 0 of 32" if not valid else f"{32 - valid} of 32 pairs have no valid verdict"
    assert any(said in warning for warning in found.warnings)


def test_the_order_of_an_arms_rows_does_not_matter() -> None:
    shuffled = random.Random(0).sample(GOOD, len(GOOD))
    assert contest({"good": shuffled}, BASELINE, POLITE) == contest({"good": GOOD}, BASELINE, POLITE)


def test_two_answers_to_one_prompt_are_an_error_or_a_warning() -> None:
    for arm, base in (([*GOOD, GOOD[0]], BASELINE), (GOOD, [*BASELINE, BASELINE[0]])):
        with pytest.raises(ValueError, match="2 rows with the id 'p0'"):
            pair_up({"good": arm}, base)
    arm, base = ([dataclasses.replace(row, prompt="the same") for row in side] for side in (GOOD, BASELINE))
    assert any("7 of 8 rows ask what another" in warning for warning in contest({"g": arm}, base, POLITE)[0].warnings)
    assert not any("what another" in warning for warning in contest({"g": GOOD}, BASELINE, POLITE)[0].warnings)


def test_warnings() -> None:
    edited = rows([row.response for row in GOOD], editor_model="gpt-4o")
    for name, warned in (("gpt-4.1", True), ("claude-x", False)):
        judge = ChatJudge(
            lambda asks, name=name: [dataclasses.replace(a, model=name) for a in Scripted(fewer_rude)(asks)], name="j"
        )
        found, _ = contest({"good": edited}, BASELINE, judge)
        assert any("one family" in warning for warning in found.warnings) == warned
        found, _ = contest({"good": GOOD}, BASELINE, judge, editors=["gpt-5"])
        assert any("one family" in warning for warning in found.warnings) == warned
    first = ChatJudge(Scripted(lambda *_: "first"), name="j")
    found, _ = contest({"good": GOOD}, BASELINE, first)
    assert any("contradicts itself on 100 %" in warning for warning in found.warnings)
    reward = ScoreJudge(polite, name="folder", kind="reward")
    assert any("trained on it" in warning for warning in contest({"good": GOOD}, BASELINE, reward)[0].warnings)


@pytest.mark.parametrize(
    ("words", "others", "longer_wins_of", "said"),
    [
        ([30] * 40, [20] * 40, 40, "100 % (91 to 100) of the decided verdicts went to the longer answer"),
        ([20] * 40, [30] * 40, 2, "95 % (83 to 99) of the decided verdicts went to the shorter answer"),
        ([30] * 40, [20] * 40, 30, "75 % (59 to 87) of the decided verdicts went to the longer answer"),
        ([21] * 40, [20] * 40, 40, None),  # a word more leads nobody astray
        ([30] * 5 + [20] * 35, [20] * 40, 5, None),  # five of five may be chance
        ([30] * 40, [20] * 40, 24, None),  # so may 24 of 40
        ([30] * 2000, [20] * 2000, 1100, None),  # 55 %: beyond chance, and little
    ],
)
def test_a_judge_of_length_is_warned_of(words, others, longer_wins_of, said) -> None:
    """The arm is the longer one or the shorter one on all prompts, and the longer answer wins so often."""
    arm_is_longer = words[0] > others[0]
    wins = [(k < longer_wins_of) == arm_is_longer for k in range(len(words))]
    arm, baseline = (rows(["word " * count for count in counts]) for counts in (words, others))
    rulings = [Ruling(score=float(won)) for won in wins]
    found = compare_rulings({"arm": pair_up({"arm": arm}, baseline)["arm"]}, {"arm": rulings}, POLITE.identity)
    warned = [warning for warning in found.warnings if "went to the" in warning]
    assert [said in warning for warning in warned] == ([True] if said else [])


def test_examples_are_where_arms_differ_most() -> None:
    found, _ = contest({"good": GOOD, "long": LONG}, BASELINE, POLITE, examples=3)
    verdicts = [(one.id, one.verdicts["good"] - one.verdicts["long"]) for one in found.examples]
    assert verdicts == [("p0", 0.5), ("p1", 0.5), ("p2", -0.5)]
    found, _ = contest({"good": GOOD}, BASELINE, POLITE, examples=2)
    assert [one.verdicts["good"] for one in found.examples] == [1.0, 0.0]
    assert found.examples[0].answers == {"good": "one"}


def test_file(tmp_path) -> None:
    judge = ChatJudge(Scripted(fewer_rude), name="scripted")
    found, _ = contest({"good": GOOD, "long": LONG}, BASELINE, judge, group_field="topic", date="2026-01-01")
    write_contest(tmp_path / "contest.json", found)
    assert read_contest(tmp_path / "contest.json") == found
    mute = ChatJudge(Scripted(lambda *_: None), name="j")
    silent, _ = contest({"a": rows(["a"] * 4), "b": rows(["b"] * 4)}, rows(["c"] * 4), mute)
    write_contest(tmp_path / "contest.json", silent)
    assert read_contest(tmp_path / "contest.json") == silent
    assert json.loads((tmp_path / "contest.json").read_text())["arms"][0]["win_rate"] is None


@pytest.mark.parametrize(
    ("arms", "baseline", "said"),
    [
        ({}, BASELINE, "no candidate"),
        ({"good": GOOD}, BASELINE[:1], "two or more"),
        ({"good": GOOD[1:]}, BASELINE, r"good has no answer to the prompt 'p0' \(1 in all\)"),
        ({"good": GOOD}, BASELINE[:-2], r"the baseline has no answer to the prompt 'p6' \(2 in all\)"),
        ({"good": [dataclasses.replace(row, prompt="else") for row in GOOD]}, BASELINE, "another prompt in good"),
    ],
)
def test_errors(arms, baseline, said) -> None:
    with pytest.raises(ValueError, match=said):
        contest(arms, baseline, POLITE)


def test_a_group_field_that_is_missing() -> None:
    with pytest.raises(ValueError, match=r"row 'p0' of the baseline has no field 'kind'"):
        contest({"good": GOOD}, BASELINE, POLITE, group_field="kind")
