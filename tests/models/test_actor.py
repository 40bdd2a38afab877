from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config

import tiny
from errata.models import Actor, TokenBatch, load_causal, pad, token_entropy, token_logprobs

module = sys.modules["errata.models.actor"]
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
    assert few.splits
    with torch.no_grad():
        found = few(BATCH, temperature, True)
        torch.testing.assert_close(found, whole(BATCH, temperature, True), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[0], token_logprobs(model, BATCH, temperature=temperature))
        torch.testing.assert_close(found[1], token_entropy(model, BATCH, temperature=temperature), rtol=1e-5, atol=1e-6)
        assert not whole(BATCH, temperature)[1].any(), "none was asked for"
    for one, other in zip(gradients(whole, BATCH, temperature), gradients(few, BATCH, temperature), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [2, 5], ids=["a few at a time", "all at once"])
@pytest.mark.parametrize("learns", ["hidden", "weight", "bias", "all"])
def test_the_gradient_is_that_of_a_small_step(learns: str, rows: int) -> None:
    random = torch.Generator().manual_seed(0)
    shapes = {"hidden": (5, 3), "weight": (7, 3), "bias": (7,)}
    given = {
        name: torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_(learns in (name, "all"))
        for name, shape in shapes.items()
    }
    target_N = torch.tensor([0, 3, 3, 6, 1])

    def logprobs(*tensors: torch.Tensor) -> torch.Tensor:
        return module._Logprobs.apply(*tensors, target_N, 0.7, rows, False)[0]  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(logprobs, tuple(given.values()))


@pytest.mark.parametrize("rows", [2, 5], ids=["a few at a time", "all at once"])
def test_a_token_that_is_impossible_adds_no_entropy(rows: int) -> None:
    hidden_ND, weight_VD, bias_V = torch.zeros(5, 2), torch.ones(3, 2), torch.tensor([0.0, 0.0, -torch.inf])
    target_N = torch.tensor([0, 1, 0, 1, 2])
    logprob_N, entropy_N = module._Logprobs.apply(hidden_ND, weight_VD, bias_V, target_N, 1.0, rows, True)
    torch.testing.assert_close(logprob_N, torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0]).log())
    torch.testing.assert_close(entropy_N, torch.full((5,), math.log(2)))


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


def test_a_soft_cap_is_not_lost(tmp_path: Path) -> None:
    """Gemma 2 bends its logits after the output layer."""
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.5}
    common = tiny._common("<pad>")
    config = Gemma2Config(**sizes, **heads, **common, final_logit_softcapping=1.0)
    model = load_causal(tiny.save(tmp_path, config, 0, "<pad>"))
    actor = Actor(model, logits_at_once=FEW)
    assert not actor.splits
    with torch.no_grad():
        assert torch.equal(actor(BATCH)[0], token_logprobs(model, BATCH))
