"""FIGA's data made end to end on the demo's world, and the paper's ablation: does the reward model's filter help?

For new prompts the start writes ŷ; the writer of the world, careful this time, has written the reference y. A reward
model scores both. It is the demo's sequence model, trained on noisy preferences between samples of the start for other
prompts; it has seen neither these prompts nor a reference. Rows are kept by η₁, η₂ and η₃, which are quantiles of its
scores; the demo's editor revises ŷ; FIGA learns from the revisions. The editor corrects by the card and overlooks half,
as in the demo (--diligence 1: nothing): it is given y, and does not need it.

    python recipes/spa.py --out runs/spa --seeds 5

The arms have as many revisions as the filter keeps: ``filtered``, ``random`` rows, and those whose drafts are the most
``flawed`` by the world's judge, which a perfect reward model would choose. ``all`` has no filter and more revisions.
Rerun it and only what is missing is made. What came out: docs/curation.md, SPA end to end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from errata.data import read_corrections, read_demonstrations, read_prompts, write_rows
from errata.demo.editor import correct, edit_cost
from errata.demo.judge import judge
from errata.demo.recipe import START_DEFECTS, DemoConfig
from errata.demo.stages import SeedRun
from errata.demo.world import make_prompts, write_response
from errata.edits import statistics
from errata.labels import label_all
from errata.models import TransformersGenerator, identity, load_causal
from errata.reward import load_scorer, score_answers
from errata.runs import read_json, write_json
from errata.runs.schedule import Stage, run_stages
from errata.tuning import train_figa
from errata.types import Correction, Demonstration, Prompt, Rollout
from errata.winrate import paired_t_interval, t_interval
from errata.workflows import Editor, curate_spa, revise, sample_and_score, suggest_thresholds

__all__ = ["Settings", "main", "run"]

ARMS = ("start", "filtered", "random", "flawed", "all")
COMPARED = (
    ("filtered", "start"),
    ("random", "start"),
    ("filtered", "random"),
    ("flawed", "random"),
    ("all", "random"),
)
"""The second is subtracted from the first, seed by seed."""
DECODINGS = ("greedy", "sampled")
REWARD = "sequence_preference"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Prompts and references → sample, score, filter, revise, FIGA; with and without the filter."""

    out: Path = Path("runs/spa")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    seeds: int = 5
    """Repetitions; each draws everything anew, the start model included."""
    rows: int = 1200
    """Prompts with references, to sample and score."""
    original_quantile: float = 0.7
    """η₁ is this quantile of R(ŷ)."""
    output_quantile: float = 0.3
    """η₂ is this quantile of R(y)."""
    gap_quantile: float = 0.5
    """η₃ is this quantile of R(y) − R(ŷ)."""
    reference_defects: float = 0.25
    """Accidents of the references, as a share of those of the writer that the start learned from; habits have none."""
    diligence: float = 0.5
    """Probability that the editor notices a defect."""
    prompts: int = 1200
    """Other prompts, whose preferences the reward model learns from."""
    heldout: int = 400
    """Prompts to measure on."""
    start_responses: int = 4000
    """Flawed responses that each start model is trained on."""
    max_new_tokens: int = 80
    """Longest response, in tokens."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code."""
    try:
        run(tyro.cli(Settings, args=argv))
    except ValueError as error:
        print(f"spa: {error}", file=sys.stderr)
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
    """One seed: the demo's own road to a start and a reward model, then SPA, then an arm after the other."""
    config = DemoConfig(
        out=settings.out,
        seeds=settings.seeds,
        prompts=settings.prompts,
        heldout=settings.heldout,
        start_responses=settings.start_responses,
        diligence=settings.diligence,
        max_new_tokens=settings.max_new_tokens,
        workers=1,
    )
    run = SeedRun(config, seed)
    yield run.stage("data/start", (), "the start learns from flawed responses", run.make_start)
    yield run.stage("data/prompts.jsonl", (), "prompts of the preferences", run.make_prompts)
    yield run.stage("data/heldout.jsonl", (), "prompts held out", run.make_prompts)
    yield run.stage("data/preferences.jsonl", (), "pairs of samples, a noisy choice", run.prefer)
    yield run.stage(f"reward/{REWARD}", (), f"reward model {REWARD}", run.reward)
    yield run.stage("data/references.jsonl", (), "other prompts, with references", partial(refer, settings, run))
    yield run.stage("spa/report.json", (), "sampled, scored, filtered, revised", partial(curate, settings, run))
    for arm in ARMS[2:]:
        yield run.stage(f"edits/{arm}.jsonl", (), f"the rows of {arm}, revised", partial(choose, run))
    for arm in ARMS[1:]:
        yield run.stage(f"tuning/{arm}", (), f"figa, {arm}", partial(tune, run))
    for arm in ARMS:
        yield run.stage(f"winrate/responses/{arm}.jsonl", (), f"{arm} answers", run.respond)
    yield run.stage("findings.json", (), "all are judged", partial(find, run))


