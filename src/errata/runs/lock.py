"""One process writes a run folder or an output file at a time: a lock of the operating system beside it.

The lock is on the hidden file ``.<name>.lock``. It ends with its process, kill -9 included; the file goes with it, or
is taken over. It holds between the machines of a network file system where that has locks (NFS: unless mounted with
``nolock`` or ``local_lock``); on a file system without locks a warning says so, and nothing is refused.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from errata.runs.disk import writing

__all__ = ["InUse", "locked", "writes_out"]

P = ParamSpec("P")
R = TypeVar("R")

_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Where launchers say which process of a job this is."""
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class InUse(ValueError):  # noqa: N818
    """Another process writes this output."""


@dataclass(slots=True)
class _Held:
    thread: int
    depth: int = 0


_held: dict[Path, _Held] = {}
_table = threading.Lock()


@contextmanager
def locked(*outputs: Path | None) -> Iterator[None]:
    """Keep other processes out of these folders and files until the block has ended; nothing is touched before.

    A thread that holds a lock may ask for it again. Of several processes that are one job (torchrun, accelerate), the
    first holds the lock for all.

    Raises:
        InUse: another process holds one of them; says which process, where, since when, and its command.
        NotWritten: the lock cannot be written beside the output, so neither could the output be.
    """
    rank = next((os.environ[name] for name in _RANKS if os.environ.get(name)), "0")
    if rank != "0":
        yield
        return
    with ExitStack() as stack:
        for path in sorted({output.resolve() for output in outputs if output is not None}):
            stack.enter_context(_locked(path))
        yield


def writes_out(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function with an argument ``out`` hold its lock while it runs, and name it where the disk refuses."""
    signature = inspect.signature(function)

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        out = Path(signature.bind(*args, **kwargs).arguments["out"])
        with locked(out), writing(out):
            return function(*args, **kwargs)

    return alone


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with _table:
        held = _held.get(path)
        mine = held is not None and held.thread == threading.get_ident()
        if held is not None and not mine:
            raise InUse(f"{path} is in use by another thread of this process; wait for it, or name another --out")
        held = _held.setdefault(path, _Held(threading.get_ident()))
        held.depth += 1
    try:
        if mine:
            yield
        else:
            with _lock_file(path):
                yield
    finally:
        with _table:
            held.depth -= 1
            if not held.depth:
                del _held[path]


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    beside = path.with_name(f".{path.name}.lock")
    made: list[Path] = []
    with writing(path):
        opened = _open(beside, made)
    try:
        held = _take(opened, beside, path)
        while held and not _is_still(opened, beside):  # who held it before has deleted the file meanwhile
            os.close(opened)
            with writing(path):
                opened = _open(beside, made)
            held = _take(opened, beside, path)
        if held:
            with writing(path):
                os.ftruncate(opened, 0)
                os.pwrite(opened, json.dumps(_this_process()).encode(), 0)
        try:
            yield
        finally:
            if held:
                beside.unlink(missing_ok=True)
    finally:
        os.close(opened)
        for folder in made:  # of a run that wrote nothing
            with suppress(OSError):
                folder.rmdir()


def _open(beside: Path, made: list[Path]) -> int:
    while True:
        folder = beside.parent
        missing = [above for above in (folder, *folder.parents) if not above.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        made += [above for above in missing if above not in made]
        with suppress(FileNotFoundError):  # another run has just taken its empty folder away
            return os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _take(opened: int, beside: Path, path: Path) -> bool:
    """Whether the lock is held now; False, with a warning, where there are no locks."""
    try:
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise InUse(_refusal(path, os.pread(opened, 1 << 16, 0))) from None
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        print(
            f"errata: {path} cannot be locked here ({error}): start no second run with this output before the first "
            "has ended",
            file=sys.stderr,
        )
        beside.unlink(missing_ok=True)
        return False
    return True


def _is_still(opened: int, beside: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), os.stat(beside))
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, object]:
    program, *arguments = sys.argv or [""]
    name = "errata" if Path(program).name == "__main__.py" else Path(program).name
    # A password may stand in the address of a database or server.
    command = re.sub(r"(://)[^/@\s]*@", r"\1…@", shlex.join([name, *arguments]))
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}


def _refusal(path: Path, noted: bytes) -> str:
    try:
        who = json.loads(noted)
        by = f"process {who['process']} on {who['host']}, since {who['since']}: {who['command']}"
    except (ValueError, TypeError, KeyError):  # it has just begun
        by = "another process"
    return f"{path} is in use by {by}; wait until that has ended, or name another --out"
