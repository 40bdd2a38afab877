"""Edits projected on tokens: one ``Label`` for every response token, each text of the pair by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from errata.data.encoding import Encoder
from errata.edits import diff
from errata.types import Correction, Encoded, Label, LabeledTokens, Op, Span, TokenLabels, Unit

__all__ = ["LabelCounts", "changed", "count_labels", "label", "label_all", "project"]

_LABELS = {
    Op.KEEP: Label.KEPT,
    Op.INSERT: Label.INSERTED,
    Op.DELETE: Label.DELETED,
    Op.SUBSTITUTE: Label.SUBSTITUTED,
}
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], dtype=np.uint32)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCounts:
    """How many response tokens carry which label; the end of sequence counts among the kept."""

    rows: int
    rows_unchanged: int
    """Rows without a changed token on either side."""
    original_kept: int
    original_deleted: int
    original_substituted: int
    edited_kept: int
    edited_inserted: int
    edited_substituted: int


def label(correction: Correction, encoder: Encoder, *, unit: Unit | str = Unit.WORD) -> TokenLabels:
    """Label both texts of a correction.

    Sampled ids are kept as they are. With the units ``word`` and ``char`` the edits reach the tokens through character
    offsets (see ``project``). With ``token`` the two sequences of ids themselves are aligned, as the papers do (Xu et
    al.'s U_l and U_e, FIGA's signals), so that tokens which spell the same text differently are changed. The end of
    sequence is KEPT: what it weighs is a rule of the loss.

    Raises:
        ValueError: the row cannot be encoded (see ``Encoder.encode`` and ``Encoder.encode_sampled``), or unknown unit.
    """
    row = correction
    try:
        if row.original_ids is None:
            original = encoder.encode(row.prompt, row.original)
        else:
            original = encoder.encode_sampled(row.prompt, row.original, row.original_ids)
        edited = encoder.encode(row.prompt, row.edited)
        if unit == Unit.TOKEN:
            labels = _align(original, edited)
        else:
            edits = diff(row.original, row.edited, unit)
            labels = (
                project([(edit.original, _LABELS[edit.op]) for edit in edits], row.original, original),
                project([(edit.edited, _LABELS[edit.op]) for edit in edits], row.edited, edited),
            )
    except ValueError as error:
        raise ValueError(f"row {row.id!r}: {error}") from error
    return TokenLabels(
        id=row.id,
        original=LabeledTokens(original, labels[0], row.original),
        edited=LabeledTokens(edited, labels[1], row.edited),
    )


def label_all(
    corrections: Iterable[Correction], encoder: Encoder, *, unit: Unit | str = Unit.WORD
) -> Iterator[TokenLabels]:
    """Label corrections one after the other, as ``label`` does."""
    return (label(correction, encoder, unit=unit) for correction in corrections)


def project(spans: Iterable[tuple[Span, Label]], text: str, encoded: Encoded) -> tuple[int, ...]:
    """Carry labelled character spans of one text over to its tokens.

    A token is changed if one of its characters other than white space lies in a changed span: the token " cat" stays
    when only its space was changed. A token of white space only is changed if any of its characters is. Where a token
    touches several changes, SUBSTITUTED wins. A token without a character of its own (a piece of the next character)
    counts as that character, and the end of sequence is KEPT.

    Args:
        spans: character spans of ``text`` and their labels; what they leave out is KEPT.
        text: the response.
        encoded: its ids and offsets.

    Returns:
        One ``Label`` for each response token.

    >>> encoded = Encoded((7, 8, 9, 2), 1, ((0, 3), (3, 7), (7, 7)), True)
    >>> project([(Span(4, 7, "cat"), Label.SUBSTITUTED)], "The cat", encoded)
    (0, 3, 0)
    """
    changes = np.zeros(len(text), np.int8)
    for span, name in spans:
        changes[span.start : span.stop] = name
    solid = ~np.isin(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), _SPACES)
    start, stop = np.array(encoded.offsets, np.int64).reshape(-1, 2).T
    stop = np.minimum(np.maximum(stop, start + 1), len(text))
    blank = _count(solid, start, stop) == 0
    labels = np.zeros(len(start), np.int8)
    for name in (Label.INSERTED, Label.DELETED, Label.SUBSTITUTED):
        hit = changes == name
        labels[np.where(blank, _count(hit, start, stop), _count(hit & solid, start, stop)) > 0] = name
    return tuple(labels.tolist())


def changed(labels: Sequence[int]) -> tuple[bool, ...]:
    """The mask of the changed tokens, U_l on the original side and U_e on the edited one: all labels but KEPT.

    >>> changed((Label.KEPT, Label.SUBSTITUTED, Label.DELETED))
    (False, True, True)
    """
    return tuple(name != Label.KEPT for name in labels)


def count_labels(rows: Iterable[TokenLabels]) -> LabelCounts:
    """Count the labels of both sides."""
    sides = np.zeros((2, len(Label)), np.int64)
    total = unchanged = 0
    for row in rows:
        counts = np.array([np.bincount(side.labels, minlength=len(Label)) for side in (row.original, row.edited)])
        sides += counts
        total += 1
        unchanged += not counts[:, Label.INSERTED :].any()
    (original_kept, _, deleted, original_substituted), (edited_kept, inserted, _, edited_substituted) = sides.tolist()
    return LabelCounts(
        rows=total,
        rows_unchanged=unchanged,
        original_kept=original_kept,
        original_deleted=deleted,
        original_substituted=original_substituted,
        edited_kept=edited_kept,
        edited_inserted=inserted,
        edited_substituted=edited_substituted,
    )


def _count(marks: NDArray[np.bool_], start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many characters in ``start[k]:stop[k]`` are marked, for each token."""
    before = np.concatenate([[0], np.cumsum(marks)])
    counts: NDArray[np.int64] = before[stop] - before[start]
    return counts


def _align(original: Encoded, edited: Encoded) -> tuple[tuple[int, ...], tuple[int, ...]]:
    labels = [np.zeros(len(side.response_ids), np.int8) for side in (original, edited)]
    bodies = [side.response_ids[: len(side.response_ids) - side.ended] for side in (original, edited)]
    for operation in Levenshtein.editops(*bodies):
        if operation.tag == "replace":
            labels[0][operation.src_pos] = labels[1][operation.dest_pos] = Label.SUBSTITUTED
        elif operation.tag == "delete":
            labels[0][operation.src_pos] = Label.DELETED
        else:
            labels[1][operation.dest_pos] = Label.INSERTED
    return tuple(labels[0].tolist()), tuple(labels[1].tolist())
