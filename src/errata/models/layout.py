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

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from errata.models.load import HEADS
from errata.models.logprobs import at_least_float32, finish_of, read_logprobs
from errata.models.lower import KeptLayers, forget, kept_of, lower_kept
from errata.models.tree import ATTENTION, Tree, plant, register
from errata.types import Encoded

__all__ = [
    "Layout",
    "LayoutKind",
    "Wanted",
    "choose_layout",
    "common_length",
    "keep_lower_layers",
    "laid_out_last_scalars",
    "laid_out_logprobs",
    "laid_out_scalars",
    "lay_out",
    "short_last_layer",
    "tree_size",
]

_LOG = logging.getLogger(__name__)

Ints = NDArray[np.int64]

_LONGEST_WINDOW = 1024  # tokens; a longer one is not tried out


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


def laid_out_logprobs(model: nn.Module, layout: Layout) -> Float[Tensor, "S K"]:
    """The log-probability of each token that is read, in nats; 0 elsewhere.

    The layout was made with ``predicted``: a token is read off the one before it in its own sequence.
    """
    inner: Any = getattr(model, "module", model)
    finish_of(model)  # not to be tried out with the last layer shortened
    with _shortened(inner, layout):
        logprob_N, _ = read_logprobs(model, _inputs(inner, layout), layout.read_N, layout.target_N)
    return layout.fill(logprob_N)


def _inputs(model: Any, layout: Layout) -> dict[str, Any]:
    """What a model is given: ids, and of a shared layout positions and who sees whom."""
    if layout.kind is LayoutKind.PLAIN:
        return {
            "input_ids": layout.ids_RC,
            "attention_mask": (layout.group_RC >= 0).long(),
            "use_cache": False,
        }
    inputs = {"input_ids": layout.ids_RC, "position_ids": layout.position_RC, "use_cache": False}
    if layout.kind is LayoutKind.SHARED:
        return {**inputs, "attention_mask": _attention(model, layout)}
    _check_kinds(config := model.config.get_text_config())
    if config._attn_implementation == "sdpa":
        # It stays so, for what is computed again in the backward pass; without a tree it is sdpa.
        register()
        config._attn_implementation = ATTENTION
    if config._attn_implementation != ATTENTION:
        raise ValueError(f"its attention is {config._attn_implementation!r}, which takes no tree")
    # A mask of four dimensions is handed on as it is, and nobody looks at it.
    unused = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=layout.ids_RC.device)
    return {**inputs, "attention_mask": unused, "tree": layout.tree}


def _gather(_: nn.Module, arguments: tuple[Tensor, ...], *, columns_N: Tensor) -> tuple[Tensor, ...]:
    hidden_RCD, *rest = arguments
    return hidden_RCD.flatten(0, 1).index_select(0, columns_N)[None], *rest


@contextmanager
def _shortened(model: Any, layout: Layout) -> Iterator[None]:
    """The last layer where it is read, the layers below the adapter where they were not kept."""
    kept = kept_of(model)
    last = nullcontext() if layout.kind is LayoutKind.PLAIN else short_last_layer(model, layout.read_N)
    lower = kept.used(layout.ids_RC[0].tolist(), layout.tree) if kept and layout.tree else nullcontext()
    with last, lower:
        yield


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


def _check_kinds(config: Any) -> set[str]:
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise ValueError(f"its layers are of the kinds {', '.join(sorted(kinds))}")
    return kinds


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
    kinds = _check_kinds(config)

    def form(sees_RCC: Tensor) -> Tensor:
        sees_R1CC = sees_RCC[:, None]
        if config._attn_implementation in ("sdpa", ATTENTION):
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
    with _shortened(inner, layout):
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
        with _shortened(inner, layout):
            model(**_inputs(inner, layout))
    finally:
        handle.remove()
        inner.config.pad_token_id = usual
    assert len(layout.read_N) == len(layout.wanted_SK), "one token of each sequence"
    return at_least_float32(caught[0]).flatten()[layout.read_N]


