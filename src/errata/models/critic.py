"""The critic: one value head for each reward group, read before the token whose action it is the baseline of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from errata.models.batch import TokenBatch
from errata.models.load import HEADS, Attention
from errata.models.scalar_head import load_token_reward_model

__all__ = ["critic_values", "load_critic"]


def load_critic(folder: Path | str, *, heads: int, attention: Attention = "auto") -> Any:
    """``load_token_reward_model`` with ``heads`` numbers a token, in float32; a head that was there is copied for each.

    Raises:
        ValueError: as ``load_token_reward_model``.
    """
    model = load_token_reward_model(folder, precision="master", attention=attention)
    if heads > 1:
        name = next(name for name in HEADS if hasattr(model, name))
        one = getattr(model, name)
        many = nn.Linear(one.in_features, heads, bias=one.bias is not None, dtype=one.weight.dtype)
        with torch.no_grad():
            many.weight.copy_(one.weight.expand(heads, -1))
            if one.bias is not None:
                many.bias.copy_(one.bias.expand(heads))
        setattr(model, name, many)
        model.config.num_labels = model.num_labels = heads
    return model


def critic_values(model: nn.Module, batch: TokenBatch) -> tuple[Float[Tensor, "H B T"], Float[Tensor, "H B"]]:
    """V(s_t) of each head before token t is emitted, read one column earlier, and V of the state after the last token.

    Returns:
        Values for the response tokens (0 outside), and the bootstrap values of a response that was cut off.
    """
    # Padding on the right is after all that is read.
    output = model(input_ids=batch.ids_BT, use_cache=False)
    scalars_HBT = output.logits.float().movedim(-1, 0)
    before_HBT = pad(scalars_HBT, (1, 0))[..., :-1]
    last_B = batch.attention_mask_BT.sum(1) - 1
    after_HB = scalars_HBT[:, torch.arange(len(last_B), device=last_B.device), last_B]
    return torch.where(batch.response_mask_BT, before_HBT, 0.0), after_HB
