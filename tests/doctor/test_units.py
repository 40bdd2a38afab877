"""Where aligned ids and projected words label a token otherwise, counted by hand."""

from __future__ import annotations

import pytest

from edits import tokenizers
from errata.data import Encoder
from errata.doctor import UnitDifferences, unit_differences
from errata.types import Correction, Encoded, Label, LabeledTokens, TokenLabels


def side(*labels: Label, text: str = "abcdefgh") -> LabeledTokens:
    offsets = tuple((k, k + 1) for k in range(len(labels)))
    return LabeledTokens(Encoded((1, *range(5, 5 + len(labels))), 1, offsets, True), labels, text)


KEPT, INSERTED, DELETED, SUBSTITUTED, IGNORED = (
    Label.KEPT,
    Label.INSERTED,
    Label.DELETED,
    Label.SUBSTITUTED,
    Label.IGNORED,
)


def test_counts_by_hand() -> None:
    found = UnitDifferences()
    words = TokenLabels(id="a", original=side(KEPT, SUBSTITUTED, SUBSTITUTED), edited=side(SUBSTITUTED, KEPT))
    ids = TokenLabels(id="a", original=side(KEPT, KEPT, DELETED), edited=side(SUBSTITUTED, INSERTED))
    found.add(words, ids)
    found.add(words, words)
    assert (found.rows, found.rows_otherwise, found.tokens) == (2, 1, 10)
    assert (found.changed_by_words, found.changed_by_tokens) == (6, 3 + 3)
    assert (found.only_words, found.only_tokens, found.other_kind) == (1, 1, 1)
    assert found.share == 3 / 10
    assert found.share_of_changed == 3 / 7
    assert found.kinds == {("substituted", "kept"): 1, ("substituted", "deleted"): 1, ("kept", "inserted"): 1}
    assert found.places == [("a", "a[b]cdefgh: substituted by words, kept by tokens")]


def test_ignored_tokens_are_changed_for_neither() -> None:
    found = UnitDifferences()
    row = TokenLabels(id="a", original=side(IGNORED, KEPT), edited=side(KEPT))
    found.add(row, row)
    assert (found.changed_by_words, found.changed_by_tokens, found.rows_otherwise, found.places) == (0, 0, 0, [])
    assert UnitDifferences().share == UnitDifferences().share_of_changed == 0


def test_a_shared_piece_is_kept_for_tokens_and_changed_for_words() -> None:
    encoder = Encoder(tokenizers.byte_level())
    rows = [Correction(id=str(k), prompt="x", original="The xyq sat", edited="The xyz sat on") for k in range(5)]
    found = unit_differences(rows, encoder)
    # " x" or " ", "x" and "y" on either side: pieces that the two words share.
    pieces = [encoder.tokenizer.decode([token]) for token in encoder.text_ids(" xy")]
    solid = sum(bool(piece.strip()) for piece in pieces)
    assert found.only_words == 5 * 2 * solid > 0
    assert (found.only_tokens, found.other_kind) == (0, 0)
    assert len(found.places) == 3
    assert all(place.endswith("substituted by words, kept by tokens") for _, place in found.places)


def test_rules_other_than_the_unit_are_kept() -> None:
    with pytest.raises(ValueError, match="row 'x'"):
        unit_differences(
            [Correction(id="x", prompt="", original="a", edited="b", original_ids=(5,))],
            Encoder(tokenizers.byte_level()),
        )
