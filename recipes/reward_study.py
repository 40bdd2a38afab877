"""Which objective for a reward model, and from how many edits? On the demo's world, held against its exact judge.

    python recipes/reward_study.py --out runs/reward_study --seeds 5

Every objective learns from the same corrections of the same start model's samples; what is measured is `errata reward
eval` on held-out prompts (fresh samples of the start, corrected by an editor who overlooks nothing), and the defects
that are left in the best of 8 samples. The leads that it is to settle: Eq 3 ranks and does not localise; a class loss
localises; a Bradley-Terry term on the sum helps the ranking. Rerun it and only what is missing is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from errata.data import read_preferences
from errata.demo.editor import correct
from errata.demo.judge import judge
from errata.demo.recipe import DemoConfig
from errata.demo.stages import SeedRun
from errata.labels import label_all
from errata.models import read_card
from errata.reward import (
    encode_rollout,
    load_scorer,
    report_edits,
    report_samples,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.runs import read_json, write_json
from errata.runs.schedule import Stage, run_stages
from errata.types import Correction
from errata.winrate import t_interval

__all__ = ["ARMS", "Arm", "Settings", "main", "run"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train a reward model."""

    train: Callable[..., Any]
    objective: str | None = None
    values: tuple[tuple[str, Any], ...] = ()
    """What its settings are other than those of all."""
    preferences: bool = False
    """Whether as many preferences of other prompts are learned from beside the edits (the paper's "with")."""


ARMS: Mapping[str, Arm] = {
    "sequence": Arm(train=train_sequence_reward),
    "eq3": Arm(train=train_token_reward_bradley_terry, objective="eq3"),
    "changed_mean": Arm(train=train_token_reward_bradley_terry, objective="changed_mean"),
    "changed_sum": Arm(train=train_token_reward_bradley_terry, objective="changed_sum"),
    "soft": Arm(train=train_token_reward, objective="soft"),
    "classes": Arm(train=train_token_reward, objective="classes"),
    "classes, kept free": Arm(train=train_token_reward, objective="classes", values=(("kept_coefficient", 0.0),)),
    "classes and sum": Arm(train=train_token_reward, objective="classes", values=(("sequence_coefficient", 1.0),)),
    "soft and sum": Arm(train=train_token_reward, objective="soft", values=(("sequence_coefficient", 1.0),)),
    "sequence, with preferences": Arm(train=train_sequence_reward, preferences=True),
    "eq3, with preferences": Arm(train=train_token_reward_bradley_terry, objective="eq3", preferences=True),
    "classes and sum, with preferences": Arm(
        train=train_token_reward, objective="classes", values=(("sequence_coefficient", 1.0),), preferences=True
    ),
}
"""Every arm is trained with each learning rate of ``Settings``; the better one on the search seed is what to report."""

