"""The check of a judge on planted defects, with scripted chats in the place of a model."""

from __future__ import annotations

import json
from random import Random

import pytest

import scripts
from errata.demo.judge import DefectKind, judge
from errata.demo.language import RUDE
from errata.winrate import ChatJudge
from winrate.chats import Scripted

recipe = scripts.load("recipes", "judge_check")


def test_every_pair_has_the_one_defect_that_it_says() -> None:
    planted, control = recipe.plant(4, Random(1))
    assert [row.kind for row in planted] == [kind for kind in DefectKind for _ in range(4)]
    for row in planted:
        assert judge(row.prompt, row.good).count == 0
        found = judge(row.prompt, row.spoiled)
        assert found.count == found.by_kind[row.kind] == 1
    assert len({row.id for row in (*planted, *control)}) == len(planted) + 4
    assert all(judge(row.prompt, text).count == 0 for row in control for text in (row.good, row.spoiled))


def polite(request: str, first: str, second: str) -> str:
    """Sees rude words, and where there are none takes the first."""
    rude = [any(word in text for word in RUDE) for text in (first, second)]
    return "second" if rude[0] and not rude[1] else "first"


def test_what_a_judge_sees_and_what_leads_it_astray(tmp_path) -> None:
    settings = recipe.Settings(out=tmp_path, pairs=6)
    chats = {
        "polite": Scripted(polite),
        "knows": Scripted(
            lambda request, a, b: "first" if judge(request, a).count < judge(request, b).count else "second"
        ),
    }
    asked = {name: ChatJudge(chat, name=name, guideline=recipe.GUIDELINE) for name, chat in chats.items()}
    found = recipe.run(settings, {**recipe.judges(settings), **asked})
    accuracy = {name: {one.name: one.win_rate for one in check.kinds} for name, check in found.items()}
    assert accuracy["polite"] == {kind: 1.0 if kind == "rude" else 0.5 for kind in DefectKind}
    assert found["polite"].first_position > 0.9
    assert found["polite"].consistency == pytest.approx(1 / 6)
    assert found["knows"].accuracy.mean == found["knows the rules"].accuracy.mean == 1.0
    assert found["knows"].judge.prompt_hash != ""
    assert found["sees nothing"].tied == found["sees nothing"].pairs == 36
    assert accuracy["picks the longer"]["missing"] == 1.0
    assert accuracy["picks the longer"]["repetition"] == 0.0
    assert recipe.GUIDELINE in chats["polite"].asks[0].messages[0]["content"]
    saved = json.loads((tmp_path / "judges.json").read_text())
    assert saved["polite"]["right"] == found["polite"].right
    assert len(list(recipe.tables(found))) == 2
