"""No user and no prompt on both sides, time runs forward, and every row is used or counted."""

from __future__ import annotations

import random
import re
from datetime import date, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from errata.types import Correction
from errata.workflows import Split, SplitBy, prompt_key, read_time, split_rows


def log(count: int, *, prompts: int | None = None) -> list[Correction]:
    return [Correction(id=str(k), prompt=f"p{k % (prompts or count)}", original="a", edited="b") for k in range(count)]


def keys(rows: tuple[Correction, ...]) -> set[str]:
    return {prompt_key(row.prompt) for row in rows}


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Correction], list[str | None], list[float | None]]:
    count = draw(st.integers(8, 60))
    rng = random.Random(draw(st.integers(0, 99)))
    users = [rng.choice(["a", "b", "c", "d", None]) for _ in range(count)]
    times = [rng.choice([None, *map(float, range(20))]) for _ in range(count)]
    return log(count, prompts=draw(st.integers(2, count))), users, times


@given(logs(), st.sampled_from(["users-and-time", "users", "time", "prompt"]), st.sampled_from([0.1, 0.3, 0.5]))
def test_the_sides_share_nothing_and_every_row_is_accounted_for(
    made: tuple[list[Correction], list[str | None], list[float | None]], by: SplitBy, share: float
) -> None:
    rows, users, times = made
    try:
        found = split_rows(rows, share=share, users=users, times=times, by=by)
    except ValueError:  # a side is empty
        assume(False)
    assert not keys(found.train) & keys(found.heldout)
    assert len(found.train) + len(found.heldout) + sum(found.left_out.values()) == len(rows)
    assert all(found.left_out.values())
    who = [{users[int(row.id)] for row in side} for side in (found.train, found.heldout)]
    when = [[times[int(row.id)] for row in side] for side in (found.train, found.heldout)]
    if "users" in by:
        assert not who[0] & who[1]
        assert None not in who[0] | who[1]
        assert (found.train_users, found.heldout_users) == (len(who[0]), len(who[1]))
    if "time" in by:
        assert found.cut is not None
        assert max(when[0]) < found.cut <= min(when[1])
    assert found == split_rows(rows, share=share, users=users, times=times, by=by)


def test_users_and_time_make_both_sides_as_large_as_possible() -> None:
    """By hand: the two users of the later half are held out, and nothing but one early row of theirs is lost."""
    users = ["a", "b", "c"] * 4 + ["d", "e"] * 4
    times = [float(k) for k in range(20)]
    users[2] = "d"
    found = split_rows(log(20), share=0.4, users=users, times=times)
    assert found.by == "users-and-time"
    assert found.cut == 12
    assert {row.id for row in found.heldout} == {str(k) for k in range(12, 20)}
    assert len(found.train) == 11
    assert found.left_out == {"sent by held-out users before the cut in time": 1}


def test_users_who_are_always_there_cost_rows_and_they_are_counted() -> None:
    rng = random.Random(0)
    users = [rng.choice("abcdefghijklmnop") for _ in range(400)]
    found = split_rows(log(400), share=0.2, users=users, times=[float(k) for k in range(400)], by="users-and-time")
    assert 0.17 < len(found.heldout) / (len(found.heldout) + len(found.train)) < 0.23
    assert len(found.train) + len(found.heldout) > 200
    assert set(found.left_out) == {"sent by held-out users before the cut in time", "sent by other users after it"}


def test_by_time_the_newest_are_held_out_and_one_moment_stays_together() -> None:
    found = split_rows(log(10), share=0.2, times=[0, 1, 2, 3, 4, 5, 6, 7, 7, 7])
    assert found.by == "time"
    assert [row.id for row in found.heldout] == ["7", "8", "9"]
    assert found.train_users is None


def test_by_users_whole_users_fill_the_share() -> None:
    users = ["a"] * 50 + [f"u{k // 5}" for k in range(50)]
    found = split_rows(log(100), share=0.2, users=users)
    assert found.by == "users"
    assert len(found.heldout) == 20
    assert "a" not in {users[int(row.id)] for row in found.heldout}


def test_by_users_the_smallest_is_held_out_where_none_fits() -> None:
    found = split_rows(log(10), share=0.1, users=["a"] * 6 + ["b"] * 4)
    assert len(found.heldout) == 4


def test_by_prompt_rows_of_one_prompt_stay_together() -> None:
    rows = log(100, prompts=25)
    found = split_rows(rows, share=0.2)
    assert found.by == "prompt"
    assert (len(found.heldout), len(keys(found.heldout)), found.left_out) == (20, 5, {})


