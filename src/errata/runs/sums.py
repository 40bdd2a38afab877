"""What a run wrote is what it finds again: ``SHA256SUMS``, which ``sha256sum -c`` reads, too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from errata.runs.files import new_file

__all__ = ["SUMS", "Damaged", "check_sums", "digest", "read_sums", "sums_of", "write_sums"]

SUMS = "SHA256SUMS"


class Damaged(ValueError):  # noqa: N818
    """A file is not what was written: says which, and what to do."""


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex; about half a gigabyte a second."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_of(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """The digest of each file, and of each file below a folder, by its path in ``folder``."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return {file.relative_to(folder).as_posix(): digest(file) for file in sorted(files)}


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write ``SHA256SUMS`` in one step."""
    with new_file(folder / SUMS) as partial:
        partial.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """What ``write_sums`` wrote; empty where there is none.

    Raises:
        Damaged: the file is no such list.
    """
    path = folder / SUMS
    sums: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        found, _, name = line.partition("  ")
        if len(found) != 64 or not name:
            raise Damaged(f"{path} is damaged; delete it, and what lies beside it is taken as it is")
        sums[name] = found
    return sums


def check_sums(folder: Path, sums: Mapping[str, str], remedy: str) -> None:
    """Compare files with their digests.

    Raises:
        Damaged: one is missing or has changed; ``remedy`` says what to do.
    """
    for name, expected in sums.items():
        file = folder / name
        if not file.is_file():
            raise Damaged(f"{file} is missing; {remedy}")
        if digest(file) != expected:
            raise Damaged(f"{file} is not what was written there ({file.stat().st_size} bytes now); {remedy}")
