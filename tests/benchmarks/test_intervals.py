"""The benchmarks of intervals run, and their tables have the shape that the docs show."""

from __future__ import annotations

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


def test_the_table_of_coverage() -> None:
    module = load("benchmarks", "coverage")
    head, _, row = module.table(module.Settings(prompts=(10,), rates=(0.98,), ties=(0.0,)))
    assert head == "| prompts | ties | rate 0.98 |"
    assert row == "| 10 | 0.0 | 0.984 / 0.182 |"
