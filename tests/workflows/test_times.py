"""A column of times is read in the one format that it shows, or not at all; what cannot be read is counted."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import tiny
from errata.workflows import TIME_FORMATS, LearnConfig, LearnDetails, SplitBy, learn, read_times, split_rows
from errata.workflows.split import USER_FIELDS
from errata.workflows.times import TIME_FIELDS, matching_fields

from .test_split import log

AT = datetime(2026, 11, 23, 14, 5, tzinfo=UTC)
AS_WRITTEN = {
    "iso": [
        *("2026-11-23T14:05:00Z", "2026-11-23 14:05", "2026/11/23 14:05 UTC", "2026-11-23T15:05+01:00"),
        *(AT, "20261123T1405"),
    ],
    "day-first": [
        *("23/11/2026 14:05", "23.11.26, 14:05", "23. 11. 2026 14:05 Uhr", "Mon 23-11-2026 02:05 PM"),
        "23/11/2026 15:05 +0100",
    ],
    "month-first": ["11/23/26 14:05", "11/23/2026, 2:05:00\u202fPM", "11-23-2026 14:05"],
    "day-month-name": [
        *("23. November 2026 14:05", "23 nov. 2026 à 14h05", "Mo., 23. Nov 2026, 14:05 Uhr", "23 noviembre 2026 14:05"),
        *("Mon, 23 Nov 2026 15:05:00 +0100", "23-Nov-26 14:05", "23rd of November 2026 at 2:05 pm"),
    ],
    "month-name-day": [
        *("November 23, 2026 14:05", "Mon Nov 23 14:05:00 2026", "Mon Nov 23 2026 15:05:00 GMT+0100 (CET)"),
    ],
    "seconds": [AT.timestamp(), str(int(AT.timestamp()))],
    "milliseconds": [AT.timestamp() * 1e3, str(int(AT.timestamp() * 1000))],
    "microseconds": [int(AT.timestamp() * 1e6)],
    "nanoseconds": [int(AT.timestamp()) * 10**9],
    "excel": [46349 + (14 + 5 / 60) / 24, "46349.586805556"],
}  # fmt: skip


@pytest.mark.parametrize(("form", "value"), [(form, value) for form, values in AS_WRITTEN.items() for value in values])
def test_times_as_logs_have_them(form: str, value: Any) -> None:
    found = read_times([value, value, None, " "])
    assert found.format == form
    assert found.seconds[0] == pytest.approx(AT.timestamp(), abs=1)
    assert (found.read, found.missing, found.seconds[2:]) == (2, 2, (None, None))
    assert found.zoned == (2 if isinstance(value, datetime) or form.endswith("seconds") else found.zoned)
    assert read_times([value], form=form).seconds[0] == found.seconds[0]


def test_every_format_is_tested() -> None:
    assert AS_WRITTEN.keys() == TIME_FORMATS.keys()


@pytest.mark.parametrize(
    ("name", "month"),
    [
        ("März", 3),
        ("mrz.", 3),
        ("févr.", 2),
        ("Fev", 2),
        ("août", 8),
        ("juil.", 7),
        ("juin", 6),
        ("Dez.", 12),
        ("ago", 8),
    ],
)
def test_months_in_other_languages(name: str, month: int) -> None:
    assert read_times([f"3 {name} 2026"]).ends == ((f"2026-{month:02}-03T00:00:00+00:00",) * 2)


def test_a_month_that_may_be_two_is_not_read() -> None:
    with pytest.raises(
        ValueError, match="1 of 1 values cannot be read in any known format, such as row 1: '3 jui 2026'"
    ):
        read_times(["3 jui 2026"])


def test_one_value_decides_for_the_column() -> None:
    found = read_times(["03/11/2026", "13/11/2026"])
    assert (found.format, found.why) == ("day-first", "because row 2: '13/11/2026' can be nothing else")
    assert found.ends is not None
    assert found.ends[0].startswith("2026-11-03")
    assert read_times(["03/11/2026", "03/13/2026"]).ends[0].startswith("2026-03-11")  # type: ignore[index]


def test_what_may_be_day_or_month_first_is_asked_with_two_rows_and_both_readings() -> None:
    with pytest.raises(ValueError, match="may be day first") as error:
        read_times(["03/03/2026", "03/11/2026", "04/11/2026"], rows=["a", "b", "c"], what="field 'Sent at'")
    for said in (
        "field 'Sent at' may be day first or month first",
        "row 'b': '03/11/2026' is 2026-11-03 day first and 2026-03-11 month first",
        "row 'c': '04/11/2026' is 2026-11-04 day first and 2026-04-11 month first",
        "--time-format day-first or --time-format month-first",
    ):
        assert said in str(error.value)
    assert read_times(["03/11/2026"], form="month-first").ends[0].startswith("2026-03-11")  # type: ignore[index]
    assert read_times(["03/03/2026", "04/04/2026"]).why == "which says the same as month-first"
    assert read_times(["03.11.2026"]).why == "as dates with dots are written"


def test_the_order_of_the_rows_may_decide() -> None:
    days = [date(2026, 9, 3) + timedelta(days=40 * k) for k in range(4)] + [date(2027, 2, 1), date(2027, 2, 11)]
    written = [f"{day.day:02}/{day.month:02}/{day.year}" for day in (*days[:1], *days[4:])]
    with pytest.raises(ValueError, match="may be day first"):
        read_times(written)  # three rows are in order by chance
    column = [f"{day:02}/{month:02}/2026" for month in (10, 11, 12) for day in (3, 9)]
    found = read_times(column)
    assert (found.format, found.why) == ("day-first", "in which the rows are in order")
    assert read_times(column[::-1]).format == "day-first"


def test_two_formats_in_one_column_are_an_error_that_shows_both() -> None:
    with pytest.raises(
        ValueError, match=r"row 1: '13/01/2026' can only be day first and row 3: '01/13/2026' only month"
    ):
        read_times(["13/01/2026", "02/02/2026", "01/13/2026"] + ["02/03/2026"] * 60)


def test_a_few_that_cannot_be_read_are_counted_and_more_are_an_error() -> None:
    column = ["2026-11-23"] * 40
    found = read_times([*column, "soon", "later"])
    assert (found.read, found.unread) == (40, ("row 41: 'soon'", "row 42: 'later'"))
    assert "2 cannot be read, such as row 41: 'soon'" in str(found)
    assert found.as_dict()["unread"] == 2
    with pytest.raises(ValueError, match="3 of 43 values cannot be read as iso, such as row 41: 'soon' and row 42"):
        read_times([*column, "soon", "later", "14:05"])


def test_time_zones_are_told_of() -> None:
    tokyo = datetime(2026, 1, 2, 9, tzinfo=timezone(timedelta(hours=9)))
    found = read_times([tokyo, "2026-01-02T00:00:00", "2026-01-02T01:00+01:00"])
    assert len(set(found.seconds)) == 1
    assert "1 without a time zone are read as UTC, 2 name theirs" in str(found)
    assert "no time zone is named, so UTC is taken" in str(read_times(["2026-01-02"]))
    assert "zone" not in str(read_times([tokyo]))


def test_a_format_of_strptime() -> None:
    found = read_times(["2026 week 3 day 1", "2026 week 4 day 1"], form="%G week %V day %u")
    assert found.ends == ("2026-01-12T00:00:00+00:00", "2026-01-19T00:00:00+00:00")
    with pytest.raises(ValueError, match="2 of 2 values cannot be read as %Y"):
        read_times(["23/11/2026", "x"], form="%Y")
    with pytest.raises(ValueError, match="--time-format weekly is no format of times; give --time-format one of iso"):
        read_times(["x"], form="weekly")


def test_small_numbers_are_an_order_and_nothing_is_no_time() -> None:
    assert read_times(list(range(5))).seconds == (0, 1, 2, 3, 4)
    assert read_times([]).read == read_times([None, "", float("nan")]).read == 0
    assert str(read_times([None])) == "1 rows and no time"


@given(
    st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2068, 1, 1)), min_size=1, max_size=9), st.sampled_from("/.-")
)
def test_whatever_is_written_is_read_back(times: list[datetime], sign: str) -> None:
    whole = [each.replace(microsecond=0) for each in times]
    for form, written in (("day-first", f"%d{sign}%m{sign}%Y %H:%M:%S"), ("iso", "%Y-%m-%dT%H:%M:%S")):
        found = read_times([each.strftime(written) for each in whole], form=form)
        assert list(found.seconds) == [each.replace(tzinfo=UTC).timestamp() for each in whole]


def test_fields_are_found_however_they_are_spelled() -> None:
    for name in ("Sent at", "sent_at", "SENT-AT", "created_at", "Created At", "createdAt", "timestamp", "Date"):
        assert matching_fields(["prompt", name], TIME_FIELDS) == [name]
    assert matching_fields(["created_at", "note", "Date"], TIME_FIELDS) == ["Date", "created_at"]


# What can be split by what.

USERS = {0: [None] * 12, 1: ["a"] * 12, 2: list("aaaaaabbbbbb")}
TIMES = {0: [None] * 12, 1: [1.0] * 12, 2: [1.0, None, *map(float, range(2, 12))]}


@pytest.mark.parametrize("by", ["auto", "users-and-time", "users", "time", "prompt"])
@pytest.mark.parametrize("users", [None, 0, 1, 2])
@pytest.mark.parametrize("times", [None, 0, 1, 2])
def test_every_split_works_or_says_what_to_do(by: SplitBy, users: int | None, times: int | None) -> None:
    given_users = None if users is None else USERS[users]
    given_times = None if times is None else TIMES[times]
    possible = {
        "auto": True,
        "prompt": True,
        "users": users == 2,
        "time": times == 2,
        "users-and-time": users == 2 and times == 2,
    }
    if possible[by]:
        found = split_rows(log(12), share=0.4, users=given_users, times=given_times, by=by)
        assert found.train
        assert found.heldout
        assert bool(found.fallback) == (by == "auto" and not possible["users-and-time"])
        expected = (
            "users-and-time" if users == times == 2 else "users" if users == 2 else "time" if times == 2 else "prompt"
        )
        assert found.by == (expected if by == "auto" else by)
    else:
        with pytest.raises(ValueError, match=r"; (name|give) .*--"):
            split_rows(log(12), share=0.4, users=given_users, times=given_times, by=by)


def test_a_fallback_says_its_reason() -> None:
    assert split_rows(log(12), share=0.4).fallback == (
        "no field of the log says who sent a row; no field of the log says when; "
        "so nothing shows whether other users gain, or whether it lasts over time"
    )
    one = split_rows(log(12), share=0.4, users=USERS[1], times=TIMES[0])
    assert one.fallback.startswith("all rows that name a user name the same one; no row names a time; so nothing")


def test_what_loses_too_many_rows_is_not_taken() -> None:
    """At most 15 of 100: of 6 rows not the one without a time, and not half of them where everybody is always there."""
    few = split_rows(log(6), share=0.4, times=[1.0, None, 2.0, 3.0, 4.0, 5.0])
    assert (few.by, "by time 1 of 6 rows (17 %) would be lost, and at most 15 % may be" in few.fallback) == (
        "prompt",
        True,
    )
    mixed = split_rows(log(12), share=0.4, users=list("ab" * 6), times=list(map(float, range(12))))
    assert mixed.by == "users"
    assert re.match(r"by users and time \d of 12 rows \(\d\d %\) would be lost", mixed.fallback)


# In a run.


def logged(path: Path, **columns: list[Any]) -> Path:
    rows = [
        {
            "prompt": row.prompt + f" {k}",
            "draft": row.original,
            "sent": row.edited,
            **{n: v[k] for n, v in columns.items()},
        }
        for k, row in enumerate(tiny.corrections(40))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(log: Path, out: Path, **details: Any) -> tuple[dict[str, Any], str]:
    """What the first stages count and say; nothing is trained, for want of rows."""
    shown = io.StringIO()
    model = log.parent / "model"
    if not model.exists():
        tiny.llama(model)
    settings = replace(LearnDetails(min_rows=1000, method="sft"), **details)
    with pytest.raises(ValueError, match="are needed"):
        learn(log, model, out, LearnConfig(), settings, console=Console(file=shown, width=60))
    return json.loads((out / "log" / "counts.json").read_text()), shown.getvalue()


def test_a_run_reads_the_column_and_says_so(tmp_path: Path) -> None:
    at = [f"{1 + k % 28:02}/11/2026 {k % 24:02}:05" for k in range(40)]
    path = logged(tmp_path / "log.jsonl", **{"Sent at": at, "created_at": ["x"] * 40, "User": list("abcd") * 10})
    counts, shown = read(path, tmp_path / "run")
    assert (counts["time_field"], counts["user_field"]) == ("Sent at", "User")
    times = counts["times"]
    assert (times["format"], times["read"], times["unread"], times["missing"]) == ("day-first", 40, 0, 0)
    assert times["first"].startswith("2026-11-01")
    assert "'Sent at': 40 times read as day-first (day/month/year), because row 'row-13'" in shown
    assert "'created_at' may say when, too; --time-field 'created_at' takes it" in shown
    assert "split by time" in shown
    assert re.search(r"not by users and time: by users and time \d+ of 40 rows \(\d+ %\) would be lost", shown)
    early = [f"{1 + k // 2:02}/11/2026 {k % 24:02}:05" for k in range(40)]
    whole = logged(tmp_path / "whole.jsonl", **{"Sent at": early, "User": [f"user {k}" for k in range(40)]})
    _, shown = read(whole, tmp_path / "whole")
    assert "split by users-and-time" in shown
    assert "not by users and time" not in shown


def test_a_column_that_cannot_be_read_is_an_error_and_another_one_is_taken(tmp_path: Path) -> None:
    soon = logged(tmp_path / "soon.jsonl", date=["soon"] * 40)
    tiny.llama(tmp_path / "model")
    for details, said in (
        (
            LearnDetails(),
            "field 'date': 40 of 40 values cannot be read in any known format, such as row 'row-1': 'soon'",
        ),
        (LearnDetails(time_field="Date"), "field 'date': 40 of 40 values cannot be read"),
        (LearnDetails(time_field="none", time_format="iso"), "--time-format iso has no field to read"),
        (LearnDetails(time_field="none", split_by="users-and-time"), "the log names no user"),
    ):
        with pytest.raises(ValueError, match=said):
            learn(
                soon, tmp_path / "model", tmp_path / "run", LearnConfig(), details, console=Console(file=io.StringIO())
            )
    counts, shown = read(soon, tmp_path / "none", time_field="none")
    assert counts["times"] is None
    assert "not by users and time: no field of the log says who sent a row; no field of the log says when" in shown
    both = logged(tmp_path / "both.jsonl", time=["14:05"] * 40, date=[f"2026-01-{1 + k % 28:02}" for k in range(40)])
    counts, shown = read(both, tmp_path / "both")
    assert counts["time_field"] == "date"
    assert "'time' may say when, too; --time-field 'time' takes it (it was passed over: field 'time'" in shown


def test_a_run_folds_line_ends_and_counts_it(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"say {k}", "draft": "one\ntwo", "sent": "one\r\ntwo" if k % 2 else "one\r\nsix’s"}
        for k in range(40)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts, shown = read(path, tmp_path / "run")
    assert (counts["unchanged"], counts["normalized"]["rows"], counts["normalized"]["now_unchanged"]) == (20, 40, 20)
    assert counts["mechanical"]["rows"] == {}
    assert "--normalize newlines folded 40 rows on both sides" in shown
    counts, shown = read(path, tmp_path / "none", normalize="none")
    assert (counts["unchanged"], counts["normalized"]["rows"]) == (0, 0)
    assert counts["mechanical"]["only"] == {"newlines": 20}
    assert "20 of them (50.0%) nothing else" in shown


def test_the_column_of_a_support_team_says_who() -> None:
    assert matching_fields(["prompt", "Agent"], USER_FIELDS) == ["Agent"]
    assert matching_fields(["agent", "User ID"], USER_FIELDS) == ["User ID", "agent"]
