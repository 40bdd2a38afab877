"""Rows in and out of files: prompts, preferences and corrections, in the ecosystem's (TRL's) row formats.

Files are JSON lines (``.jsonl``, ``.jsonl.gz``), Parquet (``.parquet``, needs pyarrow) or, to read only, CSV with a
header (``.csv``, plain text only). A row that cannot be used is never dropped in silence: it is an error, or it is set
aside in a file of its own and counted.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from errata.data.files import new_file
from errata.types import Correction, Demonstration, Preference, Prompt, PromptRow

__all__ = [
    "read_corrections",
    "read_demonstrations",
    "read_lines",
    "read_preferences",
    "read_prompts",
    "write_lines",
    "write_rows",
]

_TEXT_PAIRS = (("rejected", "chosen"), ("original", "edited"), ("draft", "sent"))
_ANSWERS = ("response", "completion", "chosen", "edited", "sent")
_ID_FIELDS = ("rejected_ids", "original_ids")
_FORMATS = "use .jsonl, .jsonl.gz, .parquet or, to read, .csv"


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


_Row = TypeVar("_Row", bound=_HasId)


def read_prompts(path: Path, *, set_aside: Path | None = None) -> list[PromptRow]:
    """Read prompts: ``prompt`` is a text or a list of messages with ``role`` and ``content``.

    ``id`` may be left out and is then ``row-<line number>``; fields that errata does not know travel in ``extra``.

    Args:
        path: the file; its suffix says which format.
        set_aside: where unusable rows go, as JSON lines ``{line, error, raw}`` (an empty file if there are none).

    Returns:
        The usable rows, in the order of the file.

    Raises:
        ValueError: unknown format or broken file; an unusable row and no ``set_aside``; no usable row at all.
    """
    return _read(path, _prompt_row, set_aside)


def read_demonstrations(path: Path, *, set_aside: Path | None = None) -> list[Demonstration]:
    """Read answers: ``prompt`` and one of ``response``, ``completion``, or the better text of a pair.

    Arguments, ids, further fields and errors are those of ``read_prompts``.
    """
    return _read(path, _demonstration, set_aside)


def read_preferences(path: Path, *, set_aside: Path | None = None) -> list[Preference]:
    """Read preferences: ``prompt``, ``chosen`` and ``rejected``; the answers are texts, or lists of one message.

    Arguments, ids, further fields and errors are those of ``read_prompts``.
    """
    return _read(path, _preference, set_aside)


def read_corrections(path: Path, *, set_aside: Path | None = None) -> list[Correction]:
    """Read corrections: ``prompt`` (which may be empty), and the text before and after under a pair of names.

    The pairs are ``rejected, chosen``, ``original, edited`` and ``draft, sent``; texts are as in ``read_preferences``.
    ``rejected_ids`` (or ``original_ids``) are the sampled ids of the former, where they are known. Arguments, ids,
    further fields and errors are those of ``read_prompts``.
    """
    return _read(path, _correction, set_aside)


def write_rows(path: Path, rows: Iterable[PromptRow | Demonstration | Preference | Correction]) -> None:
    """Write rows, wholly or not at all; the readers give back equal rows. A correction becomes a TRL preference row.

    Raises:
        ValueError: a format that cannot be written; an id that comes twice; text or an extra field that the file cannot
            hold as it is.
    """
    fields = _distinct(map(_fields, rows))
    if path.suffix == ".parquet":
        _write_parquet(path, list(fields))
    else:
        write_lines(path, fields)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield the lines of a ``.jsonl`` or ``.jsonl.gz`` file as ``(number from 1, bytes)``; only ``\n`` ends a line.

    Raises:
        ValueError: another suffix, or a damaged gzip file.
    """
    compressed = _is_gzip(path)
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            yield from enumerate(file, start=1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); fetch or write it again") from error


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as ``.jsonl`` or ``.jsonl.gz``, wholly or not at all; the same objects, the same bytes.

    Raises:
        ValueError: another suffix; a row that JSON in UTF-8 cannot hold.
    """
    compressed = _is_gzip(path)
    with new_file(path) as unfinished, unfinished.open("wb") as raw:
        # No name and no time in the header of a gzip file.
        file = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compressed else raw
        with file:
            for row in rows:
                try:
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{path}: row {row.get('id')!r} cannot be written as JSON: {error}") from error


def _is_gzip(path: Path) -> bool:
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"cannot tell the format of {path} from its name; {_FORMATS}")
    return path.suffix == ".gz"


# Reading: a file gives records, a record gives fields, fields give a row.


class _Record(NamedTuple):
    line: int
    raw: str
    load: Callable[[], dict[str, Any]]
    """Gives the fields, the caller's to take apart; raises ValueError."""


