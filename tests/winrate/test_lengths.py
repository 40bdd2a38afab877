from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.winrate import length_controlled, longer_agreement, longer_wins, relative_length

SCORES = [1.0, 1.0, 0.5, 0.0, 1.0, 0.0, 1.0, 0.5, 1.0, 0.0]
LONGER = [12.0, 30.0, 0.0, -9.0, 4.0, 7.0, 25.0, -3.0, 18.0, -20.0]

verdicts = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-60, 60)), min_size=4, max_size=40)


def twin(scores, differences):
    """The same estimate, slowly: nested bisection on the two score equations, term by term; the interval likewise."""
    n = len(scores)
    mean = sum(differences) / n
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / n)
    z = [math.tanh(d / spread) if spread > 0 else 0.0 for d in differences]

    def p(theta, phi, k):
        return 1 / (1 + math.exp(-(theta + phi * z[k])))

    def bisect(rising):
        low, high = -60.0, 60.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (low, middle) if rising(middle) > 0 else (middle, high)
        return low

    def phi_at(theta):
        return bisect(lambda phi: sum((p(theta, phi, k) - scores[k]) * z[k] for k in range(n)) + phi / 100)

    def slope(theta):
        phi = phi_at(theta)
        return sum(p(theta, phi, k) - scores[k] for k in range(n)) + theta / 100

    theta = bisect(slope)
    phi = phi_at(theta)
    h = [[1 / 100, 0.0], [0.0, 1 / 100]]
    m = [[1 / 100, 0.0], [0.0, 1 / 100]]
    for k in range(n):
        x, rate = (1.0, z[k]), p(theta, phi, k)
        for i in range(2):
            for j in range(2):
                h[i][j] += rate * (1 - rate) * x[i] * x[j]
                m[i][j] += (rate - scores[k]) ** 2 * x[i] * x[j]
    determinant = h[0][0] * h[1][1] - h[0][1] * h[1][0]
    first = (h[1][1] / determinant, -h[0][1] / determinant)  # the first row of the inverse
    variance = sum(first[i] * m[i][j] * first[j] for i in range(2) for j in range(2))
    return [1 / (1 + math.exp(-(theta + reach * math.sqrt(variance)))) for reach in (0.0, -1.96, 1.96)]


def test_golden() -> None:
    found = length_controlled(SCORES, LONGER)
    assert (found.mean, found.low, found.high) == pytest.approx((0.4354790, 0.1853245, 0.7234459), rel=1e-5)
    assert sum(SCORES) / 10 == 0.6  # the plain rate: the lead was length


@given(verdicts)
def test_equals_its_slow_twin(rows) -> None:
    scores, differences = map(list, zip(*rows, strict=True))
    found = length_controlled(scores, differences)
    assert [found.mean, found.low, found.high] == pytest.approx(twin(scores, differences), rel=1e-4, abs=1e-6)


@given(verdicts)
def test_the_two_sides_mirror(rows) -> None:
    scores, differences = map(np.array, zip(*rows, strict=True))
    there, back = length_controlled(scores, differences), length_controlled(1 - scores, -differences)
    assert back.mean == pytest.approx(1 - there.mean, abs=1e-6)
    assert back.low == pytest.approx(1 - there.high, abs=1e-6)


def test_a_judge_of_length_alone_leaves_one_half() -> None:
    rng = np.random.default_rng(0)
    longer = rng.normal(15, 20, 2000)
    scores = (rng.random(2000) < 1 / (1 + np.exp(-2 * np.tanh(longer / longer.std())))).astype(float)
    assert scores.mean() > 0.65
    assert length_controlled(scores, longer).mean == pytest.approx(0.5, abs=0.04)


def test_where_length_decides_all_nothing_is_known_of_equal_length() -> None:
    found = length_controlled([1.0] * 25 + [0.0] * 25, [10.0] * 25 + [-10.0] * 25)
    assert found.low < 0.2
    assert found.high > 0.8


def test_no_difference_in_length_is_the_plain_rate() -> None:
    assert length_controlled(SCORES, [3.0] * 10).mean == pytest.approx(0.6, abs=1e-3)
    assert length_controlled([1.0] * 50, [0.0] * 50).mean > 0.99


def test_shapes() -> None:
    with pytest.raises(ValueError, match="one difference in length"):
        length_controlled([1.0, 0.0], [1.0])


def test_the_longer() -> None:
    assert longer_wins([5, 1, 0, -2]) == 0.625
    assert longer_wins([-d for d in LONGER]) == 1 - longer_wins(LONGER)


def test_the_longer_chosen_counts_decided_verdicts_between_clearly_different_lengths() -> None:
    # Longer, longer, a word longer, shorter, a tie, and shorter by a fifth exactly: three of four go to the longer.
    scores, ours, theirs = [1.0, 0.0, 1.0, 0.0, 0.5, 0.25], [30, 25, 21, 10, 90, 80], [20, 20, 20, 20, 10, 100]
    found = longer_agreement(scores, ours, theirs)
    assert found is not None
    assert found.mean == 3 / 4
    # Clopper and Pearson, from P(X >= 3) and P(X <= 3) of four at each end.
    tails = [sum(math.comb(4, k) * p**k * (1 - p) ** (4 - k) for k in (3, 4)) for p in (found.low, found.high)]
    assert tails[0] == pytest.approx(0.025, rel=1e-6)
    assert 1 - tails[1] + 4 * found.high**3 * (1 - found.high) == pytest.approx(0.025, rel=1e-6)
    mirrored = longer_agreement([1 - score for score in scores], theirs, ours)
    assert mirrored == found
    assert longer_agreement([0.5, 1.0, 0.0], [9, 21, 7], [3, 20, 7]) is None


@given(st.integers(0, 50), st.integers(0, 50))
def test_buckets_mirror(a, b) -> None:
    mirrored = {"longer": "shorter", "shorter": "longer", "alike": "alike"}
    assert relative_length(b, a) == mirrored[relative_length(a, b)]
    assert (relative_length(a, b) == "longer") == (a > b and a >= 1.25 * b)


def test_buckets_at_the_edge() -> None:
    assert [relative_length(*counts) for counts in ((125, 100), (124, 100), (100, 125), (0, 0), (1, 0))] == [
        "longer",
        "alike",
        "shorter",
        "alike",
        "longer",
    ]
