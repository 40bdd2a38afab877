"""What the stages of a seed read and draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from errata.data import Encoder, read_corrections, read_prompts
from errata.data.rows import read_lines
from errata.demo.recipe import DemoConfig, Recipe
from errata.labels import read_labels
from errata.models import Sampling, TransformersGenerator, load_causal, load_tokenizer
from errata.types import Correction, PromptRow, Rollout, TokenLabels

__all__ = ["SeedFolder"]


@dataclass(frozen=True)
class SeedFolder:
    """The folder of one seed: what lies in it, and how its arms are asked."""

    config: DemoConfig
    seed: int

    @property
    def folder(self) -> Path:
        """Where the stages of this seed lie, in the rooms' own names."""
        return self.config.out / f"seed-{self.seed}"

    @cached_property
    def encoder(self) -> Encoder:
        """Of every model of this seed."""
        return Encoder(load_tokenizer(self.folder / "data" / "start"))

    @property
    def recipe(self) -> Recipe:
        """The settings of every stage."""
        return Recipe(seed=self.seed, config=self.config)

    def rng(self, purpose: str) -> Random:
        """A stream of chance for one purpose."""
        return Random(f"{self.seed} {purpose}")

    def model_path(self, arm: str) -> str:
        """Where an arm's policy lies."""
        return "data/start" if arm == "start" else f"tuning/{arm}"

    def prompts(self, name: str) -> list[PromptRow]:
        """``prompts`` to train on, or ``heldout``."""
        return read_prompts(self.folder / "data" / f"{name}.jsonl", empty_texts="keep")

    def edits(self, name: str = "start") -> list[Correction]:
        """Corrections of one model's samples."""
        return read_corrections(self.folder / "edits" / f"{name}.jsonl", empty_texts="keep")

    def labels(self, name: str = "start") -> list[TokenLabels]:
        """The same as labels on tokens."""
        return read_labels(self.folder / "labels" / f"{name}.jsonl", self.encoder)

    def sample(
        self, arm: str, prompts: Sequence[PromptRow], purpose: str, *, temperature: float = 1.0, samples: int = 1
    ) -> list[Rollout]:
        """Responses of an arm's policy; every arm draws with the same seed for the same purpose."""
        generator = TransformersGenerator(load_causal(self.folder / self.model_path(arm)), self.encoder)
        return generator(prompts, self.sampling(purpose, temperature=temperature, samples=samples))

    def sampling(self, purpose: str, *, temperature: float = 1.0, samples: int = 1) -> Sampling:
        """How an arm is asked for responses."""
        return Sampling(
            max_new_tokens=self.config.max_new_tokens,
            temperature=temperature,
            samples=samples,
            seed=self.rng(purpose).randrange(2**31),
        )

    def responses(self, arm: str, decoding: str) -> list[Rollout]:
        """What ``respond`` wrote."""
        rows = (json.loads(line) for _, line in read_lines(self.folder / "winrate" / "responses" / f"{arm}.jsonl"))
        return [
            Rollout(
                id=row["id"],
                prompt=row["prompt"],
                prompt_ids=self.encoder.prompt_ids(row["prompt"]),
                response_ids=tuple(row["ids"]),
                text=row["response"],
                ended=row["ids"][-1:] == [self.encoder.end_id],
            )
            for row in rows
            if row["decoding"] == decoding
        ]
