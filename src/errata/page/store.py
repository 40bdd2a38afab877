"""Where the page keeps what people type: revisions that are only ever added, in SQLite or PostgreSQL.

Every save is one short transaction that adds a revision; none changes or deletes one (a trigger forbids it).
A revision says on which one it builds: if another came first, that is a conflict, and nothing is written over. An item
goes to as many annotators as the overlap asks for; who opens it holds it for a lease, which each save renews.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import (
    DDL,
    event,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from errata.page.breaks import breaks_of, restore
from errata.page.database import Database, NotSaved
from errata.page.schema import GUARDS, OUTCOMES, Annotator, Guideline, Item, Kind, Revision, Setting, Task
from errata.page.show import edits_to_show, ends_of
from errata.types import Prompt

__all__ = [
    "OUTCOMES",
    "Annotator",
    "Conflict",
    "Effort",
    "Guideline",
    "Item",
    "Kind",
    "NewItem",
    "NewRevision",
    "NotSaved",
    "Revision",
    "Store",
    "Task",
]

HELD = 10
"""Unfinished items that one annotator may hold before no further one is lent."""
_MOST = 2**31 - 1
"""The largest number that a column holds."""


for _dialect, _statements in GUARDS.items():
    for _statement in _statements:
        _guard = DDL(_statement).execute_if(dialect=_dialect)  # type: ignore[no-untyped-call]
        event.listen(Revision.__table__, "after_create", _guard)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewItem:
    """A response to correct, as it comes from a file."""

    id: str
    prompt: Prompt
    response: str
    reference: str | None = None
    """Another answer, shown beside it: the preferred one, somebody's edit, the ground truth."""
    response_ids: tuple[int, ...] | None = None
    extra: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What it took, summed over all that was done on this task."""

    seconds: float = 0.0
    """Active ones: somebody typed, clicked or scrolled a moment ago."""
    keystrokes: int = 0
    pastes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRevision:
    """One save."""

    base: int
    """The seq of the revision that it builds on."""
    save_id: str
    kind: Kind
    text: str
    outcome: str | None = None
    reasons: Sequence[str] = ()
    note: str = ""
    guideline: int = 0
    """The version that was in view; 0 before there is one."""
    effort: Effort = Effort()


class Conflict(Exception):  # noqa: N818  it is no mistake of anybody's
    """Somebody (the same person in a second tab) saved first."""

    def __init__(self, head: Revision) -> None:
        super().__init__(f"revision {head.seq} was saved before")
        self.head = head


class Work(NamedTuple):
    """A task, its item, and its last revision, if there is one."""

    task: Task
    item: Item
    head: Revision | None


class Store(Database):
    """The database of one project. One process serves it; threads may share it.

    Args:
        url: a database URL of SQLAlchemy, ``sqlite:///edits.db`` or ``postgresql+psycopg://…``.
        lease: seconds.

    Raises:
        NotSaved: the database cannot be opened or written; says which.
        ValueError: it is of another version.
    """

    # Setting up.

    @property
    def overlap(self) -> int:
        """How many annotators each item goes to."""
        return int(self._overlap)

    def set_overlap(self, overlap: int) -> None:
        """Have each item corrected by so many people; those that are there already, too."""
        with self.write() as session:
            session.merge(Setting(name="overlap", value=overlap))
            session.execute(update(Item).values(open=_finished() < overlap))
        self._overlap = overlap

    def set_guideline(self, text: str) -> int:
        """Add a version of the guideline, unless it is the last one; returns its number."""
        with self.write() as session:
            last = session.scalar(select(Guideline).order_by(Guideline.version.desc()).limit(1))
            if last is not None and last.text == text:
                return last.version
            version = 1 if last is None else last.version + 1
            session.add(Guideline(version=version, text=text, created=time.time()))
            return version

    def guideline(self) -> Guideline:
        """The last version; version 0, which is empty, before there is one."""
        with self.read() as session:
            last = session.scalar(select(Guideline).order_by(Guideline.version.desc()).limit(1))
            return last or Guideline(version=0, text="", created=0.0)

    def add_items(self, items: Iterable[NewItem], *, chunk: int = 200) -> tuple[int, int]:
        """Add what is not there yet, a chunk a transaction, so that others get their turn between two.

        Returns:
            How many were added, and how many were there already.

        Raises:
            ValueError: an item of this id is there with another response, or the database cannot keep a text.
        """
        added = there = 0
        rest = iter(items)
        while some := list(islice(rest, chunk)):
            for item in some:
                try:
                    self._check(item.id, item.response, item.reference or "")
                except ValueError as error:
                    raise ValueError(f"item {item.id!r}: {error}") from error
            with self.write() as session:
                ids = [item.id for item in some]
                rows = session.execute(select(Item.id, Item.response).where(Item.id.in_(ids)))
                known = {row.id: row.response for row in rows}
                for item in some:
                    if known.get(item.id, item.response) != item.response:
                        raise ValueError(
                            f"the database has item {item.id!r} with another response; use a database of its own for "
                            "each file, or give the rows other ids"
                        )
                new = [item for item in some if item.id not in known]
                session.add_all(
                    Item(
                        id=item.id,
                        prompt=item.prompt if isinstance(item.prompt, str) else [dict(turn) for turn in item.prompt],
                        response=item.response,
                        reference=item.reference,
                        response_ids=None if item.response_ids is None else list(item.response_ids),
                        extra=item.extra or {},
                        open=True,
                    )
                    for item in new
                )
            added, there = added + len(new), there + len(known)
            time.sleep(0.002)
        return added, there

    # People.

    def add_annotator(self, name: str, *, admin: bool = False, new_token: bool = False) -> str | None:
        """Make a link's token for somebody; None if they have one, which nobody can tell any more, and keep it.

        Raises:
            ValueError: the name is in use for the other role.
        """
        with self.write() as session:
            found = session.scalar(select(Annotator).where(Annotator.name == name))
            if found is not None and found.admin != admin:
                raise ValueError(f"{name!r} is the name of an {'admin' if found.admin else 'annotator'}; take another")
            if found is not None and not new_token:
                return None
            secret = secrets.token_urlsafe(32)
            found = found or Annotator(name=name, admin=admin, token_hash="")
            found.token_hash = _hash(secret)
            session.add(found)
            session.flush()
            return f"{found.number}.{secret}"

    def annotator_of(self, token: str) -> Annotator | None:
        """Whose token it is; compared in constant time."""
        number, _, secret = token.partition(".")
        with self.read() as session:
            is_number = number.isascii() and number.isdecimal() and len(number) < 10
            found = session.get(Annotator, int(number)) if is_number else None
        right = hmac.compare_digest(_hash(secret), "" if found is None else found.token_hash)
        return found if right else None

    def annotators(self) -> list[Annotator]:
        """All of them, in the order in which they came."""
        with self.read() as session:
            return list(session.scalars(select(Annotator).order_by(Annotator.number)))

    # Work.

    def next_task(self, annotator: int, *, new: bool = False) -> int | None:
        """Lend an item; first what this annotator has begun and not finished, unless it is to be a ``new`` one.

        Returns:
            The task's number, or None where nothing is left for this annotator.
        """
        now = time.time()
        with self.write() as session:
            held = (
                select(func.count())
                .where(
                    Task.item == Item.number,
                    Task.outcome.is_(None),
                    Task.leased_until > now,
                    Task.annotator != annotator,
                )
                .correlate(Item)
                .scalar_subquery()
            )
            begun = list(
                session.scalars(
                    select(Task)
                    .join(Item, Item.number == Task.item)
                    .where(Task.annotator == annotator, Task.final.is_(None), Item.open)
                    # Of those whose lease ran out, others may have taken over.
                    .where((Task.leased_until > now) | (held + _finished() < self.overlap))
                    .order_by(Task.number)
                )
            )
            if begun and (not new or len(begun) >= HELD):
                begun[0].leased_until = now + self._lease
                return begun[0].number
            mine = exists().where(Task.item == Item.number, Task.annotator == annotator)
            item = session.scalar(
                select(Item.number)
                .where(Item.open, ~mine, held + _finished() < self.overlap)
                .order_by(Item.number)
                .limit(1)
            )
            if item is None:
                return begun[0].number if begun else None
            task = Task(item=item, annotator=annotator, leased_until=now + self._lease, head=0)
            session.add(task)
            session.flush()
            return task.number

    def work(self, annotator: int, task: int) -> Work:
        """A task of this annotator's.

        Raises:
            LookupError: there is none of this number, or it is another's.
        """
        with self.read() as session:
            found = _own(session, annotator, task)
            item = session.get_one(Item, found.item)
            return Work(found, item, _revision(session, task, found.head) if found.head else None)

    def save(self, annotator: int, task: int, new: NewRevision) -> Revision:
        """Add a revision; it is on disk when this returns. The same ``save_id`` again gives the same revision.

        Raises:
            Conflict: another revision was saved on the same base.
            LookupError: there is no such task, or it is another's.
            ValueError: an outcome that does not fit the text.
        """
        item = self.work(annotator, task).item
        revision = _revision_of(item, new)
        self._check(revision.text, revision.note, *revision.reasons)
        try:
            with self.write() as session:
                found = _own(session, annotator, task)
                again = session.scalar(select(Revision).where(Revision.task == task, Revision.save_id == new.save_id))
                if again is not None:
                    if (again.text, again.kind) != (revision.text, revision.kind):
                        raise ValueError(f"another save has the name {new.save_id!r}; reload the page")
                    return again
                if found.head < new.base:
                    raise ValueError(f"revision {new.base}, on which this one builds, is not there; reload the page")
                if found.head != new.base:
                    head = _revision(session, task, found.head)
                    session.expunge(head)  # it outlives the transaction, which is undone
                    raise Conflict(head)
                if new.guideline > self._guideline_version(session):
                    raise ValueError(f"there is no version {new.guideline} of the guideline; reload the page")
                revision.task, revision.seq = task, new.base + 1
                session.add(revision)
                found.head = revision.seq
                found.leased_until = time.time() + self._lease
                if new.kind != "draft":
                    found.final = found.head if new.kind == "submit" else None
                    found.outcome = new.outcome if new.kind == "submit" else None
                    session.flush()
                    finished = select(_finished()).where(Item.number == item.number)
                    is_open = (session.scalar(finished) or 0) < self.overlap
                    session.execute(update(Item).where(Item.number == item.number).values(open=is_open))
                return revision
        except IntegrityError:  # another process was quicker
            work = self.work(annotator, task)
            assert work.head is not None
            raise Conflict(work.head) from None

    def tasks(self, annotator: int) -> list[tuple[int, str | None]]:
        """The tasks of an annotator, as they came: number and outcome (None: not submitted)."""
        with self.read() as session:
            rows = session.execute(
                select(Task.number, Task.outcome).where(Task.annotator == annotator).order_by(Task.number)
            )
            return [(number, outcome) for number, outcome in rows]

    @staticmethod
    def _guideline_version(session: Session) -> int:
        return session.scalar(select(func.max(Guideline.version))) or 0


def _revision_of(item: Item, new: NewRevision) -> Revision:
    text = restore(item.response, new.text)
    if new.kind == "submit":
        if new.outcome not in OUTCOMES:
            raise ValueError(f"the outcome is none of {', '.join(OUTCOMES)}")
        if new.outcome == "edited" and text == item.response:
            raise ValueError("the text is as it was; change it, or say that it is already good")
        if new.outcome == "good" and text != item.response:
            raise ValueError("the text was changed; submit the edit, or reset it first")
        if new.outcome == "skip" and not new.note.strip():
            raise ValueError("say in a word why you skip it")
    edits = edits_to_show(item.response, text)
    return Revision(
        save_id=new.save_id,
        kind=new.kind,
        text=text,
        breaks=breaks_of(text),
        edits=None if edits is None else ends_of(edits),
        outcome=new.outcome,
        reasons=list(new.reasons),
        note=new.note,
        guideline=new.guideline,
        seconds=new.effort.seconds,
        keystrokes=new.effort.keystrokes,
        pastes=new.effort.pastes,
        created=time.time(),
    )


def _own(session: Session, annotator: int, task: int) -> Task:
    found = session.get(Task, task) if 0 < task <= _MOST else None
    if found is None or found.annotator != annotator:
        raise LookupError(f"no task {task}")
    return found


def _revision(session: Session, task: int, seq: int) -> Revision:
    return session.scalars(select(Revision).where(Revision.task == task, Revision.seq == seq)).one()


def _finished() -> Any:
    """How many annotators have said what becomes of an item; who skips it leaves it to others."""
    return (
        select(func.count())
        .where(Task.item == Item.number, Task.outcome.is_not(None), Task.outcome != "skip")
        .correlate(Item)
        .scalar_subquery()
    )


def _hash(secret: str) -> str:
    # 256 random bits need no slow hash.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
