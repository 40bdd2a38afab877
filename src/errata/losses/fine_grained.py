"""FIGA: imitate what a correction wrote, push down what it removed (Guo et al., ICLR 2024, arXiv 2311.04072).

The edited text is the paper's ỹ, the original its ŷ. The paper's α, γ and β arrive as weights, one a token; see
``figa`` for which token has which.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from errata.losses.nll import weighted_nll

__all__ = ["FigaTerms", "figa", "figa_loss", "gate_band", "gate_below"]


def gate_below(logprob_BU: Float[Tensor, "B U"], *, threshold: float) -> Bool[Tensor, "B U"]:
    """CE_t ≤ threshold, where CE_t = −log π(ŷ_t): the gate of FIGA's released code (threshold .6 nats, inclusive).

    A bad token is pushed down only while the model is confident in it, p ≥ exp(−threshold); with no reference model
    and no KL, this is what bounds the negative term. Recomputed with the current model; carries no gradient.

    Args:
        logprob_BU: log-probabilities of the original's tokens, in nats. NaN is shut.
        threshold: largest cross-entropy that passes, in nats.

    >>> import torch
    >>> gate_below(torch.tensor([[-0.5, -0.75, -2.0]]), threshold=0.75)
    tensor([[ True,  True, False]])
    """
    return -logprob_BU <= threshold


def gate_band(logprob_BU: Float[Tensor, "B U"], *, low: float, high: float) -> Bool[Tensor, "B U"]:
    """The band low ≤ CE_t ≤ high, where CE_t = −log π(ŷ_t): the gate of FIGA's earlier code (.6 to 1 nats).

    Both ends are inclusive. Which of the two gates the paper's numbers used is unknown. Carries no gradient.

    Args:
        logprob_BU: log-probabilities of the original's tokens, in nats. NaN is shut.
        low: smallest cross-entropy that passes, in nats.
        high: largest cross-entropy that passes, in nats.

    >>> import torch
    >>> gate_band(torch.tensor([[-0.25, -0.5, -1.0, -2.0]]), low=0.5, high=1.0)
    tensor([[False,  True,  True, False]])
    """
    return (low <= -logprob_BU) & (-logprob_BU <= high)


class FigaTerms(NamedTuple):
    """FIGA before the division by N: a loss for each token of either side, and which tokens N counts.

    >>> import torch
    >>> edited_loss_BT, original_loss_BU = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[-0.5, 0.0]])
    >>> terms = FigaTerms(edited_loss_BT, original_loss_BU, edited_loss_BT != 0, original_loss_BU != 0)
    >>> terms.total, terms.num_tokens
    (tensor(2.5000), tensor(3))
    """

    edited_loss_BT: Float[Tensor, "B T"]
    """w_t · CE_t(ỹ) in nats, 0 where the token does not count."""
    original_loss_BU: Float[Tensor, "B U"]
    """−β_t · CE_t(ŷ) in nats, 0 where the token does not count."""
    counts_BT: Bool[Tensor, "B T"]
    """The edited side's share of N: masked in, weight not 0."""
    counts_BU: Bool[Tensor, "B U"]
    """The original side's share of N: masked in, weight not 0, through the gate."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """The sum of both sides' losses, in nats: what a micro-batch sends backward."""
        return self.edited_loss_BT.sum() + self.original_loss_BU.sum()

    @property
    def num_tokens(self) -> Int[Tensor, ""]:
        """N of this micro-batch, in tokens: what the optimizer step adds up."""
        return self.counts_BT.sum() + self.counts_BU.sum()


