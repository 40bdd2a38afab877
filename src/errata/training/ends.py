"""Which ids a run teaches to end a response: the configurations of the saved model stop at them."""

from __future__ import annotations

from collections.abc import Iterable

from errata.types import Encoded

__all__ = ["trained_ends"]


def trained_ends(rows: Iterable[tuple[Encoded, float]]) -> list[int]:
    """The last ids of responses that end, and are imitated there: with a weight above 0.

    >>> trained_ends([(Encoded((1, 5, 9), 1, (), ended=True), 1.0), (Encoded((1, 5, 2), 1, (), ended=True), 0.0)])
    [9]
    >>> trained_ends([(Encoded((1, 5, 9), 1, (), ended=False), 1.0)])
    []
    """
    return sorted({encoded.ids[-1] for encoded, weight in rows if encoded.ended and weight > 0})