FIGURES = (
    "pair_accuracy",
    "auc_bad_kept",
    "auc_bad_good",
    "token_calibration_error",
    "length_correlation",
    "repetition_correlation",
    "best_of_n",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Objectives of reward models against the number of edits, on the demo's world."""

    out: Path = Path("runs/reward_study")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    seeds: int = 5
    """Repetitions; each draws everything anew, the start model included."""
    first_seed: int = 0
    """Number of the first; a search for learning rates is a run of seeds that no report uses."""
    rows: tuple[int, ...] = (300, 1000, 2000)
    """Numbers of edits to learn from."""
    learning_rates: tuple[float, ...] = (1e-3,)
    """Peak learning rates to try for every arm."""
    arms: tuple[str, ...] = tuple(ARMS)
    """Which of the arms."""
    epochs: float = 3.0
    """Passes over the edits, of all arms."""
    prompts: int = 4000
    """Prompts to sample two responses for; the first are corrected, and of the last come preferences."""
    heldout: int = 300
    """Prompts to measure on."""
    start_responses: int = 4000
    """Flawed responses that each start model is trained on."""
    max_new_tokens: int = 80
    """Longest response, in tokens."""
    workers: int = 2
    """Stages at a time, each in a process of one thread."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code."""
    try:
        run(tyro.cli(Settings, args=argv))
    except ValueError as error:
        print(f"reward_study: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings) -> dict[str, Any]:
    """Make what is missing; returns what ``summary.json`` holds: mean and 95 % interval over seeds of each figure.

    Raises:
        ValueError: an arm is not known, there are too few prompts, or the folder holds a run with other settings.
    """
    if unknown := sorted(set(settings.arms) - set(ARMS)):
        raise ValueError(f"no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
    if 2 * max(settings.rows) > settings.prompts:
        raise ValueError(f"{settings.prompts} prompts are too few for {max(settings.rows)} edits and preferences each")
    sizes = {
        key: getattr(settings, key) for key in ("prompts", "heldout", "start_responses", "max_new_tokens", "epochs")
    }
    console = Console(width=150, highlight=False)
    stages, measured = [], dict[tuple[str, int, float], list[Path]]()
    for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
        config = DemoConfig(
            out=settings.out,
            seeds=settings.seeds,
            prompts=settings.prompts,
            heldout=settings.heldout,
            start_responses=settings.start_responses,
            max_new_tokens=settings.max_new_tokens,
        )
        demo = SeedRun(config, seed)
        base = demo.stages_for("labels/start.jsonl", "data/heldout.jsonl")
        stages += base
        for rows in settings.rows:
            for name in settings.arms:
                for rate in settings.learning_rates:
                    label = f"{name}, {rows} edits, rate {rate:g}"
                    path = demo.folder / "reward" / f"{label}.json"
                    make = partial(_train_and_measure, demo, name, rows, rate, settings.epochs)
                    stages.append(Stage(path, tuple(stage.path for stage in base), f"[{seed}] {label}", make))
                    measured.setdefault((name, rows, rate), []).append(path)
    run_stages(stages, out=settings.out, settings=sizes, workers=settings.workers, console=console)
    summary = {
        "seeds": settings.seeds,
        "results": [
            {"arm": name, "rows": rows, "rate": rate, **_over_seeds([read_json(path) for path in paths])}
            for (name, rows, rate), paths in measured.items()
        ],
    }
    write_json(settings.out / "summary.json", summary)
    console.print(_table(summary["results"]))
    return summary


def _train_and_measure(demo: SeedRun, name: str, rows: int, rate: float, epochs: float, path: Path) -> None:
    arm, folder, start = ARMS[name], path.with_suffix(""), demo.folder / "data" / "start"
    preferences = (
        read_preferences(demo.folder / "data" / "preferences.jsonl", empty_texts="keep")[-rows:]
        if arm.preferences
        else []
    )
    if arm.train is train_token_reward:
        config = replace(demo.recipe.token_reward, sequence_coefficient=0.0, learning_rate=rate, epochs=epochs)
        config = replace(config, **dict(arm.values))
    else:
        config = replace(demo.recipe.reward, learning_rate=rate, epochs=epochs)
    if arm.objective is None:
        train_sequence_reward(start, [*demo.edits()[:rows], *preferences], demo.encoder, config, folder)
    else:
        more = {"objective": arm.objective, "preferences": preferences}
        arm.train(start, demo.labels()[:rows], demo.encoder, config, folder, **more)
    found = {key: None if value != value else value for key, value in measure(demo, folder).items()}
    write_json(path, {**found, "fingerprint": read_card(folder)["fingerprint"]})


def measure(demo: SeedRun, folder: Path) -> dict[str, Any]:
    """What `errata reward eval` says of fresh samples, and the defects in the best of 8 (negated: a gold score)."""
    scorer = load_scorer(folder, demo.encoder)
    flat = demo.sample("start", demo.prompts("heldout"), "best of 8", samples=8)
    groups = [flat[first : first + 8] for first in range(0, len(flat), 8)]
    rng = demo.rng("rewards")
    edits = [
        Correction(
            id=group[0].id,
            prompt=group[0].prompt,
            original=group[0].text,
            edited=correct(group[0].prompt, group[0].text, rng, diligence=1.0),
            original_ids=group[0].response_ids,
        )
        for group in groups
    ]
    labels, by_token = list(label_all(edits, demo.encoder)), read_card(folder)["kind"] == "token"
    rows = [[encode_rollout(one) for one in group] for group in groups]
    gold = [[-float(judge(one.prompt, one.text).count) for one in group] for group in groups]
    return {**report_edits(scorer, labels, tokens=by_token), **report_samples(scorer, rows, gold)}


def _over_seeds(found: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Mean and 95 % t-interval of each figure; those that a seed has no number for are left out."""
    result = {}
    for name in FIGURES:
        values = [one[name] for one in found if one.get(name) is not None]
        if len(values) == len(found):
            interval = t_interval(values) if len(values) > 1 else None
            mean = float(np.mean(values))
            result[name] = [mean, interval.low, interval.high] if interval else [mean, mean, mean]
    return result


def _table(results: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("arm", "edits", "rate", *FIGURES)
    for row in results:
        figures = [row.get(name) for name in FIGURES]
        shown = ["" if one is None else f"{one[0]:.3f} ±{(one[2] - one[1]) / 2:.3f}" for one in figures]
        table.add_row(row["arm"], str(row["rows"]), f"{row['rate']:g}", *shown)
    return table


if __name__ == "__main__":
    sys.exit(main())
