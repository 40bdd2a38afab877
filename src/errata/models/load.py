"""Loading and saving Hugging Face models: safetensors only, no remote code, no dropout where it would add noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from errata.data.encoding import check_folder, load_tokenizer
from errata.runs import CARD, new_folder, read_json, sums_of, write_sums

__all__ = [
    "check_folder",
    "device",
    "identity",
    "load_causal",
    "load_tokenizer",
    "read_card",
    "save_model",
    "without_dropout",
]

HEADS = ("score", "classifier")
"""What transformers calls the output layer of models that give a number instead of words."""


def load_causal(folder: Path | str) -> nn.Module:
    """A causal language model in float32 or the type that it was saved in. Raises ValueError where there is none."""
    check_folder(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(str(folder), trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"no causal language model could be loaded from {folder}: {error}") from error
    return without_dropout(model)


def device() -> torch.device:
    """Where this process computes: its own accelerator under a launcher, else the first one, else the CPU."""
    found = PartialState().device
    assert found is not None
    return found


def without_dropout(model: nn.Module) -> nn.Module:
    """Set every dropout to 0, in place: noise in a log-ratio, a reward or a value is taken for signal."""
    for name, value in vars(getattr(model, "config", object())).items() if hasattr(model, "config") else ():
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float):
            setattr(model.config, name, 0.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            # Attention classes copy the number at construction and call the functional form.
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    card: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    folders: Mapping[str, Path] | None = None,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write model, tokenizer and what was done to them (``errata.json``) in one step; plain transformers loads it.

    ``files`` are texts to write beside them, by name; ``folders`` are copied there. ``state_dict`` holds the weights of
    a model whose own are elsewhere.
    """
    with new_folder(folder) as partial:
        model.save_pretrained(partial, state_dict=state_dict)
        tokenizer.save_pretrained(partial)
        (partial / CARD).write_text(json.dumps(dict(card or {}), indent=2) + "\n", encoding="utf-8")
        for name, text in (files or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
        for name, source in (folders or {}).items():
            shutil.copytree(source, partial / name)
        # All but what people write on: the model card.
        write_sums(partial, sums_of(partial, [path for path in partial.iterdir() if path.name != "README.md"]))


def read_card(folder: Path | str) -> dict[str, Any]:
    """What ``save_model`` noted beside the model; empty for a model that errata did not make."""
    path = Path(folder) / CARD
    card: dict[str, Any] = read_json(path) if path.exists() else {}
    return card


def identity(folder: Path | str) -> list[Any]:
    """What tells the model in ``folder`` from another: its name, and its card or else its files' sizes and times."""
    card = read_card(folder)
    if "fingerprint" in card:
        return [str(folder), card["fingerprint"]]
    files = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    return [str(folder), *((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)]
