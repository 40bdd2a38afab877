"""A token reward model as a classifier of changed tokens: hard classes, or soft targets."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["changed_token_classes", "soft_token_classes"]


def changed_token_classes(
    reward_BT: Float[Tensor, "B T"],
    label_BT: Int[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    kept_coefficient: float,
) -> Float[Tensor, "B T"]:
    """−log σ(r_t) on good tokens, −log σ(−r_t) on bad ones, c·r_t² on kept ones, in nats; 0 outside the mask.

    Not in Xu et al., who give no class targets: TLCR's classes (Findings of ACL 2024) with the pull of kept tokens
    towards 0 as an explicit term. Good is inserted or substitute (edited side), bad is deleted or substituted
    (original side). Call it once a side.

    Args:
        reward_BT: r, a logit.
        label_BT: +1 good, −1 bad, 0 kept. Not ``errata.types.Label``, which numbers the operations.
        mask_BT: True where the token counts.
        kept_coefficient: c ≥ 0.

    Raises:
        ValueError: if a token that counts has another label.

    >>> reward_BT, mask_BT = torch.tensor([[0.0, 0.0, 2.0, 7.0]]), torch.tensor([[True, True, True, False]])
    >>> changed_token_classes(reward_BT, torch.tensor([[1, -1, 0, 0]]), mask_BT, kept_coefficient=0.1)
    tensor([[0.6931, 0.6931, 0.4000, 0.0000]])
    """
    unknown_BT = mask_BT & ((label_BT < -1) | (label_BT > 1))
    if bool(unknown_BT.any()):
        row, column = unknown_BT.nonzero()[0].tolist()
        raise ValueError(
            f"label_BT[{row}, {column}] is {label_BT[row, column].item()}: give +1 for good, -1 for bad, 0 for kept "
            "(map errata.types.Label to these first)"
        )
    reward_BT = torch.where(mask_BT, reward_BT, 0)
    changed_BT = -logsigmoid(label_BT * reward_BT)
    kept_BT = kept_coefficient * reward_BT.square()
    return torch.where(mask_BT, torch.where(label_BT == 0, kept_BT, changed_BT), 0)


def soft_token_classes(
    reward_BT: Float[Tensor, "B T"], target_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """−p log σ(r_t) − (1 − p) log σ(−r_t) in nats, the cross-entropy with a target p; 0 outside the mask.

    TLCR (Yoon et al., Findings of ACL 2024): p is 1 on inserted and substitute tokens (edited side), 0 on deleted and
    substituted ones (original side), 1/2 on kept ones, which are thereby drawn to r = 0. Their reward 2σ(r) − 1 is
    tanh(r/2). Call it once a side.

    Args:
        reward_BT: r, a logit.
        target_BT: p, from 0 to 1.
        mask_BT: True where the token counts.

    Raises:
        ValueError: if a target that counts is no probability.

    >>> reward_BT, mask_BT = torch.tensor([[0.0, 2.0, -1.0, 7.0]]), torch.tensor([[True, True, True, False]])
    >>> soft_token_classes(reward_BT, torch.tensor([[1.0, 0.5, 0.0, 1.0]]), mask_BT)
    tensor([[0.6931, 1.1269, 0.3133, 0.0000]])
    """
    unknown_BT = mask_BT & ~((target_BT >= 0) & (target_BT <= 1))
    if bool(unknown_BT.any()):
        row, column = unknown_BT.nonzero()[0].tolist()
        raise ValueError(
            f"target_BT[{row}, {column}] is {target_BT[row, column].item()}: give the probability that the token is "
            "good, 1 for good, 0 for bad, 0.5 for kept"
        )
    reward_BT, target_BT = torch.where(mask_BT, reward_BT, 0), torch.where(mask_BT, target_BT, 0)
    loss_BT = -target_BT * logsigmoid(reward_BT) - (1 - target_BT) * logsigmoid(-reward_BT)
    return torch.where(mask_BT, loss_BT, 0)
