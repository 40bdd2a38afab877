"""What all training on files has in common: its settings, and what a loss says of a micro-batch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Annotated, Literal, NamedTuple

from torch import Tensor

from errata.models.settings import ModelConfig, Quantize
from errata.ranges import Range, Seed, Size

__all__ = ["OfflineConfig", "StepLoss", "Tracker", "check_tracker"]


Tracker = Literal["none", "tensorboard", "wandb", "trackio", "mlflow"]


class StepLoss(NamedTuple):
    """What a loss says of a micro-batch; all of it is summed over the micro-batches and processes of a step."""

    total: Tensor
    """The unnormalised loss, a scalar."""
    count: Tensor  # type: ignore[assignment]  # which tuples also have as a method
    """The number of items that it sums over."""
    shares: Mapping[str, tuple[Tensor, Tensor]] = {}
    """Numerators and denominators of shares to be shown beside the loss, by name."""


@dataclass(frozen=True, kw_only=True)
class OfflineConfig(ModelConfig):
    """What all training on files has in common."""

    epochs: Annotated[float, Range(above=0, high=1e6)] = 3.0
    """Passes over the rows."""
    batch_size: Size = 64
    """Rows in one optimizer step, over all processes."""
    micro_batch_size: Size = 64
    """Rows in one forward pass on one process; lower it when memory runs out, the result stays the same."""
    micro_batch_tokens: Annotated[int, Range(low=0)] | None = None
    """A micro-batch of more tokens is computed in parts of about so many, with the same result; what memory grows with
    is tokens. If not given, what takes about 1 GB on a CPU, which gains nothing by more; 0, on a GPU, and with several
    processes: no parts."""
    schedule: str = "constant"
    """Learning-rate schedule, by its Hugging Face name: constant, linear, cosine, …"""
    warmup_steps: Annotated[int, Range(low=0)] = 0
    """Steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Range(low=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, Range(low=0, high=inf)] = 1.0
    """Gradients are clipped to this norm after normalisation; 0 clips nothing."""
    layout: Literal["auto", "plain"] = "auto"
    """auto: compute what the two sides of a pair share once, and nothing that no loss reads, where the model gives the
    same numbers so (it is tried out; the card says). plain: each side a row of its own."""
    lora_keep_gb: Annotated[float, Range(low=0)] = 8.0
    """With --lora-layers on a CPU: what the lower layers give is kept on disk beside --out, at most so many GB, as long
    as it trains; 0 computes it anew in each pass, with the same result."""
    quantize: Quantize = "none"
    """Hold the frozen weights in 4 bits (QLoRA); needs --lora-rank, and bitsandbytes."""
    save_every: Size = 200
    """Steps between checkpoints; a run that was killed goes on from the last complete one."""
    evaluate_every: Annotated[int, Range(low=0)] = 0
    """Steps between evaluations on held-out rows, which are also seen at the start and at the end; 0: only then."""
    patience: Annotated[int, Range(low=0)] = 0
    """Stop after so many evaluations in a row without a new lowest held-out loss (of reward models: highest held-out
    accuracy), and save the model that had the best; 0 never stops, and saves the last."""
    stop_when_kept_falls: Annotated[float, Range(low=0)] | None = None
    """Stop when kept tokens of held-out rows are less likely than at the start by more than this, nats a token."""
    tracker: Tracker = "none"
    """Where metrics are also sent; metrics.jsonl is written anyway."""
    seed: Seed = 0
    """Seeds the order of the rows and new heads."""


def check_tracker(tracker: Tracker) -> None:
    """Raise ValueError where metrics are to be sent to what is not installed."""
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise ValueError(f"--tracker {tracker} is not installed; pip install {tracker}, or leave it out")
