"""What a causal language model thinks of tokens. The shift of a causal model is here and nowhere else.

Logits of a whole vocabulary are many times what everything else of a small model is, and all that is wanted of them is
one number a token. So the output layer is applied to what is read only, a few tokens at a time, and its logits are
reduced before the next ones are made.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from errata.models.batch import TokenBatch

__all__ = [
    "LOGITS_AT_ONCE",
    "Finish",
    "at_least_float32",
    "finish_of",
    "greedy_choices",
    "head_logprobs",
    "read_logprobs",
    "token_entropy",
    "token_logprobs",
]

_LOG = logging.getLogger(__name__)

LOGITS_AT_ONCE = 2**24
"""More logits than these are never held at a time: 64 MiB in float32."""


class Finish(NamedTuple):
    """What a model does to the numbers of its output layer: cap · tanh(scale · x / cap), or scale · x without a cap."""

    scale: float = 1.0
    """Cohere, Granite, Falcon H1."""
    cap: float | None = None
    """Gemma."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of what the output layer gives."""
        x = x if self.scale == 1.0 else x * self.scale
        return x if self.cap is None else (x / self.cap).tanh() * self.cap


def token_logprobs(model: nn.Module, batch: TokenBatch, *, temperature: float = 1.0) -> Float[Tensor, "B T"]:
    """The log-probability of each response token in nats: column t holds log p(y_t | x, y_<t); 0 outside the response.

    The logits at column t-1 predict token t, so column 0 has no prediction: a prompt has at least one token.
    """
    inputs = {"input_ids": batch.ids_BT, "attention_mask": batch.attention_mask_BT.long(), "use_cache": False}
    mask_BT = batch.response_mask_BT
    logprob_N, _ = read_logprobs(model, inputs, predicting(mask_BT), batch.ids_BT[mask_BT], temperature=temperature)
    return torch.zeros(mask_BT.shape, dtype=logprob_N.dtype, device=logprob_N.device).masked_scatter(mask_BT, logprob_N)


def predicting(mask_BT: Tensor) -> Int[Tensor, " N"]:
    """Row · width + column of what each marked token is predicted by: the column before it."""
    return mask_BT.flatten().nonzero()[:, 0] - 1


def token_entropy(model: nn.Module, batch: TokenBatch, *, temperature: float = 1.0) -> Float[Tensor, "B T"]:
    """Entropy of the distribution that token t was drawn from, in nats; 0 outside the response.

    It holds all logits; ``read_logprobs`` gives the same a few tokens at a time, without a gradient.
    """
    logprob_BTV = _logits(model, batch, temperature).log_softmax(-1)
    return _columns(-(logprob_BTV.exp() * logprob_BTV).sum(-1), batch)


