"""Edits projected on tokens: one ``Label`` for every response token, each text of the pair by itself.

``project`` is the rule, for any spans of one text. ``label_all`` does the same for many rows at once: what differs
between two texts is found pair by pair, and everything after that is arithmetic on the characters and tokens of a whole
chunk of rows. The tests hold the one against the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, count, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from errata.data.encoding import Encoder, LongRow
from errata.data.given import rows_of
from errata.data.lengths import LengthCounts
from errata.edits.align import align
from errata.edits.difference import ORIGIN, pieces
from errata.edits.word_spans import split_text
from errata.labels.counts import changed
from errata.labels.projection import END, project_all, project_weights
from errata.labels.rules import DEFAULT, LabelRules, ignored
from errata.labels.weights import check_weights
from errata.types import Correction, Encoded, Label, LabeledTokens, Op, Ties, TokenLabels, Unit, WeightSpan

__all__ = ["label", "label_all", "label_rows", "sides_of"]

CHUNK = 256
"""Rows that are labelled together; what a row becomes does not depend on it."""

_LABELS = {
    Op.KEEP: Label.KEPT,
    Op.INSERT: Label.INSERTED,
    Op.DELETE: Label.DELETED,
    Op.SUBSTITUTE: Label.SUBSTITUTED,
}


def label(correction: Correction, encoder: Encoder, rules: LabelRules = DEFAULT) -> TokenLabels:
    """Label both texts of a correction.

    Sampled ids are kept as they are. With the units ``word``, ``phrase`` and ``char`` the edits reach the tokens
    through character offsets (see ``project``). With ``token`` the two sequences of ids themselves are aligned, as the
    papers do (Xu et al.'s U_l and U_e, FIGA's signals), so that tokens which spell the same text differently are
    changed. The end of sequence is KEPT, or an OMISSION: what it weighs is a rule of the loss. Weights that somebody
    gave reach the tokens as ``project_weights`` says, whatever the rules.

    Raises:
        ValueError: the row cannot be encoded (see ``Encoder.encode`` and ``Encoder.encode_sampled``); or its labels
            could not be trusted: the tokens leave characters out, or are the same on both sides though words differ; or
            its weights are not for this text, not finite, or below zero on the original side.
    """
    (found,) = _label_chunk(_encode([correction], encoder), encoder, rules)
    if isinstance(found, ValueError):
        raise _named(correction, found) from found
    return found


def label_all(
    corrections: Iterable[Correction],
    encoder: Encoder,
    rules: LabelRules = DEFAULT,
    *,
    counts: LengthCounts | None = None,
    on_error: Callable[[Correction, ValueError], None] | None = None,
) -> Iterator[TokenLabels]:
    """Label corrections as ``label`` does, in their order; a thread tokenises the next ones meanwhile.

    Args:
        corrections: what to label; read a little ahead of what is asked for.
        encoder: text to ids.
        rules: how.
        counts: is counted up, and takes the rows that are dropped for their length.
        on_error: is given each row that cannot be labelled, which is then left out; without it the error is raised.

    Raises:
        ValueError: as ``label``; it names the row.
    """
    for chunk in _encoded_ahead(corrections, encoder):
        for (row, _, _), found in zip(chunk, _label_chunk(chunk, encoder, rules), strict=True):
            if isinstance(found, LongRow) and counts is not None:
                counts.drop()
            elif isinstance(found, ValueError):
                if on_error is None:
                    raise _named(row, found) from found
                on_error(row, found)
            else:
                if counts is not None:
                    counts.add(found.original.encoded, found.edited.encoded)
                yield found


def label_rows(given: Iterable[TokenLabels], name: str) -> list[TokenLabels]:
    """Labels as a list.

    Raises:
        TypeError: it is anything else, corrections among it.
        ValueError: a token's own weight is none that ``check_weights`` takes; it names the row.
    """
    rows = rows_of(given, TokenLabels, name, "label corrections first: label_all(corrections, encoder)")
    for row in rows:
        for side, tokens in (("original", row.original), ("edited", row.edited)):
            try:
                check_weights(map(float, tokens.weights or ()), original=side == "original")
            except ValueError as error:
                raise ValueError(f"{name}: row {row.id!r}: {side} weights: {error}") from None
    return rows


def sides_of(rows: Iterable[TokenLabels] | None) -> Iterator[tuple[str, Encoded]]:
    """Both sides of labels as ids, each with the name of its row."""
    for row in rows or ():
        yield row.id, row.original.encoded
        yield row.id, row.edited.encoded


def _named(row: Correction, error: ValueError) -> ValueError:
    return type(error)(f"row {row.id!r}: {error}")


_Encoded = list[tuple[Correction, Encoded | ValueError, Encoded | ValueError]]


def _encoded_ahead(corrections: Iterable[Correction], encoder: Encoder) -> Iterator[_Encoded]:
    rows = iter(corrections)
    with ThreadPoolExecutor(max_workers=1) as aside:
        coming: Future[_Encoded] | None = None
        while chunk := list(islice(rows, CHUNK)):
            ready, coming = coming, aside.submit(_encode, chunk, encoder)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def _encode(rows: Sequence[Correction], encoder: Encoder) -> _Encoded:
    texts = [row.original for row in rows] + [row.edited for row in rows]
    sampled = [row.original_ids for row in rows] + [None] * len(rows)
    found = encoder.encode_all([row.prompt for row in rows] * 2, texts, sampled)
    return list(zip(rows, found[: len(rows)], found[len(rows) :], strict=True))


def _label_chunk(chunk: _Encoded, encoder: Encoder, rules: LabelRules) -> Iterator[TokenLabels | ValueError]:
    """What became of each row."""
    usable = [
        (row, original, edited)
        for row, original, edited in chunk
        if not isinstance(original, ValueError) and not isinstance(edited, ValueError)
    ]
    labeled = iter(_label_usable(usable, encoder, rules))
    for _, *sides in chunk:
        yield next((side for side in sides if isinstance(side, ValueError)), None) or next(labeled)


_Row = tuple[Correction, Encoded, Encoded]


def _label_usable(rows: Sequence[_Row], encoder: Encoder, rules: LabelRules) -> list[TokenLabels | ValueError]:
    if not rows:
        return []
    try:
        return list(_label_together(rows, encoder, rules))
    except ValueError as error:
        if len(rows) == 1:
            return [error]
    # One row's mistake: find it.
    return [found for row in rows for found in _label_usable([row], encoder, rules)]


def _label_together(rows: Sequence[_Row], encoder: Encoder, rules: LabelRules) -> Iterator[TokenLabels]:
    texts = [row.original for row, _, _ in rows], [row.edited for row, _, _ in rows]
    encoded = [original for _, original, _ in rows], [edited for _, _, edited in rows]
    changes = _changes(*texts, rules.unit, rules.ties)
    starts = [_starts(side) for side in texts]
    for k, (row, _, _) in enumerate(rows):
        for side, start, stop in ignored(row, rules):
            changes[side][starts[side][k] + start : starts[side][k] + stop] = Label.IGNORED
    sides = []
    for k in (0, 1):
        text, offsets = END.join([*texts[k], ""]), [one.offsets for one in encoded[k]]
        found = project_all(changes[k], text, offsets, starts[k]).tolist()
        sides.append([found[start:stop] for start, stop in pairwise(accumulate(map(len, offsets), initial=0))])
    for (row, original, edited), before, after in zip(rows, *sides, strict=True):
        if rules.unit == Unit.TOKEN:
            for labels, aligned in zip(
                (before, after), _align(row, original, edited, encoder, rules.ties), strict=True
            ):
                labels[:] = [k if k == Label.IGNORED else by_id for k, by_id in zip(labels, aligned, strict=True)]
        elif original.response_ids == edited.response_ids and not (original.cut or edited.cut) and any(changed(before)):
            raise ValueError(
                "the texts differ and their tokens do not: this tokenizer normalises what was edited, or does not know "
                "it; use the tokenizer of a model that can write both texts"
            )
        if rules.omissions == "blame":
            _blame(row, original, before, rules)
        yield TokenLabels(
            id=row.id,
            original=_side(row.original, original, before, row.original_weights, "original"),
            edited=_side(row.edited, edited, after, row.edited_weights, "edited"),
            reasons=row.reasons,
        )


def _side(
    text: str, encoded: Encoded, labels: Sequence[int], spans: Sequence[WeightSpan] | None, name: str
) -> LabeledTokens:
    weights = None
    if spans is not None:
        try:
            check_weights((weight for _, _, weight in spans), original=name == "original")
            weights = project_weights(spans, text, encoded)
        except ValueError as error:
            raise ValueError(f"{name} weights: {error}") from error
    return LabeledTokens(encoded, tuple(labels), text, weights)


# Text to characters: one label for each, and one for the END behind each text.


def _blank(texts: Sequence[str]) -> NDArray[np.int8]:
    return np.zeros(sum(map(len, texts)) + len(texts), np.int8)


def _starts(texts: Sequence[str]) -> list[int]:
    """Where each text starts, if each has END behind it."""
    return list(accumulate((len(text) + 1 for text in texts), initial=0))[:-1]


def _changes(
    originals: Sequence[str], editeds: Sequence[str], unit: Unit, ties: Ties
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """The label of every character of both sides."""
    if unit == Unit.TOKEN:  # which aligns ids, not characters
        return _blank(originals), _blank(editeds)
    if unit == Unit.WORD:
        return _changed_words(originals, editeds, ties)
    sides: tuple[list[NDArray[np.int8]], list[NDArray[np.int8]]] = ([], [])
    for original, edited in zip(originals, editeds, strict=True):
        found = [ORIGIN, *pieces(original, edited, unit, ties=ties)]
        names = [_LABELS[piece.op] for piece in found[1:]]
        for side, ends in zip(sides, ([piece.a for piece in found], [piece.b for piece in found]), strict=True):
            side += [np.repeat(np.array(names, np.int8), np.diff(ends)), np.zeros(1, np.int8)]
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def _changed_words(
    originals: Sequence[str], editeds: Sequence[str], ties: Ties
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """The label of every character, for the unit word; the tests hold it to ``diff``, which says the rule.

    White space goes with the word behind it if that was deleted or inserted, and is compared on its own otherwise. The
    white space at the end of a text goes with its END, a kept word.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    names: tuple[list[bytes], list[bytes]] = ([], [])
    for texts in zip(originals, editeds, strict=True):
        both = [split_text(text) for text in texts]
        for side, label_of in enumerate(align(both[0][1::2], both[1][1::2], ties)):
            parts[side].extend(both[side])
            parts[side].append(END)
            names[side].append(bytes(label_of) + bytes(1))
    number = defaultdict[str, int](count().__next__).__getitem__
    words = [np.frombuffer(b"".join(side), np.int8) for side in names]
    space = [np.fromiter(map(number, side[::2]), np.int64, len(side) // 2) for side in parts]
    size = [np.fromiter(map(len, side), np.int64, len(side)) for side in parts]
    stays = [np.flatnonzero((word == Label.KEPT) | (word == Label.SUBSTITUTED)) for word in words]
    same = space[0][stays[0]] == space[1][stays[1]]
    empty = [length[::2] == 0 for length in size]
    changes = []
    for side, lone in enumerate((Label.DELETED, Label.INSERTED)):
        before = words[side].copy()
        other = 1 - side
        before[stays[side]] = np.where(same, Label.KEPT, np.where(empty[other][stays[other]], lone, Label.SUBSTITUTED))
        changes.append(np.repeat(np.stack([before, words[side]], 1).ravel(), size[side]))
    return changes[0], changes[1]


def _align(
    row: Correction, original: Encoded, edited: Encoded, encoder: Encoder, ties: Ties
) -> Iterator[Sequence[int]]:
    """The labels of ids aligned with ids; what a side lost for its length is aligned all the same."""
    whole = []
    for side, text, sampled in ((original, row.original, row.original_ids), (edited, row.edited, None)):
        if not side.cut:
            whole.append(side.response_ids[: len(side.response_ids) - side.ended])
        elif sampled:
            whole.append(encoder.body_ids(sampled))
        else:
            whole.append(encoder.text_ids(text))
    for side, labels in zip((original, edited), align(whole[0], whole[1], ties), strict=True):
        yield [*labels, Label.KEPT][: len(side.response_ids)]


def _blame(row: Correction, original: Encoded, labels: list[int], rules: LabelRules) -> None:
    """Mark the token right after each gap into which the edit inserts text, where that token was kept."""
    unit = Unit.WORD if rules.unit == Unit.TOKEN else rules.unit
    stops = [stop for _, stop in original.offsets]
    found = [ORIGIN, *pieces(row.original, row.edited, unit, ties=rules.ties)]
    for last, piece in pairwise(found):
        if piece.op is not Op.INSERT or not row.edited[last.b : piece.b].strip():
            continue
        place = len(row.original) - len(row.original[piece.a :].lstrip())
        token = bisect_right(stops, place)
        if token == len(stops) and original.ended:
            token -= 1
        if token < len(stops) and labels[token] == Label.KEPT:
            labels[token] = Label.OMISSION
