"""Sequences as one tree: what several of them begin with stands there once, and attention goes along the branches.

A node is a run of tokens; its sequence is what stands in the nodes above it and in itself. Everything but attention
looks at one token at a time and is given one row without padding. Attention is computed block by block (a node, or a
few that are too small to be worth a call each), with the nodes above as keys: no matrix of all columns by all columns.
It takes a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["ATTENTION", "Node", "Planted", "Tree", "plant", "register", "window_of"]

Ints = NDArray[np.int64]

ATTENTION = "errata_tree"
"""The name under which transformers knows this attention; without a tree it is sdpa's."""


_CALL = 4000
"""As many pairs of query and key are computed in the time that a call costs."""


class Node(NamedTuple):
    """The tokens in columns ``start`` to ``stop``."""

    start: int
    stop: int
    parent: int
    """−1 for a root."""
    seen: tuple[tuple[int, int], ...]
    """Runs of columns from the root to itself."""


class Block(NamedTuple):
    """A node, or all of a node and what is below it: columns that attend in one call."""

    start: int
    stop: int
    nodes: range
    seen: tuple[tuple[int, int], ...]
    """Runs of columns that any of them sees; the last ones are themselves."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes of one row, parents first, what is below a node right behind it."""

    nodes: tuple[Node, ...]
    blocks: tuple[Block, ...] = ()
    """If none are given, those that take the least time."""
    masks: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """Made once for all layers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", self.blocks or _blocks(self.nodes))

    def how(self, number: int, window: int | None, dtype: torch.dtype) -> tuple[bool, Tensor | None]:
        """Whether a block is plainly causal; else the mask of what it sees, less the future and beyond the window."""
        block = self.blocks[number]
        size, seen = block.stop - block.start, _width(block.seen)
        if len(block.nodes) == 1 and (window is None or seen <= window):
            if size == seen:
                return True, None
            if size == 1:
                return False, None
        if (number, window, dtype) not in self.masks:
            mask = torch.full((size, seen), -torch.inf, dtype=dtype)
            columns = np.concatenate([np.arange(*run) for run in block.seen])
            for k in block.nodes:
                node = self.nodes[k]
                # All tokens of its sequence are there in order: the place of each is its position.
                whole = np.concatenate([np.arange(*run) for run in node.seen])
                place = np.arange(len(whole))
                own = place[len(whole) - node.stop + node.start :, None]
                open_ = (place <= own) & (place > own - (window or len(whole)))
                sees = np.zeros((len(own), columns.max() + 1), bool)
                sees[:, whole] = open_
                rows = slice(node.start - block.start, node.stop - block.start)
                mask[rows].masked_fill_(torch.from_numpy(sees[:, columns]), 0.0)
            self.masks[number, window, dtype] = mask
        return False, self.masks[number, window, dtype]


def _width(runs: Sequence[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in runs)


def _blocks(nodes: Sequence[Node]) -> tuple[Block, ...]:
    """Nodes are taken together with all that is below them where that takes less time than a call for each."""
    count = len(nodes)
    last, best, together = list(range(count)), [0] * count, [False] * count
    for k in range(count - 1, -1, -1):
        node = nodes[k]
        size, above = node.stop - node.start, _width(node.seen) - node.stop + node.start
        best[k] += size * (above + size) + _CALL
        whole = nodes[last[k]].stop - node.start
        merged = whole * (above + whole) + _CALL
        if merged <= best[k]:
            best[k], together[k] = merged, True
        if node.parent >= 0:
            best[node.parent] += best[k]
            last[node.parent] = max(last[node.parent], last[k])
    found: list[Block] = []
    k = 0
    while k < count:
        end = last[k] if together[k] else k
        start, stop = nodes[k].start, nodes[end].stop
        # What is above it, and all of its own columns.
        runs = [(a, min(b, start)) for a, b in nodes[k].seen if a < start]
        joined = bool(runs) and runs[-1][1] == start
        seen = [*runs[:-1], (runs[-1][0], stop)] if joined else [*runs, (start, stop)]
        found.append(Block(start, stop, range(k, end + 1), tuple(seen)))
        k = end + 1
    return tuple(found)


class Planted(NamedTuple):
    """The row of a tree."""

    ids: Ints
    positions: Ints
    nodes: Ints
    """The node of each column."""
    columns: list[Ints]
    """Of each sequence, where its tokens stand."""
    tree: Tree


def plant(sequences: Sequence[Ints]) -> Planted:
    """Put sequences into one row, their common beginnings once."""
    columns = [np.zeros(len(ids), np.int64) for ids in sequences]
    nodes: list[Node] = []
    parts: list[Ints] = []
    positions: list[Ints] = []
    filled = 0
    todo: list[tuple[list[int], int, int]] = [(list(range(len(sequences))), 0, -1)]
    while todo:
        members, start, parent = todo.pop()
        first = sequences[members[0]]
        stop = min(_alike(first, sequences[k], start) for k in members)
        above = nodes[parent].seen if parent >= 0 else ()
        if stop > start:
            run = (filled, filled + stop - start)
            # The first child stands right behind its parent: one run of columns.
            joined = bool(above) and above[-1][1] == filled
            seen = (*above[:-1], (above[-1][0], run[1])) if joined else (*above, run)
            nodes.append(Node(*run, parent, seen))
            parent = len(nodes) - 1
            parts.append(first[start:stop])
            positions.append(np.arange(start, stop))
            for k in members:
                columns[k][start:stop] = np.arange(*run)
            filled = run[1]
        children: dict[int, list[int]] = {}
        for k in members:
            if len(sequences[k]) > stop:
                children.setdefault(int(sequences[k][stop]), []).append(k)
        todo += [(child, stop, parent) for child in reversed(children.values())]
    return Planted(
        np.concatenate(parts) if parts else np.zeros(0, np.int64),
        np.concatenate(positions) if parts else np.zeros(0, np.int64),
        np.repeat(np.arange(len(nodes)), [len(part) for part in parts]),
        columns,
        Tree(tuple(nodes)),
    )


def _alike(one: Ints, other: Ints, start: int) -> int:
    """Up to where two sequences are the same, that are the same up to ``start``."""
    size = min(len(one), len(other))
    differ = np.flatnonzero(one[start:size] != other[start:size])
    return start + int(differ[0]) if len(differ) else size


def window_of(config: Any, layer: int | None) -> int | None:
    """How many tokens a layer sees, itself included; None: all. By the config's sliding window and kinds of layers."""
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    # Where layers have kinds, a window that none of them names is not in force.
    if not window or (kinds and (layer is None or kinds[layer] != "sliding_attention")):
        return None
    return window


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree: Tree | None = None,
    scaling: float | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    if tree is None:
        usual, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **named)
        return usual, None
    for name in ("dropout", "softcap", "s_aux", "position_bias"):
        if named.get(name):
            raise ValueError(f"its attention has {name}")
    config: Any = module.config
    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    function: Any = _TreeAttention
    layer: Any = getattr(module, "layer_idx", None)
    out_CHE = function.apply(query[0], key[0], value[0], tree, scaling, window_of(config, layer))
    return out_CHE[None], None


