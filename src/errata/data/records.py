"""Files as records: one line, array element, table row or mapping at a time, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from errata.data.files import (
    SUFFIXES,
    Opened,
    Record,
    checked_copy,
    is_gzip,
    pyarrow_modules,
    read_lines,
    refuse_record,
    row_record,
    without_blank_end,
)
from errata.data.hub import HubData, hub_data, open_data
from errata.data.json_records import json_elements, json_objects, json_shape, line_records, value_records
from errata.data.sniff import (
    decoded,
    encoding_of,
    known_encoding,
    read_head,
)
from errata.data.tables import BATCH_ROWS, open_spreadsheet, open_table, parquet_records

__all__ = ["Opened", "Record", "is_gzip", "mapping_records", "open_records", "pyarrow_modules", "read_lines", "records"]


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
        return Opened(parquet_records(path))
    if suffix in (".xlsx", ".xlsm"):
        return open_spreadsheet(path, known)
    if suffix not in (".csv", ".tsv", ".json", ".jsonl", ".ndjson"):
        raise ValueError(f"cannot tell the format of {path} from its name; {SUFFIXES}")
    head, whole = read_head(path)
    found = known_encoding(encoding) if encoding else encoding_of(head)
    try:
        text = decoded(head, found)
    except UnicodeError as error:
        raise ValueError(f"{path} is not {found} ({error}); say its encoding with --encoding") from error
    said = () if found == "utf-8-sig" else (f"encoding {found}",)
    if suffix in (".csv", ".tsv"):
        return open_table(path, text, whole, found, said, suffix, known, delimiter)
    shape = json_shape(text, whole, suffix)
    named = suffix == ".json" if shape == "array" else suffix != ".json" if shape == "lines" else False
    told = {"array": "a JSON array", "lines": "one JSON object a line", "objects": "JSON objects over several lines"}
    said = said if named else (told[shape], *said)
    if shape == "lines":
        return Opened(without_blank_end(line_records(path, found)), said)
    return Opened(value_records(path, found, json_elements if shape == "array" else json_objects), said)


def mapping_records(rows: Iterable[object]) -> Iterator[Record]:
    """Yield rows that are in memory (or stream from a ``datasets.Dataset``) as records; None is an absent field."""
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Mapping):
            yield row_record(number, row, checked_copy)
        else:
            yield Record(
                number, partial(repr, row), partial(refuse_record, f"not a mapping but a {type(row).__name__}")
            )


# JSON: one object a line; an array, as FIGA and FineGrainedRLHF publish theirs; objects over several lines.


# Tables.


def _hub_records(named: HubData, rows: Iterator[Mapping[str, Any]]) -> Iterator[Record]:
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            yield row_record(number, row, checked_copy)
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
        raise ValueError(f"{path} is a folder that no Dataset.save_to_disk wrote; name a file, {SUFFIXES}")
    try:
        import datasets
    except ImportError as error:
        raise ValueError("a folder of Dataset.save_to_disk needs datasets: pip install 'errata[datasets]'") from error
    try:
        # Plain Python values, whatever format the data set was saved with.
        batches = datasets.load_from_disk(str(path)).with_format(None).iter(batch_size=BATCH_ROWS)
        rows = (
            dict(zip(batch, values, strict=True)) for batch in batches for values in zip(*batch.values(), strict=True)
        )
        yield from (row_record(number, row, dict) for number, row in enumerate(rows, start=1))
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a data set that can be read: {error!r}; save it again") from error
