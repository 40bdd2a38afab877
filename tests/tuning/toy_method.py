"""A method that errata does not know: its own file, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from torch import nn

from errata import losses
from errata.data import Encoder, LengthCounts
from errata.labels import changed, label_rows, sides_of
from errata.models import LayoutKind, Wanted, laid_out_logprobs, lay_out
from errata.ranges import Range
from errata.training import OfflineConfig, OfflineMethod, Prepared, StepLoss, Streams
from errata.types import Encoded, TokenLabels

Row = tuple[Encoded, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class ToyConfig(OfflineConfig):
    """Settings of the toy."""

    sharpness: Annotated[float, Range(low=0, high=10)] = 2.0
    """How much more than the others a token weighs that was changed."""


def row(labels: TokenLabels, config: ToyConfig) -> Row:
    marks = changed(labels.edited.labels)
    return labels.edited.encoded, tuple(1.0 + config.sharpness * mark for mark in marks)


def rows(
    source: Iterable[TokenLabels],
    encoder: Encoder,
    config: ToyConfig,
    *,
    row_weights: Mapping[str, float],
    counts: LengthCounts | None,
) -> Prepared[Row]:
    labels = label_rows(source, "labels")
    made = [row(each, config) for each in labels]
    return Prepared(
        rows=made,
        sides=list(sides_of(labels)),
        data=[(one.ids, weights) for one, weights in made],
        card={"toys": 1, "sharpness": config.sharpness},
    )


def collate(made: Sequence[Row], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN) -> dict[str, Any]:
    groups = [[Wanted(encoded, np.not_equal(weights, 0))] for encoded, weights in made]
    layout = lay_out(groups, kind, pad_id=encoder.pad_id)
    return {"layout": layout, "weight_SK": layout.stream([weights for _, weights in made])}


def loss(model: nn.Module, batch: Any, config: ToyConfig) -> StepLoss:
    mask_SK = batch["layout"].wanted_SK
    loss_SK = losses.weighted_nll(laid_out_logprobs(model, batch["layout"]), batch["weight_SK"], mask_SK)
    return StepLoss(loss_SK.sum(), mask_SK.sum())


TOY = OfflineMethod[Row](
    name="toy",
    summary="a toy",
    about="Imitate sharply: a method that is not in the library.",
    config=ToyConfig,
    reads="labels",
    rows=rows,
    collate=collate,
    loss=loss,
    weights=lambda labels, config: Streams(None, row(labels, config)[1]),
    heldout=row,
    texts=lambda one: one[:1],
    end=lambda one: (one[0], one[1][-1]),
    learn={"sharpness": 3.0},
    presets={"blunt": {"sharpness": 0.0}},
)
