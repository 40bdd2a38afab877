"""What a model does on rows that it does not learn from: means over micro-batches, and who looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.operations import send_to_device
from torch import Tensor

from errata.models.load import device
from errata.training.config import OfflineConfig, StepLoss

__all__ = ["NOBODY", "Share", "Watch", "evaluation_of", "loss_shares"]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who looks on while a model trains; nothing is learned from what they see."""

    figures: Callable[[Any], Mapping[str, float]] | None = None
    """The model to figures by name, at every evaluation. The lowest ``loss`` among them chooses the checkpoint, where
    ``patience`` asks for one; it goes before the loss on ``heldout`` rows."""
    identity: Any = None
    """What tells ``figures`` from others: they choose what is saved, so another identity is another run."""
    step: Callable[[int, int], None] | None = None
    """Is told after each step which one it was, and of how many."""

    def __post_init__(self) -> None:
        """Raise ValueError where figures could not be told from others."""
        if self.figures is not None and self.identity is None:
            raise ValueError("figures that choose a checkpoint need an identity; give what they are computed from")

    def beside(self, heldout: Callable[[Any], Mapping[str, float]] | None) -> Callable[..., Mapping[str, float]] | None:
        """What ``fit`` evaluates: the figures on held-out rows, where there are any, and these."""
        figures = self.figures
        if figures is None or heldout is None:
            return figures or heldout
        return lambda model: {**heldout(model), **figures(model)}


NOBODY = Watch()


Share = tuple[str, Tensor, Tensor]
"""Of a mean: its name, the sum, and the number of items."""


def loss_shares(
    model: Any,
    rows: Sequence[Any],
    collate: Callable[[list[Any]], Any],
    loss: Callable[[Any, Any], StepLoss],
    config: OfflineConfig,
) -> Iterator[Share]:
    """What a loss says of ``rows``, micro-batch by micro-batch: itself as ``loss``, and its shares."""
    for first in range(0, len(rows), config.micro_batch_size):
        inputs = collate(list(rows[first : first + config.micro_batch_size]))
        total, count, shares = StepLoss(*loss(model, send_to_device(inputs, device())))
        yield "loss", total, count
        for name, (over, under) in shares.items():
            yield name, over, under


def evaluation_of(
    shares: Callable[[Any], Iterable[Share]], config: OfflineConfig
) -> Callable[[Any], Mapping[str, float]]:
    """What ``fit`` calls: a model to Σ/N of all ``shares`` of a name; a name without items is left out."""

    def evaluate(model: Any) -> Mapping[str, float]:
        totals: dict[str, tuple[float, float]] = {}
        training = model.training
        model.eval()
        with torch.no_grad(), torch.autocast(device().type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            for name, over, under in shares(model):
                before = totals.get(name, (0.0, 0.0))
                totals[name] = before[0] + float(over), before[1] + float(under)
        model.train(training)
        return {name: over / under for name, (over, under) in totals.items() if under}

    return evaluate
