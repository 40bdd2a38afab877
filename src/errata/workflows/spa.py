"""FIGA's data from prompts and references: sample, score, filter, revise (SPA; Guo et al., ICLR 2024).

For a prompt x with its reference y the model writes ŷ; a reward model scores both; what is worth the price is revised
by an editor, who is handed in, into ỹ. All of it lies in one folder:

==================  =================================================================================================
``settings.json``   what the samples are of; a rerun with something else is refused
``samples.jsonl``   x, ŷ (``rejected``, with the ids that were sampled), y (``chosen``)
``scored.jsonl``    the same with ``original_reward`` R(ŷ) and ``output_reward`` R(y); null where there is none
``kept.jsonl``      the rows of it that all filters keep; ``dropped.jsonl`` the others, with what dropped them and why
``revisions.jsonl`` one line for each answer of the editor, on disk before the next question
``edits.jsonl``     x, ŷ, ỹ (``chosen``), y (``output``): what ``errata labels`` and ``errata tune figa`` read;
                    ``unrevised.jsonl`` the kept rows that the editor could not revise
``report.json``     how many rows each step kept
==================  =================================================================================================

Samples and scores are made once. What follows costs nothing but the editor, and is made anew from them and from the
editor's answers: so thresholds may be changed from run to run, and no question is asked twice. A folder is gone on with
only by the same functions, so they say what they are: each by an attribute ``identity``, generator and score by
``made_by``, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from errata.data import read_corrections, write_rows
from errata.data.rows import row_fields
from errata.edits import Curation, Dropped, Filter, FilterReport, statistics
from errata.models import Generator, Sampling
from errata.runs import (
    HOW_TO_NAME,
    StageFolder,
    claim_folder,
    fingerprint_of,
    identity_of,
    locked,
    named,
    new_file,
    writes_out,
    writing,
)
from errata.types import Correction, Demonstration, Prompt, PromptRow

__all__ = [
    "Answer",
    "AnswerScore",
    "Editor",
    "SPAReport",
    "Thresholds",
    "curate_spa",
    "revise",
    "sample_and_score",
    "suggest_thresholds",
]

Answer = tuple[Prompt, str, tuple[int, ...] | None]
"""A prompt and an answer, with the sampled ids where they are known."""

AnswerScore = Callable[[Sequence[Answer]], Sequence[float]]
"""Rewards of answers, in order, NaN for none: a reward model, handed in (one of errata's: ``score_answers``)."""

Editor = Callable[[Prompt, str, str], str | None]
"""(x, ŷ, y) → ỹ, the draft revised with the reference at hand, or None where that cannot be done."""

_ONE_EACH = Sampling()
_REWARDS = ("original_reward", "output_reward")
_OWN_FIELDS = ("output", *_REWARDS, "dropped_by", "dropped_because")


class Thresholds(NamedTuple):
    """Keep a row if R(ŷ) < η₁, R(y) > η₂ and R(y) − R(ŷ) > η₃; in the units of the reward model."""

    eta1: float
    eta2: float
    eta3: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SPAReport:
    """How many rows came through, and what the revisions are like."""

    thresholds: Thresholds
    steps: tuple[FilterReport, ...]
    """The three filters in the order of the thresholds, then the editor; each saw what those before it kept."""
    unchanged: int
    """Revisions equal to their draft: the editor found nothing to mend."""
    words_typed: int
    words_deleted: int

    @property
    def edits(self) -> int:
        """Rows to train on."""
        return self.steps[-1].kept

    def as_dict(self) -> dict[str, Any]:
        """All of it by name, ready for JSON."""
        return {
            "thresholds": self.thresholds._asdict(),
            "steps": [step.as_dict() for step in self.steps],
            **{name: getattr(self, name) for name in ("edits", "unchanged", "words_typed", "words_deleted")},
        }


@writes_out
def curate_spa(
    rows: Iterable[Demonstration],
    generator: Generator,
    score: AnswerScore,
    editor: Editor,
    out: Path,
    *,
    eta1: float,
    eta2: float,
    eta3: float,
    sampling: Sampling = _ONE_EACH,
    made_by: Mapping[str, Any] | None = None,
) -> SPAReport:
    """Prompts and references → corrections to train FIGA on; run again, it goes on where it was stopped.

    The paper's thresholds, 1, 3 and 3.5, hold for its own reward model: ``suggest_thresholds`` finds some for another.

    Args:
        rows: prompts x, each with its reference y.
        generator: the model that is to be tuned.
        score: the reward model; R(ŷ) is of the ids that were sampled.
        editor: asked for one kept row after the other. What it raises ends the run, and its answers so far stay.
        out: the folder, as above; ``edits.jsonl`` is the result.
        eta1: what R(ŷ) must stay below: the draft is worth a revision.
        eta2: what R(y) must exceed: the reference is worth having.
        eta3: what R(y) − R(ŷ) must exceed.
        sampling: how drafts are drawn, one a prompt.
        made_by: what tells this generator and this score from others, such as the names of their model folders; where
            it is not given, they have an ``identity``.

    Raises:
        ValueError: the folder holds another run, or one of functions that do not say what they are; a file of it is
            damaged; a row cannot be written; a function that was handed in gives something else than it should; or no
            row is left.
    """
    scored = sample_and_score(rows, generator, score, out, sampling=sampling, made_by=made_by)
    thresholds = Thresholds(eta1, eta2, eta3)
    curation, dropped = Curation(_filters(thresholds)), list[Dropped]()
    kept = list(curation.keep(scored, dropped.append))
    if not kept:
        raise ValueError(f"no row would be kept ({'; '.join(map(str, curation.reports))}); loosen a threshold")
    for name in ("report.json", "edits.jsonl", "unrevised.jsonl"):
        (out / name).unlink(missing_ok=True)  # of other thresholds, perhaps
    write_rows(out / "kept.jsonl", kept)
    write_rows(out / "dropped.jsonl", [_with(row, dropped_by=by, dropped_because=why) for row, by, why in dropped])

    edits, unrevised = revise(kept, editor, out / "revisions.jsonl")
    write_rows(out / "unrevised.jsonl", unrevised)
    revised = FilterReport("revised by the editor", len(kept), len(edits))
    revised.examples += [Dropped(row, revised.name, "cannot be revised") for row in unrevised[:3]]
    if not edits:
        raise ValueError(f"the editor revised none of the {len(kept)} rows it was asked for; see to the editor")
    write_rows(out / "edits.jsonl", edits)
    found = statistics(edits)
    report = SPAReport(
        thresholds=thresholds,
        steps=(*curation.reports, revised),
        unchanged=found.unchanged,
        words_typed=found.words_typed,
        words_deleted=found.words_deleted,
    )
    with new_file(out / "report.json") as partial:
        partial.write_text(json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


@writes_out
def sample_and_score(
    rows: Iterable[Demonstration],
    generator: Generator,
    score: AnswerScore,
    out: Path,
    *,
    sampling: Sampling = _ONE_EACH,
    made_by: Mapping[str, Any] | None = None,
) -> list[Correction]:
    """The first half of ``curate_spa``, before thresholds are chosen and the editor is asked; returns ``scored.jsonl``.

    Until it is revised, a row's edited text is the reference. Arguments and errors are those of ``curate_spa``.
    """
    rows = list(rows)
    if sampling.samples != 1:
        raise ValueError(f"sampling.samples is {sampling.samples}; SPA takes one, give a prompt twice under two ids")
    for row in rows:
        if clash := sorted(set(_OWN_FIELDS) & row.extra.keys()):
            raise ValueError(f"row {row.id!r}: the fields {clash} are names of what is made here; rename them")
        row_fields(_draft(row, "", ()))  # what cannot be written is told before anything is sampled
    given = [(row.id, row.prompt, row.response) for row in rows]
    identities, unnamed = named({} if made_by else {"generator": generator, "score": score})
    samples, scored = out / "samples.jsonl", out / "scored.jsonl"
    if unnamed and samples.exists():
        raise ValueError(
            f"{samples} is there, and nobody can tell whether this {unnamed[0]} made it; {HOW_TO_NAME}, name both in "
            f"made_by, or delete {out}"
        )
    made_of = fingerprint_of(given, sampling, made_by, *([identities] if identities and not unnamed else []))
    claim_folder(out, {"fingerprint": made_of, "made_by": made_by})
    folder = StageFolder(out)

    def draw(path: Path) -> None:
        rollouts = generator([PromptRow(id=row.id, prompt=row.prompt) for row in rows], sampling)
        if [rollout.id for rollout in rollouts] != [row.id for row in rows]:
            raise ValueError(
                f"the generator gave {len(rollouts)} rollouts for {len(rows)} prompts, or others; give one"
            )
        drafts = [_draft(row, one.text, one.response_ids) for row, one in zip(rows, rollouts, strict=True)]
        write_rows(path, drafts)

    def judge(path: Path) -> None:
        drafts = read_corrections(samples, empty_texts="keep")
        answers: list[Answer] = [(row.prompt, row.original, row.original_ids) for row in drafts]
        answers += [(row.prompt, row.edited, None) for row in drafts]
        rewards = [None if isnan(reward) else float(reward) for reward in score(answers)]
        if len(rewards) != len(answers):
            raise ValueError(f"the scorer gave {len(rewards)} rewards for {len(answers)} answers; give one for each")
        pairs = zip(rewards[: len(drafts)], rewards[len(drafts) :], strict=True)
        write_rows(
            path,
            [_with(row, **dict(zip(_REWARDS, pair, strict=True))) for row, pair in zip(drafts, pairs, strict=True)],
        )

    folder.make(samples, draw)
    folder.make(scored, judge)
    return read_corrections(scored, empty_texts="keep")


def suggest_thresholds(
    scored: Iterable[Correction], *, original: float = 0.7, output: float = 0.3, gap: float = 0.5
) -> Thresholds:
    """Thresholds from quantiles of what was scored: a reward model's own units, whatever they are.

    >>> rewards = [{"original_reward": k, "output_reward": 2 * k} for k in (1, 2, 3, 4, 5)]
    >>> scored = [Correction(id="", prompt="", original="ŷ", edited="y", extra=each) for each in rewards]
    >>> suggest_thresholds(scored, original=0.5, output=0.25, gap=0.75)
    Thresholds(eta1=3.0, eta2=4.0, eta3=4.0)

    Taken by itself, each filter keeps about that share of the rows which lies beyond its quantile; together they keep
    fewer. Rewards that are equal to a threshold do not pass it.

    Args:
        scored: rows of ``sample_and_score``; those that lack a reward are left out.
        original: η₁ is this quantile of R(ŷ); the share below it is kept.
        output: η₂ is this quantile of R(y); the share above it is kept.
        gap: η₃ is this quantile of R(y) − R(ŷ); the share above it is kept.

    Raises:
        ValueError: no row has both rewards, or a quantile lies outside [0, 1].
    """
    pairs = np.array([_rewards(row) for row in scored], dtype=np.float64).reshape(-1, 2)
    low, high = pairs[~np.isnan(pairs).any(axis=1)].T
    if not len(low):
        raise ValueError("no row has a reward of both its texts; give rows of sample_and_score")
    return Thresholds(
        float(np.quantile(low, original)), float(np.quantile(high, output)), float(np.quantile(high - low, gap))
    )


def revise(rows: Sequence[Correction], editor: Editor, log: Path) -> tuple[list[Correction], list[Correction]]:
    """Ask the editor for each row's revision, one after the other, and never again for one that it has given.

    ``log`` has a line for each answer, and is on disk before the next question: a killed run pays for one question at
    most again, the one that was under way. An answer holds for its editor, prompt, draft and reference, whatever the
    run.

    Args:
        rows: of ``sample_and_score``, in which the edited text is the reference.
        editor: who is asked; says by an attribute ``identity`` who that is.
        log: JSON lines, which are added to.

    Returns:
        The corrections, their reference in the field ``output``; and the rows that could not be revised.

    Raises:
        ValueError: the editor gives something else than a text or None; ``log`` is damaged; or it holds answers, and
            the editor does not say whether they are its own.
    """
    with locked(log):
        return _revise(rows, editor, log)


def _revise(rows: Sequence[Correction], editor: Editor, log: Path) -> tuple[list[Correction], list[Correction]]:
    answers, who = _read_log(log), identity_of(editor)
    if answers and who is None:
        raise ValueError(
            f"{log} holds answers, and nobody can tell whether this editor gave them; {HOW_TO_NAME}, or move the file "
            "away"
        )
    edits: list[Correction] = []
    unrevised: list[Correction] = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with writing(log), log.open("ab") as file:
        for row in tqdm(rows, desc="revisions", disable=None):
            asked = fingerprint_of(row.prompt, row.original, row.edited, *([] if who is None else [who]))
            if asked not in answers:
                revised: object = editor(row.prompt, row.original, row.edited)
                if not isinstance(revised, str | None):
                    kind = type(revised).__name__
                    raise ValueError(f"row {row.id!r}: the editor gave no text but a {kind}; give one, or None")
                answers[asked] = revised
                line = {"id": row.id, "asked": asked, "revised": revised}
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            answer = answers[asked]
            if answer is None:
                unrevised.append(row)
            else:
                edits.append(_with(replace(row, edited=answer), output=row.edited))
    return edits, unrevised


def _read_log(log: Path) -> dict[str, str | None]:
    """The answers by what was asked; what a kill left of a last line is cut off."""
    data = log.read_bytes() if log.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(log, whole)
    answers: dict[str, str | None] = {}
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            answer = json.loads(line)
            answers[answer["asked"]] = answer["revised"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{log}, line {number} is damaged; delete the line, and it is asked again") from error
    return answers


def _filters(thresholds: Thresholds) -> list[Filter]:
    eta1, eta2, eta3 = thresholds
    # NaN passes none.
    return [
        _filter(f"R(ŷ) < {eta1:.4g}", lambda low, high: low < eta1),
        _filter(f"R(y) > {eta2:.4g}", lambda low, high: high > eta2),
        _filter(f"R(y) − R(ŷ) > {eta3:.4g}", lambda low, high: high - low > eta3),
    ]


def _filter(name: str, passes: Callable[[float, float], bool]) -> Filter:
    def why(row: Correction) -> str | None:
        low, high = _rewards(row)
        return None if passes(low, high) else f"R(ŷ) = {low:.4g}, R(y) = {high:.4g}"

    return Filter(name, lambda rows: [why(row) for row in rows])


def _rewards(row: Correction) -> tuple[float, float]:
    low, high = (nan if row.extra[name] is None else float(row.extra[name]) for name in _REWARDS)
    return low, high


def _draft(row: Demonstration, text: str, ids: tuple[int, ...]) -> Correction:
    return Correction(
        id=row.id, prompt=row.prompt, original=text, edited=row.response, original_ids=ids, extra=row.extra
    )


def _with(row: Correction, **fields: Any) -> Correction:
    return replace(row, extra={**row.extra, **fields})
