"""The client against `transformers serve`: a server that ignores much of what it is asked, in silence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.servers import chat_model, serving
from errata.cli import main
from errata.client import Ask, Ledger, Limits, Stop, check_server, connect, open_chat
from tiny import WORDS

pytest.importorskip("openai", reason="needs errata[openai]")
pytestmark = pytest.mark.slow

QUESTION = ({"role": "user", "content": "red cat"},)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    with serving(folder) as spec:
        yield spec


def test_it_answers_as_the_same_model_does_in_this_process(folder: Path, served: str, tmp_path: Path) -> None:
    asks = [Ask(messages=({"role": "user", "content": word},), max_tokens=6) for word in ("red", "blue cat", "dog")]
    there = open_chat(served, ledger=tmp_path / "ledger")(asks)
    here = open_chat(f"local:{folder}", ledger=tmp_path / "ledger")(asks)
    assert [(a.text, a.stop, a.input_tokens, a.output_tokens) for a in there] == [
        (a.text, a.stop, a.input_tokens, a.output_tokens) for a in here
    ]
    assert all(set(a.text.split()) <= set(WORDS) and a.output_tokens <= 6 for a in there)
    assert [a.cost for a in here] == [0.0] * 3
    assert {a.cost for a in there} == {None}


def test_a_schema_that_it_does_not_enforce_is_checked(served: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    (answer,) = open_chat(served, limits=Limits(tries=2))([Ask(messages=QUESTION, max_tokens=500, schema=schema)])
    assert answer.value is None
    assert answer.stop in (Stop.END, Stop.LENGTH)


def test_what_it_honours_and_what_it_ignores(served: str, folder: Path) -> None:
    found = {finding.what: finding.verdict for finding in check_server(connect(served))}
    assert found == {
        "max_tokens": "honoured",
        "temperature": "ignored",  # it sets the number, and goes on greedily
        "seed": "unclear",
        "schema": "ignored",
        "usage": "honoured",
        "logprobs": "ignored",
        "n": "ignored",
    }
    here = {finding.what: finding.verdict for finding in check_server(connect(f"local:{folder}"))}
    assert (here["temperature"], here["seed"], here["n"]) == ("honoured", "honoured", "not offered")


def test_the_verb_says_so(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, url = served.rpartition("@")
    assert main(["client", "check", f"other@{url}"]) == 1
    told = capsys.readouterr().err
    assert "gives 'other' no answer" in told
    assert f"pinned to '{folder}'" in told


@pytest.mark.slow
def test_the_editor_sets_aside_what_a_model_without_sense_makes_of_its_rows(
    served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fourteen words at random are no JSON: asked twice, set aside with the reason, and never paid again."""
    data, out, ledger = (tmp_path / name for name in ("rows.jsonl", "edits.jsonl", "ledger.sqlite"))
    texts = ["red cat", "blue dog", " "]  # the last is nothing to edit, and read on request only
    lines = [json.dumps({"id": str(k), "prompt": "Count.", "response": text}) for k, text in enumerate(texts)]
    data.write_text("\n".join(lines))
    flags = [
        "--data",
        data,
        "--out",
        out,
        "--llm",
        served,
        "--ledger",
        ledger,
        "--max-tokens=6",
        "--tries=2",
        "--empty-texts=keep",
    ]
    command = ["edits", "llm", *map(str, flags), "--price-in=1", "--price-out=1"]
    assert main(command) == 1
    told = capsys.readouterr()
    assert "3 responses: 0 edited, 0 kept as they are, 3 set aside" in told.out
    assert "no response could be corrected" in told.err
    assert not out.exists()
    aside = [json.loads(line) for line in (tmp_path / "edits.jsonl.set-aside.jsonl").read_text().splitlines()]
    assert [row["response"] for row in aside] == texts
    assert aside[2]["set_aside"] == "empty"
    assert all(row["set_aside"] in ("cut off", "unreadable") for row in aside[:2])
    assert all(row["why"] and row["answer"] and set(row["answer"].split()) <= set(WORDS) for row in aside[:2])
    report = json.loads((tmp_path / "edits.jsonl.report.json").read_text())
    assert report["rows"] == report["kept"] + report["edited"] + sum(report["set_aside"].values()) == 3
    assert (report["retried"], report["mended"], report["answers"], report["cached"]) == (2, 0, 4, 0)
    assert report["cost_now"] == report["cost"] > 0
    paid = [row[2:7] for row in Ledger(ledger).spent()]
    assert main(command) == 1
    again = json.loads((tmp_path / "edits.jsonl.report.json").read_text())
    assert (again["cached"], again["cost_now"], again["cost"]) == (4, 0, report["cost"])
    assert [row[2:7] for row in Ledger(ledger).spent()] == paid
