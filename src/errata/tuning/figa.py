"""FIGA: imitate what the editor wrote, unlearn what the editor struck out (Guo et al., ICLR 2024; docs/figa.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from torch import Tensor, nn

from errata import losses
from errata.data import Encoder, LengthCounts
from errata.labels import count_labels, label_rows, sides_of, token_weights
from errata.models import LayoutKind, Wanted, laid_out_logprobs, lay_out
from errata.ranges import Range, Weight
from errata.training import NOBODY, OfflineConfig, OfflineMethod, Prepared, StepLoss, Streams, Watch, run_offline
from errata.types import Encoded, TokenLabels

__all__ = ["FIGA", "FIGAConfig", "WeightedPair", "collate_weighted", "figa_step_loss", "train_figa", "weigh"]


@dataclass(frozen=True, kw_only=True)
class FIGAConfig(OfflineConfig):
    """Settings of FIGA. The defaults are what the demo world shows best; PAPER holds the paper's."""

    good_weight: Weight = 1.0
    """α: weight of inserted and substitute tokens of the edited text, and of its end of sequence."""
    kept_weight: Weight = 0.5
    """γ: weight of kept tokens of the edited text; it holds the model to what people left alone. The paper has 0."""
    bad_weight: Weight = 0.2
    """β: size of the push away from deleted and substituted tokens of the original. The paper has 0.5."""
    gate: Annotated[float, Range(low=0, high=inf)] = 4.0
    """A bad token is pushed only while its cross-entropy is at most this (nats; 4 is a probability of 0.018); inf
    pushes always. The paper has 0.6, a probability of 0.549."""
    gate_low: Annotated[float, Range(low=0)] = 0.0
    """A bad token is pushed only from this cross-entropy on (nats); above 0: the band of the paper's earlier code."""
    inserted_weight: Weight | None = None
    """Weight of inserted tokens, where it is not that of substitutes (good_weight)."""
    deleted_weight: Weight | None = None
    """Push away from deleted tokens, where it is not that of substituted ones (bad_weight)."""
    end_weight: Weight | None = None
    """Weight of the edited text's end of sequence, where it is not good_weight."""
    pull_weight: Weight = 0.0
    """Pull of kept tokens of the edited text to what the start model said of them: so many times half the square of
    log π − log π_start (nats). It forgets less, and costs one more pass without gradients. The paper has none."""


PAPER = {"good_weight": 1.0, "kept_weight": 0.0, "bad_weight": 0.5, "gate": 0.6, "epochs": 5.0, "batch_size": 128}
"""The released recipe (PAPERS B3, B4): ``--preset paper``."""

PAPER_LABELS: dict[str, Any] = {"unit": "token", "ties": "released"}
"""How the released code labels, for ``LabelRules``: ids aligned with ids, ties as its package takes them."""


@dataclass(frozen=True, slots=True)
class WeightedPair:
    """Per-token streams: what to imitate and how much (below 0: unlearn it), what to unlearn and how much (≥ 0)."""

    edited: Encoded
    edited_weights: tuple[float, ...]
    original: Encoded
    original_weights: tuple[float, ...]
    edited_pulls: tuple[float, ...] = ()
    """How strongly each token of the edited text is held to what the start model said of it (≥ 0); empty: nowhere."""

    @property
    def has_gradient(self) -> bool:
        """Whether any token has a weight or a pull."""
        return any(self.edited_weights) or any(self.original_weights) or any(self.edited_pulls)

    @property
    def edited_read(self) -> tuple[bool, ...]:
        """Which tokens of the edited text the loss reads."""
        if not self.edited_pulls:
            return tuple(weight != 0 for weight in self.edited_weights)
        return tuple(w != 0 or p != 0 for w, p in zip(self.edited_weights, self.edited_pulls, strict=True))


