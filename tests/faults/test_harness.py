"""What holds the faults holds: a planted silent success, a planted traceback and a planted mess are caught."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import test_checkpoints, test_configs, test_databases, test_rows, test_runs
from faults.harness import Fault, chunks, damaged, judge, run
from faults.test_rows import to_csv, wrong

GOOD = [{"id": "r0", "prompt": "p", "draft": "a", "sent": "b"}, {"id": "r1", "prompt": "q", "draft": "c", "sent": "d"}]


def _told(text: str, code: int) -> Callable[[list[str]], int]:
    def verb(_: list[str]) -> int:
        import sys

        print(text, file=sys.stderr)
        return code

    return verb


def _raises(_: list[str]) -> int:
    raise KeyError("a planted one")


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (_raises, "traceback: KeyError"),
        (_told("Traceback (most recent call last)", 1), "traceback"),
        (_told("errata: something is wrong", 1), "the error names nothing of"),
        (_told("log.csv: something is wrong", 1), "no error is told"),
        (_told("errata: 'str' object has no attribute 'get'", 1), "the error names nothing of"),
        (_told("errata: NoneType is not iterable in log.csv", 1), "an error in Python's words"),
        (_told("errata: log.csv is damaged", 9), "traceback"),
        (_told("errata: log.csv is damaged", 1), r"the error left .*half\.jsonl"),
        (_told("", 0), "silent success: all of it"),
    ],
)
def test_a_planted_fault_is_caught(verb: Callable[[list[str]], int], said: str, tmp_path: Path) -> None:
    half = tmp_path / "half.jsonl"
    half.write_text("{")
    with pytest.raises(Fault, match=said):
        judge(run([], verb), names=["log.csv"], left=[half], right=lambda _: "all of it")


def test_what_is_told_is_no_fault(tmp_path: Path) -> None:
    judge(run([], _told("errata: log.csv is damaged; mend it", 1)), names=["log.csv"], right=lambda _: "all of it")
    judge(run([], _told("", 0)), names=["log.csv"], right=lambda _: None)


def _import(tmp_path: Path, *, loses: bool = False, changes: bool = False) -> str | None:
    """What the rule for rows says of a reader that loses or changes a row of a damaged file."""
    out = tmp_path / "edits.jsonl"
    made = [f'{{"prompt": "{row["prompt"]}", "rejected": "{row["draft"]}", "chosen": "{row["sent"]}"}}' for row in GOOD]
    out.write_text("\n".join(made[:-1] if loses else made).replace('"b"', '"d"' if changes else '"b"'))
    data = to_csv(GOOD)
    return wrong("csv", GOOD, data, out, run([], _told("", 0)))


def test_a_row_that_is_lost_or_changed_in_silence_is_caught(tmp_path: Path) -> None:
    assert _import(tmp_path) is None
    assert _import(tmp_path, loses=True) == "2 rows in, 1 made and 0 set aside"
    assert str(_import(tmp_path, changes=True)).startswith("a row that nobody wrote")


def test_every_input_is_made_again_by_its_number_and_all_faults_are_told() -> None:
    seen: dict[int, float] = {}

    def one(rng: random.Random, number: int) -> None:
        seen[number] = rng.random()
        if number % 2:
            raise Fault("odd")

    with pytest.raises(Fault, match=r"2 faults\nrows 1: odd\nrows 3: odd"):
        damaged("rows", range(4), one)
    assert seen[3] == random.Random("rows 3").random()
    assert [list(part) for part in chunks(5, 2)] == [[0, 1], [2, 3], [4]]


def test_there_are_two_thousand_inputs() -> None:
    rooms = (test_rows, test_configs, test_checkpoints, test_runs, test_databases)
    assert sum(room.INPUTS for room in rooms) >= 2000
