"""Anthropic's list prices, read on ``DATE`` in excerpts of its pages on models; check them before you trust a limit.

Those of Fable 5.1, Opus 5.5, 5 and 4.5, Sonnet 5.5 and 5 and Haiku 4.5 stand in platform.claude.com/docs/…/models; the
others in several price lists of third parties that agree. Haiku 5.5 has another price for prompts of more than 100,000
tokens, which one number cannot say, and is left out.

For all other models --price-in and --price-out say it: a limit of cost that rests on a price from hearsay is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["DATE", "PRICES", "Price", "price_of", "total_cost"]


class Price(NamedTuple):
    """US dollars for a million tokens. Discounts (caches, batches) are not counted: what is billed may be less."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """What these tokens cost, in US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


DATE = "2026-11-24"
PRICES: Mapping[str, Price] = {
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
}


def price_of(model: str) -> Price | None:
    """The list price of a model by its name or its name with a date; None if it is not known.

    >>> price_of("claude-haiku-4-5-20251001")
    Price(input=1, output=5)
    """
    return PRICES.get(re.sub(r"-(\d{8}|\d{4}-\d\d-\d\d)$", "", model))


def total_cost(costs: Iterable[float | None]) -> float | None:
    """The sum in US dollars; None if one of them is not known.

    >>> total_cost([0.5, 0.25]), total_cost([0.5, None])
    (0.75, None)
    """
    known = list(costs)
    return None if None in known else float(sum(cost for cost in known if cost is not None))
