"""What became of rows on their way to ids: one count for every loop that encodes, shown in every card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol, TypeVar

from errata.data.encoding import LongRow
from errata.types import Encoded, TokenLabels

__all__ = ["LengthCounts", "encode_rows"]


@dataclass(kw_only=True, slots=True)
class LengthCounts:
    """How many rows came in, and what their length did to them; a row of two sides is one row.

    >>> counts = LengthCounts()
    >>> counts.add(Encoded((1, 5, 6), 1, ((0, 3), (3, 7)), ended=False, cut=4), Encoded((1, 5, 2), 1, (), ended=True))
    >>> counts
    LengthCounts(rows_in=1, dropped_too_long=0, truncated=1, tokens_cut=4)
    """

    rows_in: int = 0
    dropped_too_long: int = 0
    truncated: int = 0
    """Rows that lost tokens on any side."""
    tokens_cut: int = 0
    """Response tokens that they lost, on all sides together."""

    @classmethod
    def of(cls, labels: Iterable[TokenLabels]) -> LengthCounts:
        """What labels themselves show: what was dropped before is not among them."""
        counts = cls()
        for row in labels:
            counts.add(row.original.encoded, row.edited.encoded)
        return counts

    def add(self, *sides: Encoded) -> None:
        """Count a row that is used, whole or truncated."""
        cut = sum(side.cut for side in sides)
        self.rows_in += 1
        self.truncated += cut > 0
        self.tokens_cut += cut

    def drop(self) -> None:
        """Count a row that is left out."""
        self.rows_in += 1
        self.dropped_too_long += 1

    def __add__(self, other: LengthCounts) -> LengthCounts:
        mine, others = asdict(self), asdict(other)
        return LengthCounts(**{name: mine[name] + others[name] for name in mine})

    def __str__(self) -> str:
        """The counts in words."""
        return (
            f"of {self.rows_in:,} rows {self.dropped_too_long:,} dropped and {self.truncated:,} truncated for their "
            f"length, {self.tokens_cut:,} tokens cut"
        )

    def check(self) -> None:
        """Insist that there is something left.

        Raises:
            ValueError: every row was dropped.
        """
        if self.rows_in and self.dropped_too_long == self.rows_in:
            raise ValueError(
                f"every row was dropped ({self.rows_in} of {self.rows_in}): all are longer than max_length; raise it"
            )


class _Named(Protocol):
    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=_Named)
Sides = TypeVar("Sides", bound=tuple[Encoded, ...])


def encode_rows(
    rows: Iterable[Row], encode: Callable[[Row], Sides], counts: LengthCounts
) -> Iterator[tuple[Row, Sides]]:
    """Encode the rows one after the other, count them, and leave out those that are dropped for their length.

    Args:
        rows: anything with an ``id``.
        encode: a row to all of its sides.
        counts: is counted up.

    Yields:
        Each row that is used, with its sides.

    Raises:
        ValueError: a row cannot be encoded (the message names it); or, at the end, every row was dropped.
    """
    for row in rows:
        try:
            sides = encode(row)
        except LongRow:
            counts.drop()
            continue
        except ValueError as error:
            raise ValueError(f"row {row.id!r}: {error}") from error
        counts.add(*sides)
        yield row, sides
    counts.check()
