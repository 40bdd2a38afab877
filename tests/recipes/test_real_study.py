"""The study of settings on a small model; on the real one it takes hours."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from errata.runs import read_json
from scripts import load


def test_arms_are_trained_and_measured_and_a_rerun_makes_none_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load("recipes", "real_study")
    model = tiny.llama(tmp_path / "model")
    flags = [f"--out={tmp_path / 'run'}", f"--model={model}", "--rows=12", "--judged=6", "--drafts=2"]
    flags += ["--max-new-tokens=8", "--only", "figa", "dpo"]
    monkeypatch.setattr(study.starter, "build", lambda folder: folder)
    monkeypatch.setattr(study.real.house_style, "plain", lambda text, **_: f"{text} the cat")
    assert study.main(flags) == 0
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines() if "{" in line] == ["start", "figa", "dpo"]
    found = {name: read_json(tmp_path / "run" / "arms" / f"{name}.json") for name in ("start", "figa", "dpo")}
    assert all(one["words"] >= 0 and one["general"] > 0 for one in found.values())
    assert found["start"]["missed"] != found["figa"]["missed"] or found["start"]["general"] != found["figa"]["general"]
    monkeypatch.setattr(study, "_measure", lambda *_: pytest.fail("is made again"))
    assert study.main(flags) == 0
    assert capsys.readouterr().out.splitlines()[-1] == said.splitlines()[-1]
    assert study.main(["--only", "nothing"]) == 2
    assert "no such arm: nothing" in capsys.readouterr().err