def weigh(row: TokenLabels, config: FIGAConfig) -> WeightedPair:
    """FIGA's signals (PAPERS B2): α on inserted, substitute and end; γ on kept; β on deleted, substituted.

    β also on tokens blamed for an omission, of which there are none unless the labels were asked to mark them. A side
    that brings weights of its own has those instead, on ignored tokens, too, and no pull.
    """
    edited, original = row.edited, row.original
    kept = token_weights(
        edited.labels,
        **dict.fromkeys(("inserted", "substituted", "deleted", "omission", "end"), 0.0),
        kept=config.pull_weight,
        ended=edited.encoded.ended,
    )
    good, bad = config.good_weight, config.bad_weight
    return WeightedPair(
        edited.encoded,
        edited.weights
        or token_weights(
            edited.labels,
            kept=config.kept_weight,
            inserted=good if config.inserted_weight is None else config.inserted_weight,
            substituted=good,
            deleted=0.0,
            omission=0.0,
            end=good if config.end_weight is None else config.end_weight,
            ended=edited.encoded.ended,
        ),
        original.encoded,
        original.weights
        or token_weights(
            original.labels,
            kept=0.0,
            inserted=0.0,
            substituted=bad,
            deleted=bad if config.deleted_weight is None else config.deleted_weight,
            omission=bad,
            end=0.0,
            ended=original.encoded.ended,
        ),
        kept if config.pull_weight and not edited.weights else (),
    )


def _times(pair: WeightedPair, factor: float) -> WeightedPair:
    edited, original, pulls = (
        tuple(w * factor for w in stream) for stream in (pair.edited_weights, pair.original_weights, pair.edited_pulls)
    )
    return replace(pair, edited_weights=edited, original_weights=original, edited_pulls=pulls)


def train_figa(
    model: Path | str,
    labels: Iterable[TokenLabels],
    encoder: Encoder,
    config: FIGAConfig,
    out: Path | str,
    *,
    counts: LengthCounts | None = None,
    heldout: Iterable[TokenLabels] | None = None,
    row_weights: Mapping[str, float] | None = None,
    watch: Watch = NOBODY,
) -> dict[str, Any]:
    """L = [Σ_t w_t CE_t(ỹ) − β Σ_{t changed, CE_t(ŷ) ≤ gate} CE_t(ŷ)] / N, N over the whole optimizer step.

    With ``pull_weight`` λ, + λ Σ_{t kept} ½ (log π_t(ỹ) − log π_start,t(ỹ))² in the brackets: an estimate of the
    divergence from the start model (``losses.kl_k2``), which nothing in the paper bounds.

    Rows in which no token has a weight are left out and counted in the card, as is what ``counts`` of labelling says
    of rows that were too long (without it, what the labels themselves show). ``heldout`` rows are evaluated during
    training, and never learned from. ``row_weights`` multiply all weights of the rows with these ids. Arguments, result
    and errors are ``run_offline``'s.
    """
    more: dict[str, Any] = {"counts": counts, "heldout": heldout, "row_weights": row_weights, "watch": watch}
    return run_offline(FIGA, model, labels, encoder, config, out, **more)


def _prepared(
    source: Iterable[TokenLabels],
    encoder: Encoder,
    config: FIGAConfig,
    *,
    row_weights: Mapping[str, float],
    counts: LengthCounts | None,
) -> Prepared[WeightedPair]:
    labels = label_rows(source, "labels")
    pairs = [_times(weigh(row, config), row_weights.get(row.id, 1.0)) for row in labels]
    rows = [pair for pair in pairs if pair.has_gradient]
    return Prepared(
        rows=rows,
        sides=list(sides_of(labels)),
        data=[(p.edited.ids, p.edited_weights, p.original.ids, p.original_weights, p.edited_pulls) for p in pairs],
        card={
            **asdict(LengthCounts.of(labels) if counts is None else counts),
            "rows_with_own_weights": sum(bool(row.edited.weights or row.original.weights) for row in labels),
            "excluded_without_gradient": len(pairs) - len(rows),
            "labels": asdict(count_labels(labels)),
        },
    )


