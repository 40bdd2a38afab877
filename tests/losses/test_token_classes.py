from __future__ import annotations

import math

import pytest
import torch

from errata.losses import changed_token_classes
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
