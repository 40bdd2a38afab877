from __future__ import annotations

import random
import re
from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.edits import diff, words
from errata.types import Label, LabeledTokens, Op, Ties
from errata.views.facing import face

from .rows import side


def plain(*tokens: str, ended: bool = True) -> LabeledTokens:
    return side(tokens, [0] * (len(tokens) + ended), ended=ended)


def columns(original: LabeledTokens, edited: LabeledTokens) -> list[tuple[str, str]]:
    """The columns as texts; the end of sequence is a full stop in a circle."""
    sides = []
    for one in (original, edited):
        taken, texts = 0, []
        for start, stop in one.encoded.offsets:
            texts.append(one.text[max(taken, start) : stop])
            taken = max(taken, stop)
        if one.encoded.ended:
            texts[-1] = "⊙"
        sides.append(texts)
    found, left, right = [], 0, 0
    for many, more in face(original, edited):
        found.append(("|".join(sides[0][left : left + many]), "|".join(sides[1][right : right + more])))
        left, right = left + many, right + more
    assert (left, right) == (len(sides[0]), len(sides[1]))
    return found


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        pytest.param(
            side(["It", " cos", "ts", " nine", " stupid", " coins", " now"], [0, 0, 0, 3, 2, 0, 0, 0]),
            side(["It", " costs", " se", "ven", " coins", " now", "."], [0, 0, 3, 3, 0, 0, 1, 0]),
            [
                ("It", "It"),
                (" cos|ts", " costs"),
                (" nine", " se|ven"),
                (" stupid", ""),
                (" coins", " coins"),
                (" now", " now"),
                ("", "."),
                ("⊙", "⊙"),
            ],
            id="a gap, a substitute, other pieces of a kept word",
        ),
        pytest.param(
            plain("a", " b", ended=False), plain("b"), [("a", ""), (" b", "b"), ("", "⊙")], id="one side did not end"
        ),
        pytest.param(plain("😀", "", "", ""), plain("😁", ""), [("😀|||", "😁|"), ("⊙", "⊙")], id="bytes of an emoji"),
        pytest.param(plain("a", " b"), plain(), [("a", ""), (" b", ""), ("⊙", "⊙")], id="all deleted"),
        pytest.param(plain(), plain(), [("⊙", "⊙")], id="nothing on either side"),
        pytest.param(plain(ended=False), plain(ended=False), [], id="nothing at all"),
        pytest.param(
            plain("a", "\n", "b"), plain("a", "\n\n", "b", " c"),
            [("a", "a"), ("\n", "\n\n"), ("b", "b"), ("", " c"), ("⊙", "⊙")],
            id="a line break is a column",
        ),
        pytest.param(
            plain("a", "."), plain("a", "\n", "b", "."),
            [("a", "a"), ("", "\n"), ("", "b"), (".", "."), ("⊙", "⊙")],
            id="and one that was put in",
        ),
    ],
)  # fmt: skip
def test_by_hand(original: LabeledTokens, edited: LabeledTokens, expected: list[tuple[str, str]]) -> None:
    assert columns(original, edited) == expected


TEXTS = st.text("ab .\n😀é東", max_size=14) | st.text(max_size=10)


def cut(text: str, rng: random.Random) -> LabeledTokens:
    tokens = [piece for piece in re.split("(?=.)" if rng.random() < 0.3 else r"(?= |\n)", text) if piece]
    for index in range(len(tokens), 0, -1):
        if rng.random() < 0.2:
            tokens.insert(index, "")
    return plain(*tokens, ended=rng.random() < 0.8)


@given(TEXTS, TEXTS, st.integers(0, 99))
def test_every_token_stands_in_one_column(original: str, edited: str, seed: int) -> None:
    rng = random.Random(seed)
    left, right = cut(original, rng), cut(edited, rng)
    counts = face(left, right)
    assert (0, 0) not in counts
    assert sum(count for count, _ in counts) == len(left.labels)
    assert sum(count for _, count in counts) == len(right.labels)


@given(st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=8), st.lists(st.sampled_from("abcx"), max_size=8))
def test_whole_words_face_as_the_diff_says(original: list[str], edited: list[str]) -> None:
    texts = ["".join(f" {word}" for word in side) for side in (original, edited)]
    edits = [
        edit for edit in diff(*texts, ties=Ties.DEPARTURE) if edit.original.text.strip() or edit.edited.text.strip()
    ]
    labels: tuple[list[int], list[int]] = ([], [])
    expected = []
    for edit in edits:
        sides = [[text[start:stop] for start, stop in words(text)] for text in (edit.original.text, edit.edited.text)]
        expected += zip_longest(*sides, fillvalue="")
        for label, found, name in zip(labels, sides, (Label.DELETED, Label.INSERTED), strict=True):
            kind = {Op.KEEP: Label.KEPT, Op.SUBSTITUTE: Label.SUBSTITUTED}.get(edit.op, name)
            label += [kind] * len(found)
    left, right = (
        side([f" {word}" for word in tokens], [*given, 0])
        for tokens, given in zip((original, edited), labels, strict=True)
    )
    # Deleted and inserted words that stand between the same two kept ones have no order among each other.
    found = [(a.strip(), b.strip()) for a, b in columns(left, right)[:-1]]
    for kind in ((True, True), (True, False), (False, True)):
        assert [one for one in found if tuple(map(bool, one)) == kind] == [
            one for one in expected if tuple(map(bool, one)) == kind
        ]


def test_labels_say_who_is_a_substitute() -> None:
    """Whichever of two edits that cost the same the labels were made from."""
    edited = side(["It", " seven", " now"], [0, 3, 0, 0])
    first = side(["It", " nine", " odd", " now"], [0, 3, 2, 0, 0])
    second = side(["It", " nine", " odd", " now"], [0, 2, 3, 0, 0])
    assert columns(first, edited)[1:3] == [(" nine", " seven"), (" odd", "")]
    assert columns(second, edited)[1:3] == [(" nine", ""), (" odd", " seven")]
