"""Where the tokens of a batch stand in the rectangle that a model is given, and what is read off it.

*Plain*: each sequence is a row, and the model predicts every token. *Shared*: nothing is computed that no loss reads.

- The sequences of a group (the two sides of a pair) have their common beginning once: the *stem*, prompt included. What
  follows it are *branches*, which see the stem and themselves. Positions count from the beginning of a sequence.
- What comes after the last token that is read is cut off.
- The output layer, and the feed-forward part of the last layer, are given only the columns that are read.
- Groups of different lengths stand behind each other in one row, as many as fit, and do not see each other.

Both give the same numbers, up to the rounding of sums in another order. ``choose_layout`` tries it out on the model at
hand, since a mask that a model does not understand is silently wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from errata.models.batch import TokenBatch
from errata.models.load import HEADS
from errata.models.logprobs import at_least_float32, token_logprobs
from errata.types import Encoded

__all__ = [
    "Layout",
    "LayoutKind",
    "Wanted",
    "choose_layout",
    "common_length",
    "laid_out_last_scalars",
    "laid_out_logprobs",
    "laid_out_scalars",
    "lay_out",
    "short_last_layer",
]

_LOG = logging.getLogger(__name__)

Ints = NDArray[np.int64]

_LONGEST_WINDOW = 1024  # tokens; a longer one is not tried out


class LayoutKind(StrEnum):
    """How a batch is laid out."""

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
    """0 for the stem, which all branches of the group see; a branch sees no other."""
    read_N: Int[Tensor, " N"]
    """For each token that is read, row · C + column of what it is read off: the token before it in its sequence, which
    predicts it, or the token itself."""
    target_N: Int[Tensor, " N"]
    """The ids of the tokens that are read."""
    wanted_SK: Bool[Tensor, "S K"]
    """Which response tokens are read."""
    length_S: Int[Tensor, " S"]
    """How many response tokens a sequence has."""

    def to(self, device: torch.device | str) -> Layout:
        """The same on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "kind"}
        return Layout(kind=self.kind, **moved)

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


def _chain(encoded: Encoded) -> _Group:
    size = len(encoded.ids)
    return _Group(np.array(encoded.ids), np.arange(size), np.zeros(size, np.int64), (size,), size)


def _tree(sequences: Sequence[Encoded], places: Sequence[Ints], *, predicted: bool) -> _Group:
    """The stem, then the branches, each only as far as something is read."""
    stem = min([len(sequences[0].ids), *(common_length(sequences[0], other) for other in sequences[1:])])
    # A token that is predicted need not be there itself.
    stops = [int(found[-1]) + (not predicted) if len(found) else 0 for found in places]
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


def laid_out_logprobs(model: nn.Module, layout: Layout) -> Float[Tensor, "S K"]:
    """The log-probability of each token that is read, in nats; 0 elsewhere.

    The layout was made with ``predicted``: a token is read off the one before it in its own sequence.
    """
    if layout.kind is LayoutKind.PLAIN:
        mask_RC = torch.zeros_like(layout.ids_RC, dtype=torch.bool)
        column_N = layout.read_N + 1
        mask_RC.view(-1)[column_N] = True
        batch = TokenBatch(layout.ids_RC, layout.group_RC >= 0, mask_RC)
        return layout.fill(token_logprobs(model, batch).flatten()[column_N])
    inner: Any = getattr(model, "module", model)
    with _only_columns(inner.get_output_embeddings(), layout.read_N), _short_last_layer_of(inner, layout):
        output = model(**_inputs(inner, layout))
    logits_NV = at_least_float32(output.logits[0])
    return layout.fill(-functional.cross_entropy(logits_NV, layout.target_N, reduction="none"))


def _inputs(model: Any, layout: Layout) -> dict[str, Any]:
    """What a model is given: ids, and of a shared layout positions and who sees whom."""
    if layout.kind is LayoutKind.PLAIN:
        return {
            "input_ids": layout.ids_RC,
            "attention_mask": (layout.group_RC >= 0).long(),
            "use_cache": False,
        }
    return {
        "input_ids": layout.ids_RC,
        "position_ids": layout.position_RC,
        "attention_mask": _attention(model, layout),
        "use_cache": False,
    }


