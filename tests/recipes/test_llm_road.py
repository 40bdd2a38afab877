"""Two steps of the whole road on a tiny world, with the world's editor in the place of a server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from client.faults import FaultServer
from errata.client import Ask
from errata.data import read_corrections, read_demonstrations
from errata.demo.chat import DemoChat, EditorChat, JudgeChat
from errata.edits import LLMEditorConfig
from errata.labels import read_labels
from errata.winrate import ChatJudge, read_contest
from scripts import load


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "llm_road")


def small(recipe: ModuleType, out: Path, **settings: Any) -> Any:
    # So small a start writes rubbish, which only a rewrite mends.
    caps = LLMEditorConfig(max_edit_ratio=1, max_growth=30)
    return recipe.Settings(out=out, train=12, heldout=4, start_responses=32, max_new_tokens=12, editor=caps, **settings)


def judge() -> ChatJudge:
    return ChatJudge(JudgeChat(), name="demo")


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "road"
    recipe.run(small(recipe, out), EditorChat(), judge())
    return out


def test_a_whole_run_leaves_every_stage(recipe: ModuleType, finished: Path) -> None:
    cost = json.loads((finished / "winrate/edit_cost.json").read_text())
    assert cost["prompts"] == cost["edited"] == 4
    assert set(cost["edit_cost"]) == {"start", "figa"}
    found = read_contest(finished / "winrate/contest.json")
    (arm,) = found.arms
    assert (arm.name, found.baseline, arm.prompts, arm.invalid) == ("figa", "start", 4, 0)
    assert (found.judge.kind, found.judge.models) == ("chat", ("demo-judge",))
    assert any("(demo-editor) are one family" in warning for warning in found.warnings)
    assert all("demo-judge" in (finished / f"winrate/report.{form}").read_text() for form in ("html", "md"))
    samples = {row.id: row for row in read_demonstrations(finished / "data/samples.jsonl")}
    for row in read_corrections(finished / "edits/edits.jsonl"):
        assert row.original == samples[row.id].response
        assert row.original_ids == tuple(samples[row.id].extra["response_ids"])
        assert row.edited != row.original
    encoder = recipe.Road(small(recipe, finished), EditorChat(), judge()).encoder
    labels = read_labels(finished / "labels/labels.jsonl", encoder)
    assert [row.original.encoded.response_ids for row in labels] == [
        row.original_ids for row in read_corrections(finished / "edits/edits.jsonl")
    ]
    assert "words to change" in recipe.told(cost)


def test_against_a_server_it_gives_the_same(recipe: ModuleType, finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the extra openai is not installed")
    out = tmp_path / "road"
    (out / "data").mkdir(parents=True)
    (out / "data/start").symlink_to(finished / "data/start")

    def script(body: dict[str, Any], number: int) -> str:
        return DemoChat()([Ask(messages=tuple(body["messages"]))])[0].text

    sizes = ("--train=12", "--heldout=4", "--start-responses=32", "--max-new-tokens=12")
    caps = ("--editor.max-edit-ratio=1", "--editor.max-growth=30")
    with FaultServer(script) as server:
        ask = (f"--llm={server.url}", f"--judge=wise@{server.url}", f"--ledger={tmp_path}/ledger.sqlite")
        flags = (f"--out={out}", *ask, *sizes, *caps)
        assert recipe.main(flags) == 0
        asked = len(server.requests)
        assert recipe.main(flags) == 0
        assert len(server.requests) == asked
        assert {body["model"] for body in server.requests} == {"tiny", "wise"}
    found, other = (read_contest(run / "winrate/contest.json") for run in (out, finished))
    assert (found.arms, found.judge.models) == (other.arms, ("wise-2026-01-01",))
    costs = [json.loads((run / "winrate/edit_cost.json").read_text())["edit_cost"] for run in (out, finished)]
    assert costs[0] == costs[1]


def test_the_better_answers_win_and_leave_less_to_edit(recipe: ModuleType, finished: Path, tmp_path: Path) -> None:
    """The old model's answers against the same answers mended."""
    road = recipe.Road(small(recipe, tmp_path), EditorChat(), judge())
    rows = read_demonstrations(finished / "winrate/start.jsonl")
    drafts = [recipe.Draft(id=row.id, prompt=row.prompt, response=row.response) for row in rows]
    mended = recipe.edit_drafts(EditorChat(), drafts, road.settings.editor).corrections
    (tmp_path / "winrate").mkdir()
    (tmp_path / "edits").mkdir()
    (tmp_path / "edits/report.json").write_text((finished / "edits/report.json").read_text())
    recipe.write_rows(tmp_path / "winrate/start.jsonl", rows)
    better = [replace(row, response=good.edited) for row, good in zip(rows, mended, strict=True)]
    recipe.write_rows(tmp_path / "winrate/figa.jsonl", better)
    road.edit_cost(tmp_path / "winrate/edit_cost.json")
    cost = json.loads((tmp_path / "winrate/edit_cost.json").read_text())["edit_cost"]
    assert cost["figa"] == 0 < cost["start"]
    road.compare(tmp_path / "winrate/report.html")
    assert read_contest(tmp_path / "winrate/contest.json").arms[0].win_rate.mean == 1


