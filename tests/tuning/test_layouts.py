"""What is trained does not depend on the layout, in any trainer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from errata.models import read_card
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.training import run_offline
from errata.tuning import METHODS, FIGAConfig, train_figa

pytestmark = pytest.mark.slow

ENCODER = tiny.encoder()
# Large enough steps that a wrong gradient shows: AdamW's first step has the sign of the gradient.
STEP: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 8, "micro_batch_size": 4}
LABELS, CORRECTIONS = tiny.labels(20, seed=4), tiny.corrections(20, seed=5)

ROWS: dict[str, Any] = {
    "demonstrations": tiny.demonstrations(20, seed=2),
    "labels": LABELS,
    "pairs": CORRECTIONS,
}
SETTINGS: dict[str, dict[str, Any]] = {"figa": {"gate": 3.0}, "dpo": {"beta": 1.0}}  # that more of the loss acts

TRAINERS: dict[str, Any] = {
    **{
        each.name: (partial(run_offline, each), ROWS[each.reads], each.config(**STEP, **SETTINGS.get(each.name, {})))
        for each in METHODS
    },
    "figa, kept 0": (train_figa, LABELS, FIGAConfig(**STEP, gate=3.0, kept_weight=0.0)),
    "token reward": (train_token_reward, LABELS, TokenRewardConfig(**STEP, sequence_coefficient=1.0)),
    "token reward, Eq 3": (train_token_reward_bradley_terry, LABELS, RewardConfig(**STEP)),
    "sequence reward": (train_sequence_reward, CORRECTIONS, RewardConfig(**STEP)),
}


def no_tree(*_: Any) -> Any:
    raise ValueError("no tree")


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize(("build", "kind"), [(tiny.llama, "tree"), (tiny.llama, "shared"), (tiny.gpt2, "tree")])
def test_the_layout_changes_no_model(
    name: str, build: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "tree":
        # What stands in its place where there is a GPU, or attention is eager.
        monkeypatch.setattr("errata.models.layout.plant", no_tree)
    start = build(tmp_path / "start")
    train, rows, config = TRAINERS[name]
    for layout in ("auto", "plain"):
        train(start, rows, ENCODER, replace(config, layout=layout), tmp_path / layout)
    shared, plain = (read_card(tmp_path / layout) for layout in ("auto", "plain"))
    assert (shared["layout"], plain["layout"]) == (kind, "plain, as asked for")
    assert shared["loss"] == pytest.approx(plain["loss"], rel=1e-3)
    assert shared["count"] == plain["count"]
    # AdamW turns the rounding of a gradient that is 0 into a step, so not every weight is the same.
    after, other, before = (tiny.weights(tmp_path / name) for name in ("auto", "plain", "start"))
    names = after.keys() & before.keys()  # a head is not there at the start
    assert after.keys() == other.keys()
    shared_W, plain_W, start_W = (torch.cat([one[name].flatten() for name in names]) for one in (after, other, before))
    assert (shared_W - plain_W).norm() < 0.05 * (plain_W - start_W).norm()
