"""A token reward model as a classifier of changed tokens."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["changed_token_classes"]


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
