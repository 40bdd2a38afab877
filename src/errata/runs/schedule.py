"""Stages in the order of their needs, in a few worker processes of one thread each.

A tiny model's step keeps one core busy and a second one bored, so two stages at a time are almost twice as fast as one
stage on two threads; and a fixed number of threads gives the same numbers everywhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from errata.runs.folder import StageFolder
from errata.runs.workers import worker_pool

__all__ = ["Stage", "run_stages"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Something that makes ``path``; it can start when the paths that it needs are there."""

    path: Path
    needs: tuple[Path, ...]
    what: str
    """In words, for the one who waits."""
    make: Callable[[Path], object]
    """A picklable function that writes ``path`` in one step."""
    also: tuple[Path, ...] = ()
    """What else it writes, before ``path``."""


def run_stages(
    stages: Sequence[Stage],
    *,
    out: Path,
    settings: Mapping[str, Any],
    workers: int,
    console: Console,
    done: Callable[[Stage, float], None] = lambda stage, seconds: None,
) -> None:
    """Make every path that is not there yet; earlier stages go first where several could.

    Args:
        stages: in an order in which none comes before its needs.
        out: the run's folder, in which all of them lie. It is locked meanwhile, and claimed for ``settings``.
        settings: those that change a number (see ``claim_folder``).
        workers: processes; 1 runs the stages in this one.
        console: shows what is running.
        done: called with each finished stage and its seconds.

    Raises:
        InUse: another process runs in the folder.
        ValueError: it holds a run with other settings, or a file of a finished stage is damaged (``Damaged``).
        Exception: what the first stage to fail raised; those that had finished stay.
    """
    with StageFolder.opened(out, settings) as folder:
        _run(stages, folder, workers, console, done)


def _run(
    stages: Sequence[Stage],
    folder: StageFolder,
    workers: int,
    console: Console,
    done: Callable[[Stage, float], None],
) -> None:
    missing = [stage for stage in stages if not folder.is_made(stage.path, stage.also)]
    for stage in missing:
        folder.forget(stage.path, stage.also)
    if not missing:
        return
    there = len(stages) - len(missing)
    if there:
        console.print(f"{there} of {len(stages)} stages are there already", highlight=False)
    with (
        Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        ) as progress,
        _executor(min(workers, len(missing))) as executor,
    ):
        bar = progress.add_task("starting", total=len(stages), completed=there)
        running: dict[Future[float], Stage] = {}
        waiting = list(missing)
        try:
            while waiting or running:
                ready = [stage for stage in waiting if all(need.exists() for need in stage.needs)]
                for stage in ready[: max(0, workers - len(running))]:
                    waiting.remove(stage)
                    running[executor.submit(_timed, stage)] = stage
                assert running, f"stages wait for what nobody makes: {[str(stage.path) for stage in waiting]}"
                progress.update(bar, description=" · ".join(stage.what for stage in running.values()))
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    stage = running.pop(future)
                    seconds = future.result()
                    folder.note(stage.path, stage.also)
                    done(stage, seconds)
                    progress.advance(bar)
                    progress.console.print(f"{seconds:6.1f} s  {stage.what}", highlight=False)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _timed(stage: Stage) -> float:
    started = time.perf_counter()
    stage.make(stage.path)
    assert stage.path.exists(), f"the stage for {stage.path} made nothing"
    return time.perf_counter() - started


def _executor(workers: int) -> Any:
    return _Here() if workers == 1 else worker_pool(workers, _settle)


class _Here:
    """An executor that runs each call at once, in this process, with one thread, as a worker would."""

    def __enter__(self) -> _Here:
        import torch

        self.threads = torch.get_num_threads()
        _settle()
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self.threads)

    def submit(self, function: Callable[[Stage], float], stage: Stage) -> Future[float]:
        future: Future[float] = Future()
        try:
            future.set_result(function(stage))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: Mapping[str, bool]) -> None:
        """Nothing to shut down."""


def _settle() -> None:
    """One thread, no accelerator: models of this size are faster so, and the numbers are the same anywhere."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["ACCELERATE_USE_CPU"] = "1"
    logging.disable_progress_bar()
