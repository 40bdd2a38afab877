"""What is a reward on every token worth to PPO? On the demo's world, over ten seeds, with controls.

    python recipes/ppo_study.py --part sweep --out runs/ppo_study    # where dense PPO is safe, on seeds of its own
    python recipes/ppo_study.py --part search --out runs/ppo_study   # six tries for every searched method, on the same
    python recipes/ppo_study.py --out runs/ppo_study                 # what was chosen, over ten other seeds

The claim, written down before the first reported run: *at equal edits, PPO on the token reward leaves at most half of
the greedy defects that PPO on a sequence reward of the same edits leaves, and is not worse sampled (paired t-interval
over seeds)*. Two controls separate what the token model knows from how it is paid: the sum of its rewards paid at the
last token, and the sequence reward spread evenly over the tokens. Rerun it and only what is missing is made. What came
out: docs/ppo_study.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from errata.data import read_preferences
from errata.demo.recipe import DemoConfig
from errata.demo.stages import DECODINGS, SeedRun
from errata.labels import LabelRules, label_all
from errata.reward import (
    RewardFunction,
    encode_rollout,
    fit_scale,
    load_scorer,
    train_sequence_reward,
    train_token_reward,
)
from errata.runs import read_json, write_json
from errata.runs.schedule import Stage, run_stages
from errata.tuning import Stream, train_ppo
from errata.types import Encoded
from errata.winrate import t_interval

__all__ = ["CHOSEN", "SWEEP", "TRIES", "Arm", "Settings", "main", "run"]

SEARCH_SEEDS = (100, 101)
"""Of sweep and search, whose second round is on the second; no reported run uses them."""

Values = Mapping[str, Any]
Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""What was measured of each arm, seed by seed."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A policy: which rewards, how they are paid, from how many rows, with which settings of PPO."""

    method: str
    rows: int = 1000
    values: Values = field(default_factory=dict)
    """Settings of ``PPOConfig``; ``coefficient`` and ``centred`` are those of the stream."""

    @property
    def name(self) -> str:
        """Names its files, in the demo's rooms."""
        values = [f"{key}={value}" for key, value in sorted(self.values.items())]
        return " ".join([self.method, *([str(self.rows)] if self.rows else []), *values])


START = Arm(method="start", rows=0)
REWARDS: Mapping[str, Sequence[str]] = {
    "preference": ("sequence_preference",),
    "edited": ("sequence_edited",),
    "token": ("token",),
    "token, omissions blamed": ("token_blame",),
    "token at the end": ("token",),
    "sequence spread": ("sequence_edited",),
    "token and sequence": ("token", "sequence_edited"),
    "penalties and sequence": ("token", "sequence_edited"),
}
"""The methods, and the reward models that each asks."""

PAID_AT_END = ("preference", "edited", "token at the end")
"""Methods whose reward is paid at the last token; their discount is 1."""


def _at_end(values: Sequence[float]) -> list[float]:
    return [*[0.0] * (len(values) - 1), sum(values)] if values else []


def _spread(values: Sequence[float]) -> list[float]:
    return [sum(values) / len(values)] * len(values)


PAID: Mapping[str, Callable[[Sequence[float]], list[float]]] = {
    "token at the end": _at_end,
    "sequence spread": _spread,
}
"""The controls, which pay the same sum elsewhere."""

END_TRIES: Sequence[Values] = (
    *({"kl_coefficient": kl} for kl in (0.05, 0.1, 0.2, 0.4)),
    *({"kl_coefficient": 0.2, "learning_rate": rate} for rate in (1e-4, 4e-4)),
)
DENSE_TRIES: Sequence[Values] = (
    *({"discount": discount, "kl_coefficient": kl} for discount in (0.5, 0.8) for kl in (0.1, 0.2)),
    {"discount": 0.8, "kl_coefficient": 0.4},
    {"discount": 0.8, "kl_coefficient": 0.2, "learning_rate": 4e-4},
)
MIXED_TRIES: Sequence[Values] = (
    *({"discount": 0.8, "kl_coefficient": kl, "terminal_weight": weight} for weight in (0.5, 1.0) for kl in (0.1, 0.2)),
    {"discount": 0.5, "kl_coefficient": 0.2},
    {"discount": 0.8, "kl_coefficient": 0.2, "learning_rate": 4e-4},
)
TRIES: Mapping[str, Sequence[Values]] = {
    "edited": END_TRIES,
    "token": DENSE_TRIES,
    "token at the end": END_TRIES,
    "sequence spread": DENSE_TRIES,
    "token and sequence": MIXED_TRIES,
    "penalties and sequence": MIXED_TRIES,
}
"""Six for every method; the best three are tried again, and the best of both rounds together is chosen."""

