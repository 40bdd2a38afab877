"""Ledgers and databases of the page that are damaged: the same costs and edits, or an error that names them."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="needs errata[page]")
pytest.importorskip("openai", reason="needs errata[openai]")

from client.faults import FaultServer
from errata.client import Ask
from errata.data import write_rows
from errata.edits.request import read_material
from errata.page.store import NewItem, NewRevision, Store
from errata.types import Demonstration
from faults.harness import Ran, chunks, damaged, judge, run
from faults.test_rows import cut, something_else

pytestmark = pytest.mark.slow  # fifty inputs at a time

INPUTS, SIZE = 350, 50
VALUES: list[Any] = [
    None,
    "many",
    -1,
    0.5,
    "",
    b"\xff\x00",
    2**62,
    "[1",
    '{"a": 1}',
    "[]",
    "null",
    "é\0",
    float("inf"),
]
"""What stands in the place of a cell: SQLite takes anything for everything."""


def edited(body: dict[str, Any], _: int) -> str:
    """What the editor is answered: the same to the same request."""
    _, response, _ = read_material(Ask(messages=tuple(body["messages"])).messages)
    found = {"why": "grammar", "verdict": "edit", "reasons": ["style"], "text": response.replace("I is", "I am")}
    return json.dumps(found)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(edited) as made:
        yield made


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory, server: FaultServer) -> Path:
    path = tmp_path_factory.mktemp("databases")
    drafts = [Demonstration(id=f"d{k}", prompt=f"Write {k}.", response=f"Dear {k}, I is here.") for k in range(3)]
    write_rows(path / "drafts.jsonl", drafts)
    ran = run(llm(path, path / "ledger", path / "llm.jsonl", server))
    assert ran.code == 0, ran.err
    store = Store(f"sqlite:///{path / 'page'}")
    log = {"source": "log"}
    store.add_items(NewItem(id=name, prompt="p", response=f"The {name} lamp.", extra=log) for name in ("red", "blue"))
    store.add_annotator("ada")
    for text in ("The red lamps.", "The old lamp."):
        task = store.next_task(1)
        store.save(1, task, NewRevision(base=0, save_id=f"{text}1", kind="draft", text="a draft"))
        given: dict[str, Any] = {"outcome": "edited", "reasons": ["wrong"]}
        store.save(1, task, NewRevision(base=1, save_id=f"{text}2", kind="submit", text=text, **given))
    store.close()
    for name in ("ledger", "page"):  # all in one file
        with sqlite3.connect(path / name) as rows:
            rows.execute("PRAGMA journal_mode = DELETE")
        rows.close()
    return path


def llm(at: Path, database: Path, out: Path, server: FaultServer) -> list[str | Path]:
    given = ["--llm", f"tiny@{server.url}", "--ledger", database, "--tries=1", "--price-in=1000", "--price-out=1000"]
    return ["edits", "llm", "--data", at / "drafts.jsonl", "--out", out, *given]


def costs(at: Path, database: Path, out: Path, server: FaultServer) -> list[str | Path]:
    return ["client", "costs", database]


def export(at: Path, database: Path, out: Path, server: FaultServer) -> list[str | Path]:
    return ["edits", "export", "--db", database, "--out", out, "--revisions", f"{out}.all.jsonl"]


VERBS = [("ledger", costs), ("page", export), ("ledger", llm), ("page", export)]


def made(verb: Any, ran: Ran, out: Path) -> Any:
    """What a verb gives."""
    if verb is costs:
        return ran.out
    return [path.read_bytes() for path in (out, Path(f"{out}.all.jsonl")) if path.exists()]


def break_cell(rng: random.Random, path: Path) -> None:
    """One cell holds what it should not, or a row is lost, or a column or a table; the file itself is whole."""
    rows = sqlite3.connect(path)
    for (trigger,) in rows.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        rows.execute(f"DROP TRIGGER {trigger}")
    tables = [name for (name,) in rows.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    tables = [name for name in tables if rows.execute(f"SELECT count(*) FROM {name}").fetchone() != (0,)]
    table = rng.choice(tables)
    columns = [found[1] for found in rows.execute(f"PRAGMA table_info({table})")]
    keys = [found[1] for found in rows.execute(f"PRAGMA table_info({table})") if found[5]]
    try:
        match rng.randrange(10):
            case 0:
                rows.execute(f"DROP TABLE {table}")
            case 1:
                rows.execute(f"ALTER TABLE {table} RENAME COLUMN {rng.choice(columns)} TO other")
            case 2:
                rows.execute(f"PRAGMA user_version = {rng.choice([7, -1])}")
            case _:
                key = keys[0]
                (one,) = rng.choice(rows.execute(f"SELECT {key} FROM {table} ORDER BY {key}").fetchall())
                column = rng.choice([name for name in columns if name not in keys])
                kind = next(found[2] for found in rows.execute(f"PRAGMA table_info({table})") if found[1] == column)
                # Of other texts, and of other counts, nobody can tell.
                fitting = {"TEXT": [b"\xff\x00"], "DOUBLE": VALUES[:3], "REAL": VALUES[:3]}.get(kind, VALUES)
                value = rng.choice(fitting)
                rows.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, one))
        rows.commit()
    except sqlite3.Error:
        rows.rollback()  # of a column that must not be empty: the database is not damaged
    finally:
        rows.close()


def break_bytes(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    match rng.randrange(4):
        case 0:
            data = cut(rng, data)
        case 1:
            data = something_else(rng, data)
        case _:
            start = rng.choice([rng.randrange(len(data)), rng.randrange(200), rng.randrange(0, len(data), 4096)])
            more = rng.choice([b"\0" * 64, rng.randbytes(64), b"\xff" * 8, b"\0" * 4096])
            data = data[:start] + more[: len(data) - start] + data[start + len(more) :]
    path.write_bytes(data)


def is_whole(path: Path) -> bool:
    """Whether SQLite itself finds nothing wrong: other letters in a text are nothing that it could see."""
    rows = sqlite3.connect(path)
    try:
        return rows.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except sqlite3.Error:
        return False
    finally:
        rows.close()


@pytest.mark.parametrize("numbers", list(chunks(INPUTS, SIZE)), ids=lambda part: f"{part[0]}-{part[-1]}")
def test_a_damaged_database(numbers: range, at: Path, server: FaultServer, tmp_path: Path) -> None:
    good = {}
    for name, verb in VERBS:
        copy = shutil.copy(at / name, tmp_path / f"good-{name}")
        out = tmp_path / f"good-{name}.jsonl"
        good[verb] = made(verb, run(verb(at, copy, out, server)), out)
        assert good[verb]

    def one(rng: random.Random, number: int) -> None:
        name, verb = VERBS[number % len(VERBS)]
        database, out = tmp_path / f"{number}.{name}", tmp_path / f"{number}.jsonl"
        shutil.copy(at / name, database)
        in_a_cell = rng.random() < 0.6
        (break_cell if in_a_cell else break_bytes)(rng, database)
        empty, whole = database.stat().st_size == 0, is_whole(database)

        def right(ran: Ran) -> str | None:
            if made(verb, ran, out) == good[verb]:
                return None
            if not in_a_cell and (whole or empty):
                return None
            return f"{name}{' in a cell' if in_a_cell else ''}: {made(verb, ran, out)!r:.300}"

        judge(run(verb(at, database, out, server)), names=[str(database)], left=[out], right=right)

    damaged("databases", numbers, one)
