"""Frozen dataclasses as JSON and back: the file has the names of the fields, and nothing is guessed.

A number is finite or null; a field with a default may be missing; an unknown key is an error that says where it stands.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from errata.runs import new_file

__all__ = ["from_plain", "read_plain", "to_plain", "write_plain"]

T = TypeVar("T")


def to_plain(found: Any, where: str) -> dict[str, Any]:
    """A dataclass as plain dicts, lists, strings and finite numbers; ``where`` is what an error calls it.

    Raises:
        ValueError: A number is NaN or infinite (says which); one that was not measured is None.
    """
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(found)))
    bad = next(_not_finite(plain, where), None)
    if bad:
        raise ValueError(f"{bad}: give None for what was not measured")
    return plain


def from_plain(kind: type[T], plain: Mapping[str, Any], where: str) -> T:
    """The dataclass that ``plain`` spells out.

    Raises:
        ValueError: A key is unknown or missing, a value of another type, or a number not finite (says where).
    """
    bad = next(_not_finite(dict(plain), where), None)
    if bad:
        raise ValueError(f"{bad}: what was not measured is null")
    found = _read(kind, dict(plain), where)
    assert isinstance(found, kind)
    return found


def write_plain(path: Path, found: Any, where: str) -> None:
    """Write a dataclass as JSON in one step.

    Raises:
        ValueError: A number is NaN or infinite (says which); nothing is written then.
    """
    text = json.dumps(to_plain(found, where), indent=1, allow_nan=False)
    with new_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_plain(kind: type[T], path: Path, where: str) -> T:
    """What ``write_plain`` wrote, whoever wrote it.

    Raises:
        ValueError: The file is no JSON, or as in ``from_plain``; says which file.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict):
            raise ValueError(f"a {where} is a JSON object")
        return from_plain(kind, plain, where)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _not_finite(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}"
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _not_finite(part, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _not_finite(part, f"{where}[{index}]")


def _read(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``kind``, which is one that the classes above use."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        present = next(part for part in arguments if part is not type(None))
        return None if value is None else _read(present, value, where)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}, where an object is due")
        hints = get_type_hints(kind)
        fields = {known.name: known for known in dataclasses.fields(kind)}
        unknown = sorted(value.keys() - fields.keys())
        if unknown:
            raise ValueError(f"{where} has the unknown key {unknown[0]!r}; it knows {', '.join(fields)}")
        for name, known in fields.items():
            optional = known.default is not dataclasses.MISSING or known.default_factory is not dataclasses.MISSING
            if name not in value and not optional:
                raise ValueError(f"{where} lacks the key {name!r}")
        assert isinstance(kind, type)
        return kind(**{name: _read(hints[name], part, f"{where}.{name}") for name, part in value.items()})
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {value!r}, where a list is due")
        return tuple(_read(arguments[0], part, f"{where}[{index}]") for index, part in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}, where an object is due")
        return {key: _read(arguments[1], part, f"{where}.{key}") for key, part in value.items()}
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {value!r}, where {kind.__name__} is due")
    return value
