"""For all tests: shapes and dtypes of losses/ and models/ are checked at every call, and torch keeps to one thread."""

from __future__ import annotations

import gc
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Compiling what a training imports takes 20 s of CPU, and each process that a test starts would do so anew: where no
# bytecode is wanted beside the sources, all of them share what lies here.
if sys.dont_write_bytecode and sys.pycache_prefix is None:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": sys.pycache_prefix}

import torch

pytest_plugins = ["limits"]  # each test's CPU seconds

CHECKED = ["errata.losses", "errata.models"]

# The hook rewrites modules while they are imported; one that came earlier would silently go unchecked.
if early := sorted(name for name in sys.modules if name.startswith(tuple(CHECKED))):
    raise pytest.UsageError(f"imported before tests/conftest.py, hence without shape checks: {', '.join(early)}")

# The numeric tower, because an int is a float to mypy: `discount=1` must pass here too.
install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# pytest runs one process a core; more threads than cores only wait for each other.
torch.set_num_threads(1)

# The same examples in every run: whoever changes the code finds the failure, not whoever runs the tests next. And none
# fails because the machine has other work to do.
settings.register_profile("errata", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("errata")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with a slow test come first, so that no process is left with one when the others are done."""
    slow = {item.nodeid.partition("::")[0] for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in slow)


def pytest_collection_finish() -> None:
    """Leave what is imported to itself: every training ends in a collection of garbage, which looked at all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, or a skip that says what is missing."""
    path = runpy.run_path(str(Path(__file__).parent / "ensure_browser.py"))["browser"]()
    if path is None:
        pytest.skip("no chromium on the path: run tests/ensure_browser.py as root, or install one")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync"
    )
    with playwright.sync_playwright() as started:
        # Playwright gives each launch a user data folder of its own.
        browser = started.chromium.launch(executable_path=path, headless=True, args=flags.split())
        yield browser
        browser.close()
