"""How far a model has gone from another, token by token."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from errata.models.adapters import adapter_off
from errata.models.batch import TokenBatch
from errata.models.logprobs import _columns, _logits

__all__ = ["token_kl"]

LOGITS_AT_ONCE = 2**24
"""Rows are taken so few at a time that the logits of one model are at most so many; a single row may have more."""


@torch.no_grad()
def token_kl(model: nn.Module, start: nn.Module | None, batch: TokenBatch) -> Float[Tensor, "B T"]:
    """KL(π ‖ π_start) over the whole vocabulary for each response token, in nats; 0 outside the response.

    Column t speaks of the distributions that token t was drawn from. It is exactly 0 where the two agree.

    Args:
        model: π.
        start: π_start; None: ``model`` with its adapter off.
        batch: the rows.
    """
    rows, columns = batch.ids_BT.shape
    vocabulary = model.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    step = max(1, LOGITS_AT_ONCE // (columns * int(vocabulary)))
    return torch.cat([_kl(model, start, batch[k : k + step]) for k in range(0, rows, step)])


def _kl(model: nn.Module, start: nn.Module | None, batch: TokenBatch) -> Tensor:
    logprob_BTV = _logits(model, batch, 1.0).log_softmax(-1)
    if start is not None:
        start_BTV = _logits(start, batch, 1.0).log_softmax(-1)
    else:
        with adapter_off(model):
            start_BTV = _logits(model, batch, 1.0).log_softmax(-1)
    prob_BTV = logprob_BTV.exp()
    # A token that is impossible adds nothing, also where both say so: 0 · (−∞ − −∞).
    terms_BTV = torch.where(prob_BTV > 0, prob_BTV * (logprob_BTV - start_BTV), 0.0)
    return _columns(terms_BTV.sum(-1), batch)
