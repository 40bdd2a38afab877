"""A JSON schema in words and as a check: for servers that do not enforce one, and to trust none that says it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["in_words", "misfit", "read_answer"]

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_KNOWN = {"type", "enum", "const", "anyOf", "properties", "required", "additionalProperties", "items", "minItems"}
_KNOWN |= {"maxItems", "minLength", "maxLength", "minimum", "maximum", "title", "description"}


def in_words(schema: Mapping[str, Any]) -> str:
    """What to ask of a model whose server enforces nothing."""
    shown = json.dumps(schema, ensure_ascii=False)
    return f"\n\nAnswer with one JSON value that fits this JSON schema, and with nothing else:\n{shown}"


def read_answer(text: str, schema: Mapping[str, Any]) -> tuple[Any, str | None]:
    r"""The JSON value that ``text`` holds, and why it does not fit or None.

    Words around the value (a fence, a thought) are passed over, for servers that enforce nothing.

    >>> read_answer('```json\n{"verdict": "keep"}\n```', {"type": "object", "required": ["verdict"]})
    ({'verdict': 'keep'}, None)
    >>> read_answer('{"verdict": "ke', {"type": "object"})[1]
    'the answer is no JSON, or is cut off'
    """
    problem = "the answer is no JSON, or is cut off"
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1], text[text.rfind("{") : text.rfind("}") + 1]):
        try:
            value = json.loads(candidate, parse_constant=_no_json)
        except ValueError:
            continue
        found = misfit(value, schema)
        if found is None:
            return value, None
        problem = found
    return None, problem


def misfit(value: Any, schema: Mapping[str, Any], at: str = "the answer") -> str | None:
    """Why ``value`` does not fit, or None; of JSON Schema the words that editors and judges need.

    >>> misfit({"n": 7}, {"type": "object", "properties": {"n": {"type": "integer", "maximum": 5}}})
    'the answer.n is 7, above 5'
    """
    assert set(schema) <= _KNOWN, f"unknown word in a schema: {sorted(set(schema) - _KNOWN)}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{at} is no {' or '.join(kinds)}"
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        return f"{at} is none of {json.dumps(schema['enum'], ensure_ascii=False)}"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{at} is not {json.dumps(schema['const'], ensure_ascii=False)}"
    if "anyOf" in schema:
        problems = [misfit(value, each, at) for each in schema["anyOf"]]
        if None not in problems:
            return problems[0]
    if isinstance(value, dict):
        return _object(value, schema, at)
    if isinstance(value, list):
        problems = [misfit(each, schema.get("items", {}), f"{at}[{k}]") for k, each in enumerate(value)]
        return next(filter(None, problems), None) or _size(len(value), schema, "Items", at)
    if isinstance(value, str):
        return _size(len(value), schema, "Length", at)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            return f"{at} is {value}, below {schema['minimum']}"
        if value > schema.get("maximum", value):
            return f"{at} is {value}, above {schema['maximum']}"
    return None


def _object(value: Mapping[str, Any], schema: Mapping[str, Any], at: str) -> str | None:
    for name in schema.get("required", []):
        if name not in value:
            return f"{at} lacks {name!r}"
    named = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, each in value.items():
        if name not in named and others is False:
            return f"{at} has {name!r}, which nobody asked for"
        within = named.get(name, others if isinstance(others, dict) else {})
        if problem := misfit(each, within, f"{at}.{name}"):
            return problem
    return None


def _size(size: int, schema: Mapping[str, Any], of: str, at: str) -> str | None:
    if schema.get(f"min{of}", size) <= size <= schema.get(f"max{of}", size):
        return None
    return f"{at} has a length of {size}"


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "boolean":  # True is an int to Python, not to JSON
        return isinstance(value, bool) and kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _KINDS[kind])


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
