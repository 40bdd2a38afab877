"""Rows in and out of files: prompts, preferences and corrections, in the ecosystem's (TRL's) row formats.

Files are JSON lines (``.jsonl``, ``.jsonl.gz``), Parquet (``.parquet``, needs pyarrow) or, to read only, CSV with a
header (``.csv``, plain text only), a JSON array (``.json``) or a folder that ``Dataset.save_to_disk`` wrote. Rows are
read and written one at a time, in memory that does not grow with them. A row that cannot be used is never dropped in
silence: it is an error, or it is set aside in a file of its own and counted.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from errata.data.fields import ID_FIELDS, Fields, take_answer, take_id, take_ids, take_prompt
from errata.data.formats import Format, Recognised, any_pair, is_response, recognise
from errata.data.records import Record, is_gzip, mapping_records, pyarrow_modules, read_lines, records
from errata.runs import new_file
from errata.types import Correction, Demonstration, Preference, PromptRow

__all__ = [
    "corrections_from",
    "holds_responses",
    "iter_corrections",
    "iter_demonstrations",
    "iter_preferences",
    "iter_prompts",
    "read_corrections",
    "read_demonstrations",
    "read_lines",
    "read_preferences",
    "read_prompts",
    "recognise_file",
    "row_fields",
    "write_lines",
    "write_rows",
    "writing_rows",
]

_ANSWERS = ("response", "completion", "chosen", "edited", "sent")
_GROUP_ROWS = 4096


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


_Row = TypeVar("_Row", bound=_HasId)
_Written = TypeVar("_Written", bound=PromptRow | Demonstration | Preference | Correction)


def iter_prompts(path: Path, *, set_aside: Path | None = None) -> Iterator[PromptRow]:
    """Yield prompts: ``prompt`` is a text or a list of messages with ``role`` and ``content``.

    ``id`` may be left out and is then ``row-<line number>``; fields that errata does not know travel in ``extra``. One
    row is held at a time; the ids, which have to differ, are kept on disk.

    Args:
        path: the file; its suffix says which format.
        set_aside: where unusable rows go, as JSON lines ``{line, error, raw}`` (an empty file if there are none). It is
            there once the last row was yielded.

    Yields:
        The usable rows, in the order of the file. Without ``set_aside`` none after the first unusable one.

    Raises:
        ValueError: unknown format or broken file; at the end, an unusable row and no ``set_aside``, or no usable row.
    """
    return _read(path, _prompt_row, set_aside)


def iter_demonstrations(path: Path, *, set_aside: Path | None = None) -> Iterator[Demonstration]:
    """Yield answers: ``prompt`` and one of ``response``, ``completion``, or the better text of a pair.

    Arguments, ids, further fields and errors are those of ``iter_prompts``.
    """
    return _read(path, _demonstration, set_aside)


def iter_preferences(path: Path, *, set_aside: Path | None = None) -> Iterator[Preference]:
    """Yield preferences: ``prompt``, ``chosen`` and ``rejected``; the answers are texts, or lists of one message.

    Arguments, ids, further fields and errors are those of ``iter_prompts``.
    """
    return _read(path, _preference, set_aside)


def iter_corrections(
    path: Path,
    *,
    form: Format | None = None,
    set_aside: Path | None = None,
    rewrite: Callable[[str], str] | None = None,
) -> Iterator[Correction]:
    """Yield corrections: ``prompt`` (which may be empty), and the text before and after under a pair of names.

    The pairs are ``rejected, chosen``, ``original, edited`` and ``draft, sent``; texts are as in ``iter_preferences``.
    ``rejected_ids`` (or ``original_ids``) are the sampled ids of the former, where they are known; ``reason`` (a
    text or a list of texts) says why; ``rejected_weights`` and ``chosen_weights`` (or those names of another pair) are
    lists of ``[start, stop, weight]``. ``form`` is another published format, as of ``recognise_file``. ``rewrite`` is
    given what is written to ``set_aside`` of a row, say to mask it. Arguments, ids, further fields and errors are else
    those of ``iter_prompts``.
    """
    return _read(path, any_pair if form is None else form.parse, set_aside, rewrite)


def corrections_from(
    rows: Iterable[Mapping[str, Any]], *, form: Format | None = None, set_aside: Path | None = None
) -> Iterator[Correction]:
    """Yield the corrections of mappings that are not in a file; a ``datasets.Dataset`` gives such rows.

    >>> rows = [{"prompt": "Write to Anna.", "draft": "Dear Ana,", "sent": "Dear Anna,", "reason": "style"}]
    >>> [(row.id, row.original, row.edited, row.reasons) for row in corrections_from(rows)]
    [('row-1', 'Dear Ana,', 'Dear Anna,', ('style',))]

    Fields, arguments and errors are those of ``iter_corrections``; the number of a row stands for its line.
    """
    return _usable(mapping_records(rows), "the rows", any_pair if form is None else form.parse, set_aside)


def recognise_file(path: Path, *, first: int = 100) -> Recognised:
    """The format of a file of corrections, judged by its first rows, and why.

    Raises:
        ValueError: as ``errata.data.formats.recognise``, or none of the first rows can be read.
    """
    loaded: list[Fields] = []
    refusal = ""
    for record in islice(records(path), first):
        try:
            loaded.append(record.load())
        except (ValueError, RecursionError) as error:
            refusal = refusal or f" among its first {first}: line {record.line}: {error}"
    if not loaded:
        raise ValueError(f"{path} has no usable row{refusal}; give it at least one")
    try:
        return recognise(loaded)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def holds_responses(path: Path, *, first: int = 100) -> bool:
    """Whether a file's first rows are answers without a correction: ``prompt`` and ``response`` or ``completion``."""
    loaded: list[Fields] = []
    for record in islice(records(path), first):
        with suppress(ValueError, RecursionError):
            loaded.append(record.load())
    return sum(map(is_response, loaded)) * 2 >= len(loaded) > 0


