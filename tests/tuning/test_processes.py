"""Two processes learn what one learns, whatever the rows: nothing counted twice, nothing left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny
from tuning import every_method

pytestmark = pytest.mark.slow

METHODS = [
    *("sft", "sft_ragged", "sft_few", "sft_resumed", "figa", "figa_ragged", "figa_weights"),
    *("dpo", "token_reward", "sequence_reward", "ppo"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    start = tiny.llama(folder / "start")
    (folder / "two").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with (folder / "log").open("w") as log:
        launched = subprocess.Popen(
            [*command, every_method.__file__, str(start), str(folder / "two")],
            env={**tiny.environment(), "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
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
    one = every_method.run(start, folder / "one", micro=8)
    return folder, {"one": one, "two": written["cards"]}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_learns(method: str, runs: tuple[Path, dict[str, Any]]) -> None:
    folder, cards = runs
    for file in ("model.safetensors", "errata.json"):
        assert (folder / "two" / method / file).exists()
    assert tiny.difference(folder / "one" / method, folder / "two" / method) < 1e-5
    one, two = cards["one"][method], cards["two"][method]
    assert one.keys() == two.keys()
    for key in one.keys() - {"fingerprint", "config", "seconds"}:
        same = one[key] if isinstance(one[key], str) else pytest.approx(one[key], rel=1e-3, abs=1e-5)
        assert two[key] == same, key


def test_there_was_something_to_learn(runs: tuple[Path, dict[str, Any]]) -> None:
    folder, cards = runs
    backbone = [name for name in tiny.weights(folder / "start") if name != "lm_head.weight"]
    for method in METHODS:
        before, after = tiny.weights(folder / "start"), tiny.weights(folder / "one" / method)
        assert max(float((after[name] - before[name]).abs().max()) for name in backbone) > 3e-4, method
    assert cards["one"]["sft"]["count"] != cards["one"]["sft_ragged"]["count"]
