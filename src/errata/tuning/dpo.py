"""Direct preference optimisation, the sequence-level baseline that needs no reward model (Rafailov et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import nn

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows
from errata.models import Layout, LayoutKind, Wanted, common_length, laid_out_logprobs, lay_out
from errata.ranges import Range
from errata.reward import encode_pair, pair_rows
from errata.training import OfflineConfig, OfflineMethod, Prepared, StepLoss, Streams, run_offline
from errata.types import Correction, Encoded, Preference, TokenLabels

__all__ = ["DPO", "DPOConfig", "collate_pairs", "dpo_step_loss", "lay_out_pairs", "train_dpo"]

Pair = tuple[Encoded, Encoded]


@dataclass(frozen=True, kw_only=True)
class DPOConfig(OfflineConfig):
    """Settings of DPO."""

    FULL_RATE = 5e-7

    learning_rate: Annotated[float, Range(above=0)] | Literal["auto"] = "auto"
    """Peak learning rate of AdamW. auto: 5e-7 where all weights are trained, 1e-5 for an adapter (--lora-rank), which
    wants more."""
    beta: Annotated[float, Range(above=0, high=1e6)] = 0.1
    """β: how strongly the policy is tied to the model that it starts from, in 1/nats."""


def train_dpo(
    model: Path | str,
    rows: Iterable[Preference | Correction],
    encoder: Encoder,
    config: DPOConfig,
    out: Path | str,
    *,
    heldout: Iterable[TokenLabels] | None = None,
) -> dict[str, Any]:
    """L = −log σ(β [log π/π_ref(y_w) − log π/π_ref(y_l)]); the reference is ``model`` itself, scored once beforehand.

    Rows whose two sides are the same ids have no gradient: they are left out and counted in the card. ``heldout`` rows
    are evaluated during training, edited text over original, and never learned from. Arguments, result and errors are
    ``run_offline``'s.
    """
    return run_offline(DPO, model, rows, encoder, config, out, heldout=heldout)


def _prepared(
    source: Iterable[Preference | Correction],
    encoder: Encoder,
    config: DPOConfig,
    *,
    row_weights: Mapping[str, float],
    counts: LengthCounts | None,
) -> Prepared[Pair]:
    if row_weights:
        raise ValueError("dpo knows no weights of rows; leave them out, or tune with sft or figa")
    counts = LengthCounts() if counts is None else counts
    found = list(encode_rows(pair_rows(source, "rows"), partial(encode_pair, encoder=encoder), counts))
    pairs = [pair for _, pair in found]
    kept = [pair for pair in pairs if pair[0].ids != pair[1].ids]
    return Prepared(
        rows=kept,
        sides=[(row.id, side) for row, pair in found for side in pair],
        data=[[(side.ids, side.prompt_length) for side in pair] for pair in pairs],
        card={
            **asdict(counts),
            "excluded_without_gradient": len(pairs) - len(kept),
            "response_tokens": sum(len(side.response_ids) for pair in kept for side in pair),
        },
    )


def lay_out_pairs(pairs: Sequence[Pair], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN) -> Layout:
    """Both sides of each pair, first the better ones. Read is what follows the first difference: before it the two
    sides are the same tokens after the same tokens, and their log-probabilities cancel exactly.
    """  # noqa: D205
    groups = []
    for pair in pairs:
        alike = max(common_length(*pair) - pair[0].prompt_length, 0)
        groups.append([Wanted(side, np.arange(len(side.response_ids)) >= alike) for side in pair])
    return lay_out(groups, kind, pad_id=encoder.pad_id)


def collate_pairs(pairs: Sequence[Pair], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN) -> dict[str, Any]:
    """What the loss is given besides the reference's ``ref_logprob_S``: the ``layout``."""
    return {"layout": lay_out_pairs(pairs, encoder=encoder, kind=kind)}


def _streams(labels: TokenLabels, config: DPOConfig) -> Streams:
    # Before the first difference the two sides cancel.
    edited, original = labels.edited, labels.original
    alike = common_length(edited.encoded, original.encoded) - edited.encoded.prompt_length
    return Streams(
        tuple(-float(k >= alike) for k in range(len(original.labels))),
        tuple(float(k >= alike) for k in range(len(edited.labels))),
    )


def dpo_step_loss(model: nn.Module, inputs: dict[str, Any], *, beta: float) -> StepLoss:
    """The summed loss and the pairs of one micro-batch, as ``collate_pairs`` gives it, with the reference's words."""
    better_B, worse_B = laid_out_logprobs(model, inputs["layout"]).sum(1).chunk(2)
    ref_better_B, ref_worse_B = inputs["ref_logprob_S"].chunk(2)
    loss_B = losses.dpo(better_B, worse_B, ref_better_B, ref_worse_B, beta=beta)
    return StepLoss(loss_B.sum(), torch.tensor(len(loss_B), device=loss_B.device))


DPO = OfflineMethod[Pair](
    name="dpo",
    summary="prefer the corrected to the original, as a whole",
    about="Direct preference optimisation on preferences, or on edits (corrected over original).",
    config=DPOConfig,
    reads="pairs",
    rows=_prepared,
    collate=collate_pairs,
    loss=lambda model, batch, config: dpo_step_loss(model, batch, beta=config.beta),
    weights=_streams,
    heldout=lambda labels, config: (labels.edited.encoded, labels.original.encoded),
    texts=lambda pair: pair,
    end=lambda pair: (pair[0], 1.0),
    reference=lambda config: "log-probabilities",
    teaches_end=False,  # where both texts end alike there is nothing to prefer
)
