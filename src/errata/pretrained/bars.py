"""transformers' own bars (the loading of weights, the writing of shards), which belong on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

__all__ = ["no_bars_in_files"]


@contextmanager
def no_bars_in_files() -> Iterator[None]:
    """Hide them while errors go to a file or a pipe, where each would be a line that tells nobody anything."""
    if sys.stderr.isatty() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
