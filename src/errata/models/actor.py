"""The policy as PPO reads it: log-probabilities of response tokens, without holding all logits where they are many."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from errata.models.batch import TokenBatch
from errata.models.layout import short_last_layer
from errata.models.logprobs import _columns, _logits, at_least_float32

__all__ = ["LOGITS_AT_ONCE", "Actor"]

LOGITS_AT_ONCE = 2**23
"""More logits than these are computed in chunks of response tokens, and again in the backward pass: 32 MiB."""


class Actor(nn.Module):
    """A causal language model that answers with log-probabilities; what is wrapped for several processes is this.

    ``errata.models.token_logprobs`` holds (B, T, V) logits in float32, several times over in the backward pass. Here
    the output layer is applied to response tokens only, to a few at a time where the logits are many, and the
    feed-forward part of the last layer to what they are read off, if hidden states and a linear output layer are all
    there is to the logits of this model (it is tried out: a soft cap or a scale would be lost).
    """

    def __init__(self, causal: Any, *, logits_at_once: int = LOGITS_AT_ONCE) -> None:
        super().__init__()
        self.causal, self.logits_at_once = causal, logits_at_once
        self.splits = _splits(causal)
        self._no_split_modules = getattr(causal, "_no_split_modules", None)  # what FSDP shares out one by one

    def forward(
        self, batch: TokenBatch, temperature: float = 1.0, with_entropy: bool = False
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Log-probability of each response token, and the entropy that it was drawn with (zeros unless asked for).

        Both in nats, 0 outside the response. No gradient flows through the entropy.
        """
        if not self.splits:
            logits_BTV = _logits(self.causal, batch, temperature)
            targets_BT = batch.ids_BT[:, -logits_BTV.shape[1] :]
            found = _of_logits(logits_BTV.flatten(0, 1), targets_BT.flatten(), with_entropy)
            logprob_BT, entropy_BT = (_columns(x.view_as(targets_BT), batch) for x in found)
            return logprob_BT, entropy_BT
        target_N = batch.ids_BT[batch.response_mask_BT]
        # The logits of column t-1 predict token t; a prompt has at least one token.
        read_N = batch.response_mask_BT.flatten().nonzero()[:, 0] - 1
        hidden_ND = _hidden(self.causal, batch.ids_BT, read_N)
        head = self.causal.get_output_embeddings()
        weight_VD, bias_V = head.weight, head.bias
        if torch.is_autocast_enabled(hidden_ND.device.type):
            dtype = torch.get_autocast_dtype(hidden_ND.device.type)
            hidden_ND, weight_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
            bias_V = None if bias_V is None else bias_V.to(dtype)
        rows = max(1, self.logits_at_once // weight_VD.shape[0])
        function: Any = _Logprobs
        found = function.apply(hidden_ND, weight_VD, bias_V, target_N, temperature, rows, with_entropy)
        logprob_BT, entropy_BT = (
            torch.zeros(batch.ids_BT.shape, device=x_N.device, dtype=x_N.dtype).masked_scatter(
                batch.response_mask_BT, x_N
            )
            for x_N in found
        )
        return logprob_BT, entropy_BT


class _Logprobs(torch.autograd.Function):
    """log softmax((W h + b) / temperature) at the targets, and the entropy; the logits of a few rows at a time.

    Logits of more than ``rows`` rows are computed again in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Float[Tensor, "N D"],
        weight_VD: Float[Tensor, "V D"],
        bias_V: Float[Tensor, " V"] | None,
        target_N: Int[Tensor, " N"],
        temperature: float,
        rows: int,
        with_entropy: bool,
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        ctx.temperature, ctx.rows, ctx.whole = temperature, rows, None
        parts, entropies, sums = [], [], []
        for hidden, target in zip(hidden_ND.split(rows), target_N.split(rows), strict=True):
            logits = _tempered(hidden, weight_VD, bias_V, temperature)
            picked = logits.gather(-1, target[:, None])[:, 0]
            sums.append(logits.logsumexp(-1))
            parts.append(picked - sums[-1])
            if len(target) == len(target_N) and any(ctx.needs_input_grad[:3]):
                ctx.whole = logits
            if with_entropy:
                logprob = logits - sums[-1][:, None]
                # A token that is impossible adds nothing.
                entropies.append(-(logprob.exp() * logprob.clamp_(min=torch.finfo(logprob.dtype).min)).sum(-1))
        logprob_N = torch.cat(parts)
        entropy_N = torch.cat(entropies) if with_entropy else torch.zeros_like(logprob_N)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N, torch.cat(sums))
        ctx.mark_non_differentiable(entropy_N)
        return logprob_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, target_N, sum_N = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        # Sums over many rows are kept in float32 at least.
        of_weight = torch.zeros_like(weight_VD, dtype=sum_N.dtype) if wants_weight else None
        of_bias = torch.zeros_like(bias_V, dtype=sum_N.dtype) if wants_bias else None
        of_hidden = []
        scaled_N = gradient_N / ctx.temperature
        for hidden, target, scaled, total in zip(
            *(x.split(ctx.rows) for x in (hidden_ND, target_N, scaled_N, sum_N)), strict=True
        ):
            if ctx.whole is None:
                back = _tempered(hidden, weight_VD, bias_V, ctx.temperature).sub_(total[:, None])
            else:
                back = ctx.whole - total[:, None]
            # d log p(y) / d logits = 1[y] − p
            back.exp_().mul_(-scaled[:, None])
            back.scatter_add_(-1, target[:, None], scaled[:, None])
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
            *(None,) * 4,
        )


def _tempered(hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None, temperature: float) -> Tensor:
    logits = at_least_float32(functional.linear(hidden, weight_VD, bias_V))
    return logits.div_(temperature) if temperature != 1.0 else logits


def _hidden(causal: Any, ids_BT: Tensor, read_N: Tensor) -> Float[Tensor, "N D"]:
    """The last hidden states at these places (row · T + column). Padding on the right is after all that is read."""
    with short_last_layer(causal, read_N):
        hidden_BTD = causal.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    hidden_ND: Tensor = hidden_BTD.flatten(0, 1).index_select(0, read_N)
    return hidden_ND


def _of_logits(logits_NV: Tensor, target_N: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor]:
    logprob_N = -functional.cross_entropy(logits_NV, target_N, reduction="none")
    if not with_entropy:
        return logprob_N, torch.zeros_like(logprob_N)
    with torch.no_grad():
        logprob_NV = logits_NV.log_softmax(-1)
        return logprob_N, -torch.where(logprob_NV > -torch.inf, logprob_NV.exp() * logprob_NV, 0.0).sum(-1)


@torch.no_grad()
def _splits(causal: Any) -> bool:
    """Whether the logits are the output layer's word on the last hidden states, and nothing after it."""
    head = causal.get_output_embeddings()
    if type(head) is not nn.Linear or causal.base_model is causal:
        return False
    ids_BT = torch.arange(4, device=head.weight.device)[None]
    read_N = torch.arange(1, 4, device=head.weight.device)
    whole = causal(input_ids=ids_BT, use_cache=False).logits[0, 1:]
    try:
        parts = head(_hidden(causal, ids_BT, read_N))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False
    return whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-4, atol=1e-5)
