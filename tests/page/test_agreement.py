"""Krippendorff's α against his own worked examples and against a slow twin."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.page.agreement import alpha, touched, units_of
from errata.page.show import edits_to_show

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): examples A and C, one row an observer.
BINARY = ["0100000010", "1110010000"]
NOMINAL = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


def by_unit(rows):
    return [tuple(value for value in column if value != ".") for column in zip(*rows, strict=True)]


def slow_alpha(units):
    """1 − D_o/D_e over all ordered pairs of values, written out."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    inside = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / max(
        len(values), 1
    )
    pairs = list(permutations(values, 2))
    outside = sum(a != b for a, b in pairs) / max(len(pairs), 1)
    return 1 - inside / outside if outside else None


@pytest.mark.parametrize(("rows", "published"), [(BINARY, 0.095), (NOMINAL, 0.743)])
def test_published_values(rows, published):
    assert alpha(by_unit(rows)) == pytest.approx(published, abs=5e-4)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=8))
def test_slow_twin(units):
    slow, units = slow_alpha(units), [tuple(unit) for unit in units]
    assert alpha(units) == alpha(Counter(units)) == (None if slow is None else pytest.approx(slow, rel=1e-9, abs=1e-12))


def test_nothing_to_agree_about():
    assert alpha([]) is None
    assert alpha([("a",), ("b",)]) is None
    assert alpha([("a", "a"), ("a", "a")]) is None


@pytest.mark.parametrize(
    ("original", "edited", "changed", "filled"),
    [
        ("a b c", "a b c", "000", "0000"),
        ("a b c", "a x c", "010", "0000"),
        ("a b c", "a c", "010", "0000"),
        ("a b c", "x a b c", "000", "1000"),
        ("a b c", "a b new c", "000", "0010"),
        ("a b c", "a b c more words", "000", "0001"),
        ("a b c", "a  b c\n", "000", "0000"),  # white space is no word
        ("", "all new", "", "1"),
        ("a b", "", "11", "000"),
        ("one.", "one more.", "00", "010"),
        ("e\u0301 👩🏽‍💻 x", "e\u0301 x", "010", "0000"),
    ],
)
def test_touched(original, edited, changed, filled):
    found = touched(original, edits_to_show(original, edited))
    assert ["".join("01"[each] for each in side) for side in found] == [changed, filled]


def test_units_are_words_and_gaps_of_the_original():
    found = list(units_of("a b", [edits_to_show("a b", each) for each in ("a b", "a c", "a b d")]))
    assert found == [
        ("word", (False, False, False)),
        ("word", (False, True, False)),
        ("gap", (False, False, False)),
        ("gap", (False, False, False)),
        ("gap", (False, False, True)),
    ]
