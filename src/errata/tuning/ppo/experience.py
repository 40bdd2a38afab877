"""What a round is made of, and the loss of a part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from errata import losses
from errata.models import (
    TokenBatch,
    critic_values,
)
from errata.tuning.ppo.config import PPOConfig

__all__ = ["Experience", "Live", "policy_and_value_loss"]


class Live(NamedTuple):
    """What was read of some rows, as wide as the longest of them, and the graph that it came from."""

    rows: Tensor
    logprob_BT: Tensor
    value_HBT: Tensor


@dataclass(frozen=True, slots=True)
class Experience:
    """One round's responses and what was known of them when they were sampled; columns speak of their own token.

    H are the heads of the critic: one, or dense and terminal.
    """

    batch: TokenBatch
    old_logprob_BT: Tensor
    ref_logprob_BT: Tensor
    old_value_HBT: Tensor
    advantage_BT: Tensor
    return_HBT: Tensor
    live: Sequence[Live] = ()
    """For the first minibatch of a round that is a single one, where the policy that learns is still the one that
    sampled: every row once, with the graph. One part is all of its rows, once the experience is split."""

    def __getitem__(self, rows: Tensor) -> Experience:
        """Some of the rows, as wide as the longest of them."""
        batch = self.batch.narrowed(rows)
        columns = slice(batch.ids_BT.shape[1])
        old_BT, ref_BT, value_HBT, advantage_BT, return_HBT = (
            x[..., rows, columns]
            for x in (
                self.old_logprob_BT,
                self.ref_logprob_BT,
                self.old_value_HBT,
                self.advantage_BT,
                self.return_HBT,
            )
        )
        return Experience(batch, old_BT, ref_BT, value_HBT, advantage_BT, return_HBT)

    def split(self, size: int) -> Iterator[Experience]:
        """Parts of at most ``size`` rows of about the same length."""
        if self.live:
            return (replace(self[part.rows], live=(part,)) for part in self.live)
        return (self[rows] for rows in self.batch.alike(size))


def policy_and_value_loss(
    actor: nn.Module, critic: nn.Module, experience: Experience, config: PPOConfig, *, num_tokens: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Clipped surrogate and clipped value loss of some rows, each summed and divided by the global token count.

    Returns:
        Both, and sums over the tokens of the rows of what is shown of them.
    """
    mask_BT, old_BT = experience.batch.response_mask_BT, experience.old_logprob_BT
    if experience.live:
        ((_, logprob_BT, value_HBT),) = experience.live
    else:
        logprob_BT, _ = actor(experience.batch, config.temperature)
        value_HBT, _ = critic_values(critic, experience.batch)
    surrogate_BT = losses.clipped_surrogate(
        logprob_BT, old_BT, experience.advantage_BT, mask_BT, clip_range=config.clip_range
    )
    value_loss_HBT = [
        losses.clipped_value_loss(value_BT, old_value_BT, return_BT, mask_BT, clip_range=config.value_clip_range)
        for value_BT, old_value_BT, return_BT in zip(
            value_HBT, experience.old_value_HBT, experience.return_HBT, strict=True
        )
    ]
    with torch.no_grad():
        ratio_BT = torch.where(mask_BT, logprob_BT - old_BT, 0).exp()
        value_moved_BT = (value_HBT - experience.old_value_HBT).abs().amax(0) > config.value_clip_range
        shown = {
            "approxkl": losses.kl_k2(logprob_BT, old_BT, mask_BT),
            "clipped": ((ratio_BT - 1).abs() > config.clip_range).float(),
            "value_clipped": value_moved_BT.float(),
            "ratio": ratio_BT,
            "ratio_squared": ratio_BT.square(),
        }
        sums = {name: torch.where(mask_BT, each_BT, 0).sum().double() for name, each_BT in shown.items()}
    return (
        losses.token_mean(surrogate_BT, mask_BT, num_tokens=num_tokens),
        sum(
            (losses.token_mean(each_BT, mask_BT, num_tokens=num_tokens) for each_BT in value_loss_HBT[1:]),
            losses.token_mean(value_loss_HBT[0], mask_BT, num_tokens=num_tokens),
        ),
        sums,
    )
