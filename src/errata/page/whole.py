"""Whether a SQLite file is a whole database of the page: SQLite takes any value for any column, and says nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, Integer, Table, text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import DeclarativeBase

__all__ = ["check_whole"]

_ONE_OF = {
    ("task", "outcome"): ("edited", "good", "unsalvageable", "skip", "flag"),
    ("revision", "outcome"): ("edited", "good", "unsalvageable", "skip", "flag"),
    ("revision", "kind"): ("draft", "submit", "reopen"),
}
_LISTS = {("revision", "reasons"), ("revision", "edits"), ("item", "response_ids")}
"""Columns of JSON that are lists; ``extra`` of an item is an object, and a setting anything."""
_LARGEST = 2**53


def check_whole(rows: Connection, base: type[DeclarativeBase]) -> None:
    """Insist that tables, columns and the type of every cell are those that the page writes.

    Raises:
        ValueError: one is not; says which.
    """
    there = set(rows.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
    tables = base.metadata.sorted_tables
    if not there & {table.name for table in tables}:
        return  # a new one
    if lost := [table.name for table in tables if table.name not in there]:
        raise ValueError(f"it is damaged: it has no table {lost[0]}")
    if (said := rows.scalar(text("PRAGMA quick_check(1)"))) != "ok":
        raise ValueError(f"it is damaged: {said}")
    for table in tables:
        _check_cells(rows, table)
    for name, row, other, _ in rows.execute(text("PRAGMA foreign_key_check")):
        raise ValueError(f"it is damaged: row {row} of {name} belongs to no {other}")
    final = "SELECT t.number FROM task t LEFT JOIN revision r ON r.task = t.number AND r.seq = t.final "
    for (row,) in rows.execute(text(f"{final} WHERE t.final IS NOT NULL AND r.outcome IS NOT t.outcome")):
        raise ValueError(f"it is damaged: the revision that counts of task {row} is not there, or is another")


def _check_cells(rows: Connection, table: Table) -> None:
    names = {found[1] for found in rows.execute(text(f"PRAGMA table_info({table.name})"))}
    key = next(iter(table.primary_key)).name
    for column in table.columns:
        if column.name not in names:
            raise ValueError(f"it is damaged: table {table.name} has no column {column.name}")
        good = _good(table.name, column)
        query = f'SELECT "{key}" FROM {table.name} WHERE NOT coalesce({good}, 0) LIMIT 1'  # noqa: S608  # names of ours
        for (row,) in rows.execute(text(query)):
            raise ValueError(
                f"it is damaged: {column.name} of row {row} of {table.name} holds what the page never writes"
            )


def _good(table: str, column: Column[Any]) -> str:
    name, kind = f'"{column.name}"', column.type
    if isinstance(kind, JSON):
        wanted = "'array'" if (table, column.name) in _LISTS else "'object'" if column.name == "extra" else None
        good = f"typeof({name}) IN ('text', 'integer', 'real') AND json_valid({name})"
        good += "" if wanted is None else f" AND json_type({name}) = {wanted}"
    elif isinstance(kind, Boolean):
        good = f"typeof({name}) = 'integer' AND {name} IN (0, 1)"
    elif isinstance(kind, Float):
        good = f"typeof({name}) IN ('real', 'integer') AND {name} BETWEEN 0 AND {_LARGEST}"
    elif isinstance(kind, Integer):
        good = f"typeof({name}) = 'integer' AND {name} BETWEEN 0 AND {_LARGEST}"
    else:
        good = f"typeof({name}) = 'text'"
    if (among := _ONE_OF.get((table, column.name))) is not None:
        good += f" AND {name} IN ({', '.join(map(repr, among))})"
    return f"({name} IS NULL OR ({good}))" if column.nullable else f"({good})"
