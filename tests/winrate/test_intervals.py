from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from errata.winrate import (
    bootstrap_interval,
    detectable_rate,
    paired_t_interval,
    rate_difference_interval,
    rate_interval,
    sign_flip_p_value,
    t_interval,
)


def test_t_by_hand() -> None:
    # Mean 2, s = 1, n = 3, t(2, .975) = 4.302653.
    interval = t_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((2.0, -0.4841377, 4.4841377), rel=1e-6)


def test_t_against_scipy() -> None:
    values = [0.61, 0.58, 0.66, 0.71, 0.49]
    for level in (0.8, 0.95):
        ours = t_interval(values, level=level)
        theirs = stats.ttest_1samp(values, 0.0).confidence_interval(level)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_paired_t_against_scipy() -> None:
    a, b = [0.61, 0.58, 0.66], [0.55, 0.49, 0.64]
    ours = paired_t_interval(a, b)
    theirs = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert ours.mean == pytest.approx(0.17 / 3)


def test_bootstrap_against_scipy() -> None:
    values = np.random.default_rng(1).choice([0.0, 0.5, 1.0], p=[0.3, 0.1, 0.6], size=200)
    ours = bootstrap_interval(values, seed=3, resamples=20000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert ours.mean == values.mean()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_bootstrap_of_distinct_values_against_scipy() -> None:
    values = np.random.default_rng(2).lognormal(size=60)
    ours = bootstrap_interval(values, seed=3, resamples=20000, level=0.8)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20000, confidence_level=0.8, rng=np.random.default_rng(5)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.02)


def test_bootstrap_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for level, low, high in ((0.95, 0.92, 0.97), (0.7, 0.65, 0.75)):
        held = 0
        for trial in range(600):
            values = rng.choice([0.0, 0.5, 1.0], p=[0.25, 0.2, 0.55], size=120)
            interval = bootstrap_interval(values, seed=trial, resamples=500, level=level)
            held += interval.low <= 0.65 <= interval.high
        assert low <= held / 600 <= high


def test_bootstrap_repeats_and_follows_its_seed() -> None:
    values = np.random.default_rng(7).normal(size=50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


@given(st.floats(-1e6, 1e6), st.integers(2, 40))
def test_equal_values_have_no_width_and_keep_their_mean(value: float, count: int) -> None:
    interval = bootstrap_interval([value] * count, seed=0, resamples=20)
    assert interval.low == interval.mean == interval.high == pytest.approx(value)


@pytest.mark.parametrize("make", [lambda values: bootstrap_interval(values, seed=0), t_interval])
def test_what_has_no_interval_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    for values in ([], [1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="two or more"):
            make(values)
    with pytest.raises(ValueError, match="value 1 is nan"):
        make([0.0, float("nan")])
    with pytest.raises(ValueError, match="value 0 is inf"):
        make([float("inf"), 0.0])


def test_levels_and_pairs_are_checked() -> None:
    with pytest.raises(ValueError, match="level"):
        t_interval([1.0, 2.0], level=95)
    with pytest.raises(ValueError, match="do not pair"):
        paired_t_interval([1.0, 2.0, 3.0], [1.0, 2.0])


def test_sign_flips_against_every_choice_of_signs() -> None:
    differences = [1.0, 0.5, -0.5, 1.0, 0.5, 0.0, 1.0, -1.0, 0.5, 1.0]
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(differences))]
    exact = np.mean(np.array(sums) >= abs(sum(differences)) - 1e-9)
    assert exact == 0.15625
    assert sign_flip_p_value(differences, seed=0, flips=200_000) == pytest.approx(exact, abs=0.004)


def test_sign_flips_against_scipy() -> None:
    differences = np.random.default_rng(4).normal(0.25, 1, 40)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20000, rng=np.random.default_rng(1)
    ).pvalue
    assert sign_flip_p_value(differences, seed=0) == pytest.approx(theirs, abs=0.01)


def test_sign_flips_of_no_difference_and_of_the_other_order() -> None:
    assert sign_flip_p_value([0.0, 0.0, 0.0], seed=0) == 1
    assert sign_flip_p_value([1.0, -1.0], seed=0) == 1
    differences = [1.0, 0.5, 0.0, -0.5, 1.0]
    assert sign_flip_p_value([-d for d in differences], seed=2) == sign_flip_p_value(differences, seed=2)
    assert sign_flip_p_value([1.0] * 60, seed=0, flips=999) == 0.001  # never 0


