"""What the doctor sees of the rows, row by row and batch by batch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from errata.data import Encoder, LengthCounts, check_template
from errata.doctor.batches import check_batch
from errata.doctor.facts import ModelFacts
from errata.doctor.streams import (
    Collate,
    Feature,
    Streams,
    features_of,
    own_batch,
    streams_of,
)
from errata.doctor.units import UnitDifferences
from errata.edits import FACTS, StatisticsOf, diff, unknowable
from errata.edits.summary import Distribution
from errata.labels import LabelCounts, LabelRules, changed, count_labels, has_change, label_all
from errata.training import Supervision
from errata.types import Correction, Label, LabeledTokens, TokenLabels, Unit
from errata.views import ViewRow

__all__ = ["Seen", "Weigh"]

Weigh = Callable[[TokenLabels], tuple[Sequence[float] | None, Sequence[float]]]
"""Labels to the signed weights of the original (None: not trained on) and of the edited text, one a response token."""
_TEMPLATE_SAMPLE = 8  # rows
_OFFSET_SAMPLE = 64  # rows
_SHOWN = 3  # rows
_FEW_TOKENS = 120  # of a side; a row that fits on a screen is shown rather than a longer one
_NOT_TEXT = re.compile(r"\s|##|\ufffd")


def _leading(ids: Sequence[int], bos: int | None) -> int:
    """How many BOS a row begins with."""
    return next((k for k, token in enumerate(ids) if token != bos), len(ids))


def _plain(text: str) -> str:
    return _NOT_TEXT.sub("", text).casefold()


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _stacked(features: Sequence[Feature]) -> dict[str, Any]:
    """Features with weights of the user's own, without a collator: nothing can get lost."""
    names = ("input_ids", "attention_mask", "labels", "weights")
    return {name: [np.array(one[name]) for one in features] for name in names}


