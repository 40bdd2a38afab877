"""``errata edits stats`` and ``errata edits filter``, on files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from errata.cli import main
from errata.commands import curation
from errata.data import LongRow, read_corrections

ROWS = [
    {"id": "good", "prompt": "p", "rejected": "all is well", "chosen": "all is well"},
    {
        "id": "small",
        "prompt": "p",
        "rejected": "it costs six euros",
        "chosen": "it costs 7 euros now",
        "annotator": "ann",
    },
    {"id": "large", "prompt": "p", "rejected": "no", "chosen": "Dear Ada, we are sorry", "reason": "style"},
    {
        "id": "again",
        "prompt": "p",
        "rejected": "it costs six euros",
        "chosen": "it costs 7  euros now",
        "annotator": "ann",
    },
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "edits.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_stats(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.with_name("stats.json")
    assert run("edits", "stats", "--data", data, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "4 corrections: 1 unchanged" in shown
    found = json.loads(out.read_text())
    assert (found["rows"], found["unchanged"], found["same"], found["reasons"]) == (4, 1, 1, {"style": 1})
    assert found["unknowable"] == {"number": 2, "link": 0, "name": 1}


def test_a_ratio_is_no_percentage(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("edits", "filter", "--data", data, "--out", data.with_name("kept.jsonl"), "--max-edit-ratio=50") == 1
    assert "--max-edit-ratio 50 is out of range: give a number from 0 to 1" in capsys.readouterr().err


def test_filter(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.with_name("kept.jsonl")
    assert run("edits", "filter", "--data", data, "--out", out, "--max-edit-ratio=0.5", "--duplicates=drop-same") == 0
    shown = capsys.readouterr().out
    assert "edit ratio from 0 to 0.5: 3 of 4 kept" in shown
    assert "dropped large, edit ratio 1.00: 'no' → 'Dear Ada, we are sorry'" in shown
    assert "2 of 4 rows kept, 1 of them unchanged" in shown
    assert [row.id for row in read_corrections(out)] == ["good", "small"]
    assert lines(out)[1]["annotator"] == "ann"
    dropped = lines(data.with_name("kept.jsonl.dropped.jsonl"))
    assert dropped[0] == {
        "id": "large",
        "dropped_by": "edit ratio from 0 to 0.5",
        "dropped_because": "edit ratio 1.00",
        "prompt": "p",
        "rejected": "no",
        "chosen": "Dear Ada, we are sorry",
        "reason": ["style"],
    }
    assert (dropped[1]["id"], dropped[1]["dropped_because"]) == ("again", "same as a row before")
    report = json.loads(data.with_name("kept.jsonl.report.json").read_text())
    assert (report["rows"], report["kept"], report["kept_unchanged"]) == (4, 2, 1)


def test_every_flag_is_its_filter(data: Path) -> None:
    out = data.with_name("kept.jsonl")
    for flags, ids in {
        ("--unchanged=drop",): ["small", "large", "again"],
        ("--field", "annotator=ann,bob"): ["small", "again"],
        ("--reason", "style", "wrong"): ["good", "large"],
        ("--min-original-words=4",): ["small", "again"],
        ("--max-original-words=3",): ["good", "large"],
        ("--min-edited-words=5",): ["small", "large", "again"],
        ("--max-edited-words=3",): ["good"],
        ("--min-edit-ratio=0.5",): ["good", "large"],
        ("--duplicates=drop-near",): ["good", "small", "large"],
    }.items():
        assert run("edits", "filter", "--data", data, "--out", out, *flags) == 0
        assert [row.id for row in read_corrections(out)] == ids, flags


def test_what_was_dropped_can_be_filtered_again(data: Path) -> None:
    first, second = data.with_name("first.jsonl"), data.with_name("second.jsonl")
    assert run("edits", "filter", "--data", data, "--out", first, "--max-edit-ratio=0.3") == 0
    dropped = data.with_name("first.jsonl.dropped.jsonl")
    assert run("edits", "filter", "--data", dropped, "--out", second, "--max-edit-ratio=0.5") == 0
    assert [row.id for row in read_corrections(second)] == ["small", "again"]
    (large,) = lines(data.with_name("second.jsonl.dropped.jsonl"))
    assert (large["id"], large["dropped_by"]) == ("large", "edit ratio from 0 to 0.5")


def test_reward(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is handed in; that a real one loads and scores is tested where it is made."""

    class Encoder:
        long = "never"

        def encode_all(self, prompts: list[str], responses: list[str], sampled: list[None]) -> list[str | LongRow]:
            assert not any(sampled)
            pairs = zip(prompts, responses, strict=True)
            return [LongRow("long") if self.long in response else f"{prompt}|{response}" for prompt, response in pairs]

    monkeypatch.setattr(curation.EncodingFlags, "encoder", lambda self, model: Encoder())
    monkeypatch.setattr(
        "errata.reward.load_scorer", lambda folder, encoder: lambda rows: [[1.0] * len(row) for row in rows]
    )
    out = data.with_name("kept.jsonl")
    assert run("edits", "filter", "--data", data, "--out", out, "--reward", "model", "--eta3", "10") == 0
    kept = [row.id for row in read_corrections(out)]
    assert kept == ["good", "large"]  # 22 characters for 2, and 20 for 18
    (large,) = [row for row in read_corrections(data) if row.id == "large"]
    Encoder.long = large.edited
    assert run("edits", "filter", "--data", data, "--out", out, "--reward", "model", "--eta3", "10") == 0
    assert [row.id for row in read_corrections(out)] == ["good"]  # too long to be scored


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "no filter is asked for"),
        (("--eta1=1",), "--reward and the thresholds"),
        (("--reward=model",), "--reward and the thresholds"),
        (("--field=annotator",), "is not NAME=VALUE"),
        (("--max-edit-ratio=0.1", "--min-edit-ratio=0.5"), "the lower one first"),
        (("--field=annotator=nobody",), "annotator is one of nobody: 0 of 4 kept"),
    ],
)
def test_mistakes(data: Path, flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.with_name("kept.jsonl")
    assert run("edits", "filter", "--data", data, "--out", out, *flags) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_the_data_are_not_overwritten(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = data.read_bytes()
    assert run("edits", "filter", "--data", data, "--out", data, "--unchanged=drop") == 1
    assert "name another file" in capsys.readouterr().err
    assert data.read_bytes() == before
