from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.edits import duplicates
from errata.edits.duplicates import Duplicates
from errata.types import Correction, Prompt

from .tokenizers import texts

WORDS = [f"w{k}" for k in range(400)]


def row(original: str, edited: str, prompt: Prompt = "") -> Correction:
    return Correction(id="x", prompt=prompt, original=original, edited=edited)


def changed(words: list[str], count: int) -> str:
    """The words with ``count`` of them, far apart, put in other words' place."""
    every = len(words) // max(count, 1)
    return " ".join(f"other{k}" if count and k % every == 0 and k // every < count else w for k, w in enumerate(words))


def test_same() -> None:
    seen = Duplicates()
    assert seen.add(row("a b", "a b c", "p")) is None
    assert seen.add(row("a  b", "\na b\tc", "p ")) == "same"
    assert seen.add(row("ab", "c", "p")) is None
    assert seen.add(row("a", "bc", "p")) is None  # the same letters, cut elsewhere
    assert seen.add(row("a b c", "a b", "p")) is None  # sides exchanged
    assert seen.add(row("a b", "a b c", "q")) is None
    assert seen.add(row("a b", "a b c", [{"role": "user", "content": "q"}])) is None
    assert seen.add(row("a b", "a b c", [{"role": "user", "content": "q"}])) == "same"


def test_near_is_a_share_of_shingles() -> None:
    base = " ".join(WORDS)
    for count, likeness in ((8, "near"), (60, None)):  # 24 of 398 shingles changed: .89 of those in either; and .38
        seen = Duplicates()
        assert seen.add(row(base, base + " z", base)) is None
        assert seen.add(row(changed(WORDS, count), changed(WORDS, count) + " z", base)) == likeness
        seen = Duplicates()
        assert seen.add(row(base, base + " z", base)) is None
        assert seen.add(row(base, base + " z", changed(WORDS, count))) == likeness


def test_near_ignores_case_and_needs_prompt_and_answers() -> None:
    base = " ".join(WORDS)
    seen = Duplicates()
    assert seen.add(row(base, base + " z", "one question of five words")) is None
    assert seen.add(row(base.upper(), base + " z", "One question of five words")) == "near"
    assert seen.add(row(base, base + " z", "another thing that is asked")) is None
    assert seen.add(row("yes", "no it is not so", "one question of five words")) is None


def test_a_window_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_WINDOW", 3)
    seen = Duplicates()
    rows = [row(" ".join(WORDS[k : k + 50]), "none", str(k)) for k in range(0, 250, 50)]
    again = [row(each.original + " z", each.edited, each.prompt) for each in rows]
    assert [seen.add(each) for each in rows] == [None] * 5
    assert seen.add(again[3]) == "near"
    assert seen.add(again[0]) is None  # too long ago
    assert seen.add(rows[0]) == "same"  # however long ago


def test_rows_of_one_prompt_are_found_by_their_answers() -> None:
    seen = Duplicates()
    rows = [row(" ".join(WORDS[k : k + 50]), "none", "the one prompt of all") for k in range(0, 250, 50)]
    assert [seen.add(each) for each in rows] == [None] * 5
    assert [seen.add(row(each.original + " z", each.edited, each.prompt)) for each in rows] == ["near"] * 5


def test_the_estimate_is_as_good_as_said() -> None:
    chance = random.Random(0)
    errors = []
    for _ in range(150):
        words = [str(chance.random()) for _ in range(100)]
        other = [str(chance.random()) if chance.random() < 0.04 else word for word in words]
        first, second = (duplicates._shingles(" ".join(each)) for each in (words, other))
        truth = len(set(first) & set(second)) / len(set(first) | set(second))
        signatures = [duplicates._minima(each, slice(duplicates._ANSWER)) for each in (first, second)]
        errors.append(float((signatures[0] == signatures[1]).mean()) - truth)
    assert abs(np.mean(errors)) < 0.015
    assert np.std(errors) == pytest.approx(0.06, abs=0.015)


def test_no_word_is_too_many() -> None:
    long = " ".join(map(str, range(20_000)))
    seen = Duplicates()
    assert seen.add(row(long, "")) is None
    assert seen.add(row(long, "z")) == "near"


@given(st.lists(st.tuples(texts, texts, texts), max_size=6))
def test_slow_twin(triples: list[tuple[str, str, str]]) -> None:
    seen, folded = Duplicates(), set[tuple[str, ...]]()
    for prompt, original, edited in triples:
        key = tuple(" ".join(text.split()) for text in (prompt, original, edited))
        assert (seen.add(row(original, edited, prompt)) == "same") == (key in folded)
        folded.add(key)
