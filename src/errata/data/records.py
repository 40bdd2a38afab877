"""Files as records: one line, array element, table row or mapping at a time, in memory that does not grow with them."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from errata.data.fields import EmptyTextError, Fields, is_empty
from errata.data.hub import HubData, hub_data, open_data
from errata.data.sniff import (
    Dialect,
    csv_dialect,
    decoded,
    encoding_of,
    known_delimiter,
    known_encoding,
    name_key,
    open_bytes,
    open_text,
    read_head,
    reading_bytes,
    shown_delimiter,
)

__all__ = ["Opened", "Record", "is_gzip", "mapping_records", "open_records", "pyarrow_modules", "read_lines", "records"]

_SUFFIXES = (
    "use .jsonl, .jsonl.gz, .parquet or, to read, .csv, .tsv, .json (each with .gz, too), .xlsx or a folder of "
    "Dataset.save_to_disk"
)
_BATCH_ROWS = 1000
_CHUNK = 1 << 16
_ROW_CHARACTERS = 1 << 24
"""The longest row of a CSV file: a quote that is never closed must not hold the rest of the file."""
_OPTIONAL = re.compile(r"id|reason|\w+_(ids|weights)", re.IGNORECASE)
"""Columns of which an empty cell says nothing."""


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


def records(path: Path) -> Iterator[Record]:
    """The records of ``open_records``, of a file that says itself how it is to be read."""
    return open_records(path).records


def open_records(
    path: Path, *, encoding: str | None = None, delimiter: str | None = None, known: Collection[str] = ()
) -> Opened:
    """Open a file, a folder of ``Dataset.save_to_disk`` or a data set of the Hub; blank lines at the end are no rows.

    Its name says what it is, and its first bytes how it is written: gzip, UTF-8, UTF-16 or cp1252, the separator of a
    table, one JSON object a line, an array or objects over several lines.

    Args:
        path: the file.
        encoding: of a file of text, where it is said.
        delimiter: of a table of text, where it is said.
        known: names of columns that speak for a separator.

    Raises:
        ValueError: unknown format or broken file; two separators are as likely.
    """
    if path.is_dir():
        return Opened(_dataset_records(path))
    if (hub := hub_data(path)) is not None:
        rows, source = open_data(hub)
        return Opened(_hub_records(hub, rows), (source,))
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".parquet":
        return Opened(_parquet_records(path))
    if suffix in (".xlsx", ".xlsm"):
        return _open_spreadsheet(path, known)
    if suffix not in (".csv", ".tsv", ".json", ".jsonl", ".ndjson"):
        raise ValueError(f"cannot tell the format of {path} from its name; {_SUFFIXES}")
    head, whole = read_head(path)
    found = known_encoding(encoding) if encoding else encoding_of(head)
    try:
        text = decoded(head, found)
    except UnicodeError as error:
        raise ValueError(f"{path} is not {found} ({error}); say its encoding with --encoding") from error
    said = () if found == "utf-8-sig" else (f"encoding {found}",)
    if suffix in (".csv", ".tsv"):
        return _open_table(path, text, whole, found, said, suffix, known, delimiter)
    shape = _json_shape(text, whole, suffix)
    named = suffix == ".json" if shape == "array" else suffix != ".json" if shape == "lines" else False
    told = {"array": "a JSON array", "lines": "one JSON object a line", "objects": "JSON objects over several lines"}
    said = said if named else (told[shape], *said)
    if shape == "lines":
        return Opened(_without_blank_end(_line_records(path, found)), said)
    return Opened(_value_records(path, found, _elements if shape == "array" else _objects), said)


def mapping_records(rows: Iterable[object]) -> Iterator[Record]:
    """Yield rows that are in memory (or stream from a ``datasets.Dataset``) as records; None is an absent field."""
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Mapping):
            yield _row_record(number, row, _checked_copy)
        else:
            yield Record(number, partial(repr, row), partial(_refuse, f"not a mapping but a {type(row).__name__}"))


def _row_record(number: int, row: Mapping[str, Any], load: Callable[[Fields], Fields]) -> Record:
    # A column has a value in every row: a null stands for a field that this row does not have.
    fields = {name: value for name, value in row.items() if value is not None}
    raw = partial(json.dumps, fields, default=str, skipkeys=True)
    return Record(number, raw, lambda: load({name: _plain(value, name) for name, value in fields.items()}))


def _plain(value: Any, name: str) -> Any:
    """A value of a typed column as JSON has it: dates as ISO 8601, decimals as numbers where that loses nothing."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each, name) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each, name) for key, each in value.items()}
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


