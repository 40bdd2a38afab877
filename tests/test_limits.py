"""The tests' own limit: CPU seconds without the mark ``slow``, those of children and of fixtures among them."""

from __future__ import annotations

import json

import pytest

import limits

pytest_plugins = ["pytester"]

TESTS = """
import subprocess, sys, time
import pytest

BURN = "import time\\nwhile time.process_time() < 0.6: pass"

def burn():
    end = time.process_time() + 0.6
    while time.process_time() < end:
        pass

@pytest.fixture(scope="module")
def dear():
    burn()

def test_waits():
    time.sleep(0.6)

def test_burns():
    burn()

def test_asks_for_what_is_dear(dear):
    pass

def test_finds_it_there(dear):
    pass

def test_has_it_burned_by_a_child():
    subprocess.run([sys.executable, "-c", BURN], check=True)

@pytest.mark.slow
def test_says_so():
    burn()
"""


def test_what_costs_too_much_fails_unless_it_says_so(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ALLOWED", 0.5)
    monkeypatch.setattr(limits, "pace", lambda: 1.0)
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]\nmarkers = slow")
    found = pytester.runpytest_inprocess("-p", "limits", "-p", "no:cacheprovider", "--cpu-seconds", "seconds.json")
    found.assert_outcomes(passed=6, errors=3)
    refused = [line.split("::")[1].split()[0] for line in found.outlines if line.startswith("ERROR ")]
    assert refused == ["test_burns", "test_asks_for_what_is_dear", "test_has_it_burned_by_a_child"]
    found.stdout.fnmatch_lines(["took * s of CPU, more than 0.5: make it faster, or mark it slow"])
    seconds = json.loads((pytester.path / "seconds.json").read_text())
    taken = {test.partition("::")[2]: value for test, value in seconds.items()}
    assert taken["test_waits"] < 0.3
    assert taken["test_finds_it_there"] < 0.3
    assert taken["test_says_so"] > 0.5


def test_a_slower_machine_is_allowed_more() -> None:
    taken = iter([5.0, 5.0 + 3 * limits.REFERENCE, 9.0, 9.1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "spent", lambda: next(taken))
        assert limits.pace() == pytest.approx(3.0)
        assert limits.pace() == 1.0, "a faster one no less"
