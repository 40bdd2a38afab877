from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from errata.losses import changed_token_classes, soft_token_classes
from errata.types import Label

from .pairs import f64

MASK_BT = torch.tensor([[False, True, True, True, True]])


def test_golden() -> None:
    reward_BT = f64([[9.0, 2.0, 2.0, -3.0, -3.0]])
    loss_BT = changed_token_classes(reward_BT, torch.tensor([[9, 1, -1, -1, 0]]), MASK_BT, kept_coefficient=0.1)
    good, bad, harmless = (math.log(1 + math.exp(x)) for x in (-2, 2, -3))
    torch.testing.assert_close(loss_BT, f64([[0.0, good, bad, harmless, 0.9]]), rtol=1e-7, atol=0)


def test_the_kept_coefficient_touches_kept_tokens_only() -> None:
    reward_BT, label_BT = torch.tensor([[9.0, 2.0, 2.0, -3.0, -3.0]]), torch.tensor([[0, 1, -1, -1, 0]])
    without_BT, with_BT = (changed_token_classes(reward_BT, label_BT, MASK_BT, kept_coefficient=c) for c in (0.0, 0.5))
    assert (with_BT - without_BT).tolist() == [[0.0, 0.0, 0.0, 0.0, 4.5]]


@pytest.mark.parametrize("label", [Label.DELETED, Label.SUBSTITUTED, -2])
def test_operations_are_not_classes(label: int) -> None:
    label_BT = torch.tensor([[5, 1, 0, int(label), 0]])
    with pytest.raises(ValueError, match=rf"label_BT\[0, 3\] is {int(label)}: .*\+1 for good"):
        changed_token_classes(torch.zeros(1, 5), label_BT, MASK_BT, kept_coefficient=0.1)


def test_soft_golden() -> None:
    reward_BT = f64([[9.0, 2.0, 2.0, -3.0, 4.0]])
    loss_BT = soft_token_classes(reward_BT, f64([[9.0, 1.0, 0.0, 0.5, 0.25]]), MASK_BT)
    good, bad = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    kept = (math.log(1 + math.exp(3)) + math.log(1 + math.exp(-3))) / 2
    between = 0.25 * math.log(1 + math.exp(-4)) + 0.75 * math.log(1 + math.exp(4))
    torch.testing.assert_close(loss_BT, f64([[0.0, good, bad, kept, between]]), rtol=1e-7, atol=0)


@given(st.floats(0.02, 0.98), st.floats(-6, 6))
def test_a_soft_target_is_least_at_its_own_logit(target: float, elsewhere: float) -> None:
    logit = math.log(target / (1 - target))
    least, other = soft_token_classes(f64([[logit, elsewhere]]), f64([[target] * 2]), torch.ones(1, 2).bool())[0]
    assert least <= other + 1e-12


def test_hard_classes_are_soft_targets_where_tokens_changed() -> None:
    reward_BT, label_BT = f64([[9.0, 2.0, -1.5, 0.3, 7.0]]), torch.tensor([[0, 1, -1, -1, 1]])
    hard_BT = changed_token_classes(reward_BT, label_BT, MASK_BT, kept_coefficient=0.1)
    torch.testing.assert_close(soft_token_classes(reward_BT, (label_BT + 1) / 2, MASK_BT), hard_BT)


@pytest.mark.parametrize("target", [-0.5, 1.5, math.nan])
def test_a_target_is_a_probability(target: float) -> None:
    with pytest.raises(ValueError, match=r"target_BT\[0, 2\] is .*1 for good, 0 for bad"):
        soft_token_classes(torch.zeros(1, 5), torch.tensor([[7.0, 1.0, target, 0.5, 0.0]]), MASK_BT)
