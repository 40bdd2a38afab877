"""A verb imports its own module only, torch where it has a model, the Trainer when it trains: each takes seconds."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from errata import commands

CALLS = """
import json, sys
from errata.cli import main

calls, slow = json.loads(sys.stdin.read())
for arguments in calls:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    loaded = set(slow) & set(sys.modules)
    assert not code and not loaded, f"errata {' '.join(arguments)}: {code}, {loaded}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start")
    sides = {"original": "it costs six euros", "edited": "it costs 7 euros"}
    rows = {"edits": sides, "verdicts": {"verdict": "candidate"}, **{side: {"response": sides[side]} for side in sides}}
    for name, row in rows.items():
        lines = [json.dumps({"id": id, "prompt": id, **row}) + "\n" for id in ("a", "b")]
        (path / f"{name}.jsonl").write_text("".join(lines))
    return path


def call(folder: Path, lines: list[str], slow: list[str]) -> None:
    """All in one process: the first that imports what is slow fails."""
    subprocess.run(
        [sys.executable, "-c", CALLS],
        input=json.dumps([[line.split() for line in lines], slow]),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def test_verbs_without_a_model_import_no_torch(folder: Path) -> None:
    sides = "winrate --candidate edited.jsonl --baseline original.jsonl"
    lines = [
        "--help",
        "--version",
        "edits --help",
        "edits page --help",
        "edits export --help",
        "edits llm --help",
        "edits stats --data edits.jsonl",
        "edits import --data edits.jsonl --out again.jsonl",
        "edits filter --data edits.jsonl --out kept.jsonl --max-edit-ratio 0.9 --duplicates drop-same",
        "edits diff --data edits.jsonl --out diff.jsonl",
        "labels --help",
        "view --help",
        "generate --help",
        f"{sides} --verdicts verdicts.jsonl --out verdicts.json --report verdicts.html",
        f"{sides} --references edits.jsonl",
        "client check --help",
        "client costs --help",
    ]
    call(folder, lines, ["torch", "transformers", "scipy.stats"])


@pytest.mark.slow
def test_help_of_verbs_that_train_imports_no_trainer(folder: Path) -> None:
    lines = ["tune ppo --help", "tune figa --preset=paper --help", "reward train --help", "learn --help"]
    slow = ["transformers.trainer", "transformers.modeling_utils", "peft", "datasets", "scipy.optimize"]
    call(folder, [*lines, "reward eval --help", "doctor --help", "demo --help"], slow)


@pytest.mark.parametrize("where", list(commands.COMMANDS.values()))
def test_every_verb_is_where_the_table_says(where: str) -> None:
    kind: Any = commands.load(where)
    assert where == f"{kind.__module__}:{kind.__name__}"
    assert dataclasses.is_dataclass(kind)
    assert callable(kind.run)


@pytest.mark.parametrize(("verb", "preset"), list(commands.PRESETS))
def test_every_preset_is_a_choice_of_its_verb_and_sets_what_it_has(verb: str, preset: str) -> None:
    kind = commands.load(commands.COMMANDS[verb])
    assert preset in str(get_type_hints(kind)["preset"])
    parts = [getattr(kind, name) for name in ("settings", "rules") if hasattr(kind, name)]
    assert len(commands.PRESETS[verb, preset]) <= len(parts)
    for where, part in zip(commands.PRESETS[verb, preset], parts, strict=False):
        settings = commands.load(where)
        assert dataclasses.replace(part, **settings) != part


@pytest.mark.parametrize("verb", ["tune figa", "doctor"])
def test_presets_of_a_method_are_choices_of_its_verbs(verb: str) -> None:
    from errata.tuning.figa import PAPER, PAPER_LABELS

    needed = {"tune figa": ["--model=m", "--out=o"], "doctor": ["--model=m", "--data=d"]}[verb]
    found: Any = commands.parse(verb, [*needed, "--preset=paper", "--gate=0.7"])
    for part, settings in ((found.settings, {**PAPER, "gate": 0.7}), (found.rules, PAPER_LABELS)):
        assert {name: getattr(part, name) for name in settings} == settings
    plain: Any = commands.parse(verb, needed)
    assert plain.settings != found.settings
    assert plain.rules != found.rules
