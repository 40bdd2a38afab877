"""What is said while a stage runs: steps, time left, peak memory, every half minute where no terminal shows a bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console

__all__ = ["EVERY", "Progress", "duration", "peak_memory"]

EVERY = 30.0
"""Seconds between two lines."""


class Progress:
    """Tells of one stage. On a terminal its own bars do, and only the end of a long stage is told.

    Args:
        console: where.
        what: the stage, in words.
        clock: seconds that only grow.
    """

    def __init__(self, console: Console, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.what, self.clock = console, what, clock
        self.began = self.told = clock()
        self.first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        """So much of the stage is done; a line, if the last one is half a minute old."""
        now = self.clock()
        if self.first is None:
            # A stage that goes on where it was stopped has done the first part in no time.
            self.first = (now, done)
            return
        if self.console.is_terminal or now - self.told < EVERY:
            return
        self.told = now
        since, before = self.first
        left = f", about {duration((now - since) / (done - before) * (total - done))} left" if done > before else ""
        self._say(f"{self.what}: {done:,} of {total:,}{left}, {peak_memory()}")

    def end(self) -> None:
        """The stage has ended; what it took is told if that was long."""
        took = self.clock() - self.began
        if took >= EVERY:
            self._say(f"took {duration(took)}, {peak_memory()}")

    def _say(self, line: str) -> None:
        self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """As people say it.

    >>> duration(34), duration(100), duration(4000), duration(90000)
    ('34 s', '2 min', '1 h 7 min', '25 h 0 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def peak_memory() -> str:
    """The most that this process has held so far, and of a GPU the most that was given out."""
    found = []
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        found.append(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB of memory at most")
    if torch.cuda.is_available():
        found.append(f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the GPU's")
    return ", ".join(found) or "memory unknown"
