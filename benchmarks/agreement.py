"""Whose edits agree with gold that others made? errata beside difflib and plain rapidfuzz: ``make bench`` runs it, too.

(a) The field's tagger. Quality estimation marks each word of a machine translation, and each gap between two words, OK
    or BAD by an edit distance from its post-edit; the MLQE-PE development sets carry these tags. F1 is that of BAD.
(b) People's own marks. In FineGrainedRLHF annotators marked the wrong spans of an answer before it was corrected. F1 is
    that of changed words against words that touch a marked span; what is missing cannot be marked, so rows without
    missing information are shown apart.

    python benchmarks/agreement.py --out agreement.json
"""

from __future__ import annotations

import difflib
import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rich.console import Console
from rich.table import Table

from errata.edits import diff, words
from errata.edits.align import align
from errata.edits.word_spans import split_words
from errata.runs import new_file
from errata.types import Label, Op, Unit

SHARED = Path(__file__).parents[2] / "shared" / "data"
TAGGED = ("mlqe_pe_ro-en_et-en_dev.jsonl.gz", "mlqe_pe_en-de_dev.jsonl.gz")
MARKED = "fgrlhf_edits_spans.jsonl.gz"

KEPT, INSERTED, DELETED, SUBSTITUTED = Label.KEPT, Label.INSERTED, Label.DELETED, Label.SUBSTITUTED
Sides = tuple[Sequence[int], Sequence[int]]
"""One label for each word of the original, and of the edited text."""
Tool = Callable[[Sequence[str], Sequence[str]], Sides]
Marks = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Whether each of n words is changed, and whether text is inserted into each of the n + 1 gaps."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Agreement of edits with gold: word and gap tags, and people's error spans."""

    data: Path = SHARED
    """The folder with the gold files."""
    out: Path | None = None
    """Write the figures here as JSON, too."""


