"""Model folders that are damaged: a model answers as it did, or an error names the file; nothing is trained of it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import tiny
from errata.cli import main
from errata.data import write_rows
from errata.models import load_token_reward_model, save_model
from faults.harness import Ran, chunks, damaged, judge, run
from faults.test_rows import around, cut, lose, lose_a_sign, overwrite, put, something_else

pytestmark = pytest.mark.slow  # fifty inputs at a time

INPUTS, SIZE = 220, 55
BYTES = [cut, lose, lose_a_sign, lose_a_sign, put, overwrite, around, something_else]
NONE: list[Any] = [None, "many", -1, 0, [], {}, [1], {"a": 1}, 10**30, True, "", [None], 1.5, -2.5]
"""What stands in the place of a value of a configuration."""


def answers(model: Path, at: Path, out: Path) -> list[str]:
    return [
        "generate",
        "--model",
        str(model),
        "--prompts",
        f"{at}/prompts.jsonl",
        "--max-new-tokens=4",
        "--out",
        str(out),
    ]


def labels(model: Path, at: Path, out: Path) -> list[str]:
    return ["labels", "--model", str(model), "--edits", f"{at}/edits.jsonl", "--out", str(out)]


def scores(model: Path, at: Path, out: Path) -> list[str]:
    return ["reward", "score", "--reward", str(model), "--data", f"{at}/answers.jsonl", "--out", str(out)]


Verb = Callable[[Path, Path, Path], list[str]]
FOLDERS: dict[str, list[Verb]] = {
    "plain": [answers, answers, labels],
    "sharded": [answers],
    "adapter": [answers],
    "reward": [scores],
}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints")
    write_rows(path / "edits.jsonl", tiny.corrections(6))
    write_rows(path / "prompts.jsonl", tiny.prompts(3))
    write_rows(path / "answers.jsonl", tiny.demonstrations(3))
    tiny.llama(path / "plain", tie_word_embeddings=False)
    AutoModelForCausalLM.from_pretrained(path / "plain").save_pretrained(path / "sharded", max_shard_size="8KB")
    tiny.tokenizer().save_pretrained(path / "sharded")
    model = load_token_reward_model(path / "plain")
    torch.nn.init.ones_(model.score.weight)
    made = {"stage": "reward", "kind": "token", "objective": "changed_token_classes"}
    save_model(model, tiny.tokenizer(), path / "reward", card={**made, "tokenizer": tiny.encoder().fingerprint})
    tuned = ["tune", "sft", "--model", f"{path}/plain", "--data", f"{path}/edits.jsonl", "--lora-rank=2"]
    assert main([*tuned, "--epochs=1", "--batch-size=6", "--learning-rate=0.1", "--out", f"{path}/tuned"]) == 0
    shutil.copytree(path / "tuned" / "adapter", path / "adapter")
    return path


@pytest.fixture(scope="module")
def good(at: Path) -> dict[tuple[str, str], bytes]:
    """What every verb makes of every whole folder."""
    found = {}
    for name, verbs in FOLDERS.items():
        for verb in verbs:
            out = at / f"{name}-{verb.__name__}.jsonl"
            ran = run(verb(at / name, at, out))
            assert ran.code == 0, ran.err
            found[name, verb.__name__] = out.read_bytes()
    return found


def _leaves(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way] * bool(way) + [leaf for key, each in items for leaf in _leaves(each, (*way, key))]


def break_json(rng: random.Random, path: Path) -> None:
    """One value of a JSON file is lost, or another than it may be; or bytes of it are."""
    if rng.random() < 0.3:
        path.write_bytes(rng.choice(BYTES)(rng, path.read_bytes()))
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    # A tokenizer with a word fewer is another tokenizer, and a whole one.
    *way, last = rng.choice([leaf for leaf in _leaves(found) if "vocab" not in leaf[:-1]])
    inside = found
    for key in way:
        inside = inside[key]
    if rng.random() < 0.25:
        del inside[last]
    else:
        inside[last] = rng.choice(NONE)
    path.write_text(json.dumps(found))


def break_weights(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    if rng.random() < 0.5:
        header = 8 + int.from_bytes(data[:8], "little")
        part = rng.choice([cut, lose, overwrite, lose_a_sign])
        # A letter of a name is the name of a tensor that is missing; of the numbers only how many there are is known.
        path.write_bytes(part(rng, data) if part in (cut, lose) else part(rng, data[:header]) + data[header:])
        return
    from safetensors.torch import load_file

    found = load_file(path)
    name = rng.choice(sorted(found))
    tensor = found[name].clone()
    flat = tensor.view(-1)
    match rng.randrange(5):
        case 0:
            del found[name]
        case 1:
            flat[rng.randrange(len(flat))] = rng.choice([float("nan"), float("inf"), -float("inf")])
            found[name] = tensor
        case 2:
            found[name] = flat[: len(flat) // 2].clone()
        case 3:
            found[f"{name}x"] = found.pop(name)
        case 4:
            found[name] = (
                tensor.T.contiguous() if tensor.ndim > 1 and tensor.shape[0] != tensor.shape[1] else tensor[None]
            )
    save_file(found, path, metadata={"format": "pt"})


def break_folder(rng: random.Random, folder: Path) -> str:
    """Damage one file; its name."""
    # What people read is no part of a model, and SHA256SUMS is for who copies it.
    files = sorted(path for path in folder.iterdir() if path.name not in ("README.md", "SHA256SUMS", "metrics.jsonl"))
    path = rng.choice(files)
    match rng.random():
        case chance if chance < 0.06:
            path.unlink()
        case chance if chance < 0.1:
            path.unlink()
            path.mkdir()
        case _ if path.suffix == ".safetensors":
            break_weights(rng, path)
        case _:
            break_json(rng, path)
    return path.name


def _object(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return {"bos_token": None}


@pytest.mark.parametrize("numbers", list(chunks(INPUTS, SIZE)), ids=lambda part: f"{part[0]}-{part[-1]}")
def test_a_damaged_model_folder(
    numbers: range, at: Path, good: dict[tuple[str, str], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(rng: random.Random, number: int) -> None:
        name = list(FOLDERS)[number % len(FOLDERS)]
        verb = rng.choice(FOLDERS[name])
        folder, out = tmp_path / str(number) / name, tmp_path / str(number) / "out" / "rows.jsonl"
        shutil.copytree(at / name, folder)
        broken = break_folder(rng, folder)

        def right(_: Ran) -> str | None:
            if broken == "tokenizer_config.json" and "bos_token" not in _object(folder / broken):
                return None  # as of many a model, whose configuration names the id all the same
            same = out.read_bytes() == good[name, verb.__name__]
            return None if same else f"{broken} is damaged, and {verb.__name__} are others"

        ran = run(verb(folder, at, out))
        judge(ran, names=[str(folder)], left=[out, out.with_name(".rows.jsonl.partial")], right=right)
        shutil.rmtree(tmp_path / str(number))

    damaged("checkpoints", numbers, one)
