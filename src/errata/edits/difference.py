"""Two texts to typed edits and back: ``apply(original, diff(original, edited)) == edited`` for any two strings.

The edits are those of a minimal Levenshtein alignment of the units (``difflib`` is not minimal: it moves blocks whole),
found by rapidfuzz, which breaks ties the same way every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from rapidfuzz.distance import Levenshtein

from errata.edits.words import words
from errata.types import Edit, Op, Span, Unit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["apply", "diff"]

_OPS = {"equal": Op.KEEP, "insert": Op.INSERT, "delete": Op.DELETE, "replace": Op.SUBSTITUTE}


@dataclass(frozen=True, slots=True)
class _Units:
    """A text cut into units.

    Unit ``k`` is compared by ``keys[k]`` and reads ``text[cuts[k]:cuts[k + 1]]``, the white space before it included.
    What follows the last unit is white space too, and ends at the last of the ``len(keys) + 2`` cuts. The cuts in
    ``inside`` fall within a character, so that no edit may end there.
    """

    text: str
    keys: Sequence[str | int]
    cuts: Sequence[int]
    inside: frozenset[int] = frozenset()

    def body(self, start: int, stop: int) -> int:
        """Where the white space that opens ``text[start:stop]`` ends."""
        return stop - len(self.text[start:stop].lstrip())


class _Piece(NamedTuple):
    """An operation, and up to where it covers texts a and b: in characters, and in units i and j."""

    op: Op
    a: int
    b: int
    i: int
    j: int


_ORIGIN = _Piece(Op.SUBSTITUTE, 0, 0, 0, 0)  # any operation but KEEP, which would merge with the first piece


def diff(
    original: str, edited: str, unit: Unit | str = Unit.WORD, tokenizer: PreTrainedTokenizerBase | None = None
) -> list[Edit]:
    """The fewest edits that turn one text into another, as spans that cover both texts, in order and without a gap.

    Neighbouring kept units are one edit, every changed unit is one of its own.

    - ``word``: the distance is minimal over words (``errata.edits.words``). A deleted or inserted word takes the white
      space before it along; white space that changed before a word that stays, or at the end, is an edit of its own.
    - ``char``: code points, so that a letter and its combining accent are two units.
    - ``token``: the papers' choice, minimal over the token ids of a fast ``tokenizer``; spans carry ``token_start`` and
      ``token_stop``. Tokens that share a character (bytes of an emoji) are changed together. A token that stays but
      reads differently (the space of a first word) gives an edit of its white space.

    Args:
        original: the text before.
        edited: the text after.
        unit: what one edit changes.
        tokenizer: a fast Hugging Face tokenizer, for ``token`` only.

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
    if unit not in list(Unit):
        raise ValueError(f"unknown unit {unit!r}; use one of {', '.join(Unit)}")
    if unit != Unit.TOKEN:
        split = _words if unit == Unit.WORD else _characters
        return _edits(split(original), split(edited), Unit(unit))
    if tokenizer is None:
        raise ValueError("unit 'token' needs a tokenizer; hand one in, or use unit 'word'")
    return _edits(_tokens(original, tokenizer), _tokens(edited, tokenizer), Unit.TOKEN)


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
    return _Units(text, text, [*range(len(text) + 1), len(text)])


def _words(text: str) -> _Units:
    spans = words(text)
    return _Units(text, [text[start:stop] for start, stop in spans], [0, *(stop for _, stop in spans), len(text)])


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
    return _Units(text, output["input_ids"], cuts, frozenset(inside))


def _steps(a: _Units, b: _Units) -> Iterator[tuple[Op, int, int]]:
    """The alignment, one unit at a time: an operation, and how many units of each text it and all before it cover."""
    i = j = 0
    for block in Levenshtein.opcodes(a.keys, b.keys):
        op = _OPS[block.tag]
        for _ in range(max(block.src_end - block.src_start, block.dest_end - block.dest_start)):
            i += op is not Op.INSERT
            j += op is not Op.DELETE
            yield op, i, j
    yield Op.KEEP, i + 1, j + 1  # what follows the last unit


def _whole_steps(a: _Units, b: _Units) -> Iterator[tuple[Op, int, int]]:
    """The alignment again, with the steps that share a character taken together."""
    ops = set[Op]()
    for op, i, j in _steps(a, b):
        ops.add(op)
        if i not in a.inside and j not in b.inside:
            yield op if len(ops) == 1 else Op.SUBSTITUTE, i, j
            ops.clear()


def _pieces(a: _Units, b: _Units, unit: Unit) -> Iterator[_Piece]:
    """The alignment in characters; white space that changed before a kept unit or a substituted word stands alone."""
    last = _ORIGIN
    for op, i, j in _whole_steps(a, b):
        piece = _Piece(op, a.cuts[i], b.cuts[j], min(i, len(a.keys)), min(j, len(b.keys)))
        read, written = a.text[last.a : piece.a], b.text[last.b : piece.b]
        if (op is Op.KEEP and read != written) or (op is Op.SUBSTITUTE and unit is Unit.WORD):
            a_body, b_body = a.body(last.a, piece.a), b.body(last.b, piece.b)
            gap = _op(a.text[last.a : a_body], b.text[last.b : b_body])
            if (a_body, b_body) == (piece.a, piece.b):
                piece = piece._replace(op=gap)
            else:
                yield last._replace(op=gap, a=a_body, b=b_body)
                piece = piece._replace(op=_op(a.text[a_body : piece.a], b.text[b_body : piece.b]))
        yield piece
        last = piece


def _op(original: str, edited: str) -> Op:
    if original == edited:
        return Op.KEEP
    if not original:
        return Op.INSERT
    return Op.SUBSTITUTE if edited else Op.DELETE


def _edits(a: _Units, b: _Units, unit: Unit) -> list[Edit]:
    ends = [_ORIGIN]
    for piece in _pieces(a, b, unit):
        if piece.op is Op.KEEP and ends[-1].op is Op.KEEP:
            ends[-1] = piece
        elif piece[1:] != ends[-1][1:]:
            ends.append(piece)
    with_tokens = unit is Unit.TOKEN
    return [
        Edit(
            end.op,
            Span(start.a, end.a, a.text[start.a : end.a], *((start.i, end.i) if with_tokens else ())),
            Span(start.b, end.b, b.text[start.b : end.b], *((start.j, end.j) if with_tokens else ())),
        )
        for start, end in pairwise(ends)
    ]
