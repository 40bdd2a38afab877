"""What will the loss really see? One pass over corrections: labels, weights, batches, and all that may go wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from errata.data import Encoder, LengthCounts, check_template
from errata.doctor.batches import check_batch
from errata.doctor.findings import Diagnosis, Finding, Severity, worst_first
from errata.doctor.streams import (
    Collate,
    Feature,
    Method,
    Streams,
    features_of,
    own_batch,
    settings_of,
    streams_of,
    supervision_of,
)
from errata.doctor.units import UnitDifferences
from errata.edits import FACTS, StatisticsOf, diff, unknowable
from errata.edits.statistics import QUANTILES, Distribution
from errata.labels import LabelCounts, LabelRules, changed, count_labels, has_change, label_all
from errata.pretrained import find_model
from errata.pretrained.load import load_config, stops_of
from errata.training import OfflineMethod, Supervision
from errata.types import Correction, Label, LabeledTokens, TokenLabels, Unit
from errata.views import ViewRow

__all__ = ["ModelFacts", "Weigh", "examine", "read_model_facts"]

Weigh = Callable[[TokenLabels], tuple[Sequence[float] | None, Sequence[float]]]
"""Labels to the signed weights of the original (None: not trained on) and of the edited text, one a response token."""

_T = TypeVar("_T")
_CHUNK = 256  # rows that are labelled together
_TEMPLATE_SAMPLE = 8  # rows
_OFFSET_SAMPLE = 64  # rows
_SHOWN = 3  # rows
_MECHANICAL = 0.05  # of the rows: from here on edits that programs made are warned of
_FEW_TOKENS = 120  # of a side; a row that fits on a screen is shown rather than a longer one
_NOT_TEXT = re.compile(r"\s|##|\ufffd")

_WHAT: Mapping[str, tuple[Severity, str, str]] = {
    # Of rows, before they are batched.
    "no_rows": (Severity.ERROR, "no row is left to train on", "see the other findings"),
    "sampled_ids_lie": (
        Severity.ERROR,
        "the sampled ids do not decode to the original text",
        "store ids and text as the model emitted them, and use its own tokenizer",
    ),
    "same_tokens": (
        Severity.ERROR,
        "the texts differ and their tokens do not",
        "use a tokenizer that can write both texts",
    ),
    "too_long": (Severity.ERROR, "rows are longer than the limit", "give --on-long drop or truncate, or raise it"),
    "offsets_lie": (
        Severity.ERROR,
        "the tokenizer's offsets do not point at what its tokens say",
        "use a tokenizer that does not normalise text",
    ),
    "not_encoded": (Severity.ERROR, "rows cannot be encoded or labelled", "mend the rows or the template"),
    "template": (Severity.ERROR, "the chat template departs from what is trained", "mend the template"),
    "template_note": (Severity.NOTE, "the chat template differs", "nothing is wrong with it"),
    "double_bos": (Severity.ERROR, "rows begin with two BOS", "let either the template or the tokenizer put it"),
    "beyond_vocabulary": (
        Severity.ERROR,
        "token ids are beyond the model's embedding",
        "use the model's own tokenizer, or resize its embedding",
    ),
    "beyond_positions": (
        Severity.ERROR,
        "rows are longer than the model's positions",
        "give --max-length with --on-long drop or truncate",
    ),
    "text_not_writable": (
        Severity.WARNING,
        "texts do not come back from their ids: the tokenizer normalises them or does not know their words",
        "use a tokenizer that can write them",
    ),
    "unknown_in_changes": (
        Severity.WARNING,
        "changed words are unknown tokens, so that the model learns to write them as such",
        "use a tokenizer that knows them",
    ),
    "dropped": (Severity.WARNING, "rows are dropped for their length", "raise --max-length"),
    "truncated": (
        Severity.WARNING,
        "rows are truncated, and their responses do not end",
        "raise --max-length, or drop them",
    ),
    "inventions": (
        Severity.WARNING,
        "edits add numbers, names or links that the model could not have known",
        "look at them with `errata edits stats`; `errata labels`, `tune figa` and `reward train` give them weight 0 "
        "with --inventions ignore",
    ),
    "unreadable": (
        Severity.WARNING,
        "rows of the file cannot be used",
        "mend them or set them aside",
    ),
    "without_gradient": (Severity.NOTE, "rows have no weight at all and are left out", "nothing to do"),
    # Of batches.
    "weights_dropped": (
        Severity.ERROR,
        "the batch has no weights: every supervised token weighs the same",
        "collate (and pack) the weights with the ids; give their name if it is another",
    ),
    "weights_cut_apart": (
        Severity.ERROR,
        "ids and weights of the batch are not equally long",
        "cut ids, labels and weights together",
    ),
    "weights_masked": (
        Severity.ERROR,
        "tokens with a weight are masked",
        "mask by weight != 0, never by > 0 or > 1e-6: FIGA's weights have both signs",
    ),
    "weights_changed": (Severity.ERROR, "weights are not those that were given", "hand them on unchanged, in place"),
    "nothing_trained": (
        Severity.ERROR,
        "nothing of the row is supervised",
        "look at the assistant or completion mask: it is zero where the template does not mark answers",
    ),
    "end_not_trained": (
        Severity.ERROR,
        "the end of sequence has a weight and is not supervised, so the model never learns to stop",
        "mask padding by length, never by id, and let the template's end be part of the answer",
    ),
    "cut_silently": (Severity.ERROR, "the collator cuts rows without a word", "raise its limit, or cut them here"),
    "row_lost": (Severity.ERROR, "rows are not in the batch", "look at the collator or packer"),
    "tokenised_again": (
        Severity.ERROR,
        "the batch has the text of the row in other ids: it was tokenised again",
        "hand ids on as they are; sampled ids above all",
    ),
    "prompt_trained": (
        Severity.ERROR,
        "tokens of the prompt are trained on",
        "let the completion mask reach the labels",
    ),
    "padding_trained": (Severity.ERROR, "padding is trained on", "mask padding by length"),
    "not_attended": (
        Severity.ERROR,
        "tokens of the row are masked from attention",
        "make the attention mask from lengths, never from ids: pad may equal the end of sequence",
    ),
    "padding_attended": (Severity.WARNING, "padding is attended to", "make the attention mask from lengths"),
    "packed_without_boundaries": (
        Severity.WARNING,
        "several rows share a line, and nothing in the batch says where one ends: they see each other",
        "hand in position_ids or sequence lengths",
    ),
}
"""Severity, what, remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a model can take; None where its config does not say."""

    vocabulary: int | None = None
    """Rows of its embedding."""
    positions: int | None = None
    """The longest sequence that it was made for, in tokens."""
    ends: tuple[int, ...] | None = None
    """Ids at which plain ``generate`` and servers stop: ``eos_token_id`` of its configurations."""


def read_model_facts(folder: Path | str) -> ModelFacts:
    """What the configurations beside a model say.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    found = find_model(folder)
    try:
        config = load_config(found)
    except ValueError as error:
        raise ValueError(f"no model config could be loaded from {folder}: {error}") from error
    text = config.get_text_config()
    return ModelFacts(
        vocabulary=getattr(text, "vocab_size", None),
        positions=getattr(text, "max_position_embeddings", None),
        ends=stops_of(found),
    )


