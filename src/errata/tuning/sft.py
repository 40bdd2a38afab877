"""Supervised fine-tuning: the weighted loss with every weight 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows
from errata.models import (
    LayoutKind,
    OfflineConfig,
    StepLoss,
    Wanted,
    choose_layout,
    fingerprint_of,
    fit,
    identity,
    is_finished,
    laid_out_logprobs,
    lay_out,
    load_causal,
    read_card,
)
from errata.types import Correction, Demonstration, Encoded

__all__ = ["SFTConfig", "collate_demonstrations", "demonstrations", "sft", "sft_step_loss"]


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
    policy = load_causal(model)
    kind, card["layout"] = choose_layout(policy, config.layout)
    return fit(
        policy,
        encoded,
        collate=partial(collate_demonstrations, encoder=encoder, kind=kind),
        loss=sft_step_loss,
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
    )


def collate_demonstrations(
    rows: Sequence[Encoded], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN
) -> dict[str, Any]:
    """What the loss is given: ``layout``, in which every response token is read."""
    groups = [[Wanted(row, [True] * len(row.response_ids))] for row in rows]
    return {"layout": lay_out(groups, kind, pad_id=encoder.pad_id)}


def sft_step_loss(model: nn.Module, inputs: dict[str, Any]) -> StepLoss:
    """The summed loss and the response tokens of one micro-batch, as ``collate_demonstrations`` gives it."""
    mask_BT = inputs["layout"].wanted_SK
    loss_BT = losses.weighted_nll(laid_out_logprobs(model, inputs["layout"]), mask_BT.float(), mask_BT)
    return loss_BT.sum(), mask_BT.sum()