def test_sign_flips_reject_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    found = [sign_flip_p_value(rng.choice([-1.0, -0.5, 0, 0.5, 1.0], 60), seed=k, flips=500) for k in range(600)]
    assert 0.03 <= np.mean(np.array(found) <= 0.05) <= 0.07


def test_detectable_by_hand_and_by_trial() -> None:
    # σ² = (4 · ¼ + 2 · ¼) / 6, and 2.8 · ½ / 2 is more than ½: four verdicts show nothing, whatever they are.
    assert detectable_rate([1.0, 0.0, 1.0, 0.0]) is None
    assert detectable_rate([1.0] * 10) == pytest.approx(2.8 * 0.5 / 10**0.5)
    assert 0 < detectable_rate([0.5] * 10) < detectable_rate([1.0] * 10)
    assert detectable_rate([1.0] * 10, about=0.0, span=2.0) == pytest.approx(2.8 / 10**0.5)
    shift = detectable_rate([1.0, 0.0] * 100)
    rng = np.random.default_rng(0)
    seen = sum(rate_interval(rng.random(200) < 0.5 + shift).low > 0.5 for _ in range(600))
    assert 0.75 <= seen / 600 <= 0.85


def slow_rate_interval(values: list[float]) -> tuple[float, float]:
    """The docstring's definition with scipy's distributions, in another order of arithmetic."""
    n, padded = len(values), [*values, 0.0, 1.0]
    mean = np.mean(padded)
    worth = n * max(1.0, mean * (1 - mean) / np.var(padded))
    x = worth * np.mean(values)
    low = 0.0 if not any(values) else stats.beta(x, worth - x + 1).ppf(0.025)
    high = 1.0 if all(value == 1 for value in values) else stats.beta(x + 1, worth - x).ppf(0.975)
    return low, high


@pytest.mark.parametrize("values", [[1] * 10, [0] * 3, [0.5] * 8, [1, 0, 0.5, 1, 1], [1], [0.25, 1, 0.75, 0.5, 0, 0]])
def test_rates_against_a_slow_twin(values: list[float]) -> None:
    found = rate_interval(values)
    assert found.mean == np.mean(values)
    assert (found.low, found.high) == pytest.approx(slow_rate_interval(values), rel=1e-9)


def test_wins_and_losses_alone_have_the_interval_of_clopper_and_pearson() -> None:
    for wins, count in ((0, 5), (3, 10), (10, 10), (49, 50)):
        theirs = stats.binomtest(wins, count).proportion_ci()
        ours = rate_interval([1.0] * wins + [0.0] * (count - wins))
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=60))
def test_a_rate_always_has_a_width_lies_in_its_range_and_mirrors(values: list[float]) -> None:
    found, back = rate_interval(values), rate_interval([1 - value for value in values])
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.high - found.low > 0.02
    assert (back.low, back.high) == pytest.approx((1 - found.high, 1 - found.low))
    pair = rate_difference_interval([2 * value - 1 for value in values])
    assert (pair.low, pair.high) == pytest.approx((2 * found.low - 1, 2 * found.high - 1))


@pytest.mark.parametrize("count", [5, 10, 20, 50])
@pytest.mark.parametrize("rate", [0.5, 0.8, 0.9, 0.98, 1.0])
@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_a_rate_is_held_as_often_as_it_says(count: int, rate: float, ties: float) -> None:
    """Exactly: over every outcome, with its chance. The percentile bootstrap: 0.19 at n = 10 and 0.98."""
    held = 0.0
    for wins, tied, losses, chance in outcomes(count, rate, ties):
        found = rate_interval([1.0] * wins + [0.5] * tied + [0.0] * losses)
        held += chance * (found.low <= rate + 1e-12 and rate - 1e-12 <= found.high)
    assert held >= 0.95


def outcomes(count: int, rate: float, ties: float):  # type: ignore[no-untyped-def]
    """The likely ones, all but 1e-6 of the chance."""
    ties = min(ties, 2 * min(rate, 1 - rate))
    shares = [rate - ties / 2, ties, 1 - rate - ties / 2]
    for wins in range(count + 1):
        for tied in range(count - wins + 1):
            chance = stats.multinomial.pmf([wins, tied, count - wins - tied], count, shares)
            if chance > 1e-9:
                yield wins, tied, count - wins - tied, chance


def test_what_is_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"value 1 is 1.5: a rate is made of numbers from 0 to 1"):
        rate_interval([0.5, 1.5])
    with pytest.raises(ValueError, match="needs a number or more"):
        rate_interval([])
