from __future__ import annotations

import json
from typing import Any

import pytest

from client.faults import Fault, FaultServer, Raw
from errata.client import check_server, connect

pytest.importorskip("openai", reason="needs errata[openai]")


def good(body: dict[str, Any], _: int) -> str | Raw:
    """A server that does all it is asked."""
    text = "once"
    if (body.get("temperature") or 0) > 0:
        text += f" {body.get('seed', 'x')}"
    if "response_format" in body:
        text = '{"word": "qwzx"}'
    if body["max_tokens"] == 5:
        return Raw(200, completion([text], finish="length"))
    logprob = {"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    return Raw(200, completion([text] * body.get("n", 1), logprobs=[logprob] if body.get("logprobs") else None))


def completion(texts: list[str], *, finish: str = "stop", logprobs: list[Any] | None = None) -> bytes:
    choices = [
        {
            "index": k,
            "finish_reason": finish,
            "message": {"role": "assistant", "content": text},
            "logprobs": None if logprobs is None else {"content": logprobs},
        }
        for k, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    named = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    return json.dumps({**named, "choices": choices, "usage": usage}).encode()


def verdicts(server: FaultServer) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in check_server(connect(f"tiny@{server.url}"))}


def test_a_server_that_honours_all() -> None:
    with FaultServer(good) as server:
        assert set(verdicts(server).values()) == {"honoured"}
        assert len(verdicts(server)) == 7


def test_a_server_that_ignores_all_in_silence() -> None:
    with FaultServer(lambda *_: "the same") as server:
        found = verdicts(server)
    assert found.pop("usage") == "honoured"
    assert found.pop("seed") == "unclear"
    assert set(found.values()) == {"ignored"}


def test_a_server_that_rolls_dice_whatever_it_is_asked() -> None:
    with FaultServer(lambda *_: str(len(server.requests))) as server:
        found = verdicts(server)
    assert (found["temperature"], found["seed"]) == ("ignored", "ignored")


def test_what_is_refused_is_told_apart_from_what_is_ignored() -> None:
    def picky(body: dict[str, Any], number: int) -> str | Fault | Raw:
        if "n" in body or "logprobs" in body:
            return Raw(400, b'{"error": {"message": "unknown field"}}')
        return Fault.NO_TEMPERATURE if body.get("temperature") == 1.5 else good(body, number)

    with FaultServer(picky) as server:
        found = verdicts(server)
    assert (found["n"], found["logprobs"], found["temperature"], found["schema"]) == (
        *("refused", "refused", "refused"),
        "honoured",
    )


def test_nobody_there_is_no_finding() -> None:
    with FaultServer(good) as server:
        pass
    with pytest.raises(ValueError, match="gives 'tiny' no answer: Connection error"):
        verdicts(server)