def read_prompts(path: Path, *, set_aside: Path | None = None) -> list[PromptRow]:
    """The rows of ``iter_prompts``, all of them at once."""
    return list(iter_prompts(path, set_aside=set_aside))


def read_demonstrations(path: Path, *, set_aside: Path | None = None) -> list[Demonstration]:
    """The rows of ``iter_demonstrations``, all of them at once."""
    return list(iter_demonstrations(path, set_aside=set_aside))


def read_preferences(path: Path, *, set_aside: Path | None = None) -> list[Preference]:
    """The rows of ``iter_preferences``, all of them at once."""
    return list(iter_preferences(path, set_aside=set_aside))


def read_corrections(path: Path, *, form: Format | None = None, set_aside: Path | None = None) -> list[Correction]:
    """The rows of ``iter_corrections``, all of them at once."""
    return list(iter_corrections(path, form=form, set_aside=set_aside))


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
        with _line_file(path) as write, _FirstLines() as ids:
            for row in rows:
                write(_distinct(row_fields(row), ids))
                yield row


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as ``.jsonl`` or ``.jsonl.gz``, wholly or not at all; the same objects, the same bytes.

    Raises:
        ValueError: another suffix; a row that JSON in UTF-8 cannot hold.
    """
    with _line_file(path) as write:
        for row in rows:
            write(row)


@contextmanager
def _line_file(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
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


class _FirstLines:
    """The line of each id seen so far, in a database on disk that goes with this object: ids may be millions."""

    def __enter__(self) -> _FirstLines:
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


# Reading: a file gives records, a record gives fields, fields give a row.


def _read(
    path: Path,
    parse: Callable[[Fields, int], _Row],
    set_aside: Path | None,
    rewrite: Callable[[str], str] | None = None,
) -> Iterator[_Row]:
    if set_aside is not None and set_aside.resolve() == path.resolve():
        raise ValueError(f"{path} cannot take the rows set aside from itself; name another file")
    return _usable(records(path), str(path), parse, set_aside, rewrite or str)


def _usable(
    found: Iterator[Record],
    source: str,
    parse: Callable[[Fields, int], _Row],
    set_aside: Path | None,
    rewrite: Callable[[str], str] = str,
) -> Iterator[_Row]:
    """The rows that can be used; the others are written to ``set_aside`` and told of, or an error at the end."""
    usable, unusable, first = 0, 0, ""
    with _FirstLines() as ids, nullcontext() if set_aside is None else _line_file(set_aside) as write:
        for record in found:
            try:
                row = parse(record.load(), record.line)
                if (before := ids.put(row.id, record.line)) is not None:
                    raise ValueError(f"field 'id': {row.id!r} is the id of line {before} too; make ids differ")
            except (ValueError, RecursionError) as error:  # the latter of rows nested to the limit of Python
                unusable += 1
                first = first or f"line {record.line}: {rewrite(str(error))}"
                if write is not None:
                    write({"line": record.line, "error": rewrite(str(error)), "raw": rewrite(record.raw())})
            else:
                usable += 1
                # Without a place for bad rows the first one is an error; the rest of the file is only counted.
                if write is not None or not unusable:
                    yield row
    if unusable and set_aside is None:
        raise ValueError(
            f"{source}, {first} ({unusable - 1} more unusable rows, {usable} usable ones; "
            "mend the file, or set unusable rows aside: with set_aside=, or by `errata edits import`)"
        )
    if unusable:
        total = usable + unusable
        # Not print: a progress bar may stand where this is to be said.
        tqdm.write(
            f"{source}: {unusable} of {total} rows set aside in {set_aside}; the first, {first}", file=sys.stderr
        )
    if not usable:
        raise ValueError(f"{source} has no usable row; give it at least one{f' (the first, {first})' if first else ''}")


def _prompt_row(fields: Fields, line: int) -> PromptRow:
    return PromptRow(id=take_id(fields, line), prompt=take_prompt(fields), extra=fields)


def _demonstration(fields: Fields, line: int) -> Demonstration:
    name = next((name for name in _ANSWERS if fields.get(name) is not None), _ANSWERS[0])
    return Demonstration(
        id=take_id(fields, line), prompt=take_prompt(fields), response=take_answer(fields, name), extra=fields
    )


def _preference(fields: Fields, line: int) -> Preference:
    return Preference(
        id=take_id(fields, line),
        prompt=take_prompt(fields),
        chosen=take_answer(fields, "chosen"),
        rejected=take_answer(fields, "rejected"),
        chosen_ids=take_ids(fields, ("chosen_ids",)),
        rejected_ids=take_ids(fields, ID_FIELDS),
        extra=fields,
    )


# Writing.


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


def _distinct(fields: Fields, ids: _FirstLines) -> Fields:
    if ids.put(fields["id"], 0) is not None:
        raise ValueError(f"two rows have the id {fields['id']!r}; make ids differ")
    return fields


def _writing_parquet(path: Path, rows: Iterable[_Written]) -> Iterator[_Written]:
    _, parquet = pyarrow_modules()
    remaining, writer = iter(rows), None
    with new_file(path) as unfinished, _FirstLines() as ids, ExitStack() as opened:
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
