"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from errata.runs.disk import sync, sync_entry, writing

__all__ = ["new_file", "new_folder", "read_json", "read_record", "write_json"]


def _beside(path: Path) -> Path:
    # One name per target: what a killed run left behind is overwritten by the next one, never piled up.
    return path.with_name(f".{path.name}.partial")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write; it takes the place of ``path`` in one step once the block has ended without an error.

    It is on the disk itself before it takes that place, so a power failure leaves the old file or the new one.

    Raises:
        NotWritten: the disk refuses it.
    """
    partial = _beside(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            sync_entry(partial)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        os.replace(partial, path)
        sync_entry(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the place of ``path`` once the block has ended without an error.

    A kill between the two renames leaves the old folder under ``.<name>.old`` and none at ``path``: readers see
    "not there", never a mixture.

    Raises:
        NotWritten: the disk refuses it.
    """
    partial, old = _beside(path), path.with_name(f".{path.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    with writing(path):
        partial.mkdir(parents=True)
        yield partial
        _open_to_the_same(partial)
        sync(partial)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
        sync_entry(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _open_to_the_same(folder: Path) -> None:
    """Let the umask decide who reads the files: writers that go through a temporary file (safetensors) leave 0600."""
    mode = folder.stat().st_mode & 0o777  # made with it
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(mode if path.is_dir() else mode & 0o666)


def write_json(path: Path, found: Any) -> None:
    """Write numbers that were found; NaN is an error."""
    with new_file(path) as partial:
        partial.write_text(json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What ``write_json`` wrote.

    Raises:
        ValueError: the file is damaged (it is named).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and rerun the command that wrote it") from error


def read_record(path: Path, **kinds: type) -> dict[str, Any]:
    """What ``write_json`` wrote of an object.

    Args:
        path: the file.
        kinds: fields that it must have, and of which type.

    Raises:
        ValueError: the file is damaged, holds no object or lacks a field (it is named).
    """
    found = read_json(path)
    why = "it holds no object" if not isinstance(found, dict) else ""
    for name, kind in kinds.items():
        if not why and not isinstance(found.get(name), kind):
            why = f"its {name!r} is {found.get(name)!r}"
    if why:
        raise ValueError(f"{path} is damaged ({why}); delete it, and rerun the command that wrote it")
    return dict(found)
