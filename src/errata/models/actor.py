"""The policy as PPO reads it: log-probabilities of response tokens, without holding all logits where they are many."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from errata.models.batch import TokenBatch
from errata.models.logprobs import _columns, _logits, at_least_float32

__all__ = ["LOGITS_AT_ONCE", "Actor"]

LOGITS_AT_ONCE = 2**23
"""More logits than these are computed in chunks of response tokens, and again in the backward pass: 32 MiB."""


class Actor(nn.Module):
    """A causal language model that answers with log-probabilities; what is wrapped for several processes is this.

    ``errata.models.token_logprobs`` holds (B, T, V) logits in float32, several times over in the backward pass. Where
    that is much, the output layer is applied here to a few response tokens at a time, if hidden states and output layer
    are all there is to the logits of this model (it is tried out: a soft cap or a scale would be lost).
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
        vocabulary = self.causal.get_output_embeddings().weight.shape[0]
        columns = batch.ids_BT.shape[1] - int(batch.response_mask_BT.any(0).int().argmax()) + 1
        if not self.splits or len(batch.ids_BT) * columns * vocabulary <= self.logits_at_once:
            logits_BTV = _logits(self.causal, batch, temperature)
            targets_BT = batch.ids_BT[:, -logits_BTV.shape[1] :]
            found = _of_logits(logits_BTV.flatten(0, 1), targets_BT.flatten(), with_entropy)
            logprob_BT, entropy_BT = (_columns(x.view_as(targets_BT), batch) for x in found)
            return logprob_BT, entropy_BT
        output = self.causal.base_model(
            input_ids=batch.ids_BT, attention_mask=batch.attention_mask_BT.long(), use_cache=False
        )
        # The logits of column t-1 predict token t; a prompt has at least one token.
        mask_BT = batch.response_mask_BT[:, 1:]
        hidden_ND, target_N = output.last_hidden_state[:, :-1][mask_BT], batch.ids_BT[:, 1:][mask_BT]
        size = max(1, self.logits_at_once // vocabulary)
        parts = [
            checkpoint(self._chunk, hidden, target, temperature, with_entropy, use_reentrant=False)
            for hidden, target in zip(hidden_ND.split(size), target_N.split(size), strict=True)
        ]
        logprob_BT, entropy_BT = (
            torch.zeros(batch.ids_BT.shape, device=hidden_ND.device, dtype=part[0].dtype).masked_scatter(
                batch.response_mask_BT, torch.cat(part)
            )
            for part in zip(*parts, strict=True)
        )
        return logprob_BT, entropy_BT

    def _chunk(self, hidden_ND: Tensor, target_N: Tensor, temperature: float, with_entropy: bool) -> Any:
        logits_NV = at_least_float32(self.causal.get_output_embeddings()(hidden_ND))
        return _of_logits(logits_NV / temperature if temperature != 1.0 else logits_NV, target_N, with_entropy)


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
    if head is None or causal.base_model is causal:
        return False
    ids_BT = torch.arange(4, device=head.weight.device)[None]
    whole = causal(input_ids=ids_BT, use_cache=False).logits
    parts = head(causal.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state)
    return whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-4, atol=1e-5)
