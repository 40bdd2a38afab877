"""How probable a model finds single tokens, before and after it was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from errata.models import load_causal, pad, to_lists, token_logprobs
from errata.types import Encoded, Label, TokenLabels


@torch.no_grad()
def logprobs(folder: Path, rows: Sequence[Encoded]) -> list[list[float]]:
    batch = pad(rows, pad_id=0)
    return to_lists(token_logprobs(load_causal(folder), batch), batch)


def total(folder: Path, rows: Sequence[Encoded]) -> float:
    return sum(map(sum, logprobs(folder, rows)))


def of_labels(folder: Path, rows: Sequence[TokenLabels], *labels: Label) -> list[float]:
    """The log-probabilities of the tokens of either side that carry one of the labels, row by row."""
    found = []
    for side in ("original", "edited"):
        sides = [getattr(row, side) for row in rows]
        for one, values in zip(sides, logprobs(folder, [one.encoded for one in sides]), strict=True):
            found += [value for value, name in zip(values, one.labels, strict=True) if name in labels]
    return found
