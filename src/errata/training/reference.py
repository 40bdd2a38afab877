"""What the model that training starts from says of the rows, computed once before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from errata.models import device, laid_out_logprobs
from errata.training.config import OfflineConfig

__all__ = ["Referenced", "collate_referenced", "with_reference"]

Collate = Callable[[Sequence[Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Referenced:
    """A row, and the reference's log-probability of each of its texts, where the layout reads it; in nats."""

    row: Any
    logprobs: tuple[float, ...]


@torch.no_grad()
def with_reference(model: nn.Module, rows: Sequence[Any], collate: Collate, config: OfflineConfig) -> list[Referenced]:
    """The rows with what ``model`` says of them before it is trained."""
    found: list[Referenced] = []
    model.to(device())
    for start in range(0, len(rows), config.micro_batch_size):
        part = rows[start : start + config.micro_batch_size]
        layout = collate(part)["layout"].to(device())
        # As the policy is computed, which then starts from a ratio of 1.
        with torch.autocast(device().type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            logprob_S = laid_out_logprobs(model, layout).sum(1)
        sides = (side.tolist() for side in logprob_S.chunk(len(logprob_S) // len(part)))
        found += [Referenced(row, logprobs) for row, logprobs in zip(part, zip(*sides, strict=True), strict=True)]
    return found


def collate_referenced(rows: Sequence[Referenced], collate: Collate) -> dict[str, Any]:
    """The batch of the rows, and ``ref_logprob_S``, in the order of its sequences: first all first sides."""
    sides = zip(*(row.logprobs for row in rows), strict=True)
    return {**collate([row.row for row in rows]), "ref_logprob_S": torch.tensor([x for side in sides for x in side])}