def examine(
    corrections: Iterable[Correction],
    encoder: Encoder,
    *,
    method: Method | Supervision[Any] = "figa",
    rules: LabelRules | None = None,
    config: Any = None,
    model: ModelFacts | None = None,
    weights: Weigh | None = None,
    collate: Collate | None = None,
    weights_name: str = "weights",
    batch_size: int = 8,
    unreadable: Sequence[tuple[int, str]] = (),
) -> Diagnosis:
    """Send corrections all the way to batches, and compare what arrives with what was meant.

    Memory does not grow with the rows. Without ``collate`` the batches are those of errata's own trainer.

    Args:
        corrections: with ids that differ.
        encoder: your tokenizer, template and limit.
        method: what they are to train: a method of ``errata.tuning`` or its name, or a token-level ``reward`` model.
        rules: how edits become labels.
        config: settings of the method: its weights.
        model: what the model can take (``read_model_facts``).
        weights: weights of your own instead of the method's.
        collate: your collator or packer: from features (``errata.doctor.streams``) to a batch. A function around
            it may rename fields.
        weights_name: what the batch calls its weights.
        batch_size: rows of one batch; each has two features, but for ``sft``.
        unreadable: line numbers and errors of rows that could not be read; looked at once the corrections are.
    """
    rules = rules or LabelRules()
    supervision = supervision_of(method)
    if supervision.reads != "labels":  # and so ignores nothing
        rules = replace(rules, reasoning="learn", inventions="learn")
    examination = _Examination(
        encoder, supervision, rules, settings_of(supervision, config), model or ModelFacts(), weights
    )
    for chunk in _chunks(corrections, _CHUNK):
        rows = examination.label(chunk)
        for group in _chunks(rows, batch_size):
            examination.batch(group, collate, weights_name)
    for line, error in unreadable:
        examination.add("unreadable", f"line {line}", error)
    return examination.result(len(unreadable))


