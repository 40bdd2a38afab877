"""One process at a time writes a run folder or a file; the lock goes with its process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from errata import commands
from errata.cli import main
from errata.runs import InUse, NotWritten, locked, writes_out

HOLDER = """
import sys, time
from pathlib import Path
from errata.runs import locked

with locked(*map(Path, sys.argv[1:])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(*paths: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until the block has ended."""
    other = subprocess.Popen([sys.executable, "-c", HOLDER, *map(str, paths)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        yield other
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_is_refused_until_the_first_is_gone_kill_9_included(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with held(out) as other:
        with pytest.raises(InUse) as refused, locked(out):
            raise AssertionError
        told = str(refused.value)
        assert told.startswith(f"{out} is in use by process {other.pid} on {socket.gethostname()}, since 20")
        assert "wait until that has ended, or name another --out" in told
        with locked(tmp_path / "new" / "other"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert names(out.parent) == [".out.lock"], "what a kill leaves is in nobody's way"
        with locked(out):
            assert json.loads((out.parent / ".out.lock").read_text())["process"] == os.getpid()
    assert names(out.parent) == []


def test_the_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "out", None):
        pass
    assert names(tmp_path) == []
    with locked(tmp_path / "a" / "out"):
        (tmp_path / "a" / "out").mkdir()
    assert names(tmp_path / "a") == ["out"]


def test_one_path_has_one_lock_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    with held(tmp_path / "out"):
        for path in (Path("out"), Path("x/../out"), Path("link")):
            with pytest.raises(InUse), locked(path):
                raise AssertionError


def test_a_function_may_lock_what_its_caller_has_and_another_thread_may_not(tmp_path: Path) -> None:
    out, said = tmp_path / "out", list[str]()

    @writes_out
    def train(model: str, out: Path) -> str:
        assert (tmp_path / ".out.lock").exists()
        return model

    def elsewhere() -> None:
        try:
            train("b", out)
        except InUse as error:
            said.append(str(error))

    with locked(out):
        assert train("a", out=out) == "a"
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert said == [f"{out} is in use by another thread of this process; wait for it, or name another --out"]
        assert (tmp_path / ".out.lock").exists(), "the inner lock is the outer's"
    assert names(tmp_path) == []


def test_of_one_job_the_first_process_has_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with held(tmp_path / "out"), locked(tmp_path / "out"):
        pass
    monkeypatch.setenv("RANK", "0")
    with held(tmp_path / "out"), pytest.raises(InUse), locked(tmp_path / "out"):
        raise AssertionError


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path / "out"):
        assert names(tmp_path) == []
    assert "cannot be locked here ([Errno 37] No locks available): start no second run" in capsys.readouterr().err


def test_a_place_that_may_not_be_written_is_told_of_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Any, *_: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", read_only)
    expected = rf"{re.escape(str(tmp_path / 'out'))} could not be written: Read-only file system; name another place"
    with pytest.raises(NotWritten, match=expected), locked(tmp_path / "out"):
        raise AssertionError


def test_a_password_of_an_address_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/errata", "edits", "export", "--db", "postgresql://me:secret@host/x"])
    with locked(tmp_path / "out"):
        noted = json.loads((tmp_path / ".out.lock").read_text())
    assert noted["command"] == "errata edits export --db postgresql://…@host/x"


WRITES = {
    "demo": "--out {out}",
    "learn": "log.csv --model m --out {out}",
    "edits diff": "--data d --out {out}",
    "edits import": "--data d --out {out}",
    "edits llm": "--data d --out {out} --llm local:m",
    "edits stats": "--data d --out {out}",
    "edits filter": "--data d --out {out}",
    "edits page": "--db {out}",
    "edits export": "--db d --out {out}",
    "labels": "--edits d --model m --out {out}",
    "doctor": "--data d --model m --out {out}",
    "reward train": "--model m --data d --out {out}",
    "reward score": "--reward m --data d --out {out}",
    "reward eval": "--reward m --data d --out {out}",
    "tune sft": "--model m --data d --out {out}",
    "tune figa": "--model m --edits d --out {out}",
    "tune dpo": "--model m --data d --out {out}",
    "tune ppo": "--model m --reward m --prompts d --out {out}",
    "generate": "--model m --prompts d --out {out}",
    "winrate": "--candidate d --baseline d --references d --out x.json --report {out}",
    "view": "--model m --edits d --out {out}",
}
"""Flags of the verbs that write, of which none gets to look at what it reads."""


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    out = tmp_path_factory.mktemp("taken") / "out.html"
    with held(out) as other:
        yield out, other.pid


def test_verbs_that_write_nothing_are_few() -> None:
    assert commands.COMMANDS.keys() - WRITES.keys() == {"client check", "client costs"}


@pytest.mark.parametrize("verb", WRITES)
def test_every_verb_that_writes_is_refused_at_once_and_touches_nothing(
    verb: str,
    taken: tuple[Path, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, process = taken
    monkeypatch.chdir(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in out.parent.iterdir()}
    assert main([*verb.split(), *WRITES[verb].format(out=out).split()]) == 1
    assert f"errata: {out} is in use by process {process} on" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in out.parent.iterdir()} == before
    assert names(tmp_path) == []
