"""Supervised fine-tuning: the weighted loss with every weight 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows, rows_of
from errata.labels import check_row_weights, label_rows, sides_of
from errata.models import (
    LayoutKind,
    Wanted,
    check_ids,
    choose_layout,
    identity,
    laid_out_logprobs,
    lay_out,
    load_policy,
    read_card,
    settle,
    tree_size,
)
from errata.runs import RunFolder, fingerprint_of, writes_out
from errata.training import NOBODY, OfflineConfig, StepLoss, Watch, fit
from errata.training.ends import trained_ends
from errata.training.heldout import HeldOut, heldout_card, heldout_ids, watch_ids
from errata.types import Correction, Demonstration, Encoded, TokenLabels

__all__ = ["SFTConfig", "collate_demonstrations", "demonstrations", "sft_step_loss", "train_sft"]


@dataclass(frozen=True, kw_only=True)
class SFTConfig(OfflineConfig):
    """Settings of supervised fine-tuning."""


def demonstrations(rows: Sequence[Correction]) -> list[Demonstration]:
    """The edited texts of corrections, to be imitated."""
    return [Demonstration(id=row.id, prompt=row.prompt, response=row.edited) for row in rows]


@writes_out
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

    w is 1, or what ``row_weights`` says of the row with this id. ``watch`` looks on.

    ``heldout`` rows are evaluated during training, and never learned from; their loss is that of the edited texts.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: a row cannot be encoded (the message names it), none is left, a weight is no number from 0 to a
            million; or as ``fit``.
        TypeError: ``rows`` or ``heldout`` are rows of another kind.
    """
    out, weights = Path(out), check_row_weights(row_weights)
    config, noted = settle(config, model)
    rows = rows_of(rows, Demonstration, "rows", "corrections become such rows by demonstrations(corrections)")
    heldout = None if heldout is None else label_rows(heldout, "heldout")
    counts = LengthCounts()
    found = list(encode_rows(rows, lambda row: (encoder.encode(row.prompt, row.response),), counts))
    weighted = [(side, weights.get(row.id, 1.0)) for row, (side,) in found]
    # Where the response begins is not in the ids: a line may move from one to the other.
    data: list[Any] = [(side.ids, side.prompt_length) for side, _ in weighted]
    if row_weights:
        data.append([weight for _, weight in weighted])
    card: dict[str, Any] = {
        "stage": "sft",
        "rows": len(weighted),
        **asdict(counts),
        "response_tokens": sum(len(side.response_ids) for side, _ in weighted),
        **heldout_card(heldout),
        **noted,
        "fingerprint": fingerprint_of("sft", identity(model), config, data, *heldout_ids(heldout), *watch_ids(watch)),
    }
    if RunFolder(out, card["fingerprint"]).is_finished():
        return read_card(out)
    policy = load_policy(model, config)
    check_ids(policy, [*((row.id, side) for row, (side,) in found), *sides_of(heldout)])
    kind, card["layout"] = choose_layout(policy, config.layout)
    collate = partial(collate_demonstrations, encoder=encoder, kind=kind)
    evaluate = None
    if heldout is not None:
        evaluate = HeldOut(heldout, model, encoder, config).evaluation(
            [(row.edited.encoded, 1.0) for row in heldout], collate, sft_step_loss
        )
    size = tree_size((row,) for row, _ in weighted)
    return fit(
        policy,
        weighted,
        collate=collate,
        loss=sft_step_loss,
        evaluate=watch.beside(evaluate),
        told=watch.step,
        length=lambda row: size(row[:1]),
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
        ends=trained_ends((side, weight) for side, weight in weighted),
    )


def collate_demonstrations(
    rows: Sequence[tuple[Encoded, float]], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN
) -> dict[str, Any]:
    """What the loss is given: ``layout``, which reads every response token, and ``weight_SK``, that of its row."""
    layout = lay_out([[Wanted(row, [True] * len(row.response_ids))] for row, _ in rows], kind, pad_id=encoder.pad_id)
    return {"layout": layout, "weight_SK": layout.stream([[weight] * len(row.response_ids) for row, weight in rows])}


def sft_step_loss(model: nn.Module, inputs: dict[str, Any]) -> StepLoss:
    """The summed loss and the response tokens of one micro-batch, as ``collate_demonstrations`` gives it."""
    mask_BT = inputs["layout"].wanted_SK
    loss_BT = losses.weighted_nll(laid_out_logprobs(model, inputs["layout"]), inputs["weight_SK"], mask_BT)
    return StepLoss(loss_BT.sum(), mask_BT.sum())
