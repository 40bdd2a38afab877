"""From one value a token to one a sequence, or to the scalar of an optimizer step."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["sequence_mean", "sequence_sum", "token_mean", "token_sum"]


def token_sum(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Σ_{b,t} m_bt x_bt, in the unit of ``x``. Sums of micro-batches add up to that of the batch.

    >>> token_sum(torch.tensor([[1.0, 2.0, float("nan")]]), torch.tensor([[True, True, False]]))
    tensor(3.)
    """
    return torch.where(mask_BT, x_BT, 0).sum()


def token_mean(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], *, num_tokens: int) -> Float[Tensor, ""]:
    """(1/N) Σ_{b,t} m_bt x_bt, in the unit of ``x``.

    Args:
        x_BT: one value a token.
        mask_BT: True where the token counts.
        num_tokens: N, the tokens that count in the *whole optimizer step*: all micro-batches, all processes. A mean of
            micro-batch means would weigh the tokens of a short micro-batch more.

    Raises:
        ValueError: if ``num_tokens`` is less than 1.

    One token here, four in the step:

    >>> token_mean(torch.tensor([[2.0, 5.0]]), torch.tensor([[True, False]]), num_tokens=4)
    tensor(0.5000)
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens is {num_tokens}: no token counts in this optimizer step; skip it, and count it")
    return token_sum(x_BT, mask_BT) / num_tokens


def sequence_sum(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Σ_t m_bt x_bt for each sequence, in the unit of ``x``; 0 where no token counts.

    >>> sequence_sum(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[True, True], [False, True]]))
    tensor([3., 4.])
    """
    return torch.where(mask_BT, x_BT, 0).sum(dim=1)


def sequence_mean(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Σ_t m_bt x_bt / Σ_t m_bt for each sequence, in the unit of ``x``; 0 where no token counts.

    >>> sequence_mean(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[True, True], [False, False]]))
    tensor([1.5000, 0.0000])
    """
    return sequence_sum(x_BT, mask_BT) / mask_BT.sum(dim=1).clamp(min=1)