@contextmanager
def _only_columns(head: nn.Module, columns_N: Tensor) -> Iterator[None]:
    """Let the output layer see only these columns, as one row; what a model does after it (soft caps) stays."""
    handle = head.register_forward_pre_hook(partial(_gather, columns_N=columns_N))
    try:
        yield
    finally:
        handle.remove()


def _gather(_: nn.Module, arguments: tuple[Tensor, ...], *, columns_N: Tensor) -> tuple[Tensor, ...]:
    hidden_RCD, *rest = arguments
    return hidden_RCD.flatten(0, 1).index_select(0, columns_N)[None], *rest


def _short_last_layer_of(model: Any, layout: Layout) -> AbstractContextManager[None]:
    return nullcontext() if layout.kind is LayoutKind.PLAIN else short_last_layer(model, layout.read_N)


@contextmanager
def short_last_layer(model: Any, read_N: Int[Tensor, " N"]) -> Iterator[None]:
    """Let the last layer's feed-forward part see only the columns that are read, since nothing comes after it.

    It gives zeros for the others, so that shapes stay. Not where the layer is computed again in the backward pass.

    Args:
        model: any Hugging Face model.
        read_N: row · width + column of what is read; may hold one several times.
    """
    layers = max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len, default=None)
    last: Any = layers[-1] if layers else None
    mlp = getattr(last, "mlp", None)
    if mlp is None or (model.training and getattr(last, "gradient_checkpointing", True)):
        yield
        return
    columns_M, shapes = read_N.unique(), list[torch.Size]()

    def gather(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shapes.append(arguments[0].shape)
        return _gather(module, arguments, columns_N=columns_M)

    def scatter(_: nn.Module, __: Any, hidden_1MD: Tensor) -> Tensor:
        shape = shapes.pop()
        whole_ND = hidden_1MD.new_zeros(shape[:-1].numel(), hidden_1MD.shape[-1])
        return whole_ND.index_copy(0, columns_M, hidden_1MD[0]).view(*shape[:-1], -1)

    handles = mlp.register_forward_pre_hook(gather), mlp.register_forward_hook(scatter)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _attention(model: Any, layout: Layout) -> Any:
    """The mask, in the form that the model's attention understands."""
    config = model.config.get_text_config()
    group, branch, position = layout.group_RC, layout.branch_RC, layout.position_RC
    columns = torch.arange(group.shape[1], device=group.device)
    sees = (group[:, :, None] == group[:, None, :]) & (columns[:, None] >= columns)
    sees &= (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    near = None
    if window := getattr(config, "sliding_window", None):
        near = sees & (position[:, :, None] - position[:, None, :] < window)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise ValueError(f"its layers are of the kinds {', '.join(sorted(kinds))}")

    def form(sees_RCC: Tensor) -> Tensor:
        sees_R1CC = sees_RCC[:, None]
        if config._attn_implementation == "sdpa":
            return sees_R1CC
        if config._attn_implementation == "eager":
            # A Boolean mask would be added as 0 and 1, without a word.
            dtype = model.dtype
            return torch.zeros(sees_R1CC.shape, dtype=dtype, device=group.device).masked_fill(
                ~sees_R1CC, torch.finfo(dtype).min
            )
        raise ValueError(f"its attention is {config._attn_implementation!r}, which takes no mask of our own")

    if "sliding_attention" in kinds:
        assert near is not None
        return {"full_attention": form(sees), "sliding_attention": form(near)}
    # Where layers have kinds, a window that none of them names is not in force.
    return form(sees if near is None or kinds else near)


def laid_out_scalars(model: nn.Module, layout: Layout) -> Float[Tensor, "S K"]:
    """The one number of a token-level head at each token that is read; 0 elsewhere.

    The layout was made without ``predicted``: a token is read at its own column.
    """
    inner: Any = getattr(model, "module", model)
    with _short_last_layer_of(inner, layout):
        output = model(**_inputs(inner, layout))
    return layout.fill(at_least_float32(output.logits).flatten()[layout.read_N])


def laid_out_last_scalars(model: nn.Module, layout: Layout) -> Float[Tensor, " S"]:
    """The one number of a sequence-level head at the one token of each sequence that is read: its last.

    The stock class gives one number a row. Here rows hold several sequences, so what its head says of every column is
    caught on the way.
    """
    inner: Any = getattr(model, "module", model)
    head = next(getattr(inner, name) for name in HEADS if hasattr(inner, name))
    caught: list[Tensor] = []
    handle = head.register_forward_hook(lambda _, __, scores: caught.append(scores))
    usual, inner.config.pad_token_id = inner.config.pad_token_id, 0  # it insists on one, for a number that nobody reads
    try:
        with _short_last_layer_of(inner, layout):
            model(**_inputs(inner, layout))
    finally:
        handle.remove()
        inner.config.pad_token_id = usual
    assert len(layout.read_N) == len(layout.wanted_SK), "one token of each sequence"
    return at_least_float32(caught[0]).flatten()[layout.read_N]


def _projected_hidden(model: Any, layout: Layout) -> Float[Tensor, "S K"]:
    """A number of the hidden state, whatever the head: one that was not trained yet says 0 of everything."""
    with _short_last_layer_of(model, layout):
        hidden_RCD = model.base_model(**_inputs(model, layout)).last_hidden_state.float()
    weight_D = torch.randn(hidden_RCD.shape[-1], generator=torch.Generator().manual_seed(0)).to(hidden_RCD.device)
    return layout.fill((hidden_RCD @ weight_D).flatten()[layout.read_N])


@torch.no_grad()
def choose_layout(model: Any, wanted: str = "auto") -> tuple[LayoutKind, str]:
    """Which layout a model shall be given, and the same in words, for the card; a fallback is logged as a warning.

    A mask that a model does not understand is silently wrong, so two pairs of noise are read in both layouts. How large
    a difference a wrong mask makes is measured on the same pairs, as what becomes of a branch that follows the other
    one; a hundredth of that is allowed.

    Args:
        model: any Hugging Face model, where it shall compute; with an output layer it is asked for log-probabilities,
            without for its hidden states.
        wanted: ``plain`` to have it so, ``auto`` to try.
    """
    if wanted == LayoutKind.PLAIN:
        return LayoutKind.PLAIN, "plain, as asked for"
    if any(isinstance(module, nn.Dropout) and module.p for module in model.modules()):
        # Their loss would be another one: the noise in what the two sides share would be the same for both.
        return LayoutKind.PLAIN, "plain: dropout draws noise for each side of a pair by itself"
    config = model.config.get_text_config()
    causal = model.get_output_embeddings() is not None
    read = laid_out_logprobs if causal else _projected_hidden
    device = next(model.parameters()).device
    # Long enough for a sliding window to matter.
    size = 16 + min(getattr(config, "sliding_window", None) or 0, _LONGEST_WINDOW)
    noise = np.random.default_rng(0).integers(0, config.vocab_size, (2, size + 16)).tolist()

    def found(rows: Sequence[Sequence[Encoded]], kind: LayoutKind) -> Tensor:
        groups = [[Wanted(one, [True] * len(one.response_ids)) for one in row] for row in rows]
        return read(model, lay_out(groups, kind, pad_id=0, predicted=causal).to(device))

    def sequence(ids: Sequence[int], prompt_length: int = size) -> Encoded:
        return Encoded(tuple(ids), prompt_length, (), ended=False)

    # Four response tokens in common, then four others here and seven there.
    pairs = [[sequence(ids[:-8]), sequence([*ids[:-12], *ids[-7:]])] for ids in noise]
    joined = [[sequence([*ids[:-8], *ids[-7:]], size + 8)] for ids in noise]
    was_training = model.training
    model.eval()
    try:
        plain, wrong = found(pairs, LayoutKind.PLAIN), found(joined, LayoutKind.PLAIN)
        shared = found(pairs, LayoutKind.SHARED)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return _fall_back(f"the model does not take the shared one: {' '.join(str(error).split())[:200]}")
    finally:
        model.train(was_training)
    off, allowed = float((shared - plain).abs().max()), float((wrong - plain[2:, 4:]).abs().max()) / 100
    if not off <= allowed:
        return _fall_back(f"on noise the shared one is off by {off:.2g}, and rounding may be {allowed:.2g}")
    return LayoutKind.SHARED, "shared"


def _fall_back(why: str) -> tuple[LayoutKind, str]:
    _LOG.warning("plain layout, slower with the same result: %s", why)
    return LayoutKind.PLAIN, f"plain: {why}"
