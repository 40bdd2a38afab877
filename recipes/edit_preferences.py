"""Reward models from preferences whose rejected sides an editor corrects (Xu et al., 2024), on the demo's world.

For each prompt the start writes two letters, and a noisy word says which is better: an ordinary preference set. An
editor who is asked as a language model is (``errata edits llm --side rejected --reference chosen``) corrects the
rejected one. Here it is the demo's editor, who overlooks half of the defects; a server would be another ``Chat``.
Reward models then learn from the preferences, from the edits, and from both:

===========  ======================================================================================
sequence     Bradley-Terry on whole responses (Eq 1)
eq3          Bradley-Terry on the means of token rewards (Eq 3); of a preference every token counts
token        classes of changed tokens; in a preference nearly all words are changed
===========  ======================================================================================

They are judged on samples of the start for held-out prompts by what is known there: the defects of the world's judge.

    python recipes/edit_preferences.py --out runs/edit_preferences --seeds 3

Rerun it and only what is missing is made. What came out: docs/edits_llm.md, From preferences to a reward model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from errata.client import Chat
from errata.data import read_corrections, read_preferences, write_rows
from errata.demo.chat import EditorChat
from errata.demo.editor import correct
from errata.demo.judge import judge
from errata.demo.recipe import DemoConfig
from errata.demo.stages import SeedRun
from errata.edits import Draft, LLMEditorConfig, edit_drafts
from errata.labels import label_all
from errata.reward import (
    encode_rollout,
    load_scorer,
    localisation,
    pair_accuracy,
    score_texts,
    token_means,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.runs import read_json, write_json
from errata.runs.schedule import Stage, run_stages
from errata.types import Correction, Preference
from errata.winrate import t_interval

__all__ = ["Settings", "main", "run"]

ARMS = (
    "sequence_preferences",
    "sequence_edits",
    "sequence_both",
    "eq3_edits",
    "eq3_both",
    "token_edits",
    "token_both",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Preferences → the rejected side edited → reward models, with and without the edits."""

    out: Path = Path("runs/edit_preferences")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    seeds: int = 3
    """Repetitions; each draws everything anew, the start model included."""
    prompts: int = 1200
    """Prompts, each with one preference."""
    heldout: int = 200
    """Prompts to measure on, eight samples each."""
    start_responses: int = 4000
    """Flawed responses that each start model is trained on."""
    diligence: float = 0.5
    """Probability that the editor notices a defect."""
    max_new_tokens: int = 80
    """Longest response, in tokens."""
    editor: tyro.conf.OmitArgPrefixes[LLMEditorConfig] = field(default_factory=LLMEditorConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code."""
    try:
        run(tyro.cli(Settings, args=argv))
    except ValueError as error:
        print(f"edit_preferences: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings) -> dict[str, Any]:
    """Make what is missing; returns what ``summary.json`` holds.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    out, console = settings.out, Console(width=150, highlight=False)
    made_of = {key: value for key, value in asdict(settings).items() if key not in ("out", "seeds")}
    every = [stage for seed in range(settings.seeds) for stage in stages(settings, seed)]
    # In this process they run one after the other as listed, so that needs are there without being named.
    run_stages(every, out=out, settings=made_of, workers=1, console=console)
    summary = summarise([read_json(out / f"seed-{seed}/findings.json") for seed in range(settings.seeds)])
    write_json(out / "summary.json", summary)
    for table in tables(summary):
        console.print(table)
    return summary


def stages(settings: Settings, seed: int) -> Iterator[Stage]:
    """One seed: the demo's own road to preferences, then the editor, then a reward model after the other."""
    config = DemoConfig(
        out=settings.out,
        seeds=settings.seeds,
        prompts=settings.prompts,
        heldout=settings.heldout,
        start_responses=settings.start_responses,
        max_new_tokens=settings.max_new_tokens,
        workers=1,
    )
    run = SeedRun(config, seed)
    chat = EditorChat(diligence=settings.diligence, seed=seed)
    yield run.stage("data/start", (), "the start learns from flawed responses", run.make_start)
    yield run.stage("data/prompts.jsonl", (), "prompts of the preferences", run.make_prompts)
    yield run.stage("data/heldout.jsonl", (), "prompts held out", run.make_prompts)
    yield run.stage("data/preferences.jsonl", (), "pairs of samples, a noisy choice", run.prefer)
    yield run.stage(
        "edits/rejected.jsonl", (), "the rejected, corrected", partial(edit_rejected, run, chat, settings.editor)
    )
    for arm in ARMS:
        yield run.stage(f"reward/{arm}", (), f"reward model {arm}", partial(train, run))
    yield run.stage("findings.json", (), "all are judged", partial(find, run))


def edit_rejected(run: SeedRun, chat: Chat, config: LLMEditorConfig, path: Path) -> None:
    """What ``errata edits llm --side rejected --reference chosen`` does.

    Raises:
        ValueError: no row was corrected.
    """
    drafts = [
        Draft(
            id=row.id,
            prompt=row.prompt,
            response=row.rejected,
            reference=row.chosen,
            response_ids=row.rejected_ids,
            extra={"output": row.chosen},
        )
        for row in read_preferences(run.folder / "data/preferences.jsonl", empty_texts="keep")
    ]
    found = edit_drafts(chat, drafts, config)
    write_json(path.with_name("report.json"), found.report.as_dict())
    if not found.report.edited:
        raise ValueError(f"the editor corrected none of the {len(drafts)} rows: {found.report}")
    write_rows(path, found.corrections)


def train(run: SeedRun, path: Path) -> None:
    """One reward model, with the demo's settings of its kind."""
    kind, data = path.name.split("_")
    start, recipe = run.folder / "data/start", run.recipe
    rows: list[Preference | Correction] = []
    if data != "edits":
        rows += read_preferences(run.folder / "data/preferences.jsonl", empty_texts="keep")
    if data != "preferences":
        rows += read_corrections(run.folder / "edits/rejected.jsonl", empty_texts="keep")
    if kind == "sequence":
        train_sequence_reward(start, rows, run.encoder, recipe.reward, path)
        return
    labels = list(label_all([as_correction(row) for row in rows], run.encoder))
    if kind == "eq3":
        train_token_reward_bradley_terry(start, labels, run.encoder, recipe.reward, path)
    else:
        train_token_reward(start, labels, run.encoder, recipe.token_reward, path)


def as_correction(row: Preference | Correction) -> Correction:
    """A preference as a correction of nearly every word."""
    if isinstance(row, Correction):
        return row
    return Correction(
        id=f"{row.id} preference",
        prompt=row.prompt,
        original=row.rejected,
        edited=row.chosen,
        original_ids=row.rejected_ids,
    )


def find(run: SeedRun, path: Path) -> None:
    """All reward models on the same samples, each by its own reward of a response: a sum, or of Eq 3 a mean."""
    flat = run.sample("start", run.prompts("heldout"), "judged", samples=8)
    defects = [judge(row.prompt, row.text).count for row in flat]
    encoded = [encode_rollout(row) for row in flat]
    groups = [range(first, first + 8) for first in range(0, len(flat), 8)]
    pairs = [sorted(group[:2], key=lambda k: defects[k]) for group in groups]
    pairs = [(better, worse) for better, worse in pairs if defects[better] < defects[worse]]
    rng = run.rng("judged")
    first = [flat[group[0]] for group in groups]
    labels = list(
        label_all(
            [
                Correction(
                    id=row.id,
                    prompt=row.prompt,
                    original=row.text,
                    edited=correct(row.prompt, row.text, rng),
                    original_ids=row.response_ids,
                )
                for row in first
                if judge(row.prompt, row.text).count
            ],
            run.encoder,
        )
    )
    found = {}
    for arm in ARMS:
        reward = load_scorer(run.folder / "reward" / arm, run.encoder)
        of = token_means if arm.startswith("eq3") else score_texts
        scores = of(reward, encoded)
        best = [max(group, key=lambda k: scores[k]) for group in groups]
        where = None if arm.startswith("sequence") else localisation(reward, labels)
        found[arm] = {
            "pairs": pair_accuracy([scores[a] for a, _ in pairs], [scores[b] for _, b in pairs]) if pairs else None,
            "corrections": pair_accuracy(
                of(reward, [row.edited.encoded for row in labels]), of(reward, [row.original.encoded for row in labels])
            ),
            "kept over bad": None if where is None else where.bad_kept,
            "good over bad": None if where is None else where.bad_good,
            "defects, best of 8": float(np.mean([defects[k] for k in best])),
        }
    write_json(
        path,
        {
            "rewards": found,
            "editor": {
                key: value
                for key, value in read_json(run.folder / "edits/report.json").items()
                if key in ("rows", "kept", "edited", "retried", "mended", "set_aside")
            },
            "defects of a sample": float(np.mean(defects)),
        },
    )


# What came out.


def summarise(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All seeds together: means and, from two seeds on, t-intervals over them."""
    rewards = []
    for arm in ARMS:
        for figure in seeds[0]["rewards"][arm]:
            values = [one["rewards"][arm][figure] for one in seeds if one["rewards"][arm][figure] is not None]
            if values:
                interval = asdict(t_interval(values)) if len(values) > 1 else {"mean": values[0]}
                rewards.append({"arm": arm, "figure": figure, **interval, "seeds": values})
    return {
        "editor": [one["editor"] for one in seeds],
        "defects of a sample": [one["defects of a sample"] for one in seeds],
        "rewards": rewards,
    }


def tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """The summary, for people."""
    table = Table("seed", "rows", "kept", "edited", "asked twice", "set aside", title="the editor", box=None)
    for seed, row in enumerate(summary["editor"]):
        counts = [row[key] for key in ("rows", "kept", "edited", "retried")]
        table.add_row(*map(str, [seed, *counts, sum(row["set_aside"].values())]))
    yield table
    table = Table("figure", "reward model", "mean (95 % over seeds)", "by seed", title="reward models", box=None)
    figures = dict.fromkeys(row["figure"] for row in summary["rewards"])
    for figure in figures:
        for row in summary["rewards"]:
            if row["figure"] == figure:
                interval = f" ({row['low']:.3f} to {row['high']:.3f})" if "low" in row else ""
                each = " ".join(f"{value:.3f}" for value in row["seeds"])
                table.add_row(figure, row["arm"], f"{row['mean']:.3f}{interval}", each)
    yield table


if __name__ == "__main__":
    sys.exit(main())
