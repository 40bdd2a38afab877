"""What a server honours of a request, and what it passes over without a word; found by asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from errata.client.chat import Ask, Stop
from errata.client.schema import read_answer
from errata.client.server import Failed, Refused, Reply, Server, TryAgain, scrubbed

__all__ = ["Finding", "check_server"]

_TELL = Ask(messages=({"role": "user", "content": "Tell me a story about a lighthouse."},), max_tokens=24)
_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": ["qwzx"]}},
    "required": ["word"],
    "additionalProperties": False,
}
"""Nobody says that by chance."""


class Finding(NamedTuple):
    """What became of one parameter."""

    what: str
    verdict: str
    """``honoured``, ``ignored``, ``refused``, ``unclear`` or ``not offered``."""
    why: str


def check_server(server: Server) -> list[Finding]:
    """Ask a server about a dozen short things, and say of each parameter what it did with it.

    Raises:
        ValueError: no request can go well (a key that is wrong, a model that it does not have).
    """
    checks: Mapping[str, Callable[[Server], tuple[str, str]]] = {
        "max_tokens": _max_tokens,
        "temperature": _temperature,
        "seed": _seed,
        "schema": _schema,
        "usage": _usage,
        "logprobs": _logprobs,
        "n": _n,
    }
    found = []
    for what, check in checks.items():
        try:
            found.append(Finding(what, *check(server)))
        except (Refused, Failed) as error:
            found.append(Finding(what, "refused", str(error)[:200]))
        except TryAgain as error:
            found.append(Finding(what, "unclear", str(error)[:200]))
    return found


def _send(server: Server, **changes: Any) -> Reply:
    return server.send(replace(_TELL, **changes), without=frozenset())


def _max_tokens(server: Server) -> tuple[str, str]:
    reply = _send(server, max_tokens=5)
    if reply.stop is not Stop.LENGTH:
        return "ignored", f"with 5 tokens at most it stopped for the reason {reply.stop.value!r}"
    if reply.output_tokens > 5:
        return "ignored", f"with 5 tokens at most it gave {reply.output_tokens}"
    return "honoured", "an answer is cut there, and the server says so"


def _temperature(server: Server) -> tuple[str, str]:
    cold = {_send(server, temperature=0.0).text for _ in range(3)}
    hot = {_send(server, temperature=1.5, seed=seed).text for seed in range(3)}
    if len(cold) > 1:
        return "ignored", "at 0 the same request has several answers"
    if len(hot) == 1:
        return "ignored", "at 1.5 three seeds have one answer"
    return "honoured", "one answer at 0, several at 1.5"


def _seed(server: Server) -> tuple[str, str]:
    same = {_send(server, temperature=1.0, seed=7).text for _ in range(3)}
    others = {_send(server, temperature=1.0, seed=seed).text for seed in range(8, 11)}
    if len(same) > 1:
        return "ignored", "the same seed has several answers at temperature 1"
    if same == others:
        return "unclear", "all seeds have one answer at temperature 1"
    return "honoured", "one answer a seed at temperature 1"


def _schema(server: Server) -> tuple[str, str]:
    reply = _send(server, schema=_SCHEMA, max_tokens=64)
    why = read_answer(reply.text, _SCHEMA)[1]
    if why is None:
        return "honoured", "the answer fits a schema that nobody fits by chance"
    return "ignored", f"{why}; errata asks for it in words as well, and checks every answer"


def _usage(server: Server) -> tuple[str, str]:
    reply = _send(server)
    if reply.input_tokens and reply.output_tokens:
        return "honoured", f"{reply.input_tokens} tokens in, {reply.output_tokens} out"
    return "not offered", "no count of tokens: costs are not known"


def _raw(server: Server, **settings: Any) -> Any:
    create = getattr(getattr(getattr(getattr(server, "sdk", None), "chat", None), "completions", None), "create", None)
    if create is None:
        return None
    try:
        return create(model=server.model, messages=[dict(each) for each in _TELL.messages], max_tokens=8, **settings)
    except Exception as error:
        raise Failed(scrubbed(" ".join(str(error).split()))) from None


def _logprobs(server: Server) -> tuple[str, str]:
    got = _raw(server, logprobs=True)
    if got is None:
        return "not offered", "its protocol has none"
    choices = got.choices or [None]
    if getattr(getattr(choices[0], "logprobs", None), "content", None):
        return "honoured", "one a token"
    return "ignored", "asked for, and not there"


def _n(server: Server) -> tuple[str, str]:
    got = _raw(server, n=2, temperature=1.0)
    if got is None:
        return "not offered", "its protocol has none"
    count = len(got.choices or [])
    return ("honoured", "two answers to one request") if count == 2 else ("ignored", f"2 asked for, {count} given")
