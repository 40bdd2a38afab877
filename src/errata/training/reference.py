"""What the model that training starts from says of the rows, computed once before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from errata.models import device, laid_out_logprobs
from errata.training.config import OfflineConfig

__all__ = ["Reference", "Referenced", "collate_referenced", "with_reference"]

Collate = Callable[[Sequence[Any]], dict[str, Any]]

Reference = Literal["none", "log-probabilities", "token log-probabilities"]
"""What a loss is given of the start model: nothing; ``ref_logprob_S``, sums over what the layout reads of each text; or
``ref_logprob_SK``, one for each response token that is read, else 0. In nats."""


@dataclass(frozen=True, slots=True)
class Referenced:
    """A row, and the reference's log-probabilities of its texts, where the layout reads them; in nats."""

    row: Any
    logprobs: tuple[Any, ...]
    """For each text a sum, or one for each response token."""


@torch.no_grad()
def with_reference(
    model: nn.Module, rows: Sequence[Any], collate: Collate, config: OfflineConfig, reference: Reference
) -> list[Referenced]:
    """The rows with what ``model`` says of them before it is trained."""
    found: list[Referenced] = []
    model.to(device())
    for start in range(0, len(rows), config.micro_batch_size):
        part = rows[start : start + config.micro_batch_size]
        layout = collate(part)["layout"].to(device())
        # As the policy is computed, which then starts from a ratio of 1.
        with torch.autocast(device().type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            logprob_SK = laid_out_logprobs(model, layout)
        if reference == "token log-probabilities":
            rows_S = zip(logprob_SK.tolist(), layout.length_S.tolist(), strict=True)
            said: list[Any] = [tuple(row[:length]) for row, length in rows_S]
        else:
            said = logprob_SK.sum(1).tolist()
        sides = (said[k : k + len(part)] for k in range(0, len(said), len(part)))
        found += [Referenced(row, logprobs) for row, logprobs in zip(part, zip(*sides, strict=True), strict=True)]
    return found


def collate_referenced(rows: Sequence[Referenced], collate: Collate, reference: Reference) -> dict[str, Any]:
    """The batch of the rows, and ``Reference`` of it, in the order of its sequences: first all first sides."""
    batch = collate([row.row for row in rows])
    said = [x for side in zip(*(row.logprobs for row in rows), strict=True) for x in side]
    if reference == "token log-probabilities":
        return {**batch, "ref_logprob_SK": batch["layout"].stream(said)}
    return {**batch, "ref_logprob_S": torch.tensor(said)}
