"""``errata learn`` in a terminal: its keys, what it says, and what its exit code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tiny
from errata import commands
from errata.cli import main

COMMON = ["--max-new-tokens=4", "--epochs=1", "--learning-rate=1e-6", "--min-rows=10", "--method=figa"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learn")
    tiny.llama(path / "model")
    rows = [{"prompt": row.prompt, "draft": row.original, "sent": row.edited} for row in tiny.corrections(80)]
    (path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(folder: Path, *flags: str, log: str = "log.jsonl", out: str = "run") -> int:
    return main(["learn", str(folder / log), "--model", str(folder / "model"), "--out", str(folder / out), *flags])


def helped(capsys: pytest.CaptureFixture[str], flag: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["learn", flag])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_has_at_most_ten_keys_and_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    shown = helped(capsys, "--help")
    keys = re.findall(r"^\W (--[a-z]+(?:-[a-z]+)*|PATH)\b", shown, re.MULTILINE)
    assert keys[:3] == ["PATH", "--model", "--out"]
    assert len(keys) <= 10
    said = " ".join(shown.split())
    for each in ("0: promoted", "4: refused", "3: not safe", "report.html", "--help-all", "command to resume"):
        assert each in said


def test_help_all_has_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    shown = helped(capsys, "--help-all")
    for key in ("--model", "--user-field", "--split-by", "--lora-rank", "--max-general-rise", "--accepted-weight"):
        assert key in shown


def test_hidden_keys_are_read_from_the_line_and_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "learn.yaml").write_text("split-by: users\nlora_rank: 4\n")
    line = ["log.csv", "--model=m", "--out=o", "--lora-rank=8", "--config", str(tmp_path / "learn.yaml")]
    found = commands.parse("learn", line)
    assert (found.log, found.details.split_by, found.details.lora_rank) == (Path("log.csv"), "users", 8)  # type: ignore[attr-defined]


def test_a_model_that_is_no_better_is_refused_with_exit_code_4(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *COMMON) == 4
    shown = " ".join(capsys.readouterr().out.split())
    assert "Of the words that people changed, the new model would by itself still get" in shown
    assert "Limits were lowered for this verdict: --min-rows 10 (usually 20)." in shown
    assert "Report:" in shown
    assert "Refused" in (folder / "run" / "report.html").read_text()
    assert json.loads((folder / "run" / "summary.json").read_text())["decision"]["promoted"] is False
    assert not (folder / "run" / "model").exists()
    # The same command says the same, and trains nothing.
    assert run(folder, *COMMON) == 4
    assert "training" not in capsys.readouterr().out
    assert run(folder, *COMMON, "--seed=1") == 1
    assert "other settings (seed)" in capsys.readouterr().err


def test_what_is_not_safe_is_exit_code_3(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "rejected_ids": [5, 2]}) + "\n" for row in rows]
    (folder / "lying.jsonl").write_text("".join(lines))
    assert run(folder, *COMMON, log="lying.jsonl", out="unsafe") == 3
    assert "not safe to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "log", "code", "said"),
    [
        (["--min-rows=90"], "log.jsonl", 1, "are needed"),
        (["--heldout-share=2"], "log.jsonl", 1, "--heldout-share 2 is out of range: give a number above 0 and below 1"),
        (["--split-by=users"], "log.jsonl", 1, "--user-field"),
        ([], "none.jsonl", 1, "none.jsonl"),
        (["--split-by=moon"], "log.jsonl", 2, "moon"),
    ],
)
def test_wrong_input_is_one_line_with_a_remedy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], log: str, code: int, said: str
) -> None:
    try:
        found = main(["learn", str(folder / log), f"--model={folder / 'model'}", f"--out={tmp_path / 'run'}", *flags])
    except SystemExit as stop:
        found = int(stop.code or 0)
    assert found == code
    assert said in capsys.readouterr().err
