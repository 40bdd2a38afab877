"""Rewards as per-token streams: whatever the model, PPO is given one number for each sampled token.

A sequence-level reward is a stream that is 0 everywhere but on the last token: the ordinary baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from errata.data import Encoder, LongRow
from errata.data.encoding import load_encoder
from errata.models import (
    TokenBatch,
    check_ids,
    check_scores,
    device,
    identity,
    load_sequence_reward_model,
    load_token_reward_model,
    pad,
    read_card,
    sequence_rewards,
    to_lists,
    token_rewards,
)
from errata.types import Encoded, Prompt, Rollout

__all__ = [
    "RewardFunction",
    "Scorer",
    "SequenceScorer",
    "TokenScorer",
    "encode_rollout",
    "encoder_of",
    "fit_scale",
    "load_scorer",
    "score_answers",
    "score_texts",
]

FloatArray = npt.NDArray[np.float64]
BATCH_SIZE = 64  # rows of about the same length in one forward pass


class RewardFunction(Protocol):
    """Rows to one reward for each response token."""

    def __call__(self, rows: Sequence[Encoded]) -> list[list[float]]:
        """Score the rows."""
        ...


@dataclass(frozen=True, slots=True)
class TokenScorer:
    """(r_φ(x, [y]_t) − shift) / scale of a token-level reward model, on every response token."""

    model: Any
    pad_id: int
    level_is_free: bool
    """Whether the training objective leaves r → r + c unchanged, so that 0 has no meaning."""
    shift: float = 0.0
    scale: float = 1.0
    source: Any = None
    """What tells the model from another, where it is known."""

    @property
    def identity(self) -> Any:
        """What tells these rewards from others."""
        return None if self.source is None else [self.source, self.shift, self.scale]

    def __call__(self, rows: Sequence[Encoded]) -> list[list[float]]:
        """One reward for each response token, in the order of the rows."""
        return [((values - self.shift) / self.scale).tolist() for values in self.paid(rows)]

    @torch.no_grad()
    def paid(self, rows: Sequence[Encoded]) -> list[FloatArray]:
        """The raw rewards of each row: here one a token."""
        return _in_batches(
            rows,
            self.model,
            self.pad_id,
            lambda batch: [np.asarray(stream) for stream in to_lists(token_rewards(self.model, batch), batch)],
        )


@dataclass(frozen=True, slots=True)
class SequenceScorer:
    """(R(x, y) − shift) / scale of a sequence-level reward model, paid at the last token."""

    model: Any
    pad_id: int
    level_is_free: bool = True
    shift: float = 0.0
    scale: float = 1.0
    source: Any = None
    """What tells the model from another, where it is known."""

    @property
    def identity(self) -> Any:
        """What tells these rewards from others."""
        return None if self.source is None else [self.source, self.shift, self.scale]

    def __call__(self, rows: Sequence[Encoded]) -> list[list[float]]:
        """Zeros and, on the last response token, the reward of the whole response."""
        return [
            # An empty response has no token to pay.
            [*[0.0] * (length - 1), (float(reward[0]) - self.shift) / self.scale] if length else []
            for length, reward in zip((len(row.response_ids) for row in rows), self.paid(rows), strict=True)
        ]

    @torch.no_grad()
    def paid(self, rows: Sequence[Encoded]) -> list[FloatArray]:
        """The raw rewards of each row: here a single one."""
        return _in_batches(
            rows,
            self.model,
            self.pad_id,
            lambda batch: [np.array([reward]) for reward in sequence_rewards(self.model, batch).tolist()],
        )


Scorer = TokenScorer | SequenceScorer


def fit_scale(scorer: Scorer, rows: Sequence[Encoded]) -> Scorer:
    """Rescale so that the sum over a response has unit deviation on ``rows``, samples of the starting policy.

    Where the level of the rewards is free, their mean is subtracted; otherwise it would pay or punish length.

    Raises:
        ValueError: all rewards are the same, so there is nothing to learn from.
    """
    paid = scorer.paid(rows)
    shift = float(np.concatenate(paid).mean()) if scorer.level_is_free else 0.0
    scale = float(np.std([(values - shift).sum() for values in paid]))
    if not scale > 0:
        raise ValueError("the reward model gives every sample the same reward; train it on more or clearer edits")
    return replace(scorer, shift=shift, scale=scale)


def load_scorer(folder: Path | str, encoder: Encoder) -> Scorer:
    """A reward model of either kind from its folder, unscaled.

    Raises:
        ValueError: the folder has no ``errata.json`` that names its kind, or was trained with other ids.
    """
    card = _card(folder)
    if card["tokenizer"] != encoder.fingerprint:
        raise ValueError(
            f"{folder} was trained with another tokenizer or template ({card['tokenizer']}, "
            f"here {encoder.fingerprint}); give the template that it was trained with, or train one on the policy's own"
        )
    if card["kind"] == "token":
        free = card["objective"] in ("token_bradley_terry", "changed_token_bradley_terry_mean")
        token = load_token_reward_model(folder).to(device()).eval()
        return TokenScorer(token, encoder.pad_id, level_is_free=free, source=identity(folder))
    model = load_sequence_reward_model(folder, pad_id=encoder.pad_id, end_id=encoder.end_id)
    return SequenceScorer(model.to(device()).eval(), encoder.pad_id, source=identity(folder))


def encoder_of(folder: Path | str) -> Encoder:
    """How a reward model reads text: with the tokenizer beside it, and the template that it was trained with.

    Raises:
        ValueError: the folder is no reward model, or has no tokenizer.
    """
    return load_encoder(folder, template=_card(folder).get("template", "auto"))


def _card(folder: Path | str) -> dict[str, Any]:
    card = read_card(folder)
    if card.get("stage") != "reward":
        raise ValueError(f"{folder} is no reward model of errata; train one with `errata reward train`")
    texts = ["kind", "tokenizer", *(["objective"] if card.get("kind") == "token" else [])]
    lost = [name for name in texts if not isinstance(card.get(name), str)]
    lost += [] if card.get("kind") in ("token", "sequence") else ["kind"]
    lost += [] if isinstance(card.get("template", ""), str) else ["template"]
    if lost:
        raise ValueError(
            f"errata.json of {folder} is damaged (its {lost[0]!r} is {card.get(lost[0])!r}); copy the folder again"
        )
    return card


def score_texts(reward: RewardFunction, rows: Sequence[Encoded]) -> list[float]:
    """One number a response: the sum of its token rewards."""
    return [float(sum(stream)) for stream in reward(rows)]


def score_answers(
    reward: RewardFunction, encoder: Encoder, answers: Sequence[tuple[Prompt, str, Sequence[int] | None]]
) -> list[float]:
    """One number for each (prompt, answer, its ids if it was sampled): ``score_texts``, NaN where it is too long.

    Raises:
        ValueError: as ``Encoder.encode_sampled``.
    """
    prompts, texts, sampled = zip(*answers, strict=True) if answers else ((), (), ())
    found = encoder.encode_all(prompts, texts, sampled)
    for one in found:
        if isinstance(one, ValueError) and not isinstance(one, LongRow):
            raise one
    scores = iter(score_texts(reward, [one for one in found if not isinstance(one, ValueError)]))
    return [nan if isinstance(one, ValueError) else next(scores) for one in found]


def encode_rollout(rollout: Rollout) -> Encoded:
    """A sampled response as a row, with the ids that were sampled. Offsets are left empty: no reward reads them."""
    return Encoded((*rollout.prompt_ids, *rollout.response_ids), len(rollout.prompt_ids), (), rollout.ended)


def _in_batches(
    rows: Sequence[Encoded], model: Any, pad_id: int, score: Callable[[TokenBatch], list[FloatArray]]
) -> list[FloatArray]:
    """Score rows beside others of about their length, so that little is computed of padding; in the order given.

    Raises:
        ValueError: the model does not know an id, or gives a score that is no finite number.
    """
    check_ids(model, ((f"{number} of those to score", row) for number, row in enumerate(rows, start=1)))
    found: dict[int, FloatArray] = {}
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda k: len(rows[k].ids))
    for start in range(0, len(rows), BATCH_SIZE):
        part = order[start : start + BATCH_SIZE]
        found |= zip(part, score(pad([rows[k] for k in part], pad_id=pad_id).to(device)), strict=True)
    scores = [found[k] for k in range(len(rows))]
    check_scores((values.tolist() for values in scores), model, "reward")
    return scores
