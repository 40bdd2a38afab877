"""Checks of a loss, a scorer or a saved head that is handed in as a function: what does it really do?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from errata.doctor.findings import Finding, Severity

__all__ = ["check_end_read", "check_loss", "check_padding", "check_reward_reload"]

_CLOSE = 1e-4


def check_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> list[Finding]:
    """Does a weighted loss honour every weight, small ones and those below zero?

    A sum of weight times loss over a count has, for token t, the gradient w_t / N. So where a weight is not 0 the
    gradient must not be either, must have its sign, and must double where all weights do.

    Args:
        loss: from the loss of each token (nats, before its weight) and the weights, both (B, T), to one number.

    Raises:
        ValueError: the loss gives something else, NaN or infinity.

    >>> [found.name for found in check_loss(lambda nll, weight: (nll * weight.clamp(min=0)).sum() / 8)]
    ['weights_masked']
    >>> [found.name for found in check_loss(lambda nll, weight: (nll * weight).sum() / weight.sum())]
    ['divided_by_weights']
    >>> check_loss(lambda nll, weight: (nll * weight).sum() / 8)
    []
    """
    weight_BT = torch.tensor([[1.0, 0.5, 0.0, -0.2], [1e-7, 0.0, -0.5, 0.3]], dtype=torch.float64)
    once, twice = _gradient(loss, weight_BT), _gradient(loss, 2 * weight_BT)
    found = []
    lost = (weight_BT != 0) & (once == 0)
    if lost.any():
        listed = ", ".join(f"{weight:g}" for weight in weight_BT[lost].tolist())
        found.append(
            _error("weights_masked", f"the loss has no gradient where the weight is {listed}", "mask by weight != 0")
        )
    if ((once != 0) & (once.sign() != weight_BT.sign())).any():
        found.append(
            _error("sign_lost", "the loss has a gradient of another sign than its weight", "multiply by signed weights")
        )
    elif not torch.allclose(twice, 2 * once, rtol=_CLOSE):
        found.append(
            _error(
                "divided_by_weights",
                "the loss stays the same where all weights double: it divides by their sum, which is near 0 or below "
                "it where weights have both signs",
                "divide by the number of tokens",
            )
        )
    elif not torch.allclose(once / once[0, 0], weight_BT / weight_BT[0, 0], rtol=_CLOSE, atol=0) and not lost.any():
        found.append(
            _error("weights_changed", "the gradients are not in the ratio of the weights", "multiply by the weights")
        )
    return found


def _gradient(loss: Callable[[Tensor, Tensor], Tensor], weight_BT: Tensor) -> Tensor:
    nll_BT = torch.tensor([[0.3, 0.1, 0.2, 0.4], [0.1, 0.5, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    found = loss(nll_BT, weight_BT)
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.requires_grad:
        given = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(f"the loss gives {given}; give one number that has a gradient, made of the two tensors")
    (gradient,) = torch.autograd.grad(_finite(found, "the loss"), nll_BT)
    return gradient


def _numbers(found: Any, what: str, rows: int, *, one: bool = False) -> Tensor:
    """One number a row, or by option one for all of them, as a tensor.

    Raises:
        ValueError: it is anything else.
    """
    try:
        numbers = torch.as_tensor(found).double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} gives {found!r}, which is no list of numbers; give one number a row") from error
    if (numbers.numel() == rows and numbers.dim() <= 2) or (one and numbers.numel() == 1):
        return _finite(numbers.flatten() if numbers.dim() else numbers, what)
    raise ValueError(f"{what} gives numbers of shape {tuple(numbers.shape)} for {rows} rows; give one number a row")


def _finite(numbers: Tensor, what: str) -> Tensor:
    values = numbers.detach().flatten().tolist()
    wrong = next((number for number, value in enumerate(values) if not isfinite(value)), None)
    if wrong is not None:
        where = f" for row {wrong + 1}" if len(values) > 1 else ""
        raise ValueError(f"{what} gives {values[wrong]}{where}; look for NaN in the weights, and for a division by 0")
    return numbers


def check_padding(measure: Callable[[Tensor, Tensor], Tensor], rows: Sequence[Sequence[int]]) -> list[Finding]:
    """Does padding matter to a loss or a score? Measured with little padding, with more, and with other ids in it.

    Args:
        measure: from ids and attention mask, both (B, T), to one number or one a row.
        rows: ids, of different lengths.

    Raises:
        ValueError: the measure gives something else, NaN or infinity.
    """
    known = sorted({token for row in rows for token in row})  # ids that the model is sure to have
    fill, other = known[0], known[-1]
    with torch.no_grad():
        plain, wider, refilled = (
            _numbers(measure(*_rectangle(rows, extra, each)), "the measure", len(rows), one=True)
            for extra, each in ((0, fill), (5, fill), (5, other))
        )
    if all(torch.allclose(plain, again, rtol=_CLOSE, atol=1e-6) for again in (wider, refilled)):
        return []
    values = ", ".join(f"{float(value.mean()):.4g}" for value in (plain, wider, refilled))
    return [
        _error(
            "padding_counts",
            f"the same rows give {values} with little padding, with more, and with other ids in it",
            "average over the attention mask, read at the last token by length",
        )
    ]


def check_end_read(score: Callable[[Tensor, Tensor], Tensor], rows: Sequence[Sequence[int]]) -> list[Finding]:
    """Does the score of a whole response read its last token?

    With pad == end of sequence a stock sequence classifier looks for the last id that is not the pad id and pools the
    token *before* the end: the score is then the same without the end.

    Args:
        score: from ids and attention mask, both (B, T), to one number a row. The head must not be all zeros.
        rows: ids that end with the end of sequence.

    Raises:
        ValueError: the score is something else, NaN or infinity.
    """
    end = rows[0][-1]
    with torch.no_grad():
        whole = _numbers(score(*_rectangle(rows, 1, end)), "the score", len(rows))
        without = _numbers(score(*_rectangle([row[:-1] for row in rows], 2, end)), "the score", len(rows))
    if whole.numel() > 1 and bool((whole == whole[0]).all()):
        return [
            Finding(
                severity=Severity.WARNING,
                name="scores_all_the_same",
                what="every row has the same score",
                remedy="train the head first, or hand in other rows",
            )
        ]
    if not torch.allclose(whole, without, rtol=_CLOSE, atol=1e-6):
        return []
    return [
        _error(
            "end_not_read",
            "the scores are the same without the end of sequence: the token before it is read",
            "give the model a pad token other than its end, or read by length",
        )
    ]


def check_reward_reload(
    before: Callable[[Sequence[Sequence[int]]], Sequence[float]],
    after: Callable[[Sequence[Sequence[int]]], Sequence[float]],
    rows: Sequence[Sequence[int]],
    *,
    missing_keys: Sequence[str] = (),
) -> list[Finding]:
    """Is a reward model the same after saving and loading? An adapter (LoRA) saved without its head gets a fresh one.

    Args:
        before: ids of several rows to one score each, of the model that was trained.
        after: the same of the model that was loaded from disk.
        rows: ids to score.
        missing_keys: what loading said was not in the file (``output_loading_info=True``).

    Raises:
        ValueError: a model gives something else than one finite score a row.

    >>> def scores(by):
    ...     return lambda rows: [by * len(row) for row in rows]
    >>> [found.name for found in check_reward_reload(scores(2.0), scores(0.1), [[1, 2], [1, 2, 3]])]
    ['head_lost']
    """
    scores = _numbers(before(rows), "the model before it was saved", len(rows))
    again = _numbers(after(rows), "the model that was loaded", len(rows))
    found = []
    off = float((scores - again).abs().max())
    if off > 1e-3 * max(1.0, float(scores.abs().max())) or missing_keys:
        named = f"; the file lacks {', '.join(missing_keys)}" if missing_keys else ""
        found.append(
            _error(
                "head_lost",
                f"scores differ by up to {off:.3g} after saving and loading{named}",
                "save the head too (peft: modules_to_save=['score'])",
            )
        )
    elif float(scores.abs().max()) == 0:
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="scores_all_the_same",
                what="every row has the score 0, before and after",
                remedy="train the head before this check",
            )
        )
    return found


def _rectangle(rows: Sequence[Sequence[int]], extra: int, fill: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows)) + extra
    ids = torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def _error(name: str, what: str, remedy: str) -> Finding:
    return Finding(severity=Severity.ERROR, name=name, what=what, remedy=remedy)
