"""Files of rows and their records, of whatever kind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from errata.data.fields import Fields
from errata.data.sniff import (
    open_text,
    reading_bytes,
)

__all__ = [
    "SUFFIXES",
    "Opened",
    "Record",
    "checked_copy",
    "decoded_text",
    "is_gzip",
    "plain_value",
    "pyarrow_modules",
    "raw_line",
    "read_lines",
    "refuse_half_characters",
    "refuse_record",
    "row_record",
    "without_blank_end",
]

SUFFIXES = (
    "use .jsonl, .jsonl.gz, .parquet or, to read, .csv, .tsv, .json (each with .gz, too), .xlsx or a folder of "
    "Dataset.save_to_disk"
)


class Record(NamedTuple):
    """One row as it stands in its file."""

    line: int
    """Its line; of a JSON array, a table or a data set its number, from 1; of a spreadsheet its row."""
    raw: Callable[[], str]
    """Gives it as text, to set aside."""
    load: Callable[[], Fields]
    """Gives its fields, the caller's to take apart; raises ValueError."""
    blank: bool = False
    """Whether nothing stands there."""


class Opened(NamedTuple):
    """A file whose form is known."""

    records: Iterator[Record]
    taken: tuple[str, ...] = ()
    """How it is read, in words, where that is not what its name says."""
    columns: tuple[str, ...] = ()
    """Of a table with a header: their names."""


def row_record(number: int, row: Mapping[str, Any], load: Callable[[Fields], Fields]) -> Record:
    """A row of a table or a data set; ``load`` makes its fields of the plain values."""
    # A column has a value in every row: a null stands for a field that this row does not have.
    fields = {name: value for name, value in row.items() if value is not None}
    raw = partial(json.dumps, fields, default=str, skipkeys=True)
    return Record(number, raw, lambda: load({name: plain_value(value, name) for name, value in fields.items()}))


def plain_value(value: Any, name: str) -> Any:
    """A value of a typed column as JSON has it: dates as ISO 8601, decimals as numbers where that loses nothing."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [plain_value(each, name) for each in value]
    if isinstance(value, Mapping):
        return {key: plain_value(each, name) for key, each in value.items()}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if type(value).__module__ == "numpy":  # of rows that are in memory
        return value.tolist()
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"field {name!r} holds bytes that are no text; drop that column") from error
    return value


def checked_copy(fields: Fields) -> Fields:
    """The fields, in which every text can be written down."""
    refuse_half_characters(fields)
    return dict(fields)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield the lines of a ``.jsonl`` or ``.jsonl.gz`` file as ``(number from 1, bytes)``; only ``\n`` ends a line.

    Raises:
        ValueError: another suffix, or a damaged gzip file.
    """
    compressed = is_gzip(path)
    with reading_bytes(path), gzip.open(path) if compressed else path.open("rb") as file:
        yield from enumerate(file, start=1)


def is_gzip(path: Path) -> bool:
    """Whether a file of JSON lines is compressed, by its name.

    Raises:
        ValueError: the name is of another format.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"cannot tell the format of {path} from its name; {SUFFIXES}")
    return path.suffix == ".gz"


def pyarrow_modules() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        ValueError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("Parquet files need pyarrow: pip install 'errata[parquet]'") from error
    return pyarrow, pyarrow.parquet


def refuse_record(reason: str) -> Fields:
    """Raise ValueError when the record is loaded."""
    raise ValueError(reason)


def refuse_half_characters(fields: Mapping[str, Any]) -> None:
    """Half of a surrogate pair goes into no file and into no tokenizer."""
    for name, value in fields.items():
        try:
            json.dumps([name, value], ensure_ascii=False, default=str, skipkeys=True).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"field {name!r} holds half of a surrogate pair; mend the text") from error


@contextmanager
def decoded_text(path: Path, encoding: str, *, newline: str) -> Iterator[TextIO]:
    """A file of text, opened."""
    with reading_bytes(path), open_text(path, encoding, newline=newline) as text:
        try:
            yield text
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not {encoding} to its end ({error}); say its encoding: --encoding") from error


def raw_line(data: bytes) -> str:
    """A line as it stands, readable whatever its bytes are."""
    return data.decode(errors="backslashreplace").rstrip("\r\n")


def without_blank_end(found: Iterator[Record]) -> Iterator[Record]:
    """The records without blank ones at the end."""
    blank: list[Record] = []
    for record in found:
        if record.blank:
            blank.append(record)
            continue
        if blank:
            yield from blank
            blank.clear()
        yield record
