"""Rewards for a policy whose tokenizer is not the reward model's: carried over by the characters they stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from errata.data import Encoder
from errata.models import read_card
from errata.reward.score import RewardFunction, Scorer, encoder_of, fit_scale, load_scorer
from errata.runs import identity_of
from errata.types import Encoded, Prompt

__all__ = ["ProjectedReward", "load_reward", "project_rewards"]

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


@dataclass(frozen=True, kw_only=True)
class ProjectedReward:
    """A reward function on the policy's ids, by a reward model with other ids.

    The prompts are looked up by their ids, the response is what its ids decode to; both are encoded anew for the
    reward model, and its rewards are projected on the policy's tokens. A control token in the middle of a response,
    which only a sample has, stands for no text and is paid nothing.
    """

    reward: RewardFunction
    reward_encoder: Encoder
    policy_encoder: Encoder
    prompts: Sequence[Prompt]
    """All that rows may have."""

    @property
    def identity(self) -> Any:
        """What tells these rewards from others."""
        inner = identity_of(self.reward)
        return None if inner is None else [inner, self.reward_encoder.fingerprint, self.policy_encoder.fingerprint]

    def __call__(self, rows: Sequence[Encoded]) -> list[list[float]]:
        """One reward for each response token of the policy, in the order of the rows.

        Raises:
            ValueError: a row's prompt is not among the prompts, or a side cannot be encoded.
        """
        both = self._both(rows)
        streams = self.reward([theirs for theirs, _ in both])
        return [
            project_rewards(stream, theirs.offsets, ours) if ours else []
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

    @cached_property
    def _known(self) -> dict[tuple[int, ...], Prompt]:
        return {self.policy_encoder.prompt_ids(prompt): prompt for prompt in self.prompts}

    def _both(self, rows: Sequence[Encoded]) -> list[tuple[Encoded, list[tuple[int, int]]]]:
        """Each row for the reward model, and the characters of each of the policy's tokens."""
        encoder, both = self.policy_encoder.unlimited, []
        for row in rows:
            prompt = self._known.get(row.ids[: row.prompt_length])
            if prompt is None:
                raise ValueError("a row to be scored has a prompt that is not among the prompts; give all of them")
            body, spoken = encoder.body_ids(row.response_ids), encoder.spoken_ids(row.response_ids)
            text = encoder.decode(spoken)
            found = encoder.encode_sampled(prompt, text, [*spoken, *row.response_ids[len(body) :]])
            offsets, ours = iter(found.offsets), list[tuple[int, int]]()
            for place, token in enumerate(row.response_ids):
                if place < len(body) and token in encoder.reserved:
                    stop = ours[-1][1] if ours else 0
                    ours.append((stop, stop))
                else:
                    ours.append(next(offsets))
            both.append((self.reward_encoder.encode(prompt, text, ended=row.ended), ours))
        return both


def load_reward(folder: Path | str, encoder: Encoder, prompts: Sequence[Prompt]) -> Scorer | ProjectedReward:
    """A reward model for a policy's ids: ``load_scorer``, within a ``ProjectedReward`` where it has ids of its own.

    Args:
        folder: of the reward model.
        encoder: of the policy.
        prompts: all that rows may have.

    Raises:
        ValueError: as ``load_scorer``.
    """
    if read_card(folder).get("tokenizer", encoder.fingerprint) == encoder.fingerprint:
        return load_scorer(folder, encoder)
    theirs = encoder_of(folder)
    return ProjectedReward(
        reward=load_scorer(folder, theirs), reward_encoder=theirs, policy_encoder=encoder, prompts=prompts
    )
