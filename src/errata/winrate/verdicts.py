"""Verdicts from scores: who is better on each prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from errata.types import Verdict

__all__ = ["verdicts_from_scores", "win_rate"]


def verdicts_from_scores(candidate: Mapping[str, float], baseline: Mapping[str, float]) -> list[Verdict]:
    """One verdict a prompt: 1 where the candidate scores higher, 0 where the baseline does, ½ where they are equal.

    Args:
        candidate: Prompt id to score, higher is better; the verdicts come in its order.
        baseline: The same prompts.

    Raises:
        ValueError: A prompt is missing on one side, or a score is NaN (says which).
    """
    for side, missing in (
        ("baseline", candidate.keys() - baseline.keys()),
        ("candidate", baseline.keys() - candidate.keys()),
    ):
        if missing:
            some = ", ".join(map(repr, sorted(missing)[:5]))
            raise ValueError(
                f"the {side} has no score for {len(missing)} prompts ({some}): score both on the same ones"
            )
    verdicts = []
    for id, ours in candidate.items():
        theirs = baseline[id]
        if math.isnan(ours) or math.isnan(theirs):
            raise ValueError(f"prompt {id!r} has the scores {ours} and {theirs}: NaN is neither better nor worse")
        verdicts.append(Verdict(id=id, score=1.0 if ours > theirs else 0.0 if ours < theirs else 0.5))
    return verdicts


def win_rate(verdicts: Sequence[Verdict]) -> float:
    """The mean verdict, in [0, 1]: the share of prompts won, a tie counting half.

    Raises:
        ValueError: There is no verdict.
    """
    if not verdicts:
        raise ValueError("there is no verdict to take the mean of: judge at least one prompt")
    return sum(verdict.score for verdict in verdicts) / len(verdicts)
