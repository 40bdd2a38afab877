"""losses: pure functions on tensors, unreduced, that know no model, config, device, logger or collective.

Every function takes per-token streams and a mask (True = counts) and gives a value for each token (``_BT``), or one for
each sequence or pair (``_B``); what does not count is exactly 0. ``token_mean`` makes the scalar, with the count of the
whole optimizer step. The two texts of a pair have their own lengths, ``T`` and ``U``, and their own masks.

A masked slot may hold anything, NaN and infinity included: it reaches neither a value nor a gradient, because masks act
on the *inputs* of every product, logarithm and exponential (``0 · NaN`` is NaN, also in the backward pass).
Log-probabilities and losses are in nats. Dimension key: ``errata.types``.
"""

from __future__ import annotations

from errata.losses.bradley_terry import (
    changed_token_bradley_terry_mean,
    changed_token_bradley_terry_sum,
    sequence_bradley_terry,
    token_bradley_terry,
)
from errata.losses.direct_preference import dpo
from errata.losses.fine_grained import FigaTerms, figa, figa_loss, gate_band, gate_below
from errata.losses.nll import weighted_nll
from errata.losses.ppo import (
    clipped_surrogate,
    clipped_value_loss,
    gae,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalty,
)
from errata.losses.reduction import sequence_mean, sequence_sum, token_mean, token_sum
from errata.losses.token_classes import changed_token_classes, soft_token_classes
from errata.losses.whitening import Moments, moments, rescale, whiten, whiten_keeping_mean

__all__ = [
    "FigaTerms",
    "Moments",
    "changed_token_bradley_terry_mean",
    "changed_token_bradley_terry_sum",
    "changed_token_classes",
    "clipped_surrogate",
    "clipped_value_loss",
    "dpo",
    "figa",
    "figa_loss",
    "gae",
    "gate_band",
    "gate_below",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalty",
    "moments",
    "rescale",
    "sequence_bradley_terry",
    "sequence_mean",
    "sequence_sum",
    "soft_token_classes",
    "token_bradley_terry",
    "token_mean",
    "token_sum",
    "weighted_nll",
    "whiten",
    "whiten_keeping_mean",
]
