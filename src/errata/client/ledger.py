"""What was asked and what came back, in one SQLite file: cache, resume and cost report in one. It never holds a key."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from errata.client.chat import Answer, Ask, Stop

__all__ = ["Ledger", "Spent", "key_of"]

_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS requests (
  key TEXT PRIMARY KEY,     -- hash of server, model, messages and parameters
  server TEXT NOT NULL,
  model TEXT NOT NULL,      -- as it was asked for
  served TEXT NOT NULL,     -- as the server names what answered
  prompt TEXT NOT NULL,     -- hash of the messages
  parameters TEXT NOT NULL, -- JSON
  response TEXT NOT NULL,
  stop TEXT NOT NULL,       -- end, length, refusal, error
  error TEXT,
  input_tokens INTEGER NOT NULL,   -- these four: of all tries
  output_tokens INTEGER NOT NULL,
  cost REAL,                -- US dollars; NULL if the price is not known
  tries INTEGER NOT NULL,
  time TEXT NOT NULL        -- UTC, of the last answer
) WITHOUT ROWID
"""
_COLUMNS = re.findall(r"^  (\w+) (?:TEXT|INTEGER|REAL)", _TABLE, re.MULTILINE)
_TEXTS = ("key", "server", "model", "served", "prompt", "parameters", "response")
_COUNTS = ("input_tokens", "output_tokens", "tries")
_GOOD = " AND ".join(
    [
        *(f"typeof({name}) = 'text'" for name in _TEXTS),
        *(f"typeof({name}) = 'integer' AND {name} BETWEEN 0 AND 1000000000000" for name in _COUNTS),
        "(cost IS NULL OR (typeof(cost) = 'real' AND cost BETWEEN 0 AND 1e12))",
        "typeof(error) IN ('text', 'null')",
        f"stop IN ({', '.join(repr(stop.value) for stop in Stop)})",
        "time GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*'",
    ]
)
_DAMAGED = f"SELECT key FROM requests WHERE NOT coalesce({_GOOD}, 0) LIMIT 1"  # noqa: S608  # names of ours
_ADD = """
INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
  served = CASE stop WHEN 'error' THEN excluded.served ELSE served END,
  parameters = CASE stop WHEN 'error' THEN excluded.parameters ELSE parameters END,
  response = CASE stop WHEN 'error' THEN excluded.response ELSE response END,
  error = CASE stop WHEN 'error' THEN excluded.error ELSE error END,
  stop = CASE stop WHEN 'error' THEN excluded.stop ELSE stop END,
  input_tokens = input_tokens + excluded.input_tokens,
  output_tokens = output_tokens + excluded.output_tokens,
  cost = cost + excluded.cost,
  tries = tries + excluded.tries,
  time = excluded.time
RETURNING served, response, stop, error, input_tokens, output_tokens, cost
"""


class Spent(NamedTuple):
    """What one model cost on one day (UTC)."""

    day: str
    model: str
    requests: int
    tries: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    """In US dollars, of the requests whose price was known."""
    unpriced: int
    """Requests whose price was not known."""


def key_of(ask: Ask, *, server: str, model: str) -> str:
    """Equal requests to the same model have equal keys."""
    return _hash([server, model, asdict(ask)])


class Ledger:
    """One row a request; several processes may share the file.

    A row is on disk before its answer is handed on, so a killed process loses only what was under way. A request that
    failed for good keeps its row and what it cost, and is asked again next time.

    Args:
        path: the file, made if it is not there; None keeps all in memory.

    Raises:
        ValueError: the file is no ledger, or cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._told():
            self._rows = sqlite3.connect(path or ":memory:", timeout=60, isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._rows.close)
            (version,) = self._rows.execute("PRAGMA user_version").fetchone()
            (tables,) = self._rows.execute("SELECT count(*) FROM sqlite_master WHERE name <> 'requests'").fetchone()
            if version not in (0, _VERSION) or tables:
                raise ValueError(f"{path} is no ledger of this version of errata; name another file")
            self._check(version)
            self._rows.execute("PRAGMA journal_mode = WAL")
            self._rows.execute(_TABLE)
            self._rows.execute(f"PRAGMA user_version = {_VERSION}")

    def _check(self, version: int) -> None:
        """Raise ValueError where the file is not what ``add`` writes: SQLite takes any value for any column."""
        names = [found[1] for found in self._rows.execute("PRAGMA table_info(requests)")]
        if not names and version == 0:
            return  # a new one
        if names != _COLUMNS:
            raise ValueError(f"the ledger {self._path} is damaged: its table is; name another file")
        (said,) = self._rows.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise ValueError(f"the ledger {self._path} is damaged: {said}; name another file")
        for row in self._rows.execute(_DAMAGED):
            raise ValueError(
                f"the ledger {self._path} is damaged: the request {row[0]!r} holds what no request does; delete that "
                "row, or name another file"
            )

    def find(self, keys: Collection[str]) -> dict[str, Answer]:
        """Those that were asked before; one that failed is there with what it cost, and is to be asked again."""
        found: dict[str, Answer] = {}
        with self._told():
            for key in keys:
                row = self._rows.execute(
                    "SELECT served, response, stop, error, input_tokens, output_tokens, cost FROM requests"
                    " WHERE key = ?",
                    (key,),
                ).fetchone()
                if row is not None:
                    found[key] = _answer(row, cached=True)
        return found

    def add(
        self, key: str, ask: Ask, answer: Answer, *, server: str, model: str, tries: int, without: Collection[str] = ()
    ) -> Answer:
        """Write down what came back, and return what stands there now.

        Where another process was first, its answer stands and both are paid; where the request failed before, its
        costs add up.
        """
        parameters = {name: value for name, value in asdict(ask).items() if name != "messages" and value is not None}
        sent = {name: value for name, value in parameters.items() if name not in without}
        row = (
            *(key, server, model, answer.model, _hash(ask.messages)[:16], json.dumps(sent), answer.text),
            *(answer.stop.value, answer.error, answer.input_tokens, answer.output_tokens, answer.cost, tries, _now()),
        )
        with self._told():
            return _answer(self._rows.execute(_ADD, row).fetchone(), cached=False)

    def spent(self) -> list[Spent]:
        """By day and model, oldest first."""
        with self._told():
            rows = self._rows.execute(
                "SELECT substr(time, 1, 10) AS day, model, count(*), sum(tries), sum(input_tokens), sum(output_tokens),"
                " sum(cost), sum(cost IS NULL) FROM requests GROUP BY day, model ORDER BY day, model"
            ).fetchall()
        return [Spent(*row) for row in rows]

    @contextmanager
    def _told(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise ValueError(f"the ledger {self._path}: {error}") from error


def _answer(row: tuple[Any, ...], *, cached: bool) -> Answer:
    served, response, stop, error, input_tokens, output_tokens, cost = row
    return Answer(
        text=response,
        stop=Stop(stop),
        model=served,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost=cost,
        cached=cached,
        error=error,
    )


def _hash(value: Any) -> str:
    shown = json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    assert isinstance(value, Mapping), value
    return dict(value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
