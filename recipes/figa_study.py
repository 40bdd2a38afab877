"""Which settings of FIGA, and what are 300 corrections worth? On the demo's world, beside SFT and DPO.

    python recipes/figa_study.py --search --out runs/figa_study    # a few tries for every method, on seeds of their own
    python recipes/figa_study.py --out runs/figa_study             # what was chosen, over ten other seeds

Every method gets the same number of tries and the same start models. What is measured is the edit cost left: the words
a response that an editor who overlooks nothing would still change. Rerun it and only what is missing is made. What came
out: docs/figa_defaults.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from errata.data import read_preferences
from errata.demo.editor import edit_cost
from errata.demo.judge import judge
from errata.demo.recipe import DemoConfig
from errata.demo.stages import DECODINGS, SeedRun
from errata.edits import statistics
from errata.labels import label_all
from errata.models import TransformersGenerator, load_causal
from errata.runs import read_json, write_json
from errata.runs.schedule import Stage, run_stages
from errata.tuning import DPOConfig, FIGAConfig, SFTConfig, demonstrations, train_dpo, train_figa, train_sft
from errata.types import Label, Preference, TokenLabels
from errata.winrate import Interval, paired_t_interval, t_interval

__all__ = ["Settings", "main", "run"]

SEARCH_SEEDS = (100, 101)
"""One for each round of the search; no reported run uses them."""
BATCH = 32
"""Rows in a step, for every method: with the library's 64, a pass over 100 rows would be two steps."""

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A policy: by which method, from which rows and how many, with which settings."""

    method: str
    data: str = "edits"
    """``edits`` by an editor who overlooks half, ``thorough`` ones by one who overlooks nothing, ``preferences``, or
    the same without noise (``certain``)."""
    rows: int = 0
    values: Values = field(default_factory=dict)
    signal: str = "edit"
    """Of FIGA: the edit's own, or ``bag`` of words."""

    @property
    def name(self) -> str:
        """Names the file of what was measured."""
        values = [f"{key}={value}" for key, value in sorted(self.values.items())]
        return " ".join([self.method, self.data, str(self.rows), *values, *(["bag"] if self.signal == "bag" else [])])


START = Arm(method="start")
PAPER: Values = {"good_weight": 1.0, "kept_weight": 0.0, "bad_weight": 0.5, "gate": 0.6}
"""The paper's weights and gate; the learning rate and the passes are searched as everybody's are."""


def figa_values(**values: float) -> Values:
    """Settings of FIGA in full, so that what the library's defaults are changes no number here."""
    common = {"learning_rate": 3e-4, "epochs": 3.0, "good_weight": 1.0, "kept_weight": 0.5, "bad_weight": 0.2}
    return {**common, "gate": 4.0, **values}


def _grid(method: str, *tries: tuple[float, ...], data: str = "edits") -> list[Arm]:
    names = ("learning_rate", "epochs", "beta")
    return [Arm(method=method, data=data, values=dict(zip(names, one, strict=False))) for one in tries]


TRIES: Mapping[str, Sequence[Arm]] = {
    "SFT on edits": _grid(
        "sft", *((rate, passes) for rate in (1e-4, 3e-4, 1e-3) for passes in (3.0, 6.0)), (2e-3, 3.0), (1e-3, 10.0)
    ),
    "DPO on edits": _grid(
        "dpo",
        *((rate, 2.0, beta) for rate in (3e-5, 1e-4, 3e-4) for beta in (0.1, 0.3)),
        *((rate, 2.0, 1.0) for rate in (1e-4, 3e-4)),
    ),
    "DPO on preferences": _grid(
        "dpo",
        *((rate, 2.0, beta) for rate in (1e-4, 3e-4, 1e-3) for beta in (0.1, 0.3)),
        *((3e-4, passes, 1.0) for passes in (2.0, 5.0)),
        data="preferences",
    ),
    "FIGA": [
        Arm(method="figa", values=figa_values(**change))
        for change in (
            {"gate": 0.6},
            {},
            {"learning_rate": 1e-3},
            {"epochs": 6.0},
            {"bad_weight": 0.5},
            {"kept_weight": 0.2},
            {"learning_rate": 1e-3, "kept_weight": 1.0},
            {"learning_rate": 1e-3, "epochs": 6.0},
        )
    ],
    "FIGA, the paper's weights": [
        Arm(method="figa", values={**PAPER, "learning_rate": rate, "epochs": passes})
        for rate in (1e-5, 3e-5, 1e-4, 3e-4)
        for passes in (3.0, 5.0)
    ],
}
"""Eight tries for each method."""

