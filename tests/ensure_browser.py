"""Give the browser tests a chromium where that is easy; say in one line how it went, and never fail the build.

Run before the tests (``make test``). Where it finds none and may not install one, those tests skip, saying so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 240
APT_GET = [
    "apt-get",
    "-qq",
    "-o",
    "Acquire::Retries=1",
    "-o",
    "Acquire::http::Timeout=20",
    "-o",
    "DPkg::Lock::Timeout=30",
]
STEPS = (
    [*APT_GET, "update"],
    [*APT_GET, "install", "-y", "--no-install-recommends", "chromium"],
)


def browser() -> str | None:
    """Where the first chromium on the path is that starts (some packages only tell where to get it)."""
    for path in filter(None, map(shutil.which, NAMES)):
        try:
            subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return path
    return None


def install() -> str | None:
    """Try to install chromium with apt-get; comes back with the reason it could not, None if it could."""
    if not sys.platform.startswith("linux") or not shutil.which("apt-get"):
        return "this machine has no apt-get"
    if os.geteuid() != 0:
        return "only root may install it"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in STEPS:
        try:
            # A timeout kills apt-get only; dpkg's own children are short-lived and finish by themselves.
            done = subprocess.run(
                step, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"apt-get {step[-1]} took more than {SECONDS} s"
        except OSError as error:
            return f"apt-get would not start: {error}"
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no word why"]
            return f"apt-get said: {lines[-1]}"
    return None


def main() -> None:
    """Print one line: the browser that the tests will use, or why there is none."""
    reason = None
    found = browser()
    if found is None:
        reason = install()
        found = browser()
    if found:
        print(f"browser tests: {found}")
    else:
        print(f"no chromium: the browser tests will skip ({reason or 'what was installed does not start'})")


if __name__ == "__main__":
    main()
