"""Two steps of the whole road on a tiny world, with the world's editor in the place of a server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from errata.data import read_corrections, read_demonstrations
from errata.demo.chat import EditorChat
from errata.edits import LLMEditorConfig
from errata.labels import read_labels
from scripts import load


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "llm_road")


def small(recipe: ModuleType, out: Path, **settings: Any) -> Any:
    # So small a start writes rubbish, which only a rewrite mends.
    caps = LLMEditorConfig(max_edit_ratio=1, max_growth=30)
    return recipe.Settings(out=out, train=12, heldout=4, start_responses=32, max_new_tokens=12, editor=caps, **settings)


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "road"
    recipe.run(small(recipe, out), EditorChat())
    return out


def test_a_whole_run_leaves_every_stage(recipe: ModuleType, finished: Path) -> None:
    found = json.loads((finished / "winrate/judged.json").read_text())
    assert found["prompts"] == found["judged"] == 4
    assert 0 <= found["win_rate"]["low"] <= found["win_rate"]["mean"] <= found["win_rate"]["high"] <= 1
    assert set(found["edit_cost"]) == {"start", "figa"}
    samples = {row.id: row for row in read_demonstrations(finished / "data/samples.jsonl")}
    for row in read_corrections(finished / "edits/edits.jsonl"):
        assert row.original == samples[row.id].response
        assert row.original_ids == tuple(samples[row.id].extra["response_ids"])
        assert row.edited != row.original
    encoder = recipe.Road(small(recipe, finished), EditorChat()).encoder
    labels = read_labels(finished / "labels/labels.jsonl", encoder)
    assert [row.original.encoded.response_ids for row in labels] == [
        row.original_ids for row in read_corrections(finished / "edits/edits.jsonl")
    ]
    assert "words to change" in recipe.told(found)


def test_the_judge_prefers_what_its_editor_leaves_alone(recipe: ModuleType, finished: Path, tmp_path: Path) -> None:
    """The old model's answers against the same answers mended."""
    road = recipe.Road(small(recipe, finished), EditorChat())
    rows = read_demonstrations(finished / "winrate/start.jsonl")
    chat = EditorChat()
    mended = recipe.edit_drafts(
        chat,
        [recipe.Draft(id=row.id, prompt=row.prompt, response=row.response) for row in rows],
        road.settings.editor,
    ).corrections
    recipe.write_rows(tmp_path / "start.jsonl", rows)
    recipe.write_rows(
        tmp_path / "figa.jsonl", [replace(row, response=good.edited) for row, good in zip(rows, mended, strict=True)]
    )
    road.judge(tmp_path / "judged.json")
    found = json.loads((tmp_path / "judged.json").read_text())
    assert found["win_rate"]["mean"] == 1
    assert found["edit_cost"]["figa"] == 0 < found["edit_cost"]["start"]


def test_a_rerun_asks_nobody_and_other_settings_are_refused(recipe: ModuleType, finished: Path) -> None:
    def nobody(asks: object) -> Any:
        raise AssertionError("asked")

    before = (finished / "winrate/judged.json").read_text()
    recipe.run(small(recipe, finished), nobody)
    assert (finished / "winrate/judged.json").read_text() == before
    with pytest.raises(ValueError, match="other settings"):
        recipe.run(small(recipe, finished, seed=1), nobody)


def test_an_editor_that_changes_nothing_ends_the_run_with_its_report(
    recipe: ModuleType, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/samples.jsonl").write_text((finished / "data/samples.jsonl").read_text())
    road = recipe.Road(small(recipe, tmp_path), EditorChat(diligence=0))
    with pytest.raises(ValueError, match=r"(?s)changed none of 12 answers.*12 kept as they are"):
        road.edit(tmp_path / "edits/edits.jsonl")
    assert not (tmp_path / "edits/edits.jsonl").exists()


def test_a_model_comes_with_prompts(recipe: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="go together"):
        recipe.run(small(recipe, tmp_path, model=tmp_path), EditorChat())
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    road = recipe.Road(small(recipe, tmp_path, model=tmp_path, prompts=tmp_path / "prompts.jsonl"), EditorChat())
    with pytest.raises(ValueError, match="has 1 prompts"):
        road.take_prompts(tmp_path / "data/prompts.jsonl")
    assert road.guideline == ""
