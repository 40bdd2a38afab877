"""A method is one object: whatever else speaks of methods asks it, also one from outside the library."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import errata.tuning
import tiny
from errata import commands
from errata.cli import main, overview
from errata.data import LengthCounts, write_rows
from errata.doctor import examine
from errata.labels import LabelRules
from errata.models import read_card
from errata.training import OfflineMethod, reference, run_offline
from errata.tuning import METHODS, methods
from tuning.every_method import StoppedError, stopping_at
from tuning.toy_method import TOY, ToyConfig

ENCODER, ROWS = tiny.encoder(), tiny.corrections(12)
STEP: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 2, "batch_size": 4, "micro_batch_size": 2, "save_every": 1}


@pytest.fixture
def _with_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setattr(errata.tuning, "METHODS", (*METHODS, TOY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy")
    tiny.llama(path / "start")
    write_rows(path / "edits.jsonl", ROWS)
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_overview_says_what_the_method_says(method: OfflineMethod[Any]) -> None:
    assert f"  errata {f'tune {method.name}':14}  {method.summary}\n" in overview()
    page = (Path(__file__).parents[2] / "docs/training.md").read_text()
    assert f"| `{method.name}` | {method.reads} | {method.summary} |\n" in page
    kind = commands.load(commands.COMMANDS[f"tune {method.name}"])
    assert kind.method is method
    assert kind is commands.load(commands.COMMANDS[f"tune {method.name}"])


def test_the_overview_reads_the_sources_as_they_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = overview()
    monkeypatch.delitem(sys.modules, "errata.tuning")
    assert overview() == imported


@pytest.mark.usefixtures("_with_toy")
def test_its_verb_and_its_help(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert methods()[-1] is TOY
    assert run("--help") == 0
    assert "  errata tune toy        a toy\n" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run("tune", "toy", "--help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "Imitate sharply" in shown
    assert "--sharpness FLOAT" in shown
    assert "--preset {default,blunt}" in shown
    how = ["--model", folder / "start", "--edits", folder / "edits.jsonl", "--heldout", folder / "edits.jsonl"]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in STEP.items()]
    assert run("tune", "toy", *how, "--out", tmp_path / "out", *flags) == 0
    card = read_card(tmp_path / "out")
    assert (card["stage"], card["rows"], card["toys"], card["heldout_rows"]) == ("toy", 12, 1, 12)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    looks = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert looks[-1] < looks[0]
    assert run("tune", "toy", *how, "--out", tmp_path / "blunt", "--preset=blunt", *flags) == 0
    assert read_card(tmp_path / "blunt")["fingerprint"] != card["fingerprint"]
    assert run("tune", "toys", *how, "--out", tmp_path / "none") == 2


@pytest.mark.usefixtures("_with_toy")
def test_the_doctor_follows_it_to_the_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examine(ROWS, ENCODER, method="toy", config=ToyConfig(sharpness=4.0))
    labels = tiny.labels(12)
    expected = sum(sum(TOY.weights(row, ToyConfig(sharpness=4.0)).edited) for row in labels)
    assert found.figures["method"] == "toy"
    assert found.figures["weight_above_zero"] == pytest.approx(expected)
    assert found.figures["weight_sum_after"] == pytest.approx(expected), "of the method's own batches"
    how = ["--data", folder / "edits.jsonl", "--model", folder / "start"]
    assert run("doctor", *how, "--method=toy", "--sharpness=4") in (0, 3)
    assert "method" in capsys.readouterr().out
    halved = replace(TOY, collate=lambda *rows, **how: _halved(TOY.collate(*rows, **how)))
    assert "weights_changed" in examine(ROWS, ENCODER, method=halved).names()


def _halved(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "weight_SK": batch["weight_SK"] / 2}


@pytest.mark.usefixtures("_with_toy")
def test_the_view_colours_its_weights(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--edits", folder / "edits.jsonl", "--model", folder / "start", "--show=weights"]
    pages = {}
    for name in ("toy", "figa"):
        assert run("view", *how, f"--method={name}", "--out", tmp_path / f"{name}.html") == 0
        pages[name] = (tmp_path / f"{name}.html").read_text()
    assert pages["toy"] != pages["figa"]
    assert run("view", *how, "--method=none") == 1
    assert "no method 'none'; there are sft, figa, dpo, toy" in capsys.readouterr().err


@pytest.mark.usefixtures("_with_toy")
@pytest.mark.parametrize("name", ["toy", "dpo"])
def test_errata_learn_trains_it(name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By what the method says of learn, and by flags of learn that its settings have, too."""
    log, rows = tmp_path / "log.jsonl", tiny.corrections(80)
    sent = [row.edited if k % 8 else row.original for k, row in enumerate(rows)]
    lines = [json.dumps({"prompt": row.prompt, "draft": row.original, "sent": sent[k]}) for k, row in enumerate(rows)]
    log.write_text("\n".join(lines))
    flags = ["--max-new-tokens=4", "--epochs=1", "--learning-rate=1e-6", "--min-rows=5", "--accepted-weight=0.5"]
    learn = ["learn", log, "--model", folder / "start", "--out", tmp_path / "run", *flags]
    assert run(*learn, f"--method={name}") == 4
    counts = json.loads((tmp_path / "run/split/counts.json").read_text())
    card = read_card(tmp_path / "run/candidates" / name)
    assert (card["stage"], card.get("sharpness")) == (name, 3.0 if name == "toy" else None)
    assert card["rows"] == counts["train"] + (counts["train_accepted"] if name == "toy" else 0)
    said = " ".join(capsys.readouterr().out.split())
    left_out = f"{counts['train_accepted']} drafts that were sent without a change are no pairs; dpo leaves them out"
    assert (left_out in said) == (name == "dpo")
    assert json.loads((tmp_path / "run/summary.json").read_text())["arm"] == name
    assert run("learn", log, "--model", folder / "start", "--out", tmp_path / "none", "--method=none") == 1
    assert "no method 'none'; there are sft, figa, dpo, toy" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_it_goes_on_after_a_kill_and_no_layout_changes_it(folder: Path, tmp_path: Path) -> None:
    config, labels = ToyConfig(**STEP), tiny.labels(12)
    run_offline(TOY, folder / "start", labels, ENCODER, config, tmp_path / "whole")
    dying = replace(TOY, loss=stopping_at(7, TOY.loss))
    with pytest.raises(StoppedError):
        run_offline(dying, folder / "start", labels, ENCODER, config, tmp_path / "resumed")
    run_offline(TOY, folder / "start", labels, ENCODER, config, tmp_path / "resumed")
    assert tiny.difference(tmp_path / "whole", tmp_path / "resumed") == 0
    run_offline(TOY, folder / "start", labels, ENCODER, replace(config, layout="plain"), tmp_path / "plain")
    assert read_card(tmp_path / "whole")["layout"] == "tree"
    after, plain, before = (tiny.weights(path) for path in (tmp_path / "whole", tmp_path / "plain", folder / "start"))
    shared_W, plain_W, start_W = (torch.cat([one[name].flatten() for name in before]) for one in (after, plain, before))
    assert (shared_W - plain_W).norm() < 0.05 * (plain_W - start_W).norm()


