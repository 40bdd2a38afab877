"""Bring a stream to unit variance, with moments that the trainer has added up over all processes.

Losses know no collective: take ``moments`` on each process, add the three numbers up, then whiten by the sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

__all__ = ["Moments", "moments", "rescale", "whiten", "whiten_keeping_mean"]


class Moments(NamedTuple):
    """Three sums over the tokens that count. Those of two processes, added one by one, are those of the whole.

    They are float64, because the variance is a small difference of large numbers.

    >>> mask_BT = torch.tensor([[True]])
    >>> ours, theirs = moments(torch.tensor([[1.0]]), mask_BT), moments(torch.tensor([[3.0]]), mask_BT)
    >>> both = Moments(*(torch.stack(ours) + torch.stack(theirs)))
    >>> both.mean.item(), both.variance.item()
    (2.0, 1.0)
    """

    num_tokens: Float64[Tensor, ""]
    """Σ m"""
    sum: Float64[Tensor, ""]
    """Σ m x"""
    sum_of_squares: Float64[Tensor, ""]
    """Σ m x²"""

    @property
    def mean(self) -> Float64[Tensor, ""]:
        """Σ m x / Σ m; 0 where no token counts."""
        return self.sum / self.num_tokens.clamp(min=1)

    @property
    def variance(self) -> Float64[Tensor, ""]:
        """Σ m (x − mean)² / Σ m, the population's variance; 0 where no token counts."""
        return (self.sum_of_squares / self.num_tokens.clamp(min=1) - self.mean.square()).clamp(min=0)


def moments(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Moments:
    """The sums from which mean and variance over all processes are made; no gradient.

    >>> moments(torch.tensor([[1.0, 3.0, 50.0]]), torch.tensor([[True, True, False]])).variance.item()
    1.0
    """
    x_BT = torch.where(mask_BT, x_BT.detach(), 0).double()
    return Moments(num_tokens=mask_BT.sum().double(), sum=x_BT.sum(), sum_of_squares=x_BT.square().sum())


def whiten(
    x_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    mean: float | Float[Tensor, ""],
    variance: float | Float[Tensor, ""],
    eps: float = 1e-8,
) -> Float[Tensor, "B T"]:
    """(x_t − mean) / √(variance + eps), 0 outside the mask: for advantages.

    >>> whiten(torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([[True, True, False]]), mean=2.0, variance=4.0)
    tensor([[-0.5000,  0.5000,  0.0000]])
    """
    return rescale(x_BT - mean, mask_BT, variance=variance, eps=eps)


def whiten_keeping_mean(
    x_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    mean: float | Float[Tensor, ""],
    variance: float | Float[Tensor, ""],
    eps: float = 1e-8,
) -> Float[Tensor, "B T"]:
    """(x_t − mean) / √(variance + eps) + mean, 0 outside the mask.

    This is what AlpacaFarm and TRL call whitening rewards "without mean shift" (``shift_mean=False``), hence Xu et
    al.'s recipe. It may change the sign of a reward; ``rescale`` does not.

    >>> x_BT, mask_BT = torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([[True, True, False]])
    >>> whiten_keeping_mean(x_BT, mask_BT, mean=2.0, variance=4.0)
    tensor([[1.5000, 2.5000, 0.0000]])
    """
    return torch.where(mask_BT, whiten(x_BT, mask_BT, mean=mean, variance=variance, eps=eps) + mean, 0)


def rescale(
    x_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    variance: float | Float[Tensor, ""],
    eps: float = 1e-8,
) -> Float[Tensor, "B T"]:
    """x_t / √(variance + eps), 0 outside the mask: 0 stays 0 and signs stay, as dense rewards need.

    >>> rescale(torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([[True, True, False]]), variance=4.0)
    tensor([[0.5000, 1.5000, 0.0000]])
    """
    return torch.where(mask_BT, x_BT, 0) / (variance + eps) ** 0.5
