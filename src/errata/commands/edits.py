"""The verbs ``edits …``: from a file of corrections to edits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.text import Text
from tqdm import tqdm
from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.shared import NormalizeFlags, Source, check_not_itself, console, set_aside, tell_normalized
from errata.data import Reading, iter_corrections, recognise_file, writing_rows
from errata.data.encoding import load_tokenizer
from errata.data.rows import write_lines
from errata.edits import StatisticsOf, diff, statistics
from errata.types import Correction, Edit, Op, Ties, Unit
from errata.views import visible

__all__ = ["EditsDiff", "EditsImport"]


@dataclass(frozen=True, kw_only=True)
class EditsDiff:
    """Show what an edit changes: of two texts, or of every row of a file.

    With --out, each row is written with its edits: op and character spans of both sides.
    """

    original: str | None = None
    """A text, beside --edited."""
    edited: str | None = None
    """Its correction."""
    data: Path | None = None
    """A file of corrections instead: prompt with rejected and chosen, original and edited, or draft and sent."""
    unit: Unit = Unit.WORD
    """What one edit changes; token is the papers' choice and needs --model."""
    ties: Ties = Ties.DEPARTURE
    """Which edits, where others are as few: departure where a reader from left to right sees the texts part, as labels
    are made; tagger as the tags of quality estimation; released as FIGA's released code."""
    model: Path | None = None
    """A model, for its tokenizer: a local folder, or owner/name or owner/name@revision of the Hugging Face Hub."""
    out: Path | None = None
    """Write JSON lines here instead of showing the edits; rows of --data that cannot be read go beside it."""
    source: Flat[Source] = Source()

    def run(self) -> None:
        check_not_itself(self.out, self.data)
        if self.unit == Unit.TOKEN and self.model is None:
            raise ValueError("--unit token needs --model, for its tokenizer; give it, or take --unit word")
        seen = StatisticsOf()
        if self.out is None:
            for row, edits in self._edits(seen):
                console.print(Text(visible(row.id), "dim"), _marked(edits), sep="\n", highlight=False)
        else:
            found = self._edits(seen)
            write_lines(self.out, ({"id": row.id, "edits": [_spelled(edit) for edit in edits]} for row, edits in found))
        console.print(str(seen.result()), highlight=False, markup=False)

    def _edits(self, seen: StatisticsOf) -> Iterator[tuple[Correction, list[Edit]]]:
        tokenizer = None if self.model is None else load_tokenizer(self.model)
        for row in self._rows():
            seen.add(row)
            yield row, diff(row.original, row.edited, self.unit, tokenizer, ties=self.ties)

    def _rows(self) -> Iterable[Correction]:
        if self.data is not None and self.original is None and self.edited is None:
            aside = None if self.out is None else set_aside(self.out)
            return iter_corrections(self.data, set_aside=aside, **self.source.how)
        if self.data is None and self.original is not None and self.edited is not None:
            return [Correction(id="edit", prompt="", original=self.original, edited=self.edited)]
        raise ValueError("give --data, or --original and --edited")


@dataclass(frozen=True, kw_only=True)
class EditsImport:
    """Turn a file of corrections into edits.jsonl, whose rows are preference rows too (chosen = edited).

    Reads the formats that --from names, from JSONL, JSON, CSV, Excel, Parquet or a saved data set of any size. Bad
    rows are written beside --out with their line numbers and what to mend; the good ones go on. Line ends are made
    alike in both texts, which is counted (--normalize none leaves them); what else programs changed is shown.
    """

    data: Path
    """The file to read, or a folder of Dataset.save_to_disk."""
    out: Path
    """The file to write: .jsonl, .jsonl.gz or .parquet."""
    source: Flat[Source] = Source()
    normal: Flat[NormalizeFlags] = NormalizeFlags(normalize="newlines")

    def run(self) -> None:
        check_not_itself(self.out, self.data)
        normalizer = self.normal.normalizer()
        rows = map(normalizer, iter_corrections(self.data, set_aside=set_aside(self.out), **self._how()))
        shown = tqdm(writing_rows(self.out, rows), unit=" rows", leave=False, delay=2, disable=None)
        found = statistics(shown)
        console.print(str(found), highlight=False, markup=False)
        tell_normalized(normalizer)
        for line in found.mechanical.lines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _how(self) -> Reading:
        how = self.source.how
        if how["form"] is None:
            how["form"], why = recognise_file(self.data, **how)
            console.print(why, highlight=False, markup=False, soft_wrap=True)
        return how


def _spelled(edit: Edit) -> dict[str, Any]:
    sides = {"original": edit.original, "edited": edit.edited}
    return {"op": edit.op.value, **{name: [span.start, span.stop] for name, span in sides.items()}}


def _marked(edits: Sequence[Edit]) -> Text:
    """The edit as one line, [-what went-]{+what came+}: the marks of `git diff --word-diff`, not by colour alone."""
    line = Text()
    for kept, run in groupby(edits, key=lambda edit: edit.op is Op.KEEP):
        together = list(run)
        before = visible("".join(edit.original.text for edit in together))
        after = visible("".join(edit.edited.text for edit in together))
        if kept:
            line.append(before)
            continue
        line.append(f"[-{before}-]" if before else "", style="strike red")
        line.append(f"{{+{after}+}}" if after else "", style="underline green")
    return line
