"""A layer and its adapter in one operation: the numbers of peft's own, and peft's own where there is more to it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

import tiny
from errata.models import adapter_off, add_adapter, load_causal
from errata.models.lora import _Adapted, _GatedPart, fuse

IDS = torch.randint(4, 18, (3, 7), generator=torch.Generator().manual_seed(0))


def adapted(folder: Path, build: Any = tiny.llama, **settings: Any) -> Any:
    model = add_adapter(load_causal(build(folder, **settings)), rank=3, alpha=5, seed=0).double()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)
    return model


def as_peft_does(model: Any) -> Any:
    usual = copy.deepcopy(model)
    for module in usual.modules():
        vars(module).pop("forward", None)
    return usual


def gradients(model: Any) -> list[Tensor]:
    value = model(input_ids=IDS).logits.log_softmax(-1).square().sum()
    return [value, *torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad])]


def noting(function: Any, calls: list[str]) -> Any:
    apply = function.apply
    return lambda *arguments: calls.append(function.__name__) or apply(*arguments)


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)
@pytest.mark.parametrize("biased", [False, True])
def test_the_numbers_are_those_of_peft(
    build: Any, biased: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(tmp_path, build, **({"attention_bias": True, "mlp_bias": True} if biased else {}))
    calls: list[str] = []
    for function in (_Adapted, _GatedPart):
        monkeypatch.setattr(function, "apply", noting(function, calls))
    ours = gradients(model)
    # Two layers of four, and their feed-forward parts; GPT-2's layers are of another kind.
    assert sorted(calls) == (["_Adapted"] * 8 + ["_GatedPart"] * 2 if build is tiny.llama else [])
    calls.clear()
    for one, other in zip(ours, gradients(as_peft_does(model)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert not calls
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.1)
    assert gradients(copied)[0] != ours[0], "a copy computes with weights of its own"
    assert torch.equal(gradients(model)[0], ours[0])


def test_the_gradient_is_that_of_a_small_step() -> None:
    random = torch.Generator().manual_seed(0)

    def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
        return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]

    (x,), wide, narrow = drawn((5, 4)), [(6, 4), (6,), (2, 4), (6, 2)], [(4, 6), (4,), (2, 6), (4, 2)]
    x.requires_grad_()
    parts = [drawn(*wide), drawn(*wide), drawn(*narrow)]
    learning = [x, *(tensor.requires_grad_() for part in parts for tensor in part[2:])]
    assert torch.autograd.gradcheck(lambda *_: _Adapted.apply(x, 0.7, *parts[0]), (x, *parts[0][2:]))
    scales, tensors = (0.7, 1.1, 0.4), [tensor for part in parts for tensor in part]
    assert torch.autograd.gradcheck(lambda *_: _GatedPart.apply(x, nn.SiLU(), scales, *tensors), tuple(learning))


def test_layers_of_these_names_that_do_something_else(tmp_path: Path) -> None:
    start: Any = load_causal(tiny.llama(tmp_path))

    class Other(type(start.model.layers[0].mlp)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + x  # type: ignore[no-any-return]

    start.model.layers[0].mlp.__class__ = Other
    expected = start(input_ids=IDS).logits
    model = add_adapter(start, rank=2, alpha=None, seed=0)
    torch.testing.assert_close(model(input_ids=IDS).logits, expected)
    assert ["forward" in vars(layer.mlp) for layer in start.model.layers] == [False, True]


def test_where_there_is_more_to_it_peft_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(tmp_path).float()
    start = load_causal(tmp_path)
    for function in (_Adapted, _GatedPart):
        monkeypatch.setattr(function, "apply", lambda *_: pytest.fail("fused"))
    with adapter_off(model):
        torch.testing.assert_close(model(input_ids=IDS).logits, start(input_ids=IDS).logits)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(input_ids=IDS).logits.dtype == torch.bfloat16
    for name, settings in (("dropout", {"lora_dropout": 0.5}), ("dora", {"use_dora": True})):
        other: Any = load_causal(tmp_path)
        other.add_adapter(LoraConfig(r=2, target_modules="all-linear", **settings), name)
        fuse(other)
        other.train()(input_ids=IDS).logits.sum().backward()
