"""How many tokens carry which label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from errata.types import Label, TokenLabels

__all__ = ["LabelCounts", "changed", "count_labels", "has_change"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCounts:
    """How many response tokens carry which label; the end of sequence counts among the kept."""

    rows: int = 0
    rows_unchanged: int = 0
    """Rows without a token on either side that was changed, or is blamed for an omission."""
    original_kept: int = 0
    original_deleted: int = 0
    original_substituted: int = 0
    original_omission: int = 0
    original_ignored: int = 0
    edited_kept: int = 0
    edited_inserted: int = 0
    edited_substituted: int = 0
    edited_ignored: int = 0

    def __add__(self, other: LabelCounts) -> LabelCounts:
        mine, others = asdict(self), asdict(other)
        return LabelCounts(**{name: mine[name] + others[name] for name in mine})

    def __str__(self) -> str:
        """The counts in words; labels that nothing carries are left out."""
        sides = []
        for side in ("original", "edited"):
            counts = {
                f.name.removeprefix(f"{side}_"): getattr(self, f.name) for f in fields(self) if f.name.startswith(side)
            }
            listed = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "kept")
            sides.append(f"{side} tokens: {listed}")
        return f"{self.rows:,} rows, {self.rows_unchanged:,} without a changed token; {'; '.join(sides)}"


def has_change(row: TokenLabels) -> bool:
    """Whether the edit changed a token of either side."""
    return any(changed(row.original.labels)) or any(changed(row.edited.labels))


def changed(labels: Sequence[int]) -> tuple[bool, ...]:
    """The mask of the changed tokens, U_l on the original side and U_e on the edited one; a blamed omission counts.

    >>> changed((Label.KEPT, Label.SUBSTITUTED, Label.DELETED, Label.IGNORED))
    (False, True, True, False)
    """
    return tuple(name not in (Label.KEPT, Label.IGNORED) for name in labels)


def count_labels(rows: Iterable[TokenLabels]) -> LabelCounts:
    """Count the labels of both sides."""
    sides = np.zeros((2, len(Label)), np.int64)
    total = unchanged = 0
    for row in rows:
        counts = np.array([np.bincount(side.labels, minlength=len(Label)) for side in (row.original, row.edited)])
        sides += counts
        total += 1
        unchanged += not counts[:, Label.INSERTED : Label.IGNORED].any()
    named = {
        f"{side}_{name.name.lower()}": int(sides[k, name])
        for k, side in enumerate(("original", "edited"))
        for name in Label
        if sides[k, name]
    }
    return LabelCounts(rows=total, rows_unchanged=unchanged, **named)
