"""Data inside a page: one JSON text that HTML cannot misread, with a character or two for every number of a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

__all__ = ["DIGITS", "pack", "to_json"]

DIGITS = "".join(char for char in map(chr, range(0x21, 0x7F)) if char not in "\"&<>\\'")
"""The digits of packed streams: those of ASCII that neither JSON nor HTML escapes."""

_RISKY = re.compile("[&<>\x7f\u2028\u2029\ud800-\udfff]")


def pack(streams: Sequence[Sequence[float]]) -> tuple[dict[str, object], list[str]]:
    """Write each stream as a text of fixed-width numerals, which index a table of the distinct values of all streams.

    Returns:
        ``{"table": [...], "width": characters a numeral}``, and one text a stream.

    >>> pack([[7, 7, 300], [], [300]])
    ({'table': [7, 300], 'width': 1}, ['!!#', '', '#'])
    """
    table, index = np.unique(np.concatenate([np.asarray(stream) for stream in [*streams, []]]), return_inverse=True)
    table = table.astype(np.int64) if (table == np.floor(table)).all() else table
    width = 1
    while len(DIGITS) ** width < len(table):
        width += 1
    powers = len(DIGITS) ** np.arange(width - 1, -1, -1)
    alphabet = np.frombuffer(DIGITS.encode(), np.uint8)
    text = alphabet[index[:, None] // powers % len(DIGITS)].tobytes().decode()
    stops = np.cumsum([0, *map(len, streams)]) * width
    return (
        {"table": table.tolist(), "width": width},
        [text[start:stop] for start, stop in zip(stops[:-1].tolist(), stops[1:].tolist(), strict=True)],
    )


def to_json(value: object) -> Markup:
    """``value`` as JSON that may stand inside a script element: no character of it can end the element or vanish.

    A lone surrogate, which UTF-8 cannot write, becomes an escape that JavaScript reads back as it was.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(_RISKY.sub(lambda match: f"\\u{ord(match[0]):04x}", text))  # noqa: S704
