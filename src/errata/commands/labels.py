"""The verbs ``labels`` and ``view``: from edits to tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.shared import EncodingFlags, console, set_aside
from errata.data import new_file, read_corrections
from errata.labels import count_labels, label_all, read_labels, write_labels
from errata.types import Unit
from errata.views import edits_page, labels_to_terminal

__all__ = ["Labels", "View"]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Edits → one label for every token: kept, inserted, deleted, substituted; each side of a pair has its own."""

    edits: Path
    """Corrections, as of `errata edits import`."""
    model: Path
    """A model folder, for its tokenizer."""
    out: Path
    """labels.jsonl; it names the tokenizer that it was made with."""
    unit: Unit = Unit.WORD
    """What one edit changes; a changed word marks all of its tokens."""
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.model)
        rows = list(label_all(read_corrections(self.edits, set_aside=set_aside(self.out)), encoder, unit=self.unit))
        write_labels(self.out, rows, encoder)
        console.print(count_labels(rows), highlight=False)


@dataclass(frozen=True, kw_only=True)
class View:
    """Labelled edits as coloured tokens: in the terminal, or with --out as one self-contained HTML file."""

    model: Path
    """A model folder, for its tokenizer."""
    edits: Path | None = None
    """Corrections; or give --labels."""
    labels: Path | None = None
    """A file of `errata labels` made with this model's tokenizer."""
    out: Path | None = None
    """The HTML file; without it the first rows are shown here."""
    rows: int = 20
    """How many rows to show."""
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.model)
        if (self.edits is None) == (self.labels is None):
            raise ValueError("give either --edits or --labels")
        if self.labels is not None:
            pairs = read_labels(self.labels, encoder)
        else:
            assert self.edits is not None
            pairs = list(label_all(read_corrections(self.edits), encoder))
        shown = pairs[: self.rows]
        if self.out is None:
            for pair in shown:
                console.print(labels_to_terminal(pair))
        else:
            with new_file(self.out) as partial:
                partial.write_text(edits_page(shown, title=str(self.edits or self.labels)), encoding="utf-8")
        console.print(f"{len(shown)} of {len(pairs)} rows shown", highlight=False)
