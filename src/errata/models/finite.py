"""Numbers that are none, found where numbers are read anyway, and said with their likely cause.

A NaN spreads: after one step with it all weights are NaN, and what is saved is no model. So training stops at the step
that shows it, before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from errata.types import Encoded

__all__ = ["NotFinite", "bad_weight", "check_finite", "check_ids", "check_scores", "norm_of", "not_finite"]


class NotFinite(ValueError):  # noqa: N818
    """What a model computed is no number."""


def not_finite(numbers: Mapping[str, float]) -> str:
    """The numbers that are NaN or infinite, by name; empty if all are well.

    >>> not_finite({"loss": float("nan"), "count": 3.0, "grad_norm": float("inf")})
    'loss nan, grad_norm inf'
    """
    return ", ".join(f"{name} {value}" for name, value in numbers.items() if not isfinite(value))


def check_finite(numbers: Mapping[str, float], step: int, model: nn.Module, *, remedy: str, trained: bool) -> None:
    """Insist that what a step computed are numbers.

    Args:
        numbers: of the step, by name.
        step: its number.
        model: that computed them.
        remedy: what to do if it was learned wrongly, such as to lower a flag.
        trained: whether a step was made before; else the cause is the start or the data.

    Raises:
        ValueError: one is not finite; it names the step, the number and the likely cause.
    """
    bad = not_finite(numbers)
    if not bad:
        return
    if trained:
        cause = remedy
    elif name := bad_weight(model):
        cause = f"the start model's weight {name} holds NaN or infinity already; take another copy of the model"
    else:
        cause = (
            "nothing was learned before, so it is the data or the start: look for a weight or a reward that is far "
            f"above the others, try a model that fits its number format, or {remedy}"
        )
    raise ValueError(f"step {step}: no finite number any more ({bad}); {cause}")


def norm_of(model: nn.Module) -> float:
    """The norm of the weights that learn; infinite or NaN where one of them is lost."""
    weights = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
    # The squares of what is far from lost are too large for half precision.
    weights = [weight.float() if weight.dtype == torch.float16 else weight for weight in weights]
    norm = torch.nn.utils.get_total_norm(weights)
    whole: Tensor = getattr(norm, "full_tensor", lambda: norm)()  # of all shares, if each process has one
    return float(whole)


def bad_weight(model: nn.Module) -> str | None:
    """The name of the first weight that holds NaN or infinity."""
    named = model.named_parameters()
    return next((name for name, each in named if each.is_floating_point() and not bool(each.isfinite().all())), None)


def check_scores(found: Iterable[Iterable[float]], model: nn.Module, what: str) -> None:
    """Insist that what a model says of rows are numbers.

    Raises:
        NotFinite: it names the first row, counted from 1, and a weight if one is NaN.
    """
    for number, values in enumerate(found, start=1):
        if not all(map(isfinite, values)):
            name = bad_weight(model)
            cause = f": its weight {name} holds NaN or infinity" if name else ", though all its weights are numbers"
            raise NotFinite(
                f"the model gives no finite {what} for row {number}{cause}; take another copy, or train it again"
            )


def check_ids(model: Any, rows: Iterable[tuple[str, Encoded]]) -> None:
    """Insist that a model knows every id of the rows, which come with their names.

    Raises:
        ValueError: an id is below 0, or not below the size of its vocabulary.
    """
    size = model.get_input_embeddings().weight.shape[0]
    for name, row in rows:
        wrong = next(
            (token for token in (max(row.ids, default=0), min(row.ids, default=0)) if not 0 <= token < size), None
        )
        if wrong is not None:
            raise ValueError(
                f"row {name!r} holds the id {wrong}, and the model has embeddings for {size} ids; give the "
                "tokenizer that belongs to the model, and sampled ids that are its own"
            )