def test_a_prompt_that_is_held_out_is_not_trained_on() -> None:
    rows = [*log(9), Correction(id="9", prompt=" P0\n", original="a", edited="b")]
    found = split_rows(rows, share=0.1, times=[float(k) for k in range(10)])
    assert [row.id for row in found.heldout] == ["9"]
    assert len(found.train) == 8
    assert found.left_out == {"their prompt is held out, too": 1}


def test_one_user_or_one_time_is_as_good_as_none() -> None:
    one_user = split_rows(log(10), share=0.2, users=["a"] * 10, times=[float(k) for k in range(10)])
    one_time = split_rows(log(10), share=0.2, users=list("aabbccddee"), times=[1.0] * 10)
    assert (one_user.by, one_time.by) == ("time", "users")


@pytest.mark.parametrize(
    ("by", "users", "times", "said"),
    [
        ("users", None, None, "--user-field"),
        ("time", None, None, "--time-field"),
        ("users", ["a"] * 10, None, "they all have one user; give --split-by time or prompt"),
        ("time", None, [1.0] * 10, "they all have one time; give --split-by users or prompt"),
        ("users-and-time", ["a"] * 5 + ["b"] * 5, [1.0] * 10, "no cut in time leaves rows on both sides"),
        ("users", [None] * 10, None, "no row has what is needed"),
    ],
)
def test_a_side_that_is_empty_is_an_error_with_a_remedy(by: SplitBy, users, times, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=said):
        split_rows(log(10), share=0.2, users=users, times=times, by=by)


def test_one_prompt_for_all_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="has a prompt that is held out, too; give each row the prompt"):
        split_rows(log(10, prompts=1), share=0.2, times=[float(k) for k in range(10)], by="time")
    with pytest.raises(ValueError, match=r"they all have one prompt; give more rows .* --columns prompt=FIELD"):
        split_rows(log(10, prompts=1), share=0.2, by="prompt")
    for by, needed in (
        ("users", "a user; name the field .* --user-field, or"),
        ("time", "a time; .* --time-field, or"),
    ):
        with pytest.raises(ValueError, match=f"no row has what is needed, {needed} give another"):
            split_rows(log(10), share=0.2, users=[None] * 10, times=[None] * 10, by=by)
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_rows(log(10), share=1.0)


def test_times_as_files_have_them() -> None:
    day = 86400.0
    assert [read_time(value) for value in ("1970-01-02", "1970-01-02T00:00:00Z", "86400", 86400)] == [day] * 4
    assert read_time(date(1970, 1, 2)) == read_time(datetime(1970, 1, 2)) == day
    assert read_time("1970-01-02T01:00+01:00") == day
    assert read_time(1_700_000_000_000) == read_time(1_700_000_000) == 1.7e9
    assert [read_time(value) for value in ("", "soon", None, True, float("nan"), "03/04/2024", [])] == [None] * 7


def test_prompts_that_differ_in_case_and_space_are_one() -> None:
    talk = [{"role": "user", "content": "Hello  there"}]
    assert prompt_key(talk) == prompt_key([{"role": "user", "content": "hello\nthere"}])
    assert prompt_key(talk) != prompt_key([{"role": "system", "content": "Hello there"}])


def test_a_split_says_its_rule() -> None:
    found: Split = split_rows(log(10), share=0.2)
    assert "No prompt is on both sides" in found.rule


def test_auto_takes_the_strictest_rule_that_keeps_the_rows_and_says_what_it_gives_up() -> None:
    """Users who are always there: a cut by users and time would cost 38 of 100 rows."""
    rng = random.Random(0)
    users = [rng.choice("abcdefghijklmnop") for _ in range(400)]
    times = [float(k) for k in range(400)]
    found = split_rows(log(400), share=0.2, users=users, times=times)
    assert (found.by, found.left_out) == ("users", {})
    assert re.search(
        r"by users and time 1\d\d of 400 rows \(\d+ %\) would be lost, and at most 15 % may be", found.fallback
    )
    assert "nothing shows whether the gain lasts over time" in found.fallback
    # Three users are too few to prove anything by.
    found = split_rows(log(400), share=0.2, users=users, times=times, fewest_users=6)
    assert found.by == "time"
    assert "by users only 3 users would be held out, and 6 are needed" in found.fallback
    assert len(found.train) + len(found.heldout) == 400
    # Without times whole prompts are left.
    found = split_rows(log(400), share=0.2, users=users, fewest_users=6)
    assert found.by == "prompt"
    assert found.fallback.startswith("no field of the log says when; by users only")


def test_auto_leaves_no_rows_behind_that_do_not_say_who_sent_them() -> None:
    users = ["a", "b", None, None] * 25
    found = split_rows(log(100), share=0.2, users=users, times=[float(k) for k in range(100)])
    assert found.by == "time"
    assert "by users 50 of 100 rows (50 %) would be lost" in found.fallback