class _TreeAttention(torch.autograd.Function):
    """softmax(s · q k + mask) v for each block, the keys from the root to itself; H heads, G of keys, E numbers a head.

    By the kernels of torch's own attention on a CPU. Kept for the backward pass are q, k, v, the result and the sums of
    exponentials, each token's once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_HCE: Float[Tensor, "H C E"],
        key_GCE: Float[Tensor, "G C E"],
        value_GCE: Float[Tensor, "G C E"],
        tree: Tree,
        scaling: float,
        window: int | None,
    ) -> Float[Tensor, "C H E"]:
        heads, columns, size = query_HCE.shape
        out_CHE = query_HCE.new_empty(columns, heads, size)
        sums = []
        for k, block in enumerate(tree.blocks):
            key, value = (_seen(x, block, heads) for x in (key_GCE, value_GCE))
            causal, mask = tree.how(k, window, key.dtype)
            found, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query_HCE[None, :, block.start : block.stop], key, value, 0.0, causal, attn_mask=mask, scale=scaling
            )
            out_CHE[block.start : block.stop] = found[0].transpose(0, 1)
            sums.append(total)
        ctx.tree, ctx.scaling, ctx.window = tree, scaling, window
        ctx.save_for_backward(query_HCE, key_GCE, value_GCE, out_CHE, *sums)
        return out_CHE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_CHE: Tensor) -> tuple[Tensor | None, ...]:
        query_HCE, key_GCE, value_GCE, out_CHE, *sums = ctx.saved_tensors
        heads, groups = len(query_HCE), len(key_GCE)
        of_query = torch.empty_like(query_HCE)
        of_key, of_value = torch.zeros_like(key_GCE), torch.zeros_like(value_GCE)
        for k, (block, total) in enumerate(zip(ctx.tree.blocks, sums, strict=True)):
            own = slice(block.start, block.stop)
            key, value = (_seen(x, block, heads) for x in (key_GCE, value_GCE))
            causal, mask = ctx.tree.how(k, ctx.window, key.dtype)
            back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                gradient_CHE[own].transpose(0, 1)[None],
                query_HCE[None, :, own],
                key,
                value,
                out_CHE[own].transpose(0, 1)[None],
                total,
                0.0,
                causal,
                attn_mask=mask,
                scale=ctx.scaling,
            )
            of_query[:, own] = back[0][0]
            keys, values = (x[0] if x.shape[1] == groups else x[0].unflatten(0, (groups, -1)).sum(1) for x in back[1:])
            at = 0
            for start, stop in block.seen:
                of_key[:, start:stop] += keys[:, at : at + stop - start]
                of_value[:, start:stop] += values[:, at : at + stop - start]
                at += stop - start
        return of_query, of_key, of_value, None, None, None


def _seen(x_GCE: Tensor, block: Block, heads: int) -> Float[Tensor, "1 H J E"]:
    """What a block sees; one for each head where the kernels do not know of groups, which stand behind each other."""
    runs = [x_GCE[:, start:stop] for start, stop in block.seen]
    seen = runs[0] if len(runs) == 1 else torch.cat(runs, 1)
    alike = heads == len(seen) or _kernels_know_groups()
    return seen[None] if alike else seen.repeat_interleave(heads // len(seen), 0)[None]


@cache
def _kernels_know_groups() -> bool:
    """Whether several heads may share keys, forward and backward; older kernels do not say that they may not."""
    random = torch.Generator().manual_seed(0)
    query, key, gradient = (torch.randn(1, heads, 3, 4, generator=random) for heads in (4, 2, 4))
    every = key.repeat_interleave(2, 1)
    try:
        one, other = (_both_ways(query, each, gradient) for each in (key, every))
    except RuntimeError:
        return False
    return torch.allclose(one[0], other[0]) and torch.allclose(one[1], other[1].unflatten(1, (2, 2)).sum(2), atol=1e-6)


def _both_ways(query: Tensor, key: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    kernels = torch.ops.aten
    out, total = kernels._scaled_dot_product_flash_attention_for_cpu(query, key, key, 0.0, True)
    _, of_key, of_value = kernels._scaled_dot_product_flash_attention_for_cpu_backward(
        gradient, query, key, key, out, total, 0.0, True
    )
    return out, of_key + of_value


@cache
def register() -> None:
    """Tell transformers what ``ATTENTION`` is, once; it imports all that models are made of, which takes seconds."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