def _read(path: Path, parse: Callable[[dict[str, Any], int], _Row], set_aside: Path | None) -> list[_Row]:
    if set_aside is not None and set_aside.resolve() == path.resolve():
        raise ValueError(f"{path} cannot take the rows set aside from itself; name another file")
    rows: list[_Row] = []
    unusable: list[dict[str, Any]] = []
    line_of: dict[str, int] = {}
    for record in _without_blank_end(_records(path)):
        try:
            row = parse(record.load(), record.line)
            if row.id in line_of:
                raise ValueError(f"field 'id': {row.id!r} is the id of line {line_of[row.id]} too; make ids differ")
        except ValueError as error:
            unusable.append({"line": record.line, "error": str(error), "raw": record.raw})
        else:
            line_of[row.id] = record.line
            rows.append(row)
    if set_aside is not None:
        write_lines(set_aside, unusable)
    if unusable:
        first = f"line {unusable[0]['line']}: {unusable[0]['error']}"
        if set_aside is None:
            raise ValueError(
                f"{path}, {first} ({len(unusable) - 1} more unusable rows, {len(rows)} usable ones; "
                "mend the file, or name a file to set unusable rows aside)"
            )
        total = len(rows) + len(unusable)
        print(f"{path}: {len(unusable)} of {total} rows set aside in {set_aside}; the first, {first}", file=sys.stderr)
    if not rows:
        raise ValueError(f"{path} has no usable row; give it at least one")
    return rows


def _without_blank_end(records: Iterator[_Record]) -> Iterator[_Record]:
    blank: list[_Record] = []
    for record in records:
        blank.append(record)
        if record.raw.strip():
            yield from blank
            blank.clear()


def _records(path: Path) -> Iterator[_Record]:
    if path.suffix == ".parquet":
        return _parquet_records(path)
    if path.suffix == ".csv":
        return _csv_records(path)
    return (
        _Record(line, data.decode(errors="backslashreplace").rstrip("\r\n"), partial(_load_json, data, line))
        for line, data in read_lines(path)
    )


def _load_json(data: bytes, line: int) -> dict[str, Any]:
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
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object but a {type(fields).__name__}; write {{...}} on each line")
    if "\\u" in text:  # the only way in for half of a surrogate pair, which no file and no tokenizer takes
        for name, value in fields.items():
            try:
                json.dumps([name, value], ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"field {name!r} holds half of a surrogate pair; mend the text") from error
    return fields


def _csv_records(path: Path) -> Iterator[_Record]:
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise ValueError(f"{path}, line 1: two columns have the same name; rename one")
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield _Record(line, f"({error})", partial(_refuse, f"not CSV: {error}; mend the quotes"))
                else:
                    yield _Record(line, json.dumps(cells) if cells else "", partial(_load_cells, header, cells))
    finally:
        csv.field_size_limit(limit)


def _refuse(reason: str) -> dict[str, Any]:
    raise ValueError(reason)


def _load_cells(header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells and {len(header)} columns; quote cells that hold a comma")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        raise ValueError("not UTF-8; save the file as UTF-8") from error
    return dict(zip(header, cells, strict=True))


def _parquet_records(path: Path) -> Iterator[_Record]:
    pyarrow, parquet = _pyarrow()
    try:
        rows = parquet.ParquetFile(path).read().to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}; write it again") from error
    for line, row in enumerate(rows, start=1):
        # A column has a value in every row: a null stands for a field that this row does not have.
        fields = {name: value for name, value in row.items() if value is not None}
        yield _Record(line, json.dumps(fields, default=str), fields.copy)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("Parquet files need pyarrow: pip install 'errata[parquet]'") from error
    return pyarrow, pyarrow.parquet


def _prompt_row(fields: dict[str, Any], line: int) -> PromptRow:
    return PromptRow(id=_id(fields, line), prompt=_prompt(fields), extra=fields)


def _demonstration(fields: dict[str, Any], line: int) -> Demonstration:
    name = next((name for name in _ANSWERS if fields.get(name) is not None), _ANSWERS[0])
    return Demonstration(id=_id(fields, line), prompt=_prompt(fields), response=_answer(fields, name), extra=fields)


