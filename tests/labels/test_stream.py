from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edits.tokenizers import byte_level, word_piece
from errata.data import Encoder
from errata.data.lengths import LengthCounts
from errata.labels import (
    LabelReport,
    LabelRules,
    count_labels,
    label_all,
    label_file,
    read_labels,
    stream,
    write_labels,
)
from errata.types import Correction

ROWS = [
    Correction(
        id=f"r{k}",
        prompt="Ask",
        original=f"The bad cat sat on mat {k}",
        edited=f"The cat sat on it {k} times" * (k % 4),
    )
    for k in range(23)
]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PART", 5)


def encoder_of(**more: Any) -> Encoder:
    return Encoder(byte_level(), **more)


def run(folder: Path, rows: list[Correction] = ROWS, make: Any = encoder_of, **more: Any) -> LabelReport:
    settings: dict[str, Any] = {"rules": LabelRules(), "source": "here", "set_aside": folder / "aside.jsonl", **more}
    out = settings.pop("out", folder / "labels.jsonl")
    return label_file(rows, out, make, settings.pop("rules"), **settings)


def same_as_in_one_go(path: Path, folder: Path, encoder: Encoder, rows: list[Correction] = ROWS) -> None:
    write_labels(folder / "whole.jsonl", label_all(rows, encoder), encoder)
    found = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert found == (folder / "whole.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "name"), [(1, "labels.jsonl"), (1, "labels.jsonl.gz"), (2, "labels.jsonl")])
def test_parts_make_the_same_file(tmp_path: Path, workers: int, name: str) -> None:
    told: list[int] = []
    report = run(tmp_path, out=tmp_path / name, workers=workers, progress=told.append)
    same_as_in_one_go(tmp_path / name, tmp_path, encoder_of())
    labels = list(label_all(ROWS, encoder_of()))
    assert read_labels(tmp_path / name, encoder_of()) == labels
    assert report == LabelReport(labels=count_labels(labels), lengths=LengthCounts(rows_in=23))
    assert told == [5, 5, 5, 5, 3]
    assert {path.name for path in tmp_path.iterdir()} == {name, "aside.jsonl", "whole.jsonl"}
    assert (tmp_path / "aside.jsonl").read_bytes() == b""


def test_no_worker_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-1 workers; give 1 or more"):
        run(tmp_path, workers=-1)


def test_finished_parts_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def dying(rows: Any, *more: Any, **options: Any) -> Any:
        made.extend(row.id for row in rows)
        if "r12" in made:
            raise KeyboardInterrupt
        return label_all(rows, *more, **options)

    monkeypatch.setattr(stream, "label_all", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not (tmp_path / "labels.jsonl").exists()
    monkeypatch.undo()
    monkeypatch.setattr(stream, "PART", 5)
    made.clear()

    def watched(rows: Any, *more: Any, **options: Any) -> Any:
        made.extend(row.id for row in rows)
        return label_all(rows, *more, **options)

    monkeypatch.setattr(stream, "label_all", watched)
    report = run(tmp_path)
    assert made == [f"r{k}" for k in range(10, 23)]
    same_as_in_one_go(tmp_path / "labels.jsonl", tmp_path, encoder_of())
    assert report.labels.rows == 23


def test_a_part_that_was_cut_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stream, "_join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    part = tmp_path / ".labels.jsonl.parts" / "000002.jsonl"
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:-1]))
    made: list[str] = []

    def watched(rows: Any, *more: Any, **options: Any) -> Any:
        made.extend(row.id for row in rows)
        return label_all(rows, *more, **options)

    monkeypatch.setattr(stream, "label_all", watched)
    assert run(tmp_path).labels.rows == 23
    assert made == [f"r{k}" for k in range(10, 15)]
    same_as_in_one_go(tmp_path / "labels.jsonl", tmp_path, encoder_of())


