"""Two steps of the whole recipe on a tiny world."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from errata.data import read_corrections, read_preferences
from errata.types import Preference
from scripts import load


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "edit_preferences")


def flags(out: Path, **settings: object) -> list[str]:
    # So small a start writes rubbish, which only a rewrite mends.
    caps = {"max-edit-ratio": 1, "max-growth": 30}
    small = {"seeds": 1, "prompts": 12, "heldout": 4, "start-responses": 32, "max-new-tokens": 12, **caps}
    return [f"--out={out}", *(f"--{key}={value}" for key, value in (small | settings).items())]


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "edit_preferences"
    assert recipe.main(flags(out)) == 0
    return out


def test_only_the_rejected_side_is_edited(finished: Path) -> None:
    pairs = {row.id: row for row in read_preferences(finished / "seed-0/data/preferences.jsonl")}
    edits = read_corrections(finished / "seed-0/edits/rejected.jsonl")
    assert edits
    for row in edits:
        pair = pairs[row.id]
        assert (row.original, row.original_ids) == (pair.rejected, pair.rejected_ids)
        assert row.extra["output"] == pair.chosen
        assert row.extra["editor_model"] == "demo-editor"
        assert row.edited != pair.chosen
    report = json.loads((finished / "seed-0/edits/report.json").read_text())
    assert report["edited"] + report["kept"] == len(edits)


def test_every_arm_learns_from_what_its_name_says(recipe: ModuleType, finished: Path) -> None:
    edited = json.loads((finished / "seed-0/edits/report.json").read_text())["edited"]
    for arm in recipe.ARMS:
        card = json.loads((finished / "seed-0/reward" / arm / "errata.json").read_text())
        kind, data = arm.split("_")
        rows = {"preferences": 12, "edits": edited, "both": 12 + edited}[data]
        assert card["rows"] == rows - (0 if data == "edits" else card["excluded_without_gradient"])
        assert (
            card["objective"]
            == {
                "sequence": "sequence_bradley_terry",
                "eq3": "token_bradley_terry",
                "token": "changed_token_classes",
            }[kind]
        )
    summary = json.loads((finished / "summary.json").read_text())
    found = {(row["arm"], row["figure"]): row["mean"] for row in summary["rewards"]}
    assert all(0 <= found[arm, "corrections"] <= 1 for arm in recipe.ARMS)
    assert ("sequence_both", "kept over bad") not in found
    assert 0 <= found["token_both", "kept over bad"] <= 1


def test_other_settings_are_refused_and_no_edit_at_all_is_said(
    recipe: ModuleType, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe.main(flags(finished, prompts=13)) == 1
    assert "other settings" in capsys.readouterr().err
    assert recipe.main(flags(tmp_path / "none", **{"diligence": 0})) == 1
    assert "corrected none of the 12 rows" in capsys.readouterr().err


def test_a_preference_is_a_correction_of_its_rejected_side(recipe: ModuleType) -> None:
    pair = Preference(id="a", prompt="p", chosen="good", rejected="bad one", rejected_ids=(3, 4), chosen_ids=(5,))
    row = recipe.as_correction(pair)
    assert (row.original, row.edited, row.original_ids) == ("bad one", "good", (3, 4))
    assert row.id != "a"
    assert recipe.as_correction(row) is row
