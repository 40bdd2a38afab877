"""The model that is trained, as its settings say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from errata.models.adapters import add_adapter, continue_adapter, load_quantized
from errata.models.load import load_causal
from errata.models.settings import ModelConfig, precision_of, settle
from errata.pretrained import find_model

__all__ = ["load_policy"]


def load_policy(folder: Path | str, config: ModelConfig, load: Callable[..., nn.Module] = load_causal) -> Any:
    """The model in ``folder``, to be trained as ``config`` says: all of it in float32, or frozen in the type that it is
    stored in, with an adapter in float32. Of an adapter, its base with that.

    Args:
        folder: whatever ``find_model`` takes.
        config: the settings.
        load: makes it: a causal language model, or one with a head.

    Raises:
        ValueError: there is none, or the settings do not go together (``settle``).
    """  # noqa: D205
    config, _ = settle(config, folder)
    found = find_model(folder)
    start = found.whole.pinned
    if config.quantize != "none":
        model: Any = load_quantized(start, attention=config.attention)
    else:
        model = load(start, precision=precision_of(config), attention=config.attention)
    if found.base is not None:
        return continue_adapter(model, found.path, dropout=config.lora_dropout)
    if not config.lora_rank:
        if config.lora_layers:
            raise ValueError(f"--lora-layers {config.lora_layers} says where an adapter goes; give its --lora-rank")
        return model
    return add_adapter(
        model,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        seed=config.seed,
        targets=config.targets,
        dropout=config.lora_dropout,
        rslora=config.lora_rslora,
        dora=config.lora_dora,
        layers=config.lora_layers,
    )
