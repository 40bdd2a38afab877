"""The alignment under every edit: minimal in count, and of all minimal ones always the same.

Which of several minimal alignments one takes decides what a label says (in "a b c" → "b c a", did "a" go, or did all
change?). Here it is the one that the taggers of translation quality estimation take, whose tags are the field's gold:
read from the end, keep or substitute wherever that is still minimal, then delete, then insert. The benchmark in
``benchmarks/agreement.py`` measures what that gains over difflib and over rapidfuzz, which leaves ties to chance.
``Ties.DEPARTURE`` starts from there, and moves each run of deleted or inserted units to the right while it may.
``Ties.RELEASED`` takes rapidfuzz's own choice, which is that of FIGA's released code.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from itertools import repeat

from rapidfuzz.distance import Levenshtein, Postfix, Prefix

from errata.types import Label, Ties

__all__ = ["LIMIT", "align"]

LIMIT = 4_000_000_000
"""The most pairs of units that one alignment may weigh: about a gigabyte while it works."""


_DELETED, _INSERTED = re.compile(rb"\x02+"), re.compile(rb"\x01+")


def align(
    original: Sequence[Hashable], edited: Sequence[Hashable], ties: Ties = Ties.TAGGER
) -> tuple[bytearray, bytearray]:
    """Label each unit of both sequences: KEPT, SUBSTITUTED, DELETED (original) or INSERTED (edited).

    A minimal alignment never deletes beside an insertion (it would substitute), so that the labels alone say which
    unit became which: the n-th kept or substituted one of one side is the n-th of the other.

    Myers' bit-parallel dynamic programme in Hyyrö's form (2003), one Python integer a column, over what is left between
    the common beginning and the common end; the walk back then follows the rule above over the whole.

    Args:
        original: units of any kind that can be compared and hashed, such as words or token ids.
        edited: the same of the second text.
        ties: which of the minimal alignments.

    Returns:
        One ``Label`` for each unit of ``original`` and of ``edited``; as many are not KEPT as the distance says, each
        substitution counted once.

    Raises:
        ValueError: what differs is too long to align (``LIMIT``).

    >>> original, edited = align("The cat sat".split(), "A cat sat down".split())
    >>> [Label(label).name for label in original], [Label(label).name for label in edited]
    (['SUBSTITUTED', 'KEPT', 'KEPT'], ['SUBSTITUTED', 'KEPT', 'KEPT', 'INSERTED'])
    >>> [list(align("go go stop".split(), "go stop".split(), ties)[0]) for ties in Ties]
    [[2, 0, 0], [0, 2, 0], [0, 2, 0]]
    """
    if Ties(ties) == Ties.RELEASED:
        return _released(original, edited)
    labels = _align(original, edited)
    if Ties(ties) == Ties.DEPARTURE:
        _move_right(original, labels[0], _DELETED)
        _move_right(edited, labels[1], _INSERTED)
    return labels


def _align(original: Sequence[Hashable], edited: Sequence[Hashable]) -> tuple[bytearray, bytearray]:
    original_labels, edited_labels = bytearray(len(original)), bytearray(len(edited))
    i, j = len(original), len(edited)
    common = int(Prefix.similarity(original, edited))
    if i == j == common:
        return original_labels, edited_labels
    # Where the ends match, keeping is always minimal.
    end = int(Postfix.similarity(original, edited))
    i, j = i - end, j - end
    kept, rises = _columns(original[common:i], edited[common:j])
    while i > common and j > common:
        if original[i - 1] == edited[j - 1]:
            i, j = i - 1, j - 1
            continue
        bit, column = 1 << (i - common - 1), j - common - 1
        if not kept[column] & bit:  # one diagonal step back is one edit less
            i, j = i - 1, j - 1
            original_labels[i] = edited_labels[j] = Label.SUBSTITUTED
        elif rises[column] & bit:
            i -= 1
            original_labels[i] = Label.DELETED
        else:
            j -= 1
            edited_labels[j] = Label.INSERTED
    # One side is within the common beginning, so the distance is the difference in length: no substitution is left.
    while i != j:
        if i and j and original[i - 1] == edited[j - 1]:
            i, j = i - 1, j - 1
        elif i > j:
            i -= 1
            original_labels[i] = Label.DELETED
        else:
            j -= 1
            edited_labels[j] = Label.INSERTED
    return original_labels, edited_labels


def _released(original: Sequence[Hashable], edited: Sequence[Hashable]) -> tuple[bytearray, bytearray]:
    """What ``Levenshtein.editops`` gives: that package is made of rapidfuzz."""
    labels = bytearray(len(original)), bytearray(len(edited))
    for operation in Levenshtein.editops(original, edited):
        if operation.tag != "insert":
            labels[0][operation.src_pos] = Label.SUBSTITUTED if operation.tag == "replace" else Label.DELETED
        if operation.tag != "delete":
            labels[1][operation.dest_pos] = Label.SUBSTITUTED if operation.tag == "replace" else Label.INSERTED
    return labels


def _move_right(units: Sequence[Hashable], labels: bytearray, runs: re.Pattern[bytes]) -> None:
    """Move each run of changed units right past kept ones that read like its first: what is left behind is the same."""
    for start, stop in reversed([match.span() for match in runs.finditer(labels)]):
        while stop < len(units) and labels[stop] == Label.KEPT and units[stop] == units[start]:
            labels[start], labels[stop] = labels[stop], labels[start]
            start, stop = start + 1, stop + 1
            while stop < len(units) and labels[stop] == labels[start]:  # it has met the next run
                stop += 1


def _columns(a: Sequence[Hashable], b: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """For each column j of the table D of distances, over its rows i, as the bits of two integers.

    Where D[i, j] = D[i-1, j-1], and where D[i, j] = D[i-1, j] + 1.
    """
    if len(a) * len(b) > LIMIT:
        raise ValueError(
            f"{len(a)} and {len(b)} units differ, too many to align exactly; split the texts, or use unit 'word'"
        )
    kept: list[int] = []
    rises: list[int] = []
    if not a:
        return kept, rises
    where: dict[Hashable, int] = {}
    bit = 1
    for unit in a:
        where[unit] = where.get(unit, 0) | bit
        bit <<= 1
    mask = bit - 1
    rise, fall = mask, 0
    for match in map(where.get, b, repeat(0)):
        # "mask ^ x" is "not x": a negative number would cost more.
        diagonal = ((((match & rise) + rise) ^ rise) | match | fall) & mask
        right_rises = ((fall | (mask ^ (rise | diagonal))) << 1) | 1
        rise = (((rise & diagonal) << 1) | (mask ^ ((right_rises | diagonal) & mask))) & mask
        fall = right_rises & diagonal
        kept.append(diagonal)
        rises.append(rise)
    return kept, rises
