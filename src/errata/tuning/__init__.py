"""Tuning: the policy learns, offline from weights and pairs or online from rewards. One readable file a method."""

from errata.tuning.dpo import DPOConfig, dpo
from errata.tuning.figa import FIGAConfig, WeightedPair, figa, weigh
from errata.tuning.ppo import PPOConfig, RewardScaling, ppo
from errata.tuning.sft import SFTConfig, demonstrations, sft
from errata.tuning.streams import Stream

__all__ = [
    "DPOConfig",
    "FIGAConfig",
    "PPOConfig",
    "RewardScaling",
    "SFTConfig",
    "Stream",
    "WeightedPair",
    "demonstrations",
    "dpo",
    "figa",
    "ppo",
    "sft",
    "weigh",
]
