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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    DDL,
    JSON,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from errata.page.breaks import breaks_of, restore
from errata.page.show import edits_to_show, ends_of
from errata.page.whole import check_whole
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

OUTCOMES = ("edited", "good", "unsalvageable", "skip", "flag")
"""Edited; already good as it was; cannot be saved by an edit; left to others (with a reason); to be looked at."""
Kind = Literal["draft", "submit", "reopen"]
LEASE = 1800.0
"""Seconds for which an item is somebody's, after opening it or after their last save."""
HELD = 10
"""Unfinished items that one annotator may hold before no further one is lent."""
_SCHEMA = 2
_MOST = 2**31 - 1
"""The largest number that a column holds."""


class Base(DeclarativeBase):
    """The tables."""

    type_annotation_map = {Any: JSON(none_as_null=True), str: Text}  # noqa: RUF012


class Setting(Base):
    """What the page was started with (overlap, schema), and the database's own name, which no other has."""

    __tablename__ = "setting"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[Any]


class Guideline(Base):
    """One version of what annotators are told; each revision names the version that they saw."""

    __tablename__ = "guideline"
    version: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    created: Mapped[float]


class Annotator(Base):
    """Somebody with a link; of its token only a hash is kept."""

    __tablename__ = "annotator"
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    admin: Mapped[bool]
    token_hash: Mapped[str]


class Item(Base):
    """A response to correct."""

    __tablename__ = "item"
    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    prompt: Mapped[Any]
    response: Mapped[str]
    reference: Mapped[str | None]
    response_ids: Mapped[Any] = mapped_column(nullable=True)
    extra: Mapped[Any]
    open: Mapped[bool]
    """Whether it still wants annotators."""
    __table_args__ = (Index("open_items", "open", "number"),)


class Task(Base):
    """An item in the hands of one annotator."""

    __tablename__ = "task"
    number: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[int] = mapped_column(ForeignKey("item.number"))
    annotator: Mapped[int] = mapped_column(ForeignKey("annotator.number"), index=True)
    leased_until: Mapped[float]
    head: Mapped[int]
    """The last revision's seq; 0 before the first."""
    final: Mapped[int | None]
    """The seq of the submitted revision that counts."""
    outcome: Mapped[str | None]
    """That of the final revision."""
    __table_args__ = (UniqueConstraint("item", "annotator"),)


class Revision(Base):
    """What was saved once; never changed afterwards."""

    __tablename__ = "revision"
    number: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(ForeignKey("task.number"))
    seq: Mapped[int]
    """1, 2, 3 … within the task."""
    save_id: Mapped[str]
    """The browser's name for this save: a save that is sent again is the same revision."""
    kind: Mapped[str]
    text: Mapped[str]
    breaks: Mapped[str]
    """Line breaks of the text; a browser shows all of them as one kind (``errata.page.breaks``)."""
    edits: Mapped[Any] = mapped_column(nullable=True)
    """What was changed, as the annotator saw it (``errata.page.show.ends_of``); None of texts too long to compare."""
    outcome: Mapped[str | None]
    reasons: Mapped[Any]
    note: Mapped[str]
    guideline: Mapped[int]
    seconds: Mapped[float]
    keystrokes: Mapped[int]
    pastes: Mapped[int]
    created: Mapped[float]
    __table_args__ = (UniqueConstraint("task", "seq"), UniqueConstraint("task", "save_id"))


_SAID = "'revisions are only added'"
_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER revisions_stay_{what} BEFORE {what} ON revision BEGIN SELECT RAISE(ABORT, {_SAID}); END"
        for what in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION revisions_stay() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION {_SAID}; END $$",
        "CREATE TRIGGER revisions_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON revision "
        "FOR EACH STATEMENT EXECUTE FUNCTION revisions_stay()",
    ],
}
for _dialect, _statements in _GUARDS.items():
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


class NotSaved(OSError):  # noqa: N818
    """The database could not be written: the disk is full, it may not be written to, or its server is gone."""


class Work(NamedTuple):
    """A task, its item, and its last revision, if there is one."""

    task: Task
    item: Item
    head: Revision | None


class Store:
    """The database of one project. One process serves it; threads may share it.

    Args:
        url: a database URL of SQLAlchemy, ``sqlite:///edits.db`` or ``postgresql+psycopg://…``.
        lease: seconds.

    Raises:
        NotSaved: the database cannot be opened or written; says which.
        ValueError: it is of another version.
    """

    def __init__(self, url: str | URL, *, lease: float = LEASE) -> None:
        self._url = make_url(url)
        is_sqlite = self._url.get_backend_name() == "sqlite"
        # What people type belongs in no log. A server that was started again meanwhile has closed our connections.
        self._engine = create_engine(
            self._url,
            hide_parameters=True,
            pool_pre_ping=not is_sqlite,
            connect_args={"timeout": 10} if is_sqlite else {},
        )
        if is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._reading = self._engine.execution_options(errata_reads=True)
        # SQLite lets one write at a time; waiting here is fair and quick, waiting for its lock is by polling.
        self._one_writer = Lock()
        self._lease = lease
        try:
            self._set_up()
        except (DatabaseError, NotSaved) as error:
            self.close()
            why = str(getattr(error, "orig", error)).removeprefix("could not be saved: ").partition("\n")[0]
            raise NotSaved(
                f"the database {self._url.render_as_string()} cannot be opened and written: {why}; see to its folder "
                "or server, or name another --db"
            ) from error
        except ValueError as error:
            self.close()
            raise ValueError(f"the database {self._url.render_as_string()}: {error}; name another --db") from error
        except Exception:
            self.close()
            raise
        self._overlap, name = self.setting("overlap"), self.setting("name")
        if type(self._overlap) is not int or self._overlap < 1 or not isinstance(name, str):
            self.close()
            raise ValueError(f"the database {self._url.render_as_string()} is damaged: its settings are; name another")
        self.name = name

    def _set_up(self) -> None:
        if self._engine.dialect.name == "sqlite":
            with self._reading.connect() as rows:
                check_whole(rows, Base)
        Base.metadata.create_all(self._engine)
        with self.write() as session:
            found = session.get(Setting, "schema") or Setting(name="schema", value=_SCHEMA)
            if found.value != _SCHEMA:
                raise ValueError(
                    f"the database has schema {found.value}, this errata reads {_SCHEMA}; use its own version"
                )
            session.add(found)
            for name, value in (("overlap", 1), ("name", secrets.token_hex(8))):
                if session.get(Setting, name) is None:
                    session.add(Setting(name=name, value=value))

    def close(self) -> None:
        """Give the database back."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One view of the database, in which nothing is written."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: all of it or nothing, on disk when the block has ended.

        Raises:
            NotSaved: the disk is full, or the database cannot be written.
        """
        try:
            with self._one_writer, Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except OperationalError as error:
            said = str(error.orig).partition("\n")[0]
            raise NotSaved(f"could not be saved: {'disk full' if 'full' in said else said}") from error

    # Setting up.

    def setting(self, name: str) -> Any:
        """A setting, None if there is none of this name."""
        with self.read() as session:
            return session.scalar(select(Setting.value).where(Setting.name == name))

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

    def _check(self, *texts: str) -> None:
        if self._url.get_backend_name() == "postgresql" and any("\0" in text for text in texts):
            raise ValueError("PostgreSQL keeps no character U+0000; take it out, or use a database of SQLite")

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


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin below, not where the driver thinks they should
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails when another wrote between, however long it may wait.
    reads = connection.get_execution_options().get("errata_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
