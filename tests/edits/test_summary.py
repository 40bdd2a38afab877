from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.edits import edit_ratio, statistics, word_distance
from errata.edits.summary import QUANTILES, Distribution, FrequentWords, StatisticsOf
from errata.edits.word_spans import split_words
from errata.types import Correction

from .tokenizers import pairs


def correction(original: str, edited: str, reasons: tuple[str, ...] = ()) -> Correction:
    return Correction(id="x", prompt="p", original=original, edited=edited, reasons=reasons)


MIXED = [
    correction("a b c", "a b c"),
    correction("a b c d", "a x c y z d"),
    correction("a b", "a  b"),  # white space only: changed, and no word is
    correction("bad words here", "here"),
    correction("", "new"),
]


def test_counts() -> None:
    found = statistics(iter(MIXED))
    assert (found.rows, found.unchanged, found.words_original, found.words_edited) == (5, 1, 12, 13)
    assert (found.words_deleted, found.words_inserted, found.words_substituted) == (2, 3, 1)
    assert (found.words_typed, found.words_kept, found.share_unchanged) == (4, 9, 0.2)
    assert found.mean_edit_ratio == pytest.approx((3 / 6 + 2 / 3 + 1) / 3)
    assert found.median_edit_ratio == pytest.approx(2 / 3)
    assert found.mean_length_change == pytest.approx(0.2)
    assert "5 corrections, 1 of them unchanged and 1 changed in white space only" in str(found)
    assert "the rows that change a word 0.72 in the mean" in str(found)
    assert "4 words typed" in str(found)
    written = json.loads(json.dumps(found.as_dict()))
    assert (written["words_typed"], written["words_kept"], written["share_unchanged"]) == (4, 9, 0.2)


def test_kinds_ratios_and_places() -> None:
    found = statistics(MIXED)
    assert found.kinds == {"unchanged": 1, "white_space": 1, "insert": 1, "delete": 1, "substitute": 0, "mixed": 1}
    assert found.edit_ratio_histogram == (0, 0, 0, 0, 0, 1, 1, 0, 0, 1)  # 3/6, 2/3 and 1, which is in the last
    # "b" is word 1 of 4; "y z" come before word 3 of 4; "bad words" are 0 and 1 of 3; "new" follows the end.
    assert found.positions == (1, 0, 1, 1, 0, 0, 0, 2, 0, 0)
    assert found.at_end == 1
    assert found.substituted == (("b", "x", 1),)
    assert found.inserted == (("new", 1), ("y", 1), ("z", 1))
    assert found.deleted == (("bad", 1), ("words", 1))
    assert found.estimated == ()


def test_quantiles_are_numpys() -> None:
    found = statistics(MIXED)
    ratios, gains = [3 / 6, 2 / 3, 1], [0, 2, 0, -2, 1]
    assert list(found.edit_ratio_quantiles.values()) == pytest.approx(np.quantile(ratios, QUANTILES))
    assert list(found.length_change_quantiles.values()) == pytest.approx(np.quantile(gains, QUANTILES))
    assert list(found.edit_ratio_quantiles) == ["0.05", "0.25", "0.5", "0.75", "0.95"]


def test_reasons_are_counted_once_a_row() -> None:
    rows = [correction("a", "b c", ("wrong", "style", "wrong")), correction("a b", "c", ("style",)), *MIXED]
    assert list(statistics(rows).reasons.items()) == [("style", 2), ("wrong", 1)]


def test_duplicates_and_the_unknowable() -> None:
    long = " ".join(f"word{k}" for k in range(60))
    rows = [
        correction(long, f"{long} Berlin"),
        correction(long, f"{long}  Berlin"),
        correction(long, f"{long} Bonn 777"),
        correction(long, "Nothing"),
    ]
    found = statistics(rows)
    assert (found.same, found.near_duplicates) == (1, 1)
    assert found.estimated == ("same", "near_duplicates")
    assert found.unknowable == {"number": 1, "link": 0, "name": 3}
    assert found.unknowable_rows == 3
    assert [(row, kind) for row, kind, _ in found.unknowable_examples] == [("x", "name")] * 3
    assert found.unknowable_examples[0][2].startswith("Berlin: …")


