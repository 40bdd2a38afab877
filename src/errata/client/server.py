"""What stands behind a chat: one request out, one reply or one kind of failure back. Retries are the engine's."""

from __future__ import annotations

import email.utils
import os
import re
import time
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Protocol

from errata.client.chat import Ask, Stop
from errata.client.providers import key_variables

__all__ = [
    "Failed",
    "Refused",
    "Reply",
    "Server",
    "TryAgain",
    "address",
    "need",
    "patience",
    "scrubbed",
    "translated",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a server sent."""

    text: str
    stop: Stop
    model: str
    input_tokens: int
    output_tokens: int


class Server(Protocol):
    """One model of one server."""

    @property
    def name(self) -> str:
        """Where it is: a provider or an address, without keys; part of a request's key in the ledger."""
        ...

    @property
    def model(self) -> str:
        """As the user named it."""
        ...

    @property
    def enforces_schema(self) -> bool:
        """Whether its maker promises that an answer fits the schema; otherwise the prompt says it, too."""
        ...

    def send(self, ask: Ask, *, without: Set[str]) -> Reply:
        """Send one request, once, leaving out the fields of ``Ask`` in ``without``.

        Raises:
            TryAgain: it may go well next time.
            Refused: the server does not take one of the fields.
            Failed: this request will never go well.
            ValueError: no request will; says the remedy.
        """
        ...


class TryAgain(Exception):  # noqa: N818
    """A request failed in a way that may pass.

    Args:
        reason: for the user.
        after: seconds that the server asks to wait.
        billed: whether the server may have charged for an answer that did not arrive.
        connected: whether anything listens there.
    """

    def __init__(
        self, reason: str, *, after: float | None = None, billed: bool = False, connected: bool = True
    ) -> None:
        super().__init__(reason)
        self.after, self.billed, self.connected = after, billed, connected


class Refused(Exception):  # noqa: N818
    """The server does not take a field of ``Ask``; it goes on without."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class Failed(Exception):  # noqa: N818
    """This request alone will never go well: it is too long, or not allowed."""


def need(module: str) -> Any:
    """Import an optional SDK.

    Raises:
        ValueError: it is not installed; says the command.
    """
    try:
        return __import__(module)
    except ImportError:
        raise ValueError(
            f"this needs the {module} package, which is not installed: pip install 'errata[{module}]'"
        ) from None


def patience(sdk: Any, seconds: float) -> Any:
    """How long an SDK waits for an answer, and at most ten seconds of it until somebody is there at all."""
    return sdk.Timeout(seconds, connect=min(seconds, 10.0))


def address(url: Any) -> str:
    """A server's name by its URL, without the password that may stand in it.

    >>> address("http://me:secret@127.0.0.1:8000/v1/")
    'http://127.0.0.1:8000/v1'
    """
    return re.sub(r"(?<=://)[^/]*@", "", str(url)).rstrip("/")


def scrubbed(text: str) -> str:
    """``text`` without keys: not those of the environment, and nothing that looks like one.

    >>> scrubbed("Incorrect API key provided: sk-proj-abcdefgh12345678.")
    'Incorrect API key provided: [key].'
    """
    for key in filter(None, map(os.environ.get, key_variables())):
        if len(key) >= 6:  # a shorter one ("none", "x") is no secret, and may be a word
            text = text.replace(key, "[key]")
    return re.sub(r"sk-[\w-]{8,}|(?<=Bearer )[^\s'\"]{8,}", "[key]", text)


def translated(error: Exception, sdk: Any, wire: dict[str, str], *, key: str) -> Exception:
    """An SDK's error as one of this module's; both SDKs name theirs alike.

    Args:
        error: what the SDK raised.
        sdk: the SDK's module.
        wire: fields of ``Ask`` that may be left out, and how the server calls them.
        key: the environment variable that holds the key.
    """
    said = str(error)
    if isinstance(error, sdk.APIStatusError) and " - " not in said:  # the SDK knows the words of its own maker alone
        said = f"{said} - {error.response.text}"
    reason = scrubbed(" ".join(said.split()))[:500]
    if isinstance(error, sdk.APITimeoutError):
        return TryAgain("no answer in time", billed=True)
    if isinstance(error, sdk.APIConnectionError):
        cause = error.__cause__
        connected = type(cause).__name__ not in ("ConnectError", "ConnectTimeout")
        return TryAgain(scrubbed(f"{reason} {cause or ''}".strip())[:500], billed=connected, connected=connected)
    if not isinstance(error, sdk.APIStatusError):
        return TryAgain(f"an answer that cannot be read: {reason}", billed=True)
    status = error.status_code
    body = str(getattr(error, "code", "") or "") + reason
    if status in (401, 403):
        return ValueError(f"the server refuses the key in {key} ({reason}); set the environment variable")
    if status == 402 or "insufficient_quota" in body or "credit balance" in body:
        return ValueError(f"the account has no credit left ({reason})")
    if status == 404:
        return ValueError(f"the server does not know this model or path ({reason})")
    if status in (408, 409, 425, 429) or status >= 500:
        return TryAgain(reason, after=_retry_after(error.response.headers))
    for field, name in wire.items():
        if getattr(error, "param", None) == name or re.search(rf"\b{name}\b", reason):
            return Refused(field, reason)
    return Failed(reason)


def _retry_after(headers: Any) -> float | None:
    """Seconds, from a number or a date."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers[name]) / unit)  # in this order NaN is 0
        except (KeyError, ValueError):
            continue
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(date.timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None
