"""What each method means to train on: one signed weight for every token, and its own batches. The methods say so.

A *feature* is one sequence in the words of the ecosystem's trainers: ``input_ids``, ``attention_mask``, ``labels``
(−100 where nothing is learned), ``completion_mask`` and ``weights``, all equally long, with its ``id``. Weights are
above zero where a token is imitated, below it where it is unlearned, and 0 in the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from errata.data import Encoder
from errata.reward import TOKEN_REWARD
from errata.training import Streams, Supervision
from errata.tuning import methods
from errata.types import Encoded, TokenLabels

__all__ = [
    "UNSUPERVISED",
    "Collate",
    "Feature",
    "Method",
    "Streams",
    "features_of",
    "own_batch",
    "streams_of",
    "supervision_of",
    "supervisions",
]

Method = str
"""The name of a method of ``errata.tuning``, or ``reward``: a token-level reward model."""
Feature = dict[str, Any]
Collate = Callable[[list[Feature]], Mapping[str, Any]]
UNSUPERVISED = -100
"""The label of a token from which nothing is learned, as in every trainer on transformers."""


def supervisions() -> tuple[Supervision[Any], ...]:
    """All that can be examined."""
    return (*methods(), TOKEN_REWARD)


def supervision_of(method: Method | Supervision[Any]) -> Supervision[Any]:
    """What is examined, by its name.

    Raises:
        ValueError: there is none of this name; names those that there are.
    """
    if isinstance(method, Supervision):
        return method
    known = {each.name: each for each in supervisions()}
    if method not in known:
        raise ValueError(f"no method {method!r}; there are {', '.join(known)}")
    return known[method]


def settings_of(supervision: Supervision[Any], config: Any) -> Any:
    """The settings, where they are those of the method; else its defaults."""
    return config if isinstance(config, supervision.config) else supervision.config()


def streams_of(row: TokenLabels, method: Method | Supervision[Any], config: Any = None) -> Streams:
    """What the loss of a method shall see of a row: the weights of both sides, below 0 where it unlearns."""
    supervision = supervision_of(method)
    return supervision.weights(row, settings_of(supervision, config))


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


def own_batch(
    rows: Sequence[TokenLabels], method: Method | Supervision[Any], encoder: Encoder, config: Any = None
) -> Mapping[str, Any]:
    """The batch of errata's own trainer, plainly laid out, in the words of a feature: edited texts, then originals."""
    supervision = supervision_of(method)
    settings = settings_of(supervision, config)
    inputs = supervision.collate([supervision.heldout(row, settings) for row in rows], encoder=encoder)
    layout, weight_SK = inputs["layout"], supervision.signed(inputs, len(rows))
    weight_RC = torch.zeros(layout.ids_RC.shape)
    weight_RC.view(-1)[layout.read_N + supervision.read_before] = weight_SK[layout.wanted_SK]
    return {
        "input_ids": layout.ids_RC,
        "attention_mask": layout.group_RC >= 0,
        "labels": torch.where(weight_RC != 0, layout.ids_RC, UNSUPERVISED),
        "weights": weight_RC,
    }
