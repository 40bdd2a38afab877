"""The recipe's own arithmetic by hand, and two steps of the whole of it on tiny worlds."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from errata.data import read_corrections, read_prompts
from errata.data.rows import read_lines
from errata.types import Rollout
from scripts import load


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "spa")


def flags(out: Path, **settings: object) -> list[str]:
    small = {"seeds": 2, "rows": 16, "prompts": 12, "heldout": 4, "start-responses": 32, "max-new-tokens": 12}
    return [f"--out={out}", *(f"--{key}={value}" for key, value in (small | settings).items())]


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "spa"
    assert recipe.main(flags(out)) == 0
    return out


@pytest.mark.slow
def test_a_whole_run_has_all_figures(recipe: ModuleType, finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for steps in summary["filters"]:
        assert [step["name"] for step in steps] == ["R(ŷ) < η₁", "R(y) > η₂", "R(y) − R(ŷ) > η₃", "revised"]
        assert steps[0]["rows"] == 16 > steps[0]["kept"] == steps[1]["rows"] >= steps[2]["rows"] >= steps[3]["rows"] > 0
    data = summary["data"]
    assert data["filtered"]["revisions"] == data["random"]["revisions"] == data["flawed"]["revisions"] < 16
    assert data["all"]["revisions"] == 16
    assert data["flawed"]["defects of ŷ"] >= max(data["filtered"]["defects of ŷ"], data["random"]["defects of ŷ"])
    for decoding in recipe.DECODINGS:
        rows = {(row["figure"], row["arm"]): row for row in summary[decoding]}
        assert {arm for _, arm in rows} == {*recipe.ARMS, *(f"{one} − {other}" for one, other in recipe.COMPARED)}
        assert rows["win", "start"]["seeds"] == [0.5, 0.5]
        for figure in ("edit cost left", "defects", "win"):
            less = [a - b for a, b in zip(*(rows[figure, arm]["seeds"] for arm in ("filtered", "random")), strict=True)]
            assert rows[figure, "filtered − random"]["seeds"] == pytest.approx(less)
            assert rows[figure, "filtered − random"]["low"] <= rows[figure, "filtered − random"]["mean"]


@pytest.mark.slow
def test_nobody_has_seen_the_prompts_and_a_draft_has_one_revision(finished: Path) -> None:
    for seed in range(2):
        data, spa = finished / f"seed-{seed}/data", finished / f"seed-{seed}/spa"
        known = {str(row.prompt) for name in ("prompts", "heldout") for row in read_prompts(data / f"{name}.jsonl")}
        edits = {row.id: row for row in read_corrections(finished / f"seed-{seed}/edits/all.jsonl")}
        assert len(edits) == 16 == len({row.prompt for row in edits.values()})
        assert not known & {str(row.prompt) for row in edits.values()}
        for name in ("random", "flawed"):
            rows = read_corrections(finished / f"seed-{seed}/edits/{name}.jsonl")
            assert len(rows) == len(read_corrections(spa / "edits.jsonl"))
            assert [row.edited for row in rows] == [edits[row.id].edited for row in rows]
        assert sum(1 for _ in read_lines(spa / "revisions.jsonl")) == 16
    prompts = [read_prompts(finished / f"seed-{seed}/data/references.jsonl")[0].prompt for seed in range(2)]
    assert prompts[0] != prompts[1]


@pytest.mark.slow
def test_a_rerun_makes_nothing_more_seeds_are_added_and_other_settings_refused(
    recipe: ModuleType, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = finished / "seed-0/tuning/filtered/model.safetensors"
    before, stamp = (finished / "summary.json").read_text(), model.stat().st_mtime_ns
    assert recipe.main(flags(finished, seeds=1)) == 0
    summary = json.loads((finished / "summary.json").read_text())
    assert "low" not in summary["greedy"][0]
    assert recipe.main(flags(finished)) == 0
    assert ((finished / "summary.json").read_text(), model.stat().st_mtime_ns) == (before, stamp)
    assert recipe.main(flags(finished, rows=17)) == 1
    assert "other settings" in capsys.readouterr().err


def test_figures_are_means_over_prompts_and_ties_count_half(recipe: ModuleType) -> None:
    card = "Write to Anna. Item: two red lamps. City: Paris."
    clean = (
        "Dear Anna, Thank you for ordering two red lamps. The parcel goes straight to Paris. Kind regards, the shop."
    )
    rude = clean.replace("Thank you", "Thank stupid you").replace("Paris", "Rome")
    rows = [rollout(card, text) for text in (clean, rude, clean)]
    found = recipe.figures(rows, [rollout(card, text) for text in (rude, clean, clean)])
    assert found == {"edit cost left": pytest.approx(2 / 3), "defects": pytest.approx(2 / 3), "win": 0.5}
    assert recipe.figures(rows[:1], [rollout(card, rude)])["win"] == 1


def rollout(prompt: str, text: str) -> Rollout:
    return Rollout(id="", prompt=prompt, prompt_ids=(), response_ids=(), text=text, ended=True)
