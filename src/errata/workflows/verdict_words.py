"""Numbers in the sentences of a verdict: as many decimals as the rows are worth, and no sign to be read twice."""

from __future__ import annotations

import math

from errata.winrate import FEWEST
from errata.workflows.measure import Comparison

__all__ = ["change", "decimals", "named", "number", "percent", "round_up", "why_not"]

_MANY = 100
"""So many independent rows or users are worth a second decimal of words."""


def decimals(count: int) -> int:
    """Decimals of words, of so many independent rows or users.

    >>> decimals(99), decimals(100)
    (1, 2)
    """
    return 1 if count < _MANY else 2


def number(value: float, digits: int) -> str:
    """A number as readers expect it.

    >>> number(-0.04, 1), number(1234.5, 1)
    ('0.0', '1,234.5')
    """
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")  # round: no minus before a nought


def percent(share: float) -> str:
    """A share as a whole number of per cent; the smallest ones with one decimal.

    >>> percent(0.543), percent(0.004), percent(0.0)
    ('54 %', '0.4 %', '0 %')
    """
    digits = 1 if 0 < abs(share) < 0.01 else 0
    return f"{number(100 * share, digits)} %"


def named(said: str) -> str:
    """The sentence with a capital."""
    return f"{said[0].upper()}{said[1:]}"


def change(found: Comparison, old: float) -> str:
    """How a cost changed, in words and in per cent, and how certain that is.

    Args:
        found: of the costs, new − old.
        old: the old cost, of which the per cent are; 0 leaves them out.
    """
    low, mean, high = found.difference.low, found.difference.mean, found.difference.high
    digits = decimals(found.independent)
    over = f" over {found.users} users" if found.users is not None else ""
    share = f", {percent(abs(mean) / old)}" if old > 0 else ""
    if high < 0:
        least = number(-high, digits)
        least = f"at least {least}" if float(least.replace(",", "")) else "at least a little"
        return f"{number(-mean, digits)} fewer{over}{share} (with 95 % certainty {least})"
    if low > 0:
        return f"{number(mean, digits)} more{over}{share} (with 95 % certainty more)"
    direction = "fewer" if mean < 0 else "more"
    said = "no difference" if not round(mean, digits) else f"{number(abs(mean), digits)} {direction}{share}"
    return (
        f"{said}{over}, which cannot be told from chance (between {number(max(-low, 0.0), digits)} fewer and "
        f"{number(max(high, 0.0), digits)} more)"
    )


def why_not(found: Comparison) -> tuple[str, str]:
    """What stands in the way of certainty, in a sentence, and what to do next."""
    count, mean = found.independent, found.difference.mean
    what = "rows" if found.users is None else "users"
    more = "Hold out more (--heldout-share 0.4), or wait until the log is longer; in another --out."
    if count < FEWEST:
        by_rows = " Or let rows decide, which says nothing of other users: --judge-by rows." if found.users else ""
        return f" Too few {what}: {count} judged, at least {FEWEST} needed.", f"{more}{by_rows}"
    if found.difference.high < 0:
        once, mean = ("row", found.by_row) if found.by_row >= 0 else ("user", found.by_user or 0.0)
        said = f" But where every {once} counts once it does not fall: {number(mean, 1)} words."
        return said, "See in the report which users gain and which lose; a log with more users would tell."
    if mean >= 0:
        said = " More rows to judge by would not help."
        return said, "Learn more: train longer (--epochs 6), or wait until the log is longer; in another --out."
    needed = None if found.detectable is None else round_up(count * (found.detectable / mean) ** 2)
    if needed is None or needed > 1000 * count:
        return f" Too few {what}: {count} judged, and so few show nothing for certain.", more
    if needed > count:
        return f" Too few {what}: {count} judged, about {needed:,} needed to be certain.", more
    return f" {count} {what} were judged, and chance was against it.", more


def round_up(count: float) -> int:
    """A number of rows in two digits, upwards.

    >>> round_up(23.4), round_up(1234)
    (24, 1300)
    """
    step: int = 10 ** max(0, len(str(math.ceil(count))) - 2)
    return math.ceil(count / step) * step