def test_a_rerun_asks_nobody_and_other_settings_are_refused(recipe: ModuleType, finished: Path) -> None:
    def nobody(asks: object) -> Any:
        raise AssertionError("asked")

    before = (finished / "winrate/contest.json").read_text()
    recipe.run(small(recipe, finished), nobody, ChatJudge(nobody, name="nobody"))
    assert (finished / "winrate/contest.json").read_text() == before
    with pytest.raises(ValueError, match="other settings"):
        recipe.run(small(recipe, finished, seed=1), nobody, judge())


def test_an_editor_that_changes_nothing_ends_the_run_with_its_report(
    recipe: ModuleType, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/samples.jsonl").write_text((finished / "data/samples.jsonl").read_text())
    road = recipe.Road(small(recipe, tmp_path), EditorChat(diligence=0), judge())
    with pytest.raises(ValueError, match=r"(?s)changed none of 12 answers.*12 kept as they are"):
        road.edit(tmp_path / "edits/edits.jsonl")
    assert not (tmp_path / "edits/edits.jsonl").exists()


def test_a_model_comes_with_prompts(recipe: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="go together"):
        recipe.run(small(recipe, tmp_path, model=tmp_path), EditorChat(), judge())
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    road = recipe.Road(
        small(recipe, tmp_path, model=tmp_path, prompts=tmp_path / "prompts.jsonl"), EditorChat(), judge()
    )
    with pytest.raises(ValueError, match="has 1 prompts"):
        road.take_prompts(tmp_path / "data/prompts.jsonl")
    assert road.guideline == ""


def test_without_a_model_the_world_stands_in_behind_a_server(
    recipe: ModuleType, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="the extra openai is not installed")
    out = tmp_path / "road"
    (out / "data").mkdir(parents=True)
    for name in ("start", "prompts.jsonl", "heldout.jsonl", "samples.jsonl"):
        (out / "data" / name).symlink_to(finished / "data" / name)
    for name in ("labels", "tuning", "winrate"):
        (out / name).mkdir()
    for name in ("labels/labels.jsonl", "tuning/figa", "winrate/start.jsonl", "winrate/figa.jsonl"):
        (out / name).symlink_to(finished / name)
    sizes = ("--train=12", "--heldout=4", "--start-responses=32", "--max-new-tokens=12")
    caps = ("--editor.max-edit-ratio=1", "--editor.max-growth=30")
    assert recipe.main((f"--out={out}", f"--ledger={tmp_path}/ledger.sqlite", *sizes, *caps)) == 0
    assert "figa wins" in capsys.readouterr().out
    assert read_contest(out / "winrate/contest.json").judge.models == ("demo-judge",)
