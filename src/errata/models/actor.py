"""The policy as PPO reads it: log-probabilities of response tokens, without holding all logits where they are many."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from errata.models.batch import TokenBatch
from errata.models.laid_out import short_last_layer
from errata.models.logprobs import finish_of, predicting, read_logprobs

__all__ = ["LOGITS_AT_ONCE", "Actor"]

LOGITS_AT_ONCE = 2**23
"""More logits than these are computed in chunks of response tokens, and again in the backward pass: 32 MiB."""


class Actor(nn.Module):
    """A causal language model that answers with log-probabilities; what is wrapped for several processes is this.

    The output layer is applied to response tokens only, to a few at a time where the logits are many, and the
    feed-forward part of the last layer to what they are read off.
    """

    def __init__(self, causal: Any, *, logits_at_once: int = LOGITS_AT_ONCE) -> None:
        super().__init__()
        self.causal, self.logits_at_once = causal, logits_at_once
        finish_of(causal)  # tried out before anything is wrapped
        self._no_split_modules = getattr(causal, "_no_split_modules", None)  # what FSDP shares out one by one

    def forward(
        self, batch: TokenBatch, temperature: float = 1.0, with_entropy: bool = False
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Log-probability of each response token, and the entropy that it was drawn with (zeros unless asked for).

        Both in nats, 0 outside the response. No gradient flows through the entropy.
        """
        mask_BT = batch.response_mask_BT
        read_N = predicting(mask_BT)
        with short_last_layer(self.causal, read_N):
            found = read_logprobs(
                self.causal,
                {"input_ids": batch.ids_BT, "use_cache": False},  # padding on the right is after all that is read
                read_N,
                batch.ids_BT[mask_BT],
                temperature=temperature,
                with_entropy=with_entropy,
                at_once=self.logits_at_once,
            )
        logprob_BT, entropy_BT = (
            torch.zeros(mask_BT.shape, device=x_N.device, dtype=x_N.dtype).masked_scatter(mask_BT, x_N) for x_N in found
        )
        return logprob_BT, entropy_BT
