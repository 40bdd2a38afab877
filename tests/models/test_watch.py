"""The lines of metrics.jsonl outlive whatever happens while they are read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from errata.runs import Metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    metrics = Metrics(tmp_path / "metrics.jsonl", last_step=-1, writes=True)
    for step in range(4):
        metrics.add({"step": step})
    return tmp_path / "metrics.jsonl"


def test_a_run_goes_on_from_the_lines_up_to_its_checkpoint(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"step": 4, "los')  # killed here
    metrics = Metrics(path, last_step=2, writes=True)
    assert [line["step"] for line in metrics.lines] == [0, 1, 2]
    assert path.read_text() == metrics.text()


def test_a_process_that_does_not_write_leaves_the_file_alone(path: Path) -> None:
    before = path.read_text()
    other = Metrics(path, last_step=1, writes=False)
    other.add({"step": 2})
    assert [line["step"] for line in other.lines] == [0, 1, 2]
    assert path.read_text() == before


def test_a_kill_while_the_file_is_written_again_loses_no_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does another process that reads it at that moment see less."""
    before, write_text = path.read_text(), Path.write_text

    def dying(self: Path, text: str, **more: Any) -> int:
        write_text(self, text[:5], **more)
        assert path.read_text() == before
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", dying)
        with pytest.raises(KeyboardInterrupt):
            Metrics(path, last_step=2, writes=True)
    assert path.read_text() == before
