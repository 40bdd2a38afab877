"""What a model says of laid-out texts, and whether it says the same of every layout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from errata.models.layout import Layout, LayoutKind, Wanted, lay_out
from errata.models.load import HEADS
from errata.models.logprobs import at_least_float32, finish_of, read_logprobs
from errata.models.lower import KeptLayers, forget, kept_of, lower_kept
from errata.models.tree import ATTENTION, register
from errata.types import Encoded

__all__ = [
    "choose_layout",
    "keep_lower_layers",
    "laid_out_last_scalars",
    "laid_out_logprobs",
    "laid_out_scalars",
    "short_last_layer",
]

_LOG = logging.getLogger(__name__)

_LONGEST_WINDOW = 1024  # tokens; a longer one is not tried out


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
