"""Files that a flag names and that are not there, or no files: said with the flag, and with what is wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["check_texts", "with_its_flag"]

TEXTS: Mapping[str, str] = {
    "general": "a text file of general language",
    "guideline": "a text file with what your team wants and does not want",
    "judge_prompt": "a text file with the places that --help names",
}
"""Flags of text files, and what is wanted. They are looked at before anything is done."""
_ROWS = "a file of rows (JSONL, CSV, Parquet …)"
_WANTED: Mapping[str, str] = {
    **TEXTS,
    **dict.fromkeys(("data", "edits", "heldout", "preferences", "fresh", "samples", "references"), _ROWS),
    **dict.fromkeys(("candidate", "baseline"), f"{_ROWS} with responses, or a model"),
    "log": f"{_ROWS} with prompt, draft and sent",
    "labels": "a file of `errata labels`",
    "rollouts": "a file of rollouts, as `errata tune ppo` writes them",
    "verdicts": "a file of verdicts",
    "annotations": "a file of annotations",
    "prompts": f"{_ROWS} with prompt",
}


def check_texts(command: Any) -> None:
    """Look at the text files that a verb is given.

    Raises:
        ValueError: one is not there, is a folder, or no UTF-8; names the flag and what is wanted.
    """
    for name, value in _values(command):
        if name not in TEXTS or not isinstance(value, Path):
            continue
        try:
            value.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(_said(name, value, error)) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{_flag(name)} {value}: it is not in UTF-8 ({error}); save it so") from error


def with_its_flag(error: OSError, command: Any) -> ValueError | None:
    """The error of a file that cannot be opened, if a flag of the verb names that file."""
    path = error.filename
    if not isinstance(path, str | Path):
        return None
    for name, value in _values(command):
        # NAME=FILE of `errata winrate`
        given = value.partition("=")[2] or value if isinstance(value, str) else value
        if name in _WANTED and isinstance(given, str | Path) and Path(given) == Path(path):
            return ValueError(_said(name, Path(path), error))
    return None


def _values(command: Any) -> Iterator[tuple[str, Any]]:
    """What a verb is given, by the names of its flags."""
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if dataclasses.is_dataclass(value):
            yield from _values(value)
        else:
            for each in value if isinstance(value, tuple) else (value,):
                yield field.name, each


def _flag(name: str) -> str:
    return name.upper() if name == "log" else f"--{name.rstrip('_').replace('_', '-')}"


def _said(name: str, path: Path, error: OSError) -> str:
    wanted = f"; give {_WANTED[name]}"
    if isinstance(error, FileNotFoundError):
        return f"{_flag(name)} {path}: there is no such file{wanted}"
    if isinstance(error, IsADirectoryError):
        return f"{_flag(name)} {path}: that is a folder{wanted}"
    return f"{_flag(name)} {path}: it cannot be read ({error.strerror or error}){wanted}"
