"""Confidence intervals: over the prompts of one run, and over the seeds of several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

__all__ = [
    "Interval",
    "bootstrap_interval",
    "detectable_difference",
    "paired_t_interval",
    "sign_flip_p_value",
    "t_interval",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the ends of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def _sample(values: ArrayLike, level: float) -> NDArray[np.float64]:
    """The values as a vector fit for an interval."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise ValueError(f"an interval needs two or more numbers in a row, not an array of shape {sample.shape}")
    bad = np.flatnonzero(~np.isfinite(sample))
    if len(bad):
        raise ValueError(f"value {bad[0]} is {sample[bad[0]]}: an interval needs finite numbers")
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}: give the share of intervals that shall hold the truth, such as 0.95")
    return sample


def bootstrap_interval(values: ArrayLike, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """The percentile bootstrap of a mean over prompts (Efron 1979): how it would vary with other prompts.

    It knows nothing of how another seed's training would come out; for that take ``t_interval`` over seeds. Values that
    are all equal give an interval of no width.

    Args:
        values: One a prompt, shape (N,), N ≥ 2: verdicts, defects, words, ….
        seed: Of the resampling; the same seed gives the same interval.
        resamples: How many samples of N, drawn with replacement.
        level: The share of such intervals that hold the true mean, about.

    Raises:
        ValueError: Fewer than two values, one not finite, or a level outside (0, 1).
    """
    sample = _sample(values, level)
    # A resample is how often each prompt was drawn. Equal values (verdicts know three) are drawn as one, which makes
    # the same distribution from a table of a few columns.
    distinct, counts = np.unique(sample, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(sample), counts / len(sample), size=resamples)
    low, high = np.quantile(drawn @ distinct / len(sample), [(1 - level) / 2, (1 + level) / 2])
    # The mean by the same arithmetic, or rounding could put it outside an interval of no width.
    return Interval(float(counts @ distinct / len(sample)), float(low), float(high))


def t_interval(per_seed_values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's interval of a mean over seeds: x̄ ± t(n - 1) s / √n, s with the divisor n - 1.

    It is wide for few seeds (t = 12.7 for two, 4.3 for three), and is not cut to the range of the values: that of a
    win rate may leave [0, 1].

    Args:
        per_seed_values: One number a seed, shape (n,), n ≥ 2.
        level: The share of such intervals that hold the true mean, if the values are normal.

    Raises:
        ValueError: Fewer than two values, one not finite, or a level outside (0, 1).
    """
    sample = _sample(per_seed_values, level)
    mean, count = float(sample.mean()), len(sample)
    reach = float(stdtrit(count - 1, (1 + level) / 2)) * float(sample.std(ddof=1)) / count**0.5
    return Interval(mean, mean - reach, mean + reach)


def paired_t_interval(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's interval of the mean difference ``a - b`` over seeds, each seed being its own comparison.

    Args:
        a: One number a seed, shape (n,), n ≥ 2.
        b: The same seeds in the same order.
        level: As in ``t_interval``.

    Raises:
        ValueError: The two have not one shape, and as in ``t_interval``.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"shapes {first.shape} and {second.shape} do not pair: give both arms on the same seeds")
    return t_interval(first - second, level=level)


def sign_flip_p_value(differences: ArrayLike, *, seed: int, flips: int = 20_000) -> float:
    """The two-sided p-value of a mean difference by flipping signs (Fisher's randomisation test), paired by prompt.

    If neither arm is better, each difference might as well have had the other sign. With S the sum of the differences
    and S*ₖ that of the k-th random choice of signs, p = (1 + #{k: |S*ₖ| ≥ |S|}) / (1 + flips), which is never 0.

    Args:
        differences: One a prompt, shape (N,), N ≥ 2: first arm minus second arm.
        seed: Of the flipping.
        flips: How many choices of signs; p is no finer than 1 / flips.

    Raises:
        ValueError: Fewer than two differences, or one that is not finite.
    """
    sample = _sample(differences, 0.95)
    # All differences of one size are flipped by one number: how many of them come out positive.
    sizes, counts = np.unique(np.abs(sample), return_counts=True)
    positive = np.random.default_rng(seed).binomial(counts, 0.5, size=(flips, len(counts)))
    sums = np.abs((2 * positive - counts) @ sizes)
    # Sums of floats that are equal on paper may differ by rounding.
    extreme = np.count_nonzero(sums >= abs(float(sample.sum())) - 1e-9 * float(np.abs(sample).sum()))
    return float((1 + extreme) / (1 + flips))


def detectable_difference(values: ArrayLike) -> float:
    """The smallest true mean that a 95 % interval would tell from 0 in 80 of 100 trials: (1.96 + 0.84) s / √n.

    Args:
        values: One a prompt, shape (N,), N ≥ 2; for a win rate the verdicts, for two arms their paired differences.

    Raises:
        ValueError: Fewer than two values, or one that is not finite.
    """
    sample = _sample(values, 0.95)
    return (1.96 + 0.84) * float(sample.std(ddof=1)) / float(len(sample) ** 0.5)
