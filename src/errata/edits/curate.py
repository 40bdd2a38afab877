"""Which corrections to train on: filters that say how many rows they kept, and show what they dropped and why.

A filter looks at a batch of rows and gives, for each, why to drop it, or None. ``Curation`` runs rows through
filters in the order given, batch by batch, so that memory does not grow with the rows; each filter sees only what those
before it kept.

A row whose edited text equals its original is information: somebody looked, and it was good. So the filters that ask
about the edit (its ratio, its reasons, its rewards) let such a row pass; only ``changed_only`` drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf, isnan
from typing import Any, Literal, NamedTuple

from errata.edits.duplicates import Duplicates, Likeness
from errata.edits.word_spans import edit_ratio, words
from errata.types import Correction, Prompt

__all__ = [
    "Curation",
    "Dropped",
    "Filter",
    "FilterReport",
    "Score",
    "changed_only",
    "edit_ratio_within",
    "field_is_one_of",
    "no_duplicates",
    "reason_is_one_of",
    "reward_gap",
    "words_within",
]

BATCH_SIZE = 256  # rows
_EXAMPLES = 3

Score = Callable[[Sequence[tuple[Prompt, str]]], Sequence[float]]
"""Rewards of (prompt, response) pairs, in order: a reward model, handed in."""


class Filter(NamedTuple):
    """A condition on rows, by its name."""

    name: str
    judge: Callable[[Sequence[Correction]], Sequence[str | None]]
    """For each row of a batch why to drop it, or None to keep it."""


class Dropped(NamedTuple):
    """A row that a filter dropped."""

    row: Correction
    filter: str
    why: str


@dataclass(slots=True)
class FilterReport:
    """What one filter did so far."""

    name: str
    rows: int = 0
    kept: int = 0
    examples: list[Dropped] = field(default_factory=list)
    """The first rows that it dropped."""

    def as_dict(self) -> dict[str, Any]:
        """All of it by name, ready for JSON; rows by their ids."""
        examples = [{"id": row.id, "why": why} for row, _, why in self.examples]
        return {"name": self.name, "rows": self.rows, "kept": self.kept, "dropped": examples}

    def __str__(self) -> str:
        return f"{self.name}: {self.kept} of {self.rows} kept"


class Curation:
    """Filters in their order, and what each did.

    >>> rows = [
    ...     Correction(id="a", prompt="", original="It opens at nine.", edited="It opens at ten."),
    ...     Correction(id="b", prompt="", original="It opens at nine.", edited="Ask them."),
    ...     Correction(id="c", prompt="", original="It opens at ten.", edited="It opens at ten."),
    ... ]
    >>> curation = Curation([edit_ratio_within(high=0.5), changed_only()])
    >>> [row.id for row in curation.keep(rows)]
    ['a']
    >>> for report in curation.reports:
    ...     print(report, [why for _, _, why in report.examples])
    edit ratio from 0 to 0.5: 2 of 3 kept ['edit ratio 0.80']
    only changed rows: 1 of 2 kept ['edited = original']
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = filters
        self.reports = [FilterReport(each.name) for each in filters]
        self.rows = 0
        self.kept = 0
        self.kept_unchanged = 0
        """Of those kept, rows whose edited text equals the original: "already good"."""

    def keep(
        self, corrections: Iterable[Correction], drop: Callable[[Dropped], None] = lambda _: None
    ) -> Iterator[Correction]:
        """Yield the rows that pass all filters, in order; hand each other one to ``drop``.

        Raises:
            ValueError: a filter's, such as rewards that do not fit the rows.
        """
        for batch in _batches(corrections):
            self.rows += len(batch)
            kept = batch
            for each, report in zip(self._filters, self.reports, strict=True):
                kept = list(_pass(kept, each, report, drop))
            self.kept += len(kept)
            self.kept_unchanged += sum(map(_unchanged, kept))
            yield from kept

    def as_dict(self) -> dict[str, Any]:
        """All of it by name, ready for JSON."""
        totals = {"rows": self.rows, "kept": self.kept, "kept_unchanged": self.kept_unchanged}
        return {**totals, "filters": [report.as_dict() for report in self.reports]}


def edit_ratio_within(low: float = 0.0, high: float = 1.0) -> Filter:
    """Keep rows whose share of edited words lies from ``low`` to ``high``, both included; unchanged rows pass.

    Raises:
        ValueError: an empty range.
    """
    _check_range("edit ratio", low, high)

    def judge(row: Correction) -> str | None:
        ratio = edit_ratio(row.original, row.edited)
        said = f"edit ratio {ratio:.2f}" if ratio else "edit ratio 0: white space changed, and no word"
        return None if _unchanged(row) or low <= ratio <= high else said

    return Filter(f"edit ratio from {low:g} to {high:g}", _each(judge))


def words_within(side: Literal["original", "edited"], low: int = 0, high: float = inf) -> Filter:
    """Keep rows whose original or edited text has ``low`` to ``high`` words, both included.

    Raises:
        ValueError: an empty range.
    """
    _check_range(f"words of the {side} text", low, high)

    def judge(row: Correction) -> str | None:
        count = len(words(row.original if side == "original" else row.edited))
        return None if low <= count <= high else f"{count} words in the {side} text"

    return Filter(f"from {low} to {high:g} words in the {side} text", _each(judge))


