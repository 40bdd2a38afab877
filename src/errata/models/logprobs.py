"""What a causal language model thinks of tokens. The shift of a causal model is here and nowhere else."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from errata.models.batch import TokenBatch

__all__ = ["token_entropy", "token_logprobs"]


def token_logprobs(model: nn.Module, batch: TokenBatch) -> Float[Tensor, "B T"]:
    """Log p(y_t | x, y_<t) in nats, column t speaking of token t; 0 outside the response.

    The logits at column t-1 predict token t, so column 0 has no prediction: a prompt has at least one token.
    """
    logits_BTV = _logits(model, batch)
    logprob_BT = logits_BTV.gather(-1, batch.ids_BT[:, 1:, None]).squeeze(-1) - logits_BTV.logsumexp(-1)
    return _columns(logprob_BT, batch)


def token_entropy(model: nn.Module, batch: TokenBatch) -> Float[Tensor, "B T"]:
    """Entropy of the distribution that token t was drawn from, in nats; 0 outside the response."""
    logprob_BTV = _logits(model, batch).log_softmax(-1)
    return _columns(-(logprob_BTV.exp() * logprob_BTV).sum(-1), batch)


def _logits(model: nn.Module, batch: TokenBatch) -> Float[Tensor, "B T V"]:
    output = model(input_ids=batch.ids_BT, attention_mask=batch.attention_mask_BT.long(), use_cache=False)
    logits: Tensor = output.logits[:, :-1].float()
    return logits


def _columns(x: Tensor, batch: TokenBatch) -> Tensor:
    shifted = torch.cat([x.new_zeros(x.shape[0], 1), x], dim=1)
    return torch.where(batch.response_mask_BT, shifted, 0.0)
