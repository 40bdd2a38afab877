"""The small search behind the demo's settings: the same few tries for every arm, on a world of its own.

    python recipes/demo_search.py --out runs/search [--only figa]

Everything is drawn from a seed that no reported run uses. Rerun it and only missing tries are made.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from errata.data import read_preferences
from errata.demo import measure
from errata.demo.editor import edit_cost
from errata.demo.judge import judge
from errata.demo.recipe import DemoConfig
from errata.demo.stages import REWARDS, SeedRun
from errata.models import TransformersGenerator, load_causal
from errata.reward import load_scorer, train_sequence_reward, train_token_reward
from errata.runs import read_json, write_json
from errata.runs.schedule import Stage, run_stages
from errata.tuning import demonstrations, train_dpo, train_figa, train_ppo, train_sft

SEARCH_SEED = 100

Tries = Mapping[str, Mapping[str, Any]]

SFT: Tries = {f"lr={lr}": {"learning_rate": lr} for lr in (3e-4, 1e-3, 2e-3)}
FIGA: Tries = {
    **{f"lr={lr}": {"learning_rate": lr} for lr in (3e-4, 1e-3, 2e-3)},
    "lr=0.001 kept=.2": {"learning_rate": 1e-3, "kept_weight": 0.2},
    "lr=0.001 gate=4": {"learning_rate": 1e-3, "gate": 4.0},
    "paper lr=0.0003": {"learning_rate": 3e-4, "kept_weight": 0.0, "bad_weight": 0.5},
    "paper lr=0.001": {"learning_rate": 1e-3, "kept_weight": 0.0, "bad_weight": 0.5},
}
DPO: Tries = {
    **{f"lr={lr} beta=.3": {"learning_rate": lr, "beta": 0.3} for lr in (3e-5, 1e-4, 3e-4)},
    "lr=0.0001 beta=.1": {"learning_rate": 1e-4, "beta": 0.1},
}
REWARD: Tries = {f"lr={lr}": {"learning_rate": lr} for lr in (1e-3, 3e-3)}
TOKEN_REWARD: Tries = {**REWARD, "lr=0.001 no sequence term": {"learning_rate": 1e-3, "sequence_coefficient": 0.0}}
PPO: Tries = {
    **{f"lr={lr}": {"learning_rate": lr, "kl_coefficient": 0.1} for lr in (1e-4, 2e-4, 5e-4)},
    "lr=0.0002 kl=.2": {"learning_rate": 2e-4, "kl_coefficient": 0.2},
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to try."""

    out: Path = Path("runs/search")
    """Folder of the tries."""
    only: str = ""
    """Only tries whose name holds this text."""


def main(search: Search) -> None:
    """Make the tries and print a table of them."""
    console = Console(width=150)
    run = SeedRun(DemoConfig(out=search.out), SEARCH_SEED)
    tries = {
        "start": partial(_start_again, run),
        **{f"sft_edited {name}": partial(_sft, run, values) for name, values in SFT.items()},
        **{f"figa {name}": partial(_figa, run, values) for name, values in FIGA.items()},
        **{f"dpo_preference {name}": partial(_dpo, run, values, "preference") for name, values in DPO.items()},
        **{f"dpo_edited {name}": partial(_dpo, run, values, "edited") for name, values in DPO.items()},
        **{f"reward token {name}": partial(_token_reward, run, values) for name, values in TOKEN_REWARD.items()},
        **{f"reward sequence_preference {n}": partial(_reward, run, v, "preference") for n, v in REWARD.items()},
        **{f"reward sequence_edited {n}": partial(_reward, run, v, "edited") for n, v in REWARD.items()},
        **{f"ppo_token {name}": partial(_ppo, run, values, "token") for name, values in PPO.items()},
        **{f"ppo_edited {n}": partial(_ppo, run, v, "sequence_edited") for n, v in PPO.items()},
        **{f"ppo_preference {n}": partial(_ppo, run, v, "sequence_preference") for n, v in PPO.items()},
    }
    kept = {name: make for name, make in tries.items() if search.only in name}
    base = run.stages_for("data/heldout.jsonl", *(f"reward/{reward}" for reward in REWARDS))
    stages = [_measured(run, name, make, tuple(s.path for s in base)) for name, make in kept.items()]
    run_stages([*base, *stages], out=search.out, settings={"seed": SEARCH_SEED}, workers=2, console=console)
    table = Table("try", "sampled: defects", "cost", "formed", "greedy: defects", "cost", "reward model")
    for stage in stages:
        found = read_json(stage.path)
        table.add_row(stage.path.stem, *(found.get(key, "") for key in table_keys()))
    console.print(table)


