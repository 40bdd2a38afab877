"""Is a mean below 0, and by how much? An interval that keeps its word on few, skewed, tied and clustered differences.

The percentile bootstrap and Student's t do not: of 20 differences whose true mean is 0 and whose losses have a long
tail, they find a gain in 8 to 38 of 100 samples where 2.5 are allowed. Three things are done about it, all in closed
form:

- *One more row* counts that goes against: as far from 0 as the farthest one, or as far as is known to be at stake. What
  a sample has not shown is not ruled out, so that no interval has no width.
- *Hall's (1992) cubic correction* for the skewness, which is taken as ``SKEWNESS`` times the sample's: small samples
  show less of it than there is. Where less of it would be worse, the worst is taken.
- *Ties* (differences of 0) say nothing of the direction, and are not counted as rows that do.

How well it works, by simulation: ``benchmarks/learn_size.py`` and docs/learn.md.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from errata.winrate.intervals import Interval, check_sample

__all__ = ["FEWEST", "SKEWNESS", "by_user", "mean_interval", "smallest_shown", "upper_limit"]

FEWEST = 6
"""Fewer independent differences than this prove nothing, whatever they are: signs would agree by chance too often."""
SKEWNESS = 2.5
"""So many times the sample's skewness is allowed for."""

Floats = NDArray[np.float64]


def by_user(differences: ArrayLike, users: Sequence[Hashable]) -> Floats:
    """The mean difference of each user, who is then counted once, however many rows they sent.

    Args:
        differences: one a row, shape (N,).
        users: who sent each row; a row whose user is None stands for itself.

    Returns:
        Shape (U,), users in the order in which they first come.

    Raises:
        ValueError: not one user a row.

    >>> by_user([1.0, -3.0, 3.0, 5.0], ["a", "b", "a", None]).tolist()
    [2.0, -3.0, 5.0]
    """
    values = np.asarray(differences, np.float64)
    if len(users) != len(values):
        raise ValueError(f"{len(values)} differences and {len(users)} users: give one user a row, None where unknown")
    numbers: dict[Hashable, int] = {}
    of = [numbers.setdefault((user,) if user is not None else row, len(numbers)) for row, user in enumerate(users)]
    return np.bincount(of, values) / np.bincount(of)


def upper_limit(
    values: ArrayLike,
    *,
    about: float | None = 0.0,
    least: float = 0.0,
    stake: ArrayLike = 0.0,
    level: float = 0.95,
) -> NDArray[np.float64]:
    """The upper end of the interval of ``mean_interval``; below ``about`` the mean is told to be below it.

    With k values x that are not ``about``, their mean m and skewness g, and one more value at m + D, where
    D = max(max|x − about|, stake) + |m − about|: m₊ and s₊ are mean and standard deviation of the k + 1, and the end is
    m₊ − s₊·T. T solves h(T) = t / √(k + 1) with Student's t(k) at (1 − level)/2 and Hall's
    h(T) = T + γT²/3 + γ²T³/27 + γ/(6(k + 1)), γ the worst one from 0 to ``SKEWNESS``·g (from −4.5/T on, h is largest).
    Ties scale the end towards ``about``; if the end with ties counted as values is farther out, it is taken.

    Args:
        values: samples along the last axis, shape (…, N), N ≥ 2.
        about: what the mean is compared with; None: with nothing, then D = max|x − m| and ties are values.
        least: the smallest D: the unit in which the values are counted.
        stake: how far above ``about`` a value can lie, as far as is known, though none may; one, or one a sample.
        level: of the two-sided interval.
    """
    x = np.asarray(values, np.float64)
    if about is None:
        return _end(x, np.ones_like(x), None, least, level)
    x = x - about
    told = (x != 0).astype(np.float64)
    farthest = np.maximum(np.abs(x).max(axis=-1), np.asarray(stake, np.float64))
    every = _end(x, np.ones_like(x), farthest, least, level)
    share = told.mean(axis=-1)
    untied: Floats = share * _end(x, np.where(share[..., None] > 0, told, 1.0), farthest, least, level)
    return about + np.maximum(every, untied)


