"""``--normalize`` in the verbs that read corrections: off unless asked for, but for line ends on import; counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from errata.cli import main
from errata.data import read_corrections
from errata.labels import read_labels

ROWS = [
    {"id": "ends", "prompt": "say\r\none", "rejected": "one two\ncat", "chosen": "one two\r\ncat"},
    {"id": "both", "prompt": "say two", "rejected": "rude one\ndog", "chosen": "one\r\ndog"},
    {"id": "ids", "prompt": "say", "rejected": "one\r\nrude", "chosen": "one\n", "rejected_ids": [6, 17]},
    {"id": "plain", "prompt": "say", "rejected": "one rude", "chosen": "one"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "edits.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("model"))


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def texts(path: Path) -> list[tuple[Any, str, str]]:
    return [(row.prompt, row.original, row.edited) for row in read_corrections(path)]


def test_import_folds_line_ends_and_counts_it(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.with_name("out.jsonl")
    assert run("edits", "import", "--data", data, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "4 corrections, 1 of them unchanged" in shown
    assert (
        "--normalize newlines folded 3 rows on both sides (newlines: 1 draft, 2 edited texts); 1 row became unchanged; "
        "1 row lost the sampled ids" in shown
    )
    assert texts(out)[:2] == [("say\r\none", "one two\ncat", "one two\ncat"), ("say two", "rude one\ndog", "one\ndog")]
    assert read_corrections(out)[2].original_ids is None
    assert run("edits", "import", "--data", data, "--out", out, "--normalize", "none") == 0
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "0 of them unchanged and 1 changed in white space only" in shown
    assert "3 of 4 changed rows hold edits that programs make and nobody meant, 1 of them (25.0%) nothing else" in shown
    assert "--normalize newlines" in shown
    assert texts(out) == [(row["prompt"], row["rejected"], row["chosen"]) for row in ROWS]


def test_stats_and_filter(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.with_name("stats.json")
    assert run("edits", "stats", "--data", data, "--out", out) == 0
    assert "newlines: in 3 rows, 1 of them nothing else" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (found["mechanical"]["rows"], found["mechanical"]["only"]) == ({"newlines": 3}, {"newlines": 1})
    assert found["normalized"]["kinds"] == []
    assert run("edits", "stats", "--data", data, "--out", out, "--normalize", "all") == 0
    found = json.loads(out.read_text())
    assert (found["mechanical"]["rows"], found["normalized"]["rows"], found["unchanged"]) == ({}, 3, 1)
    kept = data.with_name("kept.jsonl")
    assert run("edits", "filter", "--data", data, "--out", kept, "--unchanged", "drop") == 0
    assert len(read_corrections(kept)) == 4
    assert run("edits", "filter", "--data", data, "--out", kept, "--unchanged", "drop", "--normalize", "newlines") == 0
    assert len(read_corrections(kept)) == 3
    assert json.loads((data.parent / "kept.jsonl.report.json").read_text())["normalized"]["now_unchanged"] == 1
    assert run("edits", "filter", "--data", data, "--out", kept, "--min-edit-ratio", "0.1") == 0
    assert "edit ratio 0: white space changed, and no word" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["import", "stats", "filter"])
def test_a_kind_that_is_none_is_an_error_before_anything_is_read(
    verb: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = data.with_name("out.jsonl")
    assert run("edits", verb, "--data", data, "--out", out, "--normalize", "newline") == 1
    assert "did you mean newlines?" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_labels_of_other_kinds_are_made_anew(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finished parts of a run that was stopped are not taken for those of another --normalize."""
    out, rows = data.with_name("labels.jsonl"), [row for row in ROWS if row["id"] != "ids"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["labels", "--edits", data, "--model", model, "--out", out]
    with monkeypatch.context() as patch:
        patch.setattr("errata.labels.stream._join", lambda *_: (_ for _ in ()).throw(ValueError("stopped")))
        assert run(*line) == 1
    assert any(out.parent.glob(".labels.jsonl.parts/*"))
    assert run(*line, "--normalize", "newlines") == 0
    assert "--normalize newlines folded 2 rows" in " ".join(capsys.readouterr().out.split())
    assert [row.edited.text for row in read_labels(out, tiny.encoder())] == ["one two\ncat", "one\ndog", "one"]
    assert run("tune", "figa", "--labels", out, "--model", model, "--out", data.parent / "m", "--normalize=nfc") == 1
    assert "--normalize say how edits become labels" in " ".join(capsys.readouterr().err.split())


def test_figa_trains_on_what_is_folded(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in ROWS if row["id"] != "ids"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["tune", "figa", "--edits", data, "--heldout", data, "--model", model, "--epochs", "1", "--batch-size", "3"]
    cards = []
    for kinds in ("none", "newlines"):
        assert run(*line, "--out", data.parent / kinds, "--normalize", kinds) == 0
        cards.append(capsys.readouterr().out)
    assert "--normalize" not in cards[0]
    assert "--normalize newlines folded 2 rows" in cards[1]
    assert "held out: --normalize newlines folded 2 rows" in cards[1]


def test_the_doctor_warns_and_names_the_flag(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in ROWS if row["id"] != "ids"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = data.with_name("report.json")
    assert run("doctor", "--data", data, "--model", model, "--out", report) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "programs changed the texts, and it counts as edits (newlines in 2; 1 rows differ in nothing else)" in shown
    assert "fold it in both texts with --normalize newlines" in shown
    found = json.loads(report.read_text())
    assert [one["rows"] for one in found["findings"] if one["name"] == "mechanical_edits"] == [2]
    assert found["figures"]["changed_in_white_space_only"] == 1
    assert found["figures"]["mechanical_edits"] == {"newlines": 2}
    assert run("doctor", "--data", data, "--model", model, "--out", report, "--normalize", "newlines") == 0
    assert "mechanical_edits" not in [one["name"] for one in json.loads(report.read_text())["findings"]]


def test_the_doctor_keeps_quiet_below_one_row_in_twenty(data: Path, model: Path) -> None:
    few = [{**ROWS[3], "id": f"{k}", "prompt": f"say {k}"} for k in range(20)]
    report = data.with_name("report.json")
    for count, warned in ((20, False), (18, True)):  # 1 of 21 rows, and 1 of 19
        data.write_text("".join(json.dumps(row) + "\n" for row in [ROWS[1], *few[:count]]))
        assert run("doctor", "--data", data, "--model", model, "--out", report) == 0
        names = [one["name"] for one in json.loads(report.read_text())["findings"]]
        assert ("mechanical_edits" in names) == warned
