"""Train reward models: one scalar for a response from pairs, or one for every token from labelled edits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows, rows_of
from errata.labels import changed, has_change, label_rows, sides_of
from errata.models import (
    LayoutKind,
    Wanted,
    check_ids,
    choose_layout,
    identity,
    laid_out_last_scalars,
    laid_out_scalars,
    lay_out,
    load_policy,
    load_sequence_reward_model,
    load_token_reward_model,
    read_card,
    settle,
)
from errata.pretrained import find_model
from errata.reward.config import ClassObjective, PairObjective, RewardConfig, TokenRewardConfig
from errata.runs import RunFolder, fingerprint_of, writes_out
from errata.training import Share, StepLoss, Streams, Supervision, evaluation_of, fit, loss_shares
from errata.types import Correction, Encoded, Label, Preference, Prompt, TokenLabels

__all__ = [
    "TOKEN_REWARD",
    "ClassObjective",
    "PairObjective",
    "RewardConfig",
    "TokenRewardConfig",
    "collate_labels",
    "encode_pair",
    "pair_rows",
    "train_sequence_reward",
    "train_token_reward",
    "train_token_reward_bradley_terry",
]

Pair = tuple[Encoded, Encoded]
"""The better and the worse of two responses."""


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


def pair_rows(given: Iterable[Preference | Correction], name: str) -> list[Preference | Correction]:
    """Preferences and corrections as a list. Raises TypeError for anything else."""
    kinds = (Preference, Correction)
    return rows_of(given, kinds, name, "read them with read_preferences, or make corrections with corrections_from")


def _encode(prompt: Prompt, text: str, ids: tuple[int, ...] | None, encoder: Encoder) -> Encoded:
    return encoder.encode(prompt, text) if ids is None else encoder.encode_sampled(prompt, text, ids)


@writes_out
def train_sequence_reward(
    model: Path | str,
    rows: Iterable[Preference | Correction],
    encoder: Encoder,
    config: RewardConfig,
    out: Path | str,
    *,
    heldout: Iterable[Preference | Correction] = (),
) -> dict[str, Any]:
    """Bradley-Terry on whole responses: L = −log σ(R(x, y_better) − R(x, y_worse)) (Xu et al., Eq 1).

    Rows whose two sides are the same ids have no gradient: they are left out and counted in the card. Preferences and
    corrections may be mixed. ``heldout`` rows are looked at and never learned from: their accuracy says when to stop.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: a row cannot be encoded (the message names it), none is left, or the settings do not go together; or
            as ``fit``.
        TypeError: ``rows`` or ``heldout`` are rows of another kind.
    """
    counts = LengthCounts()
    named = _pairs(pair_rows(rows, "rows"), encoder, counts)
    named_heldout = _pairs(pair_rows(heldout, "heldout"), encoder, LengthCounts())
    pairs = [pair for _, pair in named]
    kept, seen = _different(pairs), _different([pair for _, pair in named_heldout])
    config, noted = _settle(config, model)
    card = _card("sequence", "sequence_bradley_terry", model, config, encoder, [pairs, seen], counts) | noted
    card |= {"rows": len(kept), "excluded_without_gradient": len(pairs) - len(kept), "heldout_rows": len(seen)}
    return _train(
        model,
        out,
        card,
        config,
        encoder,
        kept,
        seen,
        names=_sides([*named, *named_heldout]),
        build=partial(load_sequence_reward_model, pad_id=encoder.pad_id, end_id=encoder.end_id),
        collate=partial(_collate_ends, encoder=encoder),
        loss=_sequence_loss,
    )


@writes_out
def train_token_reward(
    model: Path | str,
    labels: Iterable[TokenLabels],
    encoder: Encoder,
    config: TokenRewardConfig,
    out: Path | str,
    *,
    objective: ClassObjective = "classes",
    preferences: Iterable[Preference] = (),
    heldout: Iterable[TokenLabels] = (),
    counts: LengthCounts | None = None,
) -> dict[str, Any]:
    """Classes of changed tokens: the rewards' level is fixed and they localise (docs/token_reward.md).

    ``classes``: −log σ(r) on inserted and substitute tokens, −log σ(−r) on deleted and substituted ones, κ·r² on kept
    ones. ``soft``: TLCR's cross-entropy with targets 1, 0 and ½. Beside either, ``sequence_coefficient`` times
    Bradley-Terry on the sums, which is all that ``preferences`` without an edit teach.

    Unchanged rows are left out and counted in the card. ``heldout`` edits are looked at and never learned from: which
    sum of rewards is higher is the accuracy that says when to stop.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: no row is left, or the settings do not go together; or as ``fit``.
        TypeError: an argument holds rows of another kind.
    """
    preferences = _preferences(preferences)
    if preferences and not config.sequence_coefficient:
        raise ValueError(
            "preferences teach a model of token classes by the Bradley-Terry term on the sum; give it a weight with "
            "--sequence-coefficient, or leave --preferences out"
        )
    name = {"classes": "changed_token_classes", "soft": "soft_token_classes"}[objective]
    loss = partial(_class_loss, config=config, objective=objective)
    return _train_token(model, labels, encoder, config, out, name, loss, preferences, heldout, counts)


@writes_out
def train_token_reward_bradley_terry(
    model: Path | str,
    labels: Iterable[TokenLabels],
    encoder: Encoder,
    config: RewardConfig,
    out: Path | str,
    *,
    objective: PairObjective = "eq3",
    preferences: Iterable[Preference] = (),
    heldout: Iterable[TokenLabels] = (),
    counts: LengthCounts | None = None,
) -> dict[str, Any]:
    """Bradley-Terry on token rewards put together, one comparison a pair.

    ``eq3``: Xu et al.'s Eq 3, L = −log σ(mean_t r(y_e) − mean_t r(y_l)), every response token in the mean but IGNORED
    ones. It does not change under r → r + c: the level of these rewards is free. ``changed_mean`` and ``changed_sum``:
    over the changed tokens alone.

    Unchanged rows are left out and counted. ``preferences`` without an edit enter as pairs do; ``heldout`` edits are
    looked at and never learned from.

    Returns:
        The card written beside the model.

    Raises:
        ValueError: no row is left, or preferences were given to an objective on changed tokens; or as ``fit``.
        TypeError: an argument holds rows of another kind.
    """
    preferences = _preferences(preferences)
    if preferences and objective != "eq3":
        raise ValueError(
            "it is not known which tokens of a preference were changed; give --preferences to eq3 or classes"
        )
    name = {
        "eq3": "token_bradley_terry",
        "changed_mean": "changed_token_bradley_terry_mean",
        "changed_sum": "changed_token_bradley_terry_sum",
    }[objective]
    loss = partial(_bradley_terry_loss, objective=objective)
    return _train_token(model, labels, encoder, config, out, name, loss, preferences, heldout, counts)


def _train_token(
    model: Path | str,
    labels: Iterable[TokenLabels],
    encoder: Encoder,
    config: RewardConfig,
    out: Path | str,
    objective: str,
    loss: Callable[[Any, Any], StepLoss],
    preferences: Sequence[Preference],
    heldout: Iterable[TokenLabels],
    counts: LengthCounts | None,
) -> dict[str, Any]:
    labels, heldout = label_rows(labels, "labels"), label_rows(heldout, "heldout")
    counts = LengthCounts.of(labels) if counts is None else counts
    kept, seen = _changed(labels), _changed(heldout)
    named = _pairs(preferences, encoder, counts)
    pairs = [pair for _, pair in named]
    compared = _different(pairs)
    data = [[_ids_and_labels(row) for row in labels], pairs, [_ids_and_labels(row) for row in seen]]
    config, noted = _settle(config, model)
    card = _card("token", objective, model, config, encoder, data, counts) | noted
    card |= {
        "rows": len(kept),
        "preferences": len(compared),
        "excluded_without_gradient": len(labels) - len(kept) + len(pairs) - len(compared),
        "heldout_rows": len(seen),
    }
    return _train(
        model,
        out,
        card,
        config,
        encoder,
        [*kept, *compared],
        seen,
        names=[*sides_of(labels), *sides_of(heldout), *_sides(named)],
        build=load_token_reward_model,
        collate=partial(collate_labels, encoder=encoder),
        loss=loss,
    )


def _train(
    model: Path | str,
    out: Path | str,
    card: dict[str, Any],
    config: RewardConfig,
    encoder: Encoder,
    rows: Sequence[Any],
    heldout: Sequence[Any],
    *,
    names: Sequence[tuple[str, Encoded]],
    build: Callable[..., nn.Module],
    collate: Callable[..., Any],
    loss: Callable[[Any, Any], StepLoss],
) -> dict[str, Any]:
    if config.stop_when_kept_falls is not None:
        raise ValueError("--stop-when-kept-falls looks at probabilities, and a reward model has none; use --patience")
    out = Path(out)
    if RunFolder(out, card["fingerprint"]).is_finished():
        return read_card(out)
    built = load_policy(model, config, build)
    check_ids(built, names)
    kind, card["layout"] = choose_layout(built, config.layout)
    collate = partial(collate, kind=kind)

    def shares(trained: Any) -> Iterator[Share]:
        return loss_shares(trained, heldout, collate, loss, config)

    return fit(
        built,
        rows,
        collate=collate,
        loss=loss,
        config=config,
        tokenizer=encoder.tokenizer,
        out=out,
        card=card,
        evaluate=evaluation_of(shares, config) if heldout else None,
        load=build,
        length=_length,
    )


def _settle(config: RewardConfig, model: Path | str) -> tuple[RewardConfig, dict[str, Any]]:
    if config.quantize != "none":
        raise ValueError("a reward model is not trained in 4 bits; leave --quantize out, --lora-rank goes without")
    if find_model(model).quantization:
        raise ValueError(f"a reward model is not trained on quantized weights, as those of {model} are; give another")
    return settle(config, model)


def _length(row: TokenLabels | Pair) -> int:
    """The tokens of the longer side."""
    sides = row if isinstance(row, tuple) else (row.original.encoded, row.edited.encoded)
    return max(len(side.ids) for side in sides)


def _preferences(given: Iterable[Preference]) -> list[Preference]:
    return rows_of(given, Preference, "preferences", "corrections are labelled, and given as labels")


def _pairs(
    rows: Sequence[Preference | Correction], encoder: Encoder, counts: LengthCounts
) -> list[tuple[Preference | Correction, Pair]]:
    return list(encode_rows(rows, partial(encode_pair, encoder=encoder), counts))


def _sides(pairs: Sequence[tuple[Preference | Correction, Pair]]) -> list[tuple[str, Encoded]]:
    return [(row.id, side) for row, pair in pairs for side in pair]


def _different(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair[0].ids != pair[1].ids]


def _changed(labels: Sequence[TokenLabels]) -> list[TokenLabels]:
    return [row for row in labels if has_change(row)]


def _ids_and_labels(row: TokenLabels) -> list[Any]:
    return [row.original.encoded.ids, row.original.labels, row.edited.encoded.ids, row.edited.labels]


def _card(
    kind: str,
    objective: str,
    model: Path | str,
    config: RewardConfig,
    encoder: Encoder,
    data: Any,
    counts: LengthCounts,
) -> dict[str, Any]:
    return {
        "stage": "reward",
        "kind": kind,
        "objective": objective,
        **asdict(counts),
        "tokenizer": encoder.fingerprint,
        "template": encoder.template,
        "fingerprint": fingerprint_of("reward", kind, objective, identity(model), config, data),
    }


def _collate_ends(pairs: Sequence[Pair], *, encoder: Encoder, kind: LayoutKind) -> dict[str, Any]:
    """Both sides of each pair, first the better ones, read at their last token."""
    groups = [[Wanted(side, np.arange(1 - len(side.response_ids), 1) == 0) for side in pair] for pair in pairs]
    return {"layout": lay_out(groups, kind, pad_id=encoder.pad_id, predicted=False)}


def collate_labels(
    rows: Sequence[TokenLabels | Pair], *, encoder: Encoder, kind: LayoutKind = LayoutKind.PLAIN
) -> dict[str, Any]:
    """What the losses are given: ``layout``, which reads all but ignored tokens; ``sign_SK``: good tokens +1, bad ones
    −1, others 0; and ``edited_B``: whether the row is an edit, so that its tokens have classes, and not a mere pair.
    First the better texts, then the worse ones.
    """  # noqa: D205
    sides = [
        [(one, [0] * len(one.response_ids)) for one in row]
        if isinstance(row, tuple)
        else [(side.encoded, side.labels) for side in (row.edited, row.original)]
        for row in rows
    ]
    groups = [[Wanted(one, np.not_equal(labels, Label.IGNORED)) for one, labels in row] for row in sides]
    layout = lay_out(groups, kind, pad_id=encoder.pad_id, predicted=False)
    signs = [
        [sign * float(mark) for mark in changed(row[side][1])] for side, sign in enumerate((1, -1)) for row in sides
    ]
    edited_B = torch.tensor([not isinstance(row, tuple) for row in rows])
    return {"layout": layout, "sign_SK": layout.stream(signs).long(), "edited_B": edited_B}


TOKEN_REWARD = Supervision[Any](
    name="reward",
    config=TokenRewardConfig,
    reads="labels",
    weights=lambda labels, config: Streams(
        tuple(-float(mark) for mark in changed(labels.original.labels)),
        tuple(map(float, changed(labels.edited.labels))),
    ),
    heldout=lambda labels, config: labels,
    collate=collate_labels,
    signed=lambda batch, rows: batch["sign_SK"].float(),
    read_before=0,
    teaches_end=False,
)
"""What a token-level reward model is trained on, for the doctor."""


def _sequence_loss(model: nn.Module, inputs: dict[str, Any]) -> StepLoss:
    better_B, worse_B = laid_out_last_scalars(model, inputs["layout"]).chunk(2)
    loss_B = losses.sequence_bradley_terry(better_B, worse_B)
    return StepLoss(loss_B.sum(), _count(loss_B), {"accuracy": _accuracy(better_B, worse_B)})


def _bradley_terry_loss(model: nn.Module, inputs: dict[str, Any], *, objective: PairObjective = "eq3") -> StepLoss:
    edited_BT, original_BU = laid_out_scalars(model, inputs["layout"]).chunk(2)
    read_SK = inputs["layout"].wanted_SK if objective == "eq3" else inputs["sign_SK"] != 0
    edited_mask_BT, original_mask_BU = read_SK.chunk(2)
    compare, reduce = {
        "eq3": (losses.token_bradley_terry, losses.sequence_mean),
        "changed_mean": (losses.changed_token_bradley_terry_mean, losses.sequence_mean),
        "changed_sum": (losses.changed_token_bradley_terry_sum, losses.sequence_sum),
    }[objective]
    loss_B = compare(edited_BT, edited_mask_BT, original_BU, original_mask_BU)
    accuracy = _accuracy(reduce(edited_BT, edited_mask_BT), reduce(original_BU, original_mask_BU))
    return StepLoss(loss_B.sum(), _count(loss_B), {"accuracy": accuracy})


def _class_loss(
    model: nn.Module, inputs: dict[str, Any], *, config: TokenRewardConfig, objective: ClassObjective = "classes"
) -> StepLoss:
    sign_SK, edited_B = inputs["sign_SK"], inputs["edited_B"]
    reward_SK = laid_out_scalars(model, inputs["layout"])
    mask_SK = inputs["layout"].wanted_SK & edited_B.repeat(2)[:, None]
    if objective == "soft":
        loss_SK = losses.soft_token_classes(reward_SK, (sign_SK + 1) / 2, mask_SK)
    else:
        loss_SK = losses.changed_token_classes(reward_SK, sign_SK, mask_SK, kept_coefficient=config.kept_coefficient)
    total, (better_B, worse_B) = loss_SK.sum(), reward_SK.sum(1).chunk(2)
    if config.sequence_coefficient:
        total = total + config.sequence_coefficient * losses.sequence_bradley_terry(better_B, worse_B).sum()
    # A pair that is no edit has no class to count, and counts as one item itself.
    count = (sign_SK != 0).sum() + (~edited_B).sum()
    return StepLoss(total, count, {"accuracy": _accuracy(better_B, worse_B)})


def _accuracy(better_B: Tensor, worse_B: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs whose better side is ahead, a tie as one half, and pairs."""
    wins_B = (better_B > worse_B).float() + 0.5 * (better_B == worse_B)
    return wins_B.sum(), _count(wins_B)


def _count(x_B: Tensor) -> Tensor:
    return torch.tensor(x_B.shape[0], device=x_B.device)
