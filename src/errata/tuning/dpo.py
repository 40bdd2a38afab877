"""Direct preference optimisation, the sequence-level baseline that needs no reward model (Rafailov et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows
from errata.models import (
    OfflineConfig,
    StepLoss,
    TokenBatch,
    device,
    fingerprint_of,
    fit,
    identity,
    is_finished,
    load_policy,
    pad,
    read_card,
    token_logprobs,
)
from errata.reward import encode_pair
from errata.tuning.heldout import HeldOut, heldout_card, heldout_ids
from errata.types import Correction, Encoded, Preference, TokenLabels

__all__ = ["DPOConfig", "collate_pairs", "dpo"]


@dataclass(frozen=True, kw_only=True)
class DPOConfig(OfflineConfig):
    """Settings of DPO."""

    learning_rate: float = 5e-7
    """Peak learning rate of AdamW."""
    beta: float = 0.1
    """β: how strongly the policy is tied to the model that it starts from, in 1/nats."""


@dataclass(frozen=True, slots=True)
class _Row:
    better: Encoded
    worse: Encoded
    ref_better: float
    ref_worse: float


def dpo(
    model: Path | str,
    rows: Sequence[Preference | Correction],
    encoder: Encoder,
    config: DPOConfig,
    out: Path,
    *,
    heldout: Sequence[TokenLabels] | None = None,
) -> dict[str, Any]:
    """L = −log σ(β [log π/π_ref(y_w) − log π/π_ref(y_l)]); the reference is ``model`` itself, scored once beforehand.

    Rows whose two sides are the same ids have no gradient: they are left out and counted in the card. ``heldout`` rows
    are evaluated during training, edited text over original, and never learned from.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: no row is left, or one cannot be encoded (the message names it).
    """
    counts = LengthCounts()
    pairs = [pair for _, pair in encode_rows(rows, partial(encode_pair, encoder=encoder), counts)]
    kept = [pair for pair in pairs if pair[0].ids != pair[1].ids]
    data = [(better.ids, worse.ids) for better, worse in pairs]
    card: dict[str, Any] = {
        "stage": "dpo",
        "rows": len(kept),
        **asdict(counts),
        "excluded_without_gradient": len(pairs) - len(kept),
        "response_tokens": sum(len(side.response_ids) for pair in kept for side in pair),
        **heldout_card(heldout),
        "fingerprint": fingerprint_of("dpo", identity(model), config, data, *heldout_ids(heldout)),
    }
    if is_finished(out, card["fingerprint"]):
        return read_card(out)
    policy = load_policy(model, config)
    collate, loss = partial(_collate, encoder=encoder), partial(_loss, beta=config.beta)
    evaluate = None
    if heldout is not None:
        sides = [(row.edited.encoded, row.original.encoded) for row in heldout]
        scored = _with_reference(policy, sides, encoder, config.micro_batch_size)
        evaluate = HeldOut(heldout, model, encoder, config).evaluation(scored, collate, loss)
    return fit(
        policy,
        _with_reference(policy, kept, encoder, config.micro_batch_size),
        collate=collate,
        loss=loss,
        evaluate=evaluate,
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
    )


@torch.no_grad()
def _with_reference(
    model: nn.Module, pairs: Sequence[tuple[Encoded, Encoded]], encoder: Encoder, batch_size: int
) -> list[_Row]:
    rows: list[_Row] = []
    model.to(device())
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        batch = collate_pairs(part, encoder=encoder)
        better, worse = token_logprobs(model, batch.to(device())).sum(1).chunk(2)
        rows += [_Row(b, w, rb, rw) for (b, w), rb, rw in zip(part, better.tolist(), worse.tolist(), strict=True)]
    return rows


def collate_pairs(pairs: Sequence[tuple[Encoded, Encoded]], *, encoder: Encoder) -> TokenBatch:
    """Ids and masks for one forward pass: first the better texts, then the worse ones."""
    return pad([better for better, _ in pairs] + [worse for _, worse in pairs], pad_id=encoder.pad_id)


def _collate(rows: Sequence[_Row], *, encoder: Encoder) -> dict[str, Any]:
    batch = collate_pairs([(row.better, row.worse) for row in rows], encoder=encoder)
    reference = [row.ref_better for row in rows] + [row.ref_worse for row in rows]
    return {"batch": batch, "ref_logprob_B": torch.tensor(reference)}


def _loss(model: nn.Module, inputs: dict[str, Any], *, beta: float) -> StepLoss:
    better_B, worse_B = token_logprobs(model, inputs["batch"]).sum(1).chunk(2)
    ref_better_B, ref_worse_B = inputs["ref_logprob_B"].chunk(2)
    loss_B = losses.dpo(better_B, worse_B, ref_better_B, ref_worse_B, beta=beta)
    return StepLoss(loss_B.sum(), torch.tensor(len(loss_B), device=loss_B.device))
