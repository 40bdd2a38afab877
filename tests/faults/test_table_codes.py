"""The table of exit codes: what each verb may end with, each of them reached, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tiny
from commands.test_stopped import NEEDED
from errata import commands
from errata.cli import main, overview
from errata.data import write_rows
from errata.doctor import Diagnosis
from errata.types import Correction
from errata.workflows import NotSafe, Waiting
from faults.harness import CODES, run

FURTHER: dict[str, tuple[int, ...]] = {"doctor": (3,), "learn": (3, 4, 6), "winrate": (5,)}
"""Beside 0, 1, 2 and 130, which every verb may end with (130: tests/commands/test_stopped.py)."""
WRONG = {
    "demo": "--seeds 0",
    "edits diff": "--data none.jsonl",
    "edits page": "--db none/none.sqlite --data none.jsonl",
    "client check": "local:none",
    "client costs": "none.sqlite",
}
"""Wrong input, where what a verb needs is not enough of it."""


@pytest.mark.parametrize("verb", commands.COMMANDS)
def test_a_verb_has_the_codes_that_its_help_says(verb: str) -> None:
    codes = getattr(commands.load(commands.COMMANDS[verb]), "codes", ())
    assert codes == FURTHER.get(verb, ())
    helped = run([*verb.split(), "--help"])
    assert helped.code == 0
    said = re.search(r"Exit code .*?(?=╭|usage:|$)", " ".join(helped.out.split()))
    assert all(re.search(rf"\b{code}\b", said[0] if said else "") for code in codes)
    assert (said is None) == (not codes), "and a verb without codes of its own leaves them to the overview"


def test_the_overview_says_the_general_ones() -> None:
    said = " ".join(overview().partition("Exit codes: ")[2].split())
    assert re.findall(r"\b\d+\b", said) == ["0", "1", "2", "130"]
    assert re.findall("`(.+?)`", said) == sorted(FURTHER)
    assert set(CODES) == {0, 1, 2}.union(*FURTHER.values())
    documented = " ".join(str(main.__doc__).split())
    assert [int(code) for code in re.findall(r"\b(\d+) \w", documented)] == [*CODES, 130, 141]


@pytest.mark.parametrize("verb", commands.COMMANDS)
def test_wrong_input_is_1_and_a_wrong_line_is_2(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run([*verb.split(), *WRONG.get(verb, NEEDED.get(verb, "")).split()])
    assert (ran.code, ran.err.startswith("errata: ")) == (1, True), ran
    assert run([*verb.split(), *NEEDED.get(verb, "").split(), "--no-such-flag=1"]).code == 2


def test_no_other_code_leaves_a_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in ("view", "winrate"):
        monkeypatch.setattr(commands.load(commands.COMMANDS[verb]), "run", lambda self: 3)
        ran = run([verb])
        assert isinstance(ran.raised, AssertionError)
        assert "ends with 3; name it in codes" in str(ran.raised)


def learned(outcome: Callable[[], Any]) -> Callable[..., int | None]:
    """The verb ``learn``, whose run ends in a certain way."""

    def ends(at: Path, monkeypatch: pytest.MonkeyPatch) -> int | None:
        monkeypatch.setattr("errata.commands.learn.learn", lambda *_, **__: outcome())
        monkeypatch.setattr("errata.commands.learn.learned_html", lambda _: "")
        monkeypatch.setattr("errata.commands.learn.learned_terminal", lambda _: "")
        (at / "out").mkdir()
        return run(["learn", "log.csv", "--model=m", f"--out={at / 'out'}"]).code

    return ends


def raising(error: Exception) -> Callable[[], Any]:
    def outcome() -> Any:
        raise error

    return outcome


def decided(promoted: bool) -> Callable[[], Any]:
    return lambda: SimpleNamespace(decision=SimpleNamespace(promoted=promoted))


def doctored(rows: list[Correction], *flags: str) -> Callable[..., int | None]:
    """The verb ``doctor`` on rows."""

    def ends(at: Path, monkeypatch: pytest.MonkeyPatch) -> int | None:
        write_rows(at / "edits.jsonl", rows)
        return run(["doctor", f"--data={at / 'edits.jsonl'}", f"--model={tiny.llama(at / 'model')}", *flags]).code

    return ends


def won(verdict: str) -> Callable[..., int | None]:
    """The verb ``winrate``, of people who say that of each pair."""

    def ends(at: Path, monkeypatch: pytest.MonkeyPatch) -> int | None:
        rows = tiny.demonstrations(4)
        write_rows(at / "a.jsonl", rows)
        write_rows(at / "b.jsonl", [replace(row, response=f"{row.response} rude") for row in rows])
        lines = [json.dumps({"id": row.id, "verdict": verdict}) + "\n" for row in rows]
        (at / "verdicts.jsonl").write_text("".join(lines))
        sides = [f"--candidate={at / 'a.jsonl'}", f"--baseline={at / 'b.jsonl'}"]
        return run(["winrate", *sides, f"--verdicts={at / 'verdicts.jsonl'}"]).code

    return ends


LYING = [replace(row, original_ids=(5, 2)) for row in tiny.corrections(12)]
ENDS: dict[tuple[str, int], Callable[..., int | None]] = {
    ("doctor", 0): doctored(tiny.corrections(12)),
    ("doctor", 3): doctored(LYING),
    ("learn", 0): learned(decided(True)),
    ("learn", 3): learned(raising(NotSafe(Diagnosis(findings=())))),
    ("learn", 4): learned(decided(False)),
    ("learn", 6): learned(raising(Waiting("drafts wait", "errata edits page"))),
    ("winrate", 0): won("candidate"),
    ("winrate", 5): won("invalid"),
}
"""How each further code, and 0 beside it, is reached; a real run of `learn` is in tests/commands/test_learn.py."""


def test_every_further_code_is_in_the_table() -> None:
    assert set(ENDS) == {(verb, code) for verb, codes in FURTHER.items() for code in (0, *codes)}


@pytest.mark.parametrize(("verb", "code"), ENDS)
def test_a_further_code_is_reached(verb: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENDS[verb, code](tmp_path, monkeypatch) == code
