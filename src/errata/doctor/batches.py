"""Is what a collator returns what it was given? Every sequence is looked up in the batch, wherever it was put.

Nothing here knows a framework: a batch is a mapping with ``input_ids`` and, where it has them, ``labels`` (−100 is not
learned), ``weights`` and ``attention_mask``. Column t of each speaks of token t, before any shift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errata.doctor.streams import UNSUPERVISED, Feature

__all__ = ["BatchReport", "check_batch"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BOUNDARIES = ("position_ids", "seq_idx", "cu_seqlens", "cu_seq_lens_q", "seq_lengths", "sequence_lengths")
_ROUNDING = 2.0**-8  # of a weight in bfloat16


@dataclass(kw_only=True, slots=True)
class BatchReport:
    """What is wrong with a batch: for each finding the rows that have it, and what there is to say of each."""

    wrong: dict[str, dict[str, str]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    """Sums and counts of the weights before and after."""

    def add(self, name: str, row: str, detail: str = "") -> None:
        """Note a finding of a row."""
        self.wrong.setdefault(name, {}).setdefault(row, detail)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a batch: for each column its id, the weight that the loss will see, and whether it is attended."""

    ids: Ints
    weight: Floats
    attended: NDArray[np.bool_] | None
    """None where the batch does not say, or says it for pairs of tokens."""


@dataclass(frozen=True, slots=True)
class _Place:
    line: int
    start: int
    first: int
    """The first token of the sequence that is there; above 0 where its beginning was cut off."""
    length: int


def check_batch(
    features: Sequence[Feature],
    batch: Mapping[str, Any],
    *,
    weights: str = "weights",
    bos_id: int | None = None,
    decode: Callable[[list[int]], str] | None = None,
) -> BatchReport:
    """Compare a batch with the features it was made of, token by token.

    Rows may be padded on either side, packed, or in another order. The weight that the loss will see of a column is
    ``weights``, 0 where ``labels`` say so; a batch without weights is one whose supervised tokens weigh 1.

    Args:
        features: what the collator was given.
        batch: what it returned: tensors, arrays or lists, in two dimensions or flattened to one.
        weights: the name of the weights in the batch.
        bos_id: the beginning of sequence, to see it twice.
        decode: ids to text, control tokens included, to recognise texts that were tokenised again.

    Raises:
        ValueError: the batch has no ``input_ids``.
    """
    report = BatchReport()
    lines = _lines(features, batch, weights, report)
    uncompared = weights not in batch or "weights_cut_apart" in report.wrong
    taken = [np.zeros(len(line.ids), bool) for line in lines]
    rows_of_line = [0] * len(lines)
    for k, feature in enumerate(features):
        ids, expected = np.array(feature["input_ids"]), np.array(feature["weights"], float)
        place = _find(ids, expected, lines, taken, k if len(lines) == len(features) else None)
        if (place is None or place.length < len(ids)) and _has_text(lines, feature, decode):
            report.add("tokenised_again", feature["id"])
            continue
        if place is None:
            report.add("row_lost", feature["id"])
            continue
        rows_of_line[place.line] += 1
        columns = slice(place.start, place.start + place.length)
        taken[place.line][columns] = True
        if place.length < len(ids):
            report.add("cut_silently", feature["id"], f"{len(ids) - place.length} of {len(ids)} tokens")
        line = lines[place.line]
        before = place.start - 1
        if bos_id is not None and before >= 0 and ids[0] == bos_id == line.ids[before] and place.first == 0:
            taken[place.line][before] = True
            report.add("double_bos", feature["id"])
        _compare(feature, expected, line, place, report, equal=not uncompared)
    _outside(features, lines, taken, report)
    bounded = any(name in batch for name in _BOUNDARIES) or _is_of_pairs(batch.get("attention_mask"))
    if max(rows_of_line, default=0) > 1 and not bounded:
        report.add("packed_without_boundaries", features[0]["id"])
    before_all = [weight for feature in features for weight in feature["weights"]]
    after_all = np.concatenate([line.weight for line in lines]) if lines else np.zeros(0)
    report.figures = {
        "weight_sum_before": float(np.sum(before_all)),
        "weight_sum_after": float(after_all.sum()),
        "weighted_tokens_before": int(np.count_nonzero(before_all)),
        "weighted_tokens_after": int(np.count_nonzero(after_all)),
    }
    return report


def _is_of_pairs(mask: Any) -> bool:
    """Whether it says which token sees which, and so keeps packed rows apart."""
    return getattr(mask, "ndim", 2) > 2


