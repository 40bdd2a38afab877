"""The study of objectives on a tiny world: every arm, two steps each."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from scripts import load


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "reward_study")


def flags(out: Path, **settings: object) -> list[str]:
    small = {"seeds": 1, "prompts": 128, "heldout": 4, "start-responses": 32, "workers": 1, "max-new-tokens": 12}
    lists = ["--rows", "64", "--learning-rates", "0.001"]
    return [f"--out={out}", "--epochs=1", *(f"--{key}={value}" for key, value in (small | settings).items()), *lists]


@pytest.mark.slow
def test_every_arm_is_trained_measured_and_kept(recipe: ModuleType, tmp_path: Path) -> None:
    assert recipe.main(flags(tmp_path)) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["arm"] for row in summary["results"]] == list(recipe.ARMS)
    cards = {row["arm"]: tmp_path / f"seed-0/reward/{row['arm']}, 64 edits, rate 0.001" for row in summary["results"]}
    for name, folder in cards.items():
        card = json.loads((folder / "errata.json").read_text())
        assert card["steps"] >= 1, name
        assert bool(card.get("preferences", card["rows"] > 64)) == recipe.ARMS[name].preferences, name
    token = next(row for row in summary["results"] if row["arm"] == "classes")
    assert {"pair_accuracy", "auc_bad_kept", "best_of_n"} <= token.keys()
    assert "auc_bad_kept" not in summary["results"][0], "a sequence model has no token rewards"
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("seed-0/reward/*.json")}
    assert recipe.main(flags(tmp_path)) == 0
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("seed-0/reward/*.json")}


def test_what_cannot_be_run_is_refused(recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe.main(flags(tmp_path, prompts=100)) == 1
    assert "100 prompts are too few for 64 edits" in capsys.readouterr().err
    assert recipe.main([*flags(tmp_path), "--arms", "none"]) == 1
    assert "no arm 'none'" in capsys.readouterr().err
