"""What the disk refuses, in words: which file, why, and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["NotWritten", "sync", "writing"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TORCH = re.compile(r"iostream error|PytorchStreamWriter|inline_container\.cc.*unexpected pos")
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotWritten(OSError):  # noqa: N818
    """A file or folder could not be written; says which, why, and what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name ``path`` where the disk refuses what the block writes, whichever library wrote it.

    Raises:
        NotWritten: the disk is full, a limit of size is reached, or the place may not be written to.
    """
    try:
        yield
    except NotWritten:
        raise
    except Exception as error:
        why = _refusal(error, path)
        if why is None:
            raise
        raise NotWritten(f"{path} could not be written: {why}") from error


def _refusal(error: Exception, path: Path) -> str | None:
    """Why the disk refused; None of any other error."""
    said = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"os error (\d+)", said)):
        number = int(found[1])
    elif isinstance(error, RuntimeError) and _TORCH.search(said):
        number = errno.ENOSPC  # torch.save tells no number
    if number in _NO_ROOM:
        return f"{os.strerror(number)}; free some space, and rerun the same command"
    # An input that may not be read is no output; its own error names it.
    named = getattr(error, "filename", None)
    if number in _NOT_ALLOWED and (named is None or _is_ours(str(named), path)):
        return f"{os.strerror(number)}; name another place, or change who may write there"
    return None


def _is_ours(named: str, path: Path) -> bool:
    whole = os.path.abspath(path)
    hidden = os.path.join(os.path.dirname(whole), f".{path.name}.")
    named = os.path.abspath(named)
    return named == whole or named.startswith((hidden, f"{whole}{os.sep}")) or whole.startswith(f"{named}{os.sep}")


def sync(path: Path) -> None:
    """Have a file, or all of a folder, on the disk itself: what a power failure leaves is then whole."""
    if path.is_dir():
        for below in path.iterdir():
            if not below.is_symlink():
                sync(below)
    sync_entry(path)


def sync_entry(path: Path) -> None:
    """Have the bytes of a file, or the names in a folder, on the disk itself."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # a file system that has no such thing
            raise
    finally:
        os.close(opened)