SWEEP: Sequence[Values] = (
    *({"discount": each, "kl_coefficient": 0.1} for each in (0.0, 0.5, 0.8, 0.95, 1.0)),
    *({"discount": 0.5, "kl_coefficient": each} for each in (0.0, 0.03, 0.2, 0.4)),
    *({"discount": 0.5, "kl_coefficient": 0.1, "coefficient": each} for each in (0.3, 3.0)),
    *({"discount": each, "kl_coefficient": 0.1, "centred": True} for each in (0.5, 1.0)),
)
"""Around γ .5 and KL .1, one thing at a time."""

CHOSEN: Mapping[str, Values] = {
    "preference": {"kl_coefficient": 0.2},
    "edited": {"kl_coefficient": 0.2},
    "token": {"discount": 0.5, "kl_coefficient": 0.2},
    "token, omissions blamed": {"discount": 0.5, "kl_coefficient": 0.2},
    "token at the end": {"kl_coefficient": 0.2},
    "sequence spread": {"discount": 0.8, "kl_coefficient": 0.1},
    "token and sequence": {"discount": 0.5, "kl_coefficient": 0.2},
    "penalties and sequence": {"discount": 0.8, "kl_coefficient": 0.1, "terminal_weight": 0.5},
}
"""What the search chose; ``preference`` and ``token, omissions blamed`` take what ``edited`` and ``token`` have."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Rewards of tokens and of responses, in PPO, on the demo's world."""

    out: Path = Path("runs/ppo_study")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    part: Literal["sweep", "search", "report"] = "report"
    """What to run: the sweep, the search, or the chosen settings over the reported seeds."""
    seeds: int = 10
    """Repetitions of the report; each draws everything anew, the start model included."""
    rows: tuple[int, ...] = (1000,)
    """Numbers of edits (or preferences) to learn rewards from, in the report."""
    methods: tuple[str, ...] = tuple(REWARDS)
    """Which of the methods."""
    steps: int = 50
    """Rounds of each run of PPO."""
    prompts: int = 2000
    """Prompts to sample two responses for, and those of PPO."""
    heldout: int = 400
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
        print(f"ppo_study: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings) -> dict[str, Any]:
    """Make what is missing; returns what ``PART.json`` holds: what was measured of each arm, seed by seed.

    Raises:
        ValueError: a method is not known, there are too few prompts, or the folder holds a run with other settings.
    """
    if unknown := sorted(set(settings.methods) - set(REWARDS)):
        raise ValueError(f"no method {unknown[0]!r}; there are {', '.join(REWARDS)}")
    if max(settings.rows) > settings.prompts:
        raise ValueError(f"{settings.prompts} prompts are too few for {max(settings.rows)} edits")
    sizes = {
        key: getattr(settings, key) for key in ("steps", "prompts", "heldout", "start_responses", "max_new_tokens")
    }
    console = Console(width=160, highlight=False)

    def measure(arms: Sequence[Arm], seeds: Iterable[int]) -> Found:
        studies = [Study(settings, seed) for seed in seeds]
        stages = [stage for study in studies for stage in study.stages(arms)]
        run_stages(stages, out=settings.out, settings=sizes, workers=settings.workers, console=console)
        return {arm.name: [read_json(study.measured(arm)) for study in studies] for arm in arms}

    arms = [START, *(arm for arm in arms_of(settings) if arm.method in settings.methods)]
    if settings.part == "search":
        first, second = SEARCH_SEEDS
        found = measure(arms, [first])
        again = measure([START, *best_tries(arms, found)], [second])
        found = {name: [*results, *again.get(name, [])] for name, results in found.items()}
    else:
        found = measure(arms, SEARCH_SEEDS if settings.part == "sweep" else range(settings.seeds))
    summary: dict[str, Any] = {"settings": sizes, "results": found}
    if settings.part == "report" and settings.seeds > 1:
        summary["against edited"] = against_edited(arms, found)
    write_json(settings.out / f"{settings.part}.json", summary)
    for one in tables(summary):
        console.print(one)
    return summary


def best_tries(arms: Iterable[Arm], found: Found, keep: int = 3) -> list[Arm]:
    """Of every method the tries that leave the fewest defects, greedy and sampled together."""
    left = {
        name: sum(results[0][decoding]["mean_defects"] for decoding in DECODINGS) for name, results in found.items()
    }
    by_method: dict[str, list[Arm]] = {}
    for arm in sorted(arms, key=lambda arm: left[arm.name]):
        if arm != START:
            by_method.setdefault(arm.method, []).append(arm)
    return [arm for tries in by_method.values() for arm in tries[:keep]]


def arms_of(settings: Settings) -> list[Arm]:
    """The policies of a part of the study."""
    if settings.part == "sweep":
        return [Arm(method="token", values=values) for values in SWEEP]
    if settings.part == "search":
        return [Arm(method=method, values=values) for method, tries in TRIES.items() for values in tries]
    return [Arm(method=method, rows=rows, values=values) for rows in settings.rows for method, values in CHOSEN.items()]


class Study:
    """One seed: the demo's start, prompts, preferences and edits, and what this study makes of them."""

    def __init__(self, settings: Settings, seed: int) -> None:
        config = DemoConfig(
            out=settings.out,
            seeds=2,  # more than one, so that stages tell their seed
            prompts=settings.prompts,
            heldout=settings.heldout,
            start_responses=settings.start_responses,
            ppo_steps=settings.steps,
            max_new_tokens=settings.max_new_tokens,
        )
        self.demo = SeedRun(config, seed)

    def stages(self, arms: Iterable[Arm]) -> list[Stage]:
        """Everything that these arms need, and their measurements."""
        base = self.demo.stages_for("edits/start.jsonl", "winrate/responses/start.jsonl")
        made = tuple(stage.path for stage in base)
        stages = {stage.path: stage for stage in base}
        for arm in arms:
            rewards = [self.reward(kind, arm.rows) for kind in REWARDS.get(arm.method, ())]
            for path in rewards:
                stages[path] = Stage(path, made, f"[{self.demo.seed}] reward {path.name}", self.train)
            needs = (*made, *rewards)
            make = partial(self.tune_and_measure, arm)
            stages[self.measured(arm)] = Stage(self.measured(arm), needs, f"[{self.demo.seed}] {arm.name}", make)
        return list(stages.values())

    def reward(self, kind: str, rows: int) -> Path:
        """Where a reward model lies."""
        return self.demo.folder / "reward" / f"{kind} {rows}"

    def measured(self, arm: Arm) -> Path:
        """Where an arm's measurements lie."""
        return self.demo.folder / "winrate" / f"{arm.name}.json"

    def train(self, path: Path) -> None:
        """A reward model, at the demo's settings."""
        demo, (kind, rows) = self.demo, path.name.split(" ")
        start, edits = demo.folder / "data" / "start", demo.edits()[: int(rows)]
        if kind == "sequence_preference":
            preferences = read_preferences(demo.folder / "data" / "preferences.jsonl", empty_texts="keep")[: int(rows)]
            train_sequence_reward(start, preferences, demo.encoder, demo.recipe.reward, path)
        elif kind == "sequence_edited":
            train_sequence_reward(start, edits, demo.encoder, demo.recipe.reward, path)
        else:
            rules = LabelRules(omissions="blame" if kind == "token_blame" else "unmarked")
            labels = list(label_all(edits, demo.encoder, rules))
            train_token_reward(start, labels, demo.encoder, demo.recipe.token_reward, path)

    def streams(self, arm: Arm) -> list[Stream]:
        """Where the rewards of an arm come from and how they are paid."""
        first, *more = (self.reward(kind, arm.rows) for kind in REWARDS[arm.method])
        shape = {key: arm.values[key] for key in STREAM_VALUES if key in arm.values}
        reward = self.paid(first, PAID[arm.method]) if arm.method in PAID else first
        # What an editor would strike out, without a prize for more.
        penalties_only = arm.method == "penalties and sequence"
        return [
            Stream(name="reward", reward=reward, penalties_only=penalties_only, **shape),
            *(Stream(name="sequence", reward=folder, terminal=True) for folder in more),
        ]

    def paid(self, folder: Path, pay: Callable[[Sequence[float]], list[float]]) -> RewardFunction:
        """The reward model at the scale that PPO would give it, paid in another way."""
        samples = self.demo.sample("start", self.demo.prompts("prompts")[:256], "scale")
        scorer = fit_scale(load_scorer(folder, self.demo.encoder), [encode_rollout(row) for row in samples])

        def paid(rows: Sequence[Encoded]) -> list[list[float]]:
            return [pay(values) for values in scorer(rows)]

        paid.identity = [pay.__name__, scorer.identity]
        return paid

    def tune_and_measure(self, arm: Arm, path: Path) -> None:
        """PPO, then the judge and the full editor on held-out prompts."""
        demo, warnings = self.demo, []
        if arm != START:
            config = replace(
                demo.recipe.ppo("ppo_edited" if arm.method in PAID_AT_END else "ppo_token"),
                evaluate_every=0,
                **{key: value for key, value in arm.values.items() if key not in STREAM_VALUES},
            )
            start, prompts = demo.folder / "data" / "start", demo.prompts("prompts")
            out = demo.folder / demo.model_path(arm.name)
            warnings = train_ppo(start, self.streams(arm), prompts, demo.encoder, config, out).get("warnings", [])
        found = {
            decoding: demo.judged(
                arm.name,
                demo.sample(arm.name, demo.prompts("heldout"), "heldout", temperature=temperature),
                against=decoding,
            )
            for decoding, temperature in DECODINGS.items()
        }
        write_json(path, {**found, "warnings": warnings})


STREAM_VALUES = ("coefficient", "centred")


def against_edited(arms: Sequence[Arm], found: Found) -> dict[str, dict[str, Any]]:
    """Differences in defects to ``edited`` of as many rows, paired by seed: mean and 95 % t-interval.

    The claim holds of a method where "greedy − half" and "sampled" both are not above 0.
    """
    told: dict[str, dict[str, Any]] = {}
    for arm in arms:
        rival = next((each.name for each in arms if each.method == "edited" and each.rows == arm.rows), None)
        if rival is None or arm.name == rival:
            continue
        mine, theirs = (
            {decoding: np.array([each[decoding]["mean_defects"] for each in found[name]]) for decoding in DECODINGS}
            for name in (arm.name, rival)
        )
        differences = {
            "greedy − half": mine["greedy"] - theirs["greedy"] / 2,
            "greedy": mine["greedy"] - theirs["greedy"],
            "sampled": mine["sampled"] - theirs["sampled"],
        }
        told[arm.name] = {}
        for name, values in differences.items():
            interval = t_interval(values.tolist())
            told[arm.name][name] = [float(values.mean()), interval.low, interval.high]
    return told


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """Means over seeds, and the differences to ``edited``."""
    numbers = [
        (f"{decoding}: {title}", decoding, key)
        for decoding in ("greedy", "sampled")
        for title, key in (
            ("defects", "mean_defects"),
            ("words", "edit_cost"),
            ("won", "win_rate"),
            ("KL", "kl"),
            ("tokens", "mean_length"),
        )
    ]
    kinds = ("repetition", "missing", "wrong_fact")
    shown = Table("arm", *(title for title, *_ in numbers), *(f"greedy: {kind}" for kind in kinds), "warned")
    for name, results in summary["results"].items():
        shown.add_row(
            name,
            *(f"{np.mean([each[decoding][key] for each in results]):.2f}" for _, decoding, key in numbers),
            *(
                f"{np.mean([each['greedy']['defects_by_kind'].get(kind, 0.0) for each in results]):.2f}"
                for kind in kinds
            ),
            f"{sum(bool(each['warnings']) for each in results)} of {len(results)}",
        )
    if "against edited" not in summary:
        return [shown]
    differences = Table("defects, against edited", *next(iter(summary["against edited"].values())))
    for name, told in summary["against edited"].items():
        differences.add_row(name, *(f"{mean:+.2f} ({low:+.2f} to {high:+.2f})" for mean, low, high in told.values()))
    return [shown, differences]


if __name__ == "__main__":
    sys.exit(main())
