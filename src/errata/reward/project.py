"""Rewards for a policy whose tokenizer is not the reward model's: carried over by the characters they stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from errata.data import Encoder
from errata.reward.score import RewardFunction, Scorer, fit_scale
from errata.types import Encoded, Prompt

__all__ = ["ProjectedReward", "project_rewards"]

Offsets = Sequence[tuple[int, int]]


def project_rewards(rewards: Sequence[float], source: Offsets, target: Offsets) -> list[float]:
    """The rewards of one tokenizer's tokens on another's of the same text; their sum stays the same.

    A reward lies evenly on the characters of its token, and each character pays the target token that it belongs to.
    Of several target tokens on one character the first is paid; characters that no target token stands for pay the
    next one. A source token without characters (the end of sequence) pays the token that holds its place, which is
    the target's end of sequence where there is one, and else its last token.

    Args:
        rewards: one for each source token.
        source: the characters (start, stop) of each source token.
        target: of each target token, from left to right.

    Raises:
        ValueError: there is a reward and no target token to take it, or not one reward for each source token.

    "undo it" in two tokens, in three, and the end of sequence:

    >>> project_rewards([4.0, 3.0, 0.5], [(0, 4), (4, 7), (7, 7)], [(0, 2), (2, 4), (4, 5), (5, 7), (7, 7)])
    [2.0, 2.0, 1.0, 2.0, 0.5]
    """
    if len(rewards) != len(source):
        raise ValueError(f"{len(source)} source tokens have {len(rewards)} rewards; give one for each")
    if not len(target):
        if len(rewards):
            raise ValueError("there are rewards and no token to pay them to; an empty response needs its end")
        return []
    starts, stops = np.array(source, np.int64).reshape(-1, 2).T
    # Tokens that share characters, as the bytes of one do, may not go back.
    ends = np.maximum.accumulate(np.array(target, np.int64)[:, 1])
    widths = np.maximum(stops - starts, 1)
    first = np.cumsum(widths) - widths
    place = np.repeat(starts - first, widths) + np.arange(widths.sum())
    owner = np.minimum(np.searchsorted(ends, place, side="right"), len(ends) - 1)
    share = np.repeat(np.asarray(rewards, float) / widths, widths)
    paid: list[float] = np.bincount(owner, weights=share, minlength=len(ends)).tolist()
    return paid


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectedReward:
    """A reward function on the policy's ids, by a reward model with other ids.

    The prompts are looked up by their ids, the response is what its ids decode to; both are encoded anew for the
    reward model, and its rewards are projected on the policy's tokens.
    """

    reward: RewardFunction
    reward_encoder: Encoder
    policy_encoder: Encoder
    prompts: Sequence[Prompt]
    """All that rows may have."""

    def __call__(self, rows: Sequence[Encoded]) -> list[list[float]]:
        """One reward for each response token of the policy, in the order of the rows.

        Raises:
            ValueError: a row's prompt is not among the prompts, or a side cannot be encoded.
        """
        both = self._both(rows)
        streams = self.reward([theirs for theirs, _ in both])
        return [
            project_rewards(stream, theirs.offsets, ours.offsets) if ours.response_ids else []
            for stream, (theirs, ours) in zip(streams, both, strict=True)
        ]

    def fitted(self, rows: Sequence[Encoded]) -> Self:
        """Rescaled as by ``fit_scale`` on these rows; the sums are the same in both tokenizers.

        Raises:
            ValueError: as ``fit_scale``; or the reward function is no reward model.
        """
        if not isinstance(self.reward, Scorer):
            raise ValueError("only the rewards of a reward model can be rescaled")
        return replace(self, reward=fit_scale(self.reward, [theirs for theirs, _ in self._both(rows)]))

    def _both(self, rows: Sequence[Encoded]) -> list[tuple[Encoded, Encoded]]:
        """Each row for the reward model, and for the policy with its offsets."""
        known = {self.policy_encoder.prompt_ids(prompt): prompt for prompt in self.prompts}
        both = []
        for row in rows:
            prompt = known.get(row.ids[: row.prompt_length])
            if prompt is None:
                raise ValueError("a row to be scored has a prompt that is not among the prompts; give all of them")
            text = self.policy_encoder.decode(row.response_ids)
            theirs = self.reward_encoder.encode(prompt, text, ended=row.ended)
            ours = row if row.offsets else self.policy_encoder.unlimited.encode_sampled(prompt, text, row.response_ids)
            both.append((theirs, ours))
        return both
