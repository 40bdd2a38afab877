"""The recipe on a tiny log that is made up here, from file to verdict; its model is too small to learn anything."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from errata.data import read_corrections
from errata.data.rows import write_lines
from scripts import load

WORDS = ["river", "stone", "old", "green", "house", "market", "early", "train", "quiet", "letter", "dog", "field"]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "edit_logs")


def pair(number: int, label: str) -> dict[str, Any]:
    """A hypothesis about its own premise, and the same with one word of the label."""
    first, second, third = (WORDS[(number * step + step) % len(WORDS)] for step in (1, 5, 7))
    return {
        "id": f"{number}-{label}",
        "prompt": f"premise {number}  of {third}.",
        "rejected": f" the {first} of {second}",
        "chosen": f"the {first} {label} {second}",
        "label_from": "neutral",
        "label_to": label,
    }


@pytest.fixture(scope="module")
def data(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    snli = [pair(k, label) for k in range(64) for label in ("entailment", "contradiction")]
    write_lines(folder / recipe.FILES["cad_snli"], snli)
    odd = [
        {"rejected": "one  word", "chosen": "one word", "labels": "fluency"},  # nothing but a space
        {"rejected": "a b", "chosen": "a c", "labels": "meaning-changed"},
        {"rejected": "a " * 25, "chosen": "b", "labels": "style"},  # too long
        {"rejected": "a b d", "chosen": "a  b", "labels": "clarity"},  # revised again below
        {"rejected": " a   b", "chosen": "a  c", "labels": "clarity"},
        {"rejected": "a b", "chosen": "b", "labels": "clarity"},
    ]
    write_lines(folder / recipe.FILES["iterater"], [{"id": str(k), "prompt": "", **row} for k, row in enumerate(odd)])
    return folder


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "edit_logs"
    small = {"hidden-size": 16, "layers": 1, "vocabulary": 300, "practice": 32, "learn-epochs": 1, "max-words": 5}
    flags = [f"--{key}={value}" for key, value in small.items()]
    assert recipe.main(["--log=cad_snli", f"--data={data}", f"--out={out}", *flags]) == 0
    return out


def test_missing_data_is_skipped_with_a_word(
    recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe.main([f"--data={tmp_path / 'nowhere'}", f"--out={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "skipped" in said
    assert "--data" in said
    assert not (tmp_path / "out").exists()


def test_the_log_has_edits_that_can_be_learned(recipe: ModuleType, data: Path, tmp_path: Path) -> None:
    recipe.write_log(recipe.Settings(data=data), tmp_path / "log.jsonl")
    found = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sorted((row["id"], row["prompt"], row["draft"], row["sent"]) for row in found) == [
        ("4", "a b", "a b", "a c"),
        ("5", "a b", "a b", "b"),
    ]
    assert len({row["source"] for row in found}) == 1


def test_the_prompt_says_which_label_is_wanted(finished: Path) -> None:
    row = next(row for row in read_corrections(finished / "log.jsonl") if row.id == "0-entailment")
    assert row.prompt == f"premise 0 of {WORDS[7]}.\nentailment: {row.original}"
    assert row.edited == row.original.replace(" of ", " entailment ")


def test_practice_has_the_form_of_the_log(recipe: ModuleType, finished: Path) -> None:
    rows = read_corrections(finished / "log.jsonl")
    found = list(recipe.practice(recipe.Settings(practice=20), rows))
    assert len(found) == len({one.prompt for one in found}) == 20
    beginnings = {row.prompt.removesuffix(row.original) for row in rows}
    for one in found:
        assert one.prompt.removesuffix(one.response) in beginnings
        assert set(one.response.split()) <= {word for row in rows for word in row.original.split()}


def test_no_source_is_on_two_sides(finished: Path) -> None:
    sides = [
        {row.id.split("-")[0] for row in read_corrections(finished / f"learn/split/{side}.jsonl")}
        for side in ("train", "selection", "heldout")
    ]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 64


def test_all_models_are_measured_on_the_heldout_rows(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    heldout = read_corrections(finished / "learn/split/heldout.jsonl")
    assert list(summary["models"]) == ["old", "figa", "sft", "copies"]
    for one in summary["models"].values():
        assert len(one["greedy"]["costs"]) == len(one["sampled"]["costs"]) == len(heldout)
        assert all(one["tokens"][label] < 0 for label in ("good", "bad", "kept"))
    assert summary["logged_cost"]["mean"] == 1
    # What `errata learn` judged by is what the recipe measured anew.
    learned = json.loads((finished / "learn" / "summary.json").read_text())["measured"]
    judged = summary["models"][summary["judged"]]
    for how in ("greedy", "sampled"):
        assert judged[how]["figures"] == learned["new"][how]
        assert summary["models"]["old"][how]["figures"] == learned["old"][how]
    assert judged["tokens"] == pytest.approx(learned["new_tokens"])
    assert summary["reasons"]
