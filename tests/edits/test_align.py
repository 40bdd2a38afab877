from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import errata.edits.align as align_module
from edits.table import distance_by_table, table
from errata.edits.align import align
from errata.types import Label, Ties

LETTER = {Label.KEPT: "K", Label.INSERTED: "I", Label.DELETED: "D", Label.SUBSTITUTED: "S"}


def letters(original: Sequence[Hashable], edited: Sequence[Hashable], ties: Ties = Ties.TAGGER) -> tuple[str, str]:
    sides = align(original, edited, ties)
    return "".join(LETTER[Label(k)] for k in sides[0]), "".join(LETTER[Label(k)] for k in sides[1])


def by_table(original: Sequence[object], edited: Sequence[object]) -> tuple[str, str]:
    """The rule as it is written: from the end, keep or substitute, then delete, then insert."""
    distance = table(original, edited)
    i, j = len(original), len(edited)
    a, b = [""] * i, [""] * j
    while i or j:
        if i and j and distance[i][j] == distance[i - 1][j - 1] + (original[i - 1] != edited[j - 1]):
            i, j = i - 1, j - 1
            a[i] = b[j] = "K" if original[i] == edited[j] else "S"
        elif i and distance[i][j] == distance[i - 1][j] + 1:
            i -= 1
            a[i] = "D"
        else:
            j -= 1
            b[j] = "I"
    return "".join(a), "".join(b)


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        ("", "", ("", "")),
        ("abc", "abc", ("KKK", "KKK")),
        ("", "ab", ("", "II")),
        ("ab", "", ("DD", "")),
        ("abc", "axc", ("KSK", "KSK")),
        ("a", "bac", ("K", "IKI")),
        ("ab", "bc", ("SS", "SS")),  # not delete a, keep b, insert c, which is as cheap
        ("aab", "ab", ("DKK", "KK")),  # of equal words the first goes
        ("ab", "aab", ("KK", "IKK")),
        ("abab", "ab", ("DDKK", "KK")),
        ("xab", "ab", ("DKK", "KK")),
        ("abc", "ab", ("KKD", "KK")),
        ("abcd", "bcda", ("DKKK", "KKKI")),
        ("abcdef", "azced", ("KSKDKS", "KSKKS")),
    ],
)
def test_golden(original: str, edited: str, expected: tuple[str, str]) -> None:
    assert letters(original, edited) == expected


sequences = st.integers(1, 4).flatmap(lambda size: st.lists(st.integers(0, size), max_size=14))


@given(st.lists(st.integers(0, 2), max_size=5), sequences, sequences, st.lists(st.integers(0, 2), max_size=5))
@example([0], [], [0], [])
@example([0, 1], [1], [2, 1], [0, 1])
def test_is_the_table_walked_by_the_rule(start: list[int], a: list[int], b: list[int], end: list[int]) -> None:
    original, edited = [*start, *a, *end], [*start, *b, *end]
    assert letters(original, edited) == by_table(original, edited)


@given(st.lists(st.sampled_from("abé😀"), max_size=200), st.lists(st.sampled_from("abé😀"), max_size=150))
def test_is_minimal_and_pairs_what_it_keeps(original: list[str], edited: list[str]) -> None:
    a, b = letters(original, edited)
    assert len(a) == len(original)
    assert len(b) == len(edited)
    assert a.count("S") == b.count("S")
    assert [u for u, k in zip(original, a, strict=True) if k == "K"] == [
        u for u, k in zip(edited, b, strict=True) if k == "K"
    ]
    assert a.count("S") + a.count("D") + b.count("I") == distance_by_table(original, edited)


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        ("aab", "ab", ("KDK", "KK")),
        ("ab", "aab", ("KK", "KIK")),
        ("abab", "ab", ("KKDD", "KK")),
        ("s.s.t", "s.t", ("KKDDK", "KKK")),
        ("s.t", "s.n.t", ("KKK", "KKIIK")),  # not ".n" before the "."
        ("aabaab", "ab", ("KDDDDK", "KK")),  # a run moves as a whole
        ("xaxa", "aa", ("DKDK", "KK")),
        ("xaxay", "ay", ("DDDKK", "KK")),
        ("abc", "axc", ("KSK", "KSK")),
        ("aab", "xb", ("DSK", "SK")),  # what is substituted stays
    ],
)
def test_departure_golden(original: str, edited: str, expected: tuple[str, str]) -> None:
    assert letters(original, edited, Ties.DEPARTURE) == expected


