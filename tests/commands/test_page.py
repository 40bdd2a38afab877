"""The verbs of the edit page, as somebody types them."""

import json

import pytest

pytest.importorskip("fastapi", reason="needs errata[page]")
pytest.importorskip("sqlalchemy", reason="needs errata[page]")

from errata.cli import main
from errata.data import read_corrections
from errata.page import serve as serving
from errata.page.store import NewRevision, Store
from tiny import llama


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def responses(tmp_path, monkeypatch):
    monkeypatch.setattr(serving.uvicorn, "run", lambda app, **_: None)
    rows = [{"id": str(k), "prompt": "p", "response": f"The {k} lamp."} for k in range(3)]
    (tmp_path / "responses.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def finished(store, count):
    for _ in range(500):
        if store.next_task(1, new=True) is not None and len(store.tasks(1)) == count:
            return
        __import__("time").sleep(0.01)
    raise AssertionError(store.tasks(1))


def test_page_then_export_then_import(responses, capsys):
    db = responses / "edits.db"
    (responses / "guide.md").write_text("Be brief.")
    page = ("edits", "page", "--data", responses / "responses.jsonl", "--db", db)
    assert run(*page, "--annotators", "ada", "ben", "--overlap", "2", "--guideline", responses / "guide.md") == 0
    shown = capsys.readouterr().out
    assert shown.count("/#token=1.") == shown.count("/#token=2.") == shown.count("/admin#token=3.") == 1
    assert run(*page, "--annotators", "ada") == 0
    shown = capsys.readouterr().out
    assert "token=" not in shown
    assert "--new-links" in shown
    store = Store(f"sqlite:///{db}")
    assert (store.overlap, store.guideline().version) == (2, 1)
    finished(store, 3)
    for task, text, outcome in ((1, "The red lamp.", "edited"), (2, "The 1 lamp.", "good"), (3, "x", "flag")):
        save = NewRevision(base=0, save_id="12345678", kind="submit", text=text, outcome=outcome, reasons=["style"])
        store.save(1, task, save)
    store.close()
    out, revisions = responses / "final.jsonl", responses / "all.parquet"
    assert run("edits", "export", "--db", db, "--out", out, "--revisions", revisions) == 0
    assert "2 corrections, 1 of them unchanged" in capsys.readouterr().out
    for path, count in ((out, 2), (revisions, 3)):
        again = responses / f"{path.stem}.again.jsonl"
        assert run("edits", "import", "--data", path, "--out", again) == 0
        assert read_corrections(again) == read_corrections(path)
        assert len(read_corrections(again)) == count
    assert (
        run("labels", "--model", llama(responses / "model"), "--edits", out, "--out", responses / "labels.jsonl") == 0
    )
    labels = [json.loads(line) for line in (responses / "labels.jsonl").read_text().splitlines()]
    assert sorted({row["id"] for row in labels}) == ["0", "1"]
    assert run("edits", "filter", "--data", out, "--out", responses / "kept.jsonl", "--field", "annotator=ada") in (
        0,
        2,
    )


def test_an_edit_with_an_empty_text_is_left_out_and_counted(responses, capsys):
    db, out = responses / "edits.db", responses / "final.jsonl"
    assert run("edits", "page", "--data", responses / "responses.jsonl", "--db", db, "--annotators", "ada") == 0
    store = Store(f"sqlite:///{db}")
    finished(store, 3)
    for task, text in ((1, "The red lamp."), (2, " ")):
        save = NewRevision(base=0, save_id="12345678", kind="submit", text=text, outcome="edited", reasons=["style"])
        store.save(1, task, save)
    store.close()
    capsys.readouterr()
    assert run("edits", "export", "--db", db, "--out", out) == 0
    assert "1 edits were left out for an empty text, the first '1'; --empty-texts keep" in capsys.readouterr().out
    assert [row.edited for row in read_corrections(out)] == ["The red lamp."]
    assert run("edits", "export", "--db", db, "--out", out, "--empty-texts", "keep") == 0
    assert [row.edited for row in read_corrections(out, empty_texts="keep")] == ["The red lamp.", " "]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["page", "--db", "edits.db", "--host", "0.0.0.0"], "--annotators"),
        (["page", "--db", "edits.db", "--overlap", "0"], "--overlap"),
        (["page", "--db", "postgresql+pg8000://a@localhost/b"], "errata[postgres]"),
        (["export", "--db", "none.db", "--out", "x.jsonl"], "no database none.db"),
        (["export", "--db", "edits.db", "--out", "edits.db"], "another file"),
    ],
)
def test_mistakes_are_told_with_a_remedy(responses, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(responses)
    assert run("edits", *arguments) == 1
    assert said in capsys.readouterr().err


def test_a_database_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "edits.db").mkdir()
    assert run("edits", "page", "--db", tmp_path / "edits.db") == 1
    said = capsys.readouterr().err
    assert f"the database sqlite:///{tmp_path}/edits.db cannot be opened and written: unable to open" in said
    assert "name another --db" in said
