"""The flags that say how a file is read: the same ones on every verb that reads rows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_type_hints

import pytest

import tiny
from errata.cli import main
from errata.commands import COMMANDS, load, parse
from errata.commands.shared import Source
from errata.data import FORMATS, read_corrections

READERS = {
    verb
    for verb, where in COMMANDS.items()
    if {"data", "edits", "log", "prompts", "references"} & {each.name for each in dataclasses.fields(load(where))}
}


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    rows = ["Frage;Antwort;Gesendet", "say one;dog sits;dog runs", "say two;cat sits;", ";;", "say é;cat sits;cat runs"]
    path.write_bytes("\n".join(rows).encode("cp1252"))
    return path


COLUMNS = ("--columns", "prompt=Frage", "draft=Antwort", "sent=Gesendet")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("model"))


def test_readers() -> None:
    assert {"learn", "labels", "doctor", "view", "edits import", "tune dpo", "reward eval", "generate"} <= READERS


@pytest.mark.parametrize("verb", sorted(READERS))
def test_every_verb_that_reads_rows_has_the_flags(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = get_type_hints(load(COMMANDS[verb]))["source"]
    assert issubclass(kind, Source)
    # Flags of the verb itself, and no others of these names: --source.columns would be none.
    with pytest.raises(SystemExit):
        parse(verb, ["--help-all"])
    told = capsys.readouterr().out
    assert all(flag in told for flag in ("--columns", "--encoding", "--delimiter", "--sep", "--from", "--empty-texts"))


def test_how() -> None:
    found = Source(columns=(("draft=a b",), ("sent=c", "prompt=d=e")), from_="spa")
    assert found.how == {
        "columns": {"draft": "a b", "sent": "c", "prompt": "d=e"},
        "encoding": None,
        "delimiter": None,
        "form": FORMATS["spa"],
        "empty_texts": "skip",
    }
    for wrong, message in (
        ("draft", "is not NAME=COLUMN"),
        ("draft=", "is not NAME=COLUMN"),
        ("sent=x", "given twice"),
    ):
        with pytest.raises(ValueError, match=message):
            _ = Source(columns=(("sent=c",), (wrong,))).how


def test_the_same_flags_everywhere(log: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (*COLUMNS, "--encoding", "cp1252", "--sep", ";")
    out = tmp_path / "edits.jsonl"
    assert run("edits", "import", "--data", log, "--out", out, *common) == 0
    assert [row.edited for row in read_corrections(out)] == ["dog runs", "cat runs"]
    aside = [json.loads(line) for line in (tmp_path / "edits.jsonl.bad_rows.jsonl").read_text().splitlines()]
    assert [(row["line"], row["error"].split(";")[0]) for row in aside] == [
        (3, "the text after the edit (sent, edited, chosen) is empty"),
        (4, "the row is empty"),
    ]
    assert run("labels", "--edits", log, "--model", model, "--out", tmp_path / "labels.jsonl", *common) == 0
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 2
    capsys.readouterr()
    assert run("edits", "diff", "--data", log, *common) == 0
    assert "2 corrections" in capsys.readouterr().out
    assert run("edits", "diff", "--data", log, *common, "--empty-texts", "keep") == 0
    assert "3 corrections" in capsys.readouterr().out
    assert run("doctor", "--data", log, "--model", model, *common) in (0, 3)
    assert "line 3" in capsys.readouterr().out
    assert run("view", "--edits", log, "--model", model, *common) == 0
    assert "2 of 2 rows shown" in capsys.readouterr().out


def test_columns_in_a_config_file(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "diff.yaml"
    config.write_text(f"data: {log}\ncolumns: {{prompt: Frage, draft: Antwort, sent: Gesendet}}\n")
    assert run("edits", "diff", "--config", config) == 0
    assert "2 corrections" in capsys.readouterr().out


def test_an_unknown_file_names_the_flag(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("edits", "stats", "--data", log) == 1
    told = capsys.readouterr().err
    assert "separator ';'; encoding cp1252; 3 columns: Frage, Antwort, Gesendet" in told
    assert "say which is which with --columns prompt=COLUMN draft=COLUMN sent=COLUMN" in told


def test_dpo_and_sequence_rewards_read_drafts_and_what_was_sent(log: Path, model: Path, tmp_path: Path) -> None:
    """As their help says: rows of any pair of names."""
    rows = "prompt,draft,sent\nsay one,dog sits,dog runs\nsay two,cat sits,\nsay six,cat sits,cat runs\n"
    log.write_text(rows)
    common = ("--model", model, "--data", log, "--epochs=1", "--batch-size=2", "--micro-batch-size=2")
    assert run("tune", "dpo", "--out", tmp_path / "dpo", *common) == 0
    assert run("reward", "train", "--kind=sequence", "--out", tmp_path / "reward", *common) == 0
    for name in ("dpo", "reward"):
        assert len((tmp_path / f"{name}.bad_rows.jsonl").read_text().splitlines()) == 1
