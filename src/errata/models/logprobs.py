"""What a causal language model thinks of tokens. The shift of a causal model is here and nowhere else."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from errata.models.batch import TokenBatch

__all__ = ["at_least_float32", "greedy_choices", "token_entropy", "token_logprobs"]


def token_logprobs(model: nn.Module, batch: TokenBatch, *, temperature: float = 1.0) -> Float[Tensor, "B T"]:
    """The log-probability of each response token in nats: column t holds log p(y_t | x, y_<t); 0 outside the response.

    The logits at column t-1 predict token t, so column 0 has no prediction: a prompt has at least one token.
    """
    logits_BTV = _logits(model, batch, temperature)
    targets_BT = batch.ids_BT[:, -logits_BTV.shape[1] :]
    nll_BT = functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
    return _columns(-nll_BT.view_as(targets_BT), batch)


def token_entropy(model: nn.Module, batch: TokenBatch, *, temperature: float = 1.0) -> Float[Tensor, "B T"]:
    """Entropy of the distribution that token t was drawn from, in nats; 0 outside the response."""
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
    inner: Any = getattr(model, "module", model)
    can_keep = "logits_to_keep" in inspect.signature(inner.forward).parameters
    kept = {"logits_to_keep": columns - first + 1} if can_keep else {}
    output = model(input_ids=batch.ids_BT, attention_mask=batch.attention_mask_BT.long(), use_cache=False, **kept)
    logits = at_least_float32(output.logits[:, :-1])
    if temperature != 1.0:
        logits = logits / temperature
    return logits


def _columns(x: Tensor, batch: TokenBatch) -> Tensor:
    missing = batch.ids_BT.shape[1] - x.shape[1]
    return torch.where(batch.response_mask_BT, functional.pad(x, (missing, 0)), 0.0)
