"""What the tests of PPO share: prompts, rewards that are known exactly, and settings for a model of a few weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

import tiny
from errata.data import Encoder
from errata.models import load_sequence_reward_model, load_token_reward_model, save_model
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


pays_for_cats.identity = "one for each cat"  # type: ignore[attr-defined]
pays_at_the_end.identity = "different words, at the end"  # type: ignore[attr-defined]

DENSE = Stream(name="cats", reward=pays_for_cats)
TERMINAL = Stream(name="words", reward=pays_at_the_end, terminal=True, centred=True)


def lines_of(out: Path, name: str = "metrics") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, or of samples.jsonl, but for the time that they took."""
    rows = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("seconds", 0) >= 0
    return rows


def llama(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A start for any tokenizer."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_model(LlamaForCausalLM(config), tokenizer, folder)
    return folder


def reward_model(
    folder: Path, tokenizer: PreTrainedTokenizerBase, *, kind: str = "token", template: str = "auto", seed: int = 1
) -> Path:
    """One that has learned nothing: its head is noise."""
    start, encoder = llama(folder / "start", tokenizer), Encoder(tokenizer, template=template)
    model: Any = (
        load_token_reward_model(start)
        if kind == "token"
        else load_sequence_reward_model(start, pad_id=encoder.pad_id, end_id=encoder.end_id)
    )
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(seed))
    card = {"stage": "reward", "kind": kind, "objective": "changed_token_classes", "fingerprint": f"{kind} {seed}"}
    card |= {"tokenizer": encoder.fingerprint, "template": encoder.template}
    save_model(model, tokenizer, folder / kind, card=card)
    return folder / kind
