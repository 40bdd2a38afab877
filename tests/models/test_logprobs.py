from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import CohereConfig, Gemma2Config, GraniteConfig, PretrainedConfig

import tiny
from errata.models import TokenBatch, load_causal, pad, token_entropy, token_logprobs
from errata.models.logprobs import Finish, finish_of, head_logprobs, predicting, read_logprobs
from errata.types import Encoded

module = sys.modules["errata.models.logprobs"]

ROWS = tiny.encoded(tiny.demonstrations(7, seed=3), tiny.encoder())
ROWS += [Encoded(ROWS[0].ids[: ROWS[0].prompt_length], ROWS[0].prompt_length, (), False)]  # nothing was answered

every_model = pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)


def one_by_one(model: Any, row: Encoded) -> tuple[list[float], list[float]]:
    """Log-probability and entropy of every response token, from a forward pass without padding."""
    logits_TV = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    logprobs, entropies = [], []
    for t in range(row.prompt_length, len(row.ids)):
        logprob_V = logits_TV[t - 1].log_softmax(-1)
        logprobs.append(float(logprob_V[row.ids[t]]))
        entropies.append(float(-sum(p.exp() * p for p in logprob_V)))
    return logprobs, entropies


@every_model
@torch.no_grad()
def test_they_are_those_of_a_plain_loop(build: Any, tmp_path: Path) -> None:
    model = load_causal(build(tmp_path))
    batch = pad(ROWS, pad_id=0)
    logprob_BT, entropy_BT = token_logprobs(model, batch), token_entropy(model, batch)
    assert len({row.prompt_length for row in ROWS}) > 2
    for b, row in enumerate(ROWS):
        expected = one_by_one(model, row)
        for stream_BT, values in zip((logprob_BT, entropy_BT), expected, strict=True):
            assert stream_BT[b, row.prompt_length : len(row.ids)].tolist() == pytest.approx(values, rel=1e-4, abs=1e-5)
            assert stream_BT[b, : row.prompt_length].count_nonzero() == 0
            assert stream_BT[b, len(row.ids) :].count_nonzero() == 0
    assert logprob_BT.std() > 0.3, "a uniform model would pass with any shift"


@every_model
def test_padding_matters_neither_to_value_nor_gradient(build: Any, tmp_path: Path) -> None:
    model = load_causal(build(tmp_path))
    found = []
    for pad_id in (0, 2, 9):
        model.zero_grad()
        logprob_BT = token_logprobs(model, pad(ROWS, pad_id=pad_id))
        logprob_BT.sum().backward()
        found.append((logprob_BT.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    for logprob_BT, gradients in found[1:]:
        assert torch.equal(logprob_BT, found[0][0])
        for one, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(one, other)


@torch.no_grad()
def test_wider_padding_and_other_rows_change_nothing(tmp_path: Path) -> None:
    model = load_causal(tiny.llama(tmp_path))
    batch = pad(ROWS, pad_id=0)
    wide = TokenBatch(
        torch.nn.functional.pad(batch.ids_BT, (0, 5), value=4),
        torch.nn.functional.pad(batch.attention_mask_BT, (0, 5)),
        torch.nn.functional.pad(batch.response_mask_BT, (0, 5)),
    )
    width = batch.ids_BT.shape[1]
    torch.testing.assert_close(token_logprobs(model, wide)[:, :width], token_logprobs(model, batch))
    some = batch[torch.tensor([4, 1])]
    torch.testing.assert_close(token_logprobs(model, some), token_logprobs(model, batch)[[4, 1]])


FINISHES = [Finish(), Finish(scale=0.4), Finish(cap=2.0), Finish(scale=3.0, cap=1.5)]


def drawn(tokens: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, nn.Linear, Tensor]:
    """Hidden states of 3, an output layer of 7 and targets."""
    random = torch.Generator().manual_seed(seed)
    head = nn.Linear(3, 7, dtype=dtype)
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=random)
    return (
        torch.randn((tokens, 3), generator=random, dtype=dtype).requires_grad_(),
        head,
        torch.randint(7, (tokens,), generator=random),
    )


def plainly(head: nn.Module, hidden_ND: Tensor, target_N: Tensor, finish: Finish, temperature: float) -> Tensor:
    x = head(hidden_ND) * finish.scale
    x = x if finish.cap is None else finish.cap * (x / finish.cap).tanh()
    return (x / temperature).log_softmax(-1).gather(-1, target_N[:, None])[:, 0]


@settings(max_examples=40)
@given(
    tokens=st.integers(0, 9),
    rows=st.sampled_from([1, 2, 9, 12]),
    finish=st.sampled_from(FINISHES),
    temperature=st.sampled_from([1.0, 0.7]),
    learns=st.sampled_from(["hidden", "head", "both"]),
    adapter=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_few_tokens_at_a_time_are_those_of_the_plain_path(
    tokens: int, rows: int, finish: Finish, temperature: float, learns: str, adapter: bool, seed: int
) -> None:
    hidden_ND, plain, target_N = drawn(tokens, seed=seed)
    head: Any = plain
    if adapter:
        wrapped = inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), nn.Sequential(plain))
        head = wrapped.get_submodule("0")
        nn.init.normal_(head.lora_B["default"].weight)
        head.double()
    hidden_ND.requires_grad_(learns != "head")
    for parameter in head.parameters():
        parameter.requires_grad_(
            learns != "hidden" and parameter is not plain.weight if adapter else learns != "hidden"
        )
    found, nothing = head_logprobs(head, hidden_ND, target_N, finish, temperature, at_once=7 * rows)
    expected = plainly(head, hidden_ND, target_N, finish, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not nothing.any(), "no entropy was asked for"
    weight_N = torch.randn(tokens, generator=torch.Generator().manual_seed(1), dtype=found.dtype)
    learning = [x for x in (hidden_ND, *head.parameters()) if x.requires_grad]
    ours, theirs = (torch.autograd.grad((x * weight_N).sum(), learning) for x in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    _, entropy_N = head_logprobs(head, hidden_ND, target_N, finish, temperature, True, at_once=7 * rows)
    every = [plainly(head, hidden_ND, torch.full_like(target_N, v), finish, temperature) for v in range(7)]
    torch.testing.assert_close(entropy_N, -sum(x.exp() * x for x in every), check_dtype=False)
    assert not entropy_N.requires_grad


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
@pytest.mark.parametrize("finish", FINISHES, ids=str)
@pytest.mark.parametrize("learns", ["hidden", "weight", "bias", "all"])
def test_the_gradient_is_that_of_a_small_step(learns: str, finish: Finish, rows: int) -> None:
    hidden_ND, head, target_N = drawn(5)
    given = {"hidden": hidden_ND, "weight": head.weight, "bias": head.bias}
    tensors = tuple(x.detach().requires_grad_(learns in (name, "all")) for name, x in given.items())

    def logprobs(*tensors: Tensor) -> Tensor:
        found: Tensor = module._Logprobs.apply(*tensors, target_N, finish, 0.7, rows, False)[0]
        return found

    assert torch.autograd.gradcheck(logprobs, tensors)


@pytest.mark.parametrize("rows", [2, 5], ids=["a few at a time", "all at once"])
def test_a_token_that_is_impossible_adds_no_entropy(rows: int) -> None:
    hidden_ND, weight_VD, bias_V = torch.zeros(5, 2), torch.ones(3, 2), torch.tensor([0.0, 0.0, -torch.inf])
    target_N = torch.tensor([0, 1, 0, 1, 2])
    logprob_N, entropy_N = module._Logprobs.apply(hidden_ND, weight_VD, bias_V, target_N, Finish(), 1.0, rows, True)
    torch.testing.assert_close(logprob_N, torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0]).log())
    torch.testing.assert_close(entropy_N, torch.full((5,), math.log(2)))


