"""Two texts to typed edits and back: ``apply(original, diff(original, edited)) == edited`` for any two strings.

The edits are those of a minimal Levenshtein alignment of the units (``difflib`` is not minimal: it moves blocks whole),
the same one every time (``errata.edits.align``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from errata.edits.align import align
from errata.edits.word_spans import split_text
from errata.types import Edit, Label, Op, Span, Ties, Unit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ORIGIN", "Piece", "apply", "diff", "pieces"]

_KEPT = re.compile(rb"\0*")
_PHRASE_GAP = 1
_BREAK = re.compile(r"[.!?…。！？;:]|[\n\r\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class _Units:
    """A text cut into units.

    Unit ``k`` is compared by ``keys[k]`` and reads ``text[cuts[k]:cuts[k + 1]]``, of which the white space before it
    ends at ``bodies[k]``. What follows the last unit is white space too, and ends at the last of the ``len(keys) + 2``
    cuts. The cuts in ``inside`` fall within a character, so that no edit may end there.
    """

    text: str
    keys: Sequence[str | int]
    cuts: Sequence[int]
    bodies: Sequence[int]
    inside: frozenset[int] = frozenset()


class Piece(NamedTuple):
    """An operation, and up to where it covers texts a and b: in characters, and in units i and j."""

    op: Op
    a: int
    b: int
    i: int
    j: int


ORIGIN = Piece(Op.SUBSTITUTE, 0, 0, 0, 0)  # any operation but KEEP, which would merge with the first piece
"""Where the first piece begins."""


def diff(
    original: str,
    edited: str,
    unit: Unit | str = Unit.WORD,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    ties: Ties = Ties.TAGGER,
) -> list[Edit]:
    """The fewest edits that turn one text into another, as spans that cover both texts, in order and without a gap.

    Neighbouring kept units are one edit, every changed unit is one of its own.

    - ``word``: the distance is minimal over words (``errata.edits.word_spans``). A deleted or inserted word takes the
      white space before it along; white space that changed before a word that stays, or at the end, is an edit of its
      own.
    - ``phrase``: words, and changes with at most one kept word between them are one edit, that word included, unless a
      line or a clause ends there (``. ! ? … : ;``). Changed white space joins nothing.
    - ``char``: code points, so that a letter and its combining accent are two units.
    - ``token``: the papers' choice, minimal over the token ids of a fast ``tokenizer``; spans carry ``token_start`` and
      ``token_stop``. Tokens that share a character (bytes of an emoji) are changed together. A token that stays but
      reads differently (the space of a first word) gives an edit of its white space.

    Args:
        original: the text before.
        edited: the text after.
        unit: what one edit changes.
        tokenizer: a fast Hugging Face tokenizer, for ``token`` only.
        ties: which edits, where others are as few.

    Returns:
        The edits; none for two empty texts.

    Raises:
        ValueError: unknown unit; ``token`` without a fast tokenizer, or with one whose offsets miss a character.

    >>> for edit in diff("It opens at nine.", "It opens daily at ten."):
    ...     print(edit.op, repr(edit.original.text), repr(edit.edited.text))
    keep 'It opens' 'It opens'
    insert '' ' daily'
    keep ' at ' ' at '
    substitute 'nine' 'ten'
    keep '.' '.'
    """
    found = pieces(original, edited, unit, tokenizer, ties=ties)
    with_tokens = unit == Unit.TOKEN
    return [
        Edit(
            end.op,
            Span(start.a, end.a, original[start.a : end.a], *((start.i, end.i) if with_tokens else ())),
            Span(start.b, end.b, edited[start.b : end.b], *((start.j, end.j) if with_tokens else ())),
        )
        for start, end in pairwise([ORIGIN, *found])
    ]


def pieces(
    original: str,
    edited: str,
    unit: Unit | str = Unit.WORD,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    ties: Ties = Ties.TAGGER,
) -> list[Piece]:
    """The edits of ``diff`` by their ends alone: each covers what lies between the piece before and itself.

    Arguments and errors are those of ``diff``.
    """
    if unit not in list(Unit):
        raise ValueError(f"unknown unit {unit!r}; use one of {', '.join(Unit)}")
    if unit == Unit.TOKEN:
        if tokenizer is None:
            raise ValueError("unit 'token' needs a tokenizer; hand one in, or use unit 'word'")
        return _merged(_tokens(original, tokenizer), _tokens(edited, tokenizer), Unit.TOKEN, ties)
    split = _characters if unit == Unit.CHAR else _words
    a, b = split(original), split(edited)
    if unit == Unit.PHRASE:
        return _phrases(_merged(a, b, Unit.WORD, ties), a, b)
    return _merged(a, b, Unit(unit), ties)


def apply(original: str, edits: Sequence[Edit]) -> str:
    """Carry out edits on the text they were made for.

    Raises:
        ValueError: an edit's span is not what the text reads there, a kept span differs between the two sides, or the
            edits leave a part of the text out.

    >>> apply("one two", diff("one two", "one three"))
    'one three'
    """
    position = 0
    for index, edit in enumerate(edits):
        span = edit.original
        stop = position + len(span.text)
        if (span.start, span.stop) != (position, stop) or original[position:stop] != span.text:
            raise ValueError(
                f"edit {index} expects {span.text!r} at {span.start}:{span.stop}, and the text goes on with "
                f"{original[position:stop]!r} at {position}; apply edits to the text that they were made from"
            )
        if edit.op is Op.KEEP and edit.edited.text != span.text:
            raise ValueError(f"edit {index} keeps {span.text!r} as {edit.edited.text!r}; make it a substitution")
        position = stop
    if position != len(original):
        raise ValueError(
            f"the {len(edits)} edits end at character {position} of {len(original)}; keep the rest as well"
        )
    return "".join(edit.edited.text for edit in edits)


def _characters(text: str) -> _Units:
    return _Units(text, text, [*range(len(text) + 1), len(text)], range(len(text) + 1))


def _words(text: str) -> _Units:
    parts = split_text(text)
    ends = list(accumulate(map(len, parts)))
    return _Units(text, parts[1::2], [0, *ends[1::2], len(text)], ends[::2])


def _tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> _Units:
    name = type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise ValueError(
            f"{name} gives no character offsets; load the fast tokenizer of this model, or use unit 'word'"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"no tokenizer can read half of a surrogate pair ({error}); mend the text") from error
    # split_special_tokens: a response that spells "</s>" holds no control token.
    output = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True, verbose=False
    )
    cuts, inside = [0], set[int]()
    for k, (start, stop) in enumerate([*output["offset_mapping"], (len(text), len(text))]):
        if text[cuts[-1] : start].strip() or not start <= stop <= len(text):
            raise ValueError(
                f"{name} maps token {k} to characters {start}:{stop} after {cuts[-1]} of {text!r} and leaves some out; "
                "use a tokenizer that does not normalise the text, or unit 'word'"
            )
        if start < cuts[-1]:
            inside.add(k)
        cuts.append(max(stop, cuts[-1]))
    bodies = [stop - len(text[start:stop].lstrip()) for start, stop in pairwise(cuts)]
    return _Units(text, output["input_ids"], cuts, bodies, frozenset(inside))


def _runs(a: _Units, b: _Units, ties: Ties) -> Iterator[tuple[Op, int, int]]:
    """The alignment: an operation, and how many units of each text it and all before it cover.

    What is kept comes in runs, what is changed unit by unit.
    """
    a_labels, b_labels = align(a.keys, b.keys, ties)
    i = j = 0
    while i < len(a_labels) or j < len(b_labels):
        kept = min(_KEPT.match(a_labels, i).end() - i, _KEPT.match(b_labels, j).end() - j)  # type: ignore[union-attr]
        if kept:
            op, i, j = Op.KEEP, i + kept, j + kept
        elif i < len(a_labels) and a_labels[i] == Label.DELETED:
            op, i = Op.DELETE, i + 1
        elif j < len(b_labels) and b_labels[j] == Label.INSERTED:
            op, j = Op.INSERT, j + 1
        else:
            op, i, j = Op.SUBSTITUTE, i + 1, j + 1
        yield op, i, j
    yield Op.KEEP, i + 1, j + 1  # what follows the last unit


def _steps(a: _Units, b: _Units, ties: Ties) -> Iterator[tuple[Op, int, int]]:
    """The alignment again: runs whose white space differs, one unit at a time; what shares a character, together."""
    i = j = 0
    ops = set[Op]()
    for op, i_end, j_end in _runs(a, b, ties):
        if not a.inside and not b.inside and a.text[a.cuts[i] : a.cuts[i_end]] == b.text[b.cuts[j] : b.cuts[j_end]]:
            yield op, i_end, j_end
        else:
            for left in reversed(range(max(i_end - i, j_end - j))):
                ops.add(op)
                if i_end - left not in a.inside and j_end - left not in b.inside:
                    yield op if len(ops) == 1 else Op.SUBSTITUTE, i_end - left, j_end - left
                    ops.clear()
        i, j = i_end, j_end


def _merged(a: _Units, b: _Units, unit: Unit, ties: Ties) -> list[Piece]:
    """The alignment in characters, without empty pieces, neighbouring kept ones as one.

    White space that changed before a kept unit or a substituted word is a piece of its own.
    """
    ends = [ORIGIN]
    for op, i, j in _steps(a, b, ties):
        last, a_end, b_end = ends[-1], a.cuts[i], b.cuts[j]
        if (op is Op.KEEP and a.text[last.a : a_end] != b.text[last.b : b_end]) or (
            op is Op.SUBSTITUTE and unit is Unit.WORD
        ):
            a_body, b_body = a.bodies[i - 1], b.bodies[j - 1]
            gap = _op(a.text[last.a : a_body], b.text[last.b : b_body])
            if (a_body, b_body) == (a_end, b_end):
                op = gap
            else:
                _add(ends, Piece(gap, a_body, b_body, last.i, last.j))
                op = _op(a.text[a_body:a_end], b.text[b_body:b_end])
        _add(ends, Piece(op, a_end, b_end, min(i, len(a.keys)), min(j, len(b.keys))))
    return ends[1:]


def _add(ends: list[Piece], piece: Piece) -> None:
    if piece.op is Op.KEEP and ends[-1].op is Op.KEEP:
        ends[-1] = piece
    elif piece[1:] != ends[-1][1:]:
        ends.append(piece)


def _op(original: str, edited: str) -> Op:
    if original == edited:
        return Op.KEEP
    if not original:
        return Op.INSERT
    return Op.SUBSTITUTE if edited else Op.DELETE


def _phrases(found: Sequence[Piece], a: _Units, b: _Units) -> list[Piece]:
    """Word pieces with nearby changes taken together; the rule is in ``diff``."""
    ends = [ORIGIN]
    first = None  # where in ends the last change of words lies, if the next one may join it
    kept = 0  # words since then
    last = ORIGIN
    for piece in found:
        read, written = a.text[last.a : piece.a], b.text[last.b : piece.b]
        ends.append(piece)
        if piece.op is Op.KEEP:
            kept += piece.i - last.i
            if kept > _PHRASE_GAP or _BREAK.search(read):
                first = None
        elif read.strip() or written.strip():
            if first is None:
                first = len(ends) - 1
            else:
                start = ends[first - 1]
                del ends[first:]
                ends.append(piece._replace(op=_op(a.text[start.a : piece.a], b.text[start.b : piece.b])))
            kept = 0
        last = piece
    return ends[1:]
