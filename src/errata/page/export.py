"""Out of the database: the edits that count, and every revision, as rows that ``errata edits import`` reads back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Select, func, select

from errata.edits import words
from errata.page.breaks import breaks_of
from errata.page.show import edits_from, spans
from errata.page.store import Annotator, Item, Revision, Store, Task
from errata.types import Correction

__all__ = ["KEPT", "NAMES", "all_revisions", "final_edits"]

NAMES = frozenset(
    {"item", "annotator", "outcome", "note", "guideline_version", "seconds", "keystrokes", "pastes", "seconds_a_word"}
    | {"saved", "breaks", "original_breaks", "edits", "revision", "kind"}
)
"""Fields that the page adds to a row, besides those of a correction."""
KEPT = ("edited", "good")
"""The outcomes that are edits."""


def final_edits(store: Store) -> Iterator[Correction]:
    """Yield what was submitted as edited or already good, in the order of the items; what else was said is no edit.

    The id is the item's where one person corrected it, else ``item/annotator``.
    """
    several = select(Task.item).where(Task.outcome.in_(KEPT)).group_by(Task.item).having(func.count() > 1)
    chosen = _rows().where(Revision.seq == Task.final, Task.outcome.in_(KEPT))
    with store.read() as session:
        shared = set(session.scalars(several))
    for revision, task, item, name in _stream(store, chosen.order_by(Item.number, Task.number)):
        identity = f"{item.id}/{name}" if task.item in shared else item.id
        yield _correction(identity, revision, item, name)


def all_revisions(store: Store) -> Iterator[Correction]:
    """Yield every revision in the order in which they were saved, drafts too; the id is ``item/annotator/revision``."""
    for revision, _, item, name in _stream(store, _rows().order_by(Revision.number)):
        more = {"revision": revision.seq, "kind": revision.kind}
        yield _correction(f"{item.id}/{name}/{revision.seq}", revision, item, name, more)


_Row = tuple[Revision, Task, Item, str]


def _rows() -> Select[Revision, Task, Item, str]:
    return (
        select(Revision, Task, Item, Annotator.name)
        .join(Task, Task.number == Revision.task)
        .join(Item, Item.number == Task.item)
        .join(Annotator, Annotator.number == Task.annotator)
    )


def _stream(store: Store, rows: Select[Revision, Task, Item, str]) -> Iterator[_Row]:
    with store.read() as session, closing(session.execute(rows.execution_options(yield_per=200))) as found:
        for row in found:
            yield row[0], row[1], row[2], row[3]
            session.expunge(row[0])


def _correction(identity: str, revision: Revision, item: Item, name: str, more: Any = None) -> Correction:
    own = {
        "item": item.id,
        "annotator": name,
        "outcome": revision.outcome or "",
        "note": revision.note,
        "guideline_version": revision.guideline,
        "seconds": revision.seconds,
        "keystrokes": revision.keystrokes,
        "pastes": revision.pastes,
        "seconds_a_word": revision.seconds / max(len(words(item.response)), 1),
        "saved": revision.created,
        "original_breaks": breaks_of(item.response),
        "breaks": revision.breaks,
        "edits": None if revision.edits is None else spans(edits_from(revision.edits, item.response, revision.text)),
        **(more or {}),
    }
    reasons: Sequence[str] = revision.reasons
    return Correction(
        id=identity,
        prompt=item.prompt,
        original=item.response,
        edited=revision.text,
        original_ids=None if item.response_ids is None else tuple(item.response_ids),
        reasons=tuple(reasons),
        extra={**own, **item.extra},
    )