class Seen:
    """What was seen so far."""

    def __init__(
        self,
        encoder: Encoder,
        method: Supervision[Any],
        rules: LabelRules,
        config: Any,
        model: ModelFacts,
        weights: Weigh | None,
    ) -> None:
        self._encoder, self._method, self._rules, self._config = encoder, method, rules, config
        self._model, self._weights = model, weights
        self._found: dict[str, tuple[int, str, str]] = {}  # rows, the first one, what there is to say of it
        self._lengths, self._labels = LengthCounts(), LabelCounts()
        self._statistics = StatisticsOf()
        self._totals: Counter[str] = Counter()
        self._sums: dict[str, float] = {"weight_above_zero": 0.0, "weight_below_zero": 0.0}
        self._collated: dict[str, float] = {}
        self._sizes = Distribution(grid=1)
        self._units = UnitDifferences()
        self._shown: list[tuple[tuple[int, int, int], ViewRow]] = []

    def add(self, name: str, row: str, detail: str = "") -> None:
        """Count a finding of a row."""
        rows, first, said = self._found.get(name, (0, row, detail))
        self._found[name] = (rows + 1, first, said)

    def label(self, chunk: Sequence[Correction]) -> list[tuple[TokenLabels, Streams]]:
        """The rows of a chunk that have a weight, and all that there is to say of every row."""
        by_id = {row.id: row for row in chunk}
        labeled = list(label_all(chunk, self._encoder, self._rules, counts=self._lengths, on_error=self._refused))
        by_words = self._by_words(by_id, labeled)
        self._labels += count_labels(labeled)
        for row in chunk:
            self._totals["rows"] += 1
            self._statistics.add(row)
            if self._totals["templates"] < _TEMPLATE_SAMPLE:
                self._totals["templates"] += 1
                for found in check_template(self._encoder, row.prompt, row.edited):
                    self.add("template" if found.severity == "error" else "template_note", row.id, found.text)
        weighing = []
        for pair in labeled:
            streams = self._streams(pair)
            self._look(pair, streams, by_id[pair.id])
            if pair.id in by_words:
                self._units.add(by_words[pair.id], pair)
            if streams.weighs:
                weighing.append((pair, streams))
            else:
                self.add("without_gradient", pair.id)
        return weighing

    def batch(self, group: Sequence[tuple[TokenLabels, Streams]], collate: Collate | None, weights_name: str) -> None:
        """Collate rows, and compare."""
        each = [features_of(row, streams) for row, streams in group]
        features: list[Feature] = [one[side] for side in range(len(each[0])) for one in each]
        batch: Mapping[str, Any]
        if collate is not None:
            batch = collate(features)
        elif self._weights is not None:
            batch = _stacked(features)
        else:
            batch = own_batch([row for row, _ in group], self._method, self._encoder, self._config)
        tokenizer = self._encoder.tokenizer
        report = check_batch(
            features, batch, weights=weights_name, bos_id=tokenizer.bos_token_id, decode=_decoder(tokenizer)
        )
        for name, rows in report.wrong.items():
            for example, detail in rows.items():
                self.add(name, example, detail)
        self._totals["batches"] += 1
        self._totals["sequences"] += len(features)
        for figure, value in report.figures.items():
            self._collated[figure] = self._collated.get(figure, 0) + value
        for row, streams in group:
            self._show(row, streams, wrong=sum(row.id in rows for rows in report.wrong.values()))

    def _refused(self, row: Correction, error: ValueError) -> None:
        """Say which kind of mistake it is."""
        whole = self._encoder.unlimited
        text = str(error)
        try:
            original, edited = whole.encode(row.prompt, row.original), whole.encode(row.prompt, row.edited)
        except ValueError:
            return self.add("not_encoded", row.id, text)
        if row.original_ids is not None and whole.decode(row.original_ids) != row.original:
            return self.add("sampled_ids_lie", row.id, text)
        if row.original != row.edited and original.ids == edited.ids:
            return self.add("same_tokens", row.id, text)
        longest = max(len(original.ids), len(edited.ids))
        if self._encoder.max_length is not None and longest > self._encoder.max_length:
            return self.add("too_long", row.id, text)
        return self.add("offsets_lie", row.id, text)

    def _by_words(self, rows: Mapping[str, Correction], labeled: Sequence[TokenLabels]) -> dict[str, TokenLabels]:
        if self._rules.unit != Unit.TOKEN:
            return {}
        again = label_all(
            (rows[row.id] for row in labeled),
            self._encoder,
            replace(self._rules, unit=Unit.WORD),
            counts=LengthCounts(),
            on_error=lambda row, error: None,  # it is counted with the unit that was asked for
        )
        return {row.id: row for row in again}

    def _streams(self, row: TokenLabels) -> Streams:
        if self._weights is None:
            return streams_of(row, self._method, self._config)
        original, edited = self._weights(row)
        return Streams(None if original is None else tuple(original), tuple(edited))

    def _look(self, row: TokenLabels, streams: Streams, correction: Correction) -> None:
        """Figures and findings of one labelled row."""
        totals, encoder = self._totals, self._encoder
        bos, unknown = encoder.tokenizer.bos_token_id, encoder.tokenizer.unk_token_id
        sides = [(row.edited, streams.edited), (row.original, streams.original)]
        if not has_change(row):
            totals["without_label"] += 1
        totals["edited_ended"] += row.edited.encoded.ended
        totals["with_own_weights"] += any(side.weights is not None for side in (row.original, row.edited))
        for side, weights in sides:
            marks = changed(side.labels)
            ids = side.encoded.ids
            totals["changed_tokens"] += sum(marks)
            if unknown is not None and unknown in side.encoded.response_ids:
                lost = sum(
                    mark and token == unknown for mark, token in zip(marks, side.encoded.response_ids, strict=True)
                )
                totals["unknown_changed_tokens"] += lost
            if weights is None:
                continue
            totals[f"rows_with_{_leading(ids, bos)}_bos"] += 1
            self._sums["weight_above_zero"] += sum(weight for weight in weights if weight > 0)
            self._sums["weight_below_zero"] += sum(weight for weight in weights if weight < 0)
            totals["weighted_tokens"] += sum(weight != 0 for weight in weights)
            totals["ended"] += side.encoded.ended
            totals["ended_with_weight"] += side.encoded.ended and weights[-1] != 0
            self._sizes.add(len(ids))
            totals["longest"] = max(totals["longest"], len(ids))
            totals["highest_id"] = max(totals["highest_id"], *ids)
        trained = [side.encoded.ids for side, weights in sides if weights is not None]
        if any(_leading(ids, bos) > 1 for ids in trained):
            self.add("double_bos", row.id)
        if self._model.vocabulary is not None and any(max(ids) >= self._model.vocabulary for ids in trained):
            self.add("beyond_vocabulary", row.id)
        if self._model.positions is not None and any(len(ids) > self._model.positions for ids in trained):
            self.add("beyond_positions", row.id)
        if row.original.encoded.cut or row.edited.encoded.cut:
            self.add("truncated", row.id)
        if totals["offsets"] < _OFFSET_SAMPLE:
            totals["offsets"] += 1
            self._look_at_offsets(row)
        self._look_at_inventions(row.edited, correction)

    def _look_at_offsets(self, row: TokenLabels) -> None:
        tokenizer = self._encoder.tokenizer
        for side in (row.original, row.edited):
            if not side.encoded.cut and self._encoder.decode(side.encoded.response_ids) != side.text:
                self.add("text_not_writable", row.id)
                break
        special = {tokenizer.unk_token_id, *self._encoder.end_ids}
        for side in (row.original, row.edited):
            for token, (start, stop) in zip(side.encoded.response_ids, side.encoded.offsets, strict=True):
                if token in special:
                    continue
                says, points = _plain(str(tokenizer.decode([token]))), _plain(side.text[start:stop])
                if says and len(says) == len(points) and says != points:
                    detail = f"token {tokenizer.convert_ids_to_tokens(token)!r} at {side.text[start:stop]!r}"
                    return self.add("offsets_lie", row.id, detail)
        return None

    def _look_at_inventions(self, edited: LabeledTokens, row: Correction) -> None:
        if row.original == row.edited:
            return
        spans = list(unknowable(row, diff(row.original, row.edited), FACTS))
        self._totals["written_tokens"] += sum(name in (Label.INSERTED, Label.SUBSTITUTED) for name in edited.labels)
        if not spans:
            return
        self._totals["rows_with_inventions"] += 1
        self._totals["invented_tokens"] += sum(
            any(start < span.stop and span.start < stop for span in spans) for start, stop in edited.encoded.offsets
        )
        if self._rules.inventions == "learn":
            self.add("inventions", row.id, spans[0].text)

    def _show(self, row: TokenLabels, streams: Streams, *, wrong: int) -> None:
        """Keep the few most telling rows: with a finding, short enough for a screen, with the most kinds of label."""
        labels = {*row.original.labels, *row.edited.labels}
        size = max(len(row.original.labels), len(row.edited.labels))
        rank = (wrong, int(size <= _FEW_TOKENS), len(labels))
        if len(self._shown) == _SHOWN and rank <= self._shown[-1][0]:
            return
        shown = ViewRow(labels=row, reasons=row.reasons, weights=(streams.original, streams.edited))
        self._shown = sorted([*self._shown, (rank, shown)], key=lambda each: each[0], reverse=True)[:_SHOWN]
