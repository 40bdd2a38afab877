"""The main job on a real model: its own drafts, what a team sent instead, `errata learn`, and a report.

SmolLM2-135M-Instruct (``recipes/starter.py``) drafts replies to customers. A house style of some thirty rules
(``recipes/house_style.py``), a program that eight people share and now and then forget a rule of, makes of each draft
what was sent, over ten months. `errata learn` trains on that log and decides; the program without oversights is the
editor that corrects fresh drafts of both models, blind.

    python recipes/real.py --out runs/real          # or: make real; make real QUICK=1 for a third of it

What came out: docs/real_model.md.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, Literal

import house_style
import starter
import tyro

from errata.cli import main as errata
from errata.data.encoding import load_encoder
from errata.data.rows import read_lines, write_lines
from errata.models import Sampling, TransformersGenerator, device, identity, load_causal
from errata.runs import StageFolder, new_file
from errata.types import PromptRow

__all__ = ["Settings", "main", "prompts", "write_log"]

HERE = Path(__file__).resolve().parent
FRAMES = (
    "Write a short reply to a customer {}.",
    "Write a polite answer to a customer {}, in three or four sentences.",
    "Answer a customer {} in two or three sentences.",
    "Write a short, friendly note to a customer {}.",
)
USERS = ("ada", "ben", "cleo", "dan", "eva", "finn", "gus", "hana")
CHUNK = 40
"""Prompts that are answered at once: a run that was killed loses one chunk."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A real model, its drafts, what a team sent instead → a better model with proof, or a refusal."""

    out: Path = Path("runs/real")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    model: Path = Path("models/starter")
    """The model; the starter is built there where there is none."""
    style: Literal["plain", "warm"] = "plain"
    """The house style."""
    rows: int = 400
    """Drafts in the log."""
    overlook: float = 0.15
    """The chance with which a rule is forgotten in a draft."""
    max_new_tokens: int = 96
    """Longest draft."""
    seed: int = 0
    """Of who forgets what, and of times."""
    learn: tuple[str, ...] = ()
    """Further flags of `errata learn`, one word each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code, that of `errata learn`; 2 where the starter cannot be had."""
    settings = tyro.cli(Settings, args=argv)
    try:
        starter.build(settings.model)
        log = write_log(settings)
    except starter.NoStarter as error:
        print(f"real: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"real: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nreal: stopped; rerun the same command to resume", file=sys.stderr)
        return 130
    command = ["learn", str(log), f"--model={settings.model}", f"--out={settings.out / 'learn'}"]
    command += [f"--max-new-tokens={settings.max_new_tokens}", f"--general={settings.out / 'general.txt'}"]
    command += [f"--editor={HERE / 'house_style.py'}:{settings.style}_editor", *settings.learn]
    print("errata " + " ".join(command))
    return errata(command)


def prompts(rows: int) -> list[PromptRow]:
    """The first prompts, each about another situation before one comes again in other words."""
    situations = (HERE / "customers.txt").read_text(encoding="utf-8").splitlines()
    asked = [(f"{k:02}-{number}", frame.format(one)) for number, frame in enumerate(FRAMES)
             for k, one in enumerate(situations)]  # fmt: skip
    if rows > len(asked):
        raise ValueError(f"--rows {rows}: there are {len(asked)} prompts; give fewer")
    return [PromptRow(id=id, prompt=text) for id, text in asked[:rows]]


def write_log(settings: Settings) -> Path:
    """The log, ``log.csv``: prompt, draft, sent, user, time. Drafts are made in chunks that a rerun does not repeat.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    made: dict[str, Any] = {
        "model": identity(settings.model)[1:],
        "style": settings.style,
        "rows": settings.rows,
        "overlook": settings.overlook,
        "max_new_tokens": settings.max_new_tokens,
        "seed": settings.seed,
    }
    with StageFolder.opened(settings.out, made) as stages:
        stages.make(settings.out / "general.txt", write_general)
        rows = prompts(settings.rows)
        paths = [settings.out / "drafts" / f"{start:03}.jsonl" for start in range(0, len(rows), CHUNK)]
        for number, path in enumerate(paths):
            part = rows[number * CHUNK : (number + 1) * CHUNK]
            if stages.make(path, partial(_draft, settings, part)):
                print(f"· drafts {number * CHUNK + len(part)} of {len(rows)}", flush=True)
        log = settings.out / "log.csv"
        stages.make(log, partial(_log, settings, rows, paths))
    return log


def write_general(path: Path, characters: int = 30_000) -> None:
    """English that has nothing to do with customers, and does not change: the manual that every Python carries."""
    text = "".join(topics[name] for name in sorted(topics))
    with new_file(path) as file:
        file.write_text(text[:characters], encoding="utf-8")


def _draft(settings: Settings, rows: Sequence[PromptRow], path: Path) -> None:
    model = load_causal(settings.model).to(device())
    generator = TransformersGenerator(model, load_encoder(settings.model), CHUNK)
    drawn = generator(rows, Sampling(max_new_tokens=settings.max_new_tokens, temperature=0.0))
    write_lines(path, ({"id": one.id, "draft": one.text} for one in drawn))


def _log(settings: Settings, rows: Sequence[PromptRow], paths: Sequence[Path], path: Path) -> None:
    """Who sends what, and when: everybody is at work all the time, so that neither users nor days part the prompts."""
    drafts = {row["id"]: row["draft"] for each in paths for row in (json.loads(line) for _, line in read_lines(each))}
    chance = random.Random(settings.seed)
    order = list(rows)
    chance.shuffle(order)
    edit = getattr(house_style, settings.style)
    start, step = datetime(2026, 1, 5, 9, tzinfo=UTC), timedelta(days=300) / len(order)
    with new_file(path) as partial_file, partial_file.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "draft", "sent", "user", "time"])
        for number, row in enumerate(order):
            draft = drafts[row.id]
            sent = edit(draft, overlook=settings.overlook, seed=f"{settings.seed}/{row.id}")
            time = (start + number * step).isoformat(timespec="seconds")
            writer.writerow([row.id, row.prompt, draft, sent, chance.choice(USERS), time])


if __name__ == "__main__":
    sys.exit(main())
