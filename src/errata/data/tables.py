"""Tables as records: CSV, spreadsheets and Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from errata.data.fields import EmptyTextError, Fields, is_empty
from errata.data.files import (
    Opened,
    Record,
    decoded_text,
    plain_value,
    pyarrow_modules,
    refuse_record,
    row_record,
    without_blank_end,
)
from errata.data.sniff import (
    Dialect,
    csv_dialect,
    known_delimiter,
    name_key,
    shown_delimiter,
)

__all__ = ["BATCH_ROWS", "open_spreadsheet", "open_table", "parquet_records"]

BATCH_ROWS = 1000

_ROW_CHARACTERS = 1 << 24
"""The longest row of a CSV file: a quote that is never closed must not hold the rest of the file."""

_OPTIONAL = re.compile(r"id|reason|\w+_(ids|weights)", re.IGNORECASE)
"""Columns of which an empty cell says nothing."""


class _Header(NamedTuple):
    """The columns of a table, and how many cells a row has."""

    names: tuple[str, ...]
    width: int
    """More than there are names, where columns at the end have none."""
    optional: tuple[str, ...]
    """Those of which an empty cell says nothing."""


def _header(path: Path, cells: Sequence[str], line: int) -> _Header:
    """Names without blanks around them; a column without one in the middle is called by its number.

    Raises:
        ValueError: two columns have one name; it is not UTF-8.
    """
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}, line {line}: not UTF-8; save the file as UTF-8, or say its --encoding") from error
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{path}, line {line}: two columns have the same name; rename one of {', '.join(map(repr, twice))}"
        )
    return _Header(tuple(names), len(cells), tuple(name for name in names if _OPTIONAL.fullmatch(name)))


def open_table(
    path: Path,
    text: str,
    whole: bool,
    encoding: str,
    said: tuple[str, ...],
    suffix: str,
    known: Collection[str],
    delimiter: str | None,
) -> Opened:
    """A table as text."""
    csv.field_size_limit(2**31 - 1)  # of the whole process: to set it back would cut short whoever else reads
    usual = "\t" if suffix == ".tsv" else ","
    given = None if delimiter is None else known_delimiter(delimiter)
    try:
        found = csv_dialect(text, whole, usual=usual, known=known, delimiter=given)
    except csv.Error as error:
        raise ValueError(f"{path}, line 1: not CSV: {error}; mend the quotes") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    header = _header(path, found.header, found.header_line)
    if found.delimiter != usual or said or header.width != len(header.names) or found.skip_spaces:
        count = f"{len(header.names)} columns: {', '.join(header.names)}"
        spaces = ("without the space after it",) if found.skip_spaces else ()
        said = (f"separator {shown_delimiter(found.delimiter)}", *spaces, *said, count)
    return Opened(without_blank_end(_csv_records(path, encoding, found, header)), said, header.names)


def _csv_records(path: Path, encoding: str, dialect: Dialect, header: _Header) -> Iterator[Record]:
    with decoded_text(path, encoding, newline="") as file:
        after_broken = False
        for line, cells, text in _csv_rows(file, dialect):
            if line <= dialect.header_line:
                continue
            if isinstance(cells, csv.Error):
                after_broken = True
                why = f"not CSV: {cells}; mend the quotes"
                yield Record(line, partial(_escaped, text), partial(refuse_record, why))
                continue
            load = partial(_load_cells, header, cells, encoding)
            if after_broken:
                # It may be the rest of the broken row; a row like any other ends the doubt.
                after_broken = len(cells) != header.width or any('"' in cell for cell in cells)
                if after_broken and len(cells) == header.width:
                    load = partial(refuse_record, "it follows a broken row and holds a quote; mend the quotes")
            yield Record(line, partial(json.dumps, cells), load, not cells)


def _csv_rows(file: Iterable[str], dialect: Dialect) -> Iterator[tuple[int, list[str] | csv.Error, str]]:
    """The rows of a table: their first line, their cells, or else the error and that line as it stands.

    Of a broken row only the first line is given up: a quote that is not closed must not take other rows with it.
    """
    lines, waiting, held = iter(file), deque[str](), list[str]()

    def feed() -> Iterator[str]:
        while waiting:
            held.append(waiting.popleft())
            yield held[-1]
        for text in lines:
            held.append(text)
            if len(held) > 1 and not len(held) & (len(held) - 1) and sum(map(len, held)) > _ROW_CHARACTERS:
                raise csv.Error("a quote is not closed")
            yield text

    line = 1
    while True:
        reader = csv.reader(feed(), delimiter=dialect.delimiter, skipinitialspace=dialect.skip_spaces, strict=True)
        try:
            for cells in reader:
                yield line, cells, ""
                line += len(held)
                held.clear()
            return
        except csv.Error as error:
            yield line, error, held[0]
            line += 1
            waiting.extendleft(reversed(held[1:]))
            held.clear()


def _escaped(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace").rstrip("\r\n")


def _load_cells(header: _Header, cells: list[str], encoding: str) -> Fields:
    text = "".join(cells)
    if not text or text.isspace():
        raise EmptyTextError("the row is empty")
    if len(cells) == header.width != len(header.names):
        extra = cells[len(header.names) :]
        if any(extra):
            raise ValueError(f"{extra!r} stands in columns without a name; name them")
        cells = cells[: len(header.names)]
    if len(cells) != len(header.names):
        raise ValueError(f"{len(cells)} cells and {len(header.names)} columns; quote cells that hold the separator")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            name = "UTF-8" if encoding == "utf-8-sig" else encoding
            raise ValueError(f"not {name}; save the file as UTF-8, or say its --encoding, such as cp1252") from error
    if "\0" in text:
        raise ValueError("a cell holds a NUL byte; write the file again")
    fields = dict(zip(header.names, cells, strict=True))
    for name in header.optional:
        if not fields[name]:
            del fields[name]
    return fields


def open_spreadsheet(path: Path, known: Collection[str]) -> Opened:
    """The first sheet of a workbook that has a header."""
    with _workbook(path) as book:
        headers = {sheet.title: _sheet_header(sheet) for sheet in book.worksheets}
    filled = {title: found for title, found in headers.items() if found is not None}
    named = [title for title, (_, cells) in filled.items() if any(name_key(str(cell)) in known for cell in cells)]
    chosen = named if len(filled) > 1 else list(filled)
    if len(chosen) > 1 or (len(filled) > 1 and not chosen):
        raise ValueError(f"{path} has the sheets {', '.join(filled)}; save the one that is meant as a file of its own")
    if not chosen:
        return Opened(iter(()), ("an Excel file",))
    line, cells = filled[chosen[0]]
    header = _header(path, ["" if cell is None else str(cell) for cell in cells], line)
    said = (f"sheet {chosen[0]}", f"{len(header.names)} columns: {', '.join(header.names)}")
    return Opened(without_blank_end(_sheet_records(path, chosen[0], header, line)), said, header.names)


@contextmanager
def _workbook(path: Path) -> Iterator[Any]:
    """A workbook whose rows are read one at a time.

    Raises:
        ValueError: openpyxl is not installed, or the file is no workbook.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise ValueError("Excel files need openpyxl: pip install 'errata[excel]'") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # of zip files, of XML, of what openpyxl makes of it: no common class
        raise ValueError(f"{path} is not an Excel file that can be read ({error}); save it again") from error
    try:
        yield book  # whose sheets are unpacked and parsed as their rows are taken
    except GeneratorExit:
        raise
    except Exception as error:
        raise ValueError(f"{path} is damaged inside ({error}); save it again") from error
    finally:
        book.close()


