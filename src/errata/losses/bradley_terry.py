"""Reward models from comparisons: of sequences, of mean token rewards, of the rewards of changed tokens.

Equations are those of Xu et al., ACL 2024, arXiv 2406.02756, where the better text is the edited y_e and the worse one
the original y_l. Rewards are logits (no unit), losses nats, one a pair.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from errata.losses.reduction import sequence_mean, sequence_sum

__all__ = [
    "changed_token_bradley_terry_mean",
    "changed_token_bradley_terry_sum",
    "sequence_bradley_terry",
    "token_bradley_terry",
]


def sequence_bradley_terry(
    chosen_reward_B: Float[Tensor, " B"], rejected_reward_B: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """−log σ( R(x, y_chosen) − R(x, y_rejected) ) in nats: Xu et al. Eq 1.

    Equal rewards cost log 2:

    >>> import torch
    >>> sequence_bradley_terry(torch.tensor([1.0]), torch.tensor([1.0]))
    tensor([0.6931])
    """
    return -logsigmoid(chosen_reward_B - rejected_reward_B)


def token_bradley_terry(
    edited_reward_BT: Float[Tensor, "B T"],
    edited_mask_BT: Bool[Tensor, "B T"],
    original_reward_BU: Float[Tensor, "B U"],
    original_mask_BU: Bool[Tensor, "B U"],
) -> Float[Tensor, " B"]:
    """−log σ( mean_t r(x, [y_e]_t) − mean_t r(x, [y_l]_t) ) in nats: Xu et al. Eq 3, with the mean reward of Eq 2.

    The means are over *all* response tokens of each side, EOS included where the response ended. Unchanged under
    r → r + c, so the level of the rewards is free: centre them before PPO, or it pays (or punishes) length.

    Args:
        edited_reward_BT: r of token t of the edited text.
        edited_mask_BT: True on the response of the edited text.
        original_reward_BU: r of token t of the original.
        original_mask_BU: True on the response of the original.

    Means 2 and 2, hence log 2:

    >>> import torch
    >>> edited_reward_BT, edited_mask_BT = torch.tensor([[9.0, 1.0, 3.0]]), torch.tensor([[False, True, True]])
    >>> token_bradley_terry(edited_reward_BT, edited_mask_BT, torch.tensor([[2.0]]), torch.tensor([[True]]))
    tensor([0.6931])
    """
    return sequence_bradley_terry(
        sequence_mean(edited_reward_BT, edited_mask_BT), sequence_mean(original_reward_BU, original_mask_BU)
    )


def changed_token_bradley_terry_mean(
    edited_reward_BT: Float[Tensor, "B T"],
    edited_changed_BT: Bool[Tensor, "B T"],
    original_reward_BU: Float[Tensor, "B U"],
    original_changed_BU: Bool[Tensor, "B U"],
) -> Float[Tensor, " B"]:
    """−log σ( mean_{t ∈ U_e} r(y_e) − mean_{t ∈ U_l} r(y_l) ) in nats: Eq 3 of Xu et al. on the changed tokens alone.

    An empty U_e or U_l contributes a mean of 0, so the level of the rewards is free only where both sides changed. A
    pair in which nothing changed costs log 2 and has no gradient: exclude and count it.

    Args:
        edited_reward_BT: r of token t of the edited text.
        edited_changed_BT: U_e, the inserted and substitute tokens.
        original_reward_BU: r of token t of the original.
        original_changed_BU: U_l, the deleted and substituted tokens.

    A pure insertion of two tokens of mean reward 0, hence log 2:

    >>> import torch
    >>> edited_reward_BT, edited_changed_BT = torch.tensor([[9.0, 1.0, -1.0]]), torch.tensor([[False, True, True]])
    >>> changed_token_bradley_terry_mean(
    ...     edited_reward_BT, edited_changed_BT, torch.tensor([[5.0]]), torch.tensor([[False]])
    ... )
    tensor([0.6931])
    """
    return sequence_bradley_terry(
        sequence_mean(edited_reward_BT, edited_changed_BT), sequence_mean(original_reward_BU, original_changed_BU)
    )


def changed_token_bradley_terry_sum(
    edited_reward_BT: Float[Tensor, "B T"],
    edited_changed_BT: Bool[Tensor, "B T"],
    original_reward_BU: Float[Tensor, "B U"],
    original_changed_BU: Bool[Tensor, "B U"],
) -> Float[Tensor, " B"]:
    """−log σ( Σ_{t ∈ U_e} r(y_e) − Σ_{t ∈ U_l} r(y_l) ) in nats.

    What Eq 3 of Xu et al. leaves of equally long texts whose kept tokens cancel, without its factor 1/T. Changes under
    r → r + c wherever the sides changed by different numbers of tokens: it learns length.

    Args:
        edited_reward_BT: r of token t of the edited text.
        edited_changed_BT: U_e, the inserted and substitute tokens; may be empty.
        original_reward_BU: r of token t of the original.
        original_changed_BU: U_l, the deleted and substituted tokens; may be empty.

    Sums 3 and 3, hence log 2:

    >>> import torch
    >>> edited_reward_BT, edited_changed_BT = torch.tensor([[9.0, 1.0, 2.0]]), torch.tensor([[False, True, True]])
    >>> changed_token_bradley_terry_sum(
    ...     edited_reward_BT, edited_changed_BT, torch.tensor([[3.0]]), torch.tensor([[True]])
    ... )
    tensor([0.6931])
    """
    return sequence_bradley_terry(
        sequence_sum(edited_reward_BT, edited_changed_BT), sequence_sum(original_reward_BU, original_changed_BU)
    )
