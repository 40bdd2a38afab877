"""The verbs ``edits stats`` and ``edits filter``: look at corrections, and choose those to train on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from rich.text import Text
from tyro.conf import OmitArgPrefixes as Flat  # the fields of the flags below are flags of the verb itself

from errata.commands.shared import (
    EncodingFlags,
    NormalizeFlags,
    Source,
    check_not_itself,
    console,
    set_aside,
    tell_normalized,
)
from errata.data import iter_corrections, writing_rows
from errata.edits import (
    Curation,
    Dropped,
    Filter,
    Score,
    changed_only,
    edit_ratio_within,
    field_is_one_of,
    no_duplicates,
    reason_is_one_of,
    reward_gap,
    statistics,
    words_within,
)
from errata.ranges import Range, Ranged
from errata.runs import new_file
from errata.types import Correction, Prompt
from errata.views import statistics_to_terminal, visible

__all__ = ["EditsFilter", "EditsStats"]


@dataclass(frozen=True, kw_only=True)
class EditsStats:
    """What was edited, and how: look before you train.

    Edit ratio, kinds of edit, length, place in the text, duplicates, reasons, what is changed most, words that the
    model could not have known, and edits that programs made and nobody meant. Of any number of rows, in constant
    memory.
    """

    data: Path
    """Corrections."""
    out: Path | None = None
    """Write the numbers here as JSON, too; rows that cannot be read go beside it."""
    source: Flat[Source] = Source()
    normal: Flat[NormalizeFlags] = NormalizeFlags()

    def run(self) -> None:
        check_not_itself(self.out, self.data)
        normalizer = self.normal.normalizer()
        aside = None if self.out is None else set_aside(self.out)
        found = statistics(map(normalizer, iter_corrections(self.data, set_aside=aside, **self.source.how)))
        console.print(statistics_to_terminal(found))
        tell_normalized(normalizer)
        if self.out is not None:
            _write_json(self.out, {**found.as_dict(), "normalized": normalizer.as_dict()})
            console.print(f"→ {self.out}", highlight=False, markup=False)


@dataclass(frozen=True, kw_only=True)
class EditsFilter(Ranged):
    """Keep the corrections worth training on; what is dropped is written beside --out with the reason, and counted.

    Only what is asked for is looked at, in the order of the flags below. A row whose edited text equals its original is
    information ("already good"): filters by edit, reason or reward let it pass.
    """

    data: Path
    """Corrections."""
    out: Path
    """The file to write: .jsonl, .jsonl.gz or .parquet. Dropped rows go to <out>.dropped.jsonl, what each filter did to
    <out>.report.json."""
    unchanged: Literal["keep", "drop"] = "keep"
    """Whether rows stay whose edited text equals the original."""
    field: tuple[str, ...] = ()
    """NAME=VALUE,VALUE: keep rows whose field is one of these, such as annotator=anna,bob."""
    reason: tuple[str, ...] = ()
    """Keep rows that were edited for one of these."""
    min_original_words: Annotated[int, Range(low=0)] = 0
    """Of the original."""
    max_original_words: Annotated[int, Range(low=0)] | None = None
    """Of the original."""
    min_edited_words: Annotated[int, Range(low=0)] = 0
    """Of the edited text."""
    max_edited_words: Annotated[int, Range(low=0)] | None = None
    """Of the edited text."""
    min_edit_ratio: Annotated[float, Range(low=0, high=1)] = 0.0
    """Share of the words of the longer text that were edited, at least."""
    max_edit_ratio: Annotated[float, Range(low=0, high=1)] = 1.0
    """The same, at most: near 1 an edit is a rewrite."""
    duplicates: Literal["keep", "drop-same", "drop-near"] = "keep"
    """Whether to drop all but the first of rows that are the same, or also of those that are nearly so."""
    reward: Path | None = None
    """A folder of `errata reward train`, for --eta1, --eta2 and --eta3 (FIGA's filter; y is the field `output`, else
    the edited text)."""
    eta1: Annotated[float, Range(low=-inf, high=inf)] = inf
    """Keep if R(original) < η₁. FIGA has 1, with its own reward model."""
    eta2: Annotated[float, Range(low=-inf, high=inf)] = -inf
    """Keep if R(y) > η₂. FIGA has 3."""
    eta3: Annotated[float, Range(low=-inf, high=inf)] = -inf
    """Keep if R(y) − R(original) > η₃. FIGA has 3.5."""
    source: Flat[Source] = Source()
    normal: Flat[NormalizeFlags] = NormalizeFlags()
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        normalizer = self.normal.normalizer()
        filters = self._filters()
        if not filters:
            raise ValueError("no filter is asked for; give one, such as --max-edit-ratio 0.5")
        check_not_itself(self.out, self.data)
        curation = Curation(filters)
        with _dropped_rows(self.out.with_name(f"{self.out.name}.dropped.jsonl")) as drop:
            aside = set_aside(self.out)
            rows = map(normalizer, iter_corrections(self.data, set_aside=aside, **self.source.how))
            found = statistics(writing_rows(self.out, _some(curation, rows, drop)))
        report = {**curation.as_dict(), "normalized": normalizer.as_dict()}
        _write_json(self.out.with_name(f"{self.out.name}.report.json"), report)
        tell_normalized(normalizer)
        _tell(curation)
        console.print(found, highlight=False)
        console.print(f"→ {self.out}; what was dropped, and why: {self.out.name}.dropped.jsonl", highlight=False)

    def _filters(self) -> list[Filter]:
        filters = [changed_only()] if self.unchanged == "drop" else []
        filters += [field_is_one_of(*_field_values(each)) for each in self.field]
        if self.reason:
            filters.append(reason_is_one_of(self.reason))
        if self.min_original_words or self.max_original_words is not None:
            filters.append(words_within("original", self.min_original_words, _or_inf(self.max_original_words)))
        if self.min_edited_words or self.max_edited_words is not None:
            filters.append(words_within("edited", self.min_edited_words, _or_inf(self.max_edited_words)))
        if (self.min_edit_ratio, self.max_edit_ratio) != (0, 1):
            filters.append(edit_ratio_within(self.min_edit_ratio, self.max_edit_ratio))
        if self.duplicates != "keep":
            filters.append(no_duplicates("near" if self.duplicates == "drop-near" else "same"))
        thresholds = (self.eta1, self.eta2, self.eta3)
        if (self.reward is None) != (thresholds == (inf, -inf, -inf)):
            raise ValueError("--reward and the thresholds --eta1, --eta2, --eta3 go together; give the reward and one")
        if self.reward is not None:
            filters.append(reward_gap(self._score(self.reward), *thresholds))
        return filters

    def _score(self, reward: Path) -> Score:
        from errata.reward import load_scorer, score_answers

        encoder = self.encoding.encoder(reward)
        scorer = load_scorer(reward, encoder)

        def score(pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
            # What is too long to be scored has no score, and passes no threshold.
            return score_answers(scorer, encoder, [(*pair, None) for pair in pairs])

        return score


def _some(curation: Curation, rows: Iterable[Correction], drop: Callable[[Dropped], None]) -> Iterator[Correction]:
    yield from curation.keep(rows, drop)
    if not curation.kept:
        raise ValueError(f"no row would be kept ({'; '.join(map(str, curation.reports))}); loosen a filter")


def _or_inf(bound: int | None) -> float:
    return inf if bound is None else bound


def _field_values(flag: str) -> tuple[str, list[str]]:
    name, sign, values = flag.partition("=")
    if not name or not sign:
        raise ValueError(f"--field {flag!r} is not NAME=VALUE,VALUE; write for example annotator=anna,bob")
    return name, values.split(",")


@contextmanager
def _dropped_rows(path: Path) -> Iterator[Any]:
    """Yield what writes one dropped row; the file reads as corrections, with two fields more."""
    with new_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield lambda dropped: _write_dropped(file, dropped)


def _write_dropped(file: IO[str], dropped: Dropped) -> None:
    row = dropped.row
    fields: dict[str, Any] = {"id": row.id, "dropped_by": dropped.filter, "dropped_because": dropped.why}
    fields |= {"prompt": row.prompt, "rejected": row.original, "chosen": row.edited}
    fields |= {"reason": list(row.reasons)} if row.reasons else {}
    fields |= {"rejected_ids": list(row.original_ids)} if row.original_ids is not None else {}
    # Fields again: a row that was dropped before has the old reasons among its further fields.
    file.write(json.dumps({**fields, **row.extra, **fields}, ensure_ascii=False, default=str) + "\n")


def _tell(curation: Curation) -> None:
    for report in curation.reports:
        console.print(Text(str(report), "bold"))
        for row, _, why in report.examples:
            texts = f"{_shortened(row.original)} → {_shortened(row.edited)}"
            console.print(Text(f"  dropped {visible(row.id)}, {visible(why)}: {texts}"))
    console.print(f"{curation.kept} of {curation.rows} rows kept, {curation.kept_unchanged} of them unchanged")


def _shortened(text: str) -> str:
    return repr(visible(text if len(text) <= 60 else f"{text[:59]}…"))


def _write_json(path: Path, found: dict[str, Any]) -> None:
    with new_file(path) as partial:
        partial.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