def _projected_hidden(model: Any, layout: Layout) -> Float[Tensor, "S K"]:
    """A number of the hidden state, whatever the head: one that was not trained yet says 0 of everything."""
    with _shortened(model, layout):
        hidden_RCD = model.base_model(**_inputs(model, layout)).last_hidden_state.float()
    weight_D = torch.randn(hidden_RCD.shape[-1], generator=torch.Generator().manual_seed(0)).to(hidden_RCD.device)
    return layout.fill((hidden_RCD @ weight_D).flatten()[layout.read_N])


@contextmanager
def keep_lower_layers(model: Any, folder: Path, most_bytes: float) -> Iterator[None]:
    """As long as the block lasts, what the layers below the adapter give is kept on disk and read for trees.

    It is tried out on noise; if the upper layers need more of the lower ones, a warning says so and nothing is kept.

    Args:
        model: with an adapter on the uppermost layers; without one nothing is kept.
        folder: where the file lies, which vanishes with the process.
        most_bytes: what it may take.
    """
    with lower_kept(model, folder, int(most_bytes)) as kept:
        if kept is not None and not _same_when_kept(model, kept):
            _LOG.warning("what the lower layers give is not kept: with it the model gives other numbers")
            forget(model)
        yield


@torch.no_grad()
def _same_when_kept(model: Any, kept: KeptLayers) -> bool:
    read, predicted = _reader(model)
    ids = np.random.default_rng(0).integers(0, model.config.get_text_config().vocab_size, 24).tolist()
    pair = [Encoded(tuple(side), 8, (), ended=False) for side in (ids, ids[:12] + ids[16:])]
    wanted = [[Wanted(side, [True] * len(side.response_ids)) for side in pair]]
    layout = lay_out(wanted, LayoutKind.TREE, pad_id=0, predicted=predicted).to(next(model.parameters()).device)
    training = model.training
    model.eval()
    try:
        whole, again = read(model, layout), read(model, layout)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False
    finally:
        model.train(training)
        kept.places.clear()
    return torch.allclose(whole, again, rtol=1e-4, atol=1e-5)


def _reader(model: Any) -> tuple[Callable[[Any, Layout], Tensor], bool]:
    """How noise is read, and whether at the column before: log-probabilities where the model has words to say."""
    causal = model.get_output_embeddings() is not None
    return (laid_out_logprobs if causal else _projected_hidden), causal


@torch.no_grad()
def choose_layout(model: Any, wanted: str = "auto") -> tuple[LayoutKind, str]:
    """Which layout a model shall be given, and the same in words, for the card; a fallback is logged as a warning.

    A mask that a model does not understand is silently wrong, so two pairs of noise are read in each layout. How large
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
    read, causal = _reader(model)
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
    usual = config._attn_implementation
    # A tree is many small products, which a GPU does not like.
    kinds = [LayoutKind.SHARED] if device.type != "cpu" or usual == "eager" else [LayoutKind.TREE, LayoutKind.SHARED]
    reasons = []
    was_training = model.training
    model.eval()
    for kind in kinds:
        try:
            plain, wrong = found(pairs, LayoutKind.PLAIN), found(joined, LayoutKind.PLAIN)
            off, allowed = (plain - found(pairs, kind)).abs().max(), (wrong - plain[2:, 4:]).abs().max() / 100
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reasons.append(f"the model does not take the {kind} one: {' '.join(str(error).split())[:200]}")
        else:
            if off <= allowed:
                model.train(was_training)
                return kind, kind.value
            reasons.append(f"on noise the {kind} one is off by {off:.2g}, and rounding may be {allowed:.2g}")
        config._attn_implementation = usual
    model.train(was_training)
    _LOG.warning("plain layout, slower with the same result: %s", "; ".join(reasons))
    return LayoutKind.PLAIN, f"plain: {'; '.join(reasons)}"
