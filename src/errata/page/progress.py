"""How far the work is, what it takes, and whether people agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from statistics import median
from threading import Lock
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from errata.edits import words
from errata.page.agreement import alpha, units_of
from errata.page.export import KEPT
from errata.page.show import edits_from
from errata.page.store import Annotator, Item, Revision, Store, Task
from errata.types import Edit, Op

__all__ = ["Overview", "progress"]

_RECENT = 50
_SHOWN = 20


def progress(store: Store, annotator: int) -> dict[str, Any]:
    """How many this annotator has submitted and may expect, the pace, and how long the rest takes at that pace."""
    with store.read() as session:
        done = session.scalar(select(func.count()).where(Task.annotator == annotator, Task.outcome.is_not(None))) or 0
        items = session.scalar(select(func.count()).select_from(Item)) or 0
        finished = (
            session.scalar(
                select(func.count()).select_from(Task).where(Task.outcome.is_not(None), Task.outcome != "skip")
            )
            or 0
        )
        people = session.scalar(select(func.count()).where(~Annotator.admin)) or 1
        seconds = session.scalars(
            select(Revision.seconds)
            .join(Task, (Task.number == Revision.task) & (Task.final == Revision.seq))
            .where(Task.annotator == annotator)
            .order_by(Revision.number.desc())
            .limit(_RECENT)
        ).all()
    left = max(items * store.overlap - finished, 0)
    expected = min(-(-left // people), max(items - done, 0))
    pace = median(seconds) if seconds else None
    return {
        "done": done,
        "left": expected,
        "pace_seconds": pace,
        "left_seconds": None if pace is None else pace * expected,
    }


@dataclass(frozen=True, slots=True)
class _Figures:
    """What one edit adds to the statistics."""

    ratio: float | None
    """None where nothing was changed."""
    typed: int
    deleted: int
    substituted: Sequence[tuple[str, str]]
    reasons: Sequence[str]


@dataclass(slots=True)
class Overview:
    """For the admin: items, each annotator's work, the statistics of the edits and Krippendorff's α.

    All over all edits that count. What one edit, or the edits of one response, add is kept between two looks, so that
    the next one reads only what is new.
    """

    store: Store
    _edits: dict[int, _Figures | None] = field(default_factory=dict)
    """By the number of the revision; None of texts too long to compare."""
    _shared: dict[tuple[int, ...], Counter[tuple[str, tuple[bool, ...]]]] = field(default_factory=dict)
    """By the revisions of one response: how many of its words and gaps were treated how."""
    _one_reader: Lock = field(default_factory=Lock)

    def look(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        with self._one_reader, self.store.read() as session:
            items = session.scalar(select(func.count()).select_from(Item)) or 0
            waiting = session.scalar(select(func.count()).where(Item.open)) or 0
            people = [_person(session, one) for one in session.scalars(_people()).all()]
            finals = [tuple(row) for row in session.execute(_finals())]
            self._edits = {number: self._edits.get(number) for number, _ in finals if number in self._edits}
            for number, original, edited, ends, reasons in _texts(session, self._edits, [one for one, _ in finals]):
                edits = None if ends is None else edits_from(ends, original, edited)
                self._edits[number] = None if edits is None else _figures(original, edited, edits, reasons)
            compared = [each for each in self._edits.values() if each is not None]
            return {
                "items": items,
                "finished": items - waiting,
                "overlap": self.store.overlap,
                "annotators": people,
                "notes": _notes(session),
                "statistics": _sums(compared) if compared else None,
                "too_long": len(self._edits) - len(compared),
                "agreement": self._agreement(session, finals),
            }

    def _agreement(self, session: Session, finals: Iterable[tuple[int, int]]) -> dict[str, Any]:
        of_items = (
            tuple(number for number, _ in group if self._edits[number] is not None)
            for _, group in groupby(finals, key=lambda row: row[1])
        )
        shared = [numbers for numbers in of_items if len(numbers) > 1]
        new = [numbers for numbers in shared if numbers not in self._shared]
        known = {numbers: self._shared[numbers] for numbers in shared if numbers in self._shared}
        texts = _texts(session, (), [number for numbers in new for number in numbers])
        for numbers in new:
            rows = list(islice(texts, len(numbers)))
            original = rows[0][1]
            known[numbers] = Counter(units_of(original, [edits_from(row[3], original, row[2]) for row in rows]))
        self._shared = known
        counts: dict[str, Counter[tuple[bool, ...]]] = {"word": Counter(), "gap": Counter(), "both": Counter()}
        for each in known.values():
            for (name, values), count in each.items():
                counts[name][values] += count
                counts["both"][values] += count
        return {
            "items": len(known),
            "words": alpha(counts["word"]),
            "gaps": alpha(counts["gap"]),
            "both": alpha(counts["both"]),
        }


def _people() -> Any:
    return select(Annotator).where(~Annotator.admin).order_by(Annotator.number)


def _finals() -> Any:
    """The number of each revision that is an edit and counts, and that of its item, item by item."""
    return (
        select(Revision.number, Task.item)
        .join(Task, (Task.number == Revision.task) & (Task.final == Revision.seq))
        .where(Task.outcome.in_(KEPT))
        .order_by(Task.item, Task.number)
    )


def _texts(session: Session, known: Mapping[int, Any] | Sequence[int], numbers: Sequence[int]) -> Iterator[Any]:
    """Yield number, original, edited, edits and reasons of those that are not known, in their order."""
    rest = iter([number for number in numbers if number not in known])
    chosen = (
        select(Revision.number, Item.response, Revision.text, Revision.edits, Revision.reasons)
        .join(Task, Task.number == Revision.task)
        .join(Item, Item.number == Task.item)
    )
    while some := list(islice(rest, 200)):
        rows = {row.number: row for row in session.execute(chosen.where(Revision.number.in_(some)))}
        yield from (rows[number] for number in some)


def _figures(original: str, edited: str, edits: Iterable[Edit], reasons: Sequence[str]) -> _Figures:
    changes = [
        (edit.op, edit.original.text.strip(), edit.edited.text.strip()) for edit in edits if edit.op is not Op.KEEP
    ]
    of_words = [change for change in changes if change[1] or change[2]]
    return _Figures(
        ratio=None if original == edited else len(of_words) / max(len(words(original)), len(words(edited)), 1),
        typed=sum(op is not Op.DELETE for op, _, _ in of_words),
        deleted=sum(op is Op.DELETE for op, _, _ in of_words),
        substituted=[(before, after) for op, before, after in of_words if op is Op.SUBSTITUTE],
        reasons=tuple(set(reasons)),
    )


def _sums(edits: Sequence[_Figures]) -> dict[str, Any]:
    """The figures of ``errata.edits.summary`` that the page shows, by their names there."""
    changed = [each.ratio for each in edits if each.ratio is not None]
    ratios = [ratio for ratio in changed if ratio]  # as `errata edits stats`: of those that change a word
    pairs = Counter(pair for each in edits for pair in each.substituted)
    reasons = Counter(tag for each in edits for tag in each.reasons)
    return {
        "rows": len(edits),
        "changed": len(changed),
        "share_unchanged": 1 - len(changed) / len(edits),
        "median_edit_ratio": median(ratios) if ratios else 0.0,
        "words_typed": sum(each.typed for each in edits),
        "words_deleted": sum(each.deleted for each in edits),
        "substituted": [
            (*pair, count) for pair, count in sorted(pairs.items(), key=lambda each: (-each[1], each[0]))[:_SHOWN]
        ],
        "reasons": dict(reasons.most_common()),
    }


def _person(session: Session, who: Annotator) -> dict[str, Any]:
    finals = (
        select(Revision)
        .join(Task, (Task.number == Revision.task) & (Task.final == Revision.seq))
        .where(Task.annotator == who.number)
    )
    sums = session.execute(
        finals.with_only_columns(
            Task.outcome,
            func.count().label("count"),
            func.sum(Revision.seconds).label("seconds"),
            func.sum(Revision.keystrokes).label("keystrokes"),
            func.sum(Revision.pastes).label("pastes"),
        )
        .group_by(Task.outcome)
        .order_by(Task.outcome)
    ).all()
    recent = session.execute(
        finals.join(Item, Item.number == Task.item)
        .with_only_columns(Revision.seconds, Item.response)
        .order_by(Revision.number.desc())
        .limit(_RECENT)
    )
    a_word = [seconds / max(len(words(response)), 1) for seconds, response in recent]
    return {
        "name": who.name,
        "done": sum(row.count for row in sums),
        "outcomes": {row.outcome: row.count for row in sums},
        "active_seconds": sum(row.seconds for row in sums),
        "keystrokes": int(sum(row.keystrokes for row in sums)),
        "pastes": int(sum(row.pastes for row in sums)),
        "median_seconds_a_word": median(a_word) if a_word else None,
    }


def _notes(session: Session) -> list[dict[str, str]]:
    said = session.execute(
        select(Item.id, Annotator.name, Revision.outcome, Revision.note)
        .join(Task, Task.item == Item.number)
        .join(Annotator, Annotator.number == Task.annotator)
        .join(Revision, (Revision.task == Task.number) & (Revision.seq == Task.final))
        .where(Task.outcome.in_(("skip", "flag", "unsalvageable")))
        .order_by(Revision.number.desc())
        .limit(_RECENT)
    )
    return [{"item": row.id, "annotator": row.name, "outcome": row.outcome, "note": row.note} for row in said]
