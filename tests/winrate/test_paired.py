"""The interval that decides: by a slow twin, by what must hold of it, and by how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from errata.winrate import by_user, mean_interval, smallest_shown, upper_limit
from errata.winrate.paired import SKEWNESS


def slow_end(values: list[float], *, about: float | None, least: float) -> float:
    """The docstring, row by row: the statistic is maximised over the skewness by search, the end is found by search."""
    k = len(values)
    mean = math.fsum(values) / k
    moments = [math.fsum((x - mean) ** power for x in values) / k for power in (2, 3)]
    skewness = max(0.0, SKEWNESS * moments[1] / moments[0] ** 1.5) if moments[0] > 1e-20 else 0.0
    middle = mean if about is None else about
    more = [*values, mean + max(max(abs(x - middle) for x in values) + abs(mean - middle), least)]
    goal = stats.t(k).ppf(0.025) / math.sqrt(k + 1)

    def h(T: float) -> float:
        def of(g: float) -> float:
            return T + g * T**2 / 3 + g**2 * T**3 / 27 + g / (6 * (k + 1))

        return of(min(skewness, 4.5 / abs(T)))

    T = optimize.brentq(lambda T: h(T) - goal, -1e6, -1e-9, xtol=1e-13)
    return float(np.mean(more) - np.std(more, ddof=1) * T)


def slow_limit(values: list[float], least: float = 0.0) -> float:
    told = [x for x in values if x != 0] or values
    untied = slow_end(told, about=0.0, least=least) * (len(told) / len(values) if any(values) else 1.0)
    return max(slow_end(values, about=0.0, least=least), untied)


RNG = np.random.default_rng(4)
SAMPLES = {
    "normal": RNG.normal(-0.4, 1, 25),
    "skewed": RNG.lognormal(0, 1.5, 20) - 3,
    "other way": 3 - RNG.lognormal(0, 1.5, 20),
    "ties": np.where(RNG.random(60) < 0.8, 0.0, RNG.integers(-4, 3, 60)),
    "all alike": np.full(9, -2.0),
    "two": np.array([1.0, -3.0]),
    "none": np.zeros(12),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_against_a_slow_twin(name: str) -> None:
    values = SAMPLES[name]
    found = mean_interval(values, about=0.0, least=1.0)
    assert found.mean == values.mean()
    assert found.high == pytest.approx(slow_limit(list(values), 1.0), rel=1e-7)
    assert found.low == pytest.approx(-slow_limit(list(-values), 1.0), rel=1e-7)
    alone = mean_interval(values, least=1.0)
    assert alone.high == pytest.approx(slow_end(list(values), about=None, least=1.0), rel=1e-7)
    assert alone.low == pytest.approx(-slow_end(list(-values), about=None, least=1.0), rel=1e-7)


def test_golden_values() -> None:
    found = mean_interval([-3, -1, -2, 0, -4, 1, -2, -1, 0, -5, -2, -3], about=0.0, least=1.0)
    assert (found.low, found.mean, found.high) == pytest.approx(GOLDEN, rel=1e-6)


GOLDEN = (-4.0432303, -1.8333333, 0.4280378)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=30), st.sampled_from([0.5, 3.0]))
def test_it_holds_the_mean_has_a_width_mirrors_and_scales(values: list[int], scale: float) -> None:
    found, back = (mean_interval(np.multiply(sign, values), about=0.0, least=1.0) for sign in (1, -1))
    assert found.low < found.mean < found.high
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    wider = mean_interval(np.multiply(scale, values), about=0.0, least=scale)
    assert (wider.low, wider.high) == pytest.approx((scale * found.low, scale * found.high))
    assert mean_interval(np.add(values, 7.0), about=7.0, least=1.0).high == pytest.approx(7 + found.high)


def test_five_rows_prove_nothing_and_six_that_agree_do() -> None:
    assert mean_interval([-1.0] * 5, about=0.0).high > 0 > mean_interval([-1.0] * 6, about=0.0).high


def test_many_samples_at_once_are_each_as_alone() -> None:
    drawn = np.round(RNG.normal(-0.5, 2, (50, 30)))
    limits = upper_limit(drawn, least=1.0)
    assert limits == pytest.approx([mean_interval(row, about=0.0, least=1.0).high for row in drawn])


def nulls(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Differences whose true mean is 0."""
    skewed, harder = (rng.lognormal(0, sigma, shape) - math.exp(sigma**2 / 2) for sigma in (1.0, 1.75))
    return {
        "normal": rng.normal(size=shape),
        "losses with a tail": skewed,
        "a long one": harder,
        "gains with a tail": -skewed,
        "80 % ties": np.where(rng.random(shape) < 0.8, 0.0, skewed),
        "outliers": rng.normal(size=shape) * np.where(rng.random(shape) < 0.05, 10, 1),
    }


@pytest.mark.parametrize("count", [20, 100, 400])
def test_no_difference_is_found_where_there_is_none(count: int) -> None:
    """At most 3 in 100, and the 2,000 samples have to be that sure of it: 3 % and three standard errors are 4.1 %."""
    for name, drawn in nulls(np.random.default_rng(count), (2000, count)).items():
        assert (upper_limit(drawn) < 0).mean() <= 0.03, name
        assert (upper_limit(-drawn) < 0).mean() <= 0.03, name


def test_students_t_fails_that_test() -> None:
    for name, least in (("losses with a tail", 0.1), ("a long one", 0.25)):
        drawn = nulls(np.random.default_rng(20), (2000, 20))[name]
        t = drawn.mean(axis=1) / drawn.std(axis=1, ddof=1) * 20**0.5
        assert (t < stats.t(19).ppf(0.025)).mean() > least


@pytest.mark.parametrize("users", [6, 12, 40])
@pytest.mark.parametrize("half", [False, True], ids=["even", "one sent half"])
def test_users_who_resemble_themselves_are_no_proof(users: int, half: bool) -> None:
    """240 rows, mean 0, half of the variance between users; by rows it is found in up to 50 of 100."""
    rng = np.random.default_rng(users)
    of = np.arange(240) % users
    if half:
        of[:120] = 0
    wrong, by_rows = 0, 0
    for _ in range(400):
        skewed = rng.lognormal(0, 1, users + 240) - math.exp(0.5)
        values = skewed[of] + skewed[users:]
        wrong += mean_interval(by_user(values, of.tolist()), about=0.0).high < 0
        by_rows += mean_interval(values, about=0.0).high < 0
    assert wrong / 400 <= 0.05  # 3 % and more than two standard errors
    assert by_rows / 400 > 0.05


def test_what_is_there_is_found() -> None:
    rng = np.random.default_rng(2)
    for count, shift, least in ((20, 1.0, 0.7), (50, 0.5, 0.75), (100, 0.5, 0.98)):
        assert (upper_limit(rng.normal(-shift, 1, (1000, count))) < 0).mean() > least


def test_the_smallest_difference_that_is_shown_is_shown_in_80_of_100() -> None:
    rng = np.random.default_rng(3)
    size = smallest_shown(rng.normal(0, 1, 60))
    assert (upper_limit(rng.normal(-size, 1, (2000, 60))) < 0).mean() == pytest.approx(0.8, abs=0.15)
    assert smallest_shown([-1.0] * 5) is None
    assert 0 < smallest_shown([0.0] * 60, least=1.0) < smallest_shown([0.0] * 30, least=1.0)
    assert smallest_shown(np.zeros(30)) is None
    assert smallest_shown(rng.normal(0, 1, 500), count=60) == pytest.approx(size, rel=0.3)


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match="value 1 is nan"):
        mean_interval([1.0, math.nan], about=0.0)
