"""What will the loss really see? One pass over corrections: labels, weights, batches, and all that may go wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any, TypeVar

from errata.data import Encoder
from errata.doctor.facts import ModelFacts, read_model_facts
from errata.doctor.findings import Diagnosis, Finding, Severity, worst_first
from errata.doctor.seen import Seen, Weigh
from errata.doctor.streams import (
    Collate,
    Method,
    settings_of,
    supervision_of,
)
from errata.doctor.wording import worded
from errata.edits.summary import QUANTILES
from errata.labels import LabelRules
from errata.training import OfflineMethod, Supervision
from errata.types import Correction, Unit

__all__ = ["ModelFacts", "Weigh", "examine", "read_model_facts"]


_T = TypeVar("_T")
_CHUNK = 256  # rows that are labelled together
_MECHANICAL = 0.05  # of the rows: from here on edits that programs made are warned of


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


class _Examination(Seen):
    """What is to be said of what was seen."""

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
            yield worded("dropped", rows=self._lengths.dropped_too_long)
        said = {
            "beyond_vocabulary": f"up to {self._totals['highest_id']}, of {self._model.vocabulary}",
            "beyond_positions": f"up to {self._totals['longest']} tokens, of {self._model.positions}",
        }
        for name, (rows, first, detail) in self._found.items():
            detail = said.get(name, detail)
            yield worded(name, rows=rows, example=first, detail=detail)

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
            yield worded("no_rows")
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
            yield worded("unknown_in_changes", detail=f"{unknown:.1%} of the changed tokens")
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


def _chunks(rows: Iterable[_T], size: int) -> Iterator[list[_T]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        yield chunk
