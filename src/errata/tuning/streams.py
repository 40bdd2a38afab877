"""Where the rewards of PPO come from: streams of one number a response token, and how each of them is paid.

Dense streams (a token reward model) and terminal ones (a sequence reward model) want different discounts: a token
reward already sits where the credit belongs, the reward of a whole response must travel back to the words that earned
it. So each of the two groups has a γ and a critic head of its own, and the *advantages* are mixed, never the rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from errata import losses
from errata.ranges import Range, check_ranges
from errata.reward import RewardFunction
from errata.types import Rollout

__all__ = ["Head", "Stream", "check_streams", "group", "last_token", "paid", "rewards_of", "summed"]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One source of rewards. What it pays is coefficient · clip(r − mean, ± clip), or the part of it below 0."""

    name: str
    """What metrics and samples call it."""
    reward: Path | str | RewardFunction
    """A folder of ``errata reward train`` (scaled as the settings of the run say), or any function from rows to one
    float a response token, taken as it is; a function says in an attribute ``identity`` what it is."""
    coefficient: Annotated[float, Range(low=-1e6, high=1e6)] = 1.0
    """What each of its rewards is multiplied by."""
    clip: Annotated[float, Range(above=0)] | None = None
    """The largest size of one reward, before the coefficient."""
    centred: bool = False
    """Whether the mean of the round, over all processes, is taken off: that of the tokens for a dense stream, that of
    the responses, at their last token, for a terminal one. Without it a level above 0 pays for length."""
    penalties_only: bool = False
    """Whether what it would pay above 0 (before the coefficient) is not paid: what an editor would strike out costs,
    and no word is worth saying for its prize. Of a dense stream; beside a terminal one it is the best recipe found so
    far (docs/ppo_study.md)."""
    terminal: bool = False
    """Whether it speaks of the whole response: then it has the discount and the critic head of terminal rewards."""

    def __post_init__(self) -> None:
        """Raise ValueError for a number that is out of its range."""
        check_ranges(self, flags=False, owner=f" of the stream {self.name!r}")


LARGEST_REWARD = 1_000_000
"""In size; the squares of returns must fit into single precision."""


@dataclass(frozen=True, slots=True)
class Head:
    """A group of streams whose rewards are summed: a discount, a critic head, a weight in the mixture of advantages."""

    name: str
    discount: float
    weight: float


def check_streams(streams: Sequence[Stream]) -> None:
    """Raise ValueError where there is no stream, or two of one name."""
    if not streams:
        raise ValueError("no stream of rewards; give a reward model or a function")
    names = [stream.name for stream in streams]
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None or {"kl", "length", "missing_eos"} & set(names):
        raise ValueError(f"streams are called {names}; give each a name of its own, not kl, length or missing_eos")


def group(
    streams: Sequence[Stream], *, discount: float, terminal_discount: float, terminal_weight: float
) -> list[Head]:
    """The heads that the streams need: dense before terminal."""
    kinds = {stream.terminal for stream in streams}
    heads = [Head("dense", discount, 1.0), Head("terminal", terminal_discount, terminal_weight)]
    return [head for head, terminal in zip(heads, (False, True), strict=True) if terminal in kinds]


def last_token(mask_BT: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """True on the last token of each response.

    >>> last_token(torch.tensor([[False, True, True, False]]))
    tensor([[False, False,  True, False]])
    """
    return mask_BT & ~torch.nn.functional.pad(mask_BT, (0, 1))[:, 1:]


def rewards_of(stream: Stream, found: Any, rollouts: Sequence[Rollout]) -> list[list[float]]:
    """What a reward function gave for responses, once it is one number for each token of each.

    Lists, tuples, arrays of NumPy and tensors will do.

    Raises:
        ValueError: it is anything else; the message names the stream and the row.
    """
    remedy = "give one list for each row, with one float for each of row.response_ids"
    named = f"the reward function of the stream {stream.name!r} gives"
    rows = _listed(found)
    if rows is None or len(rows) != len(rollouts):
        given = f"a {type(found).__name__}" if rows is None else f"rewards of {len(rows)} rows"
        raise ValueError(f"{named} {given} for {len(rollouts)} rows; {remedy}")
    streams = []
    for rollout, row in zip(rollouts, rows, strict=True):
        rewards, tokens = _listed(row), len(rollout.response_ids)
        if rewards is None or len(rewards) != tokens:
            given = f"a {type(row).__name__}" if rewards is None else f"{len(rewards)} rewards"
            raise ValueError(f"{named} row {rollout.id!r} {given} for {tokens} response tokens; {remedy}")
        try:
            streams.append([float(reward) for reward in rewards])
        except (TypeError, ValueError):
            wrong = next(reward for reward in rewards if not isinstance(reward, Real))
            raise ValueError(f"{named} row {rollout.id!r} the reward {wrong!r}; {remedy}") from None
    return streams


def _listed(found: Any) -> list[Any] | None:
    if hasattr(found, "tolist"):
        found = found.tolist()
    return list(found) if isinstance(found, Sequence) and not isinstance(found, str | bytes) else None


def paid(
    stream: Stream,
    reward_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    moments: Callable[[Tensor, Tensor], losses.Moments],
    names: Sequence[str] = (),
) -> Float[Tensor, "B T"]:
    """What the stream pays for each token, 0 outside the mask; ``moments`` are taken over all processes.

    ``names`` are those of the rows, for errors.

    Raises:
        ValueError: a reward is not finite, or larger in size than a million: one would make all weights NaN.
    """
    bad_B = (mask_BT & ~(reward_BT.abs() <= LARGEST_REWARD)).any(1)
    if bad_B.any():
        row = int(bad_B.int().argmax())
        values = reward_BT[row][mask_BT[row]].tolist()
        wrong = next(value for value in values if not abs(value) <= LARGEST_REWARD)
        named = f" (row {names[row]!r})" if names else ""
        what = f"{wrong:g}, larger than {LARGEST_REWARD:,}" if isfinite(wrong) else "that is NaN or infinite"
        raise ValueError(
            f"the stream {stream.name!r} gives response {row} of this round{named} a reward {what}; fix the function: "
            "rewards near 1 are usual, and 0 is for what it cannot judge"
        )
    if stream.centred:
        where_BT = last_token(mask_BT) if stream.terminal else mask_BT
        sums = moments(reward_BT, mask_BT), moments(reward_BT, where_BT)
        mean = sums[0].sum / sums[1].num_tokens.clamp(min=1)
        reward_BT = torch.where(where_BT, reward_BT - mean.to(reward_BT), reward_BT)
    if stream.clip is not None:
        reward_BT = reward_BT.clamp(-stream.clip, stream.clip)
    if stream.penalties_only:
        reward_BT = reward_BT.clamp(max=0)
    return torch.where(mask_BT, stream.coefficient * reward_BT, 0)


def summed(
    heads: Sequence[Head], streams: Sequence[Stream], paid_BT: Mapping[str, Float[Tensor, "B T"]]
) -> list[Float[Tensor, "B T"]]:
    """The rewards of each head: its own streams', and the penalties.

    KL and length are paid for every token, so they join the first head; a missing end speaks of the response, and joins
    the last.
    """
    of = {stream.name: heads[-1 if stream.terminal else 0].name for stream in streams}
    of |= {"kl": heads[0].name, "length": heads[0].name, "missing_eos": heads[-1].name}
    return [
        torch.stack([stream_BT for name, stream_BT in paid_BT.items() if of[name] == head.name]).sum(0)
        for head in heads
    ]
