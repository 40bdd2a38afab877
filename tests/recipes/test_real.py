"""The house styles on text, and the log that is made of drafts; the whole run is `make real`."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tiny
from errata.edits import word_distance
from errata.workflows.anew import editor_function
from scripts import ROOT, load

DRAFT = (
    "Dear [Customer Name],\n\nI hope this message finds you well. I'm sorry for any inconvenience, but as a chatbot "
    "designed to assist users, I'm unable to provide you with a refund. However, feel free to ask. Please let me kn"
)


@pytest.fixture(scope="module")
def style() -> ModuleType:
    return load("recipes", "house_style")


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "real")


def test_the_plain_style_by_hand(style: ModuleType) -> None:
    assert style.plain(DRAFT) == (
        "Hello,\n\nI am sorry about this, but I am not able to give you a refund. But please ask.\n\nKind regards,\n"
        "The Support Team"
    )


@pytest.mark.parametrize("name", ["plain", "warm"])
def test_an_editor_leaves_its_own_letters_alone(style: ModuleType, name: str) -> None:
    edit = getattr(style, name)
    once = edit(DRAFT)
    assert edit(once) == once != DRAFT


def test_rules_are_overlooked_at_random_and_the_same_ones_each_time(style: ModuleType) -> None:
    sent = [style.plain(DRAFT, overlook=0.15, seed=k) for k in range(40)]
    assert sent == [style.plain(DRAFT, overlook=0.15, seed=k) for k in range(40)]
    assert len(set(sent)) > 4
    assert style.plain(DRAFT, overlook=1.0) == DRAFT
    left = sum(word_distance(one, style.plain(one)) for one in sent) / 40
    assert 0.05 < left / word_distance(DRAFT, style.plain(DRAFT)) < 0.35


def test_learn_is_given_an_editor_without_oversights(style: ModuleType) -> None:
    edit, _ = editor_function(f"{ROOT / 'recipes' / 'house_style.py'}:plain_editor")
    assert edit("any prompt", DRAFT) == style.plain(DRAFT)


def test_prompts_differ_and_situations_come_again_last(recipe: ModuleType) -> None:
    rows = recipe.prompts(400)
    assert len({row.id for row in rows}) == len({row.prompt for row in rows}) == 400
    assert len({row.id[:2] for row in rows[:100]}) == 100
    with pytest.raises(ValueError, match="there are 400 prompts"):
        recipe.prompts(401)


def test_a_log_is_made_of_drafts_and_a_rerun_makes_none_again(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts: list[Path] = []

    def draft(settings: Any, rows: Any, path: Path) -> None:
        drafts.append(path)
        recipe.write_lines(path, ({"id": row.id, "draft": DRAFT} for row in rows))

    monkeypatch.setattr(recipe, "_draft", draft)
    settings = recipe.Settings(out=tmp_path / "run", model=tiny.llama(tmp_path / "model"), rows=100)
    log = recipe.write_log(settings)
    assert len(drafts) == 3
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100
    assert set(Counter(row["user"] for row in rows)) == set(recipe.USERS)
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert all(row["draft"] == DRAFT != row["sent"] for row in rows)
    before = log.read_bytes()
    assert recipe.write_log(settings).read_bytes() == before
    assert len(drafts) == 3
    with pytest.raises(ValueError, match=r"other settings \(overlook\)"):
        recipe.write_log(recipe.Settings(**{**vars(settings), "overlook": 0.2}))
