"""What PPO should find is known: π*(y) ∝ π_start(y)·exp(r(y) / β) has the highest E[r] − β·KL(π ‖ π_start)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from errata.models import load_causal
from errata.tuning import PPOConfig, train_ppo
from errata.types import Encoded
from tuning.ppo_toy import ENCODER, PROMPTS

pytestmark = pytest.mark.slow

PROMPT = PROMPTS[:1]
VOCABULARY = len(ENCODER.tokenizer)
PAY_VV = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))
"""What a second token is paid after a first one; the diagonal is the first one's own."""
CONFIG = PPOConfig(
    rollouts_per_step=256,
    minibatch_size=256,
    micro_batch_size=256,
    schedule="linear",
    samples_per_step=0,
    save_every=1000,
    gae_lambda=1.0,
)


def pays(rows: Sequence[Encoded]) -> list[list[float]]:
    return [
        [float(PAY_VV[first, second]) for first, second in zip(ids[:1] + ids[:-1], ids, strict=True)]
        for ids in (row.response_ids for row in rows)
    ]


@torch.no_grad()
def chances(folder: Path, length: int) -> Tensor:
    """The probability of every response of one token, or of two: (V,), or (V, V)."""
    model = load_causal(folder)
    prompt = torch.tensor([ENCODER.prompt_ids(PROMPT[0].prompt)])
    first_V = model(input_ids=prompt).logits[0, -1].double().softmax(-1)
    if length == 1:
        return first_V
    rows = torch.cat([prompt.expand(VOCABULARY, -1), torch.arange(VOCABULARY)[:, None]], dim=1)
    chances_VV = first_V[:, None] * model(input_ids=rows).logits[:, -1].double().softmax(-1)
    # A response that ended has no second token.
    chances_VV[ENCODER.end_id] = 0
    chances_VV[ENCODER.end_id, ENCODER.end_id] = first_V[ENCODER.end_id]
    return chances_VV


def pay_of_all(length: int) -> Tensor:
    own_V = PAY_VV.diagonal().double()
    if length == 1:
        return own_V
    pay_VV = own_V[:, None] + PAY_VV.double()
    pay_VV[ENCODER.end_id, ENCODER.end_id] = own_V[ENCODER.end_id]
    return pay_VV


def kl(p: Tensor, q: Tensor) -> float:
    return float(torch.where(p > 0, p * (p.clamp(min=1e-300) / q.clamp(min=1e-300)).log(), 0.0).sum())


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"), initializer_range=0.2)


@pytest.mark.parametrize(
    ("length", "beta", "settings", "near"),
    [
        # The reward of one token has no future; the critic is there and learns.
        (1, 0.5, {"steps": 40, "learning_rate": 0.02, "value_learning_rate": 0.01, "discount": 0.0}, 0.002),
        # A critic that stays at 0, for every response that is cut off after two tokens would bootstrap its values.
        (2, 1.0, {"steps": 50, "learning_rate": 0.01, "value_learning_rate": 0.0, "discount": 1.0}, 0.08),
    ],
    ids=["one token", "two tokens"],
)
def test_ppo_comes_near_the_known_optimum(
    length: int, beta: float, settings: dict[str, Any], near: float, start: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, **settings, max_new_tokens=length, kl_coefficient=beta)
    train_ppo(start, pays, PROMPT, ENCODER, config, tmp_path / "out")
    before, after = chances(start, length), chances(tmp_path / "out", length)
    assert float(before.sum()) == pytest.approx(1)

    def optimum(beta: float) -> Tensor:
        best = before * (pay_of_all(length) / beta).exp()
        return best / best.sum()

    distance = kl(after, optimum(beta))
    assert distance < near < 0.2 * kl(before, optimum(beta))
    for other in (beta / 2, beta * 2):
        assert kl(after, optimum(other)) > 1.5 * distance, "it is the optimum of this penalty and of no other"