def table_keys() -> list[str]:
    """The columns of the table after the first."""
    return ["sampled_defects", "sampled_cost", "sampled_formed", "greedy_defects", "greedy_cost", "reward"]


def _measured(run: SeedRun, name: str, make: Callable[[Path], Any], needs: tuple[Path, ...]) -> Stage:
    return Stage(run.folder / "tries" / f"{name}.json", needs, name, partial(_make_and_measure, run, make))


def _make_and_measure(run: SeedRun, make: Callable[[Path], Any], path: Path) -> None:
    folder = path.with_suffix("")
    make(folder)
    if path.stem.startswith("reward"):
        write_json(path, {"reward": _measure_reward(run, folder)})
        return
    found: dict[str, str] = {}
    generator = TransformersGenerator(load_causal(folder), run.encoder)
    for name, temperature in (("sampled", 1.0), ("greedy", 0.0)):
        rows = generator(run.prompts("heldout"), run.sampling("heldout", temperature=temperature))
        found[f"{name}_defects"] = f"{np.mean([judge(r.prompt, r.text).count for r in rows]):.2f}"
        found[f"{name}_cost"] = f"{np.mean([edit_cost(r.prompt, r.text) for r in rows]):.2f}"
        found[f"{name}_formed"] = f"{np.mean([judge(r.prompt, r.text).well_formed for r in rows]):.2f}"
    write_json(path, found)


def _measure_reward(run: SeedRun, folder: Path) -> str:
    prompts = run.prompts("heldout")[:200]
    flat = run.sample("start", prompts, "best of 8", samples=8)
    groups = [flat[k : k + 8] for k in range(0, len(flat), 8)]
    found = measure.reward_model(
        load_scorer(folder, run.encoder),
        groups,
        run.encoder,
        run.rng("rewards"),
        diligence=0.5,
        localises="token" in folder.name,
    )
    auc = found["auc_bad_kept"]
    return (
        f"prefs {found['preference_accuracy']:.3f} edits {found['edit_accuracy']:.3f} "
        f"AUC {auc if auc is None else round(auc, 3)} best-of-8 defects {found['best_of_8']['mean_defects']:.2f}"
    )


def _start(run: SeedRun) -> Path:
    return run.folder / "data" / "start"


def _start_again(run: SeedRun, out: Path) -> None:
    shutil.copytree(_start(run), out, dirs_exist_ok=True)


def _sft(run: SeedRun, values: Mapping[str, Any], out: Path) -> None:
    train_sft(_start(run), demonstrations(run.edits()), run.encoder, replace(run.recipe.sft, **values), out)


def _figa(run: SeedRun, values: Mapping[str, Any], out: Path) -> None:
    train_figa(_start(run), run.labels(), run.encoder, replace(run.recipe.figa, **values), out)


def _dpo(run: SeedRun, values: Mapping[str, Any], data: str, out: Path) -> None:
    rows = (
        run.edits()
        if data == "edited"
        else read_preferences(run.folder / "data" / "preferences.jsonl", empty_texts="keep")
    )
    train_dpo(_start(run), rows, run.encoder, replace(run.recipe.comparisons("dpo_edited"), **values), out)


def _reward(run: SeedRun, values: Mapping[str, Any], data: str, out: Path) -> None:
    rows = (
        run.edits()
        if data == "edited"
        else read_preferences(run.folder / "data" / "preferences.jsonl", empty_texts="keep")
    )
    train_sequence_reward(_start(run), rows, run.encoder, replace(run.recipe.reward, **values), out)


def _token_reward(run: SeedRun, values: Mapping[str, Any], out: Path) -> None:
    train_token_reward(_start(run), run.labels(), run.encoder, replace(run.recipe.token_reward, **values), out)


def _ppo(run: SeedRun, values: Mapping[str, Any], reward: str, out: Path) -> None:
    config = replace(run.recipe.ppo("ppo_token" if reward == "token" else "ppo_edited"), **values, evaluate_every=0)
    train_ppo(_start(run), run.folder / "reward" / reward, run.prompts("prompts"), run.encoder, config, out)


if __name__ == "__main__":
    main(tyro.cli(Search))
