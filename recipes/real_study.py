"""Which settings of FIGA on a real model? One at a time, on the log of `make real`; SFT and DPO beside it.

    python recipes/real_study.py --out runs/real_study                  # what docs/real_model.md has; hours
    python recipes/real_study.py --out runs/real_study --only sft dpo   # some of it

Rerun it and only what is missing is made. What is measured, of rows that nothing was trained on: edit points and words
written otherwise, along what was sent; of fresh greedy drafts the words that an editor without oversights still
changes, repetition, and ends; the loss on a general text. What came out: docs/real_model.md.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import house_style
import numpy as np
import real
import starter
import tyro

from errata.data import read_corrections
from errata.data.encoding import load_encoder
from errata.edits import word_distance
from errata.labels import label_all
from errata.models import Sampling, TransformersGenerator, load_causal
from errata.runs import StageFolder, read_json, write_json
from errata.tuning import DPOConfig, FIGAConfig, SFTConfig, demonstrations, train_dpo, train_figa, train_sft
from errata.types import Correction, PromptRow
from errata.workflows.edit_points import choices_at, edit_points, figures_of
from errata.workflows.measure import repetition, text_loss

__all__ = ["ARMS", "Settings", "main"]

COMMON: Mapping[str, Any] = {"lora_rank": 16, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 2e-4}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "figa": {"pull_weight": 1.0, "epochs": 2},
    "figa upper": {"pull_weight": 1.0, "epochs": 2, "lora_layers": 10},
    "figa upper free": {"pull_weight": 0.0, "epochs": 2, "lora_layers": 10},
    "figa upper kept 1": {"pull_weight": 1.0, "epochs": 2, "lora_layers": 10, "kept_weight": 1.0, "bad_weight": 0.1},
    "figa upper kept 0": {
        **{"pull_weight": 1.0, "epochs": 3, "lora_layers": 10, "kept_weight": 0.0},
        "learning_rate": 1e-4,
    },
    "sft": {"epochs": 2},
    "dpo": {"epochs": 2, "learning_rate": 5e-5},
}
"""The first word is the method, the rest names what is otherwise."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """FIGA's settings on a real model, one at a time."""

    out: Path = Path("runs/real_study")
    """Folder of the study; rerun the same command to resume."""
    model: Path = Path("models/starter")
    """The model; the starter is built there where there is none."""
    only: tuple[str, ...] = ()
    """Which arms; all of them where none is named."""
    rows: int = 200
    """Rows that are trained on."""
    judged: int = 60
    """Rows that are looked at."""
    drafts: int = 40
    """Of these, prompts that are drafted anew."""
    max_new_tokens: int = 96
    """Longest draft."""
    seed: int = 100
    """Of which rows and of what the editor forgets; no reported run uses it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code, 2 where the starter cannot be had."""
    settings = tyro.cli(Settings, args=argv)
    if unknown := set(settings.only) - set(ARMS):
        print(f"real_study: no such arm: {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}", file=sys.stderr)
        return 2
    try:
        starter.build(settings.model)
        for line in run(settings):
            print(line, flush=True)
    except starter.NoStarter as error:
        print(f"real_study: {error}", file=sys.stderr)
        return 2
    return 0


def run(settings: Settings) -> Iterator[str]:
    """A line for the start and each arm: what was measured."""
    rows = settings.rows + settings.judged
    made = real.Settings(
        out=settings.out / "log",
        model=settings.model,
        rows=rows,
        seed=settings.seed,
        max_new_tokens=settings.max_new_tokens,
    )
    log = read_corrections(real.write_log(made))
    random.Random(settings.seed).shuffle(log)
    train, judged = ([row for row in part if row.original != row.edited]
                     for part in (log[: settings.rows], log[settings.rows :]))  # fmt: skip
    kept = {"rows": rows, "judged": settings.judged, "drafts": settings.drafts, "seed": settings.seed}
    with StageFolder.opened(settings.out / "arms", {**kept, "model": read_json(made.out / "settings.json")}) as stages:
        for arm in ("start", *(settings.only or ARMS)):
            folder = settings.model
            if arm != "start":
                folder = settings.out / "models" / arm.replace(" ", "_")
                train_arm(arm, settings.model, train, folder)
            file = settings.out / "arms" / f"{arm.replace(' ', '_')}.json"
            stages.make(file, partial(_measure, settings, folder, judged))
            yield f"{arm}: {read_json(file)}"


def train_arm(arm: str, model: Path, rows: Sequence[Correction], out: Path) -> None:
    """By the method that the arm's first word names."""
    encoder, values = load_encoder(model), {**COMMON, **ARMS[arm]}
    method = arm.split()[0]
    if method == "figa":
        train_figa(model, label_all(rows, encoder), encoder, FIGAConfig(**values), out)
    elif method == "sft":
        train_sft(model, demonstrations(rows), encoder, SFTConfig(**values), out)
    else:
        train_dpo(model, rows, encoder, DPOConfig(**values), out)


def _measure(settings: Settings, folder: Path, rows: Sequence[Correction], path: Path) -> None:
    model, encoder = load_causal(folder).eval(), load_encoder(settings.model)
    found = figures_of(choices_at(model, [edit_points(row, encoder) for row in rows], encoder))
    prompts = [PromptRow(id=row.id, prompt=row.prompt) for row in rows[: settings.drafts]]
    sampling = Sampling(max_new_tokens=settings.max_new_tokens, temperature=0.0)
    texts = TransformersGenerator(model, encoder, settings.drafts)(prompts, sampling)
    general, _ = text_loss(model, settings.out / "log" / "general.txt", encoder, max_tokens=6000, batch_size=2)
    drafts = [one.text for one in texts]
    figures = {
        "written": found.written,
        "missed": found.missed,
        "otherwise": found.otherwise_share,
        "diligent": float(np.mean([word_distance(text, house_style.plain(text)) for text in drafts])),
        "words": float(np.mean([len(text.split()) for text in drafts])),
        "repeated": float(np.mean([repetition(text) for text in drafts])),
        "ended": sum(one.ended for one in texts),
        "general": general,
    }
    write_json(path, {name: value and round(value, 4) for name, value in figures.items()})


if __name__ == "__main__":
    sys.exit(main())
