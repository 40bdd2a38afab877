from __future__ import annotations

import json

import pytest

from errata.edits import statistics
from errata.types import Correction


def correction(original: str, edited: str) -> Correction:
    return Correction(id="x", prompt="p", original=original, edited=edited)


def test_counts() -> None:
    found = statistics(
        iter(
            [
                correction("a b c", "a b c"),
                correction("a b c d", "a x c y z d"),
                correction("a b", "a  b"),  # white space only: changed, and no word is
                correction("bad words here", "here"),
                correction("", "new"),
            ]
        )
    )
    assert (found.rows, found.unchanged, found.words_original, found.words_edited) == (5, 1, 12, 13)
    assert (found.words_deleted, found.words_inserted, found.words_substituted) == (2, 3, 1)
    assert found.words_typed == 4
    assert found.mean_edit_ratio == pytest.approx((3 / 6 + 0 + 2 / 3 + 1) / 4)
    assert found.median_edit_ratio == pytest.approx((3 / 6 + 2 / 3) / 2)
    assert found.mean_length_change == pytest.approx(0.2)
    assert "5 corrections, 1 of them unchanged" in str(found)
    assert "4 words typed" in str(found)
    assert json.loads(json.dumps(found.as_dict()))["words_typed"] == 4


def test_length_change_has_a_sign() -> None:
    assert statistics([correction("a b c", "a"), correction("a", "a")]).mean_length_change == -1


def test_no_rows() -> None:
    found = statistics([])
    assert set(found.as_dict().values()) == {0}
