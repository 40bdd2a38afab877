"""The verbs ``labels`` and ``view``: from edits to tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.shared import (
    RESUMES,
    EncodingFlags,
    NormalizeFlags,
    Source,
    check_labels_stand,
    check_not_itself,
    console,
    is_model,
    set_aside,
    tell_normalized,
)
from errata.data import Encoder, iter_corrections, read_corrections
from errata.data.encoding import TooLong
from errata.data.records import read_lines
from errata.labels import LabelRules, label_all, label_file, read_labels
from errata.ranges import Range, Ranged, Size
from errata.runs import new_file
from errata.types import Correction, LabeledTokens, TokenLabels
from errata.views import (
    Show,
    SideStreams,
    ViewRow,
    edits_page,
    labels_to_terminal,
    legend_to_terminal,
    rollouts_page,
    rollouts_to_terminal,
    view_scale,
)

__all__ = ["Labels", "View"]


@dataclass(frozen=True, kw_only=True)
class Labels(Ranged):
    """Edits → one label for every token: kept, inserted, deleted, substituted; each side of a pair has its own.

    Files of any size, in constant memory; stopped at any moment, rerun the same command to resume.
    """

    stopped = RESUMES

    edits: Path
    """Corrections, as of `errata edits import`."""
    model: Path
    """A model, for its tokenizer: a local folder, or owner/name or owner/name@revision of the Hugging Face Hub."""
    out: Path
    """labels.jsonl; it names the tokenizer that it was made with."""
    workers: Annotated[int, Range(low=0, high=1024)] = 0
    """Processes; 0 is one for each core. A small file is done in one."""
    normal: Flat[NormalizeFlags] = NormalizeFlags()
    rules: Flat[LabelRules] = LabelRules()
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        check_not_itself(self.out, self.edits)
        if not self.out.name.endswith((".jsonl", ".jsonl.gz")):
            raise ValueError(f"labels are JSON lines; name {self.out} .jsonl or .jsonl.gz")
        state, normalizer = self.edits.stat(), self.normal.normalizer()
        with tqdm(unit=" rows", leave=False, delay=2, disable=None) as shown:
            report = label_file(
                map(normalizer, iter_corrections(self.edits, set_aside=set_aside(self.out), **self.source.how)),
                self.out,
                self.encoding.loader(self.model),
                self.rules,
                source=f"{self.edits.resolve()} {state.st_size} {state.st_mtime_ns}{self._otherwise()} "
                f"{','.join(normalizer.kinds)}",
                set_aside=self.out.with_name(f"{self.out.name}.unlabelled.jsonl"),
                workers=self.workers or os.cpu_count() or 1,
                progress=shown.update,
            )
        tell_normalized(normalizer)
        console.print(str(report.labels), highlight=False, markup=False)
        if report.lengths.dropped_too_long or report.lengths.truncated:
            console.print(str(report.lengths), highlight=False, markup=False)
        if report.unlabelled:
            aside = f"{report.unlabelled} rows could not be labelled and are in {self.out.name}.unlabelled.jsonl"
            console.print(f"{aside}; the first, {report.first_error}", highlight=False, markup=False)

    def _otherwise(self) -> str:
        """What makes other rows of the same file: labels made with other flags are not gone on with."""
        return "" if self.source == Source() else f" {self.source}"


@dataclass(frozen=True, kw_only=True)
class View(Ranged):
    """Labelled edits as coloured tokens: in the terminal, or with --out as one self-contained HTML file.

    Original and edited text stand word by word opposite each other; hovering, focus or a click tells id, text, label,
    weight and reward of a token. Weights are what --method sees by default, below zero where it unlearns.
    """

    model: Path | None = None
    """As of `errata labels`; rollouts need none."""
    edits: Path | None = None
    """Corrections; or give --labels."""
    labels: Path | None = None
    """A file of `errata labels` made with this model's tokenizer."""
    rollouts: Path | None = None
    """Instead of edits: samples.jsonl of `errata tune ppo`, of which the last rows are shown."""
    stream: str = "advantages"
    """What colours the tokens of rollouts: advantages, rewards/NAME, values/NAME, logprobs, ref_logprobs."""
    method: str = "figa"
    """Whose weights, with its default settings: a method of `errata tune`."""
    show: Show = Show.LABELS
    """What colours the tokens; rewards need --reward."""
    reward: Path | None = None
    """A folder of `errata reward train`, or a file of `errata reward score`, which may hold the rewards of one side."""
    out: Path | None = None
    """The HTML file; without it the first rows are shown here."""
    rows: Size = 20
    """How many rows to show."""
    rules: Flat[LabelRules] = LabelRules()
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        if self.rollouts is not None:
            self._rollouts(self.rollouts)
            return
        if self.model is None:
            raise ValueError("edits are shown as tokens of a model; give --model, or --rollouts instead of edits")
        if self.show == Show.REWARDS and self.reward is None:
            raise ValueError("--show rewards needs --reward, a reward model or a file of `errata reward score`")
        check_not_itself(self.out, self.edits, self.labels, self.reward)
        encoder = self.encoding.encoder(self.model)
        pairs, reasons, total, unlabelled = self._pairs(encoder)
        rewards = [(None, None)] * len(pairs) if self.reward is None else _rewards(self.reward, pairs, encoder)
        weights = _weights_of(self.method)
        shown = [
            ViewRow(labels=pair, reasons=reasons.get(pair.id, ()), weights=weights(pair), rewards=streams)
            for pair, streams in zip(pairs, rewards, strict=True)
        ]
        if self.out is None:
            self._to_terminal(shown)
        else:
            page = edits_page(shown, title=str(self.edits or self.labels), show=self.show)
            with new_file(self.out) as partial:
                partial.write_text(page, encoding="utf-8")
        without = sum(stream is None for streams in rewards for stream in streams)
        counted = "".join(f"; left out, {each}" for each in unlabelled)
        counted += f"; {without} of their {2 * len(shown)} texts have no rewards" if self.reward and without else ""
        where = "" if self.out is None else f" → {self.out}"
        console.print(
            f"{len(shown)} of {total} rows shown{counted}{where}", highlight=False, markup=False, soft_wrap=True
        )

    def _rollouts(self, path: Path) -> None:
        check_not_itself(self.out, path)
        rows = [json.loads(text) for _, text in read_lines(path)][-self.rows :]
        if self.out is None:
            console.print(rollouts_to_terminal(rows, show=self.stream))
            return
        with new_file(self.out) as partial:
            partial.write_text(rollouts_page(rows, title=str(path), show=self.stream), encoding="utf-8")
        console.print(f"{len(rows)} rollouts shown → {self.out}", highlight=False, markup=False, soft_wrap=True)

    def _pairs(self, encoder: Encoder) -> tuple[list[TokenLabels], Mapping[str, tuple[str, ...]], int, Sequence[str]]:
        """The first rows, labelled; the reasons of the edits by id; how many rows there are; why some are not shown."""
        if (self.edits is None) == (self.labels is None):
            raise ValueError("give either --edits or --labels")
        if self.labels is not None:
            check_labels_stand(self.rules, self.encoding)
            labelled = read_labels(self.labels, encoder)
            return labelled[: self.rows], {}, len(labelled), ()
        assert self.edits is not None
        corrections = read_corrections(self.edits, **self.source.how)
        first = corrections[: self.rows]
        reasons = {row.id: row.reasons for row in first}
        unlabelled: list[str] = []

        def keep(row: Correction, error: ValueError) -> None:
            if isinstance(error, TooLong):
                raise ValueError(f"row {row.id!r}: {error}")
            unlabelled.append(f"row {row.id!r}: {error}")

        labelled = list(label_all(first, encoder, self.rules, on_error=keep))
        if first and not labelled:
            raise ValueError(f"none of the first {len(first)} rows could be labelled; {unlabelled[0]}")
        return labelled, reasons, len(corrections), unlabelled

    def _to_terminal(self, rows: Sequence[ViewRow]) -> None:
        scale = view_scale(rows, self.show) if rows else 1.0
        console.print(legend_to_terminal(self.show, scale))
        for row in rows:
            values = {Show.LABELS: None, Show.WEIGHTS: row.weights, Show.REWARDS: row.rewards}[self.show]
            console.print(labels_to_terminal(row.labels, values=values, scale=scale, reasons=row.reasons))