@given(sequences, sequences)
def test_departure_is_as_small_and_can_move_no_further(original: list[int], edited: list[int]) -> None:
    first, last = (letters(original, edited, ties) for ties in (Ties.TAGGER, Ties.DEPARTURE))
    for side, (before, after) in zip((original, edited), zip(first, last, strict=True), strict=True):
        assert sorted(before) == sorted(after)
        assert [u for u, k in zip(side, before, strict=True) if k in "KS"] == [
            u for u, k in zip(side, after, strict=True) if k in "KS"
        ]
        for start in range(len(side)):
            stop = next((k for k in range(start, len(side)) if after[k] not in "DI"), len(side))
            begins = start == 0 or after[start - 1] not in "DI"
            assert not (begins and start < stop < len(side) and after[stop] == "K" and side[start] == side[stop])
        positions = [[k for k, label in enumerate(text) if label in "DI"] for text in (before, after)]
        assert all(a <= b for a, b in zip(*positions, strict=True))


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        # Written down from Levenshtein.editops of the package Levenshtein 0.27.
        ("aab", "ab", ("KDK", "KK")),
        ("ab", "aab", ("KK", "KIK")),
        ("abab", "ab", ("KKDD", "KK")),
        ("ab", "bc", ("SS", "SS")),
        ("abcd", "bcda", ("DKKK", "KKKI")),
        ("abcdef", "azced", ("KSKDKS", "KSKKS")),
        ("xaxa", "aa", ("DKDK", "KK")),
        ("aab", "xb", ("SDK", "SK")),  # departure: DSK
        ("s.s.t", "s.t", ("KKDDK", "KKK")),
        ("abcabba", "cbabac", ("SKDKKSS", "SKKKSS")),
        ("kitten", "sitting", ("SKKKSK", "SKKKSKI")),
        ("", "ab", ("", "II")),
        ("ab", "", ("DD", "")),
    ],
)
def test_released_golden(original: str, edited: str, expected: tuple[str, str]) -> None:
    assert letters(original, edited, Ties.RELEASED) == expected


def by_released_rule(original: Sequence[object], edited: Sequence[object]) -> tuple[str, str]:
    """Between the common beginning and end, from the end: delete, insert where the way there is shorter, else both."""
    start = next((k for k, (a, b) in enumerate(zip(original, edited, strict=False)) if a != b), None)
    start = min(len(original), len(edited)) if start is None else start
    end = 0
    while end < min(len(original), len(edited)) - start and original[-1 - end] == edited[-1 - end]:
        end += 1
    a, b = original[start : len(original) - end], edited[start : len(edited) - end]
    distance, i, j = table(a, b), len(a), len(b)
    x, y = [""] * i, [""] * j
    while i and j:
        if distance[i][j] == distance[i - 1][j] + 1:
            i -= 1
            x[i] = "D"
        elif distance[i][j - 1] == distance[i - 1][j - 1] - 1:
            j -= 1
            y[j] = "I"
        else:
            i, j = i - 1, j - 1
            x[i] = y[j] = "K" if a[i] == b[j] else "S"
    x[:i], y[:j] = "D" * i, "I" * j
    return "K" * start + "".join(x) + "K" * end, "K" * start + "".join(y) + "K" * end


@given(sequences, sequences)
@example([0, 1, 0, 2], [1, 0, 0, 2])
def test_released_is_the_rule_and_minimal(original: list[int], edited: list[int]) -> None:
    a, b = letters(original, edited, Ties.RELEASED)
    assert (a, b) == by_released_rule(original, edited)
    assert a.count("S") + a.count("D") + b.count("I") == distance_by_table(original, edited)


def test_released_with_the_package_itself() -> None:
    editops = pytest.importorskip("Levenshtein", reason="Levenshtein is not installed").editops
    chance = random.Random(0)
    for _ in range(300):
        original, edited = (chance.choices(range(4), k=chance.randint(0, 20)) for _ in range(2))
        a, b = letters(original, edited, Ties.RELEASED)
        found = editops(original, edited)
        assert [k for k, letter in enumerate(a) if letter != "K"] == [i for op, i, _ in found if op != "insert"]
        assert [k for k, letter in enumerate(b) if letter != "K"] == [j for op, _, j in found if op != "delete"]


def test_what_differs_may_not_be_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align_module, "LIMIT", 6)
    same = list(range(100))
    assert letters([*same, 1, 2, *same], [*same, 3, 4, 5, *same])[0].strip("K") == "SS"
    with pytest.raises(ValueError, match=r"2 and 4 units differ, too many to align exactly; split the texts"):
        align([1, 2], [3, 4, 5, 6])
