from __future__ import annotations

import random

import pytest
from hypothesis import given

from errata.edits import edit_ratio, word_distance, words
from errata.edits.word_spans import split_text, split_words

from .table import distance_by_table
from .tokenizers import texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\r\n\x1c\u3000", []),
        ("Don't stop; it’s day-long!", ["Don't", "stop", ";", "it’s", "day-long", "!"]),
        ("'quoted' -dash- a--b", ["'", "quoted", "'", "-", "dash", "-", "a", "-", "-", "b"]),
        ("3.14 or 1,000 x_y", ["3", ".", "14", "or", "1", ",", "000", "x", "_", "y"]),
        ("cafe\u0301 \u0301x na\u00adive", ["cafe\u0301", "\u0301x", "na\u00adive"]),
        ("東京へ カナー", ["東", "京", "へ", "カ", "ナ", "ー"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("한국 사람", ["한국", "사람"]),
        ("می‌خواهم שלום", ["می‌خواهم", "שלום"]),
        ("a👩‍🚀🇩🇪b❤️1️⃣", ["a", "👩‍🚀", "🇩🇪", "b", "❤️", "1️⃣"]),
        ("a\x00b</s>", ["a", "\x00", "b", "<", "/", "s", ">"]),
        ("\ud83d x", ["\ud83d", "x"]),
    ],
)
def test_golden(text: str, expected: list[str]) -> None:
    assert split_words(text) == expected
    assert [text[start:stop] for start, stop in words(text)] == expected


@given(texts)
def test_white_space_is_all_that_words_leave_out(text: str) -> None:
    end = 0
    for start, stop in [*words(text), (len(text), len(text))]:
        assert not text[end:start].strip()
        assert start == stop == len(text) or text[start:stop].strip()
        end = stop


def test_distance_is_that_of_the_table() -> None:
    rng = random.Random(3)
    for _ in range(300):
        first, second = (rng.choices(["a", "b", "c", "dd", "ee"], k=rng.randrange(9)) for _ in range(2))
        assert word_distance(" ".join(first), "\n".join(second)) == distance_by_table(first, second)


def test_edit_ratio() -> None:
    assert edit_ratio("", " ") == 0
    assert edit_ratio("a b", "a  b") == 0
    assert edit_ratio("a b", "a b c d") == 0.5
    assert edit_ratio("a b c d", "a b") == 0.5
    assert edit_ratio("a b", "c d e") == 1


@pytest.mark.parametrize("mark", ["\u0600", "\u06dd"])
def test_a_prepended_mark_draws_nothing_in(mark: str) -> None:
    assert split_text(f"{mark} a") == ["", mark, " ", "a", ""]
    assert split_words(f"{mark}abc") == [mark, "abc"]


@given(texts)
def test_no_word_holds_white_space(text: str) -> None:
    parts = split_text(text)
    assert "".join(parts) == text
    assert all(not gap.strip() for gap in parts[::2])
    assert not any(character.isspace() for word in parts[1::2] for character in word)
