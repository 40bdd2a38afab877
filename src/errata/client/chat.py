"""What is asked of a chat model and what comes back: all that editors and judges know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

__all__ = ["Answer", "Ask", "Chat", "Stop"]


class Stop(StrEnum):
    """Why a chat model's answer ended."""

    END = "end"
    """The model was done."""
    LENGTH = "length"
    """``max_tokens`` was reached: the answer is cut off."""
    REFUSAL = "refusal"
    """The model or its provider would not answer."""
    ERROR = "error"
    """There is no answer, after all tries; ``Answer.error`` says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request. Equal requests to the same model are one request: the ledger answers the second."""

    messages: tuple[Mapping[str, str], ...]
    """``role`` (system, user, assistant) and ``content``, oldest first."""
    max_tokens: int = 1024
    """Longest answer, in the model's tokens."""
    temperature: float | None = 0.0
    """None leaves it to the server: some models take none."""
    seed: int | None = None
    """Of sampling, where a server honours it. Another seed is another request."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the answer. A server that does not enforce it is asked again when its answer does not fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back for one request."""

    text: str
    """Empty where there was none."""
    stop: Stop
    model: str = ""
    """As the server names it, a dated version where there is one."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    """In US dollars, for this answer and its failed tries; None if the price is not known."""
    cached: bool = False
    """Whether it was in the ledger, and cost nothing this time."""
    value: Any = None
    """The JSON that ``text`` holds, if the request had a schema and the answer fits it."""
    error: str | None = None
    """Why there is no answer, without keys."""


class Chat(Protocol):
    """A chat model: many requests at once, answers in their order.

    A request that fails for good is an answer with ``Stop.ERROR``. What would fail for all of them (a key that is
    wrong, a model that does not exist, the limit of cost) raises ``ValueError`` with the remedy.
    """

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Ask."""
        ...