def refer(settings: Settings, run: SeedRun, path: Path) -> None:
    """Prompts that neither the reward model nor the evaluation knows, and a better letter for each."""
    rng = run.rng("references")
    known = {
        row.prompt
        for name in ("prompts", "heldout")
        for row in read_prompts(path.with_name(f"{name}.jsonl"), empty_texts="keep")
    }
    drawn = [row for row in make_prompts(settings.rows + len(known), rng, prefix="spa") if row.prompt not in known]
    defects = START_DEFECTS.scaled(settings.reference_defects)
    write_rows(
        path,
        [
            Demonstration(id=row.id, prompt=row.prompt, response=write_response(row.prompt, rng, defect_rates=defects))
            for row in drawn[: settings.rows]
        ],
    )


def curate(settings: Settings, run: SeedRun, path: Path) -> None:
    """The library's workflow, with thresholds from the scores."""
    rows = read_demonstrations(run.folder / "data/references.jsonl", empty_texts="keep")
    generator = TransformersGenerator(load_causal(run.folder / "data/start"), run.encoder)
    score = partial(score_answers, load_scorer(run.folder / "reward" / REWARD, run.encoder), run.encoder)
    sampling = run.sampling("spa")
    made_by = {"generator": identity(run.folder / "data/start"), "score": identity(run.folder / "reward" / REWARD)}
    scored = sample_and_score(rows, generator, score, path.parent, sampling=sampling, made_by=made_by)
    found = suggest_thresholds(
        scored, original=settings.original_quantile, output=settings.output_quantile, gap=settings.gap_quantile
    )
    curate_spa(rows, generator, score, editor(run), path.parent, **found._asdict(), sampling=sampling, made_by=made_by)


def editor(run: SeedRun) -> Editor:
    """The demo's: it looks at the card, so the reference tells it nothing. One draft, one revision, whoever asks."""

    def edit(prompt: Prompt, draft: str, reference: str) -> str:
        del reference
        return correct(prompt, draft, run.rng(f"revision {prompt} {draft}"), diligence=run.config.diligence)

    edit.identity = f"the demo's editor, seed {run.seed}, diligence {run.config.diligence}"
    return edit


def choose(run: SeedRun, path: Path) -> None:
    """As many rows as the filter kept, chosen without a reward model, or all of them; revised by the same editor."""
    scored, count = (
        read_corrections(run.folder / "spa/scored.jsonl", empty_texts="keep"),
        len(edits_of(run, "filtered")),
    )
    if path.stem == "random":
        rows = run.rng("random rows").sample(scored, count)
    elif path.stem == "flawed":
        rows = sorted(scored, key=lambda row: -judge(row.prompt, row.original).count)[:count]
    else:
        rows = scored
    write_rows(path, revise(rows, editor(run), run.folder / "spa/revisions.jsonl")[0])


def edits_of(run: SeedRun, arm: str) -> list[Correction]:
    """What an arm learns from."""
    return run.edits(arm) if arm != "filtered" else read_corrections(run.folder / "spa/edits.jsonl", empty_texts="keep")


def tune(run: SeedRun, path: Path) -> None:
    """FIGA as the demo runs it."""
    labels = list(label_all(edits_of(run, path.name), run.encoder))
    train_figa(run.folder / "data/start", labels, run.encoder, run.recipe.figa, path)


def find(run: SeedRun, path: Path) -> None:
    """What the filters kept, what each arm learned from, and what it leaves to correct."""
    scored = read_corrections(run.folder / "spa/scored.jsonl", empty_texts="keep")
    rewards = np.array([[row.extra["original_reward"], row.extra["output_reward"]] for row in scored])
    defects = [defects_of(row.prompt, row.original) for row in scored]
    write_json(
        path,
        {
            "spa": read_json(run.folder / "spa/report.json"),
            "reward model": {
                "R(y) above R(ŷ)": float((rewards[:, 1] > rewards[:, 0]).mean()),
                "correlation of R(ŷ) with its defects": float(np.corrcoef(rewards[:, 0], defects)[0, 1]),
                "correlation of the gap with them": float(np.corrcoef(rewards[:, 1] - rewards[:, 0], defects)[0, 1]),
                "defects of y": float(np.mean([defects_of(row.prompt, row.edited) for row in scored])),
            },
            "data": {arm: data_of(edits_of(run, arm)) for arm in ARMS[1:]},
            **{
                decoding: {arm: figures(run.responses(arm, decoding), run.responses("start", decoding)) for arm in ARMS}
                for decoding in DECODINGS
            },
        },
    )


