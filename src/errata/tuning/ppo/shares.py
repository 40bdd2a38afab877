"""Weights and the state of optimizers as whole tensors, also where each process has a share of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["copy_into", "load_optimizer", "optimizer_tensors", "trainable", "whole_tensors"]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn: all, or those of the adapter."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def gathered(tensor: Tensor) -> Tensor:
    """With the shares of all processes, which all have to ask."""
    from torch.distributed.tensor import DTensor  # a second to import, at the first checkpoint

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(whole: Tensor, tensor: Tensor) -> Tensor:
    """A tensor that was whole, in shares where the other is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    whole = whole.to(tensor.device)
    return distribute_tensor(whole, tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else whole


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole, on the CPU, as they are saved."""
    return {name: gathered(tensor.detach()).cpu().contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def copy_into(tensors: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Write whole tensors into others, in shares where those are."""
    assert tensors.keys() == into.keys(), tensors.keys() ^ into.keys()
    for name, tensor in into.items():
        tensor.copy_(like(tensors[name], tensor))


def optimizer_tensors(optimizer: Any) -> dict[str, Tensor]:
    """The state of AdamW as tensors; its settings are those of the run."""
    state = optimizer.state_dict()["state"]
    return whole_tensors({f"{number}.{name}": each for number, found in state.items() for name, each in found.items()})


def load_optimizer(optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
    """Take up the state of ``optimizer_tensors``."""
    state: dict[int, dict[str, Tensor]] = {}
    (group,) = optimizer.param_groups
    for key, tensor in tensors.items():
        number, name = key.split(".")
        # All but the count of steps have the shape of the parameter, and are shared out as it is.
        parameter = group["params"][int(number)]
        state.setdefault(int(number), {})[name] = tensor if name == "step" else like(tensor, parameter.detach())
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