@pytest.mark.parametrize("name", ["dpo", "figa"])
def test_the_reference_is_asked_once_also_by_a_run_that_was_killed(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {each.name: each for each in METHODS}[name]
    config = method.config(**STEP, **({"pull_weight": 1.0} if name == "figa" else {}))
    source = method.source(ROWS, ENCODER, LabelRules(), LengthCounts())
    asked: list[int] = []
    right = reference.laid_out_logprobs

    def counted(model: Any, layout: Any) -> Any:
        asked.append(1)
        return right(model, layout)

    monkeypatch.setattr(reference, "laid_out_logprobs", counted)

    def train(how: OfflineMethod[Any], out: str) -> None:
        run_offline(how, folder / "start", source, ENCODER, config, tmp_path / out, heldout=tiny.labels(4, seed=9))

    train(method, "whole")
    once = len(asked)
    assert once == 6 + 2, "micro-batches of two rows, 12 to train on and 4 held out"
    with pytest.raises(StoppedError):
        train(replace(method, loss=stopping_at(9, method.loss)), "resumed")
    assert len(asked) == 2 * once
    train(method, "resumed")
    assert len(asked) == 2 * once
    assert tiny.difference(tmp_path / "whole", tmp_path / "resumed") == 0
    assert not list(tmp_path.glob("*/*.npz"))
    assert not list(tmp_path.glob(".*"))
