"""Settings of reward models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from errata.ranges import Range, Size, Weight
from errata.training import OfflineConfig

__all__ = ["ClassObjective", "PairObjective", "RewardConfig", "TokenRewardConfig"]

ClassObjective = Literal["classes", "soft"]

PairObjective = Literal["eq3", "changed_mean", "changed_sum"]


@dataclass(frozen=True, kw_only=True)
class RewardConfig(OfflineConfig):
    """Settings of a reward model; the defaults are AlpacaFarm's recipe, on which Xu et al. build (PAPERS A6)."""

    FULL_RATE = 3e-6

    learning_rate: Annotated[float, Range(above=0)] | Literal["auto"] = "auto"
    """Peak learning rate of AdamW. auto: 3e-6 where all weights are trained, 6e-5 for an adapter (--lora-rank), which
    wants more."""
    epochs: Annotated[float, Range(above=0, high=1e6)] = 1.0
    """Passes over the pairs."""
    batch_size: Size = 16
    """Pairs in one optimizer step, over all processes."""


@dataclass(frozen=True, kw_only=True)
class TokenRewardConfig(RewardConfig):
    """Settings of a token-level reward model trained on classes of changed tokens."""

    kept_coefficient: Weight = 0.1
    """Weight of r² on kept tokens; it keeps them near 0, so that the level of the rewards has a meaning."""
    sequence_coefficient: Weight = 0.0
    """Weight of Bradley-Terry on the two sums of token rewards, which makes the same model rank whole responses. What
    preferences without an edit teach, they teach by it."""
