"""Train reward models: one scalar for a response from pairs, or one for every token from labelled edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows
from errata.labels import changed
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
    laid_out_last_scalars,
    laid_out_scalars,
    lay_out,
    load_sequence_reward_model,
    load_token_reward_model,
    read_card,
)
from errata.types import Correction, Encoded, Label, Preference, Prompt, TokenLabels

__all__ = [
    "RewardConfig",
    "TokenRewardConfig",
    "collate_labels",
    "encode_pair",
    "train_sequence_reward",
    "train_token_reward",
    "train_token_reward_bradley_terry",
]

Pair = tuple[Encoded, Encoded]


@dataclass(frozen=True, kw_only=True)
class RewardConfig(OfflineConfig):
    """Settings of a reward model; the defaults are AlpacaFarm's recipe, on which Xu et al. build (PAPERS A6)."""

    learning_rate: float = 3e-6
    """Peak learning rate of AdamW."""
    epochs: float = 1.0
    """Passes over the pairs."""
    batch_size: int = 16
    """Pairs in one optimizer step, over all processes."""


@dataclass(frozen=True, kw_only=True)
class TokenRewardConfig(RewardConfig):
    """Settings of a token-level reward model trained on classes of changed tokens."""

    kept_coefficient: float = 0.1
    """Weight of r² on kept tokens; it keeps them near 0, so that the level of the rewards has a meaning."""
    sequence_coefficient: float = 0.0
    """Weight of Bradley-Terry on the two sums of token rewards, which makes the same model rank whole responses."""


def encode_pair(row: Preference | Correction, encoder: Encoder) -> Pair:
    """The better and the worse text of a row as ids; sampled ids are kept, and each side is truncated by itself.

    Raises:
        ValueError: the row cannot be encoded, or a side is too long (a ``LongRow`` if such rows are dropped).
    """
    if isinstance(row, Correction):
        better = encoder.encode(row.prompt, row.edited)
        return better, _encode(row.prompt, row.original, row.original_ids, encoder)
    better = _encode(row.prompt, row.chosen, row.chosen_ids, encoder)
    return better, _encode(row.prompt, row.rejected, row.rejected_ids, encoder)


def _encode(prompt: Prompt, text: str, ids: tuple[int, ...] | None, encoder: Encoder) -> Encoded:
    return encoder.encode(prompt, text) if ids is None else encoder.encode_sampled(prompt, text, ids)


def train_sequence_reward(
    model: Path | str, rows: Sequence[Preference | Correction], encoder: Encoder, config: RewardConfig, out: Path
) -> dict[str, Any]:
    """Bradley-Terry on whole responses: L = −log σ(R(x, y_better) − R(x, y_worse)) (Xu et al., Eq 1).

    Rows whose two sides are the same ids have no gradient: they are left out and counted in the card.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: a row cannot be encoded (the message names it), or none is left.
    """
    counts = LengthCounts()
    pairs = [pair for _, pair in encode_rows(rows, partial(encode_pair, encoder=encoder), counts)]
    kept = [pair for pair in pairs if pair[0].ids != pair[1].ids]
    card = _card(
        "sequence", "sequence_bradley_terry", model, config, encoder, pairs, counts, excluded=len(pairs) - len(kept)
    )
    return _train(
        model,
        out,
        card,
        config,
        encoder,
        kept,
        build=partial(load_sequence_reward_model, pad_id=encoder.pad_id, end_id=encoder.end_id),
        collate=partial(_collate_ends, encoder=encoder),
        loss=_sequence_loss,
    )


def train_token_reward(
    model: Path | str,
    labels: Sequence[TokenLabels],
    encoder: Encoder,
    config: TokenRewardConfig,
    out: Path,
    *,
    counts: LengthCounts | None = None,
) -> dict[str, Any]:
    """Classes of changed tokens: −log σ(r) on inserted and substitute tokens, −log σ(−r) on deleted and substituted
    ones, κ·r² on kept ones; the rewards' level is fixed and they localise (docs/token_reward.md).

    Unchanged rows are left out and counted in the card.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: no row is left.
    """  # noqa: D205
    card, kept = _token_card("changed_token_classes", model, config, encoder, labels, counts)
    return _train(
        model,
        out,
        card,
        config,
        encoder,
        kept,
        build=load_token_reward_model,
        collate=partial(collate_labels, encoder=encoder),
        loss=partial(_class_loss, config=config),
    )


def train_token_reward_bradley_terry(
    model: Path | str,
    labels: Sequence[TokenLabels],
    encoder: Encoder,
    config: RewardConfig,
    out: Path,
    *,
    counts: LengthCounts | None = None,
) -> dict[str, Any]:
    """Xu et al.'s Eq 3: L = −log σ(mean_t r(y_e) − mean_t r(y_l)), every response token in the mean but IGNORED ones.

    It does not change under r → r + c: the level of these rewards is free. Unchanged rows are left out and counted.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: no row is left.
    """
    card, kept = _token_card("token_bradley_terry", model, config, encoder, labels, counts)
    return _train(
        model,
        out,
        card,
        config,
        encoder,
        kept,
        build=load_token_reward_model,
        collate=partial(collate_labels, encoder=encoder),
        loss=_bradley_terry_loss,
    )


