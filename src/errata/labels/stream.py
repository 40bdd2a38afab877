"""Labels of a file of any size: in parts that are each there or not, several at a time, in constant memory.

Each part is a file of its own in a hidden folder beside the target. A run that is killed leaves its finished parts, and
the same command resumes after them; at the end they become one file. A part that is not what was written is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

from errata import __version__
from errata.data import Encoder
from errata.data.encoding import TooLong
from errata.data.lengths import LengthCounts
from errata.data.rows import write_lines
from errata.labels.counts import LabelCounts, count_labels
from errata.labels.files import SCHEMA, write_labels
from errata.labels.labeling import label_all
from errata.labels.rules import LabelRules
from errata.runs import check_sums, new_file, read_json, sums_of, write_json, writes_out
from errata.runs.workers import worker_pool
from errata.types import Correction

__all__ = ["LabelReport", "label_file"]

PART = 1_000
"""Rows of a part."""
ALONE = 4
"""Up to so many parts are made in this process: starting others takes longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelReport:
    """What became of the rows of a file."""

    labels: LabelCounts
    lengths: LengthCounts
    unlabelled: int = 0
    """Rows that could not be labelled, and were set aside."""
    first_error: str = ""
    """Why the first of them could not."""

    def __add__(self, other: LabelReport) -> LabelReport:
        return LabelReport(
            labels=self.labels + other.labels,
            lengths=self.lengths + other.lengths,
            unlabelled=self.unlabelled + other.unlabelled,
            first_error=self.first_error or other.first_error,
        )


@writes_out
def label_file(
    corrections: Iterable[Correction],
    out: Path,
    make_encoder: Callable[[], Encoder],
    rules: LabelRules,
    *,
    source: str,
    set_aside: Path,
    workers: int = 1,
    progress: Callable[[int], object] = lambda _: None,
) -> LabelReport:
    """Label corrections as ``label_all`` does and write them as ``write_labels`` does, whatever their number.

    Args:
        corrections: in an order that is the same in each run; one part at a time is held for each worker.
        out: ``.jsonl`` or ``.jsonl.gz``.
        make_encoder: text to ids; is called once in each process, and sent there.
        rules: how to label.
        source: names what ``corrections`` are read from and its state, so that parts of another source are not reused.
        set_aside: where rows go that cannot be labelled, as JSON lines ``{id, error, raw}`` (empty if there are none).
        workers: processes; files of a few parts are done in this one.
        progress: is told the number of rows of each part that is done.

    Raises:
        ValueError: a row is too long and the encoder takes that for an error; or no row could be labelled.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers; give 1 or more")
    encoder = make_encoder()
    parts = out.with_name(f".{out.name}.parts")
    limits = [encoder.max_length, encoder.on_long, PART]
    _open_parts(parts, [__version__, SCHEMA, encoder.fingerprint, *limits, asdict(rules), source])
    suffix = ".jsonl.gz" if out.suffix == ".gz" else ".jsonl"
    names: list[Path] = []
    total = LabelReport(labels=LabelCounts(), lengths=LengthCounts())

    def work() -> Iterator[tuple[Sequence[Correction], Path]]:
        rows = iter(corrections)
        while chunk := list(islice(rows, PART)):
            names.append(parts / f"{len(names):06}{suffix}")
            yield chunk, names[-1]

    for report in _in_order(work(), make_encoder, encoder, rules, workers):
        total += report
        progress(report.labels.rows + report.unlabelled + report.lengths.dropped_too_long)
    if not total.labels.rows and names:
        raise ValueError(
            f"none of {total.unlabelled + total.lengths.dropped_too_long} rows could be labelled; the first: "
            f"{total.first_error or 'longer than max_length'}"
        )
    _join(names, out)
    _join([_aside(name) for name in names], set_aside)
    shutil.rmtree(parts)
    return total


def _open_parts(parts: Path, plan: Sequence[object]) -> None:
    """Keep the parts of a run with the same plan, and no others."""
    name = hashlib.sha256(json.dumps(plan).encode()).hexdigest()
    mark = parts / "plan"
    if mark.exists() and mark.read_bytes() == name.encode():
        return
    shutil.rmtree(parts, ignore_errors=True)
    with new_file(mark) as unfinished:
        unfinished.write_text(name, encoding="utf-8")


_Work = Iterator[tuple[Sequence[Correction], Path]]


def _in_order(
    work: _Work, make_encoder: Callable[[], Encoder], encoder: Encoder, rules: LabelRules, workers: int
) -> Iterator[LabelReport]:
    first = list(islice(work, ALONE + 1))
    if workers == 1 or len(first) <= ALONE:
        for rows, path in chain(first, work):
            yield _label_part(rows, path, encoder, rules)
        return
    with worker_pool(workers, _start, (make_encoder, rules)) as pool:
        running: deque[Future[LabelReport]] = deque()
        try:
            for rows, path in chain(first, work):
                running.append(pool.submit(_label_part_here, rows, path))
                if len(running) > 2 * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for one in running:
                one.cancel()


_here: tuple[Encoder, LabelRules]


def _start(make_encoder: Callable[[], Encoder], rules: LabelRules) -> None:
    global _here
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for each core
    _here = make_encoder(), rules


def _label_part_here(rows: Sequence[Correction], path: Path) -> LabelReport:
    return _label_part(rows, path, *_here)


def _label_part(rows: Sequence[Correction], path: Path, encoder: Encoder, rules: LabelRules) -> LabelReport:
    done = path.with_suffix(".done")
    if (before := _read_report(done)) is not None:
        return before
    lengths = LengthCounts()
    errors: list[tuple[Correction, ValueError]] = []

    def keep(row: Correction, error: ValueError) -> None:
        if isinstance(error, TooLong):
            raise ValueError(f"row {row.id!r}: {error}")
        errors.append((row, error))

    labels = list(label_all(rows, encoder, rules, counts=lengths, on_error=keep))
    write_labels(path, labels, encoder)
    write_lines(
        _aside(path),
        ({"id": row.id, "error": str(error), "raw": _raw(row)} for row, error in errors),
    )
    report = LabelReport(
        labels=count_labels(labels),
        lengths=lengths,
        unlabelled=len(errors),
        first_error=f"row {errors[0][0].id!r}: {errors[0][1]}" if errors else "",
    )
    found = {"report": asdict(report), "sums": sums_of(path.parent, [path, _aside(path)])}
    write_json(done, {**found, "sha256": _digest(found)})
    return report


def _digest(found: object) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _raw(row: Correction) -> str:
    """The row as JSON, whatever it holds: what could not be labelled may be what can hardly be written."""
    return json.dumps(asdict(row), default=str)


def _read_report(path: Path) -> LabelReport | None:
    """What became of a part; None of one that is not there, or not as it was written."""
    try:
        found = read_json(path)
        if found.pop("sha256") != _digest(found):
            return None
        check_sums(path.parent, found["sums"], "it is made again")
        fields = found["report"]
        return LabelReport(
            **{**fields, "labels": LabelCounts(**fields["labels"]), "lengths": LengthCounts(**fields["lengths"])}
        )
    except (AttributeError, FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def _aside(path: Path) -> Path:
    return path.with_name(f"aside-{path.name.removesuffix('.gz')}")


def _join(parts: Iterable[Path], out: Path) -> None:
    """One file after the other; of gzip files, too, this makes one."""
    with new_file(out) as unfinished, unfinished.open("wb") as file:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, file)
