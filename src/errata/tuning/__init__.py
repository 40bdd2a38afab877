"""Tuning: the policy learns, offline from weights and pairs or online from rewards. One readable file a method."""

import sys
import warnings
from types import ModuleType
from typing import Any

from errata.training import OfflineMethod
from errata.tuning.dpo import DPO, DPOConfig, train_dpo
from errata.tuning.figa import FIGA, FIGAConfig, WeightedPair, train_figa, weigh
from errata.tuning.ppo import PPOConfig, RewardScaling, train_ppo
from errata.tuning.sft import SFT, SFTConfig, demonstrations, train_sft
from errata.tuning.streams import Stream

__all__ = [
    "DPO",
    "FIGA",
    "METHODS",
    "SFT",
    "DPOConfig",
    "FIGAConfig",
    "PPOConfig",
    "RewardScaling",
    "SFTConfig",
    "Stream",
    "WeightedPair",
    "demonstrations",
    "method_of",
    "methods",
    "train_dpo",
    "train_figa",
    "train_ppo",
    "train_sft",
    "weigh",
]


METHODS: tuple[OfflineMethod[Any], ...] = (SFT, FIGA, DPO)
"""The ways to tune a policy on files. Verbs, their help, the doctor, presets and tests follow from these objects."""


def methods() -> tuple[OfflineMethod[Any], ...]:
    """The methods that there are now."""
    return METHODS


def method_of(name: str) -> OfflineMethod[Any]:
    """The method of this name.

    Raises:
        ValueError: there is none; names those that there are.
    """
    for method in METHODS:
        if method.name == name:
            return method
    raise ValueError(f"no method {name!r}; there are {', '.join(method.name for method in METHODS)}")


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
