"""Characters to tokens: the rule by which labelled spans of a text become one label for each of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from errata.types import Encoded, Label, Span, WeightSpan

__all__ = ["END", "project", "project_all", "project_weights"]

Whole = TypeVar("Whole", np.int8, np.int64)

END = "\n"
"""Stands behind each of several texts, for the end of sequence to point at."""
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


def project_weights(spans: Iterable[WeightSpan], text: str, encoded: Encoded) -> tuple[float, ...]:
    """Carry weights of character spans of one text over to its tokens by the rule of ``project``; the rest weighs 0.

    Where spans overlap or a token touches several, the weight of the largest size wins, of equal sizes the later one.

    Args:
        spans: characters of ``text`` and their weights; the empty span at its end is the end of sequence.
        text: the response.
        encoded: its ids and offsets.

    Returns:
        One weight for each response token: those that length cut off are gone with their weights.

    Raises:
        ValueError: a span that does not lie in ``text``, or is empty elsewhere.

    >>> encoded = Encoded((7, 8, 9, 2), 1, ((0, 3), (3, 7), (7, 7)), True)
    >>> project_weights([(4, 7, -0.5), (7, 7, 2.0)], "The cat", encoded)
    (0.0, -0.5, 2.0)
    """
    ordered = sorted(spans, key=lambda span: abs(span[2]))
    ranks = np.zeros(len(text) + 1, np.int64)
    for rank, (start, stop, _) in enumerate(ordered, start=1):
        if not (0 <= start < stop <= len(text) or start == stop == len(text)):
            raise ValueError(
                f"[{start}, {stop}] is no span of a text of {len(text)} characters; count them from 0, with stop behind"
                f" the last one, and give [{len(text)}, {len(text)}] for the end of sequence"
            )
        ranks[start : max(stop, start + 1)] = rank
    weights = [0.0, *(float(weight) for _, _, weight in ordered)]
    return tuple(weights[rank] for rank in project_all(ranks, text + END, [encoded.offsets], [0]).tolist())


def project_all(
    changes: NDArray[Whole], text: str, offsets: Sequence[Sequence[tuple[int, int]]], starts: Sequence[int]
) -> NDArray[Whole]:
    """The label of every token of the texts that ``text`` holds from ``starts`` on, by the rule of ``project``."""
    counts = [len(each) for each in offsets]
    if not sum(counts):
        return changes[:0]
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
    above = changes.max() + changes.dtype.type(1)  # more than any label
    marks = np.append(changes + above * solid, changes.dtype.type(0))
    bounds = np.stack([start, stop], 1).ravel()  # an empty span stands for the character at its start
    labels: NDArray[Whole] = np.maximum.reduceat(marks, bounds)[::2] % above
    return labels
