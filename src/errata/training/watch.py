"""What is watched during training: the lines of metrics.jsonl, and what follows from them.

A line is a step (``step``, ``loss``, ``count``, …) or an evaluation (``step`` and ``eval_…``). When to stop, which step
is the best and what to warn of are functions of the lines alone, so that a run that was killed decides as one that was
not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from errata.runs.metrics import Line

__all__ = ["KEPT_FALL", "best_step", "evaluations", "kept_fall", "stop_reason", "warnings_of"]

KEPT_FALL = 0.1
"""Nats a token by which held-out kept tokens may become less likely without a word: a perplexity 10.5 % higher."""


def evaluations(lines: Sequence[Line]) -> list[Line]:
    """The evaluations among the lines, that of the start first.

    >>> evaluations([{"step": 0, "eval_loss": 2.0}, {"step": 1, "loss": 2.5}])
    [{'step': 0, 'eval_loss': 2.0}]
    """
    return [line for line in lines if "eval_loss" in line]


def best_step(lines: Sequence[Line]) -> int | None:
    """The best step on held-out rows, the first of equals; None before the first evaluation after the start.

    The best is the one with the lowest loss; where accuracy is measured, the most accurate, and of equals the lowest.

    >>> best_step([{"step": 0, "eval_loss": 1.0}, {"step": 4, "eval_loss": 3.0}, {"step": 8, "eval_loss": 2.0}])
    8
    """
    later = [line for line in evaluations(lines) if line["step"]]
    return int(min(later, key=lambda line: (-line.get("eval_accuracy", 0.0), _loss(line)))["step"]) if later else None


def _loss(line: Line) -> float:
    return math.inf if math.isnan(line["eval_loss"]) else line["eval_loss"]


def kept_fall(lines: Sequence[Line], line: Line) -> float:
    """By how many nats a token the kept tokens of the held-out rows have become less likely since the start.

    >>> lines = [{"step": 0, "eval_loss": 2.0, "eval_logprob_kept": -1.0}]
    >>> kept_fall(lines, {"step": 4, "eval_loss": 2.0, "eval_logprob_kept": -1.25})
    0.25
    """
    start = evaluations(lines)[0]
    return start.get("eval_logprob_kept", 0.0) - line.get("eval_logprob_kept", 0.0)


def stop_reason(lines: Sequence[Line], *, patience: int, max_fall: float | None) -> str | None:
    """Why training should end after the last evaluation, in words; None if it should go on.

    Args:
        lines: all so far.
        patience: evaluations in a row without a new best one after which to stop; 0 never stops.
        max_fall: nats a token by which kept tokens may become less likely; None: any.

    >>> lines = [{"step": step, "eval_loss": loss} for step, loss in [(0, 3.0), (2, 2.0), (4, 2.5), (6, 2.25)]]
    >>> stop_reason(lines, patience=2, max_fall=None)
    'stopped at step 6: the held-out loss was lowest at step 2, 2 evaluations before'
    >>> stop_reason(lines, patience=3, max_fall=None)
    """
    seen = evaluations(lines)
    if not seen:
        return None
    step = int(seen[-1]["step"])
    if max_fall is not None and not (fall := kept_fall(lines, seen[-1])) <= max_fall:
        return (
            f"stopped at step {step}: kept tokens of the held-out rows are {fall:.3g} nats a token less likely than "
            f"at the start, and {max_fall:g} were allowed"
        )
    best = best_step(lines)
    since = sum(line["step"] > (step if best is None else best) for line in seen)
    if patience and since >= patience:
        what = "accuracy was highest" if "eval_accuracy" in seen[-1] else "loss was lowest"
        return f"stopped at step {step}: the held-out {what} at step {best}, {since} evaluations before"
    return None


def warnings_of(lines: Sequence[Line]) -> list[str]:
    """What a reader of the lines should be told, one sentence each; a run that is fine has none.

    >>> warnings_of([{"step": 1, "loss": 2.0, "bad_through_gate": 0.0}])[0][:56]
    'no bad token came through the gate in any step: the nega'
    """
    told = []
    seen = evaluations(lines)
    fallen = next((line for line in seen if not kept_fall(lines, line) <= KEPT_FALL), None)
    if fallen is not None:
        fall = kept_fall(lines, fallen)
        told.append(
            f"at step {int(fallen['step'])} kept tokens of the held-out rows are {fall:.3g} nats a token less likely "
            f"than at the start (perplexity × {math.exp(fall):.3g}): the model loses what people left alone; lower the "
            "learning rate or the weight of bad tokens, or raise that of kept ones"
        )
    best = best_step(lines)
    if best is not None and not min(_loss(line) for line in seen if line["step"]) < _loss(seen[0]):
        told.append("the held-out loss was never lower than at the start")
    shares = [line["bad_through_gate"] for line in lines if "bad_through_gate" in line]
    if shares and not any(shares):
        told.append(
            "no bad token came through the gate in any step: the negative term never acted, and this was weighted "
            "imitation; raise the gate"
        )
    return told
