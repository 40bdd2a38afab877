"""Files of rows that are damaged in every way that files are: 0 tracebacks, and no row lost or changed in silence."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from faults.harness import Ran, chunks, damaged, judge, run

pytestmark = pytest.mark.slow  # fifty inputs at a time

Row = dict[str, Any]
Triple = tuple[str, str, str]
COLUMNS = ("prompt", "draft", "sent")
INPUTS, SIZE = 1000, 50


def rows(rng: random.Random) -> list[Row]:
    """Rows whose every text names its row and its column, with the signs that tables and JSON are made of."""
    marks = [
        "plain",
        "with, a comma",
        'a "quote"',
        "two\nlines",
        "a; b",
        "tab\there",
        "schöne Grüße",
        "x=1|y",
        "back\\slash",
    ]
    return [
        {
            "id": f"r{k}",
            **{name: f"{name}{k} {rng.choice(marks)} end" for name in COLUMNS},
            **({"reason": "tone"} if k % 3 == 0 else {}),
        }
        for k in range(rng.randint(2, 6))
    ]


def triple(row: Row, empty: str | None = None) -> Triple | None:
    prompt, *answers = (empty if row.get(name) is None else row[name] for name in COLUMNS)
    if isinstance(prompt, list):
        prompt = json.dumps(prompt)
    return (prompt, *answers) if all(isinstance(text, str) for text in (prompt, *answers)) else None


# How a file of rows is written, and read as its format says and nothing else.


def to_csv(found: list[Row], separator: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    held = io.StringIO()
    names = list(dict.fromkeys(name for row in found for name in row))
    writer = csv.DictWriter(held, names, delimiter=separator, quoting=quoting, restval="")
    writer.writeheader()
    writer.writerows(found)
    return held.getvalue().encode()


def to_jsonl(found: list[Row]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in found)


def to_parquet(found: list[Row]) -> bytes:
    held = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(found), held)
    return held.getvalue()


def to_xlsx(found: list[Row]) -> bytes:
    book, held = openpyxl.Workbook(), io.BytesIO()
    names = list(dict.fromkeys(name for row in found for name in row))
    book.active.append(names)
    for row in found:
        book.active.append([row.get(name) for name in names])
    book.save(held)
    return held.getvalue()


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    "jsonl": to_jsonl,
    "csv": to_csv,
    "tsv": lambda found: to_csv(found, "\t"),
    "json": lambda found: json.dumps(found, ensure_ascii=False).encode(),
    "quoted.csv": lambda found: to_csv(found, ";", csv.QUOTE_ALL),
    "pretty.json": lambda found: json.dumps(found, indent=1).encode(),
    "jsonl.gz": lambda found: gzip.compress(to_jsonl(found), mtime=0),
    "csv.gz": lambda found: gzip.compress(to_csv(found), mtime=0),
    "utf-16.csv": lambda found: to_csv(found).decode().encode("utf-16"),
    "parquet": to_parquet,
    "xlsx": to_xlsx,
}


def plainly(form: str, data: bytes) -> list[Row | None]:
    """What the format says of these bytes, by another reader; None is a row that is none. Raises where all is none."""
    if form.endswith(".gz"):
        form, data = form.removesuffix(".gz"), gzip.decompress(data)
    if form == "parquet":
        return list(parquet.read_table(io.BytesIO(data)).to_pylist())
    if form == "xlsx":
        header, *cells = openpyxl.load_workbook(io.BytesIO(data)).active.iter_rows(values_only=True)
        return [dict(zip(header, row, strict=False)) for row in cells]
    if form.endswith("json"):
        return [row if isinstance(row, dict) else None for row in json.loads(data)]
    if form == "jsonl":
        return [_object(line) for line in data.rstrip().split(b"\n")]
    text = data.decode("utf-16" if form == "utf-16.csv" else "utf-8-sig")
    separator = "\t" if form == "tsv" else ";" if form == "quoted.csv" else ","
    header, *found = itertools.dropwhile(
        lambda row: not any(row), csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    )
    names = [name.strip() for name in header]
    return [dict(zip(names, row, strict=False)) if len(row) in (0, len(names)) else None for row in found]


def _object(line: bytes) -> Row | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# Damages: of the bytes of a file, or of the values in its rows.


SIGNS = [b'"', b",", b";", b"\t", b"\n", b"\r", b"\0", b"{", b"}", b"[", b"]", b":", b"\\", b"\xff", b"\xc3", b"\xe9"]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def lose(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice([1, 1, 1, 2, 7, 40]) :]


def lose_a_sign(rng: random.Random, data: bytes) -> bytes:
    where = [at for at in range(len(data)) if data[at : at + 1] in SIGNS[:12]]
    at = rng.choice(where) if where else 0
    return data[:at] + data[at + 1 :]


def put(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(SIGNS) + data[at:]


def overwrite(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    more = rng.choice([rng.choice(SIGNS), b"\0" * 16, rng.randbytes(4), rng.randbytes(64)])
    return data[:at] + more + data[at + len(more) :]


def twice(rng: random.Random, data: bytes) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:stop] + data[start:]


def around(rng: random.Random, data: bytes) -> bytes:
    more = rng.choice(
        [b"\xef\xbb\xbf", b"\n", b"\r\n\r\n", b"\0", b"<html>", b"sep=;\n", b"PK\x03\x04", b" ", b"[", b"\x1f\x8b"]
    )
    return more + data if rng.random() < 0.5 else data + more


def something_else(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(
        [b"", b"\n", b"\0" * 100, b"<html><body>404</body></html>", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 50_000]
    )


BYTES = [cut, cut, lose, lose_a_sign, lose_a_sign, put, put, overwrite, overwrite, twice, around, something_else]

VALUES: list[Any] = [
    *(None, 0, 7, -1, 1.5, float("nan"), float("inf"), True, "", "   ", [], {}, [None], [[]], ["a", "b"], {"a": 1}),
    *(10**400, "\ud83d", "nul\0byte", [{"role": "user"}], [{"role": "assistant", "content": 3}], "x" * 5000),
    [{"role": "assistant", "content": "said"}, {"role": "user", "content": "asked"}],
]
"""What stands in the place of a value."""
FURTHER: dict[str, list[Any]] = {
    "id": VALUES,
    "reason": VALUES,
    "draft_ids": VALUES,
    "original_ids": [*VALUES, [1, -1], [1.0], ["1"], [True]],
    "sent_weights": [
        *VALUES,
        [[0, 3, float("nan")]],
        [[3, 1, 1.0]],
        [[0, 10**9, 1.0]],
        [[-1, 2, 1]],
        [[0, 2]],
        [[0.5, 2, 1]],
    ],
    "draft_weights": [[[0, 3, -1.0]], [[0, 3, float("inf")]], [[0, 2, 1], [1, 3, 1]], [["0", 2, 1]]],
    "rejected": VALUES,
    "chosen": VALUES,
    "edited": VALUES,
    "prompt": VALUES,
}


def change_a_value(rng: random.Random, found: list[Row]) -> None:
    row = rng.choice(found)
    row[rng.choice([*COLUMNS, "id"])] = rng.choice(VALUES)


def drop_a_field(rng: random.Random, found: list[Row]) -> None:
    for row in found if rng.random() < 0.3 else [rng.choice(found)]:
        row.pop(rng.choice([*COLUMNS, "id"]), None)


def add_a_field(rng: random.Random, found: list[Row]) -> None:
    name = rng.choice(list(FURTHER))
    rng.choice(found)[name] = rng.choice(FURTHER[name])


def same_id(rng: random.Random, found: list[Row]) -> None:
    found[rng.randrange(len(found))]["id"] = found[rng.randrange(len(found))]["id"]


def rename_a_column(rng: random.Random, found: list[Row]) -> None:
    name, other = rng.choice(COLUMNS), rng.choice(["Prompt ", "output", "text", "final", "chosen", "draft", "sent", ""])
    for row in found:
        row[other] = row.pop(name)


def deep(rng: random.Random, found: list[Row]) -> None:
    value: Any = "x"
    for _ in range(rng.choice([50, 700])):
        value = [value]
    rng.choice(found)[rng.choice(["prompt", "note"])] = value


ROWS = [change_a_value, change_a_value, drop_a_field, add_a_field, add_a_field, same_id, rename_a_column, deep]


def input_of(rng: random.Random, number: int) -> tuple[str, list[Row], bytes, bool]:
    """Form, the rows as they were, the damaged bytes, and whether a byte was damaged rather than a row."""
    form = list(WRITERS)[number % len(WRITERS)]
    good = rows(rng)
    for_bytes = form in ("parquet", "xlsx") or rng.random() < 0.6
    if not (for_bytes and rng.random() < 0.7) and form.split(".")[-1] != "csv":
        bad = [dict(row) for row in good]
        rng.choice(ROWS)(rng, bad)
        try:
            return form, good, WRITERS[form](bad), False
        except (ValueError, TypeError, OverflowError, pyarrow.ArrowException, RecursionError):
            pass  # a format that cannot hold it
    data = WRITERS[form](good)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        data = rng.choice(BYTES)(rng, data) or b"\n"
    return form, good, data, True


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _written(row: Row) -> Triple:
    """Of a row whose prompt is messages, the answers are messages, too."""
    answers = [row["rejected"], row["chosen"]]
    texts = [text if isinstance(text, str) else text[0]["content"] for text in answers]
    return (row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"]), *texts)


def stands_in(form: str, data: bytes, found: Triple) -> bool:
    """Whether a table that is broken elsewhere holds a row as it stands."""
    if not form.endswith(("csv", "tsv")):
        return False
    cells = ('"?' + re.escape(text.replace('"', '""')) + '"?' for text in found)
    return re.search("[,;\t]".join(cells), data.decode(errors="replace")) is not None


def wrong(form: str, good: list[Row], data: bytes, out: Path, ran: Ran) -> str | None:
    """What was lost or changed in silence."""
    made = [_written(row) for row in lines(out)]
    aside = lines(out.with_name(f"{out.name}.bad_rows.jsonl"))
    said = re.search(r": (\d+) of (\d+) rows (?:set aside|skipped)", ran.err)
    if aside and said is None:
        return f"{len(aside)} rows are set aside and nobody is told"
    try:
        plain = plainly(form, data)
    except Exception:
        plain = None
    # An empty cell of a spreadsheet is an empty text, and is told of.
    known = {triple(row, "" if form == "xlsx" else None) for row in [*good, *(row for row in plain or [] if row)]}
    if "encoding " in ran.err or "separator " in ran.err or "JSON" in ran.err or "column " in ran.err:
        return None if len(made) + len(aside) > 0 else "nothing was made"
    if changed := [each for each in made if each not in known and not (plain is None and stands_in(form, data, each))]:
        return f"a row that nobody wrote: {changed[0]}"
    while plain and plain[-1] is not None and not any(plain[-1].values()):
        plain.pop()  # blank lines at the end are no rows
    if plain is not None and len(made) + len(aside) != len(plain):
        return f"{len(plain)} rows in, {len(made)} made and {len(aside)} set aside"
    if plain is None and form.split(".")[-1] in ("json", "gz", "parquet", "xlsx"):
        return "a file that is not whole was taken"
    return None


@pytest.mark.parametrize("numbers", list(chunks(INPUTS, SIZE)), ids=lambda part: f"{part[0]}-{part[-1]}")
def test_a_damaged_file_of_rows(numbers: range, tmp_path: Path) -> None:
    def one(rng: random.Random, number: int) -> None:
        form, good, data, _ = input_of(rng, number)
        folder = tmp_path / str(number)
        folder.mkdir()
        path, out = folder / f"log.{form}", folder / "edits.jsonl"
        path.write_bytes(data)
        ran = run(["edits", "import", "--data", path, "--out", out])
        judge(
            ran,
            names=[str(path)],
            left=[out, folder / ".edits.jsonl.partial"],
            right=lambda ran: wrong(form, good, data, out, ran),
        )

    damaged("rows", numbers, one)