@pytest.mark.parametrize(
    "change",
    [{"source": "elsewhere"}, {"rules": LabelRules(unit="char")}, {"make": partial(encoder_of, template="Q {prompt}")}],
    ids=["source", "rules", "encoder"],
)
def test_parts_of_another_plan_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stream, "_join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert (tmp_path / ".labels.jsonl.parts").exists()
    made: list[int] = []

    def watched(rows: Any, *more: Any, **options: Any) -> Any:
        made.append(len(rows))
        return label_all(rows, *more, **options)

    monkeypatch.setattr(stream, "label_all", watched)
    run(tmp_path, **change)
    assert sum(made) == len(ROWS)
    encoder = change.get("make", encoder_of)()
    expected = list(label_all(ROWS, encoder, change.get("rules", LabelRules())))
    assert read_labels(tmp_path / "labels.jsonl", encoder) == expected


def test_rows_that_cannot_be_labelled_are_set_aside(tmp_path: Path) -> None:
    rows = [
        Correction(id="case", prompt="Ask", original="The cat sat", edited="the Cat sat", reasons=("style",)),
        Correction(id="good", prompt="Ask", original="The cat sat on", edited="The mat sat"),
    ]
    report = run(tmp_path, rows, partial(Encoder, word_piece()))
    assert (report.unlabelled, report.labels.rows) == (1, 1)
    assert report.first_error.startswith("row 'case': the texts differ and their tokens do not")
    (aside,) = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert aside["id"] == "case"
    assert "the texts differ" in aside["error"]
    kept = json.loads(aside["raw"])
    assert (kept["prompt"], kept["original"], kept["edited"], kept["reasons"]) == (
        "Ask",
        "The cat sat",
        "the Cat sat",
        ["style"],
    )
    with pytest.raises(ValueError, match=r"none of 1 rows could be labelled; the first: row 'case': the texts differ"):
        run(tmp_path, rows[:1], partial(Encoder, word_piece()))


def test_what_can_hardly_be_written_is_set_aside_too(tmp_path: Path) -> None:
    rows = [
        Correction(id="half", prompt="Ask", original="a \ud800", edited="b", extra={"when": datetime(2026, 1, 2)}),
        Correction(id="good", prompt="Ask", original="a", edited="b"),
    ]
    report = run(tmp_path, rows)
    assert (report.unlabelled, report.labels.rows) == (1, 1)
    (aside,) = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert json.loads(aside["raw"])["extra"] == {"when": "2026-01-02 00:00:00"}


def test_long_rows_stop_the_run_or_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 'r2': prompt and response have 2\d tokens and the limit is 20; raise"):
        run(tmp_path, make=partial(encoder_of, max_length=20))
    short, long = Correction(id="s", prompt="a", original="b", edited="c d"), ROWS[2]
    report = run(tmp_path, [short, long], partial(encoder_of, max_length=20, on_long="drop"))
    assert report.lengths == LengthCounts(rows_in=2, dropped_too_long=1)
    assert report.labels.rows == 1
    report = run(tmp_path, [short, long], partial(encoder_of, max_length=20, on_long="truncate"))
    assert report.lengths.truncated == 1
    assert report.lengths.tokens_cut > 0
    with pytest.raises(ValueError, match=r"none of 1 rows could be labelled; the first: longer than max_length"):
        run(tmp_path, [long], partial(encoder_of, max_length=20, on_long="drop"))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from labels import test_stream
from errata.labels import stream
stream.PART = 5
after = stream.write_labels
def dying(path, labels, encoder):
    after(path, labels, encoder)
    if path.name.startswith("000003"):
        os.kill(os.getpid(), signal.SIGKILL)
stream.write_labels = dying
test_stream.run(Path({folder!r}))
"""


def test_kill_and_go_on(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    code = KILLED.format(tests=tests, folder=str(tmp_path))
    killed = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "labels.jsonl").exists()
    done = sorted(path.name for path in (tmp_path / ".labels.jsonl.parts").glob("*.done"))
    assert done == ["000000.done", "000001.done", "000002.done"]
    run(tmp_path)
    same_as_in_one_go(tmp_path / "labels.jsonl", tmp_path, encoder_of())