def _weights_of(name: str) -> Callable[[TokenLabels], SideStreams]:
    from errata.tuning import method_of

    method = method_of(name)
    settings = method.config()

    def weights(pair: TokenLabels) -> SideStreams:
        streams = method.weights(pair, settings)
        return streams.original, streams.edited

    return weights


def _rewards(source: Path, pairs: Sequence[TokenLabels], encoder: Encoder) -> list[SideStreams]:
    """The rewards of both sides of each pair, from a reward model or a file; None for a side that the file has not."""
    if is_model(source):
        from errata.reward import load_scorer

        sides = [side.encoded for pair in pairs for side in (pair.original, pair.edited)]
        streams = load_scorer(source, encoder)(sides)
        return list(zip(streams[::2], streams[1::2], strict=True))
    scored: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    for line, text in read_lines(source):
        try:
            row = json.loads(text)
            scored[row["id"], tuple(row["tokens"])] = [float(reward) for reward in row["token_rewards"]]
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{source}, line {line}: {reason}; give a file of `errata reward score`") from error

    def of(pair: TokenLabels, side: LabeledTokens) -> list[float] | None:
        return scored.get((pair.id, tuple(side.text[start:stop] for start, stop in side.encoded.offsets)))

    return [(of(pair, pair.original), of(pair, pair.edited)) for pair in pairs]