def main() -> None:
    """Measure, print and, if asked to, write."""
    settings = tyro.cli(Settings)
    console = Console(highlight=False)
    if not settings.data.exists():
        console.print(f"{settings.data} is missing: nothing to compare with")
        return
    found = {"tags": tags(settings.data), "spans": spans(settings.data)}
    table = Table("dev set", "edits by", "word F1", "gap F1", "minimal", "µs a row", box=None, header_style="bold")
    for language, tools in found["tags"].items():
        for tool, one in tools.items():
            figures = (f"{one['word_f1']:.4f}", f"{one['gap_f1']:.4f}", f"{one['minimal']:.1%}")
            table.add_row(language, tool, *figures, f"{one['microseconds']:.0f}")
        table.add_section()
    console.print(table)
    table = Table("error spans", "edits by", "precision", "recall", "F1", box=None, header_style="bold")
    for rows, tools in found["spans"].items():
        for tool, one in tools.items():
            table.add_row(rows, tool, *(f"{one[name]:.3f}" for name in ("precision", "recall", "f1")))
        table.add_section()
    console.print(table)
    if settings.out is not None:
        with new_file(settings.out) as unfinished:
            unfinished.write_text(json.dumps(found, indent=1) + "\n")


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def tags(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """For each language pair and tool: F1 of BAD words and of BAD gaps, share of minimal alignments, time."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in TAGGED:
        for row in rows_of(folder / name):
            rows.setdefault(row["lang"], []).append(row)
    return {language: {tool: score(mark, some) for tool, mark in TOOLS.items()} for language, some in rows.items()}


def score(mark: Tool, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    pairs = [(row["rejected"].split(" "), row["chosen"].split(" ")) for row in rows]
    started = time.perf_counter()
    sides = [mark(*pair) for pair in pairs]
    seconds = time.perf_counter() - started
    found = [marks(*side) for side in sides]
    gold = [np.concatenate([row[kind] for row in rows]) == "BAD" for kind in ("word_tags", "gap_tags")]
    cost = [sum(label != KEPT for label in a) + list(b).count(INSERTED) for a, b in sides]
    return {
        "word_f1": agreement(np.concatenate([one[0] for one in found]), gold[0])["f1"],
        "gap_f1": agreement(np.concatenate([one[1] for one in found]), gold[1])["f1"],
        "minimal": float(np.mean(np.equal(cost, [Levenshtein.distance(*pair) for pair in pairs]))),
        "microseconds": 1e6 * seconds / len(rows),
    }


def marks(original: Sequence[int], edited: Sequence[int]) -> Marks:
    """What the labels of both sides say of the original's words and gaps."""
    stays = [label in (KEPT, SUBSTITUTED) for label in original]
    gaps = np.zeros(len(original) + 1, np.bool_)
    # The gap before an inserted word is the one behind the last word that both sides share.
    ends = [0, *(k + 1 for k, stay in enumerate(stays) if stay)]
    shared = 0
    for label in edited:
        if label == INSERTED:
            gaps[ends[shared]] = True
        else:
            shared += 1
    return np.array(original, np.int8) != KEPT, gaps


def spans(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """For all rows and for those without missing information, and each tool: changed words against marked ones."""
    rows = [row for row in rows_of(folder / MARKED) if row["chosen"].strip()]
    groups = {"all rows": rows, "rows without missing information": [row for row in rows if not row["missing_info"]]}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, group in groups.items():
        gold = np.concatenate([touched(row) for row in group])
        texts = [(split_words(row["rejected"]), split_words(row["chosen"])) for row in group]
        found[f"{name} ({len(group)})"] = {
            "all words changed": agreement(np.ones_like(gold), gold),
            **{
                tool: agreement(np.concatenate([np.array(mark(*pair)[0]) != KEPT for pair in texts]), gold)
                for tool, mark in TOOLS.items()
            },
            "errata, phrases": agreement(np.concatenate([phrases(row) for row in group]), gold),
        }
    return found


def touched(row: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which words of the original touch a span that people marked as wrong."""
    marked = np.zeros(len(row["rejected"]), np.bool_)
    for span in row["error_spans"]:
        marked[span["start"] : span["end"]] = True
    return np.array([marked[start:stop].any() for start, stop in words(row["rejected"])], np.bool_)


def phrases(row: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which words of the original are part of a changed phrase."""
    changed = np.zeros(len(row["rejected"]), np.bool_)
    for edit in diff(row["rejected"], row["chosen"], Unit.PHRASE):
        changed[edit.original.start : edit.original.stop] = edit.op is not Op.KEEP
    return np.array([changed[start:stop].any() for start, stop in words(row["rejected"])], np.bool_)


def agreement(found: NDArray[np.bool_], gold: NDArray[np.bool_]) -> dict[str, float]:
    both = float((found & gold).sum())
    precision, recall = both / max(found.sum(), 1), both / max(gold.sum(), 1)
    return {"precision": precision, "recall": recall, "f1": 2 * both / max(found.sum() + gold.sum(), 1)}


def by_rapidfuzz(original: Sequence[str], edited: Sequence[str]) -> Sides:
    """A minimal alignment, with whatever ties its programme happens to take."""
    a, b = [KEPT] * len(original), [KEPT] * len(edited)
    for operation in Levenshtein.editops(original, edited):
        if operation.tag == "insert":
            b[operation.dest_pos] = INSERTED
        elif operation.tag == "delete":
            a[operation.src_pos] = DELETED
        else:
            a[operation.src_pos] = b[operation.dest_pos] = SUBSTITUTED
    return a, b


def by_difflib(original: Sequence[str], edited: Sequence[str]) -> Sides:
    """Longest matching blocks; of what is replaced, as many words as both sides have are substituted."""
    a, b = [KEPT] * len(original), [KEPT] * len(edited)
    for _, i, i_end, j, j_end in difflib.SequenceMatcher(None, original, edited, autojunk=False).get_opcodes():
        if original[i:i_end] != edited[j:j_end]:
            both = min(i_end - i, j_end - j)
            a[i:i_end] = [SUBSTITUTED] * both + [DELETED] * (i_end - i - both)
            b[j:j_end] = [SUBSTITUTED] * both + [INSERTED] * (j_end - j - both)
    return a, b


TOOLS: Mapping[str, Tool] = {"errata": align, "rapidfuzz": by_rapidfuzz, "difflib": by_difflib}


if __name__ == "__main__":
    main()
