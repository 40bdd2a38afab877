"""Supervised fine-tuning: the weighted loss with every weight 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    fingerprint_of,
    fit,
    identity,
    is_finished,
    load_policy,
    pad,
    read_card,
    token_logprobs,
)
from errata.tuning.heldout import HeldOut, heldout_card, heldout_ids
from errata.types import Correction, Demonstration, Encoded, TokenLabels

__all__ = ["SFTConfig", "demonstrations", "sft"]


@dataclass(frozen=True, kw_only=True)
class SFTConfig(OfflineConfig):
    """Settings of supervised fine-tuning."""


def demonstrations(rows: Sequence[Correction]) -> list[Demonstration]:
    """The edited texts of corrections, to be imitated."""
    return [Demonstration(id=row.id, prompt=row.prompt, response=row.edited) for row in rows]


def sft(
    model: Path | str,
    rows: Sequence[Demonstration],
    encoder: Encoder,
    config: SFTConfig,
    out: Path,
    *,
    heldout: Sequence[TokenLabels] | None = None,
    row_weights: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Imitate the responses: L = −(1/N) Σ_t w log π(y_t | x, y_<t), N response tokens (end of sequence included).

    w is 1, or what ``row_weights`` says of the row with this id.

    ``heldout`` rows are evaluated during training, and never learned from; their loss is that of the edited texts.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: a row cannot be encoded (the message names it), or none is left.
    """
    counts = LengthCounts()
    found = encode_rows(rows, lambda row: (encoder.encode(row.prompt, row.response),), counts)
    weighted = [(side, (row_weights or {}).get(row.id, 1.0)) for row, (side,) in found]
    data: list[Any] = [side.ids for side, _ in weighted]
    if row_weights:
        data.append([weight for _, weight in weighted])
    card: dict[str, Any] = {
        "stage": "sft",
        "rows": len(weighted),
        **asdict(counts),
        "response_tokens": sum(len(side.response_ids) for side, _ in weighted),
        **heldout_card(heldout),
        "fingerprint": fingerprint_of("sft", identity(model), config, data, *heldout_ids(heldout)),
    }
    if is_finished(out, card["fingerprint"]):
        return read_card(out)
    collate = partial(_collate, encoder=encoder)
    evaluate = None
    if heldout is not None:
        evaluate = HeldOut(heldout, model, encoder, config).evaluation(
            [(row.edited.encoded, 1.0) for row in heldout], collate, _loss
        )
    return fit(
        load_policy(model, config),
        weighted,
        collate=collate,
        loss=_loss,
        evaluate=evaluate,
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
    )


def _collate(rows: Sequence[tuple[Encoded, float]], *, encoder: Encoder) -> dict[str, Any]:
    return {
        "batch": pad([side for side, _ in rows], pad_id=encoder.pad_id),
        "weight_B": torch.tensor([weight for _, weight in rows]),
    }


def _loss(model: nn.Module, inputs: dict[str, Any]) -> StepLoss:
    batch = inputs["batch"]
    mask_BT = batch.response_mask_BT
    weight_BT = mask_BT * inputs["weight_B"][:, None]
    loss_BT = losses.weighted_nll(token_logprobs(model, batch), weight_BT, mask_BT)
    return StepLoss(loss_BT.sum(), mask_BT.sum())
