"""Ctrl-C: exit code 130, no traceback, and the truth about what becomes of the work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from errata import commands
from errata.cli import main

EARLY = """
import os, signal, sys
from errata.cli import main

class Interrupts:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

module, *arguments = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell sets aside for what runs in its background
sys.meta_path.insert(0, Interrupts())
sys.exit(main(arguments))
"""
"""What the script \"errata\" does, stopped when a module is about to be imported."""


@pytest.mark.parametrize("module", ["errata.commands", "tyro", "numpy", "errata.edits", "torch"])
def test_while_modules_are_imported(module: str, tmp_path: Path) -> None:
    arguments = ["tune", "sft", "--model", "m", "--data", "d", "--out", str(tmp_path / "out")]
    found = subprocess.run([sys.executable, "-c", EARLY, module, *arguments], capture_output=True, text=True)
    assert found.stderr == "\nerrata: stopped; nothing was written, rerun the same command\n"
    assert found.returncode in (130, -2)  # Python's own word for it where a dataclass was being made: 130 in a shell
    assert not list(tmp_path.iterdir())


def test_the_package_itself_imports_nothing() -> None:
    program = (
        "import sys, errata; print(*sorted(n for n in sys.modules if n.startswith(('errata.', 'numpy', 'regex'))))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"


RESUMES = {
    "demo": "rerun the same command to resume",
    "learn": "rerun the same command to resume",
    "labels": "rerun the same command to resume",
    "generate": "rerun the same command to resume",
    "edits llm": "no answer is paid for twice; rerun the same command to resume",
    "edits page": "what was typed is saved; run it again with the same --db to go on",
    "reward train": "rerun the same command to resume from the last checkpoint (--save-every)",
    "tune sft": "rerun the same command to resume from the last checkpoint (--save-every)",
    "tune figa": "rerun the same command to resume from the last checkpoint (--save-every)",
    "tune dpo": "rerun the same command to resume from the last checkpoint (--save-every)",
    "tune ppo": "rerun the same command to resume from the last checkpoint (--save-every)",
}
"""The verbs that do; of the others nothing is left, and they start over."""
NEEDED = {
    "learn": "log.csv --model m --out o",
    "edits diff": "--data d",
    "edits import": "--data d --out o",
    "edits llm": "--data d --out o",
    "edits stats": "--data d",
    "edits filter": "--data d --out o",
    "edits page": "--db o",
    "edits export": "--db d --out o",
    "labels": "--edits d --model m --out o",
    "doctor": "--data d --model m",
    "reward train": "--model m --data d --out o",
    "reward score": "--reward m --data d --out o",
    "reward eval": "--reward m",
    "tune sft": "--model m --data d --out o",
    "tune figa": "--model m --out o",
    "tune dpo": "--model m --data d --out o",
    "tune ppo": "--model m --reward m --prompts d --out o",
    "generate": "--model m --prompts d --out o",
    "client check": "local:m",
}


def stop(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, *flags: str, write: str = "") -> str:
    def stopped(self: Any) -> int:
        if write:
            Path(write).write_text("something")
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.load(commands.COMMANDS[verb]), "run", stopped)
    assert main([*verb.split(), *NEEDED.get(verb, "").split(), *flags]) == 130
    return str(capsys.readouterr().err)


@pytest.mark.parametrize("verb", commands.COMMANDS)
def test_every_verb_says_what_becomes_of_its_work(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = RESUMES.get(verb, "nothing was written, rerun the same command")
    assert stop(verb, monkeypatch, capsys) == f"\nerrata: stopped; {expected}\n"
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_not_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = stop("edits import", monkeypatch, capsys, write="o")
    assert said == "\nerrata: stopped; rerun the same command to start over\n"


def test_a_judge_that_is_paid_is_not_paid_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = stop("winrate", monkeypatch, capsys, "--llm=anthropic:x")
    assert said == "\nerrata: stopped; no answer of the judge is paid for twice; rerun the same command to resume\n"


@pytest.mark.parametrize("line", ["--help", "client costs --help", "edits diff --original=a --edited=b"])
def test_whoever_reads_no_further_is_told_nothing(line: str) -> None:
    """`errata --help | head -1` where head has gone before anything is written: what a shell makes of SIGPIPE."""
    program = "import sys; sys.stdin.read(); from errata.cli import script; script()"
    started = [sys.executable, "-c", program, *line.split()]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        run.stdin.close()
        assert run.stderr.read() == b""
    assert run.returncode == 141