def _train(
    model: Path | str,
    out: Path,
    card: dict[str, Any],
    config: RewardConfig,
    encoder: Encoder,
    rows: Sequence[Any],
    *,
    build: Callable[[Path | str], nn.Module],
    collate: Callable[..., Any],
    loss: Callable[[Any, Any], StepLoss],
) -> dict[str, Any]:
    if config.lora_rank or config.quantize != "none":
        raise ValueError("a reward model trains all weights; leave --lora-rank and --quantize out")
    if is_finished(out, card["fingerprint"]):
        return read_card(out)
    built = build(model)
    kind, card["layout"] = choose_layout(built, config.layout)
    return fit(
        built,
        rows,
        collate=partial(collate, kind=kind),
        loss=loss,
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
    )


def _token_card(
    objective: str,
    model: Path | str,
    config: RewardConfig,
    encoder: Encoder,
    labels: Sequence[TokenLabels],
    counts: LengthCounts | None,
) -> tuple[dict[str, Any], list[TokenLabels]]:
    kept = [row for row in labels if any(changed(row.original.labels)) or any(changed(row.edited.labels))]
    data = [
        (row.original.encoded.ids, row.original.labels, row.edited.encoded.ids, row.edited.labels) for row in labels
    ]
    counts = LengthCounts.of(labels) if counts is None else counts
    return _card("token", objective, model, config, encoder, data, counts, excluded=len(labels) - len(kept)), kept


def _card(
    kind: str,
    objective: str,
    model: Path | str,
    config: RewardConfig,
    encoder: Encoder,
    data: Any,
    counts: LengthCounts,
    *,
    excluded: int,
) -> dict[str, Any]:
    return {
        "stage": "reward",
        "kind": kind,
        "objective": objective,
        "rows": len(data) - excluded,
        **asdict(counts),
        "excluded_without_gradient": excluded,
        "tokenizer": encoder.fingerprint,
        "template": encoder.template,
        "fingerprint": fingerprint_of("reward", kind, objective, identity(model), config, data),
    }


def _collate_ends(pairs: Sequence[Pair], *, encoder: Encoder, kind: LayoutKind) -> dict[str, Any]:
    """Both sides of each pair, first the better ones, read at their last token."""
    groups = [[Wanted(side, np.arange(1 - len(side.response_ids), 1) == 0) for side in pair] for pair in pairs]
    return {"layout": lay_out(groups, kind, pad_id=encoder.pad_id, predicted=False)}


def collate_labels(
    rows: Sequence[TokenLabels], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN
) -> dict[str, Any]:
    """What the losses are given: ``layout``, which reads all but ignored tokens, and ``sign_SK``: good tokens +1, bad
    ones −1, kept ones 0. First the edited texts, then the originals.
    """  # noqa: D205
    groups = [
        [Wanted(side.encoded, np.not_equal(side.labels, Label.IGNORED)) for side in (row.edited, row.original)]
        for row in rows
    ]
    layout = lay_out(groups, kind, pad_id=encoder.pad_id, predicted=False)
    signs = [[float(mark) for mark in changed(row.edited.labels)] for row in rows]
    signs += [[-float(mark) for mark in changed(row.original.labels)] for row in rows]
    return {"layout": layout, "sign_SK": layout.stream(signs).long()}


def _sequence_loss(model: nn.Module, inputs: dict[str, Any]) -> StepLoss:
    better_B, worse_B = laid_out_last_scalars(model, inputs["layout"]).chunk(2)
    loss_B = losses.sequence_bradley_terry(better_B, worse_B)
    return StepLoss(loss_B.sum(), _count(loss_B))


def _bradley_terry_loss(model: nn.Module, inputs: dict[str, Any]) -> StepLoss:
    edited_BT, original_BU = laid_out_scalars(model, inputs["layout"]).chunk(2)
    edited_mask_BT, original_mask_BU = inputs["layout"].wanted_SK.chunk(2)
    loss_B = losses.token_bradley_terry(edited_BT, edited_mask_BT, original_BU, original_mask_BU)
    return StepLoss(loss_B.sum(), _count(loss_B))


def _class_loss(model: nn.Module, inputs: dict[str, Any], *, config: TokenRewardConfig) -> StepLoss:
    sign_SK, mask_SK = inputs["sign_SK"], inputs["layout"].wanted_SK
    reward_SK = laid_out_scalars(model, inputs["layout"])
    total = losses.changed_token_classes(reward_SK, sign_SK, mask_SK, kept_coefficient=config.kept_coefficient).sum()
    if config.sequence_coefficient:
        better_B, worse_B = reward_SK.sum(1).chunk(2)
        total = total + config.sequence_coefficient * losses.sequence_bradley_terry(better_B, worse_B).sum()
    return StepLoss(total, (sign_SK != 0).sum())


def _count(x_B: Tensor) -> Tensor:
    return torch.tensor(x_B.shape[0], device=x_B.device)
