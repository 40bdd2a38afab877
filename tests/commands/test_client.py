from __future__ import annotations

from pathlib import Path

import pytest

from client.faults import FaultServer
from errata.cli import main
from errata.client import Ask, DryRun
from errata.commands.client import ClientFlags

pytest.importorskip("openai", reason="needs errata[openai]")

ASK = Ask(messages=({"role": "user", "content": "Hello"},))


def test_flags_open_a_chat_and_costs_tells_what_it_spent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = tmp_path / "ledger.sqlite"
    with FaultServer(lambda *_: "ok") as server:
        flags = ClientFlags(llm=f"tiny@{server.url}", ledger=ledger, price_in=100_000.0, price_out=200_000.0)
        assert flags.open()([ASK])[0].cost == pytest.approx(2.0)
        assert ClientFlags(llm="openai:tiny", llm_url=server.url, ledger=ledger).open()([ASK])[0].cached
    assert main(["client", "costs", str(ledger)]) == 0
    out = capsys.readouterr().out
    assert "tiny" in out
    assert "2.0000" in out


def test_a_dry_run_ends_without_an_error(tmp_path: Path) -> None:
    with FaultServer(lambda *_: "ok") as server:
        with pytest.raises(DryRun) as ended:
            ClientFlags(llm=f"tiny@{server.url}", ledger=tmp_path / "l", dry_run=True).open()([ASK])
        assert not ended.value.code
        assert server.requests == []


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (ClientFlags(), "--llm names no model"),
        (ClientFlags(llm="tiny@http://127.0.0.1:1/v1", price_in=1.0), "go together"),
        (ClientFlags(llm="tiny@http://127.0.0.1:1/v1", max_cost=1.0), "--price-in and --price-out"),
        (ClientFlags(llm="local:nowhere"), "no model folder"),
    ],
)
def test_what_cannot_be_opened_says_the_remedy(
    flags: ClientFlags, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=remedy):
        flags.open()


def test_a_number_out_of_range_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(ValueError, match="--concurrency 0 is out of range: give a whole number of 1 or more"):
        ClientFlags(llm="tiny@http://127.0.0.1:1/v1", concurrency=0)


def test_check_prints_one_line_a_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(lambda *_: "always the same") as server:
        assert main(["client", "check", server.url]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out for word in ("max_tokens", "temperature", "seed", "schema", "logprobs", "ignored", "unclear")
    )


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", "costs", str(tmp_path / "none")]) == 1
    assert "no ledger" in capsys.readouterr().err
    assert main(["client", "check", "http://127.0.0.1:1/v1"]) == 1
    assert "does not say which models" in capsys.readouterr().err
