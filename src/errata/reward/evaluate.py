"""Is the reward model right? Whole responses: which of two is better. Tokens: are the bad ones the low ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from errata.labels import changed
from errata.reward.score import RewardFunction, score_texts
from errata.types import Encoded, Label, TokenLabels

__all__ = ["Localisation", "auc", "best_of_n", "localisation", "pair_accuracy", "token_means"]


def pair_accuracy(better: Sequence[float], worse: Sequence[float]) -> float:
    """Share of pairs whose better side has the higher reward; a tie counts one half.

    Raises:
        ValueError: there is no pair.
    """
    if not len(better):
        raise ValueError("no pair to measure accuracy on")
    a, b = np.asarray(better, float), np.asarray(worse, float)
    return float(np.mean((a > b) + 0.5 * (a == b)))


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """P(a random positive scores above a random negative), ties one half; NaN if a side is empty (Mann-Whitney)."""
    n, m = len(positive), len(negative)
    if not n or not m:
        return float("nan")
    from scipy.stats import rankdata  # takes a second to import

    ranks = rankdata(np.concatenate([np.asarray(positive, float), np.asarray(negative, float)]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


class Localisation(NamedTuple):
    """How well token rewards find the tokens that an editor would change; 0.5 is chance."""

    bad_kept: float
    """AUC: kept tokens of the original above its deleted and substituted ones."""
    bad_good: float
    """AUC: inserted and substitute tokens of the edited text above the bad ones of the original."""


def localisation(reward: RewardFunction, labels: Sequence[TokenLabels]) -> Localisation:
    """AUC of bad against kept and against good tokens, over all tokens of all rows but the IGNORED ones."""
    original = np.concatenate(reward([row.original.encoded for row in labels]))
    edited = np.concatenate(reward([row.edited.encoded for row in labels]))
    bad, good = (
        np.concatenate([changed(side.labels) for side in sides])
        for sides in ([row.original for row in labels], [row.edited for row in labels])
    )
    kept = np.concatenate([np.asarray(row.original.labels) == Label.KEPT for row in labels])
    return Localisation(auc(original[kept], original[bad]), auc(edited[good], original[bad]))


def token_means(reward: RewardFunction, rows: Sequence[Encoded]) -> list[float]:
    """(1/T) Σ_t r_t for each row: R(x, y) of Xu et al., Eq 2."""
    return [float(np.mean(stream)) if stream else 0.0 for stream in reward(rows)]


def best_of_n(reward: RewardFunction, groups: Sequence[Sequence[Encoded]]) -> list[int]:
    """For each prompt the index of the sample with the highest summed reward; the first of equals."""
    flat = score_texts(reward, [row for group in groups for row in group])
    starts = np.cumsum([0, *map(len, groups)])
    return [int(np.argmax(flat[a:b])) for a, b in pairwise(starts.tolist())]
