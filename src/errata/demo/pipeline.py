"""The main job on the embedded world: run all stages of all seeds, then report what came out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from errata.demo.recipe import DemoConfig
from errata.demo.stages import SeedRun
from errata.runs import new_file
from errata.runs.schedule import Stage, run_stages
from errata.winrate import Summary, combine_seeds, report_html, report_terminal, write_summary

__all__ = ["run_demo"]


def run_demo(config: DemoConfig, console: Console | None = None) -> Summary:
    """Run the main job and write ``winrate/summary.json`` and ``report.html``; returns what they hold.

    A stage reads files that others wrote and writes its own in one step: a run that was stopped goes on with the
    stages that are not there, to the same numbers.

    Raises:
        ValueError: the folder holds a run with other settings, another process runs in it, or a file is damaged.
    """
    console = console or Console()
    runs = [SeedRun(config, seed) for seed in range(config.seeds)]
    times = _Times(config.out / "seconds.json")
    run_stages(
        [stage for run in runs for stage in run.stages()],
        out=config.out,
        # Seeds may be added to a run, and stages may run elsewhere: neither changes a number.
        settings={key: value for key, value in asdict(config).items() if key not in ("out", "seeds", "workers")},
        workers=config.workers,
        console=console,
        done=times.add,
    )
    summary = combine_seeds([run.summary(times.below(run.folder)) for run in runs])
    write_summary(config.out / "winrate" / "summary.json", summary)
    with new_file(config.out / "report.html") as partial:
        partial.write_text(report_html(summary), encoding="utf-8")
    console.print(report_terminal(summary))
    console.print(f"\nReport: {config.out / 'report.html'}\nNumbers: {config.out / 'winrate' / 'summary.json'}")
    return summary


class _Times:
    """How long each stage took, kept over restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, stage: Stage, seconds: float) -> None:
        self.seconds[str(stage.path.relative_to(self.path.parent))] = seconds
        with new_file(self.path) as partial:
            partial.write_text(json.dumps(self.seconds, indent=1))

    def below(self, folder: Path) -> dict[str, float]:
        """The seconds of one seed's stages, by their path in its folder."""
        prefix = f"{folder.relative_to(self.path.parent)}/"
        return {path.removeprefix(prefix): s for path, s in self.seconds.items() if path.startswith(prefix)}
