"""Where no bar is seen, a line every half minute; time left, steps and memory; few steps are warned of."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import tiny
from errata.workflows import LearnConfig, LearnDetails, learn
from errata.workflows.learning.context import batch_size_of, passes_of
from errata.workflows.learning.progress import Progress, duration, peak_memory


def lines_of(*, terminal: bool) -> list[str]:
    """Of a stage of 100 steps of 7 seconds."""
    shown, now = io.StringIO(), [0.0]
    progress = Progress(
        Console(file=shown, force_terminal=terminal, width=200, color_system=None), "training figa", lambda: now[0]
    )
    for step in range(1, 101):
        now[0] += 7
        progress(step, 100)
    progress.end()
    return shown.getvalue().splitlines()


def test_there_is_a_line_every_half_minute_with_the_time_left() -> None:
    lines = lines_of(terminal=False)
    assert len(lines) == 100 // 5 + 1
    assert lines[0].startswith("  training figa: 5 of 100, about 11 min left, ")
    assert lines[-2].startswith("  training figa: 100 of 100, about 0 s left, ")
    assert lines[-1].startswith("  took 12 min, ")
    assert "GB of memory at most" in lines[0]


def test_a_terminal_has_bars_and_is_told_the_end_only() -> None:
    assert [line[:10] for line in lines_of(terminal=True)] == ["  took 12 "]


def test_a_short_stage_says_nothing() -> None:
    shown = io.StringIO()
    progress = Progress(Console(file=shown), "reading", lambda: 1.0)
    progress(1, 2)
    progress.end()
    assert shown.getvalue() == ""
    assert float(peak_memory().split()[0]) > 0
    assert [duration(89.4), duration(90.0)] == ["89 s", "2 min"]


@pytest.mark.parametrize(
    ("rows", "batch", "passes"),
    [(5, 4, 15.0), (40, 4, 3.0), (64, 4, 3.0), (164, 8, 3.0), (600, 32, 3.0), (9000, 32, 3)],
)
def test_batches_and_passes_follow_the_rows(rows: int, batch: int, passes: float) -> None:
    found = batch_size_of(rows, LearnDetails())
    assert (found, passes_of(rows, found, "auto")) == (batch, passes)
    assert -(-rows // batch) * passes >= 30


def test_a_batch_is_whole_micro_batches() -> None:
    assert batch_size_of(600, LearnDetails(micro_batch_size=3)) == 33
    assert batch_size_of(600, LearnDetails(batch_size=7)) == 7


def test_steps_are_told_and_few_are_warned_of(tmp_path: Path) -> None:
    rows = [{"prompt": row.prompt, "draft": row.original, "sent": row.edited} for row in tiny.corrections(80)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, shown = tiny.llama(tmp_path / "model"), Console(file=io.StringIO(), record=True, width=300)
    config = LearnConfig(epochs=1, max_new_tokens=4, learning_rate=1e-6)
    details = LearnDetails(min_rows=5, method="sft", batch_size=16, micro_batch_size=16)
    learn(tmp_path / "log.jsonl", model, tmp_path / "run", config, details, console=shown)
    text = shown.export_text()
    assert "rows, 16 in a step, 1 passes: 4 optimizer steps; the best of 4 checkpoints is kept" in text
    assert "warning: only 4 optimizer steps, in which little is learned; give --epochs 8, or" in text
    shown = Console(file=io.StringIO(), record=True, width=300)
    learn(tmp_path / "log.jsonl", model, tmp_path / "more", replace(config, epochs="auto"), details, console=shown)
    assert "8 passes: 32 optimizer steps" in shown.export_text()
