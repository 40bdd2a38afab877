"""The client against `transformers serve`: a server that ignores much of what it is asked, in silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.servers import chat_model, serving
from errata.cli import main
from errata.client import Ask, Limits, Stop, check_server, connect, open_chat
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
