"""``errata doctor`` in a terminal: what it says, and what its exit code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from errata.cli import main

ROWS = [
    {"id": "a", "prompt": "say one two", "rejected": "rude one two cat", "chosen": "one two dog"},
    {"id": "b", "prompt": "tell", "rejected": "two red cat runs now here", "chosen": "two red cat runs"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("model"))


def written(folder: Path, *rows: object) -> Path:
    path = folder / "edits.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def doctor(data: Path, model: Path, *flags: str) -> int:
    return main(["doctor", "--data", str(data), "--model", str(model), *flags])


def test_a_safe_file(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(written(tmp_path, *ROWS), model, "--out", str(tmp_path / "report.json")) == 0
    shown = capsys.readouterr().out
    assert "safe to train: 0 errors" in shown
    assert "weight in the loss" in shown
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["safe"] is True
    assert report["figures"]["positions"] == 64
    assert report["figures"]["vocabulary"] == len(tiny.tokenizer())
    assert report["figures"]["weight_sum_before"] == pytest.approx(report["figures"]["weight_sum_after"])


def test_errors_are_exit_code_3(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampled = {**ROWS[0], "id": "c", "rejected_ids": [5, 2]}
    assert doctor(written(tmp_path, *ROWS, sampled), model) == 3
    assert "not safe to train: 1 errors" in capsys.readouterr().out


def test_a_row_longer_than_the_model_is_an_error(tmp_path: Path, model: Path) -> None:
    long = {"id": "long", "prompt": "tell", "rejected": "one", "chosen": " ".join(["one"] * 80)}
    data = written(tmp_path, *ROWS, long)
    assert doctor(data, model) == 3
    assert doctor(data, model, "--max-length", "64", "--on-long", "drop") == 0


def test_warnings_fail_only_when_strict(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path, *ROWS, "no json", {"id": "d", "prompt": "say"})
    assert doctor(data, model) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "rows unreadable 2" in shown
    assert "(2 rows, the first is 'line 3')" in shown
    assert doctor(data, model, "--strict") == 3


def test_input_that_cannot_be_read_is_exit_code_1(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(tmp_path / "none.jsonl", model) == 1
    assert doctor(written(tmp_path, "no json"), model) == 1
    assert doctor(written(tmp_path, *ROWS), tmp_path) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_the_preset_and_the_method_are_those_of_training(tmp_path: Path, model: Path) -> None:
    def figures(*flags: str) -> dict[str, float]:
        assert doctor(written(tmp_path, *ROWS), model, "--out", str(tmp_path / "r.json"), *flags) in (0, 3)
        found: dict[str, float] = json.loads((tmp_path / "r.json").read_text())["figures"]
        return found

    # Bad: rude, cat; now here. Good: dog and two ends; kept: one two; two red cat runs.
    assert figures("--preset", "paper")["weight_below_zero"] == -0.5 * 4
    assert figures("--preset", "paper")["weight_above_zero"] == 3
    assert figures()["weight_above_zero"] == 3 + 0.5 * 6
    assert figures("--bad-weight", "1")["weight_below_zero"] == -4
    assert figures("--method", "sft")["weight_below_zero"] == 0


def test_help_says_what_the_exit_code_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    assert "Exit code 0: safe to train" in " ".join(capsys.readouterr().out.split())
