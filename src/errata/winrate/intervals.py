"""Confidence intervals: over the prompts of one run, and over the seeds of several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, stdtrit

__all__ = [
    "Interval",
    "bootstrap_interval",
    "check_sample",
    "detectable_rate",
    "paired_t_interval",
    "rate_difference_interval",
    "rate_interval",
    "sign_flip_p_value",
    "t_interval",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the ends of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def check_sample(values: ArrayLike, level: float, *, fewest: int = 2) -> NDArray[np.float64]:
    """The values as a vector fit for an interval, shape (N,).

    Raises:
        ValueError: Fewer than ``fewest`` values, one not finite, or a level outside (0, 1).
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < fewest:
        many = "two or more numbers" if fewest > 1 else "a number or more"
        raise ValueError(f"an interval needs {many} in a row, not an array of shape {sample.shape}")
    bad = np.flatnonzero(~np.isfinite(sample))
    if len(bad):
        raise ValueError(f"value {bad[0]} is {sample[bad[0]]}: an interval needs finite numbers")
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}: give the share of intervals that shall hold the truth, such as 0.95")
    return sample


def bootstrap_interval(values: ArrayLike, *, seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """The percentile bootstrap of a mean over prompts (Efron 1979): how it would vary with other prompts.

    It knows nothing of how another seed's training would come out; for that take ``t_interval`` over seeds. **It is too
    narrow for few or skewed values, and has no width for equal ones**: take ``rate_interval`` for rates and
    ``mean_interval`` for other numbers. It is here to compare with.

    Args:
        values: One a prompt, shape (N,), N ≥ 2: verdicts, defects, words, ….
        seed: Of the resampling; the same seed gives the same interval.
        resamples: How many samples of N, drawn with replacement.
        level: The share of such intervals that hold the true mean, about.

    Raises:
        ValueError: Fewer than two values, one not finite, or a level outside (0, 1).
    """
    sample = check_sample(values, level)
    # A resample is how often each prompt was drawn. Equal values (verdicts know three) are drawn as one, which makes
    # the same distribution from a table of a few columns.
    distinct, counts = np.unique(sample, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(sample), counts / len(sample), size=resamples)
    low, high = np.quantile(drawn @ distinct / len(sample), [(1 - level) / 2, (1 + level) / 2])
    # The mean by the same arithmetic, or rounding could put it outside an interval of no width.
    return Interval(float(counts @ distinct / len(sample)), float(low), float(high))


_PRIOR = 2.0
"""Verdicts that count besides, half of them wins and half losses, when it is asked how much verdicts vary."""


def rate_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """The interval of a rate from verdicts in [0, 1]: Clopper and Pearson's (1934), for ties and other fractions, too.

    With only 0 and 1 it is theirs, x successes of n, exact and never without width: [B⁻¹(α/2; x, n − x + 1),
    B⁻¹(1 − α/2; x + 1, n − x)], α = 1 − level. Ties vary less than wins and losses do, which is worth as much as more
    verdicts: n becomes n·m(1 − m)/s², and x the same share of it. Mean m and variance s² (divisor n + 2) are those of
    the verdicts with one more win and one more loss, so that verdicts that are all alike do not pass for certainty.
    Its coverage is at least ``level`` for n from 2 to 200, any rate and any share of ties (``benchmarks/coverage.py``,
    docs/winrate.md).

    Args:
        values: One a prompt, shape (N,), N ≥ 1, each in [0, 1].
        level: The share of such intervals that hold the true rate, or more.

    Raises:
        ValueError: No value, one that is outside [0, 1] or not finite, or a level outside (0, 1).

    >>> found = rate_interval([1.0] * 10)
    >>> found.mean, round(found.low, 3), found.high
    (1.0, 0.692, 1.0)
    """
    sample = check_sample(values, level, fewest=1)
    if len(bad := np.flatnonzero((sample < 0) | (sample > 1))):
        raise ValueError(f"value {bad[0]} is {sample[bad[0]]}: a rate is made of numbers from 0 to 1")
    count, total = len(sample), float(sample.sum())
    mean = (total + _PRIOR / 2) / (count + _PRIOR)
    variance = (float(sample @ sample) + _PRIOR / 2) / (count + _PRIOR) - mean**2
    worth = count * max(1.0, mean * (1 - mean) / variance)
    wins, tail = worth * total / count, (1 - level) / 2
    losses = worth - wins
    low = float(betaincinv(wins, losses + 1, tail)) if total > 0 else 0.0
    high = float(betaincinv(wins + 1, losses, 1 - tail)) if total < count else 1.0
    # Means of many equal fractions may miss the ends by rounding.
    return Interval(total / count, min(low, total / count), max(high, total / count))


def rate_difference_interval(differences: ArrayLike, *, level: float = 0.95) -> Interval:
    """The interval of the difference of two rates on the same prompts: ``rate_interval`` of (1 + d) / 2, spread to ±1.

    Args:
        differences: One a prompt, shape (N,), N ≥ 1, each in [−1, 1]: first arm minus second arm.
        level: As in ``rate_interval``.

    Raises:
        ValueError: As in ``rate_interval``.
    """
    found = rate_interval((1 + check_sample(differences, level, fewest=1)) / 2, level=level)
    return Interval(2 * found.mean - 1, 2 * found.low - 1, 2 * found.high - 1)


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
    sample = check_sample(per_seed_values, level)
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
        differences: One a prompt, shape (N,), N ≥ 1: first arm minus second arm.
        seed: Of the flipping.
        flips: How many choices of signs; p is no finer than 1 / flips.

    Raises:
        ValueError: No difference, or one that is not finite.
    """
    sample = check_sample(differences, 0.95, fewest=1)
    # All differences of one size are flipped by one number: how many of them come out positive.
    sizes, counts = np.unique(np.abs(sample), return_counts=True)
    positive = np.random.default_rng(seed).binomial(counts, 0.5, size=(flips, len(counts)))
    sums = np.abs((2 * positive - counts) @ sizes)
    # Sums of floats that are equal on paper may differ by rounding.
    extreme = np.count_nonzero(sums >= abs(float(sample.sum())) - 1e-9 * float(np.abs(sample).sum()))
    return float((1 + extreme) / (1 + flips))


def detectable_rate(values: ArrayLike, *, about: float = 0.5, span: float = 1.0) -> float | None:
    """The smallest distance from ``about`` that so many verdicts show in 80 of 100 trials: (1.96 + 0.84) σ / √N.

    σ² is the mean of (value − about)², what the verdicts vary by if neither side is better, where ``_PRIOR`` more
    values at the ends count as well. Unanimous verdicts are therefore no proof that everything would be shown.

    Args:
        values: One a prompt, shape (N,), N ≥ 1: the verdicts; for two arms their paired differences.
        about: The rate of no difference: ½ for verdicts, 0 for differences of two arms.
        span: How far apart the smallest and the largest possible value are: 1 for verdicts, 2 for differences.

    Returns:
        In the unit of the values; None where it is more than span / 2, so that even a unanimous verdict is no proof.

    Raises:
        ValueError: No value, or one that is not finite.
    """
    sample = check_sample(values, 0.95, fewest=1)
    squares = float(((sample - about) ** 2).sum()) + _PRIOR * (span / 2) ** 2
    found = (1.96 + 0.84) * float((squares / (len(sample) + _PRIOR)) ** 0.5) / float(len(sample) ** 0.5)
    return found if found <= span / 2 else None
