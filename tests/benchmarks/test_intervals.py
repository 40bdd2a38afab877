"""The benchmarks of intervals run, and their tables have the shape that the docs show."""

from __future__ import annotations

import math

import numpy as np

from scripts import load


def test_the_tables_of_promotion_by_chance() -> None:
    module = load("benchmarks", "learn_size")
    settings = module.Settings(samples=400, rows=(20,), users=(6,), resamples=50)
    size = list(module.size_table(settings))
    assert size[0] == "| true mean 0, rows | 20 |"
    assert len(size) == 2 + len(module.NULLS)
    ours, t, _ = (float(rate) for rate in size[3].split("|")[2].split("/"))
    assert ours <= 3 < 8 < t  # log-normal, σ = 1
    assert len(list(module.user_table(settings))) == 2 + 3 * 2 * 3
    assert len(list(module.power_table(settings))) == 2 + 2 * 4
    same = list(module.same_users_table(settings))
    assert len(same) == 2 + 4 * 2 * 2
    assert all(float(rate) <= 3 for line in same[2:] for rate in line.split("|")[2:-1])


def test_edit_points_keep_their_word_where_what_is_at_stake_is_counted() -> None:
    """At most 3 in 100, with 3 standard errors of 500 samples; without what is at stake it is up to 30."""
    module = load("benchmarks", "learn_size")
    rng = np.random.default_rng(0)
    rates = {}
    for name, draw in module.POINT_NULLS.items():
        if "1 in 200" in name:  # which is beyond what so few rows can tell
            continue
        for count in (20, 50, 100):
            rates[name, count] = module.point_rates(draw, rng, 500, count)
    assert max(ours for ours, _ in rates.values()) <= 0.03 + 3 * math.sqrt(0.03 * 0.97 / 500)
    assert sum(ours for ours, _ in rates.values()) / len(rates) <= 0.01
    assert max(without for _, without in rates.values()) > 0.15
    gain = next(iter(module.POINT_GAINS.values()))
    assert module.point_rates(gain, rng, 500, 50)[0] > 0.8


def test_the_tables_of_edit_points() -> None:
    module = load("benchmarks", "learn_size")
    settings = module.Settings(samples=60, rows=(20,), users=(6, 12))
    assert len(list(module.point_table(settings))) == 4 + len(module.POINT_NULLS) + len(module.POINT_GAINS)
    by_user = list(module.point_user_table(settings))
    assert len(by_user) == 2 + 6
    assert len(list(module.over_editing_table(settings))) == 2 + 3
    rng = np.random.default_rng(1)
    assert module.user_rate(module.skewed, rng, 400, 12, 1.0) <= 0.055


def test_the_table_of_coverage() -> None:
    module = load("benchmarks", "coverage")
    head, _, row = module.table(module.Settings(prompts=(10,), rates=(0.98,), ties=(0.0,)))
    assert head == "| prompts | ties | rate 0.98 |"
    assert row == "| 10 | 0.0 | 0.984 / 0.182 |"
