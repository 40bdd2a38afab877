"""JSON values and lines as records, read piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from errata.data.fields import Fields
from errata.data.files import (
    Record,
    decoded_text,
    raw_line,
    refuse_half_characters,
)
from errata.data.sniff import (
    open_bytes,
    reading_bytes,
)

__all__ = ["json_elements", "json_objects", "json_shape", "line_records", "value_records"]

_CHUNK = 1 << 16


class _Decoder(json.JSONDecoder):
    """Keeps the names that one object has twice, of which JSON would take the last."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.twice: list[str] = []

    def _object(self, pairs: list[tuple[str, Any]]) -> Fields:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            self.twice += sorted({name for name in names if names.count(name) > 1})
        return fields


def json_shape(text: str, whole: bool, suffix: str) -> str:
    """`array`, `lines` or `objects`, by the first characters: an object that goes on after its line is no line."""
    start = text.lstrip()
    if start.startswith("[") and (suffix == ".json" or re.match(r"\[\s*(\{|\]|$)", start)):
        return "array"
    if not start.startswith("{"):
        return "array" if suffix == ".json" else "lines"
    first, broken, _ = start.partition("\n")
    if _begins_with_json(first) or (suffix != ".json" and first.rstrip() != "{"):
        return "lines" if broken or suffix != ".json" else "objects"
    return "objects" if not whole or suffix == ".json" or _begins_with_json(start) else "lines"


def _begins_with_json(text: str) -> bool:
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def line_records(path: Path, encoding: str) -> Iterator[Record]:
    """JSON Lines."""
    decoder = _Decoder()
    for line, data in _lines(path, encoding):
        yield Record(line, partial(raw_line, data), partial(_load_json, data, line, decoder), not data.strip())


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, bytes]]:
    r"""The lines in UTF-8, numbered from 1; only ``\n`` ends one."""
    if encoding == "utf-8-sig":
        with reading_bytes(path), open_bytes(path) as file:
            yield from enumerate(file, start=1)
    else:
        with decoded_text(path, encoding, newline="\n") as text:
            yield from enumerate((line.encode("utf-8", "surrogateescape") for line in text), start=1)


def _load_json(data: bytes, line: int, decoder: _Decoder) -> Fields:
    if not data.strip():
        raise ValueError("the line is blank; take it out")
    try:
        text = data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not UTF-8 at byte {error.start}; save the file as UTF-8, or say its --encoding, such as cp1252"
        ) from error
    decoder.twice.clear()
    try:
        fields = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}; write one object on each line") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"not JSON that can be read: {error}; take it out of the row") from error
    return _checked(fields, text, tuple(decoder.twice))


def _checked(fields: object, text: str, twice: Sequence[str]) -> Fields:
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object but a {type(fields).__name__}; write {{...}} for each row")
    if twice:
        raise ValueError(f"field {twice[0]!r} stands twice in the row; keep one of the two")
    if "\\u" in text:  # the only way in for half of a surrogate pair
        refuse_half_characters(fields)
    # Whoever looks at the first rows of a file must not take them from who reads it.
    return dict(fields)


def value_records(path: Path, encoding: str, values: Callable[..., Iterator[tuple[Any, str]]]) -> Iterator[Record]:
    """A file of JSON values: one list of them, or one after another."""
    number, decoder = 0, _Decoder()
    try:
        with decoded_text(path, encoding, newline="") as file:
            for number, (value, text) in enumerate(values(partial(_read_valid, file), decoder), start=1):
                twice = tuple(decoder.twice)
                decoder.twice.clear()
                yield Record(number, partial(str, text), partial(_load_value, value, text, twice))
    except (RecursionError, ValueError) as error:
        what = "a JSON array of rows" if values is json_elements else "JSON objects, one after the other"
        raise ValueError(
            f"{path} is not {what}, or is damaged after row {number} ({error}); write it anew, or "
            "name a file of one object a line .jsonl"
        ) from error


def _load_value(value: object, text: str, twice: Sequence[str]) -> Fields:
    fields = _checked(value, text, twice)
    for name in ("data", "rows", "items", "records", "examples", "results"):
        inner = fields.get(name)
        if len(fields) < 4 and isinstance(inner, list) and inner and isinstance(inner[0], dict):
            raise ValueError(f"field {name!r} holds {len(inner)} rows of its own; write that list to a file")
    return fields


def _read_valid(file: TextIO, count: int) -> str:
    text = file.read(count)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it is not UTF-8; save it as UTF-8, or say its --encoding") from error
    return text


def json_objects(read: Callable[[int], str], decoder: json.JSONDecoder) -> Iterator[tuple[Any, str]]:
    """JSON values that stand one after the other, with their texts; one is held at a time."""
    buffer, start = _skip(read, "", 0)
    while buffer:
        value, text, buffer, start = _value(read, buffer[start:], decoder, ends=" \t\r\n{")
        yield value, text
        buffer, start = _skip(read, buffer, start)


def json_elements(read: Callable[[int], str], decoder: json.JSONDecoder | None = None) -> Iterator[tuple[Any, str]]:
    """The elements of a JSON array with their texts; reads on by chunks, so that only one element is held."""
    decoder = decoder or json.JSONDecoder()
    buffer, start = _skip(read, "", 0)
    if buffer[start : start + 1] != "[":
        raise ValueError("it does not begin with [")
    buffer, start = _skip(read, buffer, start + 1)
    while buffer[start : start + 1] != "]":
        value, text, buffer, start = _value(read, buffer[start:], decoder, ends=" \t\r\n,]")
        buffer, start = _skip(read, buffer, start)
        mark = buffer[start : start + 1]
        if mark == ",":
            buffer, start = _skip(read, buffer, start + 1)
            if buffer[start : start + 1] == "]":
                raise ValueError("a comma stands before its ]")
        elif mark != "]":
            raise ValueError("no comma stands between two rows, or the ] is missing")
        yield value, text
    if _skip(read, buffer, start + 1)[0]:
        raise ValueError("something stands after its ]")


def _value(
    read: Callable[[int], str], buffer: str, decoder: json.JSONDecoder, *, ends: str
) -> tuple[Any, str, str, int]:
    """The value that the buffer begins with, its text, and the buffer with the place after it; reads on as needed."""
    while True:
        if isinstance(decoder, _Decoder):
            decoder.twice.clear()
        try:
            value, stop = decoder.raw_decode(buffer)
            # A number may go on where the buffer ends.
            broken = None if buffer[stop : stop + 1] in tuple(ends) else ValueError("a row does not end")
        except json.JSONDecodeError as error:
            broken = error
        if broken is None:
            return value, buffer[:stop], buffer, stop
        # As much again as there is: a long element is tried a few times, not once for each chunk.
        more = read(max(_CHUNK, len(buffer)))
        if not more:
            if isinstance(broken, json.JSONDecodeError) or "]" in ends:
                raise broken
            return value, buffer[:stop], buffer, stop
        buffer += more


def _skip(read: Callable[[int], str], buffer: str, start: int) -> tuple[str, int]:
    """Past blanks, to the next character that is none, or to the end of the file."""
    while True:
        rest = buffer[start : start + _CHUNK].lstrip(" \t\r\n")
        if rest:
            return buffer, start + len(buffer[start : start + _CHUNK]) - len(rest)
        buffer, start = buffer[start + _CHUNK :] or read(_CHUNK), 0
        if not buffer:
            return "", 0
