"""Does a model by itself write what people sent? Read along what was sent, with nothing generated.

Where a model drafted the log itself, it drafts the logged text again, and what was sent is that text with a few words
changed: any other draft, a better one too, is far from it. So a new model cannot be judged by its distance to the one
text that was sent. What can be asked is, given what was sent up to there: at the places that people changed, does the
model now write what they wrote (*edit points*)? And does it still write the words they left alone (*over-editing*)?
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from errata.data import Encoder
from errata.edits import diff, word_distance, words
from errata.models import greedy_choices, pad
from errata.types import Correction, Edit, Encoded, Op, Ties
from errata.winrate import by_user
from errata.workflows.measure import Comparison, Told, compare, told_apart

__all__ = [
    "EditPoint",
    "EditPointFigures",
    "Points",
    "PointsCompared",
    "RowChoices",
    "choices_at",
    "compare_choices",
    "edit_points",
    "figures_of",
]


class EditPoint(NamedTuple):
    """A place where what was sent departs from the draft."""

    token: int
    """The first response token of what was sent that is not the draft's, counted from 0."""
    drafted: int | None
    """The id that the draft has there; None where the draft has no more."""
    words: int
    """Words that the edit inserts, deletes or substitutes there, at least 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """One row, read along what was sent."""

    id: str
    encoded: Encoded
    """The prompt and what was sent."""
    edits: tuple[EditPoint, ...]
    kept: tuple[tuple[int, int], ...]
    """The response tokens, from and up to, of each word that people left alone; the end of the response is one of them
    where neither side has more before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowChoices:
    """What a model would write along one row."""

    id: str
    points: int
    """Edit points."""
    written: int
    """Edit points at which the most probable token is the one that was sent."""
    preferred: int
    """Edit points at which the token that was sent is more probable than the one that was drafted."""
    rivals: int
    """Edit points with a drafted token."""
    margin: float
    """log p(sent) − log p(drafted), in nats, summed over them."""
    words: int
    """Words that the edits change."""
    missed: int
    """Of these, words of edits that the model would not make by itself."""
    kept: int
    """Words that people left alone."""
    otherwise: int
    """Of these, words that the model would write otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EditPointFigures:
    """``RowChoices`` of many rows together; a share is None where it is of nothing."""

    rows: int
    points: int
    written: float | None
    """Share of the edit points at which the model writes what was sent."""
    preferred: float | None
    """Share of those with a drafted token at which what was sent is the more probable of the two."""
    margin: float | None
    """Mean log p(sent) − log p(drafted), in nats."""
    missed: float
    """Words a row that edits change and the model would not."""
    otherwise: float
    """Words a row that people left alone and the model would write otherwise."""
    otherwise_share: float | None
    """The same as a share of the words that people left alone."""

    @property
    def wrong(self) -> float:
        """Words a row along what was sent that the model would not write; checkpoints and methods are chosen by it."""
        return self.missed + self.otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsCompared:
    """Two models along the same rows."""

    old: EditPointFigures
    new: EditPointFigures
    missed: Comparison
    """Words a row that edits change and the model would not: new − old, paired; below 0 the new model needs less."""
    otherwise: Comparison
    """Words a row that people left alone and the model would write otherwise: new − old; above 0 it over-edits."""


def edit_points(row: Correction, encoder: Encoder) -> Points:
    """Where a correction departs from its draft, in tokens of what was sent, and what it leaves alone.

    Neighboring edits are one point, and its token the first that differs: " help" and " helps" may begin with the same
    piece. An edit of white space only is none. A word right after an edit is judged with the edit.

    Raises:
        ValueError: as ``Encoder.encode`` and ``Encoder.encode_sampled``.
    """
    sent = encoder.encode(row.prompt, row.edited)
    (drafted,) = encoder.encode_all([row.prompt], [row.original], [row.original_ids])
    if isinstance(drafted, ValueError):
        raise drafted
    edits = diff(row.original, row.edited, ties=Ties.DEPARTURE)
    points = [
        point
        # White space that stays between two changed words does not part them.
        for kept, group in groupby(edits, lambda edit: edit.op is Op.KEEP and not edit.edited.text.isspace())
        if not kept and (point := _point(list(group), row, sent, drafted)) is not None
    ]
    judged = {point.token for point in points}
    spans = [edit.edited for edit in edits if edit.op is Op.KEEP]
    left = [
        (_token_at(sent, start), _token_at(sent, stop - 1) + 1)
        for start, stop in words(row.edited)
        if any(span.start <= start and stop <= span.stop for span in spans)
    ]
    if sent.ended:
        left.append((len(sent.response_ids) - 1, len(sent.response_ids)))
    left = [tokens for tokens in left if judged.isdisjoint(range(*tokens))]
    return Points(id=row.id, encoded=sent, edits=tuple(points), kept=tuple(left))


def _point(edits: Sequence[Edit], row: Correction, sent: Encoded, drafted: Encoded) -> EditPoint | None:
    """The first token at which neighboring edits show; None where they change no word."""
    before = row.original[edits[0].original.start : edits[-1].original.stop]
    after = row.edited[edits[0].edited.start : edits[-1].edited.stop]
    cost = word_distance(before, after)
    if not cost:
        return None
    here, there = _token_at(sent, edits[0].edited.start), _token_at(drafted, edits[0].original.start)
    pairs = zip_longest(sent.response_ids[here:], drafted.response_ids[there:])
    for token, (new, old) in enumerate(pairs, start=here):
        if new != old:
            return None if new is None else EditPoint(token, old, cost)
    return None


def choices_at(
    model: Any,
    rows: Sequence[Points],
    encoder: Encoder,
    *,
    batch_size: int = 4,
    what: str = "",
    told: Told | None = None,
) -> list[RowChoices]:
    """What a model would write at the edit points and in the kept words of each row, in the order of ``rows``.

    Args:
        model: a causal language model.
        rows: of ``edit_points``.
        encoder: whose padding to use.
        batch_size: rows in one forward pass; all logits of their responses are held at once.
        what: is shown beside the progress bar.
        told: is told how many rows are done, and of how many.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    found: dict[int, RowChoices] = {}
    # Rows of like length together: less padding.
    order = sorted(range(len(rows)), key=lambda k: len(rows[k].encoded.ids))
    with torch.no_grad(), tqdm(total=len(rows), desc=what, unit=" rows", leave=False, delay=2, disable=None) as bar:
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            batch = pad([rows[k].encoded for k in part], pad_id=encoder.pad_id)
            rival_BT = torch.zeros_like(batch.ids_BT)
            for b, k in enumerate(part):
                for point in rows[k].edits:
                    rival_BT[b, rows[k].encoded.prompt_length + point.token] = point.drafted or 0
            choice_BT, margin_BT = greedy_choices(model, batch.to(device), rival_BT.to(device))
            agrees_BT = (choice_BT.cpu() == batch.ids_BT) & batch.response_mask_BT
            for b, k in enumerate(part):
                first = rows[k].encoded.prompt_length
                found[k] = _choices(rows[k], agrees_BT[b, first:].tolist(), margin_BT[b, first:].tolist())
            bar.update(len(part))
            if told is not None:
                told(start + len(part), len(rows))
    model.train(training)
    return [found[k] for k in range(len(rows))]


