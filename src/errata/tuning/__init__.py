"""Tuning: the policy learns, offline from weights and pairs or online from rewards. One readable file a method."""

import sys
import warnings
from types import ModuleType
from typing import Any

from errata.tuning.dpo import DPOConfig, train_dpo
from errata.tuning.figa import FIGAConfig, WeightedPair, train_figa, weigh
from errata.tuning.ppo import PPOConfig, RewardScaling, train_ppo
from errata.tuning.sft import SFTConfig, demonstrations, train_sft
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
    "train_dpo",
    "train_figa",
    "train_ppo",
    "train_sft",
    "weigh",
]


class _Callable(ModuleType):
    """A module that can still be called by the name that its function had until 0.1: ``from errata.tuning import sft``.

    The module and the function share the name, so a ``__getattr__`` of this package would never be asked for it.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Warn, and train."""
        old = self.__name__.rpartition(".")[2]
        warnings.warn(f"errata.tuning.{old}() is now train_{old}()", DeprecationWarning, stacklevel=2)
        return getattr(self, f"train_{old}")(*args, **kwargs)


for _name in ("sft", "figa", "dpo", "ppo"):
    sys.modules[f"{__name__}.{_name}"].__class__ = _Callable