def test_length_change_has_a_sign() -> None:
    assert statistics([correction("a b c", "a"), correction("a", "a")]).mean_length_change == -1


def test_no_rows() -> None:
    found = statistics([]).as_dict()
    assert not any(found.pop("mechanical").values())
    for value in found.values():
        assert not any(np.ravel(list(value.values()) if isinstance(value, dict) else value))


def test_a_result_at_any_time() -> None:
    tally = StatisticsOf()
    for count, row in enumerate(MIXED, start=1):
        tally.add(row)
        assert tally.result() == statistics(MIXED[:count])


@given(st.lists(pairs(), max_size=4))
def test_slow_twin(texts: list[tuple[str, str]]) -> None:
    found = statistics(correction(a, b) for a, b in texts)
    distances = [word_distance(a, b) for a, b in texts]
    ratios = [edit_ratio(a, b) for (a, b), distance in zip(texts, distances, strict=True) if distance]
    assert found.words_inserted + found.words_deleted + found.words_substituted == sum(distances)
    assert found.words_inserted - found.words_deleted == sum(
        len(split_words(b)) - len(split_words(a)) for a, b in texts
    )
    assert sum(found.positions) + found.at_end == sum(distances)
    assert sum(found.kinds.values()) == len(texts)
    assert found.kinds["white_space"] == sum(a != b and not d for (a, b), d in zip(texts, distances, strict=True))
    assert sum(found.edit_ratio_histogram) == len(ratios)
    if ratios:
        assert found.mean_edit_ratio == pytest.approx(np.mean(ratios))
        assert list(found.edit_ratio_quantiles.values()) == pytest.approx(np.quantile(ratios, QUANTILES))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=60), st.floats(0, 1))
def test_distribution(values: list[float], q: float) -> None:
    exact, rounded = Distribution(grid=0.5), Distribution(grid=0.5)
    rounded.LIMIT = 5
    for value in values:
        exact.add(value)
        rounded.add(value)
    assert exact.exact
    assert exact.quantile(q) == pytest.approx(np.quantile(values, q))
    assert exact.mean == rounded.mean == pytest.approx(np.mean(values))
    assert rounded.exact == (len(set(values)) <= 5)
    assert abs(rounded.quantile(q) - np.quantile(values, q)) <= rounded.error + 1e-9
    assert rounded.exact or rounded.error >= 0.5


@given(st.lists(st.sampled_from("aabbbbcdefgh"), max_size=80))
def test_frequent_words(stream: Sequence[str]) -> None:
    exact, bounded = FrequentWords(), FrequentWords(limit=4)
    for word in stream:
        exact.add((word,))
        bounded.add((word,))
    truth = Counter(stream)
    assert dict(exact.most_common(99)) == {(word,): count for word, count in truth.items()}
    listed = {word: count for (word,), count in bounded.most_common(99)}
    assert len(listed) <= 4
    for word, count in truth.items():
        assert listed.get(word, 0) <= count <= listed.get(word, 0) + bounded.missed
    assert bounded.missed <= len(stream) / 3  # each lowering takes that much off at least three words
    assert (bounded.missed == 0) == (len(truth) <= 4)


def test_the_grid_doubles() -> None:
    few = Distribution(grid=0.5)
    few.LIMIT = 5
    for k in range(-30, 30):
        few.add(k)
    assert len(few._counts) == 5
    assert few.error == 16
    assert few.mean == -0.5
    assert few.quantile(0.5) == pytest.approx(-0.5, abs=few.error)


def test_memory_does_not_grow() -> None:
    words = FrequentWords(limit=10)
    values = Distribution(grid=1e-4)
    for k in range(40_000):
        words.add((str(k),))
        values.add(k / 40_000)
    assert len(words._counts) <= 10
    assert len(values._counts) <= Distribution.LIMIT
    assert not values.exact
    assert values.quantile(0.5) == pytest.approx(0.5, abs=values.error)
