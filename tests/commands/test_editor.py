"""``errata edits llm`` against a server on a real socket, which answers with the world's editor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import tiny
from client.faults import Fault, FaultServer
from errata.cli import main
from errata.client import Ask
from errata.data import Encoder, read_corrections, read_preferences
from errata.demo.chat import EditorChat
from errata.demo.judge import DefectKind, judge
from errata.demo.tokenizer import build_tokenizer
from errata.demo.world import make_prompts, write_with
from errata.labels import read_labels
from winrate.chats import SHOWN

pytest.importorskip("openai", reason="the extra openai is not installed")


def edited(body: dict[str, Any], number: int = 0) -> str:
    """What the world's editor says."""
    del number
    return EditorChat()([Ask(messages=tuple(body["messages"]))])[0].text


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(edited) as started:
        yield started


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Twenty letters, of which every fourth is good."""
    rng = Random(0)
    kinds = [[], [DefectKind.RUDE], [DefectKind.MISSING], [DefectKind.WRONG_FACT]]
    rows = [
        {
            "id": row.id,
            "prompt": row.prompt,
            "response": write_with(row.prompt, kinds[k % 4], rng),
            "user": f"u{k}",
            "response_ids": [k, 2],
        }
        for k, row in enumerate(make_prompts(20, rng))
    ]
    return written(tmp_path / "letters.jsonl", rows)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def arguments(server: FaultServer, data: Path, out: Path, *more: object) -> list[str]:
    ledger = data.with_name("ledger.sqlite")
    flags = ["--data", data, "--out", out, "--llm", f"tiny@{server.url}", "--ledger", ledger, *more]
    return ["edits", "llm", *map(str, flags)]


def test_letters_are_corrected_and_labelled(
    server: FaultServer, letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edits.jsonl"
    assert main(arguments(server, letters, out)) == 0
    rows = read_corrections(out)
    assert [judge(row.prompt, row.edited).count for row in rows] == [0] * 20
    assert (rows[1].extra["user"], rows[1].original_ids) == ("u1", (1, 2))
    assert rows[1].extra["editor_model"] == "tiny-2026-01-01"
    assert rows[1].reasons == ("style",)
    shown = capsys.readouterr().out
    assert "20 responses: 15 edited, 5 kept as they are, 0 set aside" in shown
    assert "200 tokens in, 100 out" in shown
    report = json.loads((tmp_path / "edits.jsonl.report.json").read_text())
    assert (report["rows"], report["kept"], report["cost"]) == (20, 5, None)
    assert lines(tmp_path / "edits.jsonl.set-aside.jsonl") == []
    data = written(tmp_path / "no_ids.jsonl", [{**row, "rejected_ids": None} for row in lines(out)])
    tokenizer, labels = build_tokenizer(), tmp_path / "labels.jsonl"
    tokenizer.save_pretrained(tmp_path / "model")
    assert main(["labels", "--edits", str(data), "--model", f"{tmp_path}/model", "--out", str(labels)]) == 0
    assert len(read_labels(labels, Encoder(tokenizer))) == 20


def test_nothing_is_paid_twice_and_other_caps_ask_no_first_question(
    server: FaultServer, letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, price = tmp_path / "edits.jsonl", ("--price-in", 1000, "--price-out", 1000)
    assert main(arguments(server, letters, out, *price)) == 0
    before, asked = out.read_bytes(), len(server.requests)
    capsys.readouterr()
    assert main(arguments(server, letters, out, *price)) == 0
    assert (out.read_bytes(), len(server.requests)) == (before, asked)
    assert (
        "20 of them from the ledger: 200 tokens in, 100 out, $0.3000 ($0.0000 of it this time)"
        in capsys.readouterr().out
    )
    assert main(arguments(server, letters, out, "--max-edit-ratio=0.01", "--free-words=0", *price)) == 0
    assert len(server.requests) == asked + 15
    aside = lines(tmp_path / "edits.jsonl.set-aside.jsonl")
    assert {(row["set_aside"], row["why"]) for row in aside} == {("cannot", "it takes more than a few words")}
    assert set(aside[0]) >= {"id", "prompt", "response", "answer", "user"}


def test_what_was_set_aside_can_be_given_again(server: FaultServer, letters: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "edits.jsonl", tmp_path / "again.jsonl"
    assert main(arguments(server, letters, out, "--max-edit-ratio=0.01", "--free-words=0")) == 0
    assert main(arguments(server, tmp_path / "edits.jsonl.set-aside.jsonl", again)) == 0
    found = read_corrections(again)
    assert [row.original_ids for row in found] == [(k, 2) for k in range(20) if k % 4]


@pytest.mark.parametrize("form", ["hh", "trl"])
def test_only_the_rejected_side_is_corrected(server: FaultServer, letters: Path, tmp_path: Path, form: str) -> None:
    rows = lines(letters)
    if form == "hh":
        # The card is the whole of what Human says; as messages it is no card to the world's editor.
        pairs = [
            {
                name: f"\n\nHuman: {row['prompt']}\n\nAssistant: {text}"
                for name, text in (("chosen", "A."), ("rejected", "B a."))
            }
            for row in rows[:3]
        ]
        server.script = lambda body, number: json.dumps(
            {"why": "w", "verdict": "edit", "reasons": ["wrong"], "text": "B b."}
        )
    else:
        pairs = [
            {"id": row["id"], "prompt": row["prompt"], "chosen": "A.", "rejected": row["response"], "rejected_ids": [1]}
            for row in rows
        ]
    data, out = written(tmp_path / "pairs.jsonl", pairs), tmp_path / "edits.jsonl"
    assert main(arguments(server, data, out, "--side", "rejected", "--reference", "chosen")) == 0
    assert all("<reference-" in body["messages"][1]["content"] for body in server.requests)
    found = read_corrections(out)
    assert [row.extra["output"] for row in found] == ["A."] * len(pairs)
    assert "A." not in [row.edited for row in found]
    assert len(read_preferences(out)) == len(pairs)
    if form == "trl":
        assert [row.original for row in found] == [row["response"] for row in rows]
        assert {row.original_ids for row in found} == {(1,)}


def test_a_dry_run_sends_nothing(
    server: FaultServer, letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guideline = tmp_path / "guideline.txt"
    guideline.write_text("Be kind to Anna.")
    with pytest.raises(SystemExit) as stop:
        main(arguments(server, letters, tmp_path / "edits.jsonl", "--dry-run", "--guideline", guideline))
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert "Be kind to Anna." in shown
    assert "20 requests" in shown
    assert not server.requests
    assert not (tmp_path / "edits.jsonl").exists()


def verdict(body: dict[str, Any]) -> str:
    """Of a judge who knows the world's rules: fewer defects are better."""
    seen = {found[1]: found[3] for found in SHOWN.finditer(body["messages"][0]["content"])}
    one, other = (judge(seen["request"], seen[name]).count for name in ("first", "second"))
    better = "tie" if one == other else "first" if one < other else "second"
    return json.dumps({"reason": f"{one} and {other} defects", "better": better})


