"""What a run wrote is what it finds again: ``SHA256SUMS``, which ``sha256sum -c`` reads, too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from errata.runs.files import new_file

__all__ = ["SUMS", "Damaged", "check_sealed", "check_sums", "digest", "read_sums", "seal", "sums_of", "write_sums"]

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
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        found, _, name = line.partition("  ")
        if not re.fullmatch("[0-9a-f]{64}", found) or not name or name in sums:
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


def seal(folder: Path) -> None:
    """Note the digests of all that a folder holds, in itself."""
    write_sums(folder, sums_of(folder, [path for path in folder.iterdir() if path.name != SUMS]))


def check_sealed(folder: Path, remedy: str) -> None:
    """Insist that a folder is as it was when it was sealed; one of an older version, without digests, is taken.

    Raises:
        Damaged: a file is missing or has changed; ``remedy`` says what to do.
    """
    check_sums(folder, read_sums(folder), remedy)
