"""A model that always writes one word too many, and the log of a team that always strikes it out."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import tiny
from errata.tuning import SFTConfig, sft
from errata.types import Demonstration

NOUNS = ("cat", "dog", "red", "blue")
FAST = ["--learning-rate=0.02", "--epochs=6", "--batch-size=16", "--max-new-tokens=8", "--min-rows=10"]


def question(rng: random.Random) -> list[str]:
    """Its last word is what the answer begins with."""
    return ["say", *rng.choices(tiny.CLEAN, k=6), rng.choice(NOUNS)]


def model(folder: Path) -> Path:
    """Answers "… cat" with "cat rude here"."""
    rng = random.Random(1)
    rows = []
    for k in range(256):
        asked = question(rng)
        rows.append(Demonstration(id=str(k), prompt=" ".join(asked), response=f"{asked[-1]} rude here"))
    config = SFTConfig(learning_rate=0.02, epochs=4, batch_size=32)
    sft(tiny.llama(folder / "blank", hidden_size=32), rows, tiny.encoder(), config, folder / "model")
    return folder / "model"


def log(path: Path, *, rows: int = 240, users: int = 12, sent: str = "{} here") -> Path:
    """Drafts of the model, and what people sent; every tenth as it was, one of them with an address."""
    rng = random.Random(2)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["prompt", "draft", "sent", "user", "date", "team"])
        for k in range(rows):
            asked = question(rng)
            draft = f"{asked[-1]} rude here"
            right = draft if k % 10 == 0 else sent.format(asked[-1])
            user = f"{rng.choice('abc')}{rng.randrange(users // 3)}@example.com"
            table.writerow([" ".join(asked), draft, right, user, f"2026-01-{1 + k * 28 // rows:02}", "north"])
    return path
