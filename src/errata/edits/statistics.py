"""How much was edited: the numbers to look at before training on corrections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from errata.edits.words import split_words
from errata.types import Correction

__all__ = ["EditStatistics", "statistics"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EditStatistics:
    """Counts over corrections; words are those of ``errata.edits.words``, in a minimal alignment."""

    rows: int
    unchanged: int
    """Rows whose two texts are equal to the character."""
    words_original: int
    words_edited: int
    words_deleted: int
    words_inserted: int
    words_substituted: int
    mean_edit_ratio: float
    """Mean over the changed rows of ``edit_ratio``: word edits by the words of the longer text; 0 if none is changed.
    People's "minimal" edits are often large: near 1 they are rewrites."""
    median_edit_ratio: float

    @property
    def words_typed(self) -> int:
        """What the corrections cost: words inserted and words put in the place of others (deleting is free)."""
        return self.words_inserted + self.words_substituted

    @property
    def mean_length_change(self) -> float:
        """Words that a row gained by its edit, on the mean over all rows; negative where text was cut."""
        return (self.words_edited - self.words_original) / max(self.rows, 1)

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name, ready for JSON."""
        return {**asdict(self), "words_typed": self.words_typed, "mean_length_change": self.mean_length_change}

    def __str__(self) -> str:
        return (
            f"{self.rows} corrections, {self.unchanged} of them unchanged; of {self.words_original} words "
            f"{self.words_deleted} deleted and {self.words_substituted} substituted, {self.words_inserted} inserted: "
            f"{self.words_typed} words typed; edit ratio of changed rows {self.mean_edit_ratio:.2f} in the mean and "
            f"{self.median_edit_ratio:.2f} in the median; {self.mean_length_change:+.1f} words a row"
        )


def statistics(corrections: Iterable[Correction]) -> EditStatistics:
    """Count what was edited; all zero for no corrections.

    >>> rows = [Correction(id="a", prompt="", original="It opens at 9 sharp.", edited="It opens at 10.")]
    >>> found = statistics(rows)
    >>> found.words_typed, found.words_deleted, round(found.mean_edit_ratio, 2), found.mean_length_change
    (1, 1, 0.33, -1.0)
    """
    totals: Counter[str] = Counter()
    ratios: list[float] = []
    for row in corrections:
        original, edited = split_words(row.original), split_words(row.edited)
        operations = Levenshtein.editops(original, edited)
        totals.update(operation.tag for operation in operations)
        totals.update(rows=1, original=len(original), edited=len(edited))
        if row.original == row.edited:
            totals["unchanged"] += 1
        else:
            ratios.append(len(operations) / max(len(original), len(edited), 1))
    return EditStatistics(
        rows=totals["rows"],
        unchanged=totals["unchanged"],
        words_original=totals["original"],
        words_edited=totals["edited"],
        words_deleted=totals["delete"],
        words_inserted=totals["insert"],
        words_substituted=totals["replace"],
        mean_edit_ratio=float(np.mean(ratios)) if ratios else 0.0,
        median_edit_ratio=float(np.median(ratios)) if ratios else 0.0,
    )
