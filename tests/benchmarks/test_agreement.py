"""The gates of the benchmark: edits that agree with the field's tags, and are minimal."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from scripts import load


@pytest.fixture(scope="module")
def agreement() -> ModuleType:
    module = load("benchmarks", "agreement")
    if not module.SHARED.exists():
        pytest.skip(f"{module.SHARED} is missing")
    return module


def test_word_and_gap_tags_of_every_language_pair(agreement: ModuleType) -> None:
    found = agreement.tags(agreement.SHARED)
    assert sorted(found) == ["en-de", "et-en", "ro-en"]
    for tools in found.values():
        assert tools["errata"]["word_f1"] >= 0.995
        assert tools["errata"]["gap_f1"] >= 0.96
        assert tools["errata"]["minimal"] == tools["rapidfuzz"]["minimal"] == 1.0
        for kind in ("word_f1", "gap_f1"):
            assert tools["errata"][kind] > tools["rapidfuzz"][kind] > tools["difflib"][kind]


def test_spans_that_people_marked(agreement: ModuleType) -> None:
    everything, complete = agreement.spans(agreement.SHARED).values()
    for rows in (everything, complete):
        assert rows["errata"]["f1"] > rows["all words changed"]["f1"] + 0.1
    assert complete["errata"]["f1"] > everything["errata"]["f1"] > 0.85


def test_marks_by_hand(agreement: ModuleType) -> None:
    original, edited = list("abcdef"), list("acdexfy")
    for tool in (agreement.by_rapidfuzz, agreement.by_difflib, agreement.align):
        words, gaps = agreement.marks(*tool(original, edited))
        assert words.tolist() == [letter == "b" for letter in original]
        assert np.flatnonzero(gaps).tolist() == [5, 6]


def test_agreement_by_hand(agreement: ModuleType) -> None:
    found = agreement.agreement(np.array([True, True, False, False]), np.array([True, False, True, True]))
    assert found == {"precision": 0.5, "recall": 1 / 3, "f1": 0.4}
