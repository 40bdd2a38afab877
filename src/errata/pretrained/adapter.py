"""LoRA adapters as they lie on disk: put into a model, or merged with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from errata.pretrained.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS

__all__ = ["in_float32", "load_adapter", "merge_adapter", "put_in", "read_lora_config", "read_tensors"]


def read_lora_config(folder: Path) -> Any:
    """adapter_config.json as peft's ``LoraConfig``.

    Raises:
        ValueError: peft cannot make one of it.
    """
    from peft import LoraConfig  # here and below: seconds to import, for who has an adapter

    try:
        return LoraConfig.from_pretrained(str(folder))
    except Exception as error:  # of peft's configurations: no common class
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / ADAPTER_CONFIG} is no configuration of a LoRA adapter ({reason})") from error


def put_in(model: Any, folder: Path, *, learns: bool = False, dropout: float = 0.0) -> Any:
    """Put a saved adapter into its base, in place, its values in float32.

    Args:
        model: the base.
        folder: of the adapter.
        learns: whether it is to be trained on.
        dropout: what of its inputs is dropped out while it is.

    Raises:
        ValueError: the adapter is damaged, or another model's.
    """
    config = read_lora_config(folder)
    config.inference_mode, config.lora_dropout = not learns, dropout
    _fitting(lambda: model.add_adapter(config), folder)
    load_adapter(in_float32(model), folder)
    return model


def merge_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter's change for its weights: no adapter is left.

    What was trained in full beside it, such as a head, takes its place.

    Raises:
        ValueError: as ``put_in``.
    """
    from peft import LoraModel

    config = read_lora_config(folder)
    config.inference_mode, config.lora_dropout = False, 0.0
    tuner: Any = _fitting(lambda: LoraModel(model, config, "default"), folder)
    load_adapter(in_float32(tuner.model), folder)
    merged: nn.Module = tuner.merge_and_unload(safe_merge=True)
    return merged.requires_grad_(True)


def _fitting(put: Any, folder: Path) -> Any:
    try:
        return put()
    except (
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # of peft: layers that it cannot find
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} is an adapter of another model than its base here: {reason}") from error


def in_float32(model: Any) -> Any:
    """What learns, in float32: a step of AdamW on an adapter in half precision is mostly rounded away."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def load_adapter(model: Any, folder: Path | str) -> None:
    """Take the values of a saved adapter over into that of ``model``, bit for bit.

    Raises:
        ValueError: the file is damaged, or does not hold what the adapter has.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    path = Path(folder) / ADAPTER_WEIGHTS
    saved = {key.removeprefix("base_model.model."): x for key, x in read_tensors(path).items()}
    state = get_peft_model_state_dict(model, save_embedding_layers=False)  # else it asks the Hub for the base
    wanted = {key.removeprefix("base_model.model."): x for key, x in state.items()}
    wrong = sorted(saved.keys() ^ wanted) or [key for key in wanted if saved[key].shape != wanted[key].shape]
    if wrong:
        raise ValueError(f"{path} is not of this adapter: {wrong[0]} is missing, too many or of another shape")
    set_peft_model_state_dict(model, saved)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: it is none, cut off, or holds numbers that are not finite.
    """
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except Exception as error:  # safetensors' own error is an Exception, an empty file's another
        raise ValueError(f"{path} is no whole safetensors file ({error}): cut off or damaged; train again") from error
    if bad := [name for name, x in found.items() if x.is_floating_point() and not bool(torch.isfinite(x).all())]:
        raise ValueError(f"{path} holds NaN or infinity in {bad[0]}; train again")
    return found