def figures_of(rows: Sequence[RowChoices]) -> EditPointFigures:
    """The rows together. Raises ValueError where there is none."""
    if not rows:
        raise ValueError("no row to read edit points of; give corrections that change something")

    def total(name: str) -> float:
        return float(sum(getattr(row, name) for row in rows))

    def share(part: str, of: str) -> float | None:
        return total(part) / total(of) if total(of) else None

    return EditPointFigures(
        rows=len(rows),
        points=int(total("points")),
        written=share("written", "points"),
        preferred=share("preferred", "rivals"),
        margin=share("margin", "rivals"),
        missed=total("missed") / len(rows),
        otherwise=total("otherwise") / len(rows),
        otherwise_share=share("otherwise", "kept"),
    )


def compare_choices(
    new: Sequence[RowChoices],
    old: Sequence[RowChoices],
    *,
    users: Sequence[Hashable | None] | None = None,
    count_users: bool = True,
    others: Sequence[RowChoices] = (),
    other_users: Sequence[Hashable | None] | None = None,
) -> PointsCompared:
    """Two models along the same rows in the same order, two or more of them.

    A model could lose at the edit points as many words as the old one gets right there. What the rows have at stake is
    known, also where none of it was lost: a long edit that comes once in fifty rows can outweigh what is won in all
    others, and is in no row of every third sample of fifty. So the interval allows for the loss of the most that the
    old model gets right in any row, or any user's rows, that it has read.

    Args:
        new: what the new model would write.
        old: likewise.
        users: as of ``compare``.
        count_users: likewise.
        others: what the old model would write along further rows of the same log.
        other_users: who sent those.

    Raises:
        ValueError: the rows are not the same, or as ``compare``.
    """
    if [row.id for row in new] != [row.id for row in old]:
        raise ValueError("two models are compared along the same rows in the same order; these are others")

    def difference(name: str, stake: float) -> Comparison:
        values = ([getattr(row, name) for row in rows] for rows in (new, old))
        return compare(*values, users=users, count_users=count_users, stake=stake)

    told = told_apart(users) if count_users else None
    stake = max(_most_right(old, told), _most_right(others, None if told is None else other_users))
    return PointsCompared(
        old=figures_of(old),
        new=figures_of(new),
        missed=difference("missed", stake),
        otherwise=difference("otherwise", 0),
    )


def _most_right(rows: Sequence[RowChoices], users: Sequence[Hashable | None] | None) -> float:
    """The most words of its edits that a model gets right in a row or, with users, in the mean row of one of them."""
    right = [row.words - row.missed for row in rows]
    return float(max(right if users is None else by_user(right, users), default=0.0))


def _token_at(side: Encoded, character: int) -> int:
    """The first response token that stands for ``character`` or for one after it; else the end of the response."""
    after = bisect_right(side.offsets, character, key=itemgetter(1))
    return min(after, len(side.offsets) - 1) if side.ended else after


def _choices(row: Points, agrees: Sequence[bool], margins: Sequence[float]) -> RowChoices:
    written = [agrees[point.token] for point in row.edits]
    against = [margins[point.token] for point in row.edits if point.drafted is not None]
    return RowChoices(
        id=row.id,
        points=len(row.edits),
        written=sum(written),
        preferred=sum(margin > 0 for margin in against),
        rivals=len(against),
        margin=sum(against),
        words=sum(point.words for point in row.edits),
        missed=sum(point.words for point, right in zip(row.edits, written, strict=True) if not right),
        kept=len(row.kept),
        otherwise=sum(not all(agrees[start:stop]) for start, stop in row.kept),
    )
