"""Do annotators agree? Krippendorff's α on what they kept and changed of the same response.

Units are the words of the original and the gaps between them (one before each word, one at the end): a word is kept or
changed, a gap is left or filled. So two people agree where they touch the same places, whatever they write there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from errata.edits import words
from errata.types import Edit, Op

__all__ = ["alpha", "touched", "units_of"]


def alpha(units: Iterable[tuple[Hashable, ...]] | Mapping[tuple[Hashable, ...], int]) -> float | None:
    """Krippendorff's α for nominal values, α = 1 − D_o/D_e, over units of any number of values each.

    D_o is the share of unequal pairs within the units, where a unit of m values weighs m; D_e is that share over all
    values. Units of fewer than two values say nothing, and are left out (Krippendorff, "Computing Krippendorff's
    Alpha-Reliability", 2011). Units may come one by one, or each with how often it comes.

    Returns:
        1 for agreement, 0 for chance, below for less than that; None if there is no unit with two values, or if all
        values are equal, so that there is nothing to agree about.

    >>> alpha([("kept", "kept"), ("changed", "changed"), ("kept", "changed")])
    0.4444444444444444
    """
    totals: Counter[Hashable] = Counter()
    observed = 0.0
    for unit, times in Counter(units).items():
        if len(unit) < 2:
            continue
        counts = Counter(unit)
        totals.update({value: times * count for value, count in counts.items()})
        observed += times * sum(count * (len(unit) - count) for count in counts.values()) / (len(unit) - 1)
    size = totals.total()
    expected = sum(count * (size - count) for count in totals.values())
    return 1 - (size - 1) * observed / expected if expected else None


def touched(original: str, edits: Iterable[Edit]) -> tuple[list[bool], list[bool]]:
    """For each word of the original whether it was changed, and for each gap whether words were put in there.

    There is one gap more than there are words: gap k is before word k.

    >>> from errata.edits import diff
    >>> touched("The red lamp", diff("The red lamp", "A red desk lamp"))
    ([True, False, False], [False, False, True, False])
    """
    starts = [start for start, _ in words(original)]
    changed, filled = [False] * len(starts), [False] * (len(starts) + 1)
    for edit in edits:
        if edit.op is Op.KEEP:
            continue
        for start, _ in words(edit.original.text):
            changed[bisect_right(starts, edit.original.start + start) - 1] = True
        if not words(edit.original.text) and words(edit.edited.text):
            # An inserted word may come with the white space before it or follow some that was kept.
            filled[bisect_right(starts, edit.original.start - 1)] = True
    return changed, filled


def units_of(original: str, each_edits: Iterable[Sequence[Edit]]) -> Iterator[tuple[str, tuple[bool, ...]]]:
    """Yield each unit of one original, ``word`` or ``gap``, with what each of those who edited it did there."""
    each = [touched(original, edits) for edits in each_edits]
    for name, sides in zip(("word", "gap"), zip(*each, strict=True), strict=True):
        for values in zip(*sides, strict=True):
            yield name, values
