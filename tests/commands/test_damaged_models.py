"""Every verb that takes a model, given a damaged one: exit 1, the file is named, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny
from client.servers import chat_model
from errata.cli import main
from errata.data import write_rows
from errata.models import load_token_reward_model, save_model
from pretrained.damage import CONFIG, TOKENIZER, WEIGHTS

Verb = Callable[[Path, str], list[str]]
"""The folder of rows and good models, and the damaged one, to a command."""

ROWS = tiny.corrections(30)
FEW = ["--epochs=1", "--batch-size=30"]
SHORT = ["--max-new-tokens=3"]


def _ppo(policy: str, reward: str, *more: str) -> list[str]:
    return ["tune", "ppo", "--model", policy, "--reward", reward, "--steps=1", "--max-new-tokens=3", *more]


READS_WEIGHTS: dict[str, Verb] = {
    "tune sft": lambda at, bad: ["tune", "sft", "--model", bad, "--data", f"{at}/edits.jsonl", *FEW],
    "tune sft with an adapter": lambda at, bad: [
        *("tune", "sft", "--model", bad, "--data", f"{at}/edits.jsonl", "--lora-rank=2"),
        *FEW,
    ],
    "tune figa": lambda at, bad: ["tune", "figa", "--model", bad, "--edits", f"{at}/edits.jsonl", *FEW],
    "tune dpo": lambda at, bad: ["tune", "dpo", "--model", bad, "--data", f"{at}/edits.jsonl", *FEW],
    "tune ppo": lambda at, bad: _ppo(bad, f"{at}/reward", "--prompts", f"{at}/prompts.jsonl"),
    "tune ppo --critic": lambda at, bad: _ppo(
        f"{at}/start", f"{at}/reward", "--prompts", f"{at}/prompts.jsonl", "--critic", bad
    ),
    "reward train": lambda at, bad: ["reward", "train", "--model", bad, "--data", f"{at}/edits.jsonl", *FEW],
    "reward train, of responses": lambda at, bad: [
        *("reward", "train", "--kind=sequence", "--model", bad, "--data", f"{at}/edits.jsonl"),
        *FEW,
    ],
    "learn": lambda at, bad: ["learn", f"{at}/edits.jsonl", "--model", bad, "--method=sft", "--min-rows=2", *SHORT],
    "generate": lambda at, bad: ["generate", "--model", bad, "--prompts", f"{at}/prompts.jsonl", "--max-new-tokens=3"],
    "winrate --candidate": lambda at, bad: [
        *("winrate", "--candidate", bad, "--baseline", f"{at}/start", "--references", f"{at}/edits.jsonl"),
        "--max-new-tokens=3",
    ],
    "winrate --baseline": lambda at, bad: [
        *("winrate", "--candidate", f"{at}/start", "--baseline", bad, "--references", f"{at}/edits.jsonl"),
        "--max-new-tokens=3",
    ],
    "edits llm": lambda at, bad: ["edits", "llm", "--data", f"{at}/answers.jsonl", "--llm", f"local:{bad}"],
}
READS_TOKENIZER: dict[str, Verb] = {
    **{name: verb for name, verb in READS_WEIGHTS.items() if name != "tune ppo --critic"},
    "doctor": lambda at, bad: ["doctor", "--model", bad, "--data", f"{at}/edits.jsonl"],
    "labels": lambda at, bad: ["labels", "--model", bad, "--edits", f"{at}/edits.jsonl"],
    "view": lambda at, bad: ["view", "--model", bad, "--edits", f"{at}/edits.jsonl"],
    "edits diff": lambda at, bad: ["edits", "diff", "--unit=token", "--model", bad, "--data", f"{at}/edits.jsonl"],
}
READS_REWARD: dict[str, Verb] = {
    "reward score": lambda at, bad: ["reward", "score", "--reward", bad, "--data", f"{at}/answers.jsonl"],
    "reward eval": lambda at, bad: ["reward", "eval", "--reward", bad, "--data", f"{at}/edits.jsonl"],
    "tune ppo --reward": lambda at, bad: _ppo(f"{at}/start", bad, "--prompts", f"{at}/prompts.jsonl"),
    "tune ppo --judge": lambda at, bad: _ppo(
        *(f"{at}/start", f"{at}/reward", "--prompts", f"{at}/prompts.jsonl", "--heldout", f"{at}/prompts.jsonl"),
        *("--evaluate-every=1", "--judge", bad),
    ),
    "winrate --reward": lambda at, bad: [
        *("winrate", "--candidate", f"{at}/start", "--baseline", f"{at}/start", "--prompts", f"{at}/prompts.jsonl"),
        *("--max-new-tokens=3", "--reward", bad),
    ],
    "view --reward": lambda at, bad: [
        *("view", "--model", f"{at}/start", "--edits", f"{at}/edits.jsonl", "--show=rewards", "--reward", bad)
    ],
    "edits filter": lambda at, bad: ["edits", "filter", "--data", f"{at}/edits.jsonl", "--reward", bad, "--eta1=9"],
}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verbs")
    tiny.llama(path / "start")
    chat_model(path / "chat")
    model = load_token_reward_model(path / "start")
    torch.nn.init.ones_(model.score.weight)
    made = {"stage": "reward", "kind": "token", "objective": "changed_token_classes"}
    save_model(model, tiny.tokenizer(), path / "reward", card={**made, "tokenizer": tiny.encoder().fingerprint})
    write_rows(path / "edits.jsonl", ROWS)
    write_rows(path / "prompts.jsonl", tiny.prompts(4))
    write_rows(path / "answers.jsonl", tiny.demonstrations(3))
    return path


def refused(
    verb: Verb, at: Path, good: str, damage: tuple[Callable[[Path], None], str], tmp_path: Path
) -> tuple[int, list[str]]:
    """The exit code, and what was left besides."""
    shutil.copytree(at / good, tmp_path / "bad")
    damage[0](tmp_path / "bad")
    command = verb(at, str(tmp_path / "bad"))
    writes = command[0] not in ("winrate", "view") and command[:2] not in (["reward", "eval"], ["edits", "diff"])
    out = ["--out", str(tmp_path / "out" / ("model" if command[0] in ("tune", "learn", "reward") else "rows.jsonl"))]
    if command[0] == "doctor":
        writes = False
    code = main([*command, *(out if writes else [])])
    return code, [path.name for path in (tmp_path / "out").rglob("*.safetensors")]


@pytest.mark.parametrize("damage", ["cut", "empty", "another shape", "missing tensor", "NaN", "missing shard"])
@pytest.mark.parametrize("verb", READS_WEIGHTS)
def test_damaged_weights(verb: str, damage: str, at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = "chat" if verb == "edits llm" else "start"
    code, left = refused(READS_WEIGHTS[verb], at, good, WEIGHTS[damage], tmp_path)
    said = capsys.readouterr().err
    assert (code, left) == (1, [])
    assert str(tmp_path / "bad") in said
    assert pytest.raises(ValueError, match=WEIGHTS[damage][1]).matches(ValueError(said)), said


@pytest.mark.parametrize("verb", READS_REWARD)
@pytest.mark.parametrize("damage", ["cut", "not there"])
def test_a_damaged_reward_model(
    verb: str, damage: str, at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, left = refused(READS_REWARD[verb], at, "reward", WEIGHTS[damage], tmp_path)
    said = capsys.readouterr().err
    assert (code, left) == (1, [])
    assert str(tmp_path / "bad") in said
    assert "model.safetensors" in said


@pytest.mark.parametrize("damage", ["tokenizer.json cut", "config.json cut", "another vocabulary"])
@pytest.mark.parametrize("verb", READS_TOKENIZER)
def test_a_damaged_tokenizer_or_configuration(
    verb: str, damage: str, at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage != "tokenizer.json cut" and verb in ("labels", "view", "edits diff", "edits llm"):
        pytest.skip("which read the tokenizer alone, or, of a chat model, tell it in a row of its own")
    good = "chat" if verb == "edits llm" else "start"
    code, left = refused(READS_TOKENIZER[verb], at, good, {**TOKENIZER, **CONFIG}[damage], tmp_path)
    said = capsys.readouterr().err
    assert (code, left) == (1, [])
    assert "Traceback" not in said
    assert str(tmp_path / "bad") in said


def test_a_damaged_record(at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(at / "reward", tmp_path / "bad")
    (tmp_path / "bad" / "errata.json").write_text('{"stage"')
    assert main(["reward", "eval", "--reward", str(tmp_path / "bad"), "--data", str(at / "edits.jsonl")]) == 1
    assert "errata.json is damaged" in capsys.readouterr().err
    assert json.loads((at / "reward" / "errata.json").read_text())["stage"] == "reward"
