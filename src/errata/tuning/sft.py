"""Supervised fine-tuning: the weighted loss with every weight 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows
from errata.models import (
    OfflineConfig,
    StepLoss,
    fingerprint_of,
    fit,
    identity,
    is_finished,
    load_policy,
    pad,
    read_card,
    token_logprobs,
)
from errata.types import Correction, Demonstration

__all__ = ["SFTConfig", "demonstrations", "sft"]


@dataclass(frozen=True, kw_only=True)
class SFTConfig(OfflineConfig):
    """Settings of supervised fine-tuning."""


def demonstrations(rows: Sequence[Correction]) -> list[Demonstration]:
    """The edited texts of corrections, to be imitated."""
    return [Demonstration(id=row.id, prompt=row.prompt, response=row.edited) for row in rows]


def sft(
    model: Path | str, rows: Sequence[Demonstration], encoder: Encoder, config: SFTConfig, out: Path
) -> dict[str, Any]:
    """Imitate the responses: L = −(1/N) Σ_t log π(y_t | x, y_<t), N response tokens (end of sequence included).

    Returns:
        The card written beside the model.

    Raises:
        ValueError: a row cannot be encoded (the message names it), or none is left.
    """
    counts = LengthCounts()
    found = encode_rows(rows, lambda row: (encoder.encode(row.prompt, row.response),), counts)
    encoded = [side for _, (side,) in found]
    card: dict[str, Any] = {
        "stage": "sft",
        "rows": len(encoded),
        **asdict(counts),
        "fingerprint": fingerprint_of("sft", identity(model), config, [row.ids for row in encoded]),
    }
    if is_finished(out, card["fingerprint"]):
        return read_card(out)
    return fit(
        load_policy(model, config),
        encoded,
        collate=lambda batch: {"batch": pad(batch, pad_id=encoder.pad_id)},
        loss=_loss,
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
    )


def _loss(model: nn.Module, inputs: dict[str, Any]) -> StepLoss:
    batch = inputs["batch"]
    mask_BT = batch.response_mask_BT
    loss_BT = losses.weighted_nll(token_logprobs(model, batch), mask_BT.float(), mask_BT)
    return StepLoss(loss_BT.sum(), mask_BT.sum())
