"""In and out: any file in, edits out, and what is out goes in again."""

import json

import pytest

from data.test_formats import ROWS
from errata.data import FORMATS, iter_corrections, recognise_file, write_rows
from errata.edits import apply, diff
from errata.page.export import all_revisions, final_edits
from errata.page.items import items_of
from errata.page.store import Store
from errata.types import Ties

from .conftest import revision


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


CRLF = "😀 one\r\ntwo three\r\n"
TALK = [{"role": "user", "content": "Say it."}]


def written(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


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


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_every_format_goes_in_and_what_comes_out_goes_in_again(store, tmp_path, name, suffix):
    row, given = ROWS[name]
    rows = [{**row, "id": "first"}, {**row, "id": "second"}] if name != "hh-rlhf" else [row, row]
    path = written(tmp_path / "rows.jsonl", rows)
    store.add_items(items_of(path, form=FORMATS[name]))
    store.add_annotator("ada")
    for text, outcome in ((f"{given.original} 😀\n", "edited"), (given.original, "good")):
        save = revision(0, text, kind="submit", outcome=outcome, reasons=["wrong"] * (outcome == "edited"))
        store.save(1, store.next_task(1), save)
    for rows_of in (final_edits, all_revisions):
        out = tmp_path / f"{rows_of.__name__}.{suffix}"
        write_rows(out, rows_of(store))
        again = list(iter_corrections(out, form=recognise_file(out).format))
        assert again == list(rows_of(store))
        assert [row.edited for row in again] == [f"{given.original} 😀\n", given.original]
        assert (again[0].prompt, again[0].original) == (given.prompt, given.original)
    # As responses to correct, too, twice over, and nothing that travels with them is lost.
    for generation in ("once", "twice"):
        other = Store(f"sqlite:///{tmp_path / generation}.db")
        other.add_items(items_of(out))
        other.add_annotator("ben")
        other.save(1, other.next_task(1), revision(0, "again", kind="submit", outcome="edited"))
        (row,) = final_edits(other)
        write_rows(out, [row])
        other.close()
    found = [row.extra[f"{source}annotator"] for source in ("", "source_", "source_source_")]
    assert found == ["ben", "ada", "ben"]


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
