"""The weighted negative log-likelihood: supervised fine-tuning is the case of weights 1."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["weighted_nll"]


def weighted_nll(
    logprob_BT: Float[Tensor, "B T"], weight_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """−w_t · log π(y_t | x, y_<t) in nats, 0 outside the mask.

    Weights have any sign and size: a negative one pushes the token down, and none is ever masked for being small. A
    token of weight 0 is exactly as masked, even where its log-probability is −∞. Weights are data: they get no
    gradient.

    Args:
        logprob_BT: log-probability of token t, in nats.
        weight_BT: weight of token t.
        mask_BT: True where the token counts.

    >>> logprob_BT, mask_BT = torch.tensor([[-2.0, -3.0, -5.0]]), torch.tensor([[True, True, False]])
    >>> weighted_nll(logprob_BT, torch.tensor([[1.0, -0.5, 1.0]]), mask_BT)
    tensor([[ 2.0000, -1.5000,  0.0000]])
    """
    weight_BT = weight_BT.detach()
    counts_BT = mask_BT & (weight_BT != 0)
    return torch.where(counts_BT, -weight_BT, 0) * torch.where(counts_BT, logprob_BT, 0)
