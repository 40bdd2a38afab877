"""The tables of the page."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import (
    JSON,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["GUARDS", "OUTCOMES", "Annotator", "Base", "Guideline", "Item", "Kind", "Revision", "Setting", "Task"]

OUTCOMES = ("edited", "good", "unsalvageable", "skip", "flag")
"""Edited; already good as it was; cannot be saved by an edit; left to others (with a reason); to be looked at."""

Kind = Literal["draft", "submit", "reopen"]


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

GUARDS = {
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
