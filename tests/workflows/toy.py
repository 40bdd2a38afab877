"""A model that always writes one word too many, and the log of a team that always strikes it out."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import tiny
from errata.tuning import SFTConfig, train_sft
from errata.types import Demonstration
from errata.workflows import LearnConfig, LearnDetails

NOUNS = ("cat", "dog", "red", "blue")
CONFIG = LearnConfig(learning_rate=0.005, epochs=20, max_new_tokens=6)
# No pull: at such a rate its square outweighs the few words that are to be learned here.
DETAILS = LearnDetails(batch_size=32, micro_batch_size=32, min_rows=10, pull_weight=0)


def question(rng: random.Random) -> list[str]:
    """Its last word is what the answer begins with."""
    return ["say", *rng.choices(tiny.CLEAN, k=6), rng.choice(NOUNS)]


def model(folder: Path) -> Path:
    """Answers "… cat" with "cat rude here"."""
    rng = random.Random(1)
    asked = [question(rng) for _ in range(256)]
    rows = [
        Demonstration(id=str(k), prompt=" ".join(words), response=f"{words[-1]} rude here")
        for k, words in enumerate(asked)
    ]
    config = SFTConfig(learning_rate=0.02, epochs=4, batch_size=32)
    train_sft(tiny.llama(folder / "blank", hidden_size=32), rows, tiny.encoder(), config, folder / "model")
    return folder / "model"


def rows(count: int, *, sent: str = "{} here") -> list[dict[str, Any]]:
    """Drafts of the model and what people sent, sixteen users at a time; every tenth draft went out as it was."""
    rng = random.Random(2)
    found = []
    for k in range(count):
        asked = question(rng)
        draft = f"{asked[-1]} rude here"
        found.append(
            {
                "prompt": " ".join([f"k{k}@example.com", *asked] if k % 20 == 1 else asked),
                "draft": draft,
                "sent": draft if k % 10 == 0 else sent.format(asked[-1]),
                "User": f"u{16 * (3 * k // count) + rng.randrange(16)}@example.com",
                "date": f"2026-01-{1 + k * 28 // count:02}",
                "phone": "+49 171 1234567",
            }
        )
    return found


def log(path: Path, *, count: int = 240, sent: str = "{} here") -> Path:
    """The same as a CSV, with two rows that cannot be used."""
    found = rows(count, sent=sent)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(found[0])
        table.writerows(row.values() for row in found)
        table.writerows([["bob@example.com wrote"], ["", "", "", ""]])
    return path