def field_is_one_of(name: str, values: Collection[str]) -> Filter:
    """Keep rows whose further field ``name`` (an annotator, a source) is one of these texts, or a list that has one."""

    def judge(row: Correction) -> str | None:
        if name not in row.extra:
            return f"no field {name!r}"
        found = row.extra[name]
        held = found if isinstance(found, list) else [found]
        return None if any(str(value) in values for value in held) else f"{name} is {found!r}"

    return Filter(f"{name} is one of {', '.join(values)}", _each(judge))


def reason_is_one_of(reasons: Collection[str]) -> Filter:
    """Keep rows that were edited for one of these reasons; unchanged rows have none, and pass."""

    def judge(row: Correction) -> str | None:
        if _unchanged(row) or any(reason in reasons for reason in row.reasons):
            return None
        return f"edited for {', '.join(row.reasons)}" if row.reasons else "no reason given"

    return Filter(f"edited for one of {', '.join(reasons)}", _each(judge))


def changed_only() -> Filter:
    """Drop rows whose two texts are equal to the character."""
    return Filter("only changed rows", _each(lambda row: "edited = original" if _unchanged(row) else None))


def no_duplicates(likeness: Likeness = "same") -> Filter:
    """Keep the first of rows that are the same (``near``: or nearly so), as ``errata.edits.duplicates`` has it."""
    seen = Duplicates()

    def judge(row: Correction) -> str | None:
        found = seen.add(row)
        return f"{found} as a row before" if found in ("same", likeness) else None

    return Filter("no near-duplicates" if likeness == "near" else "no duplicates", _each(judge))


def reward_gap(score: Score, eta1: float = inf, eta2: float = -inf, eta3: float = -inf) -> Filter:
    """FIGA's filter: keep (x, ŷ, y) if R(ŷ) < η₁, R(y) > η₂ and R(y) − R(ŷ) > η₃; unchanged rows pass.

    ŷ is the original and y the ground truth: the further field ``output`` where a row has it, else the edited text
    (which, in FIGA, is made only after this filter). The paper has 1, 3 and 3.5, which hold for its reward model only.
    A reward that is not a number drops the row.

    Args:
        score: rewards of a batch of (prompt, response).
        eta1: what the original's reward must stay below: it was worth an edit.
        eta2: what the better text's must exceed: it is worth imitating.
        eta3: what their difference must exceed.
    """

    def judge(rows: Sequence[Correction]) -> list[str | None]:
        changed = [row for row in rows if not _unchanged(row)]
        better = [row.extra.get("output", row.edited) for row in changed]
        if bad := next((row.id for row, text in zip(changed, better, strict=True) if not isinstance(text, str)), None):
            raise ValueError(f"row {bad!r}: field 'output' is no text; make it the ground truth, or leave it out")
        pairs = [(row.prompt, row.original) for row in changed]
        pairs += [(row.prompt, text) for row, text in zip(changed, better, strict=True)]
        rewards = [float(reward) for reward in score(pairs)] if pairs else []
        if len(rewards) != len(pairs):
            raise ValueError(f"the scorer gave {len(rewards)} rewards for {len(pairs)} responses; give one for each")
        gaps = iter(zip(rewards[: len(changed)], rewards[len(changed) :], strict=True))
        return [None if _unchanged(row) else verdict(*next(gaps)) for row in rows]

    def verdict(low: float, high: float) -> str | None:
        keep = low < eta1 and high > eta2 and high - low > eta3
        too_long = " (nan: too long to be scored)" if isnan(low) or isnan(high) else ""
        return None if keep else f"R(ŷ) = {low:.2f}, R(y) = {high:.2f}{too_long}"

    return Filter(f"R(ŷ) < {eta1:g}, R(y) > {eta2:g}, R(y) − R(ŷ) > {eta3:g}", judge)


def _unchanged(row: Correction) -> bool:
    return row.original == row.edited


def _check_range(of: str, low: float, high: float) -> None:
    if not 0 <= low <= high:
        raise ValueError(
            f"no number for {of} lies from {low:g} to {high:g}; give two bounds from 0, the lower one first"
        )


def _each(judge: Callable[[Correction], str | None]) -> Callable[[Sequence[Correction]], list[str | None]]:
    return lambda rows: [judge(row) for row in rows]


def _batches(rows: Iterable[Correction]) -> Iterator[list[Correction]]:
    rest = iter(rows)
    while batch := list(islice(rest, BATCH_SIZE)):
        yield batch


def _pass(
    batch: Sequence[Correction], each: Filter, report: FilterReport, drop: Callable[[Dropped], None]
) -> Iterator[Correction]:
    report.rows += len(batch)
    for row, why in zip(batch, each.judge(batch), strict=True):
        if why is None:
            report.kept += 1
            yield row
        else:
            dropped = Dropped(row, each.name, why)
            if len(report.examples) < _EXAMPLES:
                report.examples.append(dropped)
            drop(dropped)
