"""The main job on the embedded world, seed by seed, stage by stage.

A stage reads folders to its left and writes its own in one step, so a run that was stopped goes on at the first stage
that is not there. The rooms it calls receive rows and model folders, as they would of a real model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from errata.data import Encoder, new_file, read_corrections, read_preferences, read_prompts, write_rows
from errata.demo import measure
from errata.demo.editor import correct
from errata.demo.judge import judge, preference
from errata.demo.recipe import ARMS, DemoConfig, Recipe
from errata.demo.tokenizer import build_tokenizer
from errata.demo.world import DefectRates, make_prompts, write_response
from errata.edits import statistics
from errata.labels import label_all, read_labels, write_labels
from errata.models import Sampling, TransformersGenerator, load_causal, load_tokenizer, read_card, save_model
from errata.reward import load_scorer, train_sequence_reward, train_token_reward, train_token_reward_bradley_terry
from errata.tuning import demonstrations, dpo, figa, ppo, sft
from errata.types import Correction, Demonstration, Preference, Prompt, PromptRow, Rollout, TokenLabels
from errata.winrate import (
    Summary,
    combine_seeds,
    read_summary,
    report_html,
    report_terminal,
    summary_from_json,
    write_summary,
)

__all__ = ["run_demo"]


def run_demo(config: DemoConfig, console: Console | None = None) -> Summary:
    """Run the main job and write ``winrate/summary.json`` and ``report.html``; returns what they hold.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    console = console or Console()
    _claim(config)
    summaries = []
    for seed in range(config.seeds):
        folder = config.out / f"seed-{seed}"
        path = folder / "winrate" / "summary.json"
        if not path.exists():
            write_summary(path, _Seed(config, seed, folder, console).run())
        summaries.append(read_summary(path))
    summary = combine_seeds(summaries)
    write_summary(config.out / "winrate" / "summary.json", summary)
    with new_file(config.out / "report.html") as partial:
        partial.write_text(report_html(summary), encoding="utf-8")
    console.print(report_terminal(summary))
    console.print(f"\nReport: {config.out / 'report.html'}    numbers: {config.out / 'winrate' / 'summary.json'}")
    return summary


def _claim(config: DemoConfig) -> None:
    """Note the settings in the folder; a run with others must not go on from these stages."""
    # More seeds may be added to a run; each seed's own numbers stay what they are.
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "seeds")}
    path = config.out / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise ValueError(f"{config.out} holds a run with other settings; delete it or give another --out")
    with new_file(path) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n")


