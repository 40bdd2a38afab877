"""How far the work is, what it takes, and whether people agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain, groupby, islice
from statistics import median
from typing import Any

from sqlalchemy import func, select

from errata.edits import statistics, words
from errata.page.agreement import alpha, units_of
from errata.page.export import final_edits
from errata.page.store import Annotator, Item, Revision, Store, Task
from errata.types import Correction

__all__ = ["overview", "progress"]

_FIRST = 2000
"""Edits that the figures of the admin page are made of, at most; `errata edits export` gives them all."""
_RECENT = 50


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


def overview(store: Store) -> dict[str, Any]:
    """For the admin: items, each annotator's work, the statistics of the edits and Krippendorff's α."""
    with store.read() as session:
        items = session.scalar(select(func.count()).select_from(Item)) or 0
        waiting = session.scalar(select(func.count()).where(Item.open)) or 0
        finals = session.execute(
            select(Task.annotator, Task.outcome, Revision.seconds, Revision.keystrokes, Revision.pastes, Item.response)
            .join(Revision, (Revision.task == Task.number) & (Revision.seq == Task.final))
            .join(Item, Item.number == Task.item)
            .order_by(Revision.number.desc())
        )
        rows: dict[int, list[Any]] = {}
        for row in finals:
            rows.setdefault(row.annotator, []).append(row)
        said = session.execute(
            select(Item.id, Annotator.name, Revision.outcome, Revision.note)
            .join(Task, Task.item == Item.number)
            .join(Annotator, Annotator.number == Task.annotator)
            .join(Revision, (Revision.task == Task.number) & (Revision.seq == Task.final))
            .where(Task.outcome.in_(("skip", "flag", "unsalvageable")))
            .order_by(Revision.number.desc())
            .limit(_RECENT)
        )
        notes = [{"item": row.id, "annotator": row.name, "outcome": row.outcome, "note": row.note} for row in said]
    people = [_person(one.name, rows.get(one.number, [])) for one in store.annotators() if not one.admin]
    edits = list(islice(final_edits(store), _FIRST))
    return {
        "items": items,
        "finished": items - waiting,
        "overlap": store.overlap,
        "annotators": people,
        "notes": notes,
        "statistics": statistics(edits).as_dict() if edits else None,
        "statistics_of": len(edits),
        "agreement": _agreement(edits),
    }


def _person(name: str, rows: list[Any]) -> dict[str, Any]:
    a_word = [row.seconds / max(len(words(row.response)), 1) for row in rows[:_RECENT]]
    return {
        "name": name,
        "done": len(rows),
        "outcomes": dict(Counter(row.outcome for row in rows)),
        "active_seconds": sum(row.seconds for row in rows),
        "keystrokes": sum(row.keystrokes for row in rows),
        "pastes": sum(row.pastes for row in rows),
        "median_seconds_a_word": median(a_word) if a_word else None,
    }


def _agreement(edits: list[Correction]) -> dict[str, Any]:
    found = list(chain.from_iterable(_units(edits)))
    return {
        "items": sum(1 for _, group in _shared(edits) if len(group) > 1),
        "words": alpha(values for name, values in found if name == "word"),
        "gaps": alpha(values for name, values in found if name == "gap"),
        "both": alpha(values for _, values in found),
    }


def _shared(edits: list[Correction]) -> Iterator[tuple[str, list[Correction]]]:
    for item, group in groupby(edits, key=lambda row: str(row.extra["item"])):
        yield item, list(group)


def _units(edits: list[Correction]) -> Iterator[Iterator[tuple[str, tuple[bool, ...]]]]:
    for _, group in _shared(edits):
        if len(group) > 1:
            yield units_of(group[0].original, [row.edited for row in group])
