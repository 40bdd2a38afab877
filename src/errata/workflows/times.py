"""When rows were sent: a column of times as logs have them, read in one format, which the column must show by itself.

Nothing is guessed row by row. Each format is tried on the whole column, and the one that reads the most is taken; what
it cannot read is counted, and more than a few are an error. Whether 03/11 is in March or in November is decided by the
values that leave no choice, or by the order of the rows, or else asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from errata.workflows.time_formats import NUMBERS, PARSERS, REMEDY, TIME_FORMATS, ReadTime, as_text, parser_of

__all__ = ["TIME_FIELDS", "TIME_FORMATS", "Times", "matching_fields", "read_time", "read_times"]

TIME_FIELDS = (
    *("time", "date", "timestamp", "datetime", "date time", "sent at", "sent on", "sent time", "sent date"),
    *(
        "time sent",
        "date sent",
        "created at",
        "created on",
        "created",
        "created time",
        "creation date",
        "creation time",
    ),
    *("submitted at", "edited at", "corrected at", "updated at", "modified at", "last modified", "received at"),
    *("event time", "ts", "datum", "zeit", "zeitpunkt", "zeitstempel", "gesendet am", "erstellt am", "horodatage"),
)
"""Names of the field that says when, in the order in which they are looked for; case, spaces, ``_`` and ``-`` do not
count."""

_MOST_UNREAD = 0.05  # of the values: with more the format is not theirs
_LEAST_ORDER = 6  # different values, so that hardly any would be in order by chance


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """A column of times, and how it was read."""

    seconds: tuple[float | None, ...]
    """Since 1970, one for each row; None where there is no time."""
    format: str
    """One of ``TIME_FORMATS``, or the one that was given."""
    why: str
    """Why in this format, where more than one was possible; else empty."""
    unread: tuple[str, ...]
    """Values that are no time in this format, with their rows."""
    missing: int
    """Rows without a value."""
    zoned: int
    """Values that name a time zone, or need none; the others are read as UTC."""

    @property
    def read(self) -> int:
        """How many times there are."""
        return sum(each is not None for each in self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """How it was read, ready for JSON."""
        ends = self.ends
        return {
            "format": self.format,
            "why": self.why,
            "read": self.read,
            "unread": len(self.unread),
            "missing": self.missing,
            "without_time_zone": self.read - self.zoned,
            "first": ends and ends[0],
            "last": ends and ends[1],
        }

    @property
    def ends(self) -> tuple[str, str] | None:
        """The first and the last time, in ISO 8601."""
        given = [each for each in self.seconds if each is not None]
        return (_iso(min(given)), _iso(max(given))) if given else None

    def __str__(self) -> str:
        if self.ends is None:
            return f"{self.missing:,} rows and no time"
        said = [f"{self.read:,} times read as {self.format} ({TIME_FORMATS.get(self.format, 'as given')})"]
        said[0] += f", {self.why}" if self.why else ""
        said.append(f"{self.ends[0]} to {self.ends[1]}")
        naive = self.read - self.zoned
        if naive:
            mixed = f"{naive:,} without a time zone are read as UTC, {self.zoned:,} name theirs"
            said.append(mixed if self.zoned else "no time zone is named, so UTC is taken")
        if self.unread:
            said.append(f"{len(self.unread):,} cannot be read, such as {self.unread[0]}")
        if self.missing:
            said.append(f"{self.missing:,} rows have none")
        return "; ".join(said)


def read_time(value: Any) -> float | None:
    """Seconds since 1970 of one time without a choice, or None: ISO 8601 (UTC where no zone is named), seconds, or ms.

    >>> read_time("1970-01-02"), read_time("1970-01-01T00:01+01:00"), read_time("60"), read_time("last May")
    (86400.0, -3540.0, 60.0, None)
    """
    for name in ("iso", "seconds", "milliseconds"):
        if (found := PARSERS[name](value)) is not None:
            return found.seconds
    return None


def read_times(
    values: Sequence[Any], *, rows: Sequence[str] | None = None, form: str | None = None, what: str = "the times"
) -> Times:
    """Read a column of times.

    Args:
        values: texts, numbers, ``datetime`` or ``date``; None, NaN and blank texts are missing.
        rows: what errors call each row; else its number from 1.
        form: one of ``TIME_FORMATS``, or a format of ``datetime.strptime``; None takes the format that reads the most.
        what: what errors call the column.

    Raises:
        ValueError: the format reads less than 95 % of the values; it could be day first or month first; or some values
            say the one and some the other. Shows two rows.

    >>> found = read_times(["03/11/2026 14:05", "28/11/2026 09:00", None])
    >>> found.format, found.ends, found.missing
    ('day-first', ('2026-11-03T14:05:00+00:00', '2026-11-28T09:00:00+00:00'), 1)
    >>> read_times(["3. November 2026", "7 nov. 2026"]).format
    'day-month-name'
    """
    names = [f"row {name!r}" for name in rows] if rows is not None else [f"row {k + 1}" for k in range(len(values))]
    given = [(k, value) for k, value in enumerate(values) if not _is_missing(value)]
    asked, why = form is not None, ""
    if form is None:
        readings = {name: [parse(value) for _, value in given] for name, parse in PARSERS.items()}
        form, why = _choose(readings, [(names[k], value) for k, value in given], what)
        found = readings[form]
    else:
        found = [parser_of(form)(value) for _, value in given]
    unread = [f"{names[k]}: {_shown(value)}" for (k, value), each in zip(given, found, strict=True) if each is None]
    if len(unread) > _MOST_UNREAD * len(given):
        as_form = f" as {form}" if len(unread) < len(given) or asked else " in any known format"
        raise ValueError(
            f"{what}: {len(unread)} of {len(given)} values cannot be read{as_form}, such as "
            f"{' and '.join(unread[:2])}; {REMEDY}"
        )
    seconds: list[float | None] = [None] * len(values)
    for (k, _), each in zip(given, found, strict=True):
        seconds[k] = None if each is None else each.seconds
    return Times(
        seconds=tuple(seconds),
        format=form,
        why=why,
        unread=tuple(unread),
        missing=len(values) - len(given),
        zoned=sum(each is not None and each.zoned for each in found),
    )


def matching_fields(names: Iterable[str], usual: Sequence[str]) -> list[str]:
    """Which of the names are usual ones, in the order of those; case, spaces, ``_`` and ``-`` do not count.

    >>> matching_fields(["prompt", "createdAt", "Sent_at"], TIME_FIELDS)
    ['Sent_at', 'createdAt']
    """
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(_key(name), []).append(name)
    return [name for each in usual for name in by_key.get(_key(each), ())]


def _key(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", name).casefold()


# Which format.


def _choose(
    readings: Mapping[str, Sequence[ReadTime | None]], given: Sequence[tuple[str, Any]], what: str
) -> tuple[str, str]:
    """The format that reads the most; the first of equals, and day or month first only for a reason, which is told."""
    counts = {name: sum(each is not None for each in found) for name, found in readings.items()}
    best = max(counts, key=counts.__getitem__)  # of equals the first
    if best not in ("day-first", "month-first"):
        return best, ""
    pairs = list(zip(readings["day-first"], readings["month-first"], strict=True))
    days = [k for k, (day, month) in enumerate(pairs) if day is not None and month is None]
    months = [k for k, (day, month) in enumerate(pairs) if day is None and month is not None]
    if days and months:
        raise ValueError(
            f"{what}: {given[days[0]][0]}: {_shown(given[days[0]][1])} can only be day first and "
            f"{given[months[0]][0]}: {_shown(given[months[0]][1])} only month first, so one column has two formats; "
            f"{REMEDY}"
        )
    if days or months:
        k = (days or months)[0]
        return best, f"because {given[k][0]}: {_shown(given[k][1])} can be nothing else"
    if all(day is None or month is None or day.seconds == month.seconds for day, month in pairs):
        return "day-first", "which says the same as month-first"
    signs = {match["sign"] for _, value in given if (match := NUMBERS.fullmatch(as_text(value) or ""))}
    if signs == {"."}:
        return "day-first", "as dates with dots are written"
    ordered = [name for name in ("day-first", "month-first") if _in_order(readings[name])]
    if len(ordered) == 1:
        return ordered[0], "in which the rows are in order"
    unlike = [k for k, (day, month) in enumerate(pairs) if day and month and day.seconds != month.seconds]
    shown = [k for k in dict.fromkeys((unlike[0], unlike[-1], *range(len(given)))) if pairs[k][0] and pairs[k][1]][:2]
    both = "; ".join(
        f"{given[k][0]}: {_shown(given[k][1])} is {_day(pairs[k][0])} day first and {_day(pairs[k][1])} month first"
        for k in shown
    )
    raise ValueError(
        f"{what} may be day first or month first, and no value says which ({both}); give --time-format day-first or "
        "--time-format month-first"
    )


def _in_order(found: Sequence[ReadTime | None]) -> bool:
    seconds = [each.seconds for each in found if each is not None]
    pairs = list(pairwise(seconds))
    one_way = all(a <= b for a, b in pairs) or all(a >= b for a, b in pairs)
    return one_way and len(set(seconds)) >= _LEAST_ORDER


def _day(read: ReadTime | None) -> str:
    assert read is not None
    return datetime.fromtimestamp(read.seconds, UTC).strftime("%Y-%m-%d")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _is_missing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


# One value in one format.