def defects_of(prompt: Prompt, text: str) -> int:
    """By the world's judge."""
    return judge(prompt, text).count


def data_of(edits: Sequence[Correction]) -> dict[str, float]:
    """What an arm's revisions cost, and the drafts that they were made of."""
    found = statistics(edits)
    return {
        "revisions": found.rows,
        "unchanged": found.unchanged,
        "words typed": found.words_typed,
        "words deleted": found.words_deleted,
        "defects of ŷ": float(np.mean([defects_of(row.prompt, row.original) for row in edits])),
    }


def figures(rollouts: Sequence[Rollout], against: Sequence[Rollout]) -> dict[str, float]:
    """Means over the held-out prompts; a win is having fewer defects than the start, ties one half."""
    defects, others = (np.array([defects_of(row.prompt, row.text) for row in rows]) for rows in (rollouts, against))
    return {
        "edit cost left": float(np.mean([edit_cost(row.prompt, row.text) for row in rollouts])),
        "defects": float(defects.mean()),
        "win": float((np.sign(others - defects) + 1).mean() / 2),
    }


# What came out.


def summarise(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All seeds together: means and, from two seeds on, t-intervals over them; differences are paired by seed."""
    return {
        "filters": [
            [{"name": name, "rows": step["rows"], "kept": step["kept"]} for name, step in _named(one["spa"])]
            for one in seeds
        ],
        "thresholds": [one["spa"]["thresholds"] for one in seeds],
        "reward model": [one["reward model"] for one in seeds],
        "data": {
            arm: {key: float(np.mean([one["data"][arm][key] for one in seeds])) for key in seeds[0]["data"][arm]}
            for arm in ARMS[1:]
        },
        **{decoding: list(compared([one[decoding] for one in seeds])) for decoding in DECODINGS},
    }


def _named(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The steps, by names that are the same for all seeds."""
    return zip(("R(ŷ) < η₁", "R(y) > η₂", "R(y) − R(ŷ) > η₃", "revised"), report["steps"], strict=True)


def compared(seeds: Sequence[Mapping[str, Mapping[str, float]]]) -> Iterator[dict[str, Any]]:
    """Each figure of each arm, then the differences."""
    for figure in seeds[0][ARMS[0]]:
        values = {arm: [one[arm][figure] for one in seeds] for arm in ARMS}
        for arm in ARMS:
            interval = asdict(t_interval(values[arm])) if len(seeds) > 1 else {"mean": values[arm][0]}
            yield {"figure": figure, "arm": arm, **interval, "seeds": values[arm]}
        for one, other in COMPARED:
            less = np.subtract(values[one], values[other]).tolist()
            interval = asdict(paired_t_interval(values[one], values[other])) if len(seeds) > 1 else {"mean": less[0]}
            yield {"figure": figure, "arm": f"{one} − {other}", **interval, "seeds": less}


def tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """The summary, for people."""
    table = Table("seed", "step", "rows", "kept", "threshold", title="what each filter kept", box=None)
    for seed, (steps, thresholds) in enumerate(zip(summary["filters"], summary["thresholds"], strict=True)):
        values = [*(f"{value:.3f}" for value in thresholds.values()), ""]
        for step, value in zip(steps, values, strict=True):
            table.add_row(str(seed), step["name"], str(step["rows"]), str(step["kept"]), value)
    yield table
    table = Table("seed", *summary["reward model"][0], title="the reward model on these rows", box=None)
    for seed, row in enumerate(summary["reward model"]):
        table.add_row(str(seed), *(f"{value:.3f}" for value in row.values()))
    yield table
    table = Table("arm", *summary["data"]["all"], title="what it learned from, means over seeds", box=None)
    for arm, row in summary["data"].items():
        table.add_row(arm, *(f"{value:.1f}" for value in row.values()))
    yield table
    for decoding in DECODINGS:
        table = Table("figure", "arm", "mean (95 % over seeds)", "by seed", title=decoding, box=None)
        for row in summary[decoding]:
            interval = f" ({row['low']:.3f} to {row['high']:.3f})" if "low" in row else ""
            each = " ".join(f"{value:.3f}" for value in row["seeds"])
            table.add_row(row["figure"], row["arm"], f"{row['mean']:.3f}{interval}", each)
        yield table


if __name__ == "__main__":
    sys.exit(main())
