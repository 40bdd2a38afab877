"""What tuning does to held-out corrections: to the method's own loss, to each kind of token, and how far it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from errata.data import Encoder
from errata.labels import count_labels
from errata.models import device, load_policy, off_is_start, pad, pad_stream, token_kl, token_logprobs
from errata.training import OfflineConfig, Share, StepLoss, Watch, evaluation_of, loss_shares
from errata.types import Label, TokenLabels

__all__ = ["HeldOut", "heldout_card", "heldout_ids", "watch_ids"]

GOOD = (Label.INSERTED, Label.SUBSTITUTED)
KEPT = (Label.KEPT,)
BAD = (Label.DELETED, Label.SUBSTITUTED)

Row = TypeVar("Row")


class HeldOut:
    """Corrections that are looked at during training and never learned from.

    Args:
        rows: their labels.
        start: the folder of the model that training starts from; it is loaded a second time, frozen, unless training
            changes an adapter that can be taken off.
        encoder: whose padding is used.
        config: for the size of a forward pass, and bfloat16.

    Raises:
        ValueError: there is no row.
    """

    def __init__(self, rows: Sequence[TokenLabels], start: Path | str, encoder: Encoder, config: OfflineConfig) -> None:
        if not rows:
            raise ValueError("no held-out row to evaluate; leave --heldout out, or give rows")
        self.rows, self.encoder, self.config = rows, encoder, config
        self.start_folder = start
        self.start: nn.Module | None = None

    def evaluation(
        self,
        rows: Sequence[Row],
        collate: Callable[[list[Row]], Any],
        loss: Callable[[Any, Any], StepLoss],
    ) -> Callable[[Any], Mapping[str, float]]:
        """What ``fit`` calls: a model to the figures by name, means over all held-out rows.

        ``loss`` is Σ/N of the method's loss over its ``rows``. ``logprob_good`` is the mean log-probability of inserted
        and substitute tokens, ``logprob_kept`` of kept ones of the edited text (its end included), ``logprob_bad`` of
        deleted and substituted ones of the original: nats a token. ``kl`` is KL(π ‖ π_start) over the whole
        vocabulary, the mean over the tokens of the edited texts. A kind that no token is of is left out.
        """
        return evaluation_of(
            lambda model: chain(loss_shares(model, rows, collate, loss, self.config), self._tokens(model)), self.config
        )

    def _tokens(self, model: Any) -> Iterator[Share]:
        if self.start is None and not off_is_start(model):
            # As the policy is made, so that both compute the same.
            self.start = load_policy(self.start_folder, self.config).to(device()).eval().requires_grad_(False)
        for part in self._batches(self.rows):
            for side, kinds in (("edited", {"good": GOOD, "kept": KEPT}), ("original", {"bad": BAD})):
                sides = [getattr(row, side) for row in part]
                batch = pad([one.encoded for one in sides], pad_id=self.encoder.pad_id)
                label_BT = torch.where(batch.response_mask_BT, pad_stream([one.labels for one in sides], batch), -1)
                batch, label_BT = batch.to(device()), label_BT.to(device())
                logprob_BT = token_logprobs(model, batch)
                for name, labels in kinds.items():
                    mask_BT = torch.isin(label_BT, torch.tensor(labels, device=label_BT.device))
                    yield f"logprob_{name}", logprob_BT[mask_BT].sum(), mask_BT.sum()
                if side == "edited":
                    mask_BT = batch.response_mask_BT
                    yield "kl", token_kl(model, self.start, batch)[mask_BT].sum(), mask_BT.sum()

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        size = self.config.micro_batch_size
        for first in range(0, len(rows), size):
            yield list(rows[first : first + size])


def heldout_card(rows: Sequence[TokenLabels] | None) -> dict[str, Any]:
    """How many held-out rows and tokens there are, for the card."""
    return {} if rows is None else {"heldout_rows": len(rows), "heldout_labels": asdict(count_labels(rows))}


def heldout_ids(rows: Sequence[TokenLabels] | None) -> list[Any]:
    """What the fingerprint of a run holds of its held-out rows: they may decide when it stops."""
    if rows is None:
        return []
    sides = [side for row in rows for side in (row.original, row.edited)]
    weights = [side.weights for side in sides]
    return [[(side.encoded.ids, side.labels) for side in sides], *([weights] if any(weights) else [])]


def watch_ids(watch: Watch) -> list[Any]:
    """What the fingerprint of a run holds of who looks on: their figures may choose what is saved."""
    return [] if watch.figures is None else [watch.identity]
