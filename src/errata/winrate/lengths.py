"""Does the judge like the answer, or its length? A rate at equal length, and a judge that only counts words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from errata.winrate.intervals import Interval, rate_interval

__all__ = ["LONGER", "length_controlled", "longer_agreement", "longer_wins", "relative_length"]

PRIOR = 10.0
"""Standard deviation of the normal prior of θ and φ: too wide to matter, but where one side wins everything."""
LONGER = 1.25
"""From this many times the other side's words on, an answer counts as longer."""


def length_controlled(scores: ArrayLike, differences: ArrayLike) -> Interval:
    """The win rate at equal length, with its 95 % interval: ours, not AlpacaEval's length-controlled win rate.

    Verdict yᵢ ∈ [0, 1] and difference in length Δᵢ are fitted by P(win) = expit(θ + φ · tanh(Δᵢ / σ)), with σ the
    standard deviation of Δ, by maximum (quasi-)likelihood with the prior N(0, 10²) on θ and φ. The rate is expit(θ):
    what is left at Δ = 0. Its interval is expit(θ ± 1.96 · s), s from the sandwich covariance
    H⁻¹ (Σ gᵢ gᵢᵀ + I / 10²) H⁻¹, which holds for verdicts of ½, too. The prior stands in both parts: where the judge
    goes by length alone, the verdicts say nothing of equal length, and the interval shows it. AlpacaEval 2 (Dubois et
    al. 2024) has a term for how hard each prompt is besides, and cross-validates its penalty; the two rates are not to
    be compared.

    Args:
        scores: The verdicts, shape (N,), N ≥ 2, each in [0, 1]; 1 where the candidate wins.
        differences: The candidate's length minus the baseline's, in words, shape (N,).

    Raises:
        ValueError: The two have not one shape, or are fewer than two.
    """
    from scipy.optimize import minimize  # slow to import

    y, delta = np.asarray(scores, np.float64), np.asarray(differences, np.float64)
    if y.shape != delta.shape or y.ndim != 1 or len(y) < 2:
        raise ValueError(f"shapes {y.shape} and {delta.shape}: give one difference in length for each of two verdicts")
    spread = float(delta.std())
    x = np.stack([np.ones_like(y), np.tanh(delta / spread) if spread > 0 else np.zeros_like(y)], axis=1)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = x @ weights
        # −log-likelihood of a Bernoulli with the share y: log(1 + e^z) − y z.
        value = float(np.sum(np.logaddexp(0, logits) - y * logits) + weights @ weights / (2 * PRIOR**2))
        return value, x.T @ (expit(logits) - y) + weights / PRIOR**2

    theta = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9 * len(y)}).x
    rate = expit(x @ theta)
    prior = np.eye(2) / PRIOR**2
    hessian_inverse = np.linalg.inv((x.T * (rate * (1 - rate))) @ x + prior)
    gradients = x * (rate - y)[:, None]
    error = float(np.sqrt((hessian_inverse @ (gradients.T @ gradients + prior) @ hessian_inverse)[0, 0]))
    mean, low, high = (float(expit(theta[0] + reach * error)) for reach in (0.0, -1.96, 1.96))
    return Interval(mean, low, high)


def longer_wins(differences: Sequence[float]) -> float:
    """The win rate that a judge would give who always picks the longer answer; equal lengths are ties."""
    delta = np.asarray(differences, np.float64)
    return float(np.mean((np.sign(delta) + 1) / 2))


def longer_agreement(scores: Sequence[float], candidate: Sequence[int], baseline: Sequence[int]) -> Interval | None:
    """The share of decided verdicts that went to the longer answer, where one is longer by a factor of 1.25.

    With its 95 % interval, which holds for few and for unanimous verdicts, too (``rate_interval``). None where none was
    decided between two such lengths: a word more or less leads nobody astray.

    >>> longer_agreement([1, 1, 1, 0, 0.5], [30, 9, 21, 10, 90], [20, 9, 20, 20, 10]).mean
    1.0

    Args:
        scores: The verdicts, above ½ where the candidate wins.
        candidate: The words of its answers.
        baseline: The words of the other's.
    """
    lengths = map(relative_length, candidate, baseline)
    votes = [
        (score > 0.5) == (length == "longer")
        for score, length in zip(scores, lengths, strict=True)
        if score != 0.5 and length != "alike"
    ]
    if not votes:
        return None
    return rate_interval(votes)


def relative_length(candidate: int, baseline: int) -> str:
    """``shorter``, ``alike`` or ``longer``: the candidate's words against the baseline's, by a factor of 1.25.

    >>> [relative_length(words, 100) for words in (80, 81, 124, 125)]
    ['shorter', 'alike', 'alike', 'longer']
    """
    if candidate == baseline:
        return "alike"
    if candidate >= LONGER * baseline:
        return "longer"
    return "shorter" if baseline >= LONGER * candidate else "alike"
