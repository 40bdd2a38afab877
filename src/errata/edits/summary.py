"""How much was edited, and how: the numbers to look at before training on corrections.

One pass, in memory that does not grow with the rows. Counts, sums and means are exact. Estimated, and named in
``EditStatistics.estimated`` where they are:

- quantiles, once a figure has more than 16,384 different values: they are then rounded to a grid, doubled as needed;
- the words that are changed most, once there are more than 100,000 different ones: the counts shown are then too low,
  by at most ``EditStatistics.words_missed`` (Misra and Gries 1982);
- duplicates, wherever there are any (``errata.edits.duplicates``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from errata.edits.difference import diff
from errata.edits.duplicates import Duplicates
from errata.edits.normalization import Mechanical, MechanicalOf
from errata.edits.ungrounded import unknown_words
from errata.edits.word_spans import words
from errata.types import Correction, Edit, Op, Ties, Unit

__all__ = ["QUANTILES", "Distribution", "EditStatistics", "FrequentWords", "StatisticsOf", "statistics"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Which quantiles are reported."""

_TENTHS = 10
_SHOWN = 20  # words and pairs of each list
_EXAMPLES = 5
_REASONS = 1000  # different tags; more are counted as "others"


@dataclass(frozen=True, kw_only=True, slots=True)
class EditStatistics:
    """Counts over corrections; words are those of ``errata.edits.word_spans``, in a minimal alignment."""

    rows: int
    unchanged: int
    """Rows whose two texts are equal to the character: "already good"."""
    words_original: int
    words_edited: int
    words_deleted: int
    words_inserted: int
    words_substituted: int
    mean_edit_ratio: float
    """Mean of ``edit_ratio`` over the rows that change a word: word edits by the words of the longer text; 0 if none
    does. Rows that change white space only are counted in ``kinds``. People's "minimal" edits are often large: near 1
    they are rewrites."""
    median_edit_ratio: float
    edit_ratio_quantiles: Mapping[str, float] = field(default_factory=dict)
    """Of the rows that change a word, by ``"0.05"`` and so on; linear between two rows, as numpy's."""
    edit_ratio_histogram: tuple[int, ...] = ()
    """Rows that change a word by tenths of the edit ratio; 1 belongs to the last."""
    length_change_quantiles: Mapping[str, float] = field(default_factory=dict)
    """Of all rows: words of the edited text less those of the original."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Rows that only ``insert``, only ``delete`` or only ``substitute`` words; the ``mixed``, ``white_space`` (no word
    changed) and ``unchanged`` ones."""
    positions: tuple[int, ...] = ()
    """Changed words by the tenth of the original in which they fall."""
    at_end: int = 0
    """Words inserted after the last word of the original, which no tenth counts."""
    same: int = 0
    """Rows whose prompt, original and edited text, white space folded, have come before."""
    near_duplicates: int = 0
    """Further rows that are nearly one of the last 131,072 (``errata.edits.duplicates``)."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Rows by reason tag, most first; a row may have several."""
    substituted: tuple[tuple[str, str, int], ...] = ()
    """What is put for what most often: original word, edited word, times."""
    inserted: tuple[tuple[str, int], ...] = ()
    deleted: tuple[tuple[str, int], ...] = ()
    words_missed: int = 0
    """By how much the counts of single words may be too low."""
    unknowable: Mapping[str, int] = field(default_factory=dict)
    """Words written that the model could not have known, by kind (``errata.edits.ungrounded``)."""
    unknowable_rows: int = 0
    unknowable_examples: tuple[tuple[str, str, str], ...] = ()
    """Of the first rows that have one: row, kind, and the word in its surroundings."""
    mechanical: Mechanical = field(default_factory=Mechanical)
    """Edits that programs made and nobody meant, by kind (``errata.edits.normalization``)."""
    estimated: tuple[str, ...] = ()
    """The figures above that are estimates in this case."""

    @property
    def words_typed(self) -> int:
        """What the corrections cost: words inserted and words put in the place of others (deleting is free)."""
        return self.words_inserted + self.words_substituted

    @property
    def mean_length_change(self) -> float:
        """Words that a row gained by its edit, on the mean over all rows; negative where text was cut."""
        return (self.words_edited - self.words_original) / max(self.rows, 1)

    @property
    def words_kept(self) -> int:
        """Words that stand in both texts of a row."""
        return self.words_original - self.words_deleted - self.words_substituted

    @property
    def share_unchanged(self) -> float:
        """Share of the rows that were "already good"; 0 for no rows."""
        return self.unchanged / max(self.rows, 1)

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, ready for JSON."""
        derived = ("words_typed", "words_kept", "share_unchanged", "mean_length_change")
        figures = {**asdict(self), **{name: getattr(self, name) for name in derived}}
        return {**figures, "mechanical": self.mechanical.as_dict()}

    def __str__(self) -> str:
        white_space = self.kinds.get("white_space", 0)
        only_white_space = f" and {white_space} changed in white space only" if white_space else ""
        ratio = "no row changes a word"
        if self.rows > self.unchanged + white_space:
            ratio = (
                f"edit ratio of the rows that change a word {self.mean_edit_ratio:.2f} in the mean and "
                f"{self.median_edit_ratio:.2f} in the median"
            )
        return (
            f"{self.rows} corrections, {self.unchanged} of them unchanged{only_white_space}; of {self.words_original} "
            f"words {self.words_deleted} deleted and {self.words_substituted} substituted, {self.words_inserted} "
            f"inserted: {self.words_typed} words typed; {ratio}; {self.mean_length_change:+.1f} words a row"
        )

    def __rich__(self) -> str:
        """The same line on a console of rich's, which would show every field of a dataclass."""
        return str(self)


