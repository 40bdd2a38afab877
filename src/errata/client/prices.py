"""List prices, as the providers' pages said on ``DATE``; --price-in and --price-out say what is not here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["DATE", "PRICES", "Price", "price_of"]


class Price(NamedTuple):
    """US dollars for a million tokens. Discounts (caches, batches) are not counted: what is billed may be less."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """What these tokens cost, in US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


DATE = "2026-11-24"
PRICES: Mapping[str, Price] = {
    # platform.claude.com, models and pricing
    "claude-fable-5-1": Price(10, 50),
    "claude-opus-5-5": Price(4, 20),
    "claude-opus-5": Price(5, 25),
    "claude-opus-4-8": Price(5, 25),
    "claude-opus-4-7": Price(5, 25),
    "claude-opus-4-6": Price(5, 25),
    "claude-opus-4-5": Price(5, 25),
    "claude-sonnet-5-5": Price(2, 10),
    "claude-sonnet-5": Price(2, 10),
    "claude-sonnet-4-6": Price(3, 15),
    "claude-sonnet-4-5": Price(3, 15),
    "claude-haiku-4-5": Price(1, 5),
    # developers.openai.com, pricing
    "gpt-5.4": Price(2.5, 15),
    "gpt-5.1": Price(1.25, 10),
    "gpt-5": Price(1.25, 10),
    "gpt-5-mini": Price(0.25, 2),
    "gpt-5-nano": Price(0.05, 0.4),
    "gpt-4.1": Price(2, 8),
    "gpt-4.1-mini": Price(0.4, 1.6),
    "gpt-4.1-nano": Price(0.1, 0.4),
    "gpt-4o": Price(2.5, 10),
    "gpt-4o-mini": Price(0.15, 0.6),
}


def price_of(model: str) -> Price | None:
    """The list price of a model by its name or its name with a date; None if it is not known.

    >>> price_of("claude-haiku-4-5-20251001")
    Price(input=1, output=5)
    """
    return PRICES.get(re.sub(r"-(\d{8}|\d{4}-\d\d-\d\d)$", "", model))
