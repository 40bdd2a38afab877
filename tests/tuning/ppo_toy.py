"""What the tests of PPO share: prompts, rewards that are known exactly, and settings for a model of a few weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
from errata.tuning import PPOConfig, Stream
from errata.types import Encoded

ENCODER = tiny.encoder()
PROMPTS = tiny.prompts(12)
CAT = ENCODER.tokenizer.convert_tokens_to_ids("cat")
CONFIG = PPOConfig(
    steps=4,
    rollouts_per_step=16,
    minibatch_size=8,
    learning_rate=1e-3,
    value_learning_rate=1e-3,
    max_new_tokens=8,
    save_every=2,
)


def pays_for_cats(rows: Sequence[Encoded]) -> list[list[float]]:
    return [[float(token == CAT) for token in row.response_ids] for row in rows]


def pays_at_the_end(rows: Sequence[Encoded]) -> list[list[float]]:
    """One reward a response: how many different words it has."""
    return [[0.0] * (len(row.response_ids) - 1) + [float(len(set(row.response_ids)))] for row in rows]


DENSE = Stream(name="cats", reward=pays_for_cats)
TERMINAL = Stream(name="words", reward=pays_at_the_end, terminal=True, centred=True)


def lines_of(out: Path, name: str = "metrics") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, or of samples.jsonl, but for the time that they took."""
    rows = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("seconds", 0) >= 0
    return rows
