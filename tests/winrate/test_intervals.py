from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from errata.winrate import (
    bootstrap_interval,
    detectable_difference,
    paired_t_interval,
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
    assert detectable_difference([1.0, 0.0, 1.0, 0.0]) == pytest.approx(2.8 * (1 / 3) ** 0.5 / 2)
    values = np.array([1.0, 0.0] * 200)
    shift = detectable_difference(values)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(600):
        drawn = rng.choice(values, 400)
        seen += drawn.mean() + shift - 0.5 > 1.96 * drawn.std(ddof=1) / 20
    assert 0.75 <= seen / 600 <= 0.85