def figa(
    edited_logprob_BT: Float[Tensor, "B T"],
    edited_weight_BT: Float[Tensor, "B T"],
    edited_mask_BT: Bool[Tensor, "B T"],
    original_logprob_BU: Float[Tensor, "B U"],
    original_weight_BU: Float[Tensor, "B U"],
    original_mask_BU: Bool[Tensor, "B U"],
    gate_BU: Bool[Tensor, "B U"],
) -> FigaTerms:
    """The terms of L = [ Σ_t w_t CE_t(ỹ) − Σ_{t: gate} β_t CE_t(ŷ) ] / N, where CE_t(y) = −log π(y_t | x, y_<t).

    The loss of Guo et al. 2024 (arXiv 2311.04072) as their released code has it. N = number of tokens with a weight
    other than 0, both sides, gate survivors only.

    - Edited side: w = α (1) on inserted and substitute tokens *and on the end of sequence*, γ (0) on kept ones.
    - Original side: β (.5) on deleted and substituted tokens, 0 on kept ones and on the end of sequence. **β is a
      magnitude: pass +.5**, this function puts the minus sign.

    Traps: a pure deletion has no positive token but the end of sequence, and truncation may cut that one. N counts
    survivors, so the positive weight of a token rises when few negatives survive, and jumps when γ leaves 0. N belongs
    to the whole optimizer step and is known only after its last forward pass: send ``terms.total`` backward for each
    micro-batch, add up ``terms.num_tokens`` over micro-batches and processes, and scale the gradients by 1/N before
    clipping them.

    Args:
        edited_logprob_BT: log π(ỹ_t) in nats.
        edited_weight_BT: w_t, any sign.
        edited_mask_BT: True on the response of the edited side.
        original_logprob_BU: log π(ŷ_t) in nats.
        original_weight_BU: β_t ≥ 0.
        original_mask_BU: True on the response of the original side.
        gate_BU: from ``gate_below`` or ``gate_band``, of the same ``original_logprob_BU``.

    Raises:
        ValueError: if a weight of the original side is negative.

    One inserted token and EOS; two deleted tokens, of which the model is confident in the first:

    >>> import torch
    >>> original_logprob_BU = torch.tensor([[-0.5, -2.0]])
    >>> terms = figa(
    ...     torch.tensor([[-0.25, -3.0, -1.0]]), torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[True, True, True]]),
    ...     original_logprob_BU, torch.tensor([[0.5, 0.5]]), torch.tensor([[True, True]]),
    ...     gate_below(original_logprob_BU, threshold=0.6),
    ... )
    >>> terms.edited_loss_BT, terms.original_loss_BU
    (tensor([[0., 3., 1.]]), tensor([[-0.2500,  0.0000]]))
    >>> terms.num_tokens
    tensor(3)
    """
    # A sign error here would imitate the very tokens that the editor removed, and nothing else would show it.
    negative_BU = original_mask_BU & (original_weight_BU < 0)
    if bool(negative_BU.any()):
        row, column = negative_BU.nonzero()[0].tolist()
        raise ValueError(
            f"original_weight_BU[{row}, {column}] is {original_weight_BU[row, column].item()}: weights of the original "
            "side are magnitudes β ≥ 0, and figa itself subtracts the term; pass the weight without its sign"
        )
    counts_BT = edited_mask_BT & (edited_weight_BT != 0)
    counts_BU = original_mask_BU & (original_weight_BU != 0) & gate_BU
    return FigaTerms(
        edited_loss_BT=weighted_nll(edited_logprob_BT, edited_weight_BT, counts_BT),
        original_loss_BU=weighted_nll(original_logprob_BU, -original_weight_BU, counts_BU),
        counts_BT=counts_BT,
        counts_BU=counts_BU,
    )


def figa_loss(terms: FigaTerms) -> Float[Tensor, ""]:
    """``terms.total / terms.num_tokens`` in nats a token; exactly 0, with gradient 0, where no token counts.

    For an optimizer step that is one micro-batch on one process; see ``figa`` for any other.

    >>> import torch
    >>> loss_BT, none_BU = torch.tensor([[2.0, 1.0]]), torch.zeros(1, 3)
    >>> figa_loss(FigaTerms(loss_BT, none_BU, loss_BT != 0, none_BU != 0))
    tensor(1.5000)
    """
    return terms.total / terms.num_tokens.clamp(min=1)
