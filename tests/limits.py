"""A plugin of pytest: what each test costs in CPU seconds, and a failure for one that costs too much without saying so.

The CPU's seconds, not the clock's, because a machine has other work to do; those of processes that the test
started and waited for are counted, and so are the fixtures that it is the first to ask for, but not their end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ALLOWED = 10.0
"""CPU seconds that a test may take without the mark ``slow``, on a machine that takes ``REFERENCE`` for ``pace``."""
REFERENCE = 0.22

STARTED, SECONDS = pytest.StashKey[float](), "cpu_seconds"


def spent() -> float:
    """CPU seconds of this process, all its threads, and the children that it has waited for."""
    return sum(os.times()[:4])


def pace() -> float:
    """How slow this machine is at this moment: CPU seconds of a fixed piece of work over ``REFERENCE``, at least 1."""
    start, total = spent(), 0
    for k in range(3_000_000):
        total += k * k % 7
    return max(1.0, (spent() - start) / REFERENCE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu-seconds", type=Path, metavar="FILE", help="write each test's CPU seconds as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the one process that hears of every test
        config.pluginmanager.register(Ledger(config.getoption("--cpu-seconds")))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    item.stash[STARTED] = spent()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    # Before what ends here: a browser that served a whole module would be on the bill of its last test.
    seconds = spent() - item.stash[STARTED]
    yield
    item.user_properties.append((SECONDS, round(seconds, 3)))
    # On a slower machine the same test takes more, and is not at fault; a fast one has to look no further.
    if seconds > ALLOWED and item.get_closest_marker("slow") is None and seconds > (allowed := ALLOWED * pace()):
        pytest.fail(f"took {seconds:.1f} s of CPU, more than {allowed:.1f}: make it faster, or mark it slow", False)


class Ledger:
    """What every test took, summed up by module at the end."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "teardown":
            self.seconds[report.nodeid] = dict(report.user_properties).get(SECONDS, 0.0)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        modules: dict[str, float] = {}
        for test, seconds in self.seconds.items():
            module = test.partition("::")[0]
            modules[module] = modules.get(module, 0.0) + seconds
        most = sorted(modules, key=lambda module: -modules[module])[:5]
        terminalreporter.write_line(
            f"{sum(modules.values()):.0f} s of CPU in tests; most: "
            + ", ".join(f"{module.removeprefix('tests/')} {modules[module]:.0f}" for module in most)
        )
        if self.path is not None:
            self.path.write_text(json.dumps(self.seconds, indent=1) + "\n")
