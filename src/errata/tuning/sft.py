"""Supervised fine-tuning: the weighted loss with every weight 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from errata import losses
from errata.data import Encoder, LengthCounts, demonstrations, encode_rows, rows_of
from errata.models import LayoutKind, Wanted, laid_out_logprobs, lay_out
from errata.training import NOBODY, OfflineConfig, OfflineMethod, Prepared, StepLoss, Streams, Watch, run_offline
from errata.types import Demonstration, Encoded, TokenLabels

__all__ = ["SFT", "SFTConfig", "collate_demonstrations", "demonstrations", "sft_step_loss", "train_sft"]


Row = tuple[Encoded, float]
"""A text, and the weight of its row."""


@dataclass(frozen=True, kw_only=True)
class SFTConfig(OfflineConfig):
    """Settings of supervised fine-tuning."""


def train_sft(
    model: Path | str,
    rows: Iterable[Demonstration],
    encoder: Encoder,
    config: SFTConfig,
    out: Path | str,
    *,
    heldout: Iterable[TokenLabels] | None = None,
    row_weights: Mapping[str, float] | None = None,
    watch: Watch = NOBODY,
) -> dict[str, Any]:
    """Imitate the responses: L = −(1/N) Σ_t w log π(y_t | x, y_<t), N response tokens (end of sequence included).

    w is 1, or what ``row_weights`` says of the row with this id. ``heldout`` rows are evaluated during training, and
    never learned from; their loss is that of the edited texts. Arguments, result and errors are ``run_offline``'s.
    """
    return run_offline(SFT, model, rows, encoder, config, out, heldout=heldout, row_weights=row_weights, watch=watch)


def _prepared(
    source: Iterable[Demonstration],
    encoder: Encoder,
    config: SFTConfig,
    *,
    row_weights: Mapping[str, float],
    counts: LengthCounts | None,
) -> Prepared[Row]:
    counts = LengthCounts() if counts is None else counts
    rows = rows_of(source, Demonstration, "rows", "corrections become such rows by demonstrations(corrections)")
    found = list(encode_rows(rows, lambda row: (encoder.encode(row.prompt, row.response),), counts))
    weighted = [(side, row_weights.get(row.id, 1.0)) for row, (side,) in found]
    # Where the response begins is not in the ids: a line may move from one to the other.
    data: list[Any] = [(side.ids, side.prompt_length) for side, _ in weighted]
    if row_weights:
        data.append([weight for _, weight in weighted])
    return Prepared(
        rows=weighted,
        sides=[(row.id, side) for row, (side,) in found],
        data=data,
        card={**asdict(counts), "response_tokens": sum(len(side.response_ids) for side, _ in weighted)},
    )


def collate_demonstrations(
    rows: Sequence[Row], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN
) -> dict[str, Any]:
    """What the loss is given: ``layout``, which reads every response token, and ``weight_SK``, that of its row."""
    layout = lay_out([[Wanted(row, [True] * len(row.response_ids))] for row, _ in rows], kind, pad_id=encoder.pad_id)
    return {"layout": layout, "weight_SK": layout.stream([[weight] * len(row.response_ids) for row, weight in rows])}


def sft_step_loss(model: nn.Module, inputs: dict[str, Any]) -> StepLoss:
    """The summed loss and the response tokens of one micro-batch, as ``collate_demonstrations`` gives it."""
    mask_BT = inputs["layout"].wanted_SK
    loss_BT = losses.weighted_nll(laid_out_logprobs(model, inputs["layout"]), inputs["weight_SK"], mask_BT)
    return StepLoss(loss_BT.sum(), mask_BT.sum())


SFT = OfflineMethod[Row](
    name="sft",
    summary="imitate the corrected responses",
    about="Imitate responses, or the corrected side of edits: every response token has weight 1.",
    config=SFTConfig,
    reads="demonstrations",
    rows=_prepared,
    collate=collate_demonstrations,
    loss=lambda model, batch, config: sft_step_loss(model, batch),
    weights=lambda labels, config: Streams(None, (1.0,) * len(labels.edited.labels)),
    heldout=lambda labels, config: (labels.edited.encoded, 1.0),
    texts=lambda row: row[:1],
    end=lambda row: row,
)