def collate_weighted(
    pairs: Sequence[WeightedPair], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN
) -> dict[str, Any]:
    """What the loss is given: ``layout``, and ``weight_SK``, first of the edited texts, then magnitudes of originals.

    A token without weight or pull is not read. With pulls, ``pull_SK``, too.
    """
    groups = [[Wanted(p.edited, p.edited_read), Wanted(p.original, np.not_equal(p.original_weights, 0))] for p in pairs]
    layout = lay_out(groups, kind, pad_id=encoder.pad_id)
    weights = [p.edited_weights for p in pairs] + [p.original_weights for p in pairs]
    batch = {"layout": layout, "weight_SK": layout.stream(weights)}
    if any(p.edited_pulls for p in pairs):
        pulls = [p.edited_pulls or (0.0,) * len(p.edited_weights) for p in pairs]
        batch["pull_SK"] = layout.stream([*pulls, *((0.0,) * len(p.original_weights) for p in pairs)])
    return batch


def _gate(logprob_BU: Tensor, *, low: float, high: float) -> Tensor:
    if low > 0:
        return losses.gate_band(logprob_BU, low=low, high=high)
    return losses.gate_below(logprob_BU, threshold=high)


def figa_step_loss(model: nn.Module, inputs: dict[str, Any], *, low: float, high: float) -> StepLoss:
    """FIGA's sum and N of one micro-batch, as ``collate_weighted`` gives it; the gate passes from low to high nats."""
    layout = inputs["layout"]
    edited_BT, original_BU = laid_out_logprobs(model, layout).chunk(2)
    edited_weight_BT, original_weight_BU = inputs["weight_SK"].chunk(2)
    edited_mask_BT, original_mask_BU = layout.wanted_SK.chunk(2)
    terms = losses.figa(
        edited_BT,
        edited_weight_BT,
        edited_mask_BT,
        original_BU,
        original_weight_BU,
        original_mask_BU,
        _gate(original_BU, low=low, high=high),
    )
    passed = {"bad_through_gate": (terms.counts_BU.sum(), original_mask_BU.sum())}
    if "pull_SK" not in inputs:
        return StepLoss(terms.total, terms.num_tokens, passed)
    pull_BT, ref_BT = inputs["pull_SK"].chunk(2)[0], inputs["ref_logprob_SK"].chunk(2)[0]
    pulled_BT = edited_mask_BT & (pull_BT != 0)
    drift_BT = losses.kl_k2(edited_BT, ref_BT, pulled_BT)
    num_tokens = (terms.counts_BT | pulled_BT).sum() + terms.counts_BU.sum()
    passed["kept_drift"] = (drift_BT.detach().sum(), pulled_BT.sum())
    return StepLoss(terms.total + (pull_BT * drift_BT).sum(), num_tokens, passed)


def _loss(model: nn.Module, batch: Any, config: FIGAConfig) -> StepLoss:
    return figa_step_loss(model, batch, low=config.gate_low, high=config.gate)


def _streams(labels: TokenLabels, config: FIGAConfig) -> Streams:
    pair = weigh(labels, config)
    return Streams(tuple(-weight for weight in pair.original_weights), pair.edited_weights)


FIGA = OfflineMethod[WeightedPair](
    name="figa",
    summary="imitate what was written, unlearn what was struck out (no reward model needed)",
    about="""FIGA: imitate what the editor wrote, unlearn what the editor struck out; no reward model, no sampling.

    --preset paper is the released code's: weights 1 on written, 0 on kept, 0.5 on struck-out tokens, gate 0.6, and
    labels of token ids with its ties.
    """,
    config=FIGAConfig,
    reads="labels",
    rows=_prepared,
    collate=collate_weighted,
    loss=_loss,
    weights=_streams,
    heldout=weigh,
    reference=lambda config: "token log-probabilities" if config.pull_weight else "none",
    texts=lambda pair: (pair.edited, pair.original),
    end=lambda pair: (pair.edited, pair.edited_weights[-1] if pair.edited_weights else 0.0),
    unlearns=True,
    presets={"paper": {**PAPER, **PAPER_LABELS}},
    learn={"pull_weight": 1.0},
)