def _preference(fields: dict[str, Any], line: int) -> Preference:
    return Preference(
        id=_id(fields, line),
        prompt=_prompt(fields),
        chosen=_answer(fields, "chosen"),
        rejected=_answer(fields, "rejected"),
        chosen_ids=_sampled_ids(fields, ("chosen_ids",)),
        rejected_ids=_sampled_ids(fields, _ID_FIELDS),
        extra=fields,
    )


def _correction(fields: dict[str, Any], line: int) -> Correction:
    original, edited = _pair(fields)
    return Correction(
        id=_id(fields, line),
        prompt=_prompt(fields),
        original=_answer(fields, original),
        edited=_answer(fields, edited),
        original_ids=_sampled_ids(fields, _ID_FIELDS),
        extra=fields,
    )


def _pair(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The pair of names that holds the two texts; a pair of which one is missing, for the error that names it."""
    found = [[name for name in pair if fields.get(name) is not None] for pair in _TEXT_PAIRS]
    whole = [pair for pair, names in zip(_TEXT_PAIRS, found, strict=True) if len(names) == 2]
    if len(whole) > 1:
        raise ValueError(f"fields {whole[0]} and {whole[1]} both hold a text before and after; keep one pair")
    if whole:
        return whole[0]
    return max(zip(_TEXT_PAIRS, found, strict=True), key=lambda each: len(each[1]))[0]


def _take(fields: dict[str, Any], name: str) -> Any:
    value = fields.pop(name, None)
    if value is None:
        raise ValueError(f"field {name!r} is missing; add it")
    return value


def _id(fields: dict[str, Any], line: int) -> str:
    value = fields.pop("id", None)
    if value is None:
        return f"row-{line}"
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"field 'id' is {value!r}; give a text or a number, or leave it out")
    return str(value)


def _prompt(fields: dict[str, Any]) -> Prompt:
    value: Any = _take(fields, "prompt")
    if isinstance(value, str) or (isinstance(value, list) and value and all(map(_is_message, value))):
        return value
    raise ValueError("field 'prompt' is neither a text nor a list of messages with role and content; make it one")


def _answer(fields: dict[str, Any], name: str) -> str:
    value = _take(fields, name)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1 and _is_message(value[0]) and value[0]["role"] == "assistant":
        return str(value[0]["content"])
    raise ValueError(
        f"field {name!r} is neither a text nor a list of one assistant message; put what comes before into 'prompt'"
    )


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _sampled_ids(fields: dict[str, Any], names: Sequence[str]) -> tuple[int, ...] | None:
    given = {name: value for name in names if (value := fields.pop(name, None)) is not None}
    if not given:
        return None
    if len(given) > 1:
        raise ValueError(f"fields {names} both hold the sampled ids; keep one")
    ((name, ids),) = given.items()
    if not isinstance(ids, list) or not all(type(each) is int and each >= 0 for each in ids):
        raise ValueError(f"field {name!r} is not a list of token ids; give whole numbers from 0, or leave it out")
    return tuple(ids)


# Writing.


def _fields(row: PromptRow | Demonstration | Preference | Correction) -> dict[str, Any]:
    prompt = row.prompt if isinstance(row.prompt, str) else [dict(message) for message in row.prompt]
    fields: dict[str, Any] = {"id": row.id, "prompt": prompt}
    if isinstance(row, Preference):
        fields |= {"rejected": row.rejected, "chosen": row.chosen}
        for name, ids in (("rejected_ids", row.rejected_ids), ("chosen_ids", row.chosen_ids)):
            if ids is not None:
                fields[name] = list(ids)
    elif isinstance(row, Demonstration):
        fields |= {"response": row.response}
    elif isinstance(row, Correction):
        fields |= {"rejected": row.original, "chosen": row.edited}
        if row.original_ids is not None:
            fields["rejected_ids"] = list(row.original_ids)
    if clash := fields.keys() & row.extra.keys():
        raise ValueError(f"row {row.id!r}: the extra fields {sorted(clash)} are names of errata's own; rename them")
    return {**fields, **row.extra}


def _distinct(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise ValueError(f"two rows have the id {row['id']!r}; make ids differ")
        seen.add(row["id"])
        yield row


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow, parquet = _pyarrow()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
        for row, held in zip(rows, table.to_pylist(), strict=True):
            for name, value in row.items():
                if held[name] != value:
                    raise ValueError(f"field {name!r} of row {row['id']!r} would become {held[name]!r}")
        with new_file(path) as unfinished:
            parquet.write_table(table, unfinished)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: Parquet wants one type for each field ({error}); write .jsonl") from error
