"""Keys and values of what was read, for sampling: not copied at every token, nor whenever a response ends."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

__all__ = ["RoomyLayer", "cache_for", "those_that_stay"]


class RoomyLayer(DynamicLayer):
    """transformers' growing layer with room for as many tokens again, which is taken anew when it is used up.

    ``keys`` and ``values`` are what of the room is in use; the class above makes a new tensor of both at every token.
    """

    room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add the keys and values of some tokens, (B, heads, T, D) each; returns those of all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.room is None or end > self.room[0].shape[-2]:
            roomy = tuple(x.new_empty(*x.shape[:2], 2 * end, x.shape[-1]) for x in (key_states, value_states))
            if self.room is not None:
                for new, old in zip(roomy, self.room, strict=True):
                    new[:, :, :start] = old[: len(new), :, :start]
            self.room = roomy[0], roomy[1]
        for whole, new in zip(self.room, (key_states, value_states), strict=True):
            whole[: len(new), :, start:end] = new
        return self._use(len(key_states), end)

    def batch_select_indices(self, indices: Int[Tensor, " R"]) -> None:
        """Keep these rows, in this order, of which those that stay where they are are not touched."""
        if self.room is None:
            return
        end = self.get_seq_length()
        (moved,) = (indices != torch.arange(len(indices), device=indices.device)).nonzero(as_tuple=True)
        if len(moved):
            for whole in self.room:
                whole[moved, :, :end] = whole[indices[moved], :, :end]
        self._use(len(indices), end)

    def _use(self, rows: int, end: int) -> tuple[Tensor, Tensor]:
        assert self.room is not None
        keys, values = (whole[:rows, :, :end] for whole in self.room)
        self.keys, self.values = keys, values
        return keys, values


def cache_for(model: Any) -> DynamicCache:
    """The cache that transformers makes for a model, with room where a layer keeps all that it has read."""
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]  # type: ignore[no-untyped-call]
    return cache


def those_that_stay(stays_B: Bool[Tensor, " B"]) -> Int[Tensor, " R"]:
    """The numbers of the rows that go on, the last of them in the places of those that do not: few have to move."""
    rows = torch.arange(len(stays_B), device=stays_B.device)
    count = int(stays_B.sum())
    order = rows[:count].clone()
    order[~stays_B[:count]] = rows[count:][stays_B[count:]]
    return order
