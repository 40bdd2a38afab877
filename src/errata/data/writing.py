"""Rows into files."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from errata.data.fields import (
    Fields,
)
from errata.data.records import (
    is_gzip,
    pyarrow_modules,
)
from errata.runs import new_file
from errata.types import Correction, Demonstration, Preference, PromptRow

__all__ = ["FirstLines", "line_file", "row_fields", "write_lines", "write_rows", "writing_rows"]

_GROUP_ROWS = 4096

_Written = TypeVar("_Written", bound=PromptRow | Demonstration | Preference | Correction)


def write_rows(path: Path, rows: Iterable[PromptRow | Demonstration | Preference | Correction]) -> None:
    """Write rows, wholly or not at all; the readers give back equal rows. A correction becomes a TRL preference row.

    Rows are taken one at a time; Parquet has the types of its first rows.

    Raises:
        ValueError: a format that cannot be written; an id that comes twice; text or an extra field that the file cannot
            hold as it is.
    """
    deque(writing_rows(path, rows), maxlen=0)


def writing_rows(path: Path, rows: Iterable[_Written]) -> Iterator[_Written]:
    """Yield the rows while writing them: for who counts what is written. Whoever stops early has written nothing.

    Raises:
        ValueError: as ``write_rows``.
    """
    if path.suffix == ".parquet":
        yield from _writing_parquet(path, rows)
    else:
        with line_file(path) as write, FirstLines() as ids:
            for row in rows:
                write(_distinct(row_fields(row), ids))
                yield row


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as ``.jsonl`` or ``.jsonl.gz``, wholly or not at all; the same objects, the same bytes.

    Raises:
        ValueError: another suffix; a row that JSON in UTF-8 cannot hold.
    """
    with line_file(path) as write:
        for row in rows:
            write(row)


@contextmanager
def line_file(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield what writes one line; the file is there once the block has ended without an error."""
    compressed = is_gzip(path)
    with new_file(path) as unfinished, unfinished.open("wb") as raw:
        # No name and no time in the header of a gzip file.
        file = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compressed else raw
        with file:

            def write(row: Mapping[str, Any]) -> None:
                try:
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                except (TypeError, ValueError, RecursionError) as error:
                    raise ValueError(f"{path}: row {row.get('id')!r} cannot be written as JSON: {error}") from error

            yield write


class FirstLines:
    """The line of each id seen so far, in a database on disk that goes with this object: ids may be millions."""

    def __enter__(self) -> FirstLines:
        # "" is SQLite's name for a private file without a name, kept in memory as long as it is small.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE first (id BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def put(self, identity: str, line: int) -> int | None:
        """Note an id; the line that had it before, or None if it is new."""
        key = identity.encode("utf-8", "surrogatepass")
        if self._database.execute("INSERT OR IGNORE INTO first VALUES (?, ?)", (key, line)).rowcount:
            return None
        ((before,),) = self._database.execute("SELECT line FROM first WHERE id = ?", (key,))
        return int(before)


def row_fields(row: PromptRow | Demonstration | Preference | Correction) -> Fields:
    """What a row becomes on file.

    Raises:
        ValueError: an extra field has the name of one of errata's own.
    """
    prompt = row.prompt if isinstance(row.prompt, str) else [dict(message) for message in row.prompt]
    fields: Fields = {"id": row.id, "prompt": prompt}
    own = set()
    if isinstance(row, Preference):
        fields |= _answers(prompt, rejected=row.rejected, chosen=row.chosen)
        for name, ids in (("rejected_ids", row.rejected_ids), ("chosen_ids", row.chosen_ids)):
            if ids is not None:
                fields[name] = list(ids)
    elif isinstance(row, Demonstration):
        fields |= {"response": row.response}
    elif isinstance(row, Correction):
        fields |= _answers(prompt, rejected=row.original, chosen=row.edited)
        weights = {"rejected_weights": row.original_weights, "chosen_weights": row.edited_weights}
        own |= {"reason", *weights}
        if row.original_ids is not None:
            fields["rejected_ids"] = list(row.original_ids)
        fields |= {name: [list(span) for span in spans] for name, spans in weights.items() if spans is not None}
        if row.reasons:
            fields["reason"] = list(row.reasons)
    if clash := (fields.keys() | own) & row.extra.keys():
        raise ValueError(f"row {row.id!r}: the extra fields {sorted(clash)} are names of errata's own; rename them")
    return {**fields, **row.extra}


def _answers(prompt: str | list[dict[str, str]], **texts: str) -> Fields:
    """The answers in the form of their prompt: trainers of preferences take texts or messages, never a mixture."""
    if isinstance(prompt, str):
        return texts
    return {name: [{"role": "assistant", "content": text}] for name, text in texts.items()}


def _distinct(fields: Fields, ids: FirstLines) -> Fields:
    if ids.put(fields["id"], 0) is not None:
        raise ValueError(f"two rows have the id {fields['id']!r}; make ids differ")
    return fields


def _writing_parquet(path: Path, rows: Iterable[_Written]) -> Iterator[_Written]:
    _, parquet = pyarrow_modules()
    remaining, writer = iter(rows), None
    with new_file(path) as unfinished, FirstLines() as ids, ExitStack() as opened:
        # No row at all makes a table without columns.
        while (group := list(islice(remaining, _GROUP_ROWS))) or writer is None:
            fields = [_distinct(row_fields(row), ids) for row in group]
            with _one_type_each(path):
                table = _table(fields, None if writer is None else writer.schema)
                writer = writer or opened.enter_context(parquet.ParquetWriter(unfinished, table.schema))
                writer.write_table(table)
            yield from group


def _table(rows: list[Fields], schema: Any) -> Any:
    """One group of rows as a table that says just what they say; the first group settles the types of all."""
    pyarrow, _ = pyarrow_modules()
    names = list(dict.fromkeys(name for row in rows for name in row)) if schema is None else schema.names
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names}, schema=schema)
    for row, held in zip(rows, table.to_pylist(), strict=True):
        for name, value in row.items():
            if held.get(name) != value:
                raise ValueError(f"field {name!r} of row {row['id']!r} would become {held.get(name)!r}")
    return table


@contextmanager
def _one_type_each(path: Path) -> Iterator[None]:
    pyarrow, _ = pyarrow_modules()
    try:
        yield
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: Parquet wants one type for each field ({error}); write .jsonl") from error