def is_judged(body: dict[str, Any]) -> bool:
    return body["messages"][0]["role"] != "system"


def edited_and_judged(body: dict[str, Any], number: int = 0) -> str:
    return verdict(body) if is_judged(body) else edited(body)


def test_a_judge_has_the_last_word_and_nothing_is_paid_twice(
    letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The editor spoils row 1; the judge sees nothing in row 2, is at a loss with row 5, and fickle in row 6."""
    known = [row["response"] for row in lines(letters)]
    said = {2: json.dumps({"reason": "alike", "better": "tie"}), 5: "Hard to say."}
    said[6] = json.dumps({"reason": "the place", "better": "first"})
    spoiled = json.dumps({"why": "", "verdict": "edit", "reasons": ["style"], "text": f"{known[1]} Fool."})

    def script(body: dict[str, Any], number: int) -> str:
        row = next(k for k, text in enumerate(known) if text in body["messages"][-1]["content"])
        if is_judged(body):
            return said.get(row, verdict(body))
        return spoiled if row == 1 else edited(body)

    out, guideline = tmp_path / "edits.jsonl", tmp_path / "guideline.txt"
    guideline.write_text("Be kind.")
    with FaultServer(script) as server:
        flags = ("--judge", f"wise@{server.url}", "--tries=1", "--guideline", guideline)
        assert main(arguments(server, letters, out, *flags)) == 0
        shown = capsys.readouterr().out
        assert len(server.requests) == 20 + 2 * 15
        judged = [body for body in server.requests if is_judged(body)]
        assert {(body["model"], "Be kind." in body["messages"][0]["content"]) for body in judged} == {("wise", True)}
        assert main(arguments(server, letters, out, *flags)) == 0
        assert len(server.requests) == 50
    report = json.loads((tmp_path / "edits.jsonl.report.json").read_text())
    found = report["judge"]
    assert found["judge"]["models"] == ["wise-2026-01-01"]
    assert found["judge"]["prompt_hash"]
    assert (found["edits"], found["preferred"]) == (15, 11)
    assert "15 edits preferred, 1 original, 1 neither, 1 inconsistent, 1 invalid" in shown
    assert report["set_aside"] == {"not preferred": 4}
    assert (report["kept"], report["edited"]) == (5, 11)
    aside = lines(tmp_path / "edits.jsonl.set-aside.jsonl")
    ids = [row["id"] for row in lines(letters)]
    assert [(row["id"], row["why"]) for row in aside] == [
        (ids[1], "the judge prefers the response as it was: 2 and 1 defects; 1 and 2 defects"),
        (ids[2], "the judge finds neither better: alike"),
        (ids[5], "the judge gave no valid verdict: no verdict (end): Hard to say."),
        (ids[6], "the judge contradicts itself when the two texts change places: the place"),
    ]
    assert [row.id for row in read_corrections(out)] == [id for k, id in enumerate(ids) if k not in (1, 2, 5, 6)]


def test_editor_and_judge_have_one_limit_of_cost(
    letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of 20 answers of the editor and 30 of the judge costs half a cent."""
    out = tmp_path / "edits.jsonl"
    with FaultServer(edited_and_judged) as server:
        price = ("--price-in=0", "--price-out=1000", "--max-tokens=10", "--concurrency=1")
        judge = ("--judge", f"wise@{server.url}")
        assert main(arguments(server, letters, out, *price, *judge, "--max-cost=1")) == 1
        assert "--judge-price-in and --judge-price-out" in capsys.readouterr().err
        assert not server.requests
        judge = (*judge, "--judge-price-in=0", "--judge-price-out=1000")
        # The judge may answer with 512 tokens, and so is not asked with less than that left.
        assert main(arguments(server, letters, out, *price, *judge, "--max-cost=0.632")) == 1
        assert "$0.125 spent" in capsys.readouterr().err
        assert len(server.requests) == 20 + 5
        assert not out.exists()
        assert main(arguments(server, letters, out, *price, *judge, "--max-cost=1")) == 0
        assert len(server.requests) == 50
    assert len(read_corrections(out)) == 20


def test_a_dry_run_tells_what_the_judge_would_cost_and_who_is_kin(
    server: FaultServer, letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = ("--judge", f"tiny-2@{server.url}", "--judge-price-in=1", "--judge-price-out=1", "--dry-run")
    with pytest.raises(SystemExit) as stop:
        main(arguments(server, letters, tmp_path / "edits.jsonl", *judge))
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert "20 requests to tiny" in shown
    assert "40 requests to tiny-2" in shown
    assert "one family" in shown
    assert not server.requests


def test_the_limit_of_cost_stops_and_the_same_command_goes_on(
    server: FaultServer, letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edits.jsonl"
    # At worst an answer has ten tokens and costs a cent, and the server says that it had five.
    price = ("--price-in", 0, "--price-out", 1000, "--max-tokens", 10, "--concurrency", 1)
    assert main(arguments(server, letters, out, *price, "--max-cost", 0.052)) == 1
    assert "--max-cost" in capsys.readouterr().err
    assert len(server.requests) == 9
    assert not out.exists()
    assert main(arguments(server, letters, out, *price, "--max-cost", 1)) == 0
    assert len(server.requests) == 20


def test_faults_end_in_the_file_that_says_why(letters: Path, tmp_path: Path) -> None:
    """Each row of the first seven meets another fault, always the same, and the others none."""
    known = [row["response"] for row in lines(letters)]
    rewrite = json.dumps({"why": "", "verdict": "edit", "reasons": [], "text": " ".join(["word"] * 200)})
    faults: list[Any] = [Fault.REFUSAL, Fault.LENGTH, Fault.TOO_LONG, "Sure!", rewrite, Fault.CUT, Fault.ERROR_INSIDE]

    def script(body: dict[str, Any], number: int) -> Any:
        said = body["messages"][1]["content"]
        row = next(k for k, text in enumerate(known) if f"\n{text}\n</response-" in said)
        return faults[row] if row < len(faults) else edited(body)

    out = tmp_path / "edits.jsonl"
    with FaultServer(script) as server:
        assert main(arguments(server, letters, out, "--tries=2")) == 0
    aside = [row["set_aside"] for row in lines(tmp_path / "edits.jsonl.set-aside.jsonl")]
    assert aside == ["refusal", "cut off", "error", "unreadable", "over-edited", "error", "error"]
    assert len(read_corrections(out)) == 13


@pytest.mark.parametrize(
    ("rows", "flags", "said"),
    [
        ([{"prompt": "p", "chosen": "a", "rejected": "b"}], (), "say --side rejected"),
        ([{"prompt": "p", "response": "a"}], ("--reference=gold",), "field 'gold' holds no text"),
        ([{"prompt": "p", "response": " "}], (), "the text of the answer is empty"),
        ([{"prompt": "p", "response": " "}], ("--empty-texts=keep",), "no response could be corrected"),
    ],
)
def test_mistakes(
    server: FaultServer,
    tmp_path: Path,
    rows: list[dict[str, Any]],
    flags: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, out = written(tmp_path / "data.jsonl", rows), tmp_path / "edits.jsonl"
    assert main(arguments(server, data, out, *flags)) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()
    assert not server.requests


def test_the_data_are_not_overwritten(server: FaultServer, letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(server, letters, letters)) == 1
    assert "name another file" in capsys.readouterr().err


def test_killed_in_the_middle_it_goes_on_where_it_was(letters: Path, tmp_path: Path) -> None:
    reached, out = threading.Event(), tmp_path / "edits.jsonl"
    answered: list[str] = []

    def script(body: dict[str, Any], number: int) -> Any:
        if len(answered) >= 7:
            reached.set()
            return Fault.HANG
        answered.append(body["messages"][1]["content"])
        return edited(body)

    with FaultServer(script, hang=30) as server:
        command = arguments(server, letters, out, "--concurrency=1")
        program = "import sys; from errata.cli import main; sys.exit(main(sys.argv[1:]))"
        process = subprocess.Popen([sys.executable, "-c", program, *command], env=tiny.environment())
        assert reached.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not out.exists()
        server.requests.clear()
        server.script = edited
        assert main(command) == 0
        assert len(server.requests) == 13
        assert not {body["messages"][1]["content"] for body in server.requests} & set(answered)
    assert len(read_corrections(out)) == 20
