"""A collator as a user might write it, and the ways in which it goes wrong: a few lines each."""

from __future__ import annotations

from typing import Any

import torch

from errata.doctor.streams import Feature

NAMES = {"input_ids": 0, "attention_mask": 0, "labels": -100, "weights": 0.0}
PAD, BOS, EOS = 0, 1, 2  # of tiny.tokenizer


def right(features: list[Feature]) -> dict[str, Any]:
    """Pads on the right and keeps everything."""
    width = max(len(one["input_ids"]) for one in features)
    return {
        name: torch.tensor([[*one[name], *[fill] * (width - len(one[name]))] for one in features])
        for name, fill in NAMES.items()
    }


def left(features: list[Feature]) -> dict[str, Any]:
    width = max(len(one["input_ids"]) for one in features)
    return {
        name: torch.tensor([[*[fill] * (width - len(one[name])), *one[name]] for one in features])
        for name, fill in NAMES.items()
    }


def packed(features: list[Feature]) -> dict[str, Any]:
    """All rows in one line, the last one first; positions say where each begins."""
    batch = {name: torch.tensor([[x for one in features[::-1] for x in one[name]]]) for name in NAMES}
    positions = [k for one in features[::-1] for k in range(len(one["input_ids"]))]
    return {**batch, "position_ids": torch.tensor([positions])}


def without(name: str, batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key != name}


def drops_weights(features: list[Feature]) -> dict[str, Any]:
    return without("weights", right(features))


def packs_without_weights(features: list[Feature]) -> dict[str, Any]:
    return without("weights", packed(features))


def packs_without_boundaries(features: list[Feature]) -> dict[str, Any]:
    return without("position_ids", packed(features))


def cuts_all_but_weights(features: list[Feature]) -> dict[str, Any]:
    batch = right(features)
    return {name: batch[name] if name == "weights" else batch[name][:, :-2] for name in batch}


def cuts(features: list[Feature]) -> dict[str, Any]:
    return {name: value[:, :-2] for name, value in right(features).items()}


def cuts_beginning(features: list[Feature]) -> dict[str, Any]:
    return {name: value[:, 2:] for name, value in left(features).items()}


def masks_below_zero(features: list[Feature]) -> dict[str, Any]:
    """As ms-swift: no loss where the weight is not above zero."""
    batch = right(features)
    return {**batch, "labels": batch["labels"].masked_fill(batch["weights"] <= 0, -100)}


def masks_answers(features: list[Feature]) -> dict[str, Any]:
    """An assistant mask that is zero everywhere."""
    batch = right(features)
    return {**batch, "labels": torch.full_like(batch["labels"], -100)}


def masks_end(features: list[Feature]) -> dict[str, Any]:
    """Also what comes of pad == end, masked by id."""
    batch = right(features)
    return {**batch, "labels": batch["labels"].masked_fill(batch["input_ids"] == EOS, -100)}


def attends_by_id(features: list[Feature]) -> dict[str, Any]:
    """Pad == end: the attention mask loses the end."""
    batch = right(features)
    batch["input_ids"][batch["attention_mask"] == 0] = EOS
    return {**batch, "attention_mask": (batch["input_ids"] != EOS).long()}


def trains_padding(features: list[Feature]) -> dict[str, Any]:
    batch = right(features)
    batch["labels"][batch["attention_mask"] == 0] = PAD
    batch["weights"][batch["attention_mask"] == 0] = 1.0
    return batch


def attends_padding(features: list[Feature]) -> dict[str, Any]:
    batch = right(features)
    return {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}


def doubles_bos(features: list[Feature]) -> dict[str, Any]:
    more = {"input_ids": BOS, "attention_mask": 1, "labels": -100, "weights": 0.0}
    return right([{name: [more[name], *one[name]] for name in NAMES} for one in features])


def trains_prompt(features: list[Feature]) -> dict[str, Any]:
    """As an SFT collator for which the completion mask is only a column: labels are the ids."""
    batch = right(features)
    return without("weights", {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)})


def replaces_ids(features: list[Feature]) -> dict[str, Any]:
    """Another spelling of the same text: here, of the word that the tokenizer knows by two ids."""
    return right([{**one, "input_ids": [40 if x == 41 else x for x in one["input_ids"]]} for one in features])


def loses_a_row(features: list[Feature]) -> dict[str, Any]:
    return right(features[1:])


def shifts_weights(features: list[Feature]) -> dict[str, Any]:
    batch = right(features)
    return {**batch, "weights": batch["weights"].roll(1, 1)}


def doubles_weights(features: list[Feature]) -> dict[str, Any]:
    batch = right(features)
    return {**batch, "weights": batch["weights"] * 2}
