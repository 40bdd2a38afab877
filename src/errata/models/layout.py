"""Where the tokens of a batch stand in the rectangle that a model is given, and what is read off it.

*Plain*: each sequence is a row. The two others compute nothing that no loss reads: what comes after the last token that
is read is cut off, the feed-forward part of the last layer is given only the columns that are read, and the output
layer is so in any layout.

*Tree*: all sequences of the batch stand in one row as a tree. What any of them begin with alike (the system prompt, a
prompt, a draft up to its first edit) stands there once, and nothing is padded. Positions count from the beginning of a
sequence. Attention goes node by node (``models/tree.py``), on a CPU and in place of sdpa.

*Shared*, elsewhere: the sequences of a group (the two sides of a pair) have their common beginning once: the *stem*,
prompt included. What follows it are *branches*, which see the stem and themselves, by a mask. Groups of different
lengths stand behind each other in one row, as many as fit, and do not see each other.

All give the same numbers, up to the rounding of sums in another order. ``choose_layout`` tries them out on the model at
hand, since a mask that a model does not understand is silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from errata.models.tree import Tree, plant
from errata.types import Encoded

__all__ = [
    "Layout",
    "LayoutKind",
    "Wanted",
    "common_length",
    "lay_out",
    "tree_size",
]


Ints = NDArray[np.int64]


class LayoutKind(StrEnum):
    """How a batch is laid out."""

    TREE = "tree"
    SHARED = "shared"
    PLAIN = "plain"


class Wanted(NamedTuple):
    """One sequence, and which of its response tokens are read (one mark each)."""

    encoded: Encoded
    marks: Sequence[bool] | NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layout:
    """R rows of C columns, and the N tokens that are read: those of ``wanted_SK``, row by row.

    S counts sequences: the first of every group, then the second of every group. K counts the response tokens of a
    sequence from 0; the prompt has no column in a stream.
    """

    kind: LayoutKind
    ids_RC: Int[Tensor, "R C"]
    position_RC: Int[Tensor, "R C"]
    """Place of a token in its sequence."""
    group_RC: Int[Tensor, "R C"]
    """Which group of the row a token belongs to; −1 is padding."""
    branch_RC: Int[Tensor, "R C"]
    """0 for the stem, which all branches of the group see; a branch sees no other. In a tree: which node."""
    read_N: Int[Tensor, " N"]
    """For each token that is read, row · C + column of what it is read off: the token before it in its sequence, which
    predicts it, or the token itself."""
    target_N: Int[Tensor, " N"]
    """The ids of the tokens that are read."""
    wanted_SK: Bool[Tensor, "S K"]
    """Which response tokens are read."""
    length_S: Int[Tensor, " S"]
    """How many response tokens a sequence has."""
    tree: Tree | None = None
    """Of the layout of this name."""

    def to(self, device: torch.device | str) -> Layout:
        """The same on another device."""
        moved: dict[str, Any] = {
            f.name: x.to(device) for f in fields(self) if isinstance(x := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def stream(self, values: Sequence[Sequence[float]]) -> Float[Tensor, "S K"]:
        """One value for each response token of each sequence, in the order of S; kept where it is read, else 0.

        Raises:
            ValueError: a stream is not as long as its response; cut apart from its ids it would supervise the wrong
                tokens.
        """
        out = torch.zeros(self.wanted_SK.shape)
        for row, (value, length) in enumerate(zip(values, self.length_S.tolist(), strict=True)):
            _check_length(row, length, len(value))
            out[row, :length] = torch.tensor(value, dtype=out.dtype)
        return torch.where(self.wanted_SK.cpu(), out, 0.0)

    def fill(self, value_N: Float[Tensor, " N"]) -> Float[Tensor, "S K"]:
        """What was read, at its place in the sequences; 0 elsewhere."""
        return torch.zeros(self.wanted_SK.shape, dtype=value_N.dtype, device=value_N.device).masked_scatter(
            self.wanted_SK, value_N
        )


def _check_length(row: int, tokens: int, values: int) -> None:
    if tokens != values:
        raise ValueError(f"row {row} has {tokens} response tokens and {values} values; make the stream again")


def common_length(one: Encoded, other: Encoded) -> int:
    """How many ids two sequences begin with alike."""
    size = min(len(one.ids), len(other.ids))
    differ = np.flatnonzero(np.array(one.ids[:size]) != np.array(other.ids[:size]))
    return int(differ[0]) if len(differ) else size


def tree_size(rows: Iterable[Sequence[Encoded]]) -> Callable[[Sequence[Encoded]], int]:
    """What counts the tokens of a row: one sequence, or two whose common beginning counts once.

    What all ``rows`` begin with is not counted.
    """
    every = [row[0] for row in rows]
    root = min((common_length(every[0], other) for other in every[1:]), default=0)

    def size(row: Sequence[Encoded]) -> int:
        return sum(len(side.ids) for side in row) - (common_length(*row) if len(row) > 1 else 0) - root

    return size


class _Group(NamedTuple):
    """The tokens of one group as the model is given them."""

    ids: Ints
    positions: Ints
    branches: Ints
    starts: tuple[int, ...]
    """Where the branch of each sequence starts."""
    stem: int


def lay_out(groups: Sequence[Sequence[Wanted]], kind: LayoutKind, *, pad_id: int, predicted: bool = True) -> Layout:
    """Lay out groups of sequences for one forward pass.

    Args:
        groups: each as many sequences: one, or the sides of a pair.
        kind: how.
        pad_id: fills the rectangle; may be any id.
        predicted: whether a token is read at the column before it, which predicts it (log-probabilities), or at its
            own (rewards). Decides how much can be cut off.

    Raises:
        ValueError: a sequence has not one mark for each response token.
    """
    sequences = [group[side] for side in range(len(groups[0])) for group in groups]
    lengths = [len(encoded.ids) - encoded.prompt_length for encoded, _ in sequences]
    for number, (length, (_, marks)) in enumerate(zip(lengths, sequences, strict=True)):
        _check_length(number, length, len(marks))
    wanted = np.zeros((len(sequences), max(len(marks) for _, marks in sequences)), bool)
    for number, (_, marks) in enumerate(sequences):
        wanted[number, : len(marks)] = marks
    places = [np.flatnonzero(wanted[number]) + one.encoded.prompt_length for number, one in enumerate(sequences)]
    if kind is LayoutKind.TREE:
        return _as_tree(sequences, places, wanted, lengths, pad_id=pad_id, predicted=predicted)
    if kind is LayoutKind.PLAIN:
        built = [_chain(one.encoded) for one in sequences]
        row_of, offset_of = np.arange(len(built)), np.zeros(len(built), np.int64)
        group_of = list(range(len(built)))
    else:
        count = len(groups)
        built = [
            _tree([one.encoded for one in group], places[k::count], predicted=predicted)
            for k, group in enumerate(groups)
        ]
        row_of, offset_of = _pack([len(one.ids) for one in built])
        group_of = list(range(count)) * len(groups[0])
    width = max(1, *(len(one.ids) + int(offset) for one, offset in zip(built, offset_of, strict=True)))
    ids, positions, branches = (np.zeros((int(row_of.max()) + 1, width), np.int64) for _ in range(3))
    ids[:] = pad_id
    owner = np.full_like(ids, -1)
    for k, (one, row, offset) in enumerate(zip(built, row_of, offset_of, strict=True)):
        columns = slice(offset, offset + len(one.ids))
        ids[row, columns], positions[row, columns], branches[row, columns] = one.ids, one.positions, one.branches
        owner[row, columns] = k
    read, targets = [], []
    for number, (found, k) in enumerate(zip(places, group_of, strict=True)):
        one, side = built[k], number // len(built)
        at = found - predicted
        column = np.where(at < one.stem, at, one.starts[side] + at - one.stem)
        read.append(row_of[k] * width + offset_of[k] + column)
        targets.append(np.array(sequences[number].encoded.ids, np.int64)[found])
    return Layout(
        kind=kind,
        ids_RC=torch.from_numpy(ids),
        position_RC=torch.from_numpy(positions),
        group_RC=torch.from_numpy(owner),
        branch_RC=torch.from_numpy(branches),
        read_N=torch.from_numpy(np.concatenate(read)),
        target_N=torch.from_numpy(np.concatenate(targets)),
        wanted_SK=torch.from_numpy(wanted),
        length_S=torch.tensor(lengths),
    )


def _as_tree(
    sequences: Sequence[Wanted],
    places: Sequence[Ints],
    wanted: NDArray[np.bool_],
    lengths: Sequence[int],
    *,
    pad_id: int,
    predicted: bool,
) -> Layout:
    ids = [np.array(one.encoded.ids, np.int64) for one in sequences]
    used = [row[:stop] for row, stop in zip(ids, _stops(places, predicted=predicted), strict=True)]
    # A model is given something, also where nothing is read.
    planted = plant(used if any(map(len, used)) else [np.array([pad_id])])
    read = [planted.columns[k][found - predicted] for k, found in enumerate(places) if len(found)]
    targets = [row[found] for row, found in zip(ids, places, strict=True)]
    return Layout(
        kind=LayoutKind.TREE,
        ids_RC=torch.from_numpy(planted.ids)[None],
        position_RC=torch.from_numpy(planted.positions)[None],
        group_RC=torch.zeros(1, len(planted.ids), dtype=torch.long),
        branch_RC=torch.from_numpy(planted.nodes)[None],
        read_N=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *read])),
        target_N=torch.from_numpy(np.concatenate(targets)),
        wanted_SK=torch.from_numpy(wanted),
        length_S=torch.tensor(lengths),
        tree=planted.tree,
    )


def _stops(places: Sequence[Ints], *, predicted: bool) -> list[int]:
    """How many tokens of each sequence are given: a token that is predicted need not be there itself."""
    return [int(found[-1]) + (not predicted) if len(found) else 0 for found in places]


def _chain(encoded: Encoded) -> _Group:
    size = len(encoded.ids)
    return _Group(np.array(encoded.ids), np.arange(size), np.zeros(size, np.int64), (size,), size)


def _tree(sequences: Sequence[Encoded], places: Sequence[Ints], *, predicted: bool) -> _Group:
    """The stem, then the branches, each only as far as something is read."""
    stem = min([len(sequences[0].ids), *(common_length(sequences[0], other) for other in sequences[1:])])
    stops = _stops(places, predicted=predicted)
    used = max(min(stem, stop) for stop in stops)
    parts = [np.array(sequences[0].ids[:used], np.int64)]
    parts += [np.array(one.ids[stem:stop], np.int64) for one, stop in zip(sequences, stops, strict=True)]
    sizes = [len(part) for part in parts]
    starts = np.cumsum(sizes)
    return _Group(
        np.concatenate(parts),
        np.concatenate([np.arange(used), *(stem + np.arange(size) for size in sizes[1:])]),
        np.repeat(np.arange(len(parts)), sizes),
        tuple(starts[:-1].tolist()),
        stem,
    )


def _pack(sizes: Sequence[int]) -> tuple[Ints, Ints]:
    """Row and offset of each group: the longest first, into the first row with room (none is longer than the first)."""
    width = max(sizes)
    row_of, offset_of, filled = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64), list[int]()
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        row = next((row for row, size in enumerate(filled) if size + sizes[k] <= width), len(filled))
        if row == len(filled):
            filled.append(0)
        row_of[k], offset_of[k] = row, filled[row]
        filled[row] += sizes[k]
    return row_of, offset_of
