from __future__ import annotations

import datetime

import pytest

from errata.client import Price, price_of
from errata.client.prices import DATE, PRICES


def test_a_dated_version_has_its_models_price() -> None:
    assert price_of("claude-haiku-4-5-20251001") == price_of("claude-haiku-4-5") == Price(1, 5)
    assert price_of("gpt-4o") is None  # nobody here has read its price where it is set


@pytest.mark.parametrize("model", ["claude-opus-4", "gpt-4o-audio", "my-gpt-4o", "llama"])
def test_a_name_that_only_looks_alike_has_none(model: str) -> None:
    assert price_of(model) is None


def test_the_table() -> None:
    datetime.date.fromisoformat(DATE)
    assert all(0 < price.input < price.output for price in PRICES.values())
    assert Price(2, 10).of(1_000_000, 100_000) == pytest.approx(3.0)
