"""What a function of Python is given as rows: any iterable, of the kind that it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TypeVar

from errata.types import Correction, Demonstration

__all__ = ["demonstrations", "rows_of"]

Row = TypeVar("Row")


def rows_of(given: Iterable[Row], kinds: type[Row] | tuple[type[Row], ...], name: str, remedy: str) -> list[Row]:
    """The rows as a list: what counts, orders and trains on them goes over them more than once.

    Args:
        given: a list, a generator, or any other iterable.
        kinds: what each has to be.
        name: of the argument.
        remedy: how such rows are made.

    Raises:
        TypeError: it is no iterable of rows, or one is of another kind.
    """
    wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    if isinstance(given, str | bytes | PathLike | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is a {type(given).__name__}, and should be rows of {wanted}; {remedy}")
    rows = list(given)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, kinds):
            raise TypeError(f"{name}: row {number} is a {type(row).__name__} and no {wanted}; {remedy}")
    return rows


def demonstrations(rows: Sequence[Correction]) -> list[Demonstration]:
    """The edited texts of corrections, to be imitated."""
    return [Demonstration(id=row.id, prompt=row.prompt, response=row.edited) for row in rows]
