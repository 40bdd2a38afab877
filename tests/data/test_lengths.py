from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from errata.data import Encoder, LengthCounts, encode_rows
from errata.labels import label_all
from errata.types import Demonstration, Encoded

# The prompt is two tokens with its beginning; the response has this many words, and an end.
LENGTHS = [1, 5, 2, 9]


def rows(lengths: list[int]) -> list[Demonstration]:
    return [Demonstration(id=f"r{k}", prompt="say", response="cat " * n) for k, n in enumerate(lengths)]


def encode(lengths: list[int], on_long: str, max_length: int) -> tuple[list[str], list[Encoded], LengthCounts]:
    encoder, counts = Encoder(tiny.tokenizer(), max_length=max_length, on_long=on_long), LengthCounts()
    found = encode_rows(rows(lengths), lambda row: (encoder.encode(row.prompt, row.response),), counts)
    pairs = list(found)
    return [row.id for row, _ in pairs], [side for _, (side,) in pairs], counts


def test_rows_are_counted_dropped_and_truncated() -> None:
    ids, sides, counts = encode(LENGTHS, "drop", 6)
    assert ids == ["r0", "r2"]
    assert [len(side.ids) for side in sides] == [4, 5]
    assert counts == LengthCounts(rows_in=4, dropped_too_long=2, truncated=0, tokens_cut=0)
    ids, sides, counts = encode(LENGTHS, "truncate", 6)
    assert ids == ["r0", "r1", "r2", "r3"]
    assert [len(side.ids) for side in sides] == [4, 6, 5, 6]
    assert counts == LengthCounts(rows_in=4, dropped_too_long=0, truncated=2, tokens_cut=2 + 6)


@given(st.lists(st.integers(0, 8), max_size=6), st.integers(3, 9))
def test_no_token_is_lost_without_being_counted(lengths: list[int], max_length: int) -> None:
    _, sides, counts = encode(lengths, "truncate", max_length)
    assert sum(len(side.ids) for side in sides) + counts.tokens_cut == sum(n + 3 for n in lengths)
    assert counts.rows_in == len(lengths)


def test_nothing_left_is_an_error_and_so_is_a_long_row_by_default() -> None:
    with pytest.raises(ValueError, match=r"every row was dropped \(2 of 2\).*max_length; raise it"):
        encode([4, 7], "drop", 4)
    with pytest.raises(ValueError, match=r"row 'r1': prompt and response have 8 tokens and the limit is 6; raise"):
        encode(LENGTHS, "error", 6)
    assert encode([], "drop", 4)[2] == LengthCounts()


def test_the_tokens_of_all_sides_are_counted_and_a_pair_is_one_row() -> None:
    sides = Encoded((1, 2), 1, ((0, 1),), False, 3), Encoded((1, 2, 3), 1, ((0, 1), (1, 2)), False, 4)
    counts = LengthCounts()
    list(encode_rows(rows([1, 1]), lambda row: sides, counts))
    assert counts == LengthCounts(rows_in=2, truncated=2, tokens_cut=14)
    labels = tiny.labels(3)
    assert LengthCounts.of(labels) == LengthCounts(rows_in=3)


def test_labels_show_what_was_cut() -> None:
    corrections = tiny.corrections(6)
    whole = list(label_all(corrections, tiny.encoder()))
    limit = max(len(row.edited.encoded.ids) for row in whole) - 1
    cut = list(label_all(corrections, Encoder(tiny.tokenizer(), max_length=limit, on_long="truncate")))
    counts = LengthCounts.of(cut)
    sides = [
        (a, b)
        for old, new in zip(whole, cut, strict=True)
        for a, b in ((old.original, new.original), (old.edited, new.edited))
    ]
    assert counts.tokens_cut == sum(len(a.labels) - len(b.labels) for a, b in sides) > 0
    assert counts.truncated > 0
    assert all(len(b.labels) == len(b.encoded.response_ids) for _, b in sides)
