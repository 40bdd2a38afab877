"""One row's fields, taken apart: each function takes a field out of the row, checks it and gives its value.

What is left of the fields afterwards is what errata does not know, and travels with the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from errata.types import Prompt, WeightSpan

__all__ = [
    "ID_FIELDS",
    "EmptyTextError",
    "Fields",
    "is_conversation",
    "is_empty",
    "take_answer",
    "take_conversation",
    "take_id",
    "take_ids",
    "take_prompt",
    "take_reasons",
    "take_text",
    "take_weights",
]

Fields = dict[str, Any]
ID_FIELDS = ("rejected_ids", "original_ids")


class EmptyTextError(ValueError):
    """A row says nothing where a text is needed: somebody left a cell empty."""


_NOT_A_PROMPT = "is neither a text nor a list of messages with role and content; make it one"


def take_id(fields: Fields, line: int) -> str:
    """The id as text, or ``row-<line>`` where there is none.

    Raises:
        ValueError: it is empty, or neither a text nor a number.
    """
    value = fields.pop("id", None)
    if value is None:
        return f"row-{line}"
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"field 'id' is {value!r}; give a text or a number, or leave it out")
    return str(value)


def take_text(fields: Fields, name: str) -> str:
    """A field that is a text.

    Raises:
        ValueError: it is missing, or anything else.
    """
    value = _take(fields, name)
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} is not a text but a {type(value).__name__}; make it one")
    return value


def take_prompt(fields: Fields, name: str = "prompt") -> Prompt:
    """A prompt: a text, or messages; content parts of type ``text`` are joined as chat templates join them.

    Raises:
        ValueError: it is missing or neither, calls a tool, or holds a content part that is no text.
    """
    if fields.get(name) is None:
        raise ValueError(f"field {name!r} is missing; add it, or an empty text where there was none")
    value = _take(fields, name)
    return value if isinstance(value, str) else _conversation(value, name)


def take_conversation(fields: Fields, name: str) -> list[dict[str, str]]:
    """A field that is messages, and no text. Errors are those of ``take_prompt``."""
    return _conversation(_take(fields, name), name)


def take_answer(fields: Fields, name: str) -> str:
    """An answer: a text, or a list of one assistant message.

    Raises:
        ValueError: it is missing or neither, calls a tool, or holds a content part that is no text.
    """
    value = _take(fields, name)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1:
        message = _message(value[0], f"field {name!r}")
        if message is not None and message["role"] == "assistant":
            return message["content"]
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        raise ValueError(
            f"field {name!r} is a list of {len(value)} texts, as in RM-Bench, and a row has one; write a row for each "
            "pair of texts that you mean"
        )
    raise ValueError(
        f"field {name!r} is neither a text nor a list of one assistant message; put what comes before into 'prompt'"
    )


def take_ids(fields: Fields, names: Sequence[str]) -> tuple[int, ...] | None:
    """Sampled ids under one of several names, or None where they are not known.

    Raises:
        ValueError: two of the names hold ids, or one holds something else.
    """
    name, ids = _take_one(fields, names, "the sampled ids")
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(type(each) is int and each >= 0 for each in ids):
        raise ValueError(f"field {name!r} is not a list of token ids; give whole numbers from 0, or leave it out")
    return tuple(ids)


def take_weights(fields: Fields, names: Sequence[str]) -> tuple[WeightSpan, ...] | None:
    """Weights of character spans under one of several names, or None where there are none.

    Raises:
        ValueError: two of the names hold weights, or one holds something else.
    """
    name, spans = _take_one(fields, names, "the weights of one text")
    if spans is None:
        return None
    if not isinstance(spans, list) or not all(_is_weight_span(span) for span in spans):
        raise ValueError(
            f"field {name!r} is not a list of [start, stop, weight]; give two whole numbers, which count characters "
            "from 0, and a number, or leave it out"
        )
    return tuple((int(start), int(stop), weight) for start, stop, weight in spans)


def take_reasons(fields: Fields) -> tuple[str, ...]:
    """Why the text was edited: ``reason`` is a text or a list of texts; none where it is absent or empty.

    Raises:
        ValueError: it is anything else, or holds an empty text.
    """
    value = fields.pop("reason", None)
    reasons = [value] if isinstance(value, str) and value else value or []
    if not isinstance(reasons, list) or not all(isinstance(each, str) and each for each in reasons):
        raise ValueError("field 'reason' is neither a text nor a list of texts; make it one, or leave it out")
    return tuple(reasons)


def is_conversation(value: object) -> bool:
    """Whether a value looks like messages: a list, not empty, of objects with a ``role``."""
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)


def is_empty(text: str) -> bool:
    """Whether a text holds nothing but white space."""
    return not text or text.isspace()


def _take(fields: Fields, name: str) -> Any:
    value = fields.pop(name, None)
    if value is None:
        raise ValueError(f"field {name!r} is missing; add it")
    return value


def _take_one(fields: Fields, names: Sequence[str], what: str) -> tuple[str, Any]:
    """The only field of several names that is there, and its value; None for a value where none is."""
    given = {name: value for name in names if (value := fields.pop(name, None)) is not None}
    if len(given) > 1:
        raise ValueError(f"fields {tuple(given)} both hold {what}; keep one")
    return next(iter(given.items()), (names[0], None))


def _is_weight_span(value: object) -> bool:
    # A column of a table makes one type of all three numbers.
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(number) in (int, float) for number in value)
        and value[0] % 1 == value[1] % 1 == 0
    )


def _conversation(value: object, name: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"field {name!r} {_NOT_A_PROMPT}")
    messages = []
    for number, each in enumerate(value, start=1):
        message = _message(each, f"field {name!r}, message {number}")
        if message is None:
            raise ValueError(f"field {name!r} {_NOT_A_PROMPT}")
        messages.append(message)
    return messages


def _message(value: object, where: str) -> dict[str, str] | None:
    """A message whose content is one text; None for what is no message."""
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        return None
    # A column of a table gives every message every key: null stands for one that this message does not have.
    message = {key: each for key, each in value.items() if each is not None}
    for key in ("tool_calls", "function_call"):
        if message.pop(key, None):
            raise ValueError(
                f"{where} calls a tool ({key!r}); errata reads text: write the call as text, or drop the row"
            )
    content = message.get("content")
    if isinstance(content, list) and content:
        content = _joined(content, where)
    return {**message, "content": content} if isinstance(content, str) else None


def _joined(parts: list[Any], where: str) -> str | None:
    if not all(isinstance(part, Mapping) and isinstance(part.get("type"), str) for part in parts):
        return None
    for part in parts:
        if part["type"] != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"{where} has a content part of type {part['type']!r}; errata reads text: drop the row")
    return "".join(part["text"] for part in parts)