def statistics(corrections: Iterable[Correction]) -> EditStatistics:
    """Count what was edited; all zero for no corrections.

    >>> rows = [Correction(id="a", prompt="", original="It now opens at 9.", edited="It opens at 10.")]
    >>> found = statistics(rows)
    >>> found.words_typed, found.words_deleted, round(found.mean_edit_ratio, 2), found.mean_length_change
    (1, 1, 0.33, -1.0)
    >>> found.kinds["mixed"], found.unknowable["number"], found.substituted
    (1, 1, (('9', '10', 1),))
    """
    tally = StatisticsOf()
    for row in corrections:
        tally.add(row)
    return tally.result()


class StatisticsOf:
    """The same, one row at a time: ``add`` each, then ask for the ``result``, at any time and again later."""

    def __init__(self) -> None:
        self._totals: Counter[str] = Counter()
        self._kinds = dict.fromkeys(("unchanged", "white_space", "insert", "delete", "substitute", "mixed"), 0)
        self._ratios = Distribution(grid=1e-4)
        self._ratio_histogram = [0] * _TENTHS
        self._length_changes = Distribution(grid=1)
        self._positions = [0] * _TENTHS
        self._duplicates = Duplicates()
        self._reasons: Counter[str] = Counter()
        self._changes = {op: FrequentWords() for op in (Op.SUBSTITUTE, Op.INSERT, Op.DELETE)}
        self._unknowable = dict.fromkeys(("number", "link", "name"), 0)
        self._examples: list[tuple[str, str, str]] = []
        self._mechanical = MechanicalOf()

    def add(self, row: Correction) -> None:
        """Count one correction."""
        original, edited = len(words(row.original)), len(words(row.edited))
        self._totals.update(rows=1, original=original, edited=edited)
        self._length_changes.add(edited - original)
        if likeness := self._duplicates.add(row):
            self._totals[likeness] += 1
        for tag in set(row.reasons):
            self._reasons[tag if tag in self._reasons or len(self._reasons) < _REASONS else "others"] += 1
        self._mechanical.add(row.original, row.edited)
        if row.original == row.edited:
            self._kinds["unchanged"] += 1
        else:
            self._add_edits(row, original, edited)

    def _add_edits(self, row: Correction, original: int, edited: int) -> None:
        edits = diff(row.original, row.edited, Unit.WORD, ties=Ties.DEPARTURE)
        of_words = [edit for edit in edits if edit.op is not Op.KEEP and (_word(edit.original) or _word(edit.edited))]
        ops = Counter(edit.op for edit in of_words)
        self._totals.update({op.value: count for op, count in ops.items()})
        self._kinds["mixed" if len(ops) > 1 else next(iter(ops)).value if ops else "white_space"] += 1
        if of_words:  # a ratio of 0 would say that nothing was changed
            ratio = len(of_words) / max(original, edited, 1)
            self._ratios.add(ratio)
            self._ratio_histogram[min(int(ratio * _TENTHS), _TENTHS - 1)] += 1
        self._add_positions(edits, original)
        for edit in of_words:
            self._changes[edit.op].add(tuple(word for word in (_word(edit.original), _word(edit.edited)) if word))
        unknown = unknown_words(row, edits)
        self._totals["unknowable_rows"] += bool(unknown)
        for kind, _ in unknown:
            self._unknowable[kind.value] += 1
        if unknown and len(self._examples) < _EXAMPLES:
            kind, span = unknown[0]
            around = row.edited[max(span.start - 40, 0) : span.stop + 20]
            self._examples.append((row.id, kind.value, f"{span.text}: …{' '.join(around.split())}…"))

    def _add_positions(self, edits: Iterable[Edit], original: int) -> None:
        """Words inserted count where they come before a word of the original."""
        index = 0
        for edit in edits:
            if edit.op is Op.KEEP:
                index += len(words(edit.original.text))
            elif _word(edit.original) or _word(edit.edited):
                if index < original:
                    self._positions[index * _TENTHS // original] += 1
                else:
                    self._totals["at_end"] += 1
                index += edit.op is not Op.INSERT

    def result(self) -> EditStatistics:
        """The statistics of all rows so far."""
        totals, ratios = self._totals, self._ratios
        substituted, inserted, deleted = (self._changes[op] for op in (Op.SUBSTITUTE, Op.INSERT, Op.DELETE))
        missed = max(counter.missed for counter in self._changes.values())
        estimates = {
            "median_edit_ratio": not ratios.exact,
            "edit_ratio_quantiles": not ratios.exact,
            "length_change_quantiles": not self._length_changes.exact,
            "substituted": substituted.missed > 0,
            "inserted": inserted.missed > 0,
            "deleted": deleted.missed > 0,
            "same": totals["same"] > 0,
            "near_duplicates": totals["near"] > 0,
        }
        return EditStatistics(
            rows=totals["rows"],
            unchanged=self._kinds["unchanged"],
            words_original=totals["original"],
            words_edited=totals["edited"],
            words_deleted=totals["delete"],
            words_inserted=totals["insert"],
            words_substituted=totals["substitute"],
            mean_edit_ratio=ratios.mean,
            median_edit_ratio=ratios.quantile(0.5),
            edit_ratio_quantiles={str(q): ratios.quantile(q) for q in QUANTILES},
            edit_ratio_histogram=tuple(self._ratio_histogram),
            length_change_quantiles={str(q): self._length_changes.quantile(q) for q in QUANTILES},
            kinds=dict(self._kinds),
            positions=tuple(self._positions),
            at_end=totals["at_end"],
            same=totals["same"],
            near_duplicates=totals["near"],
            reasons=dict(self._reasons.most_common()),
            substituted=tuple((a, b, count) for (a, b), count in substituted.most_common(_SHOWN)),
            inserted=tuple((word, count) for (word,), count in inserted.most_common(_SHOWN)),
            deleted=tuple((word, count) for (word,), count in deleted.most_common(_SHOWN)),
            words_missed=missed,
            unknowable=dict(self._unknowable),
            unknowable_rows=totals["unknowable_rows"],
            unknowable_examples=tuple(self._examples),
            mechanical=self._mechanical.result(),
            estimated=tuple(name for name, is_estimate in estimates.items() if is_estimate),
        )


class Distribution:
    """Mean and quantiles of a stream of numbers, in bounded memory.

    Exact up to 16,384 different values (the mean always is). Beyond, values are rounded to a grid whose mesh starts at
    ``grid`` and doubles until few enough are left; quantiles are then off by less than the mesh (half of it by the last
    rounding, and half as much again and again by those before).

    >>> seen = Distribution(grid=0.5)
    >>> for value in (1, 2, 2, 5):
    ...     seen.add(value)
    >>> seen.mean, seen.quantile(0.5), seen.quantile(0.75)
    (2.5, 2.0, 2.75)
    """

    LIMIT = 16_384

    def __init__(self, grid: float) -> None:
        self._counts: Counter[float] = Counter()
        self._mesh = 0.0
        self._first_mesh = grid
        self._total = 0.0
        self._size = 0

    @property
    def exact(self) -> bool:
        """Whether no value was rounded."""
        return not self._mesh

    @property
    def error(self) -> float:
        """Less than this a quantile may be off."""
        return self._mesh

    @property
    def mean(self) -> float:
        """The mean; 0 of nothing."""
        return self._total / max(self._size, 1)

    def add(self, value: float) -> None:
        """Count one value."""
        self._total += value
        self._size += 1
        self._counts[self._rounded(value)] += 1
        while len(self._counts) > self.LIMIT:
            self._mesh = 2 * self._mesh or self._first_mesh
            rounded: Counter[float] = Counter()
            for old, count in self._counts.items():
                rounded[self._rounded(old)] += count
            self._counts = rounded

    def quantile(self, q: float) -> float:
        """Linear between the two values that it falls between, as numpy's; 0 of nothing."""
        if not self._size:
            return 0.0
        values = np.array(sorted(self._counts))
        ends = np.cumsum([self._counts[value] for value in values])
        place = q * (self._size - 1)
        low, high = (
            float(values[np.searchsorted(ends, rank, side="right")]) for rank in (int(place), -int(-place // 1))
        )
        return low + (high - low) * (place - int(place))

    def _rounded(self, value: float) -> float:
        return round(value / self._mesh) * self._mesh if self._mesh else value


class FrequentWords:
    """Which words come most often, in bounded memory (Misra and Gries 1982, a batch at a time).

    Exact up to ``limit`` different ones. Beyond, all counts are lowered until half of them are gone, and ``missed``
    says by how much in all: a count is too low by at most that, and what is not listed came no more often.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._counts: Counter[tuple[str, ...]] = Counter()
        self.missed = 0

    def add(self, key: tuple[str, ...]) -> None:
        """Count one."""
        self._counts[key] += 1
        if len(self._counts) > self._limit:
            counts = sorted(self._counts.values(), reverse=True)
            lowered = counts[self._limit // 2]
            self.missed += lowered
            self._counts = Counter({key: count - lowered for key, count in self._counts.items() if count > lowered})

    def most_common(self, size: int) -> list[tuple[tuple[str, ...], int]]:
        """The most frequent ones, ties in alphabetical order, so that the order of the rows does not matter."""
        return sorted(self._counts.items(), key=lambda each: (-each[1], each[0]))[:size]


def _word(span: Any) -> str:
    """The word of a span, without white space."""
    return str(span.text.strip())