def greedy_choices(
    model: nn.Module, batch: TokenBatch, rival_BT: Int[Tensor, "B T"]
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T"]]:
    """What the model would write in the place of each response token, and how it ranks the token against a rival.

    Args:
        model: a causal language model.
        batch: sequences of B prompts and responses.
        rival_BT: an id for each column.

    Returns:
        The most probable token at column t given the tokens before it, −1 outside the response; and
        log p(y_t | x, y_<t) − log p(rival_t | x, y_<t) in nats, 0 outside the response.
    """
    logits_BTV = _logits(model, batch, 1.0)
    kept = logits_BTV.shape[1]
    pairs_BT2 = torch.stack([batch.ids_BT[:, -kept:], rival_BT[:, -kept:]], -1)
    sent_BT, rival_logit_BT = logits_BTV.gather(-1, pairs_BT2).unbind(-1)
    choice_BT = functional.pad(logits_BTV.argmax(-1), (batch.ids_BT.shape[1] - kept, 0))
    return torch.where(batch.response_mask_BT, choice_BT, -1), _columns(sent_BT - rival_logit_BT, batch)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is too coarse for logarithms; double stays double."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _logits(model: nn.Module, batch: TokenBatch, temperature: float) -> Float[Tensor, "B T V"]:
    """The predictions of the last columns, from the first response token of the batch on; in float32."""
    columns = batch.ids_BT.shape[1]
    first = int(batch.response_mask_BT.any(0).int().argmax())
    # The output layer is most of a small model's work; columns in which every row is prompt need none of it.
    can_keep = "logits_to_keep" in inspect.signature(_inner(model).forward).parameters
    kept = {"logits_to_keep": columns - first + 1} if can_keep else {}
    output = model(input_ids=batch.ids_BT, attention_mask=batch.attention_mask_BT.long(), use_cache=False, **kept)
    logits = at_least_float32(output.logits[:, :-1])
    if temperature != 1.0:
        logits = logits / temperature
    return logits


def _columns(x: Tensor, batch: TokenBatch) -> Tensor:
    missing = batch.ids_BT.shape[1] - x.shape[1]
    return torch.where(batch.response_mask_BT, functional.pad(x, (missing, 0)), 0.0)


def read_logprobs(
    model: nn.Module,
    inputs: Mapping[str, Any],
    read_N: Int[Tensor, " N"],
    target_N: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    at_once: int = LOGITS_AT_ONCE,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The log-probability of ``target_N`` at the places ``read_N``, and the entropy there (zeros unless asked for).

    Both in nats. No gradient flows through the entropy.

    Args:
        model: a causal language model, may be wrapped for several processes, may have an adapter.
        inputs: what it is given.
        read_N: row · width + column of the places.
        target_N: the ids that are predicted there.
        temperature: divides the logits.
        with_entropy: whether entropy is wanted.
        at_once: how many logits may be held at a time; a model that does something unknown with its logits holds all.
    """
    finish = finish_of(model)
    if finish is None:
        logits_NV = at_least_float32(model(**inputs).logits).flatten(0, 1).index_select(0, read_N)
        return _of_logits(logits_NV / temperature, target_N, with_entropy)
    entropies: list[Tensor] = []
    values: list[Tensor] = []

    def forward(usual: Callable[[Tensor], Tensor], hidden_RCD: Tensor) -> Tensor:
        hidden_ND = hidden_RCD.flatten(0, 1).index_select(0, read_N)
        logprob_N, entropy_N = head_logprobs(
            head, hidden_ND, target_N, finish, temperature, with_entropy, at_once=at_once, usual=usual
        )
        values.append(logprob_N)
        entropies.append(entropy_N)
        return logprob_N[None, :, None]

    head: Any = _inner(model).get_output_embeddings()
    # Within the model's own pass: wrappers for several processes gather the head's weights there, and watch its output.
    with _InPlaceOf(head, forward):
        output = model(**inputs)
    logprob_N = output.logits[0, :, 0]
    if finish != Finish():
        # The model has bent the log-probabilities as if they were logits: what they were before, tied to its output.
        logprob_N = values[0] + 0.0 * logprob_N
    return logprob_N, entropies[0]


def _inner(model: Any) -> Any:
    return getattr(model, "module", model)


class _InPlaceOf:
    """As long as the block lasts, ``forward`` of a module is this function, which is also given the usual one."""

    def __init__(self, module: nn.Module, function: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> None:
        self.module, self.function = module, function

    def __enter__(self) -> None:
        usual, function = self.module.forward, self.function
        self.before = vars(self.module).get("forward")  # a wrapper may have put its own there
        self.module.forward = lambda hidden: function(usual, hidden)

    def __exit__(self, *_: object) -> None:
        del self.module.forward
        if self.before is not None:
            self.module.forward = self.before


_FINISHES: WeakKeyDictionary[nn.Module, Finish | None] = WeakKeyDictionary()


def finish_of(model: nn.Module) -> Finish | None:
    """What the model does after its output layer, as its config says; None if that is not all, which is logged once.

    It is tried out: the model is made to take noise, some of it large, for the numbers of its output layer.
    """
    inner = _inner(model)
    if inner not in _FINISHES:
        _FINISHES[inner] = _tried(model, inner)
        if _FINISHES[inner] is None:
            _LOG.warning("all logits are held, which takes more memory: the model changes them in an unknown way")
    return _FINISHES[inner]


@torch.no_grad()
def _tried(model: Any, inner: Any) -> Finish | None:
    head = inner.get_output_embeddings()
    config = inner.config.get_text_config()
    if not isinstance(head, nn.Module):
        return None
    scale = getattr(config, "logit_scale", None) or 1.0
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    found = Finish(scale, getattr(config, "final_logit_softcapping", None))
    noise: list[Tensor] = []

    def forward(usual: Callable[[Tensor], Tensor], hidden_RCD: Tensor) -> Tensor:
        few = usual(hidden_RCD[:1, :3])
        random = torch.Generator().manual_seed(0)
        noise.append((30.0 * torch.randn(few.shape, generator=random)).to(few))
        return noise[0].clone()

    device = next(inner.parameters()).device
    # Dropout would draw from the noise of the training step in which this is first asked.
    training = inner.training
    inner.eval()
    try:
        with _InPlaceOf(head, forward):
            logits = model(input_ids=torch.arange(4, device=device)[None], use_cache=False).logits
    finally:
        inner.train(training)
    if len(noise) != 1 or logits.shape != noise[0].shape:
        return None
    expected = at_least_float32(found(noise[0]))
    near = 1e-4 if noise[0].dtype in (torch.float32, torch.float64) else 2e-2
    return found if torch.allclose(at_least_float32(logits), expected, rtol=near, atol=near) else None


def head_logprobs(
    head: nn.Module,
    hidden_ND: Float[Tensor, "N D"],
    target_N: Int[Tensor, " N"],
    finish: Finish = Finish(),  # noqa: B008 (immutable)
    temperature: float = 1.0,
    with_entropy: bool = False,
    *,
    at_once: int = LOGITS_AT_ONCE,
    usual: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Log softmax(finish(head(h)) / temperature) at the targets, and the entropy; at most ``at_once`` logits at a time.

    A head that is not a plain linear layer (one with an adapter, or in 4 bits) is applied as ``usual`` does it.
    """
    usual = head if usual is None else usual
    if type(head) is nn.Linear:
        weight_VD: Tensor = head.weight
        bias_V: Tensor | None = head.bias
        if torch.is_autocast_enabled(hidden_ND.device.type):
            dtype = torch.get_autocast_dtype(hidden_ND.device.type)
            hidden_ND, weight_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
            bias_V = None if bias_V is None else bias_V.to(dtype)
        rows = _rows(len(target_N), at_once // len(weight_VD))
        function: Any = _Logprobs
        one, other = function.apply(hidden_ND, weight_VD, bias_V, target_N, finish, temperature, rows, with_entropy)
        return one, other

    def part(hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = finish(at_least_float32(usual(hidden))) / temperature
        return _of_logits(logits, target, with_entropy)

    rows = _rows(len(target_N), at_once // getattr(head, "out_features", at_once))
    pieces = zip(hidden_ND.split(rows), target_N.split(rows), strict=True)
    found: list[Any] = [checkpoint(part, *piece, use_reentrant=False) for piece in pieces]
    return torch.cat([one for one, _ in found]), torch.cat([other for _, other in found])


def _rows(count: int, most: int) -> int:
    """How many at a time, so that all parts are about as large."""
    return math.ceil(count / math.ceil(count / max(1, most))) if count else 1


class _Logprobs(torch.autograd.Function):
    """log softmax(finish(W h + b) / temperature) at the targets, and the entropy; the logits of a few rows at a time.

    Where only h has a gradient (a frozen head), W y − Σ p W is all that the backward pass needs, and it is made with
    the logits. Else logits of more than ``rows`` rows are computed again in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Float[Tensor, "N D"],
        weight_VD: Float[Tensor, "V D"],
        bias_V: Float[Tensor, " V"] | None,
        target_N: Int[Tensor, " N"],
        finish: Finish,
        temperature: float,
        rows: int,
        with_entropy: bool,
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        ctx.finish, ctx.temperature, ctx.rows, ctx.whole = finish, temperature, rows, None
        ctx.dtype = hidden_ND.dtype
        wants_hidden, *wants_head = ctx.needs_input_grad[:3]
        ctx.frozen = wants_hidden and not any(wants_head)
        parts, entropies, sums, slopes = [], [], [], []
        for hidden, target in zip(hidden_ND.split(rows), target_N.split(rows), strict=True):
            logits = _tempered(hidden, weight_VD, bias_V, finish, temperature)
            picked = logits.gather(-1, target[:, None])[:, 0]
            if with_entropy:
                logprob = logits.log_softmax(-1)
                # A token that is impossible adds nothing.
                entropies.append(-(logprob.exp() * logprob.clamp_(min=torch.finfo(logprob.dtype).min)).sum(-1))
            if ctx.frozen:
                total, slope = _frozen(logits, target, weight_VD, finish, temperature)
                slopes.append(slope)
            else:
                total = logits.logsumexp(-1)
                if len(target) == len(target_N) and any(wants_head):
                    ctx.whole = logits
            sums.append(total)
            parts.append(picked - total)
        logprob_N = torch.cat(parts)
        entropy_N = torch.cat(entropies) if with_entropy else torch.zeros_like(logprob_N)
        if ctx.frozen:
            ctx.save_for_backward(torch.cat(slopes))
        else:
            ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N, torch.cat(sums))
        ctx.mark_non_differentiable(entropy_N)
        return logprob_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.frozen:
            (slope_ND,) = ctx.saved_tensors
            return (gradient_N[:, None] * slope_ND).to(ctx.dtype), *(None,) * 7
        hidden_ND, weight_VD, bias_V, target_N, sum_N = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        # Sums over many rows are kept in float32 at least.
        of_weight = torch.zeros_like(weight_VD, dtype=sum_N.dtype) if wants_weight else None
        of_bias = torch.zeros_like(bias_V, dtype=sum_N.dtype) if wants_bias else None
        of_hidden = []
        for hidden, target, gradient, total in zip(
            *(x.split(ctx.rows) for x in (hidden_ND, target_N, gradient_N, sum_N)), strict=True
        ):
            if ctx.whole is None:
                logits = _tempered(hidden, weight_VD, bias_V, ctx.finish, ctx.temperature)
            else:
                logits = ctx.whole.clone()  # they may be asked for again
            back = _slope(logits, total, target, gradient, ctx.finish, ctx.temperature)
            if of_bias is not None:
                of_bias += back.sum(0)
            back = back.to(weight_VD.dtype)
            if wants_hidden:
                of_hidden.append(back @ weight_VD)
            if of_weight is not None:
                if back.dtype == of_weight.dtype:
                    of_weight.addmm_(back.T, hidden)
                else:
                    of_weight += back.T @ hidden
        return (
            torch.cat(of_hidden) if wants_hidden else None,
            None if of_weight is None else of_weight.to(weight_VD.dtype),
            None if of_bias is None else of_bias.to(bias_V.dtype),
            *(None,) * 5,
        )


def _tempered(
    hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None, finish: Finish, temperature: float
) -> Float[Tensor, "N V"]:
    logits = finish(at_least_float32(functional.linear(hidden, weight_VD, bias_V)))
    return logits.div_(temperature) if temperature != 1.0 else logits


def _slope(
    logits: Tensor, total_N: Tensor, target_N: Tensor, gradient_N: Tensor, finish: Finish, temperature: float
) -> Float[Tensor, "N V"]:
    """Gradient · ∂ log p(y) / ∂ (W h + b), made where the logits were."""
    bend = _bend(logits, finish, temperature)
    # ∂ log p(y) / ∂ logits = 1[y] − p
    scaled_N = gradient_N * (finish.scale / temperature)
    back = logits.sub_(total_N[:, None]).exp_().mul_(-scaled_N[:, None])
    back.scatter_add_(-1, target_N[:, None], scaled_N[:, None])
    return back if bend is None else back.mul_(bend)


def _frozen(
    logits: Tensor, target_N: Tensor, weight_VD: Tensor, finish: Finish, temperature: float
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N D"]]:
    """Log Σ exp, and ∂ log p(y) / ∂ h = W y − Σ p W; made where the logits were, with one exponential of each."""
    bend = _bend(logits, finish, temperature)
    largest_N1 = logits.amax(-1, keepdim=True)
    share = logits.sub_(largest_N1).exp_()
    sum_N1 = share.sum(-1, keepdim=True)
    picked = at_least_float32(weight_VD[target_N])
    if bend is not None:
        share.mul_(bend)
        picked = picked * bend.gather(-1, target_N[:, None])
    mean = at_least_float32(share.to(weight_VD.dtype) @ weight_VD).div_(sum_N1)
    return (largest_N1 + sum_N1.log())[:, 0], (picked - mean).mul_(finish.scale / temperature)


def _bend(logits: Tensor, finish: Finish, temperature: float) -> Tensor | None:
    """How much less than by the scale a logit rises with what is capped."""
    return None if finish.cap is None else 1.0 - (logits * (temperature / finish.cap)).square_()


def _of_logits(logits_NV: Tensor, target_N: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor]:
    logprob_N = -functional.cross_entropy(logits_NV, target_N, reduction="none")
    if not with_entropy:
        return logprob_N, torch.zeros_like(logprob_N)
    with torch.no_grad():
        logprob_NV = logits_NV.log_softmax(-1)
        return logprob_N, -torch.where(logprob_NV > -torch.inf, logprob_NV.exp() * logprob_NV, 0.0).sum(-1)