class _Seed:
    """One seed's run; every method that makes something first looks whether it is there."""

    def __init__(self, config: DemoConfig, seed: int, folder: Path, console: Console) -> None:
        self.config, self.seed, self.folder, self.console = config, seed, folder, console
        self.recipe = Recipe(seed=seed, config=config)
        self.number = 0
        self.drawn: dict[tuple[str, float], list[Rollout]] = {}

    def run(self) -> Summary:
        start = self.start_model()
        self.encoder = Encoder(load_tokenizer(start))
        preferences, edits, labels = self.preferences(), self.edits(), self.labels()
        self.train_rewards(preferences, edits, labels)
        self.train_policies(preferences, edits, labels)
        return self.summary()

    def stage(self, path: Path, make: Callable[[], object], what: str) -> Path:
        """Make ``path`` unless it is there, say what is going on, and note the seconds that it took."""
        self.number += 1
        head = f"[dim]seed {self.seed} · {self.number:2d}[/dim]  {path.relative_to(self.folder)!s:34}"
        if path.exists():
            self.console.print(f"{head} [dim]already there[/dim]")
            return path
        self.console.print(f"{head} {what}")
        started = time.perf_counter()
        make()
        assert path.exists(), f"stage {path} made nothing"
        seconds = {**self.seconds, str(path.relative_to(self.folder)): time.perf_counter() - started}
        with new_file(self.folder / "seconds.json") as partial:
            partial.write_text(json.dumps(seconds, indent=1))
        return path

    @property
    def seconds(self) -> dict[str, float]:
        path = self.folder / "seconds.json"
        times: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        return times

    def rng(self, purpose: str) -> Random:
        """A stream of chance for one purpose: stages do not disturb one another's numbers."""
        return Random(f"{self.seed} {purpose}")

    def generator(self, model: Path) -> TransformersGenerator:
        return TransformersGenerator(load_causal(model), self.encoder)

    def sampling(self, purpose: str, *, temperature: float = 1.0, samples: int = 1) -> Sampling:
        return Sampling(
            max_new_tokens=self.config.max_new_tokens,
            temperature=temperature,
            samples=samples,
            seed=self.rng(purpose).randrange(2**31),
        )

    def start_model(self) -> Path:
        """A tiny Llama trained from scratch on responses with defects: a mediocre policy."""
        path = self.folder / "data" / "start"

        def make() -> None:
            rng = self.rng("start")
            tokenizer = build_tokenizer()
            blank = self.folder / "data" / "blank"
            torch.manual_seed(rng.randrange(2**31))
            save_model(LlamaForCausalLM(_architecture(tokenizer)), tokenizer, blank)
            rows = [
                Demonstration(
                    id=row.id,
                    prompt=row.prompt,
                    response=write_response(row.prompt, rng, defect_rates=DefectRates()),
                )
                for row in make_prompts(self.config.start_responses, rng, prefix="start")
            ]
            sft(blank, rows, Encoder(tokenizer), self.recipe.start, path)

        return self.stage(path, make, f"a tiny Llama learns from {self.config.start_responses} flawed responses")

    @cached_property
    def prompt_sets(self) -> dict[str, list[PromptRow]]:
        """Training and held-out prompts, all distinct."""
        sizes = {"train": self.config.prompts, "heldout": self.config.heldout}
        paths = {name: self.folder / "data" / f"prompts_{name}.jsonl" for name in sizes}

        def make() -> None:
            rows = make_prompts(sum(sizes.values()), self.rng("prompts"))
            cut = sizes["train"]
            write_rows(paths["heldout"], rows[cut:])
            write_rows(paths["train"], rows[:cut])

        self.stage(paths["train"], make, f"{sizes['train']} prompts to train on, {sizes['heldout']} held out")
        return {name: read_prompts(path) for name, path in paths.items()}

    def preferences(self) -> list[Preference]:
        """Two samples for each prompt, and a noisy word on which is better."""
        path = self.folder / "data" / "preferences.jsonl"
        prompts = self.prompt_sets["train"]

        def make() -> None:
            rollouts = self.generator(self.folder / "data" / "start")(prompts, self.sampling("pairs", samples=2))
            write_rows(path, prefer(rollouts, self.rng("preferences")))

        return read_preferences(self.stage(path, make, f"{2 * len(prompts)} samples, {len(prompts)} noisy preferences"))

    def edits(self) -> list[Correction]:
        """The rejected responses, minimally corrected by an editor who overlooks about half of the defects."""
        path = self.folder / "edits" / "edits.jsonl"

        def make() -> None:
            rng = self.rng("edits")
            rows = read_preferences(self.folder / "data" / "preferences.jsonl")
            edits = [
                edit(row.id, row.prompt, row.rejected, row.rejected_ids, rng, self.config.diligence) for row in rows
            ]
            write_rows(path, edits)

        return read_corrections(self.stage(path, make, "the rejected responses, minimally corrected"))

    def labels(self, edits: str = "edits") -> list[TokenLabels]:
        """The edits as one label a token."""
        path = self.folder / "labels" / f"{edits}.jsonl"

        def make() -> None:
            rows = read_corrections(self.folder / "edits" / f"{edits}.jsonl")
            write_labels(path, label_all(rows, self.encoder), self.encoder)

        return read_labels(self.stage(path, make, "edits projected on tokens"), self.encoder)

    def train_rewards(
        self, preferences: Sequence[Preference], edits: Sequence[Correction], labels: Sequence[TokenLabels]
    ) -> None:
        """Sequence reward models on preferences and on edits, token-level ones by classes and by Eq 3."""
        start, folder, recipe, encoder = (
            self.folder / "data" / "start",
            self.folder / "reward",
            self.recipe,
            self.encoder,
        )
        for name, train in {
            "sequence_preference": lambda out: train_sequence_reward(start, preferences, encoder, recipe.reward, out),
            "sequence_edited": lambda out: train_sequence_reward(start, edits, encoder, recipe.reward, out),
            "token": lambda out: train_token_reward(start, labels, encoder, recipe.token_reward, out),
            "token_eq3": lambda out: train_token_reward_bradley_terry(start, labels, encoder, recipe.reward, out),
        }.items():
            self.stage(folder / name, lambda train=train, name=name: train(folder / name), "reward model")  # type: ignore[misc]

    def train_policies(
        self, preferences: Sequence[Preference], edits: Sequence[Correction], labels: Sequence[TokenLabels]
    ) -> None:
        """All arms but the start."""
        start, recipe, encoder = self.folder / "data" / "start", self.recipe, self.encoder
        arms: dict[str, Callable[[Path], Any]] = {
            "sft_edited": lambda out: sft(start, demonstrations(edits), encoder, recipe.sft, out),
            "dpo_preference": lambda out: dpo(start, preferences, encoder, recipe.dpo, out),
            "dpo_edited": lambda out: dpo(start, edits, encoder, recipe.dpo, out),
            "figa": lambda out: figa(start, labels, encoder, recipe.figa, out),
            "ppo_preference": lambda out: self.train_ppo(start, "sequence_preference", out),
            "ppo_edited": lambda out: self.train_ppo(start, "sequence_edited", out),
            "ppo_token": lambda out: self.train_ppo(start, "token", out),
            "figa_ppo_token": self.train_after_figa,
        }
        for name in ARMS[1:]:
            path = self.folder / "tuning" / name
            self.stage(path, lambda name=name, path=path: arms[name](path), "policy")  # type: ignore[misc]

    def train_ppo(self, model: Path, reward: str, out: Path) -> None:
        """PPO on a reward model; sequence-level ones pay at the end, so there the discount is 1."""
        start, prompts = load_causal(self.folder / "data" / "start"), self.prompt_sets
        evaluate = measure.during_training(
            prompts["heldout"][: self.config.curve_prompts],
            self.sampling("curve"),
            start=start,
            reward=load_scorer(self.folder / "reward" / reward, self.encoder),
            encoder=self.encoder,
        )
        config = self.recipe.ppo(discount=1.0 if reward.startswith("sequence") else 0.5)
        ppo(model, self.folder / "reward" / reward, prompts["train"], self.encoder, config, out, evaluate=evaluate)

    def train_after_figa(self, out: Path) -> None:
        """PPO from the FIGA model; its reward model is trained again, on that model's own samples, edited."""
        path, figa_model = self.folder / "edits" / "edits_figa.jsonl", self.folder / "tuning" / "figa"

        def sample_and_edit() -> None:
            rollouts = self.generator(figa_model)(self.prompt_sets["train"], self.sampling("figa"))
            rng = self.rng("edits figa")
            diligence = self.config.diligence
            write_rows(path, [edit(r.id, r.prompt, r.text, r.response_ids, rng, diligence) for r in rollouts])

        self.stage(path, sample_and_edit, "samples of the FIGA model, minimally corrected")
        labels, reward = self.labels("edits_figa"), self.folder / "reward" / "token_figa"
        self.stage(
            reward,
            lambda: train_token_reward(figa_model, labels, self.encoder, self.recipe.token_reward, reward),
            "reward model",
        )
        self.train_ppo(figa_model, "token_figa", out)

    def model(self, arm: str) -> Path:
        return self.folder / ("data/start" if arm == "start" else f"tuning/{arm}")

    def outsider(self) -> dict[str, str]:
        """Frozen responses of somebody else, about as good as the better arms."""
        rng = self.rng("outsider")
        rates = DefectRates().scaled(OUTSIDER)
        return {row.id: write_response(row.prompt, rng, defect_rates=rates) for row in self.prompt_sets["heldout"]}

    def rollouts(self, arm: str, temperature: float) -> list[Rollout]:
        """Responses to the held-out prompts; every arm draws with the same seed."""
        if (arm, temperature) not in self.drawn:
            sampling = self.sampling("heldout", temperature=temperature)
            self.drawn[arm, temperature] = self.generator(self.model(arm))(self.prompt_sets["heldout"], sampling)
        return self.drawn[arm, temperature]

    def measure_arm(self, arm: str, temperatures: Mapping[str, float], against: Mapping[str, float]) -> Any:
        """One way of decoding after the other, each against the start decoded as ``against`` says."""
        model, start = load_causal(self.model(arm)), load_causal(self.model("start"))
        found = {
            name: measure.decoded(
                self.rollouts(arm, temperature),
                against=self.rollouts("start", against[name]),
                outsider=self.outsider(),
                model=model,
                start=start,
                encoder=self.encoder,
            )
            for name, temperature in temperatures.items()
        }
        return found

    def measured(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON file of one measurement, made if it is not there."""
        path = self.folder / "winrate" / f"{name}.json"

        def write() -> None:
            found = make()
            with new_file(path) as partial:
                partial.write_text(json.dumps(found, indent=1, allow_nan=False))

        return json.loads(self.stage(path, write, "measured on held-out prompts").read_text())

    def summary(self) -> Summary:
        """Measure everything on the held-out prompts."""
        decodings = {"sampled": 1.0, "greedy": 0.0}
        arms = [
            {
                "name": arm,
                "seconds": self.training_seconds(arm),
                **self.measured(arm, lambda arm=arm: self.measure_arm(arm, decodings, decodings)),  # type: ignore[misc]
            }
            for arm in ARMS
        ]
        controls = [
            {
                "name": f"start at T={temperature}",
                "temperature": temperature,
                **self.measured(
                    f"start_T{temperature}",
                    lambda t=temperature: self.measure_arm("start", {"sampled": t}, {"sampled": 1.0}),  # type: ignore[misc]
                ),
            }
            for temperature in CONTROLS
        ]
        return summary_from_json(
            {
                "seeds": [self.seed],
                "arms": arms,
                "controls": controls,
                "reward_models": self.measured("reward_models", self.measure_rewards),
                "curves": [self.curve(arm) for arm in ARMS if "ppo" in arm],
                "data": self.data(),
                "examples": self.measured("examples", self.examples),
            }
        )

    def measure_rewards(self) -> list[dict[str, Any]]:
        """All reward models on eight samples of the start for each of some held-out prompts."""
        prompts = self.prompt_sets["heldout"][: self.config.curve_prompts]
        flat = self.generator(self.model("start"))(prompts, self.sampling("best of 8", samples=8))
        groups = [flat[first : first + 8] for first in range(0, len(flat), 8)]
        rows = []
        for name in ("sequence_preference", "sequence_edited", "token", "token_eq3"):
            card = read_card(self.folder / "reward" / name)
            found = measure.reward_model(
                load_scorer(self.folder / "reward" / name, self.encoder),
                groups,
                self.encoder,
                self.rng("rewards"),
                diligence=self.config.diligence,
                localises=card["kind"] == "token",
            )
            rows.append({"name": name, "kind": card["kind"], "objective": card["objective"], **found})
        return rows

    def curve(self, arm: str) -> dict[str, Any]:
        """The evaluations during one PPO run."""
        lines = (self.model(arm) / "metrics.jsonl").read_text().splitlines()
        return {
            "arm": arm,
            "points": [
                {
                    "step": row["step"],
                    "seconds": row["seconds"],
                    "kl": row["heldout_kl"],
                    **{key: row[key] for key in ("proxy_reward", "mean_defects", "win_rate")},
                }
                for row in map(json.loads, lines)
                if "win_rate" in row
            ],
        }

    def training_seconds(self, arm: str) -> float:
        """What an arm cost to train: its policy and its reward models, without evaluation."""
        seconds, needs = self.seconds, ARM_NEEDS.get(arm, ())
        own = read_card(self.model(arm)).get("seconds", seconds.get(f"tuning/{arm}", 0.0)) if arm != "start" else 0.0
        return float(own) + sum(seconds.get(stage, 0.0) for stage in needs)

    def data(self) -> dict[str, float]:
        """What went in: counts, and the words that the editor typed."""
        edits = statistics(read_corrections(self.folder / "edits" / "edits.jsonl"))
        again = statistics(read_corrections(self.folder / "edits" / "edits_figa.jsonl"))
        return {
            "prompts": len(self.prompt_sets["train"]),
            "rejected": edits.rows,
            "unchanged": edits.unchanged,
            "words_typed": edits.words_typed,
            "words_deleted": edits.words_deleted,
            "mean_edit_ratio": edits.mean_edit_ratio,
            "words_typed_for_figa_ppo_token": again.words_typed,
            "heldout_prompts": len(self.prompt_sets["heldout"]),
        }

    def examples(self) -> list[dict[str, Any]]:
        """A few sampled responses before and after fine-grained PPO, coloured by the token reward."""
        before, after = self.rollouts("start", 1.0), self.rollouts("ppo_token", 1.0)
        flawed = [k for k, row in enumerate(before) if judge(row.prompt, row.text).count >= 2][:4]
        reward = load_scorer(self.folder / "reward" / "token", self.encoder)
        return measure.examples(
            [before[k] for k in flawed], [after[k] for k in flawed], reward, self.encoder, name="ppo_token"
        )


OUTSIDER = 0.35
CONTROLS = (0.7, 0.5, 0.3)
ARM_NEEDS = {
    "ppo_preference": ("reward/sequence_preference",),
    "ppo_edited": ("reward/sequence_edited",),
    "ppo_token": ("reward/token",),
    "figa_ppo_token": ("tuning/figa", "edits/edits_figa.jsonl", "reward/token_figa"),
}
"""The stages before its own that an arm's training time includes."""


def prefer(rollouts: Sequence[Rollout], rng: Random) -> list[Preference]:
    """Neighbouring rollouts as preferences with noise; the ids that were sampled are kept."""
    rows = []
    for a, b in zip(rollouts[::2], rollouts[1::2], strict=True):
        better, worse = (a, b) if preference(a.prompt, a.text, b.text, rng) else (b, a)
        rows.append(
            Preference(
                id=a.id,
                prompt=a.prompt,
                chosen=better.text,
                rejected=worse.text,
                chosen_ids=better.response_ids,
                rejected_ids=worse.response_ids,
            )
        )
    return rows


def edit(id: str, prompt: Prompt, text: str, ids: tuple[int, ...] | None, rng: Random, diligence: float) -> Correction:
    """One response and its minimal correction."""
    edited = correct(prompt, text, rng, diligence=diligence)
    return Correction(id=id, prompt=prompt, original=text, edited=edited, original_ids=ids)


def _architecture(tokenizer: Any) -> LlamaConfig:
    """About 190,000 parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