def _rows(values: Any, kind: type[np.int64] | type[np.float64]) -> list[NDArray[Any]]:
    """Lines of one length or of several, or one flat line."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values if kind is np.int64 else values.double()).numpy()
    rows = list(values)
    if rows and np.ndim(rows[0]) == 0:
        rows = [rows]
    return [np.asarray(row, dtype=kind) for row in rows]


def _lines(features: Sequence[Feature], batch: Mapping[str, Any], name: str, report: BatchReport) -> list[_Line]:
    if "input_ids" not in batch:
        raise ValueError(f"the batch has no input_ids but {sorted(batch)}; rename its fields in a function around it")
    ids = _rows(batch["input_ids"], np.int64)
    shapes = [len(row) for row in ids]
    supervised = [np.ones(length) for length in shapes]
    if batch.get("labels") is not None:
        supervised = [(row != UNSUPERVISED).astype(float) for row in _rows(batch["labels"], np.int64)]
    weight = supervised
    if batch.get(name) is not None:
        found = _rows(batch[name], np.float64)
        if [len(row) for row in found] != shapes:
            for feature in features:
                report.add("weights_cut_apart", feature["id"])
        else:
            weight = [row * mask for row, mask in zip(found, supervised, strict=True)]
    else:
        for feature in features:
            if any(value != mask for value, mask in zip(feature["weights"], feature["completion_mask"], strict=True)):
                report.add("weights_dropped", feature["id"])
    attended: Sequence[NDArray[np.bool_] | None] = [None] * len(ids)
    mask = batch.get("attention_mask")
    if mask is not None and not _is_of_pairs(mask):
        attended = [row.astype(bool) for row in _rows(mask, np.int64)]
    return [_Line(*columns) for columns in zip(ids, weight, attended, strict=True)]


def _find(
    ids: Ints, expected: Floats, lines: Sequence[_Line], taken: Sequence[NDArray[np.bool_]], likely: int | None
) -> _Place | None:
    """Where a sequence is; else where the longest beginning or end of it is, if that is half of it or more."""
    order = list(range(len(lines)))
    if likely is not None:  # most collators keep the order
        order = [likely, *order[:likely], *order[likely + 1 :]]
    best: tuple[int, _Place] | None = None
    for k in order:
        for start in _starts(ids, lines[k].ids, taken[k]):
            differ = int((lines[k].weight[start : start + len(ids)] != expected).sum())
            if best is None or differ < best[0]:  # the same ids may stand twice, with other weights
                best = differ, _Place(k, start, 0, len(ids))
        if best is not None and (best[0] == 0 or k == likely):
            return best[1]
    return best[1] if best else _part(ids, lines, taken)


def _starts(ids: Ints, line: Ints, taken: NDArray[np.bool_]) -> list[int]:
    last = len(line) - len(ids) + 1
    if last < 1 or not len(ids):
        return []
    size = len(ids)
    return [
        int(start)
        for start in np.flatnonzero(line[:last] == ids[0])
        if not taken[start] and np.array_equal(line[start : start + size], ids)
    ]


def _part(ids: Ints, lines: Sequence[_Line], taken: Sequence[NDArray[np.bool_]]) -> _Place | None:
    longest = _Place(0, 0, 0, 0)
    for k, line in enumerate(lines):
        free = ~taken[k]
        for start in np.flatnonzero((line.ids == ids[0]) & free):
            length = _common(line.ids[start:], ids)
            longest = max(longest, _Place(k, int(start), 0, length), key=lambda place: place.length)
        for stop in np.flatnonzero((line.ids == ids[-1]) & free) + 1:
            length = _common(line.ids[:stop][::-1], ids[::-1])
            longest = max(
                longest, _Place(k, int(stop) - length, len(ids) - length, length), key=lambda place: place.length
            )
    return longest if 2 * longest.length >= len(ids) else None


def _common(a: Ints, b: Ints) -> int:
    size = min(len(a), len(b))
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size


def _has_text(lines: Sequence[_Line], feature: Feature, decode: Callable[[list[int]], str] | None) -> bool:
    """Whether the text of a sequence is in a batch that has not its ids."""
    if decode is None:
        return False
    text = decode(feature["input_ids"]).strip()
    return bool(text) and any(text in decode(line.ids.tolist()) for line in lines)


def _compare(
    feature: Feature, expected: Floats, line: _Line, place: _Place, report: BatchReport, *, equal: bool
) -> None:
    """One sequence against its columns."""
    row = feature["id"]
    wanted = expected[place.first : place.first + place.length]
    got = line.weight[place.start : place.start + place.length]
    response = np.array(feature["completion_mask"], bool)[place.first : place.first + place.length]
    if line.attended is not None and not line.attended[place.start : place.start + place.length].all():
        report.add("not_attended", row)
    if not got.any():
        if wanted.any():
            report.add("nothing_trained", row)
        return
    if got[~response].any():
        report.add("prompt_trained", row)
    masked = (wanted != 0) & (got == 0)
    whole = place.first + place.length == len(expected)
    if whole and masked.size and masked[-1]:
        report.add("end_not_trained", row)
        masked[-1] = False
    if masked.any():
        below = " (all of them below zero)" if (wanted[masked] < 0).all() else ""
        report.add("weights_masked", row, f"{int(masked.sum())} tokens of weight {wanted[masked][0]:g}{below}")
    if equal:
        changed = response & (got != 0) & (np.abs(got - wanted) > _ROUNDING * np.abs(wanted))
        if changed.any():
            first = int(np.flatnonzero(changed)[0])
            detail = f"{int(changed.sum())} tokens, the first has {got[first]:g} instead of {wanted[first]:g}"
            report.add("weights_changed", row, detail)


def _outside(
    features: Sequence[Feature], lines: Sequence[_Line], taken: Sequence[NDArray[np.bool_]], report: BatchReport
) -> None:
    """What is in the batch and belongs to no sequence: padding."""
    if "tokenised_again" in report.wrong or "row_lost" in report.wrong:
        return  # other tokens may be those of the rows that were not found
    for k, (line, used) in enumerate(zip(lines, taken, strict=True)):
        row = features[min(k, len(features) - 1)]["id"]
        if line.weight[~used].any():
            report.add("padding_trained", row)
        elif line.attended is not None and line.attended[~used].any():
            report.add("padding_attended", row)
