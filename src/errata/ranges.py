"""The numbers that a setting takes: written beside its field, checked whenever such settings are made.

    epochs: Annotated[float, Range(above=0)] = 3.0

Whether settings come from a command line, a ``--config`` file or Python, they are checked before anything is loaded.
NaN is in no range, and infinity only where it is named as an end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import cache
from math import inf
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

__all__ = [
    "Numeric",
    "Range",
    "Ranged",
    "Rank",
    "Seed",
    "Size",
    "Weight",
    "check_ranges",
    "numeric_fields",
    "raised_at_the_end",
    "refuse",
]

_LARGEST_INT = 2**31 - 1
"""No whole number of a setting is larger, unless its range says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Finite numbers from ``low`` to ``high``, which belong to it, and between ``above`` and ``below``, which do not.

    >>> Range(above=0, high=1).holds(0), Range(above=0, high=1).holds(1), Range(low=0).holds(inf), str(Range(low=0))
    (False, True, False, '0 or more')
    """

    low: float | None = None
    """``-inf`` lets that in, too; likewise ``high``."""
    high: float | None = None
    above: float | None = None
    below: float | None = None
    usual: str = ""
    """What to try, in words, where the default of the field is no good advice."""

    def holds(self, value: float) -> bool:
        """Whether a number is in it."""
        value = value if isinstance(value, int) else float(value)  # NumPy's own would be compared in their precision
        return (
            (abs(value) <= sys.float_info.max or value in (self.low, self.high))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """``above 0 and at most 1``."""
        low, high = (end if end is not None and -inf < end < inf else None for end in (self.low, self.high))
        if low is not None and high is not None and high != _LARGEST_INT:
            return f"from {_said(low)} to {_said(high)}"
        ends = [f"above {_said(self.above)}"] if self.above is not None else []
        ends += [f"{_said(low)} or more"] if low is not None else []
        ends += [f"at most {_said(high)}"] if high not in (None, _LARGEST_INT) else []
        ends += [f"below {_said(self.below)}"] if self.below is not None else []
        return (" and ".join(ends) or "that is finite") + (", or inf" if self.high == inf else "")


Size = Annotated[int, Range(low=1)]
"""How many of something, of which there must be one."""
Seed = Annotated[int, Range(low=0, high=2**32 - 1)]
"""What NumPy, too, takes as a seed."""
Rank = Annotated[int, Range(low=0, high=16_384, usual="8 to 64 are usual, 0 trains all weights")]
"""Of an adapter; more than the layers of a model can use is refused when it is loaded."""
Weight = Annotated[float, Range(low=0, high=1e6)]
"""Of a term beside others that weigh about 1."""


class Numeric(NamedTuple):
    """A field that holds a number."""

    whole: bool
    """An int, no float."""
    optional: bool
    """None is a value, too."""
    range: Range | None
    """None where none is declared: an error of ours."""
    words: tuple[str, ...] = ()
    """That may stand in the place of a number, such as ``auto``."""

    def takes(self, value: Any) -> bool:
        """Whether a value is such a number, within the range."""
        assert self.range is not None
        kind: type = Integral if self.whole else Real
        return isinstance(value, kind) and not isinstance(value, bool) and self.range.holds(value)  # type: ignore[arg-type]


class Ranged:
    """A dataclass that inherits from this checks its numbers whenever one is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a number that is out of its range."""
        check_ranges(self)


def check_ranges(settings: Any, *, flags: bool = True, owner: str = "") -> None:
    """Insist that every numeric field of a dataclass is within its declared range.

    Args:
        settings: the dataclass.
        flags: whether its fields are flags of the command line, and are named so.
        owner: of what the fields are, for settings that have no flags.

    Raises:
        ValueError: one is not; it names the field, its value, the range and what is usual.
    """
    numerics = numeric_fields(type(settings))  # type: ignore[arg-type]  # a class can be hashed
    for one in fields(settings):
        numeric, value = numerics.get(one.name), getattr(settings, one.name)
        if (
            numeric is None
            or (numeric.optional and value is None)
            or (isinstance(value, str) and value in numeric.words)
        ):
            continue
        assert numeric.range is not None, f"{type(settings).__name__}.{one.name} declares no range"
        if numeric.takes(value):
            continue
        named = f"--{one.name.replace('_', '-')}" if flags else f"{one.name}{owner}"
        shown = str(value).removesuffix(".0") if isinstance(value, int | float) else repr(value)
        kind = "a whole number" if numeric.whole else "a number"
        numbers = f"{'' if str(numeric.range)[:1].isalpha() else 'of '}{numeric.range}"
        usual = f"{_said(one.default)} is usual" if numeric.takes(one.default) else ""  # type: ignore[arg-type]
        advice = numeric.range.usual or usual or (f"{numeric.words[0]} is usual" if numeric.words else "")
        refuse(f"{named} {shown} is out of range: give {kind} {numbers}{f' ({advice})' if advice else ''}")


def refuse(words: str) -> None:
    """Raise ValueError about a setting, or after the block of ``raised_at_the_end``."""
    if (errors := _collected.get()) is None:
        raise ValueError(words)
    errors.append(ValueError(words))


_collected: ContextVar[list[ValueError] | None] = ContextVar("_collected", default=None)


@contextmanager
def raised_at_the_end() -> Iterator[None]:
    """Raise the first error of ``check_ranges`` only after the block: what makes settings would wrap it in its own."""
    errors: list[ValueError] = []
    token = _collected.set(errors)
    try:
        yield
    finally:
        _collected.reset(token)
    for error in errors:
        raise error


@cache
def numeric_fields(kind: Callable[..., Any]) -> dict[str, Numeric]:
    """The fields of a dataclass that hold one number each, without those of the dataclasses in it."""
    found = {name: _numeric(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}
    return {name: numeric for name, numeric in found.items() if numeric is not None}


def _numeric(hint: Any) -> Numeric | None:
    """Of ``int`` and ``float``, also in ``Annotated``, and any of them or None."""
    parts = [hint] if get_origin(hint) is Annotated else [*get_args(hint)] or [hint]
    for part in parts:
        kind, *notes = get_args(part) if get_origin(part) is Annotated else (part,)
        if kind in (int, float):
            declared = next((note for note in notes if isinstance(note, Range)), None)
            if kind is int and declared is not None and declared.high is None:
                declared = replace(declared, high=_LARGEST_INT)
            words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
            return Numeric(kind is int, type(None) in parts, declared, tuple(words))
    return None


def _said(value: float) -> str:
    return f"{int(value):,}" if value == value // 1 else f"{value:g}"
