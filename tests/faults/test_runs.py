"""Run folders that are damaged: the same command ends as it would have, or says which file is damaged."""

from __future__ import annotations

import json
import random
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from errata.data import write_rows
from errata.models import load_token_reward_model, save_model
from faults.harness import Ran, chunks, damaged, judge, run
from faults.test_checkpoints import BYTES, NONE, break_json
from faults.test_rows import cut

pytestmark = pytest.mark.slow  # fifty inputs at a time

INPUTS, SIZE = 150, 50
STOPS = {
    "tune sft, stopped": (import_module("errata.training.loop"), "_save"),
    "tune ppo, stopped": (import_module("errata.tuning.ppo.loop"), "finish"),
    "labels, stopped": (import_module("errata.labels.stream"), "_join"),
    "generate, stopped": (import_module("errata.winrate.responses"), "write_rows"),
}
"""What is not reached any more, so that the hidden files beside the target stay."""


def command(name: str, at: Path, out: Path) -> list[str]:
    verb = name.partition(",")[0]
    more = {
        "tune sft": [f"--data={at}/edits.jsonl", "--epochs=3", "--batch-size=6", "--save-every=2"],
        "tune ppo": [
            *(f"--prompts={at}/prompts.jsonl", f"--reward={at}/reward", "--steps=2", "--save-every=1"),
            *("--max-new-tokens=3", "--rollouts-per-step=4", "--minibatch-size=4"),
        ],
        "labels": [f"--edits={at}/edits.jsonl", "--workers=1"],
        "generate": [f"--prompts={at}/prompts.jsonl", "--chunk=1", "--max-new-tokens=4"],
        "tune figa": [f"--labels={out.parent}/labels.jsonl", "--epochs=1", "--batch-size=6"],
    }[verb]
    target = out / "model" if verb.startswith("tune") else out / "rows.jsonl"
    return [*verb.split(), f"--model={at}/start", *more, f"--out={target}"]


NAMES = ["tune sft", *STOPS, "generate", "tune figa, from labels"]


def result(out: Path) -> dict[str, bytes]:
    """What a verb gives, without how long it took and what only tells people and other programs of it."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name not in ("README.md", "SHA256SUMS", "samples.jsonl", "metrics.jsonl"):
            data = path.read_bytes()
            if path.name in ("errata.json", "report.html"):
                card = json.loads(data) if path.suffix == ".json" else {}
                data = json.dumps({key: value for key, value in card.items() if "seconds" not in key}).encode()
            found[str(path.relative_to(out))] = data
    return found


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    tiny.llama(path / "start")
    model = load_token_reward_model(path / "start")
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    made = {"stage": "reward", "kind": "token", "objective": "changed_token_classes"}
    save_model(model, tiny.tokenizer(), path / "reward", card={**made, "tokenizer": tiny.encoder().fingerprint})
    write_rows(path / "edits.jsonl", tiny.corrections(6))
    write_rows(path / "prompts.jsonl", tiny.prompts(4))
    return path


@pytest.fixture(scope="module")
def states(at: Path) -> tuple[dict[str, Path], dict[str, dict[str, bytes]]]:
    """For every name the folder that a verb finds, and what it is to give."""
    folders, whole = {}, {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("errata.labels.stream.PART", 2)
        assert run(command("labels", at, at / "labels")).code == 0
        shutil.copy(at / "labels" / "rows.jsonl", at / "labels.jsonl")
        for name in NAMES:
            folder = at / name.replace(" ", "-")
            ran = run(command(name, at, folder))
            assert ran.code == 0, ran.err
            folders[name], whole[name] = folder, result(folder)
            if (stop := STOPS.get(name)) is not None:
                shutil.rmtree(folder)
                with pytest.MonkeyPatch.context() as stopped:
                    stopped.setattr(*stop, _interrupt)
                    assert run(command(name, at, folder)).code == 130
    return folders, whole


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def break_lines(rng: random.Random, path: Path) -> None:
    """A file of JSON lines: a value in one of them, a line, or bytes."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            lines[at] = lines[at][: rng.randrange(len(lines[at]))] + "\n"
        case 1:
            lines.insert(at, lines[at])
        case 2:
            del lines[at]
        case 3:
            lines.insert(at, rng.choice(["{}", "[]", "null", "7", '"a"', "\0", "[" * 3000, ""]) + "\n")
        case 4:
            found = json.loads(lines[at])
            found[rng.choice(list(found))] = rng.choice(NONE)
            lines[at] = json.dumps(found) + "\n"
        case 5:
            path.write_bytes(rng.choice(BYTES)(rng, path.read_bytes()))
            return
    path.write_text("".join(lines), encoding="utf-8")


def break_file(rng: random.Random, path: Path) -> None:
    if not path.stat().st_size:
        path.write_bytes(b"\0")
    elif rng.random() < 0.06:
        path.unlink()
    elif path.suffix == ".jsonl":
        break_lines(rng, path)
    elif path.suffix in (".json", ".done") or path.name == "complete":
        break_json(rng, path)
    else:
        path.write_bytes(rng.choice([cut, *BYTES])(rng, path.read_bytes()))


FIXED = ("README.md", "report.html", ".lock")
"""What people read, and what two processes hold."""


@pytest.mark.parametrize("numbers", list(chunks(INPUTS, SIZE)), ids=lambda part: f"{part[0]}-{part[-1]}")
def test_a_damaged_run_folder(
    numbers: range, at: Path, states: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("errata.labels.stream.PART", 2)
    folders, whole = states

    def one(rng: random.Random, number: int) -> None:
        name = NAMES[number % len(NAMES)]
        out = tmp_path / str(number) / "out"
        if name == "tune figa, from labels":
            out.mkdir(parents=True)
            files = [shutil.copy(at / "labels.jsonl", out.parent / "labels.jsonl")]
        else:
            shutil.copytree(folders[name], out)
            files = sorted(path for path in out.rglob("*") if path.is_file() and not path.name.endswith(FIXED))
        broken = Path(rng.choice(files))
        before = broken.read_bytes()
        break_file(rng, broken)
        now = broken.read_bytes() if broken.exists() else b""

        def right(_: Ran) -> str | None:
            made = result(out)
            if name == "tune figa, from labels" and says_the_same(before, now):
                return None
            other = [each for each in whole[name] if made.get(each) != whole[name][each]]
            if broken.name == "rows.jsonl.settings.json":
                other = [
                    each for each in other if each != broken.name
                ]  # it is no result, and its digest may be missing
            return f"{broken} is damaged, and {', '.join(other)} are others" if other else None

        judge(run(command(name, at, out)), names=[str(broken), str(broken.parent)], right=right)
        shutil.rmtree(tmp_path / str(number))

    damaged("runs", numbers, one)


def says_the_same(before: bytes, now: bytes) -> bool:
    """Whether there are fewer lines of labels, or lines of other numbers: people may write both."""
    shapes = [_shape(json.loads(line)) for line in before.splitlines()]
    try:
        return all(_shape(json.loads(line)) in shapes for line in now.splitlines())
    except ValueError:
        return False


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    return [_shape(each) for each in value] if isinstance(value, list) else type(value)