def _end(x: Floats, keep: Floats, farthest: Floats | None, least: float, level: float) -> Floats:
    """The end for the values that are kept; None: they are compared with nothing, else with 0."""
    count = keep.sum(axis=-1)
    mean = (x * keep).sum(axis=-1) / count
    apart = (x - mean[..., None]) * keep
    variance = (apart**2).mean(axis=-1) * x.shape[-1] / count
    third = (apart**3).mean(axis=-1) * x.shape[-1] / count
    # Equal values have no skewness, and rounding gives them a variance that is not quite 0.
    flat = variance <= 1e-24 * ((x * keep) ** 2).max(axis=-1)
    skewness = np.where(flat, 0.0, SKEWNESS * np.maximum(third, 0.0) / np.where(flat, 1.0, variance) ** 1.5)
    against = np.maximum(np.abs(apart).max(axis=-1) if farthest is None else farthest + np.abs(mean), least)
    total = count + 1
    deviation = np.sqrt((variance * count + against**2 * count / total) / count)
    goal = stdtrit(count, (1 - level) / 2) / np.sqrt(total)
    end: Floats = mean + against / total - deviation * _solve(goal, skewness, total)
    return end


def _solve(goal: Floats, skewness: Floats, total: Floats) -> Floats:
    """The T whose h(T) is ``goal``, which is below 0."""
    some = np.maximum(skewness, 1e-7)  # less makes no difference, and cancels in the root
    # h(T) = ((1 + γT/3)³ − 1)/γ + γ/(6n), solved for T.
    root = np.cbrt(1 + some * (goal - some / (6 * total)))
    # From T = −4.5/γ on the worst skewness is −4.5/T, where h(T) = T/4 − 0.75/(nT).
    saturated = 2 * goal - np.sqrt(4 * goal**2 + 3 / total)
    skewed = np.where(skewness > 1e-7, 3 * (root - 1) / some, goal)
    found: Floats = np.where(root < -0.5, saturated, skewed)
    return found


def mean_interval(
    values: ArrayLike, *, about: float | None = None, least: float = 0.0, stake: float = 0.0, level: float = 0.95
) -> Interval:
    """The interval of a mean of numbers without bounds, such as words to change; see ``upper_limit``.

    It has a width unless all values are equal to ``about`` (or, without one, to each other) and ``least`` is 0.

    Args:
        values: one a row or a user, shape (N,), N ≥ 2, independent.
        about: what the mean is compared with: 0 for a difference. None for a figure that is compared with nothing.
        least: the unit in which the values are counted, such as 1 word; 0: there is none.
        stake: as in ``upper_limit``; of the upper end.
        level: the share of such intervals that hold the true mean, or more.

    Raises:
        ValueError: fewer than two values, one not finite, or a level outside (0, 1).

    >>> found = mean_interval([-1.0] * 24, about=0.0)
    >>> found.mean, round(found.low, 2), round(found.high, 2)
    (-1.0, -1.25, -0.75)
    """
    x = check_sample(values, level)
    high = float(upper_limit(x, about=about, least=least, stake=stake, level=level))
    low = -float(upper_limit(-x, about=None if about is None else -about, least=least, level=level))
    return Interval(float(x.mean()), low, high)


def smallest_shown(
    values: ArrayLike, *, least: float = 0.0, stake: float = 0.0, count: int | None = None, resamples: int = 200
) -> float | None:
    """The smallest difference that so many rows show in 80 of 100 samples, by the interval that decides.

    The rows' distances from their mean, with one more of ``least`` each way, are drawn with replacement and moved until
    80 of 100 samples have their upper limit below 0; to some per cent. None: no difference would be shown.

    Args:
        values: differences, one a row or a user, shape (N,), N ≥ 2.
        least: as in ``mean_interval``.
        stake: likewise.
        count: of how many rows; as many as there are values, if not given.
        resamples: how many samples; drawn with one seed, so the same values give the same answer.

    Raises:
        ValueError: as ``mean_interval``.
    """
    x = check_sample(values, 0.95)
    pool = np.concatenate([x - x.mean(), [least, -least]])
    drawn = np.random.default_rng(0).choice(pool, (resamples, count or len(x)))

    def shown(size: float) -> bool:
        return bool((upper_limit(drawn - size, least=least, stake=stake) < 0).mean() >= 0.8)

    most = 64 * float(pool.std())
    size: float = float(pool.std()) / math.sqrt(drawn.shape[1])
    while not shown(size):
        size *= 2
        if size > most or not size:
            return None
    low, high = size / 2, size
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high
