"""``errata winrate`` and ``errata generate`` in a terminal; the chat judge sits behind a real socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from client.faults import Fault, FaultServer
from errata.cli import main
from errata.data import read_demonstrations
from errata.winrate import read_annotations, read_contest
from winrate.chats import SHOWN, fewer_rude


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("winrate")
    tiny.llama(path / "model")
    rows = tiny.corrections(12)
    for name, text in (("good", lambda row: row.edited), ("bad", lambda row: row.original)):
        lines = [
            {"id": row.id, "prompt": row.prompt, "response": text(row), "topic": "ab"[k % 2]}
            for k, row in enumerate(rows)
        ]
        write(path / f"{name}.jsonl", lines)
    write(
        path / "edits.jsonl",
        [{"id": r.id, "prompt": r.prompt, "original": r.original, "edited": r.edited} for r in rows],
    )
    return path


def write(path: Path, lines) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(verb: str, *arguments) -> int:
    return main([*verb.split(), *map(str, arguments)])


def judging(body, number):
    """Fewer "rude" is better; the third question is not answered."""
    content = body["messages"][0]["content"]
    seen = {found[1]: found[3] for found in SHOWN.finditer(content)}
    return json.dumps({"reason": "fewer rude words", "better": fewer_rude("", seen["first"], seen["second"])})


def test_a_chat_judge_behind_a_server(folder, tmp_path) -> None:
    sides = [
        "--candidate",
        f"fixed={folder / 'good.jsonl'}",
        "--candidate",
        folder / "bad.jsonl",
        "--baseline",
        folder / "bad.jsonl",
    ]
    files = ["--out", tmp_path / "c.json", "--report", tmp_path / "r.html", "--report", tmp_path / "r.md"]
    with FaultServer(judging) as server:
        flags = [
            "--llm",
            f"gpt-tiny@{server.url}",
            "--ledger",
            tmp_path / "ledger.sqlite",
            "--price-in=1",
            "--price-out=2",
        ]
        more = [
            "--group-by=topic",
            "--guideline=Be kind.",
            "--editor-model=gpt-4o",
            "--alpaca-eval",
            tmp_path / "a.json",
        ]
        assert run("winrate", *sides, *files, *flags, *more) == 0
        asked = len(server.requests)
        assert asked == 24  # the second arm's answers are the baseline's own: nobody is asked
        assert "Be kind." in server.requests[0]["messages"][0]["content"]
        found = read_contest(tmp_path / "c.json")
        assert run("winrate", *sides, "--out", tmp_path / "again.json", *flags, "--guideline=Be kind.") == 0
        assert len(server.requests) == asked  # all of it is in the ledger
    again = read_contest(tmp_path / "again.json")
    assert [arm.name for arm in found.arms] == ["fixed", str(folder / "bad.jsonl")]
    assert found.baseline == f"{folder / 'bad.jsonl'} (baseline)"
    fixed, same = found.arms
    assert (fixed.wins, fixed.consistency, fixed.first_position) == (12, 1.0, 0.5)
    assert (same.ties, same.win_rate.mean) == (12, 0.5)
    assert [one.name for one in fixed.by_group] == ["a", "b"]
    assert (found.judge.kind, found.judge.prompt) == ("chat", "pairwise_1")
    assert found.date
    assert found.spent.cost > 0
    assert again.spent.cost == 0
    assert again.arms[0].win_rate == fixed.win_rate
    assert any("one family" in warning for warning in found.warnings)
    assert "fixed wins 100.0 %" in (tmp_path / "r.md").read_text()
    assert "<title>errata" in (tmp_path / "r.html").read_text()
    assert len(read_annotations(tmp_path / "a.json").rulings["fixed"]) == 12


def test_a_server_that_refuses_is_counted_and_makes_no_rate(folder, tmp_path, capsys) -> None:
    sides = ["--candidate", folder / "good.jsonl", "--baseline", folder / "bad.jsonl", "--out", tmp_path / "c.json"]
    with FaultServer(lambda body, number: Fault.REFUSAL) as server:
        flags = ["--llm", f"tiny@{server.url}", "--ledger", tmp_path / "ledger.sqlite"]
        assert run("winrate", *sides, *flags) == 5
    (arm,) = read_contest(tmp_path / "c.json").arms
    assert (arm.invalid, arm.ties, arm.win_rate) == (12, 0, None)
    said = " ".join(capsys.readouterr().out.split())
    assert "good has no valid verdict, 0 of 12: nothing is known of its win rate." in said
    assert "50.0" not in said


def test_a_dry_run_sends_nothing(folder, tmp_path, capsys) -> None:
    sides = ["--candidate", folder / "good.jsonl", "--baseline", folder / "bad.jsonl", "--out", tmp_path / "c.json"]
    with FaultServer(judging) as server:
        with pytest.raises(SystemExit) as stop:
            run("winrate", *sides, "--llm", f"tiny@{server.url}", "--ledger", tmp_path / "l.sqlite", "--dry-run")
        assert not server.requests
    assert not stop.value.code
    assert "24 requests to tiny" in capsys.readouterr().out
    assert not (tmp_path / "c.json").exists()


def test_people(folder, tmp_path) -> None:
    rows = read_demonstrations(folder / "good.jsonl")
    write(tmp_path / "v.jsonl", [{"id": row.id, "verdict": "candidate" if k else "tie"} for k, row in enumerate(rows)])
    sides = ["--candidate", folder / "good.jsonl", "--baseline", folder / "bad.jsonl"]
    assert run("winrate", *sides, "--verdicts", tmp_path / "v.jsonl", "--out", tmp_path / "c.json") == 0
    found = read_contest(tmp_path / "c.json")
    assert (found.judge.kind, found.arms[0].wins, found.arms[0].ties) == ("human", 11, 1)


def test_annotations(tmp_path) -> None:
    there = Path(__file__).parents[1] / "winrate" / "alpaca" / "annotations.json"
    assert run("winrate", "--annotations", there, "--out", tmp_path / "c.json") == 0
    assert read_contest(tmp_path / "c.json").arms[0].win_rate.mean == pytest.approx(0.6903965)


def test_generate_then_judge(folder, tmp_path, capsys) -> None:
    flags = ["--model", folder / "model", "--prompts", folder / "edits.jsonl", "--max-new-tokens=4"]
    assert run("generate", *flags, "--out", tmp_path / "greedy.jsonl", "--chunk=5") == 0
    assert run("generate", *flags, "--out", tmp_path / "warm.jsonl", "--temperature=1", "--seed=4") == 0
    assert run("generate", *flags, "--out", tmp_path / "alpaca.json", "--form=alpaca_eval", "--name=mine") == 0
    greedy = read_demonstrations(tmp_path / "greedy.jsonl")
    assert [row.extra["generator"] for row in greedy] == ["model"] * 12
    alpaca = json.loads((tmp_path / "alpaca.json").read_text())
    assert [row["output"] for row in alpaca] == [row.response for row in greedy]
    assert run("generate", *flags, "--out", tmp_path / "greedy.jsonl", "--chunk=5") == 0
    assert "12 of them by an earlier run" in capsys.readouterr().out
    sides = ["--candidate", tmp_path / "greedy.jsonl", "--baseline", tmp_path / "warm.jsonl"]
    assert run("winrate", *sides, "--references", folder / "edits.jsonl", "--out", tmp_path / "c.json") == 0
    assert read_contest(tmp_path / "c.json").arms[0].name == "greedy"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--candidate={good}", "--baseline={bad}", "--references={good}", "--reward=r"], "one judge"),
        (["--baseline={bad}", "--references={good}"], "--candidate, once or more"),
        (["--candidate=a={good}", "--candidate=a={bad}", "--baseline={bad}", "--references={edits}"], "name them"),
        (["--candidate={good}", "--baseline={bad}", "--references={edits}", "--report=r.pdf"], ".html or .md"),
        (["--candidate={good}", "--baseline={bad}", "--annotations={good}"], "holds both sides"),
        (["--candidate={good}", "--baseline={bad}", "--references={edits}", "--group-by=x"], "no field 'x'"),
    ],
)
def test_errors(folder, arguments, said, capsys) -> None:
    names = {name: folder / f"{name}.jsonl" for name in ("good", "bad", "edits")}
    assert run("winrate", *[one.format(**names) for one in arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out={edits}"], "take the place"),
        (["--out=x.jsonl", "--form=alpaca_eval"], "file .json"),
        (["--out=x.jsonl", "--samples=0"], "1 or more"),
        (["--out=x.jsonl", "--backend=vllm"], "vLLM is not installed"),
    ],
)
def test_errors_of_generate(folder, flags, said, capsys, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    common = ["--model", folder / "model", "--prompts", folder / "edits.jsonl"]
    assert run("generate", *common, *[flag.format(edits=folder / "edits.jsonl") for flag in flags]) == 1
    assert said in capsys.readouterr().err
