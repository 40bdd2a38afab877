from __future__ import annotations

import pytest
import torch

from errata.losses import sequence_mean, sequence_sum, token_mean, token_sum

from .pairs import f64

X_BT = f64([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
MASK_BT = torch.tensor([[False, True, True], [True, False, False]])


def test_golden() -> None:
    assert token_sum(X_BT, MASK_BT).item() == 14
    assert token_mean(X_BT, MASK_BT, num_tokens=7).item() == 2
    assert sequence_sum(X_BT, MASK_BT).tolist() == [6, 8]
    assert sequence_mean(X_BT, MASK_BT).tolist() == [3, 8]


def test_micro_batches_with_the_count_of_the_step_give_the_mean_of_the_step() -> None:
    halves = [token_mean(X_BT[b : b + 1], MASK_BT[b : b + 1], num_tokens=3) for b in range(2)]
    assert sum(halves).item() == pytest.approx(token_mean(X_BT, MASK_BT, num_tokens=3).item(), rel=1e-12)


@pytest.mark.parametrize("num_tokens", [0, -1])
def test_a_step_without_tokens_is_an_error(num_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"num_tokens is {num_tokens}"):
        token_mean(X_BT, MASK_BT, num_tokens=num_tokens)
