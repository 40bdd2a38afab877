"""Characters to tokens: the rule by which labelled spans of a text become one label for each of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from errata.types import Encoded, Label, Span

__all__ = ["END", "project", "project_all"]

END = "\n"
"""Stands behind each of several texts, for the end of sequence to point at."""
_SOLID = np.int8(16)
"""More than any label."""
_SPACE = np.array([chr(code).isspace() for code in range(0x3001)] + [False])


def project(spans: Iterable[tuple[Span, Label]], text: str, encoded: Encoded) -> tuple[int, ...]:
    """Carry labelled character spans of one text over to its tokens.

    A token is changed if one of its characters other than white space lies in a changed span: the token " cat" stays
    when only its space was changed. A token of white space only is changed if any of its characters is. Where a token
    touches several changes, the label of the highest number wins: SUBSTITUTED over INSERTED and DELETED, IGNORED over
    all. A token without a character of its own (a piece of the next character) counts as that character, and the end of
    sequence is KEPT.

    Args:
        spans: character spans of ``text`` and their labels; what they leave out is KEPT.
        text: the response.
        encoded: its ids and offsets.

    Returns:
        One ``Label`` for each response token.

    >>> encoded = Encoded((7, 8, 9, 2), 1, ((0, 3), (3, 7), (7, 7)), True)
    >>> project([(Span(4, 7, "cat"), Label.SUBSTITUTED)], "The cat", encoded)
    (0, 3, 0)
    """
    changes = np.zeros(len(text) + 1, np.int8)
    for span, name in spans:
        changes[span.start : span.stop] = name
    return tuple(project_all(changes, text + END, [encoded.offsets], [0]).tolist())


def project_all(
    changes: NDArray[np.int8], text: str, offsets: Sequence[Sequence[tuple[int, int]]], starts: Sequence[int]
) -> NDArray[np.int8]:
    """The label of every token of the texts that ``text`` holds from ``starts`` on, by the rule of ``project``."""
    counts = [len(each) for each in offsets]
    if not sum(counts):
        return np.zeros(0, np.int8)
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(offsets)), np.int64, 2 * sum(counts))
    base = np.repeat(np.array(starts, np.int64), counts)
    start, stop = flat.reshape(-1, 2).T + base
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    solid = ~_SPACE[np.minimum(codes, len(_SPACE) - 1)]
    seen = np.concatenate([[0], np.cumsum(solid)])
    covered = np.maximum(np.maximum.accumulate(np.concatenate([[0], stop[:-1]])), base)
    left_out = np.flatnonzero(seen[start] > seen[np.minimum(covered, start)])
    if len(left_out):
        first = int(left_out[0])
        raise ValueError(
            f"no token stands for {text[covered[first] : start[first]]!r}: the tokenizer normalises the text, and what "
            "was edited cannot be told by its tokens; use a tokenizer that keeps all characters"
        )
    # One maximum a token: of its solid characters where it has any, of its white space otherwise.
    marks = np.append(changes + np.where(solid, _SOLID, np.int8(0)), np.int8(0))
    bounds = np.stack([start, stop], 1).ravel()  # an empty span stands for the character at its start
    labels: NDArray[np.int8] = np.maximum.reduceat(marks, bounds)[::2] % _SOLID
    return labels
