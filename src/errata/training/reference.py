"""What the model that training starts from says of the rows, computed once before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from accelerate.state import PartialState
from torch import nn

from errata.models import device, laid_out_logprobs
from errata.runs import new_file
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


def with_reference(
    model: nn.Module,
    rows: Sequence[Any],
    collate: Collate,
    config: OfflineConfig,
    reference: Reference,
    path: Path | None = None,
) -> list[Referenced]:
    """The rows with what ``model`` says of them before it is trained.

    With ``path`` it is kept in that file, and read from there when the run is resumed.
    """
    if path is not None and (kept := _read(path, len(rows), reference)) is not None:
        return [Referenced(row, logprobs) for row, logprobs in zip(rows, kept, strict=True)]
    found = _computed(model, rows, collate, config, reference)
    if path is not None and PartialState().is_main_process:
        texts = [np.atleast_1d(np.array(said)) for row in found for said in row.logprobs]
        with new_file(path) as partial, partial.open("wb") as file:
            np.savez(file, values=np.concatenate([*texts, np.zeros(0)]), lengths=[len(each) for each in texts])
    return found


def _read(path: Path, rows: int, reference: Reference) -> list[tuple[Any, ...]] | None:
    """What was kept, for each row; None where nothing is that can be read."""
    try:
        with np.load(path) as file:
            texts = np.split(file["values"], np.cumsum(file["lengths"])[:-1])
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
    if not rows or len(texts) % rows:
        return None
    per_token = reference == "token log-probabilities"
    said = [tuple(each.tolist()) if per_token else float(each[0]) for each in texts]
    sides = len(texts) // rows
    return [tuple(said[k : k + sides]) for k in range(0, len(said), sides)]


@torch.no_grad()
def _computed(
    model: nn.Module, rows: Sequence[Any], collate: Collate, config: OfflineConfig, reference: Reference
) -> list[Referenced]:
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
