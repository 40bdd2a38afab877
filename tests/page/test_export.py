"""In and out: any file in, edits out, and what is out goes in again."""

import json

import pytest

from errata.data import iter_corrections, recognise_file, write_rows
from errata.edits import apply, diff
from errata.page.export import all_revisions, final_edits
from errata.page.items import items_of
from errata.page.progress import overview
from errata.page.store import Effort, NewItem
from errata.types import Ties

from .conftest import revision

CRLF = "😀 one\r\ntwo three\r\n"
TALK = [{"role": "user", "content": "Say it."}]


def written(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def worked(store):
    """Ada and Ben on two items: drafts, edits, a skip and a flag."""
    store.add_items(
        [
            NewItem(
                id="a", prompt="p", response="😀 one\r\ntwo three\r\n", response_ids=(3, 4), extra={"source": "log"}
            ),
            NewItem(id="b", prompt="p", response="It is good."),
        ]
    )
    store.add_annotator("ada")
    store.add_annotator("ben")
    store.set_overlap(2)
    effort = Effort(seconds=8.0, keystrokes=3, pastes=0)
    for who, texts in ((1, ["😀 one\ntwo four\n", "It is good."]), (2, ["😀 one\ntwo five\n", None])):
        for text in texts:
            task = store.next_task(who)
            response = store.work(who, task).item.response
            if text is None:
                store.save(who, task, revision(0, response, kind="submit", outcome="flag", note="look <b>"))
                continue
            store.save(who, task, revision(0, "a draft"))
            outcome = "good" if text == response else "edited"
            store.save(who, task, revision(1, text, kind="submit", outcome=outcome, reasons=["wrong"], effort=effort))
    return store


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_is_exported_is_imported(worked, tmp_path, suffix):
    for name, rows in (("final", final_edits), ("all", all_revisions)):
        path = tmp_path / f"{name}.{suffix}"
        write_rows(path, rows(worked))
        assert list(iter_corrections(path, form=recognise_file(path).format)) == list(rows(worked))


def test_final_edits(worked):
    rows = list(final_edits(worked))
    assert [row.id for row in rows] == ["a/ada", "a/ben", "b"]
    first = rows[0]
    assert (first.original, first.edited) == ("😀 one\r\ntwo three\r\n", "😀 one\r\ntwo four\r\n")
    assert (first.reasons, first.original_ids) == (("wrong",), (3, 4))
    kept = {"item": "a", "annotator": "ada", "outcome": "edited", "seconds": 8.0, "keystrokes": 3, "source": "log"}
    assert {**first.extra, **kept} == first.extra
    assert first.extra["seconds_a_word"] == 2.0
    assert (first.extra["original_breaks"], first.extra["breaks"]) == ("crlf", "crlf")
    changed = next(edit for edit in first.extra["edits"] if edit["op"] == "substitute")
    start, stop = changed["original"]
    assert first.original[start:stop] == "three"  # code points, behind an emoji
    assert apply(first.original, diff(first.original, first.edited, ties=Ties.DEPARTURE)) == first.edited


def test_all_revisions(worked):
    rows = list(all_revisions(worked))
    assert [row.id for row in rows] == ["a/ada/1", "a/ada/2", "b/ada/1", "b/ada/2", "a/ben/1", "a/ben/2", "b/ben/1"]
    assert [row.extra["kind"] for row in rows[:2]] == ["draft", "submit"]
    assert (rows[-1].extra["outcome"], rows[-1].extra["note"]) == ("flag", "look <b>")


def test_only_what_was_submitted_last_counts(worked):
    worked.save(1, 1, revision(2, "later draft"))
    assert next(final_edits(worked)).edited == "😀 one\r\ntwo four\r\n"
    worked.save(1, 1, revision(3, "x", kind="reopen"))
    assert [row.id for row in final_edits(worked)] == ["a", "b"]


def test_overview(worked):
    found = overview(worked)
    assert (found["items"], found["finished"], found["overlap"]) == (2, 2, 2)
    ada, ben = found["annotators"]
    assert (ada["done"], ada["outcomes"], ada["active_seconds"]) == (2, {"edited": 1, "good": 1}, 16.0)
    assert (ben["done"], ben["outcomes"]) == (2, {"edited": 1, "flag": 1})
    assert ada["median_seconds_a_word"] == pytest.approx((8 / 4 + 8 / 4) / 2)
    assert found["notes"] == [{"item": "b", "annotator": "ben", "outcome": "flag", "note": "look <b>"}]
    assert (found["statistics"]["rows"], found["statistics"]["words_substituted"]) == (3, 2)
    # Both changed the same one word of four, and filled no gap.
    assert found["agreement"] == {"items": 1, "words": 1.0, "gaps": None, "both": 1.0}


def test_responses_come_from_any_file(tmp_path):
    plain = written(tmp_path / "r.jsonl", [{"id": "x", "prompt": TALK, "response": "Hi", "reference": "Hello", "k": 1}])
    (item,) = items_of(plain)
    assert (item.id, item.prompt, item.response, item.reference) == ("x", TALK, "Hi", "Hello")
    assert item.extra == {"reference": "Hello", "k": 1}
    pairs = written(tmp_path / "p.jsonl", [{"prompt": "p", "rejected": "Hi", "chosen": "Hello", "rejected_ids": [1]}])
    (item,) = items_of(pairs)
    assert (item.response, item.reference, item.response_ids) == ("Hi", "Hello", (1,))
    spa = [{"instruction": "a", "input": "b", "output": "c", "original_output": "d", "revised_output": "e"}]
    (item,) = items_of(written(tmp_path / "s.jsonl", spa))
    assert (item.prompt, item.response, item.reference) == ("a\n\nb", "d", "e")


def test_fields_of_the_pages_own_names_are_renamed(store, tmp_path):
    rows = [{"id": "x", "prompt": "p", "response": "Hi", "note": "n", "annotator": "me", "reason": "r", "chosen": None}]
    store.add_items(items_of(written(tmp_path / "r.jsonl", rows)))
    store.add_annotator("ada")
    store.save(1, store.next_task(1), revision(0, "Ho", kind="submit", outcome="edited"))
    (row,) = final_edits(store)
    assert {name: row.extra[name] for name in ("source_note", "source_annotator", "source_reason")} == {
        "source_note": "n",
        "source_annotator": "me",
        "source_reason": "r",
    }
    assert row.extra["annotator"] == "ada"
    write_rows(tmp_path / "out.jsonl", [row])


def test_bad_rows_are_set_aside(tmp_path):
    path = written(tmp_path / "r.jsonl", [{"prompt": "p", "response": "Hi"}, {"prompt": "p", "response": 3}])
    assert [item.response for item in items_of(path, set_aside=tmp_path / "bad.jsonl")] == ["Hi"]
    assert "not a text" in (tmp_path / "bad.jsonl").read_text() or "neither" in (tmp_path / "bad.jsonl").read_text()