FURTHER: Sequence[Arm] = [
    Arm(method="figa", values=figa_values(**{"epochs": 6.0, **change}))
    for change in (
        {"bad_weight": 0.5},
        {"bad_weight": 0.5, "kept_weight": 1.0},
        {"bad_weight": 1.0, "kept_weight": 1.0},
        {"bad_weight": 0.5, "kept_weight": 1.0, "gate": np.inf},
        {"bad_weight": 0.5, "kept_weight": 1.0, "epochs": 12.0},
    )
]
"""What else might take half of the editing away; tried on few rows of both search seeds once the rest was known."""

CHOSEN: Mapping[str, Arm] = {
    "SFT on edits": Arm(method="sft", values={"learning_rate": 1e-3, "epochs": 3.0}),
    "DPO on edits": Arm(method="dpo", values={"learning_rate": 3e-5, "epochs": 2.0, "beta": 0.1}),
    "DPO on preferences": Arm(
        method="dpo", data="preferences", values={"learning_rate": 3e-4, "epochs": 2.0, "beta": 1.0}
    ),
    "FIGA": Arm(method="figa", values=figa_values(epochs=6.0)),
    "FIGA, the paper's weights": Arm(method="figa", values={**PAPER, "learning_rate": 1e-5, "epochs": 5.0}),
}
"""Of these, what holds at both numbers of rows."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """FIGA's settings one at a time, and corrections against preferences, on the demo's world."""

    out: Path = Path("runs/figa_study")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    search: bool = False
    """Make the search instead, on seeds of its own."""
    seeds: int = 10
    """Repetitions; each draws everything anew, the start model included."""
    wide_seeds: int = 3
    """Of these, how many also run the other numbers of rows, and some variations at the larger of theirs."""
    rows: tuple[int, ...] = (100, 300, 1000, 2000)
    """Numbers of corrections (or preferences) to learn from."""
    varied: tuple[int, int] = (300, 1000)
    """Those at which the search is made, and FIGA's settings vary."""
    prompts: int = 4000
    """Prompts to sample two responses for; the first of them are corrected, or preferences."""
    heldout: int = 300
    """Prompts to measure on."""
    start_responses: int = 4000
    """Flawed responses that each start model is trained on."""
    workers: int = 2
    """Stages at a time, each in a process of one thread."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code."""
    try:
        run(tyro.cli(Settings, args=argv))
    except ValueError as error:
        print(f"figa_study: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings) -> dict[str, Any]:
    """Make what is missing; returns what ``summary.json`` (or ``search.json``) holds.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    out = settings.out
    sizes = {key: getattr(settings, key) for key in ("prompts", "heldout", "start_responses")}
    console = Console(width=150, highlight=False)

    def make(stages: Iterable[Stage]) -> None:
        unique = list({stage.path: stage for stage in stages}.values())
        run_stages(unique, out=out, settings=sizes, workers=settings.workers, console=console)

    if settings.search:
        make(first_round(settings))
        make(second_round(settings))
        make(third_round(settings))
        summary = {"tries": summarise_search(settings), "further": summarise_further(settings)}
    else:
        make(study_stages(settings))
        summary = summarise(settings)
    write_json(out / ("search.json" if settings.search else "summary.json"), summary)
    print("\n".join(search_tables(summary) if settings.search else tables(summary)))
    return summary


# One policy.


def seed_run(settings: Settings, seed: int) -> SeedRun:
    """The demo's own road to preferences and edits, with more prompts."""
    sizes = {"heldout": settings.heldout, "start_responses": settings.start_responses}
    return SeedRun(DemoConfig(out=settings.out, prompts=settings.prompts, seeds=2, workers=1, **sizes), seed)


def data_stages(settings: Settings, seed: int) -> Iterator[Stage]:
    """A start model, its samples, preferences among them, and the rejected ones corrected twice."""
    run = seed_run(settings, seed)
    yield from run.stages_for("edits/start.jsonl", "data/heldout.jsonl")
    thorough = replace(run, config=replace(run.config, diligence=1.0))
    what = "the rejected, corrected by one who overlooks nothing"
    yield run.stage("edits/thorough.jsonl", ["data/preferences.jsonl"], what, thorough.edit_rejected)


def arm_stage(settings: Settings, seed: int, arm: Arm) -> Stage:
    """Train and measure; the model itself is not kept."""
    run = seed_run(settings, seed)
    needs = ["edits/thorough.jsonl", "edits/start.jsonl", "data/heldout.jsonl"]
    return run.stage(f"arms/{arm.name}.json", needs, arm.name, partial(measure, run, arm))


def measure(run: SeedRun, arm: Arm, path: Path) -> None:
    """What an arm leaves to correct on held-out prompts."""
    with TemporaryDirectory() as folder:
        model = run.folder / "data" / "start" if arm.method == "start" else Path(folder) / "model"
        card = {} if arm.method == "start" else tune(run, arm, model)
        generator = TransformersGenerator(load_causal(model), run.encoder)
    found: dict[str, Any] = {"steps": card.get("steps", 0)}
    for decoding, temperature in DECODINGS.items():
        rollouts = generator(run.prompts("heldout"), run.sampling("heldout", temperature=temperature))
        judged = [judge(row.prompt, row.text) for row in rollouts]
        found[decoding] = {
            "cost": float(np.mean([edit_cost(row.prompt, row.text) for row in rollouts])),
            "defects": float(np.mean([one.count for one in judged])),
            "formed": float(np.mean([one.well_formed and r.ended for one, r in zip(judged, rollouts, strict=True)])),
            "tokens": float(np.mean([len(row.response_ids) for row in rollouts])),
        }
    write_json(path, found)


def tune(run: SeedRun, arm: Arm, out: Path) -> dict[str, Any]:
    """Train one policy on the first rows; returns its card."""
    start, encoder = run.folder / "data" / "start", run.encoder
    common: dict[str, Any] = {"batch_size": BATCH, "micro_batch_size": BATCH, "seed": run.seed, **arm.values}
    rows = rows_of(run, arm)
    if arm.method == "sft":
        return train_sft(start, demonstrations(rows), encoder, SFTConfig(**common), out)
    if arm.method == "dpo":
        return train_dpo(start, rows, encoder, DPOConfig(**common), out)
    labels = list(label_all(rows, encoder))
    if arm.signal == "bag":
        labels = [bag_of_words(row) for row in labels]
    return train_figa(start, labels, encoder, FIGAConfig(**common), out)


def rows_of(run: SeedRun, arm: Arm) -> list[Any]:
    """The first corrections, or preferences, of the arm's kind."""
    if arm.data in ("edits", "thorough"):
        return run.edits("thorough" if arm.data == "thorough" else "start")[: arm.rows]
    rows = read_preferences(run.folder / "data" / "preferences.jsonl", empty_texts="keep")[: arm.rows]
    return [without_noise(row) for row in rows] if arm.data == "certain" else rows


def without_noise(row: Preference) -> Preference:
    """The response with fewer defects is chosen; which it was stays where both have as many."""
    chosen, rejected = (judge(row.prompt, text).count for text in (row.chosen, row.rejected))
    if chosen <= rejected:
        return row
    return replace(
        row,
        chosen=row.rejected,
        rejected=row.chosen,
        chosen_ids=row.rejected_ids,
        rejected_ids=row.chosen_ids,
    )


def bag_of_words(row: TokenLabels) -> TokenLabels:
    """Changed is what one text has more of, wherever it stands: of an id that is k times more often, the last k."""
    original, edited = row.original.encoded.response_ids, row.edited.encoded.response_ids
    return replace(
        row,
        original=replace(row.original, labels=_surplus(original, edited, Label.DELETED)),
        edited=replace(row.edited, labels=_surplus(edited, original, Label.INSERTED)),
    )


def _surplus(ids: Sequence[int], others: Sequence[int], name: Label) -> tuple[int, ...]:
    left = Counter(ids) - Counter(others)
    labels = [Label.KEPT] * len(ids)
    for place in reversed(range(len(ids))):
        if left[ids[place]] > 0:
            left[ids[place]] -= 1
            labels[place] = name
    return tuple(labels)


# The search.


def first_round(settings: Settings) -> Iterator[Stage]:
    """All tries on few rows of the first seed."""
    for seed in SEARCH_SEEDS:
        yield from data_stages(settings, seed)
        yield arm_stage(settings, seed, START)
    for arms in TRIES.values():
        yield from (arm_stage(settings, SEARCH_SEEDS[0], replace(arm, rows=settings.varied[0])) for arm in arms)


def second_round(settings: Settings) -> Iterator[Stage]:
    """The best three of each method on more rows of the second seed."""
    for arms in TRIES.values():
        for arm in best_three(settings, arms):
            yield arm_stage(settings, SEARCH_SEEDS[1], replace(arm, rows=settings.varied[1]))


def third_round(settings: Settings) -> Iterator[Stage]:
    """The further tries on few rows of both seeds."""
    for arm in (replace(CHOSEN["FIGA"], rows=settings.varied[0]), *_further(settings)):
        yield from (arm_stage(settings, seed, arm) for seed in SEARCH_SEEDS)


def _further(settings: Settings) -> list[Arm]:
    return [replace(arm, rows=settings.varied[0]) for arm in FURTHER]


def best_three(settings: Settings, arms: Sequence[Arm]) -> list[Arm]:
    """The three that leave the least to correct greedily."""

    def cost(arm: Arm) -> float:
        return float(_read(settings, SEARCH_SEEDS[0], replace(arm, rows=settings.varied[0]))["greedy"]["cost"])

    return sorted(arms, key=cost)[:3]


def summarise_search(settings: Settings) -> list[dict[str, Any]]:
    """Every try: its method, its settings, and what was measured in each round it was in."""
    rounds = list(zip(settings.varied, SEARCH_SEEDS, strict=True))
    found = [{"method": "start", "try": "", **{f"{rows} rows": _read(settings, seed, START) for rows, seed in rounds}}]
    for method, arms in TRIES.items():
        better = best_three(settings, arms)
        for arm in arms:
            seen = rounds if arm in better else rounds[:1]
            measured = {f"{n} rows": _read(settings, seed, replace(arm, rows=n)) for n, seed in seen}
            found.append({"method": method, "try": _words(arm), **measured})
    return found


def summarise_further(settings: Settings) -> list[dict[str, Any]]:
    """The further tries on few rows, one column for each seed."""
    arms = [replace(arm, rows=settings.varied[0]) for arm in (CHOSEN["FIGA"], *FURTHER)]
    return [
        {"method": "FIGA", "try": _words(arm), **{f"seed {seed}": _read(settings, seed, arm) for seed in SEARCH_SEEDS}}
        for arm in arms
    ]


def search_tables(summary: Mapping[str, Any]) -> Iterator[str]:
    """The search, for people."""
    for part in summary.values():
        yield from _tries(part)


def _tries(summary: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    sizes = [key for key in summary[0] if key not in ("method", "try")]
    head = ["method", "try"]
    for rows in sizes:
        head += [f"{rows}: greedy cost", "formed %", "sampled cost"]
    lines = []
    for found in summary:
        lines.append([found["method"], found["try"]])
        for rows in sizes:
            if rows not in found:
                lines[-1] += ["", "", ""]
                continue
            greedy, sampled = found[rows]["greedy"], found[rows]["sampled"]
            lines[-1] += [f"{greedy['cost']:.2f}", f"{100 * greedy['formed']:.0f}", f"{sampled['cost']:.2f}"]
    yield from markdown(head, lines)


def _words(arm: Arm) -> str:
    names = {"learning_rate": "lr", "kept_weight": "kept", "bad_weight": "β", "beta": "β"}
    return " ".join(f"{names.get(key, key)} {value:g}" for key, value in arm.values.items() if key != "good_weight")


def _read(settings: Settings, seed: int, arm: Arm) -> dict[str, Any]:
    return read_json(arm_stage(settings, seed, arm).path)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table, an empty line after it."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


# The study.


def study_stages(settings: Settings) -> Iterator[Stage]:
    """What matters most first."""
    for arms, seeds in waves(settings):
        for seed in range(seeds):
            yield from data_stages(settings, seed)
            yield from (arm_stage(settings, seed, arm) for arm in arms)


def waves(settings: Settings) -> list[tuple[list[Arm], int]]:
    """All arms, and on how many seeds they run."""
    few, more = settings.varied
    worthy = list(worth(settings).values())
    costly = [arm for arm in worthy if arm.data == "certain"]
    main = [replace(arm, rows=rows) for rows in settings.varied for arm in CHOSEN.values()]
    varied = [replace(arm, rows=few) for arm in variations().values()]
    fewer = [replace(arm, rows=more) for name, arm in variations().items() if name in AT_MORE_ROWS]
    others = [replace(arm, rows=rows) for rows in settings.rows for arm in CHOSEN.values()]
    wide = min(settings.seeds, settings.wide_seeds)
    return [
        ([START, *main, *(arm for arm in worthy if arm not in costly)], settings.seeds),
        (varied, settings.seeds),
        (others, wide),
        ([*costly, *fewer], wide),
    ]


AT_MORE_ROWS = (
    "kept 1",
    "β 0.5",
    "gate 0.6 nats",
    "no gate",
    "kept 1 and β 0.5",
    "signal: constant (SFT)",
    "signal: bag of words",
)
"""The variations that also run at the larger number of rows."""


def variations() -> dict[str, Arm]:
    """FIGA as chosen, and with one setting changed."""
    chosen = CHOSEN["FIGA"]
    rate = chosen.values["learning_rate"]
    changes: dict[str, Values] = {
        **{f"kept {value:g}": {"kept_weight": value} for value in (0.0, 0.2, 0.5, 1.0)},
        **{f"β {value:g}": {"bad_weight": value} for value in (0.0, 0.2, 0.5)},
        "β 0.025 without a gate (EDIT/KRSL)": {"bad_weight": 0.025, "gate": np.inf},
        **{f"gate {value:g} nats": {"gate": value} for value in (0.6, 4.0)},
        "gate a band, 0.6 to 1 nats": {"gate_low": 0.6, "gate": 1.0},
        "no gate": {"gate": np.inf},
        "learning rate ⅓": {"learning_rate": rate / 3},
        "learning rate × 3": {"learning_rate": rate * 3},
        "kept 1 and β 0.5": {"kept_weight": 1.0, "bad_weight": 0.5},
        "signal: constant (SFT)": {"kept_weight": 1.0, "bad_weight": 0.0},
    }
    arms = {name: replace(chosen, values={**chosen.values, **change}) for name, change in changes.items()}
    arms = {name: arm for name, arm in arms.items() if arm.name != chosen.name}
    return {**arms, "signal: bag of words": replace(chosen, signal="bag")}


def worth(settings: Settings) -> dict[str, Arm]:
    """Some corrections, and how many preferences leave as little?"""
    few, more = settings.varied
    preferred, many = CHOSEN["DPO on preferences"], max(settings.rows)
    return {
        **{f"{rows} corrections, FIGA": replace(CHOSEN["FIGA"], rows=rows) for rows in (few, more)},
        **{
            f"{few} thorough corrections, {name.removesuffix(' on edits')}": replace(arm, rows=few, data="thorough")
            for name, arm in CHOSEN.items()
            if arm.data == "edits"
        },
        **{f"{rows} preferences, DPO": replace(preferred, rows=rows) for rows in settings.rows if rows >= few},
        f"{many} preferences without noise, DPO": replace(preferred, rows=many, data="certain"),
    }


def summarise(settings: Settings) -> dict[str, Any]:
    """All seeds together, with 95 % t-intervals over them."""
    # The first waves have the most seeds.
    seeds = {arm.name: number for arms, number in reversed(waves(settings)) for arm in arms}

    def line(arm: Arm, baseline: Arm) -> dict[str, Any]:
        number = min(seeds[arm.name], seeds[baseline.name])
        each, others, starts = ([_read(settings, k, one) for k in range(number)] for one in (arm, baseline, START))
        costs = {name: [one["greedy"]["cost"] for one in some] for name, some in (("arm", each), ("start", starts))}
        return {
            "seeds": len(each),
            "steps": each[0]["steps"],
            "greedy_cost": _ends(t_interval(costs["arm"])),
            "gone": _ends(t_interval(1 - np.divide(costs["arm"], costs["start"]))),
            "sampled_cost": _ends(t_interval([one["sampled"]["cost"] for one in each])),
            "formed": float(np.mean([one["greedy"]["formed"] for one in each])),
            "defects": float(np.mean([one["greedy"]["defects"] for one in each])),
            "tokens": float(np.mean([one["greedy"]["tokens"] for one in each])),
            **{
                f"{decoding}_less": _ends(
                    paired_t_interval(
                        [one[decoding]["cost"] for one in each], [one[decoding]["cost"] for one in others]
                    )
                )
                for decoding in DECODINGS
            },
        }

    chosen = CHOSEN["FIGA"]
    few = replace(chosen, rows=settings.varied[0])
    return {
        "start": line(START, START),
        "methods": {
            name: {str(rows): line(replace(arm, rows=rows), replace(chosen, rows=rows)) for rows in settings.rows}
            for name, arm in CHOSEN.items()
        },
        "variations": {
            name: {
                str(rows): line(replace(arm, rows=rows), replace(chosen, rows=rows))
                for rows in settings.varied
                if replace(arm, rows=rows).name in seeds
            }
            for name, arm in {"as chosen": chosen, **variations()}.items()
        },
        "worth": {name: {**line(arm, few), **words(settings, arm)} for name, arm in worth(settings).items()},
    }


def words(settings: Settings, arm: Arm) -> dict[str, float]:
    """What an arm's rows cost people, mean over seeds: words typed, and words read to correct or to prefer."""
    typed, seen = [], []
    for seed in range(settings.seeds):
        rows = rows_of(seed_run(settings, seed), arm)
        corrected = arm.data in ("edits", "thorough")
        typed.append(statistics(rows).words_typed if corrected else 0)
        texts = [row.original if corrected else f"{row.chosen} {row.rejected}" for row in rows]
        seen.append(sum(len(text.split()) for text in texts))
    return {"typed": float(np.mean(typed)), "read": float(np.mean(seen))}


def tables(summary: Mapping[str, Any]) -> Iterator[str]:
    """The study, for people."""
    start = summary["start"]
    yield f"Start: {_interval(start['greedy_cost'])} words left greedily, {_interval(start['sampled_cost'])} sampled.\n"
    sizes = list(next(iter(summary["methods"].values())))
    for key, what in (("greedy_cost", "greedy"), ("sampled_cost", "sampled")):
        yield f"Edit cost left, words a response, {what}, by rows:\n"
        rows = [[name, *(_interval(found[n][key]) for n in sizes)] for name, found in summary["methods"].items()]
        yield from markdown(["method", *(f"{n} ({_seeds(summary['methods'], n)} seeds)" for n in sizes)], rows)
    yield "Greedy, less FIGA with as many rows; well-formed %:\n"
    rows = [
        [name, *(f"{_difference(found[n]['greedy_less'])}; {100 * found[n]['formed']:.0f}" for n in sizes)]
        for name, found in summary["methods"].items()
    ]
    yield from markdown(["method", *sizes], rows)
    sizes = list(summary["variations"]["as chosen"])
    head = ["one setting changed"]
    for n in sizes:
        by = f"{n} rows, {_seeds(summary['variations'], n)} seeds"
        head += [f"{by}: greedy cost", "less as chosen", "formed %", "sampled, less as chosen"]
    rows = []
    for name, found in summary["variations"].items():
        rows.append([name])
        for one in found.values():
            differences = [_difference(one[f"{decoding}_less"]) for decoding in ("greedy", "sampled")]
            rows[-1] += [f"{one['greedy_cost'][0]:.2f}", differences[0], f"{100 * one['formed']:.0f}", differences[1]]
        rows[-1] += [""] * (len(head) - len(rows[-1]))
    yield from markdown(head, rows)
    head = ["learned from", "words typed", "words read", "greedy cost", "of the start's gone %", "less the first row"]
    rows = [
        [
            name,
            f"{found['typed']:,.0f}",
            f"{found['read']:,.0f}",
            _interval(found["greedy_cost"]),
            "{:.0f} ({:.0f} to {:.0f})".format(*(100 * value for value in found["gone"])),
            _difference(found["greedy_less"]),
            _interval(found["sampled_cost"]),
        ]
        for name, found in summary["worth"].items()
    ]
    yield from markdown([*head, "sampled cost"], rows)


def _seeds(part: Mapping[str, Any], rows: str) -> int:
    return min(found[rows]["seeds"] for found in part.values() if rows in found)


def _ends(interval: Interval) -> list[float]:
    return [interval.mean, interval.low, interval.high]


def _interval(found: Sequence[float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*found)


def _difference(found: Sequence[float]) -> str:
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*found) if any(found) else "–"


if __name__ == "__main__":
    sys.exit(main())
