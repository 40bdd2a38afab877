"""``metrics.jsonl``: a line a step, written when it comes, and cut back where a run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from errata.runs.disk import writing
from errata.runs.files import new_file
from errata.runs.sums import Damaged

__all__ = ["Line", "Metrics"]

Line = Mapping[str, float]


class Metrics:
    """The lines of a run, and their file: each is written when it comes.

    Args:
        path: metrics.jsonl.
        last_step: of the checkpoint that the run goes on from; later lines are dropped, their steps are done again.
            -1 drops all.
        writes: whether this process writes the file.
        mark: what ``mark`` gave when that checkpoint was written; nothing is checked where it is not known.

    Raises:
        Damaged: the lines up to the checkpoint are not those that were written.
    """

    def __init__(self, path: Path, *, last_step: int, writes: bool, mark: Mapping[str, Any] | None = None) -> None:
        self.path, self.writes = path, writes
        found = path.read_bytes().splitlines(keepends=True) if path.exists() and last_step >= 0 else []
        try:
            # A line without its end was cut off while it was written.
            rows: list[dict[str, float]] = [json.loads(line) for line in found if line.endswith(b"\n")]
            self.lines = [row for row in rows if row["step"] <= last_step]
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise Damaged(f"{path} is not what was written there ({error!r}); {self._remedy}") from error
        if mark is not None and _digest(self.lines[: mark["lines"]]) != mark["sha256"]:
            raise Damaged(f"{path} is not what was written there: lines were changed or lost; {self._remedy}")
        if writes:
            # In one step: a kill here must lose no line, and other processes may be reading.
            with new_file(path) as partial:
                partial.write_text(self.text(), encoding="utf-8")

    def add(self, line: Line) -> None:
        """Write a line down."""
        self.lines.append(dict(line))
        if self.writes:
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def text(self) -> str:
        """What stands in the file."""
        return _text(self.lines)

    def mark(self) -> dict[str, Any]:
        """What tells these lines from others, for a checkpoint to note."""
        return {"lines": len(self.lines), "sha256": _digest(self.lines)}

    @property
    def _remedy(self) -> str:
        return f"delete {self.path.parent}, and rerun the same command to start over"


def _text(lines: Sequence[Line]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def _digest(lines: Sequence[Line]) -> str:
    return hashlib.sha256(_text(lines).encode()).hexdigest()
