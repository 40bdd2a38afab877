"""The admin's figures: over all edits, each compared once, and the same as those of ``errata edits stats``."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errata.edits import statistics
from errata.page.agreement import alpha, units_of
from errata.page.export import final_edits
from errata.page.progress import Overview
from errata.page.show import edits_to_show
from errata.page.store import Effort, NewItem, Revision, Store, Task

from .conftest import revision

SHOWN = (
    "rows",
    "share_unchanged",
    "median_edit_ratio",
    "words_typed",
    "words_deleted",
    "reasons",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


def test_overview(worked):
    found = Overview(worked).look()
    assert (found["items"], found["finished"], found["overlap"]) == (2, 2, 2)
    ada, ben = found["annotators"]
    assert (ada["done"], ada["outcomes"], ada["active_seconds"]) == (2, {"edited": 1, "good": 1}, 16.0)
    assert (ben["done"], ben["outcomes"]) == (2, {"edited": 1, "flag": 1})
    assert ada["keystrokes"] == 6
    assert ada["median_seconds_a_word"] == pytest.approx((8 / 4 + 8 / 4) / 2)
    assert found["notes"] == [{"item": "b", "annotator": "ben", "outcome": "flag", "note": "look <b>"}]
    assert (found["statistics"]["rows"], found["statistics"]["words_typed"], found["too_long"]) == (3, 2, 0)
    # Both changed the same one word of four, and filled no gap.
    assert found["agreement"] == {"items": 1, "words": 1.0, "gaps": None, "both": 1.0}


WORDS = st.lists(st.sampled_from(["a", "b", "c", "\n", "d."]), max_size=8).map(" ".join)


@settings(max_examples=10)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5))
def test_the_figures_are_those_of_errata_edits(texts):
    store = Store("sqlite://")
    store.set_overlap(2)
    store.add_items(NewItem(id=str(k), prompt="", response=row[0]) for k, row in enumerate(texts))
    overview = Overview(store)
    for who, name in enumerate(("ada", "ben"), start=1):
        store.add_annotator(name)
        for row in texts:
            task = store.next_task(who)
            outcome = "good" if row[0] == row[who] else "edited"
            more = {"kind": "submit", "outcome": outcome, "reasons": [name, name], "effort": Effort(seconds=1)}
            store.save(who, task, revision(0, row[who], **more))
        found = overview.look()  # and again, from what is kept
        expected = statistics(final_edits(store)).as_dict()
        assert {each: found["statistics"][each] for each in SHOWN} == {
            each: pytest.approx(expected[each]) for each in SHOWN
        }
        assert found["statistics"]["substituted"] == list(expected["substituted"])
    units = [unit for row in texts for unit in units_of(row[0], [edits_to_show(row[0], row[who]) for who in (1, 2)])]
    assert found["agreement"]["both"] == pytest.approx(alpha(values for _, values in units))
    store.close()


def test_what_was_taken_back_counts_no_more(worked):
    overview = Overview(worked)
    before = overview.look()
    worked.save(1, 1, revision(2, "x", kind="reopen"))
    after = overview.look()
    assert (before["statistics"]["rows"], after["statistics"]["rows"]) == (3, 2)
    assert (before["agreement"]["items"], after["agreement"]["items"]) == (1, 0)
    worked.save(1, 1, revision(3, "Quite different.", kind="submit", outcome="edited"))
    again = overview.look()
    assert again["statistics"]["words_typed"] > before["statistics"]["words_typed"]
    assert again["agreement"]["both"] < 1
    assert again == Overview(worked).look()


def test_nothing_is_compared_twice(worked, monkeypatch):
    monkeypatch.setattr("errata.page.show.diff", None)
    overview = Overview(worked)
    first = overview.look()
    monkeypatch.setattr("errata.page.progress.edits_from", None)  # the second look reads no text again
    assert overview.look() == first
    assert [row.extra["edits"] is None for row in final_edits(worked)] == [False] * 3


def test_texts_too_long_to_compare_are_counted(worked, monkeypatch):
    monkeypatch.setattr("errata.page.show.LENGTH", 1)
    worked.save(1, 1, revision(2, "x" * 50, kind="submit", outcome="edited"))
    found = Overview(worked).look()
    assert (found["statistics"]["rows"], found["too_long"]) == (2, 1)
    assert next(final_edits(worked)).extra["edits"] is None


def test_all_edits_count_and_the_second_look_is_quick(store):
    size = 2300  # a page that stopped somewhere would stop before
    store.add_annotator("ada")
    store.add_items(NewItem(id=str(k), prompt="", response=f"The {k} lamp.") for k in range(size))
    one = store.save(1, store.next_task(1), revision(0, "A lamp.", kind="submit", outcome="edited"))
    columns = {column.name: getattr(one, column.name) for column in Revision.__table__.columns}
    with store.write() as session:  # the others at once, since each save waits for the disk
        for k in range(2, size + 1):
            session.add(Task(number=k, item=k, annotator=1, leased_until=0, head=1, final=1, outcome="edited"))
        session.flush()
        session.add_all(Revision(**columns | {"number": k, "task": k}) for k in range(2, size + 1))
    overview = Overview(store)
    first = overview.look()
    assert first["statistics"]["rows"] == first["statistics"]["changed"] == size
    started = time.perf_counter()
    assert overview.look() == first
    assert time.perf_counter() - started < 5
