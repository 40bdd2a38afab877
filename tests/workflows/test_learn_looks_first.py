"""Whom nobody can ask is found before anything is read or trained; the flag is named, and nothing is written."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.faults import Fault, FaultServer
from errata.cli import main
from errata.client import check_chat


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a port that is taken and answers nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def run(tmp_path: Path, *flags: str) -> int:
    return main(["learn", str(tmp_path / "log.csv"), f"--model={tmp_path / 'm'}", f"--out={tmp_path / 'run'}", *flags])


@pytest.mark.parametrize("given", ["--judge=URL", "--judge=m@URL", "--editor=m@URL"])
def test_a_server_that_is_not_there(
    given: str, nobody: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag, _, spec = given.replace("URL", nobody).partition("=")
    began = time.process_time()
    assert run(tmp_path, flag, spec) == 1
    said = capsys.readouterr().err
    assert f"{flag} {spec} cannot be asked: " in said
    assert nobody in said
    assert "Nothing was trained yet; put it right, or leave " in said
    assert not (tmp_path / "run").exists()
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("fault", "said"), [(Fault.NO_MODEL, "does not know this model"), (Fault.KEY, "refuses the key in ERRATA_API_KEY")]
)
def test_a_server_that_has_no_such_model_or_wants_a_key(
    fault: Fault, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(lambda *_: fault) as server:
        assert run(tmp_path, f"--judge=other@{server.url}") == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["yes", Fault.BUSY, Fault.BROKEN, Fault.TOO_LONG])
def test_a_server_that_is_there_is_asked_once_for_one_token(answer: str) -> None:
    with FaultServer(lambda *_: answer) as server:
        check_chat(f"tiny@{server.url}")
        assert [request["max_tokens"] for request in server.requests] == [1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--editor=anthropic:claude"], "--editor anthropic:claude cannot be asked: Anthropic needs a key"),
        (["--judge=local:gone"], "--judge local:gone cannot be asked: there is no model folder gone"),
        (["--judge=m@http://127.0.0.1:1/v1", "--max-cost=1"], "leave it out, or give --price-in"),
        (["--editor=no.such.module:f"], "--editor no.such.module:f names no function (No module named 'no')"),
        (["--editor=style:plain"], "give style.py:plain"),
        (["--editor=style.py:other"], "--editor style.py:other names no function"),
        (["--editor=broken.py:plain"], "broken.py cannot be imported: RuntimeError: no licence"),
    ],
)
def test_an_editor_or_judge_that_is_none(
    flags: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    (tmp_path / "style.py").write_text("def plain(prompt, draft):\n    return draft\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no licence')\n")
    assert run(tmp_path, *flags) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
