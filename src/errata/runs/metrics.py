"""``metrics.jsonl``: a line a step, written when it comes, and cut back where a run resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from errata.runs.disk import writing
from errata.runs.files import new_file

__all__ = ["Line", "Metrics"]

Line = Mapping[str, float]


class Metrics:
    """The lines of a run, and their file: each is written when it comes.

    Args:
        path: metrics.jsonl.
        last_step: of the checkpoint that the run goes on from; later lines are dropped, their steps are done again.
            -1 drops all.
        writes: whether this process writes the file.
    """

    def __init__(self, path: Path, *, last_step: int, writes: bool) -> None:
        self.path, self.writes = path, writes
        found = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # A line without its end was cut off while it was written.
        rows: list[dict[str, float]] = [json.loads(line) for line in found if line.endswith("\n")]
        self.lines = [row for row in rows if row["step"] <= last_step]
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
        return "".join(json.dumps(line) + "\n" for line in self.lines)
