"""Direct preference optimisation, the sequence-level baseline that needs no reward model (Rafailov et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import nn

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows
from errata.labels import label_rows, sides_of
from errata.models import (
    Layout,
    LayoutKind,
    Wanted,
    check_ids,
    choose_layout,
    common_length,
    device,
    identity,
    laid_out_logprobs,
    lay_out,
    load_policy,
    read_card,
    settle,
    tree_size,
)
from errata.ranges import Range
from errata.reward import encode_pair, pair_rows
from errata.runs import RunFolder, fingerprint_of, writes_out
from errata.training import OfflineConfig, StepLoss, fit
from errata.training.ends import trained_ends
from errata.training.heldout import HeldOut, heldout_card, heldout_ids
from errata.types import Correction, Encoded, Preference, TokenLabels

__all__ = ["DPOConfig", "dpo_step_loss", "lay_out_pairs", "train_dpo"]

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


@dataclass(frozen=True, slots=True)
class _Row:
    better: Encoded
    worse: Encoded
    ref_better: float
    ref_worse: float


@writes_out
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
    are evaluated during training, edited text over original, and never learned from.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: no row is left, or one cannot be encoded (the message names it); or as ``fit``.
        TypeError: ``rows`` or ``heldout`` are rows of another kind.
    """
    out, rows = Path(out), pair_rows(rows, "rows")
    config, noted = settle(config, model)
    heldout = None if heldout is None else label_rows(heldout, "heldout")
    counts = LengthCounts()
    found = list(encode_rows(rows, partial(encode_pair, encoder=encoder), counts))
    pairs = [pair for _, pair in found]
    kept = [pair for pair in pairs if pair[0].ids != pair[1].ids]
    data = [[(side.ids, side.prompt_length) for side in pair] for pair in pairs]
    card: dict[str, Any] = {
        "stage": "dpo",
        "rows": len(kept),
        **asdict(counts),
        "excluded_without_gradient": len(pairs) - len(kept),
        "response_tokens": sum(len(side.response_ids) for pair in kept for side in pair),
        **heldout_card(heldout),
        **noted,
        "fingerprint": fingerprint_of("dpo", identity(model), config, data, *heldout_ids(heldout)),
    }
    if RunFolder(out, card["fingerprint"]).is_finished():
        return read_card(out)
    policy = load_policy(model, config)
    check_ids(policy, [*((row.id, side) for row, pair in found for side in pair), *sides_of(heldout)])
    kind, card["layout"] = choose_layout(policy, config.layout)
    reference = partial(_with_reference, policy, encoder=encoder, config=config, kind=kind)
    collate, loss = partial(collate_pairs, encoder=encoder, kind=kind), partial(dpo_step_loss, beta=config.beta)
    evaluate = None
    if heldout is not None:
        sides = [(row.edited.encoded, row.original.encoded) for row in heldout]
        evaluate = HeldOut(heldout, model, encoder, config).evaluation(reference(sides), collate, loss)
    size = tree_size(kept)
    return fit(
        policy,
        reference(kept),
        collate=collate,
        loss=loss,
        evaluate=evaluate,
        length=lambda row: size((row.better, row.worse)),
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
        ends=trained_ends((better, 1.0) for better, _ in kept),
    )


@torch.no_grad()
def _with_reference(
    model: nn.Module, pairs: Sequence[Pair], encoder: Encoder, config: DPOConfig, kind: LayoutKind
) -> list[_Row]:
    rows: list[_Row] = []
    model.to(device())
    for start in range(0, len(pairs), config.micro_batch_size):
        part = pairs[start : start + config.micro_batch_size]
        layout = lay_out_pairs(part, encoder=encoder, kind=kind).to(device())
        # As the policy is computed, which then starts from a ratio of 1.
        with torch.autocast(device().type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            better, worse = laid_out_logprobs(model, layout).sum(1).chunk(2)
        rows += [_Row(*pair, rb, rw) for pair, rb, rw in zip(part, better.tolist(), worse.tolist(), strict=True)]
    return rows


def lay_out_pairs(pairs: Sequence[Pair], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN) -> Layout:
    """Both sides of each pair, first the better ones. Read is what follows the first difference: before it the two
    sides are the same tokens after the same tokens, and their log-probabilities cancel exactly.
    """  # noqa: D205
    groups = []
    for pair in pairs:
        alike = max(common_length(*pair) - pair[0].prompt_length, 0)
        groups.append([Wanted(side, np.arange(len(side.response_ids)) >= alike) for side in pair])
    return lay_out(groups, kind, pad_id=encoder.pad_id)


def collate_pairs(rows: Sequence[_Row], *, encoder: Encoder, kind: LayoutKind) -> dict[str, Any]:
    """What the loss is given: ``layout``, and the reference's log-probabilities ``ref_logprob_S`` of what it reads."""
    reference = [row.ref_better for row in rows] + [row.ref_worse for row in rows]
    layout = lay_out_pairs([(row.better, row.worse) for row in rows], encoder=encoder, kind=kind)
    return {"layout": layout, "ref_logprob_S": torch.tensor(reference)}


def dpo_step_loss(model: nn.Module, inputs: dict[str, Any], *, beta: float) -> StepLoss:
    """The summed loss and the pairs of one micro-batch, as ``collate_pairs`` gives it."""
    better_B, worse_B = laid_out_logprobs(model, inputs["layout"]).sum(1).chunk(2)
    ref_better_B, ref_worse_B = inputs["ref_logprob_S"].chunk(2)
    loss_B = losses.dpo(better_B, worse_B, ref_better_B, ref_worse_B, beta=beta)
    return StepLoss(loss_B.sum(), torch.tensor(len(loss_B), device=loss_B.device))