def _checked_copy(fields: Fields) -> Fields:
    _refuse_half_characters(fields)
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
        raise ValueError(f"cannot tell the format of {path} from its name; {_SUFFIXES}")
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


def _refuse(reason: str) -> Fields:
    raise ValueError(reason)


def _refuse_half_characters(fields: Mapping[str, Any]) -> None:
    """Half of a surrogate pair goes into no file and into no tokenizer."""
    for name, value in fields.items():
        try:
            json.dumps([name, value], ensure_ascii=False, default=str, skipkeys=True).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"field {name!r} holds half of a surrogate pair; mend the text") from error


# JSON: one object a line; an array, as FIGA and FineGrainedRLHF publish theirs; objects over several lines.


class _Decoder(json.JSONDecoder):
    """Keeps the names that one object has twice, of which JSON would take the last."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.twice: list[str] = []

    def _object(self, pairs: list[tuple[str, Any]]) -> Fields:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            self.twice += sorted({name for name in names if names.count(name) > 1})
        return fields


def _json_shape(text: str, whole: bool, suffix: str) -> str:
    """`array`, `lines` or `objects`, by the first characters: an object that goes on after its line is no line."""
    start = text.lstrip()
    if start.startswith("[") and (suffix == ".json" or re.match(r"\[\s*(\{|\]|$)", start)):
        return "array"
    if not start.startswith("{"):
        return "array" if suffix == ".json" else "lines"
    first, broken, _ = start.partition("\n")
    if _begins_with_json(first) or (suffix != ".json" and first.rstrip() != "{"):
        return "lines" if broken or suffix != ".json" else "objects"
    return "objects" if not whole or suffix == ".json" or _begins_with_json(start) else "lines"


def _begins_with_json(text: str) -> bool:
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _line_records(path: Path, encoding: str) -> Iterator[Record]:
    decoder = _Decoder()
    for line, data in _lines(path, encoding):
        yield Record(line, partial(_raw_line, data), partial(_load_json, data, line, decoder), not data.strip())


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, bytes]]:
    r"""The lines in UTF-8, numbered from 1; only ``\n`` ends one."""
    if encoding == "utf-8-sig":
        with reading_bytes(path), open_bytes(path) as file:
            yield from enumerate(file, start=1)
    else:
        with _text_of(path, encoding, newline="\n") as text:
            yield from enumerate((line.encode("utf-8", "surrogateescape") for line in text), start=1)


@contextmanager
def _text_of(path: Path, encoding: str, *, newline: str) -> Iterator[TextIO]:
    with reading_bytes(path), open_text(path, encoding, newline=newline) as text:
        try:
            yield text
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not {encoding} to its end ({error}); say its encoding: --encoding") from error


def _raw_line(data: bytes) -> str:
    return data.decode(errors="backslashreplace").rstrip("\r\n")


def _without_blank_end(found: Iterator[Record]) -> Iterator[Record]:
    blank: list[Record] = []
    for record in found:
        if record.blank:
            blank.append(record)
            continue
        if blank:
            yield from blank
            blank.clear()
        yield record


def _load_json(data: bytes, line: int, decoder: _Decoder) -> Fields:
    if not data.strip():
        raise ValueError("the line is blank; take it out")
    try:
        text = data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not UTF-8 at byte {error.start}; save the file as UTF-8, or say its --encoding, such as cp1252"
        ) from error
    decoder.twice.clear()
    try:
        fields = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}; write one object on each line") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"not JSON that can be read: {error}; take it out of the row") from error
    return _checked(fields, text, tuple(decoder.twice))


def _checked(fields: object, text: str, twice: Sequence[str]) -> Fields:
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object but a {type(fields).__name__}; write {{...}} for each row")
    if twice:
        raise ValueError(f"field {twice[0]!r} stands twice in the row; keep one of the two")
    if "\\u" in text:  # the only way in for half of a surrogate pair
        _refuse_half_characters(fields)
    # Whoever looks at the first rows of a file must not take them from who reads it.
    return dict(fields)


def _value_records(path: Path, encoding: str, values: Callable[..., Iterator[tuple[Any, str]]]) -> Iterator[Record]:
    number, decoder = 0, _Decoder()
    try:
        with _text_of(path, encoding, newline="") as file:
            for number, (value, text) in enumerate(values(partial(_read_valid, file), decoder), start=1):
                twice = tuple(decoder.twice)
                decoder.twice.clear()
                yield Record(number, partial(str, text), partial(_load_value, value, text, twice))
    except (RecursionError, ValueError) as error:
        what = "a JSON array of rows" if values is _elements else "JSON objects, one after the other"
        raise ValueError(
            f"{path} is not {what}, or is damaged after row {number} ({error}); write it anew, or "
            "name a file of one object a line .jsonl"
        ) from error


def _load_value(value: object, text: str, twice: Sequence[str]) -> Fields:
    fields = _checked(value, text, twice)
    for name in ("data", "rows", "items", "records", "examples", "results"):
        inner = fields.get(name)
        if len(fields) < 4 and isinstance(inner, list) and inner and isinstance(inner[0], dict):
            raise ValueError(f"field {name!r} holds {len(inner)} rows of its own; write that list to a file")
    return fields


def _read_valid(file: TextIO, count: int) -> str:
    text = file.read(count)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it is not UTF-8; save it as UTF-8, or say its --encoding") from error
    return text


def _objects(read: Callable[[int], str], decoder: json.JSONDecoder) -> Iterator[tuple[Any, str]]:
    """JSON values that stand one after the other, with their texts; one is held at a time."""
    buffer, start = _skip(read, "", 0)
    while buffer:
        value, text, buffer, start = _value(read, buffer[start:], decoder, ends=" \t\r\n{")
        yield value, text
        buffer, start = _skip(read, buffer, start)


def _elements(read: Callable[[int], str], decoder: json.JSONDecoder | None = None) -> Iterator[tuple[Any, str]]:
    """The elements of a JSON array with their texts; reads on by chunks, so that only one element is held."""
    decoder = decoder or json.JSONDecoder()
    buffer, start = _skip(read, "", 0)
    if buffer[start : start + 1] != "[":
        raise ValueError("it does not begin with [")
    buffer, start = _skip(read, buffer, start + 1)
    while buffer[start : start + 1] != "]":
        value, text, buffer, start = _value(read, buffer[start:], decoder, ends=" \t\r\n,]")
        buffer, start = _skip(read, buffer, start)
        mark = buffer[start : start + 1]
        if mark == ",":
            buffer, start = _skip(read, buffer, start + 1)
            if buffer[start : start + 1] == "]":
                raise ValueError("a comma stands before its ]")
        elif mark != "]":
            raise ValueError("no comma stands between two rows, or the ] is missing")
        yield value, text
    if _skip(read, buffer, start + 1)[0]:
        raise ValueError("something stands after its ]")


def _value(
    read: Callable[[int], str], buffer: str, decoder: json.JSONDecoder, *, ends: str
) -> tuple[Any, str, str, int]:
    """The value that the buffer begins with, its text, and the buffer with the place after it; reads on as needed."""
    while True:
        if isinstance(decoder, _Decoder):
            decoder.twice.clear()
        try:
            value, stop = decoder.raw_decode(buffer)
            # A number may go on where the buffer ends.
            broken = None if buffer[stop : stop + 1] in tuple(ends) else ValueError("a row does not end")
        except json.JSONDecodeError as error:
            broken = error
        if broken is None:
            return value, buffer[:stop], buffer, stop
        # As much again as there is: a long element is tried a few times, not once for each chunk.
        more = read(max(_CHUNK, len(buffer)))
        if not more:
            if isinstance(broken, json.JSONDecodeError) or "]" in ends:
                raise broken
            return value, buffer[:stop], buffer, stop
        buffer += more


def _skip(read: Callable[[int], str], buffer: str, start: int) -> tuple[str, int]:
    """Past blanks, to the next character that is none, or to the end of the file."""
    while True:
        rest = buffer[start : start + _CHUNK].lstrip(" \t\r\n")
        if rest:
            return buffer, start + len(buffer[start : start + _CHUNK]) - len(rest)
        buffer, start = buffer[start + _CHUNK :] or read(_CHUNK), 0
        if not buffer:
            return "", 0


# Tables.


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


def _open_table(
    path: Path,
    text: str,
    whole: bool,
    encoding: str,
    said: tuple[str, ...],
    suffix: str,
    known: Collection[str],
    delimiter: str | None,
) -> Opened:
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
    return Opened(_without_blank_end(_csv_records(path, encoding, found, header)), said, header.names)


def _csv_records(path: Path, encoding: str, dialect: Dialect, header: _Header) -> Iterator[Record]:
    with _text_of(path, encoding, newline="") as file:
        after_broken = False
        for line, cells, text in _csv_rows(file, dialect):
            if line <= dialect.header_line:
                continue
            if isinstance(cells, csv.Error):
                after_broken = True
                why = f"not CSV: {cells}; mend the quotes"
                yield Record(line, partial(_escaped, text), partial(_refuse, why))
                continue
            load = partial(_load_cells, header, cells, encoding)
            if after_broken:
                # It may be the rest of the broken row; a row like any other ends the doubt.
                after_broken = len(cells) != header.width or any('"' in cell for cell in cells)
                if after_broken and len(cells) == header.width:
                    load = partial(_refuse, "it follows a broken row and holds a quote; mend the quotes")
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


def _open_spreadsheet(path: Path, known: Collection[str]) -> Opened:
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
    return Opened(_without_blank_end(_sheet_records(path, chosen[0], header, line)), said, header.names)


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
    fields = {name: "" if value is None else _plain(value, name) for name, value in found}
    return {name: value for name, value in fields.items() if value != "" or name not in header.optional}


def _parquet_records(path: Path) -> Iterator[Record]:
    _, parquet = pyarrow_modules()
    with _whole_parquet(path):
        # By default pyarrow holds whole groups of rows, and a group may be the whole file.
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    with file:
        _header(path, file.schema_arrow.names, 1)
        with _whole_parquet(path):
            batches = file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from (_row_record(number, row, dict) for number, row in enumerate(rows, start=1))


@contextmanager
def _whole_parquet(path: Path) -> Iterator[None]:
    pyarrow, _ = pyarrow_modules()
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError) as error:  # OSError: of damaged pages
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}; write it again") from error


def _hub_records(named: HubData, rows: Iterator[Mapping[str, Any]]) -> Iterator[Record]:
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            yield _row_record(number, row, _checked_copy)
    except GeneratorExit:
        raise
    except Exception as error:  # of the network, of the files of a data set: no common class
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the data set {named.repo} cannot be read after row {number} ({reason})") from error


def _dataset_records(path: Path) -> Iterator[Record]:
    if (path / "dataset_dict.json").exists():
        splits = sorted(each.name for each in path.iterdir() if each.is_dir())
        raise ValueError(f"{path} holds the splits {', '.join(splits)}; name the folder of one of them")
    if not (path / "state.json").exists():
        raise ValueError(f"{path} is a folder that no Dataset.save_to_disk wrote; name a file, {_SUFFIXES}")
    try:
        import datasets
    except ImportError as error:
        raise ValueError("a folder of Dataset.save_to_disk needs datasets: pip install 'errata[datasets]'") from error
    try:
        # Plain Python values, whatever format the data set was saved with.
        batches = datasets.load_from_disk(str(path)).with_format(None).iter(batch_size=_BATCH_ROWS)
        rows = (
            dict(zip(batch, values, strict=True)) for batch in batches for values in zip(*batch.values(), strict=True)
        )
        yield from (_row_record(number, row, dict) for number, row in enumerate(rows, start=1))
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a data set that can be read: {error!r}; save it again") from error
