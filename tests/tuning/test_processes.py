"""Two processes learn what one learns, whatever the rows: nothing counted twice, nothing left out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from tuning import every_method

pytestmark = pytest.mark.slow

METHODS = [
    *("sft", "sft_ragged", "sft_few", "sft_resumed", "figa", "figa_ragged", "figa_weights", "figa_lora", "toy"),
    *("dpo", "token_reward", "token_reward_lora", "sequence_reward", "ppo", "ppo_streams", "ppo_lora"),
]


def in_two(folder: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """What two processes of ``every_method`` note."""
    (folder / "two").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with (folder / "log").open("w") as log:
        launched = subprocess.Popen(
            [*command, every_method.__file__, str(folder / "start"), str(folder / "two"), *arguments],
            env={**tiny.environment(), "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", **environment},
            stdout=log,
            stderr=log,
        )
        try:
            launched.wait(timeout=300)
        finally:
            launched.terminate()  # which it passes on to the two; a kill would leave them waiting for each other
            launched.wait()
    assert launched.returncode == 0, (folder / "log").read_text()[-8000:]
    written = json.loads((folder / "two" / "cards.json").read_text())
    assert written["world"] == 2
    return written["cards"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    start = tiny.llama(folder / "start")
    two = in_two(folder)
    return folder, {"one": every_method.run(start, folder / "one", micro=8), "two": two}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_learns(method: str, runs: tuple[Path, dict[str, Any]]) -> None:
    folder, cards = runs
    for file in ("model.safetensors", "errata.json"):
        assert (folder / "two" / method / file).exists()
    assert tiny.difference(folder / "one" / method, folder / "two" / method) < 1e-5
    same(cards["one"][method], cards["two"][method])
    lines = [(folder / name / method / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    for one, two in zip(*lines, strict=True):
        same(json.loads(one), json.loads(two))


def same(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Numbers are equal but for the order of sums, everything else is equal."""
    assert one.keys() == two.keys()
    for key in one.keys() - {"fingerprint", "config", "seconds", "epoch"}:
        plain = isinstance(one[key], str | list)
        assert two[key] == (one[key] if plain else pytest.approx(one[key], rel=1e-3, abs=1e-5)), key


FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """FIGA and PPO as two processes that share the weights out; both in one start of the two."""
    folder = tmp_path_factory.mktemp("shards")
    tiny.llama(folder / "start")
    return folder, in_two(folder, "sharded", **FSDP2)


def assert_like_one(shards: tuple[Path, dict[str, Any]], method: str, run: Callable[..., dict[str, Any]]) -> list[Path]:
    """With all weights and with LoRA, two processes that share them out end where one process does."""
    folder, cards = shards
    two, folders = cards[method], [folder / name / method for name in ("one", "two")]
    found = run(folder / "start", folders[0], micro=8)
    for name in ("all", "lora"):
        assert (found[name].pop("sharded"), two[name].pop("sharded")) == ([False], [True])
        same(found[name], two[name])
        assert tiny.difference(*(run / name for run in folders)) < 1e-5
        assert tiny.difference(folders[0] / name, folder / "start") > 5e-3
    return folders


def test_two_shards_learn_by_ppo_what_one_process_learns(shards: tuple[Path, dict[str, Any]]) -> None:
    """From the same rollouts, with micro-batches, a critic of two heads, and a kill after the second step."""
    folders = assert_like_one(shards, "ppo", every_method.run_sharded_ppo)
    for name in ("all", "lora"):
        lines = [(run / name / "metrics.jsonl").read_text().splitlines() for run in folders]
        assert len(lines[0]) == every_method.PPO.steps + 1
        for mine, theirs in zip(*lines, strict=True):
            same(json.loads(mine), json.loads(theirs))
        assert tiny.difference(*(run / name / "best" for run in folders)) < 1e-5


def test_two_shards_learn_what_one_process_learns(shards: tuple[Path, dict[str, Any]]) -> None:
    folders = assert_like_one(shards, "figa", every_method.run_sharded)
    adapters = [load_file(run / "lora" / "adapter" / "adapter_model.safetensors") for run in folders]
    assert adapters[0].keys() == adapters[1].keys()
    for name, value in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], value, rtol=1e-4, atol=1e-5)


def test_there_was_something_to_learn(runs: tuple[Path, dict[str, Any]]) -> None:
    folder, cards = runs
    backbone = [name for name in tiny.weights(folder / "start") if name != "lm_head.weight"]
    for method in METHODS:
        before, after = tiny.weights(folder / "start"), tiny.weights(folder / "one" / method)
        assert max(float((after[name] - before[name]).abs().max()) for name in backbone) > 3e-4, method
    assert cards["one"]["sft"]["count"] != cards["one"]["sft_ragged"]["count"]
