"""PostgreSQL for the tests: the server that ERRATA_TEST_POSTGRES names, or a private one where it is installed."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine, make_url

VARIABLE = "ERRATA_TEST_POSTGRES"
_USER = "postgres"


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl, newest version first."""
    for found in (shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)):
        if found is not None:
            return Path(found).parent
    return None


@contextmanager
def server() -> Iterator[Engine]:
    """Connections to a server in which schemas may be made; skips, saying why, where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'errata[postgres]'")
    if given := os.environ.get(VARIABLE):
        yield from _engine(given)
        return
    programs = _programs()
    if programs is None:
        pytest.skip(f"no PostgreSQL: install one (initdb, pg_ctl), or name a server in {VARIABLE}")
    folder = Path(tempfile.mkdtemp(prefix="errata-pg-"))  # a short path: sockets have room for 107 bytes
    user = None
    if os.geteuid() == 0:  # which PostgreSQL refuses to be
        try:
            user = pwd.getpwnam(_USER).pw_uid
        except KeyError:
            pytest.skip(f"PostgreSQL does not run as root, and there is no user {_USER!r}; name a server in {VARIABLE}")
        os.chown(folder, user, -1)

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(folder / "data"), *arguments]
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")

    log = folder / "log"
    call("initdb", "--no-sync", "-A", "trust", "-U", _USER, "-E", "UTF8", "--locale", "C")
    settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c shared_buffers=16MB"
    call("pg_ctl", "-l", str(log), "-o", settings, "-w", "start")
    try:
        yield from _engine(f"postgresql+psycopg://{_USER}@/postgres?host={folder}")
    finally:
        call("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


def _engine(url: str) -> Iterator[Engine]:
    engine = create_engine(make_url(url), isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@contextmanager
def database(engine: Engine) -> Iterator[str]:
    """The URL of an empty schema, which is as good as a database and quicker to make; it is gone afterwards."""
    name = f"errata_test_{secrets.token_hex(8)}"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    try:
        yield engine.url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
