"""The database of the page: opened, checked, read and written."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from sqlalchemy import (
    create_engine,
    event,
    select,
)
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from errata.page.schema import Base, Setting
from errata.page.whole import check_whole

__all__ = ["LEASE", "Database", "NotSaved"]

LEASE = 1800.0
"""Seconds for which an item is somebody's, after opening it or after their last save."""
_SCHEMA = 2


class NotSaved(OSError):  # noqa: N818
    """The database could not be written: the disk is full, it may not be written to, or its server is gone."""


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin below, not where the driver thinks they should
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails when another wrote between, however long it may wait.
    reads = connection.get_execution_options().get("errata_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


class Database:
    """A database with the tables of ``errata.page.schema``; arguments and errors are those of ``Store``."""

    def __init__(self, url: str | URL, *, lease: float = LEASE) -> None:
        self._url = make_url(url)
        is_sqlite = self._url.get_backend_name() == "sqlite"
        # What people type belongs in no log. A server that was started again meanwhile has closed our connections.
        self._engine = create_engine(
            self._url,
            hide_parameters=True,
            pool_pre_ping=not is_sqlite,
            connect_args={"timeout": 10} if is_sqlite else {},
        )
        if is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._reading = self._engine.execution_options(errata_reads=True)
        # SQLite lets one write at a time; waiting here is fair and quick, waiting for its lock is by polling.
        self._one_writer = Lock()
        self._lease = lease
        try:
            self._set_up()
        except (DatabaseError, NotSaved) as error:
            self.close()
            why = str(getattr(error, "orig", error)).removeprefix("could not be saved: ").partition("\n")[0]
            raise NotSaved(
                f"the database {self._url.render_as_string()} cannot be opened and written: {why}; see to its folder "
                "or server, or name another --db"
            ) from error
        except ValueError as error:
            self.close()
            raise ValueError(f"the database {self._url.render_as_string()}: {error}; name another --db") from error
        except Exception:
            self.close()
            raise
        self._overlap, name = self.setting("overlap"), self.setting("name")
        if type(self._overlap) is not int or self._overlap < 1 or not isinstance(name, str):
            self.close()
            raise ValueError(f"the database {self._url.render_as_string()} is damaged: its settings are; name another")
        self.name = name

    def _set_up(self) -> None:
        if self._engine.dialect.name == "sqlite":
            with self._reading.connect() as rows:
                check_whole(rows, Base)
        Base.metadata.create_all(self._engine)
        with self.write() as session:
            found = session.get(Setting, "schema") or Setting(name="schema", value=_SCHEMA)
            if found.value != _SCHEMA:
                raise ValueError(
                    f"the database has schema {found.value}, this errata reads {_SCHEMA}; use its own version"
                )
            session.add(found)
            for name, value in (("overlap", 1), ("name", secrets.token_hex(8))):
                if session.get(Setting, name) is None:
                    session.add(Setting(name=name, value=value))

    def close(self) -> None:
        """Give the database back."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One view of the database, in which nothing is written."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: all of it or nothing, on disk when the block has ended.

        Raises:
            NotSaved: the disk is full, or the database cannot be written.
        """
        try:
            with self._one_writer, Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except OperationalError as error:
            said = str(error.orig).partition("\n")[0]
            raise NotSaved(f"could not be saved: {'disk full' if 'full' in said else said}") from error

    def setting(self, name: str) -> Any:
        """A setting, None if there is none of this name."""
        with self.read() as session:
            return session.scalar(select(Setting.value).where(Setting.name == name))

    def _check(self, *texts: str) -> None:
        if self._url.get_backend_name() == "postgresql" and any("\0" in text for text in texts):
            raise ValueError("PostgreSQL keeps no character U+0000; take it out, or use a database of SQLite")