class _Examination:
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

    def result(self, unreadable: int) -> Diagnosis:
        """Figures and findings of all rows."""
        figures = self._figures(unreadable)
        findings = [*self._of_rows(), *self._of_all(figures)]
        return Diagnosis(findings=worst_first(findings), figures=figures, rows=tuple(row for _, row in self._shown))

    def _figures(self, unreadable: int) -> dict[str, Any]:
        totals, edits = self._totals, self._statistics.result()
        refused = sum(self._found.get(name, (0,))[0] for name in _REFUSED if name != "offsets_lie")
        figures: dict[str, Any] = {
            "method": self._method.name,
            "unit": self._rules.unit.value,
            "rows_unreadable": unreadable,
            "rows_in": totals["rows"],
            "rows_not_labelled": totals["rows"] - self._labels.rows - self._lengths.dropped_too_long,
            "dropped_too_long": self._lengths.dropped_too_long,
            "truncated": self._lengths.truncated,
            "tokens_cut": self._lengths.tokens_cut,
            "unchanged": edits.unchanged,
            "without_label": totals["without_label"],
            "without_gradient": self._found.get("without_gradient", (0,))[0],
            "rows_trained": self._labels.rows - self._found.get("without_gradient", (0,))[0],
            "labels": asdict(self._labels),
            "ended": totals["ended"],
            "ended_with_weight": totals["ended_with_weight"],
            "bos": {name.split("_")[2]: count for name, count in sorted(totals.items()) if name.endswith("_bos")},
            "pad_is_end": self._encoder.pad_id in self._encoder.end_ids,
            "weighted_tokens": totals["weighted_tokens"],
            **self._sums,
            "ignored_tokens": self._labels.original_ignored + self._labels.edited_ignored,
            "unknown_share_of_changed_tokens": totals["unknown_changed_tokens"] / max(totals["changed_tokens"], 1),
            "length_quantiles": {str(q): self._sizes.quantile(q) for q in QUANTILES},
            "longest": totals["longest"],
            "positions": self._model.positions,
            "highest_id": totals["highest_id"],
            "vocabulary": self._model.vocabulary,
            "median_edit_ratio": edits.median_edit_ratio,
            "changed_in_white_space_only": edits.kinds["white_space"],
            "rows_with_mechanical_edits": edits.mechanical.touched_rows,
            "mechanical_edits": dict(edits.mechanical.rows),
            "same_rows": edits.same,
            "near_duplicates": edits.near_duplicates,
            "rows_with_inventions": totals["rows_with_inventions"],
            "invented_share_of_written_tokens": totals["invented_tokens"] / max(totals["written_tokens"], 1),
            "batches": totals["batches"],
            "sequences": totals["sequences"],
            **self._collated,
        }
        assert refused <= figures["rows_not_labelled"]
        if self._rules.unit == Unit.TOKEN:
            figures["token_or_word"] = self._units.as_dict()
        return figures

    def _of_rows(self) -> Iterator[Finding]:
        if self._lengths.dropped_too_long:
            yield _finding("dropped", rows=self._lengths.dropped_too_long)
        said = {
            "beyond_vocabulary": f"up to {self._totals['highest_id']}, of {self._model.vocabulary}",
            "beyond_positions": f"up to {self._totals['longest']} tokens, of {self._model.positions}",
        }
        for name, (rows, first, detail) in self._found.items():
            detail = said.get(name, detail)
            yield _finding(name, rows=rows, example=first, detail=detail)

    def _end_remedy(self) -> str:
        """What keeps the weight from the ends."""
        end_weight, good_weight = (getattr(self._config, f"{name}_weight", 1.0) for name in ("end", "good"))
        if not self._totals["edited_ended"]:
            return "truncate fewer rows: raise --max-length, or drop those that are longer"
        if self._weights is not None:
            return "give the end a weight in the weights that you hand in"
        if end_weight == 0:
            return "raise --end-weight above 0, or leave it out"
        if end_weight is None and good_weight == 0:
            return "raise --good-weight above 0, or give --end-weight"
        return "give the end a weight in the rows' own weights: [n, n, 1] for a text of n characters"

    def _balance_remedy(self) -> str:
        """What weighs below zero, and what could weigh more above it."""
        if self._weights is not None:
            return "lower the weights below zero that you hand in"
        weights = ("bad_weight", "deleted_weight")
        lower = [f"--{name.replace('_', '-')}" for name in weights if getattr(self._config, name, None)]
        lower += ["the rows' own weights"] if self._totals["with_own_weights"] else []
        return f"lower {' or '.join(lower) or 'the weights below zero'}, or raise --kept-weight or --good-weight"

    def _of_all(self, figures: Mapping[str, Any]) -> Iterator[Finding]:
        """Findings that rest on the figures."""
        if not figures["rows_trained"]:
            yield _finding("no_rows")
        # The originals of FIGA and the pairs of a reward model end without a weight, and rightly so.
        if self._method.teaches_end and figures["rows_trained"] and not figures["ended_with_weight"]:
            yield Finding(
                severity=Severity.ERROR,
                name="no_end_trained",
                what=f"none of {figures['ended']:,} responses that end has a weight on its end: the model never learns "
                "to stop",
                remedy=self._end_remedy(),
            )
        if (unknown := figures["unknown_share_of_changed_tokens"]) > 0:
            yield _finding("unknown_in_changes", detail=f"{unknown:.1%} of the changed tokens")
        if figures["median_edit_ratio"] > 0.5:
            yield Finding(
                severity=Severity.WARNING,
                name="rewrites",
                what=f"half of the edits change {figures['median_edit_ratio']:.0%} or more of the words: rewrites",
                remedy="token labels say little of them; `errata edits filter --max-edit-ratio 0.5` keeps the others",
            )
        mechanical = self._statistics.result().mechanical
        if mechanical.touched_rows > _MECHANICAL * figures["rows_in"]:
            kinds = ", ".join(f"{name} in {count:,}" for name, count in mechanical.rows.items())
            yield Finding(
                severity=Severity.WARNING,
                name="mechanical_edits",
                what=f"programs changed the texts, and it counts as edits ({kinds}; {mechanical.only_rows:,} rows "
                "differ in nothing else)",
                remedy=f"fold it in both texts with {mechanical.flag}",
                rows=mechanical.touched_rows,
            )
        repeated = figures["same_rows"] + figures["near_duplicates"]
        if repeated:
            much = repeated > 0.05 * figures["rows_in"]
            yield Finding(
                severity=Severity.WARNING if much else Severity.NOTE,
                name="duplicates",
                what=f"{figures['same_rows']:,} rows come again and {figures['near_duplicates']:,} nearly so",
                remedy="drop them with `errata edits filter --duplicates drop-near`",
            )
        if -figures["weight_below_zero"] > figures["weight_above_zero"] and self._method.unlearns:
            yield Finding(
                severity=Severity.WARNING,
                name="unlearns_more",
                what=f"the weights below zero sum to {figures['weight_below_zero']:,.0f} and those above to "
                f"{figures['weight_above_zero']:,.0f}: more is unlearned than imitated",
                remedy=self._balance_remedy(),
            )
        ends, stops = self._encoder.end_id, self._model.ends
        if (
            isinstance(self._method, OfflineMethod)
            and stops is not None
            and ends not in stops
            and figures["ended_with_weight"]
        ):
            spelled = self._encoder.tokenizer.convert_ids_to_tokens(ends)
            yield Finding(
                severity=Severity.NOTE,
                name="end_not_in_config",
                what=f"the model's generation_config does not stop at the trained end {spelled!r} (id {ends}), but at "
                f"{', '.join(map(str, stops)) or 'nothing'}: plain generate and servers write on after it",
                remedy="errata adds it to eos_token_id of the model that it saves; where adapter/ is loaded beside its "
                "base, or another trainer saves, add it to generation_config.json of the base",
            )
        if figures["pad_is_end"]:
            yield Finding(
                severity=Severity.NOTE,
                name="pad_is_end",
                what="the pad token is an end of sequence; errata masks by lengths",
                remedy="a trainer that masks by ids would lose the end",
            )


_REFUSED = ("not_encoded", "sampled_ids_lie", "same_tokens", "too_long", "offsets_lie")


def _finding(name: str, *, rows: int = 0, example: str | None = None, detail: str = "") -> Finding:
    severity, what, remedy = _WHAT[name]
    return Finding(
        severity=severity,
        name=name,
        what=f"{what}: {detail}" if detail else what,
        remedy=remedy,
        rows=rows,
        example=example,
    )


def _chunks(rows: Iterable[_T], size: int) -> Iterator[list[_T]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        yield chunk


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
