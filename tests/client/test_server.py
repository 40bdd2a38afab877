from __future__ import annotations

import pytest

from errata.client import Ask, connect
from errata.client.server import TryAgain, need, scrubbed

openai = pytest.importorskip("openai", reason="needs errata[openai]")
from client.faults import FaultServer, Raw  # noqa: E402

ASK = Ask(messages=({"role": "user", "content": "Hello"},))


def test_a_missing_sdk_names_the_command() -> None:
    with pytest.raises(ValueError, match=r"pip install 'errata\[no_such_sdk\]'"):
        need("no_such_sdk")


def test_keys_are_taken_out_and_words_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_API_KEY", "hunter2hunter2")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert scrubbed("hunter2hunter2 is none of sk-ant-api03-abcdefgh") == "[key] is none of [key]"
    assert scrubbed("{'authorization': 'Bearer abcdef0123456789'}") == "{'authorization': 'Bearer [key]'}"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 01 Jan 2020 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(header: dict[str, str], seconds: float | None) -> None:
    with FaultServer(lambda *_: Raw(429, b'{"error": {"message": "slow down"}}', header)) as server:
        with pytest.raises(TryAgain, match="slow down") as caught:
            connect(f"tiny@{server.url}").send(ASK, without=frozenset())
        assert caught.value.after == seconds
        assert caught.value.__cause__ is None, "the SDK's error holds the request and its headers"


def test_an_account_without_credit_is_not_asked_again() -> None:
    empty = Raw(429, b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}')
    with FaultServer(lambda *_: empty) as server, pytest.raises(ValueError, match="no credit"):
        connect(f"tiny@{server.url}").send(ASK, without=frozenset())


def test_words_of_servers_that_the_sdk_does_not_read_are_told() -> None:
    loading = Raw(503, b'{"detail": "the model is loading"}')
    with FaultServer(lambda *_: loading) as server, pytest.raises(TryAgain, match="the model is loading"):
        connect(f"tiny@{server.url}").send(ASK, without=frozenset())
