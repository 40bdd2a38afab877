"""Worker processes that end with whoever started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

__all__ = ["worker_pool"]


def worker_pool(workers: int, start: Callable[..., None], arguments: Sequence[Any] = ()) -> ProcessPoolExecutor:
    """An executor of so many processes, each of which first does ``start(*arguments)``."""
    # Spawned, not forked: a forked copy of the thread pools of torch or of a tokenizer hangs.
    return ProcessPoolExecutor(workers, get_context("spawn"), _start, (os.getpid(), start, arguments))


def _start(parent: int, start: Callable[..., None], arguments: Sequence[Any]) -> None:
    # Ctrl-C reaches the whole process group; the parent says what there is to say.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

    def follow_parent() -> None:
        # After kill -9 of the parent nobody would tell us; go on, and the next run would write beside us.
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    start(*arguments)
