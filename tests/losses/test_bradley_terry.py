from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from errata.losses import (
    changed_token_bradley_terry_mean,
    changed_token_bradley_terry_sum,
    sequence_bradley_terry,
    token_bradley_terry,
)

from .pairs import f64, pairs

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# What odds of e³ to 1, for and against, cost
LOSS_OF_3, LOSS_OF_MINUS_3 = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))
EDITED_BT = f64([[50.0, 1.0, 3.0, 8.0]])
EDITED_MASK_BT = torch.tensor([[False, True, True, True]])
ORIGINAL_BU = f64([[50.0, -1.0, 3.0]])
ORIGINAL_MASK_BU = torch.tensor([[False, True, True]])


def test_sequence_golden() -> None:
    loss_B = sequence_bradley_terry(f64([2.0, -1.0, 5.0]), f64([-1.0, 2.0, 5.0]))
    expected_B = f64([LOSS_OF_3, LOSS_OF_MINUS_3, math.log(2)])
    torch.testing.assert_close(loss_B, expected_B, rtol=1e-9, atol=0)


def test_sequence_does_not_overflow() -> None:
    chosen_B = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss_B = sequence_bradley_terry(chosen_B, torch.zeros(2))
    assert loss_B.tolist() == [1e4, 0.0]
    loss_B.sum().backward()
    assert chosen_B.grad is not None
    assert chosen_B.grad.tolist() == [-1.0, 0.0]


def test_token_golden() -> None:
    loss_B = token_bradley_terry(EDITED_BT, EDITED_MASK_BT, ORIGINAL_BU, ORIGINAL_MASK_BU)  # 12/3 − 2/2
    torch.testing.assert_close(loss_B.item(), LOSS_OF_3, rtol=1e-9, atol=0)


CHANGED_BT = torch.tensor([[False, True, True, False]])
CHANGED_BU = torch.tensor([[False, True, False]])


def test_changed_tokens_golden() -> None:
    mean_B = changed_token_bradley_terry_mean(EDITED_BT, CHANGED_BT, ORIGINAL_BU, CHANGED_BU)  # 4/2 − (−1)
    torch.testing.assert_close(mean_B.item(), LOSS_OF_3, rtol=1e-9, atol=0)
    sum_B = changed_token_bradley_terry_sum(EDITED_BT, CHANGED_BT, ORIGINAL_BU, CHANGED_BU)  # 4 − (−1)
    torch.testing.assert_close(sum_B.item(), math.log(1 + math.exp(-5)), rtol=1e-9, atol=0)


@pytest.mark.parametrize("loss", [changed_token_bradley_terry_mean, changed_token_bradley_terry_sum])
def test_an_empty_side_contributes_zero(loss: Loss) -> None:
    nothing_BT, nothing_BU = torch.zeros_like(CHANGED_BT), torch.zeros_like(CHANGED_BU)
    deletion_B = loss(EDITED_BT, nothing_BT, ORIGINAL_BU, CHANGED_BU)  # 0 − (−1)
    torch.testing.assert_close(deletion_B.item(), math.log(1 + math.exp(-1)), rtol=1e-9, atol=0)
    insertion_B = loss(EDITED_BT, torch.tensor([[False, False, True, False]]), ORIGINAL_BU, nothing_BU)  # 3 − 0
    torch.testing.assert_close(insertion_B.item(), LOSS_OF_3, rtol=1e-9, atol=0)
    edited_BT = EDITED_BT.clone().requires_grad_()
    unchanged_B = loss(edited_BT, nothing_BT, ORIGINAL_BU, nothing_BU)
    torch.testing.assert_close(unchanged_B.item(), math.log(2), rtol=1e-9, atol=0)
    unchanged_B.sum().backward()
    assert edited_BT.grad is not None
    assert not edited_BT.grad.any()


@pytest.mark.parametrize("level", [-3.0, 0.7])
def test_the_level_of_rewards_is_free_in_means_and_not_in_sums(level: float) -> None:
    p = pairs(0, kinds=("mixed",))
    # The last pair has no original at all, hence a mean of 0 at any level.
    edited_BT, edited_mask_BT = p.edited["reward"].detach()[:1], p.edited.mask[:1]
    original_BU, original_mask_BU = p.original["reward"].detach()[:1], p.original.mask[:1]

    def shifted(loss: Loss, edited_where_BT: Tensor, original_where_BU: Tensor) -> float:
        before_B = loss(edited_BT, edited_where_BT, original_BU, original_where_BU)
        after_B = loss(edited_BT + level, edited_where_BT, original_BU + level, original_where_BU)
        return (after_B - before_B).abs().item()

    changed_BT, changed_BU = p.edited.where("changed")[:1], p.original.where("changed")[:1]
    assert changed_BT.sum() != changed_BU.sum()
    assert shifted(token_bradley_terry, edited_mask_BT, original_mask_BU) < 1e-12
    assert shifted(changed_token_bradley_terry_mean, changed_BT, changed_BU) < 1e-12
    assert shifted(changed_token_bradley_terry_sum, changed_BT, changed_BU) > 1e-3
