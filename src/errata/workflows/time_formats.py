"""How times are written, and how each way is read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from math import isfinite
from typing import Any, NamedTuple

__all__ = ["NUMBERS", "PARSERS", "REMEDY", "TIME_FORMATS", "ReadTime", "as_text", "parser_of"]

_EXCEL_DAY_0 = datetime(1899, 12, 30, tzinfo=UTC)

_EXCEL_DAYS = (20_000, 80_000)  # 1954 to 2119


class ReadTime(NamedTuple):
    """A time as it was read."""

    seconds: float
    zoned: bool
    """Whether the value says its time zone."""


_Parse = Callable[[Any], ReadTime | None]

_CLOCK = (
    r"(?:(?:,?\s(?:at\s|um\s|à\s)?|T)(?:(?P<hour>\d{1,2})[:.h](?P<minute>\d\d)(?:[:.](?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"(?:\s?(?P<half>[ap])\.?m\.?)?(?:\sUhr)?))?"
)

_ZONE = r"(?:\s?(?P<zone>Z|(?:UTC|GMT)?[+-]\d\d:?\d\d|UTC|GMT)(?:\s\([^)]*\))?)?"

_WEEKDAY = (
    r"(?:(?:mo|di|mi|do|fr|sa|so|lun|mar|mer|jeu|ven|sam|dim|mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?:mon|diens|donners|frei|sams|sonn)tag|mittwoch|sonnabend|"
    r"(?:lun|mar|mercre|jeu|vendre|same)di|dimanche)[.,]{0,2}\s)?"
)


def _pattern(day: str, *, clock: str = _CLOCK + _ZONE) -> re.Pattern[str]:
    return re.compile(_WEEKDAY + day + clock, re.IGNORECASE)


_YEAR_FIRST = _pattern(r"(?P<year>\d{4})(?P<sign>[-/.])(?P<month>\d{1,2})(?P=sign)(?P<day>\d{1,2})")

NUMBERS = _pattern(r"(?P<one>\d{1,2})(?P<sign>[-/.])\s?(?P<two>\d{1,2})(?P=sign)\s?(?P<year>\d{4}|\d\d)")

_DAY_NAME = _pattern(
    r"(?P<day>\d{1,2})(?:\.|st|nd|rd|th|er)?[\s-]?(?:of\s|de\s)?(?P<name>[^\W\d_]{3,})\.?,?[\s-]?(?:de\s)?(?P<year>\d{4}|\d\d)"
)

_NAME_DAY = _pattern(r"(?P<name>[^\W\d_]{3,})\.?\s(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s(?P<year>\d{4})")

_NAME_DAY_CLOCK = _pattern(r"(?P<name>[^\W\d_]{3,})\s(?P<day>\d{1,2})", clock=_CLOCK + _ZONE + r"\s(?P<year>\d{4})")

_MONTHS = (
    "january january januar jänner janvier enero gennaio januari janeiro",
    "february februar février febrero febbraio februari fevereiro",
    "march märz mrz mars marzo maart março",
    "april avril abril aprile",
    "may mai mayo maggio mei maio",
    "june juni juin junio giugno junho",
    "july juli juillet julio luglio julho",
    "august août agosto augustus",
    "september septembre septiembre setiembre settembre setembro",
    "october oktober octobre octubre ottobre outubro",
    "november novembre noviembre novembro",
    "december dezember décembre diciembre dicembre dezembro",
)
"""In English, German, French, Spanish, Italian, Dutch and Portuguese; any beginning of three letters or more counts."""


def _without_accents(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))


def _months() -> dict[str, int]:
    found: dict[str, set[int]] = {}
    for number, names in enumerate(_MONTHS, start=1):
        for name in _without_accents(names).split():
            for stop in range(3, len(name) + 1):
                found.setdefault(name[:stop], set()).add(number)
    return {name: min(numbers) for name, numbers in found.items() if len(numbers) == 1}


_MONTH_OF = _months()  # "jui" is in it for neither of juin and juillet


def _moment(when: datetime) -> ReadTime | None:
    try:
        return ReadTime((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp(), when.tzinfo is not None)
    except (OverflowError, ValueError):
        return None


def _from_match(match: re.Match[str] | None, **more: int) -> ReadTime | None:
    """The moment that the groups of a pattern say; ``more`` says day and month where the pattern does not."""
    if match is None:
        return None
    parts = {name: int(match[name]) for name in ("year", "month", "day") if name in match.re.groupindex} | more
    if len(match["year"]) == 2:
        parts["year"] += 2000 if parts["year"] < 69 else 1900
    hour = int(match["hour"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (match["half"].lower() == "p")
    micros = int((match["part"] or "0")[:6].ljust(6, "0"))
    try:
        return _moment(
            datetime(
                parts["year"],
                parts["month"],
                parts["day"],
                hour,
                int(match["minute"] or 0),
                int(match["second"] or 0),
                micros,
                tzinfo=_zone(match["zone"]),
            )
        )
    except ValueError:  # no such day
        return None


def _zone(text: str | None) -> Any:
    if text is None:
        return None
    offset = re.sub("UTC|GMT|Z|:", "", text.upper())
    return datetime.strptime(offset, "%z").tzinfo if offset else UTC


def as_text(value: Any) -> str | None:
    """A value as text, without blanks around it."""
    return " ".join(value.split()) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and isfinite(value) else None


def _iso_8601(value: Any) -> ReadTime | None:
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, date):
        return _moment(datetime.combine(value, time()))
    if isinstance(value, int) and not isinstance(value, bool) and 19000101 <= value < 21000101:
        value = str(value)
    text = as_text(value)
    if text is None or ((number := _number(text)) is not None and not 19000101 <= number < 21000101):
        return None
    try:
        return _moment(datetime.fromisoformat(text))
    except ValueError:
        return _from_match(_YEAR_FIRST.fullmatch(text))


def _of_numbers(value: Any, *, day: str, month: str) -> ReadTime | None:
    match = NUMBERS.fullmatch(as_text(value) or "")
    return match and _from_match(match, day=int(match[day]), month=int(match[month]))


def _named(value: Any, *patterns: re.Pattern[str]) -> ReadTime | None:
    for pattern in patterns:
        match = pattern.fullmatch(as_text(value) or "")
        if match and (month := _MONTH_OF.get(_without_accents(match["name"]))):
            return _from_match(match, month=month)
    return None


def _excel(value: Any) -> ReadTime | None:
    number = _number(value)
    if number is None or not _EXCEL_DAYS[0] <= number <= _EXCEL_DAYS[1]:
        return None
    return ReadTime((_EXCEL_DAY_0 + timedelta(days=number)).timestamp(), False)


def _since_1970(value: Any, *, low: float, high: float, unit: float) -> ReadTime | None:
    number = _number(value)
    return None if number is None or not low <= abs(number) < high else ReadTime(number / unit, True)


def parser_of(form: str) -> _Parse:
    """How times of a format are read."""
    if form in PARSERS:
        return PARSERS[form]
    if "%" not in form:
        raise ValueError(f"--time-format {form} is no format of times; {REMEDY}")

    def parse(value: Any) -> ReadTime | None:
        try:
            return _moment(datetime.strptime(str(value).strip(), form))
        except ValueError:
            return None

    return parse


TIME_FORMATS: Mapping[str, str] = {
    "iso": "year-month-day, ISO 8601",
    "day-first": "day/month/year",
    "month-first": "month/day/year",
    "day-month-name": "3 November 2026",
    "month-name-day": "November 3, 2026",
    "excel": "days since 1899-12-30, as spreadsheets count",
    "seconds": "seconds since 1970",
    "milliseconds": "milliseconds since 1970",
    "microseconds": "microseconds since 1970",
    "nanoseconds": "nanoseconds since 1970",
}
"""The formats that are tried, by name: what ``--time-format`` takes besides a format of ``strptime``."""

PARSERS: Mapping[str, _Parse] = {
    "iso": _iso_8601,
    "day-first": lambda value: _of_numbers(value, day="one", month="two"),
    "month-first": lambda value: _of_numbers(value, day="two", month="one"),
    "day-month-name": lambda value: _named(value, _DAY_NAME),
    "month-name-day": lambda value: _named(value, _NAME_DAY, _NAME_DAY_CLOCK),
    "excel": _excel,  # before seconds: nobody logged on the first day of 1970
    "seconds": lambda value: _since_1970(value, low=0, high=1e11, unit=1),
    "milliseconds": lambda value: _since_1970(value, low=1e11, high=1e13, unit=1e3),
    "microseconds": lambda value: _since_1970(value, low=1e14, high=1e16, unit=1e6),
    "nanoseconds": lambda value: _since_1970(value, low=1e17, high=1e19, unit=1e9),
}

REMEDY = (
    f"give --time-format one of {', '.join(TIME_FORMATS)}, or a strptime format such as '%d.%m.%Y %H:%M', "
    "--time-field another field, or --time-field none"
)
