"""The table of numbers that are none: NaN and infinity in what each way to train is given, before it trains.

Settings are in tests/test_ranges.py, a start's weights, PPO's rewards and what goes wrong in training in
tests/tuning/test_no_number.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import tiny
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.training import run_offline
from errata.tuning import METHODS
from errata.types import TokenLabels

ENCODER = tiny.encoder()
NONE = [math.nan, math.inf, -math.inf]
ROWS = {"demonstrations": tiny.demonstrations(3), "labels": tiny.labels(3), "pairs": tiny.corrections(3)}
WEIGHED = {method.name: method for method in METHODS}
READ: dict[str, Callable[..., Any]] = {
    method.name: partial(run_offline, method, config=method.config()) for method in METHODS if method.reads == "labels"
}
HELD_OUT = {
    method.name: partial(run_offline, method, source=ROWS[method.reads], config=method.config()) for method in METHODS
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"))


def with_weight(side: str, value: float) -> list[TokenLabels]:
    """Labels of which one token of one row has a weight of its own that is none."""
    first, *rest = tiny.with_own_weights(tiny.labels(3))
    tokens = getattr(first, side)
    return [replace(first, **{side: replace(tokens, weights=(value, *tokens.weights[1:]))}), *rest]


@pytest.mark.parametrize("value", NONE)
@pytest.mark.parametrize("method", WEIGHED)
def test_a_weight_of_a_row(method: str, value: float, start: Path, tmp_path: Path) -> None:
    one = WEIGHED[method]
    rows: Any = ROWS[one.reads]
    with pytest.raises(ValueError, match=rf"row_weights: the weight {value} of row '{rows[0].id}' is no number from 0"):
        run_offline(one, start, rows, ENCODER, one.config(), tmp_path / "out", row_weights={rows[0].id: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", NONE)
@pytest.mark.parametrize("side", ["original", "edited"])
@pytest.mark.parametrize("method", READ)
def test_a_weight_of_a_token(method: str, side: str, value: float, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"row 'c0'.* weight {value} is no number of at most 1,000,000"):
        READ[method](model=start, source=with_weight(side, value), encoder=ENCODER, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", ["original", "edited"])
@pytest.mark.parametrize("method", [name for name in HELD_OUT if WEIGHED[name].reads == "labels"])
def test_a_weight_of_a_token_that_is_held_out(method: str, side: str, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 'c0'.* weight nan is no number of at most 1,000,000"):
        HELD_OUT[method](model=start, encoder=ENCODER, out=tmp_path / "out", heldout=with_weight(side, math.nan))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["token", "sequence", "eq3"])
def test_a_reward_model_of_a_start_with_a_number_that_is_none(kind: str, start: Path, tmp_path: Path) -> None:
    """A head of one number is made new, and the backbone is the start's."""
    broken = tiny.stored_as(start, tmp_path / "broken", next(iter(tiny.weights(start).values())).dtype)
    weights = tiny.weights(broken)
    weights["model.embed_tokens.weight"][3, 0] = -math.inf
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    train: dict[str, Callable[..., Any]] = {
        "token": partial(train_token_reward, config=TokenRewardConfig(), labels=tiny.labels(3)),
        "sequence": partial(train_sequence_reward, config=RewardConfig(), rows=tiny.corrections(3)),
        "eq3": partial(train_token_reward_bradley_terry, config=RewardConfig(), labels=tiny.labels(3)),
    }
    with pytest.raises(ValueError, match=r"model.safetensors holds NaN or infinity in .*embed_tokens.weight"):
        train[kind](broken, encoder=ENCODER, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
