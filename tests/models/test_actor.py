from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from errata.models import Actor, TokenBatch, load_causal, pad, token_entropy, token_logprobs

module = sys.modules["errata.models.logprobs"]
ENCODER = tiny.encoder()
BATCH = pad(tiny.encoded(tiny.demonstrations(6, seed=3), ENCODER), pad_id=ENCODER.pad_id)
FEW = 18 * 3  # three response tokens at a time


def gradients(actor: Actor, batch: TokenBatch, temperature: float) -> list[torch.Tensor]:
    logprob_BT, _ = actor(batch, temperature)
    weights_BT = torch.randn(logprob_BT.shape, generator=torch.Generator().manual_seed(0))
    return list(torch.autograd.grad((logprob_BT * weights_BT).sum(), list(actor.parameters())))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2, tiny.opt], ids=lambda build: build.__name__)
def test_a_few_tokens_at_a_time_give_the_same(build: Any, temperature: float, tmp_path: Path) -> None:
    model = load_causal(build(tmp_path))
    whole, few = Actor(model), Actor(model, logits_at_once=FEW)
    with torch.no_grad():
        found = few(BATCH, temperature, True)
        torch.testing.assert_close(found, whole(BATCH, temperature, True), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[0], token_logprobs(model, BATCH, temperature=temperature))
        torch.testing.assert_close(found[1], token_entropy(model, BATCH, temperature=temperature), rtol=1e-5, atol=1e-6)
        assert not whole(BATCH, temperature)[1].any(), "none was asked for"
    for one, other in zip(gradients(whole, BATCH, temperature), gradients(few, BATCH, temperature), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_never_more_logits_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor(load_causal(tiny.llama(tmp_path)), logits_at_once=FEW)
    shapes: list[torch.Size] = []

    def noted(*arguments: Any, compute: Any = module._tempered) -> torch.Tensor:
        logits: torch.Tensor = compute(*arguments)
        shapes.append(logits.shape)
        return logits

    monkeypatch.setattr(module, "_tempered", noted)
    gradients(actor, BATCH, 1.0)
    assert shapes
    assert max(math.prod(shape) for shape in shapes) <= FEW
    tokens = int(BATCH.response_mask_BT.sum())
    assert sum(shape[0] for shape in shapes) == 2 * tokens, "forward and again backward, of response tokens only"