def _sheet_header(sheet: Any) -> tuple[int, Sequence[Any]] | None:
    """The first row that is not empty, and its number."""
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell is not None for cell in cells):
            return number, cells
    return None


def _sheet_records(path: Path, title: str, header: _Header, first: int) -> Iterator[Record]:
    with _workbook(path) as book:
        rows = book[title].iter_rows(min_row=first + 1, values_only=True)
        for number, cells in enumerate(rows, start=first + 1):
            raw = partial(json.dumps, [*cells], default=str)
            yield Record(number, raw, partial(_load_sheet_row, header, cells), all(cell is None for cell in cells))


def _load_sheet_row(header: _Header, cells: Sequence[Any]) -> Fields:
    if all(cell is None or (isinstance(cell, str) and is_empty(cell)) for cell in cells):
        raise EmptyTextError("the row is empty")
    if any(cell is not None for cell in cells[len(header.names) :]):
        raise ValueError("a cell stands in a column without a name; name it")
    # An empty cell of a text is an empty text; which columns hold texts, the caller knows.
    found = zip(header.names, (*cells, *[None] * len(header.names)), strict=False)
    fields = {name: "" if value is None else plain_value(value, name) for name, value in found}
    return {name: value for name, value in fields.items() if value != "" or name not in header.optional}


def parquet_records(path: Path) -> Iterator[Record]:
    """Parquet, a batch of rows at a time."""
    _, parquet = pyarrow_modules()
    with _whole_parquet(path):
        # By default pyarrow holds whole groups of rows, and a group may be the whole file.
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    with file:
        _header(path, file.schema_arrow.names, 1)
        with _whole_parquet(path):
            batches = file.iter_batches(batch_size=BATCH_ROWS, use_threads=False)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from (row_record(number, row, dict) for number, row in enumerate(rows, start=1))


@contextmanager
def _whole_parquet(path: Path) -> Iterator[None]:
    pyarrow, _ = pyarrow_modules()
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError) as error:  # OSError: of damaged pages
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}; write it again") from error
