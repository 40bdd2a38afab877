"""Files as records: one line, array element, table row or mapping at a time, in memory that does not grow with them."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from errata.data.fields import Fields

__all__ = ["Record", "is_gzip", "mapping_records", "pyarrow_modules", "read_lines", "records"]

_SUFFIXES = "use .jsonl, .jsonl.gz, .parquet or, to read, .csv, .json or a folder of Dataset.save_to_disk"
_BATCH_ROWS = 1000
_CHUNK = 1 << 16


class Record(NamedTuple):
    """One row as it stands in its file."""

    line: int
    """Its line; of a JSON array, a table or a data set its number, from 1."""
    raw: Callable[[], str]
    """Gives it as text, to set aside."""
    load: Callable[[], Fields]
    """Gives its fields, the caller's to take apart; raises ValueError."""
    blank: bool = False
    """Whether nothing stands there."""


def records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, or of a folder that ``Dataset.save_to_disk`` wrote; blank lines at its end are none.

    Raises:
        ValueError: unknown format or broken file.
    """
    if path.is_dir():
        return _dataset_records(path)
    if path.suffix == ".parquet":
        return _parquet_records(path)
    if path.suffix == ".json":
        return _array_records(path)
    return _without_blank_end(_csv_records(path) if path.suffix == ".csv" else _line_records(path))


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
    return Record(number, partial(json.dumps, fields, default=str, skipkeys=True), partial(load, fields))


def _checked_copy(fields: Fields) -> Fields:
    _refuse_half_characters(fields)
    return dict(fields)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield the lines of a ``.jsonl`` or ``.jsonl.gz`` file as ``(number from 1, bytes)``; only ``\n`` ends a line.

    Raises:
        ValueError: another suffix, or a damaged gzip file.
    """
    compressed = is_gzip(path)
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            yield from enumerate(file, start=1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); fetch or write it again") from error


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


# JSON lines.


def _line_records(path: Path) -> Iterator[Record]:
    for line, data in read_lines(path):
        yield Record(line, partial(_raw_line, data), partial(_load_json, data, line), not data.strip())


def _raw_line(data: bytes) -> str:
    return data.decode(errors="backslashreplace").rstrip("\r\n")


def _without_blank_end(found: Iterator[Record]) -> Iterator[Record]:
    blank: list[Record] = []
    for record in found:
        blank.append(record)
        if not record.blank:
            yield from blank
            blank.clear()


def _load_json(data: bytes, line: int) -> Fields:
    if not data.strip():
        raise ValueError("the line is blank; take it out")
    try:
        text = data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}; write one object on each line") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"not JSON that can be read: {error}; take it out of the row") from error
    return _checked(fields, text)


def _checked(fields: object, text: str) -> Fields:
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object but a {type(fields).__name__}; write {{...}} for each row")
    if "\\u" in text:  # the only way in for half of a surrogate pair
        _refuse_half_characters(fields)
    return fields


# A JSON array, as FIGA and FineGrainedRLHF publish theirs.


def _array_records(path: Path) -> Iterator[Record]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, (value, text) in enumerate(_elements(file.read), start=1):
                yield Record(number, partial(str, text), partial(_checked, value, text))
    except (RecursionError, ValueError) as error:
        raise ValueError(
            f"{path} is not a JSON array of rows, or is damaged after row {number} ({error}); write it anew, or "
            "name a file of one object a line .jsonl"
        ) from error


def _elements(read: Callable[[int], str]) -> Iterator[tuple[Any, str]]:
    """The elements of a JSON array with their texts; reads on by chunks, so that only one element is held."""
    decoder = json.JSONDecoder()
    buffer, start = _skip(read, "", 0)
    if buffer[start : start + 1] != "[":
        raise ValueError("it does not begin with [")
    buffer, start = _skip(read, buffer, start + 1)
    while buffer[start : start + 1] != "]":
        buffer, start = buffer[start:], 0
        while True:
            try:
                value, stop = decoder.raw_decode(buffer)
                # A number may go on where the buffer ends.
                ended = buffer[stop : stop + 1] in (" ", "\t", "\r", "\n", ",", "]")
                broken = None if ended else ValueError("no comma stands after a row, or the ] is missing")
            except json.JSONDecodeError as error:
                broken = error
            if broken is None:
                break
            # As much again as there is: a long element is tried a few times, not once for each chunk.
            more = read(max(_CHUNK, len(buffer)))
            if not more:
                raise broken
            buffer += more
        text = buffer[:stop]
        buffer, start = _skip(read, buffer, stop)
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


def _csv_records(path: Path) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)  # of the whole process: to set it back would cut short whoever else reads
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = _csv_header(path, reader)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = f"({error})"
                yield Record(line, partial(str, reason), partial(_refuse, f"not CSV: {error}; mend the quotes"))
            else:
                yield Record(line, partial(json.dumps, cells), partial(_load_cells, header, cells), not cells)


def _csv_header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, [])
        "".join(header).encode()
    except csv.Error as error:
        raise ValueError(f"{path}, line 1: not CSV: {error}; mend the quotes") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}, line 1: not UTF-8; save the file as UTF-8") from error
    return _different(path, header)


def _different(path: Path, names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError(f"{path}, line 1: two columns have the same name; rename one")
    return names


def _load_cells(header: list[str], cells: list[str]) -> Fields:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells and {len(header)} columns; quote cells that hold a comma")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        raise ValueError("not UTF-8; save the file as UTF-8") from error
    return dict(zip(header, cells, strict=True))


def _parquet_records(path: Path) -> Iterator[Record]:
    pyarrow, parquet = pyarrow_modules()
    try:
        # By default pyarrow holds whole groups of rows, and a group may be the whole file.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            _different(path, file.schema_arrow.names)
            batches = file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from (_row_record(number, row, dict) for number, row in enumerate(rows, start=1))
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}; write it again") from error


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