SIZES: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "initializer_range": 0.5}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 2, **tiny._common("<pad>")}
BENT: dict[str, tuple[PretrainedConfig, Finish]] = {
    "gemma 2": (Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=1.0), Finish(cap=1.0)),
    "cohere": (CohereConfig(**SIZES, logit_scale=0.3), Finish(scale=0.3)),
    "granite": (GraniteConfig(**SIZES, logits_scaling=4.0), Finish(scale=0.25)),
}


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen head", "trained head"])
@pytest.mark.parametrize("name", BENT)
def test_what_a_model_does_to_its_logits_is_not_lost(name: str, frozen: bool, tmp_path: Path) -> None:
    config, finish = BENT[name]
    model: Any = load_causal(tiny.save(tmp_path, config, 0, "<pad>"))
    assert finish_of(model) == finish
    model.get_output_embeddings().weight.requires_grad_(not frozen)
    batch = pad(ROWS, pad_id=0)
    mask_BT = batch.response_mask_BT
    found, _ = read_logprobs(
        model, {"input_ids": batch.ids_BT}, predicting(mask_BT), batch.ids_BT[mask_BT], at_once=18 * 3
    )
    logits_BTV = model(input_ids=batch.ids_BT, attention_mask=batch.attention_mask_BT.long()).logits
    expected = logits_BTV.log_softmax(-1)[:, :-1].gather(-1, batch.ids_BT[:, 1:, None])[..., 0][mask_BT[:, 1:]]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    learning = [p for p in model.parameters() if p.requires_grad]
    weight_N = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad((x * weight_N).sum(), learning) for x in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_is_not_known_of_a_model_is_said_and_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model: Any = load_causal(tiny.llama(tmp_path))
    usual = type(model).forward

    class Clipped(type(model)):  # type: ignore[misc]
        def forward(self, *arguments: Any, **named: Any) -> Any:
            output = usual(self, *arguments, **named)
            output.logits = output.logits.clamp(-1.0, 1.0)
            return output

    model.__class__ = Clipped
    batch = pad(ROWS, pad_id=0)
    found = token_logprobs(model, batch)
    assert "all logits are held" in caplog.text
    expected, _ = one_by_one(model, ROWS[0])
    assert found[0][batch.response_mask_BT[0]].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    caplog.clear()
    token_logprobs(model, batch)
    assert not caplog.text, "once"


def test_in_bfloat16_logarithms_are_not(tmp_path: Path) -> None:
    model: Any = load_causal(tiny.llama(tmp_path))
    for parameter in model.get_output_embeddings().parameters():
        parameter.requires_grad_(False)
    batch = pad(ROWS, pad_id=0)
    full = token_logprobs(model, batch)
    slopes = torch.autograd.grad(full.sum(), model.model.layers[0].mlp.up_proj.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = token_logprobs(copy.deepcopy(model), batch), token_logprobs(model, batch)
    assert half[0].dtype == torch.float32
    assert torch.equal(*half), "tried out inside or outside of autocast"
    assert 0 < float((half[1] - full).detach().abs().mean()) < 0.1
    rough = torch.autograd.grad(half[1].sum(), model.model.layers[0].mlp.up_proj.weight)[0]
    assert torch.cosine_similarity(rough.flatten(), slopes.flatten(), dim=0) > 0.99
