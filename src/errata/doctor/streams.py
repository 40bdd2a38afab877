"""What each method means to train on: one signed weight for every token, and the trainers' own collators.

A *feature* is one sequence in the words of the ecosystem's trainers: ``input_ids``, ``attention_mask``, ``labels``
(−100 where nothing is learned), ``completion_mask`` and ``weights``, all equally long, with its ``id``. Weights are
above zero where a token is imitated, below it where it is unlearned, and 0 in the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from errata.data import Encoder
from errata.labels import changed
from errata.models import common_length
from errata.reward.train import collate_labels
from errata.tuning import FIGAConfig, weigh
from errata.tuning.dpo import lay_out_pairs
from errata.tuning.figa import collate_weighted
from errata.tuning.sft import collate_demonstrations
from errata.types import Encoded, TokenLabels

__all__ = ["UNSUPERVISED", "Collate", "Feature", "Method", "Streams", "features_of", "own_batch", "streams_of"]

Method = Literal["figa", "sft", "dpo", "reward"]
Feature = dict[str, Any]
Collate = Callable[[list[Feature]], Mapping[str, Any]]
UNSUPERVISED = -100
"""The label of a token from which nothing is learned, as in every trainer on transformers."""


@dataclass(frozen=True, slots=True)
class Streams:
    """The signed weights of the response tokens of both sides; None for a side that is not trained on."""

    original: tuple[float, ...] | None
    edited: tuple[float, ...]

    @property
    def weighs(self) -> bool:
        """Whether any token has a weight."""
        return any(self.edited) or any(self.original or ())


def streams_of(row: TokenLabels, method: Method, config: FIGAConfig) -> Streams:
    """What the loss of a method shall see.

    ``figa``: its weights, those of the original below zero. ``sft``: 1 on every token of the edited text. ``dpo``: +1
    on the edited, −1 on the original, from the first difference on. ``reward`` (token-level): +1 and −1
    on changed tokens.
    """
    if method == "sft":
        return Streams(None, (1.0,) * len(row.edited.labels))
    if method == "dpo":
        # Before the first difference the two sides cancel.
        alike = common_length(row.edited.encoded, row.original.encoded) - row.edited.encoded.prompt_length
        return Streams(
            tuple(-float(k >= alike) for k in range(len(row.original.labels))),
            tuple(float(k >= alike) for k in range(len(row.edited.labels))),
        )
    if method == "reward":
        return Streams(
            tuple(-float(mark) for mark in changed(row.original.labels)), tuple(map(float, changed(row.edited.labels)))
        )
    pair = weigh(row, config)
    return Streams(tuple(-weight for weight in pair.original_weights), pair.edited_weights)


def features_of(row: TokenLabels, streams: Streams) -> list[Feature]:
    """The sequences of a row as a collator is given them: the edited text, then the original where it is trained on."""
    features = [_feature(f"{row.id}", row.edited.encoded, streams.edited)]
    if streams.original is not None:
        features.append(_feature(f"{row.id}", row.original.encoded, streams.original))
    return features


def _feature(name: str, encoded: Encoded, weights: Sequence[float]) -> Feature:
    if len(weights) != len(encoded.response_ids):
        raise ValueError(
            f"row {name!r}: {len(weights)} weights for {len(encoded.response_ids)} response tokens; give one a token"
        )
    prompt = encoded.prompt_length
    return {
        "id": name,
        "input_ids": list(encoded.ids),
        "attention_mask": [1] * len(encoded.ids),
        "labels": [UNSUPERVISED] * prompt + list(encoded.response_ids),
        "completion_mask": [0] * prompt + [1] * len(weights),
        "weights": [0.0] * prompt + list(weights),
    }


def own_batch(rows: Sequence[TokenLabels], method: Method, encoder: Encoder, config: FIGAConfig) -> Mapping[str, Any]:
    """The batch of errata's own trainer, plainly laid out, in the words of a feature: edited texts, then originals."""
    if method == "sft":
        layout = collate_demonstrations([(row.edited.encoded, 1.0) for row in rows], encoder=encoder)["layout"]
        weight_SK = layout.wanted_SK.float()
    elif method == "dpo":
        layout = lay_out_pairs([(row.edited.encoded, row.original.encoded) for row in rows], encoder=encoder)
        weight_SK = layout.wanted_SK.float()
        weight_SK[len(rows) :] *= -1
    elif method == "reward":
        inputs = collate_labels(rows, encoder=encoder)
        layout, weight_SK = inputs["layout"], inputs["sign_SK"].float()
    else:
        inputs = collate_weighted([weigh(row, config) for row in rows], encoder=encoder)
        layout, weight_SK = inputs["layout"], inputs["weight_SK"].clone()
        weight_SK[len(rows) :] *= -1  # the loss of FIGA subtracts the second half
    # A token is read off the column before it, but for rewards, which are read at their own.
    column_N = layout.read_N + (method != "reward")
    weight_RC = torch.zeros(layout.ids_RC.shape)
    weight_RC.view(-1)[column_N] = weight_SK[layout.wanted_SK]
    return {
        "input_ids": layout.ids_RC,
        "attention_mask": layout.group_RC >= 0,
        "labels": torch.where(weight_RC != 0, layout.ids_RC, UNSUPERVISED),
        "weights": weight_RC,
    }
