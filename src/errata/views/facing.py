"""Which tokens of an original stand opposite which tokens of its correction.

The columns are words. Those that stay are the anchors, as ``errata.edits.diff`` finds them whatever unit the labels
were made with: an alignment of tokens would set the pieces of unrelated words beside each other. Between two anchors
the labels decide, so that what is shown as a substitute faces what it is a substitute of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from errata.edits import diff, words
from errata.types import Label, LabeledTokens, Op, Ties

__all__ = ["face"]


class _Word(NamedTuple):
    """A word of one side: how many tokens it has, and the label of the first."""

    tokens: int
    label: int | None


def face(original: LabeledTokens, edited: LabeledTokens) -> list[tuple[int, int]]:
    """Columns from left to right: how many tokens of the original stand opposite how many of the edited text.

    A kept word faces itself, a substituted one its substitute, a deleted or inserted one a gap (0 tokens). A token
    belongs to the word of its first character that is not white space; the bytes of one character stay together, and
    the end of sequence faces the other side's end or a gap.

    Returns:
        Pairs of counts, never (0, 0); they add up to the tokens of the two sides.
    """
    ends = _column_ends(original.text, edited.text)
    sides = [_words(side, [end[index] for end in ends]) for index, side in enumerate((original, edited))]
    # White space that no token stands for alone does not part two changes.
    seen = [column for column in zip(ends, *sides, strict=True) if column[1].tokens or column[2].tokens]
    columns: list[tuple[int, int]] = []
    for kept, group in groupby(seen, key=lambda column: column[0][2]):
        found = list(group)
        if kept:
            columns += [(left.tokens, right.tokens) for _, left, right in found]
        else:
            columns += _pairs([left for _, left, _ in found], [right for _, _, right in found])
    columns.append((int(original.encoded.ended), int(edited.encoded.ended)))
    return [column for column in columns if any(column)]


def _column_ends(original: str, edited: str) -> list[tuple[int, int, bool]]:
    """Where each column ends in the two texts, and whether it was kept; there is at least one."""
    ends: list[tuple[int, int, bool]] = []
    for edit in diff(original, edited, ties=Ties.DEPARTURE):  # as labels are made unless told otherwise
        left, right, kept = edit.original, edit.edited, edit.op is Op.KEEP
        if kept:
            ends += [(left.start + cut, right.start + cut, kept) for cut in _cuts(left.text)]
        elif edit.op is Op.INSERT:
            ends += [(left.start, right.start + cut, kept) for cut in _cuts(right.text)]
        elif edit.op is Op.DELETE:
            ends += [(left.start + cut, right.start, kept) for cut in _cuts(left.text)]
        ends.append((left.stop, right.stop, kept))
    return ends or [(0, 0, True)]


def _pairs(original: Sequence[_Word], edited: Sequence[_Word]) -> Iterator[tuple[int, int]]:
    """What changed between two kept words: deleted and inserted words face gaps, the others each other in order."""
    left, right = (deque(word for word in side if word.tokens) for side in (original, edited))
    while left or right:
        if left and (left[0].label == Label.DELETED or not right):
            yield left.popleft().tokens, 0
        elif right and (right[0].label == Label.INSERTED or not left):
            yield 0, right.popleft().tokens
        else:
            yield left.popleft().tokens, right.popleft().tokens


def _cuts(text: str) -> list[int]:
    """Where the words end, and where one starts that stands on a new line: the break is a column of its own."""
    cuts, last = [], 0
    for start, stop in words(text):
        cuts += [start, stop] if "\n" in text[last:start] else [stop]
        last = stop
    return cuts


def _words(side: LabeledTokens, stops: Sequence[int]) -> list[_Word]:
    """One for each column, without tokens where nothing of this side stands."""
    found, start = [], 0
    for count in np.bincount(_columns(side, stops), minlength=len(stops)).tolist():
        found.append(_Word(count, side.labels[start] if count else None))
        start += count
    return found


def _columns(side: LabeledTokens, stops: Sequence[int]) -> NDArray[np.int64]:
    """The column of each token but the end of sequence, given where the columns end in this side's text."""
    offsets = side.encoded.offsets
    start, stop = np.array(offsets[: len(offsets) - side.encoded.ended], np.int64).reshape(-1, 2).T
    solid = np.array([index for index, char in enumerate(side.text) if not char.isspace()], np.int64)
    following = np.append(solid, len(side.text))[np.searchsorted(solid, start)]
    place = np.where(following < stop, following, start)
    column = np.minimum(np.searchsorted(stops, place, side="right"), len(stops) - 1)
    # Sampled ids may overlap; columns are read from left to right all the same.
    return np.maximum.accumulate(column) if len(column) else column
