"""The room as its users meet it: documented names, and shapes that are checked in tests."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import jaxtyping
import pytest
import torch

from errata import losses

MODULES = sorted(module.name for module in pkgutil.iter_modules(losses.__path__))


@pytest.mark.parametrize("name", losses.__all__)
def test_public_names_are_documented_with_an_example(name: str) -> None:
    documented = getattr(losses, name).__doc__ or ""
    examples = doctest.DocTestParser().get_examples(documented)
    assert any(example.want for example in examples), f"{name} shows no result"


def test_the_room_exports_what_its_modules_export() -> None:
    modules = [importlib.import_module(f"errata.losses.{name}") for name in MODULES]
    assert sorted(name for module in modules for name in module.__all__) == losses.__all__


def test_one_mask_for_both_texts_is_a_type_error() -> None:
    reward_BT, mask_BT = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.token_bradley_terry(reward_BT, mask_BT, torch.zeros(2, 4), mask_BT)


def test_a_mask_of_integers_is_a_type_error() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.token_sum(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.long))


def test_an_int_is_a_float() -> None:
    assert losses.kl_penalty(*torch.tensor([[[2.0]], [[3.0]]]), torch.tensor([[True]]), kl_coefficient=1).tolist() == [
        [1.0]
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_stays(dtype: torch.dtype) -> None:
    x_BT, mask_BT = torch.tensor([[0.5, -1.0]], dtype=dtype), torch.tensor([[True, False]])
    found = losses.moments(x_BT, mask_BT)
    outputs = [
        losses.token_mean(x_BT, mask_BT, num_tokens=2),
        losses.sequence_mean(x_BT, mask_BT),
        losses.weighted_nll(x_BT, x_BT, mask_BT),
        losses.changed_token_classes(x_BT, torch.tensor([[1, 0]]), mask_BT, kept_coefficient=0.1),
        losses.kl_k3(x_BT, x_BT, mask_BT),
        losses.clipped_surrogate(x_BT, x_BT, x_BT, mask_BT, clip_range=0.2),
        losses.clipped_value_loss(x_BT, x_BT, x_BT, mask_BT, clip_range=0.2),
        losses.whiten_keeping_mean(x_BT, mask_BT, mean=found.mean, variance=found.variance),
        *losses.gae(x_BT, x_BT, mask_BT, torch.tensor([False]), x_BT[:, 0], discount=1.0, gae_lambda=0.95),
    ]
    assert {out.dtype for out in outputs} == {dtype}
