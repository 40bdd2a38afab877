"""The stages of one seed's run: which file or folder is made of which, and how. Read ``stages`` first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import LlamaConfig

from errata.data import Encoder, read_corrections, read_preferences, read_prompts, write_rows
from errata.data.rows import read_lines, write_lines
from errata.demo import measure
from errata.demo.editor import correct
from errata.demo.judge import judge, preference
from errata.demo.recipe import ARMS, CONTROLS, HABIT_RATE, OUTSIDER, START_DEFECTS, DemoConfig, Recipe
from errata.demo.tokenizer import build_tokenizer
from errata.demo.world import make_prompts, write_response
from errata.edits import statistics
from errata.labels import label_all, read_labels, write_labels
from errata.models import Sampling, TransformersGenerator, load_causal, load_tokenizer, read_card, save_model
from errata.reward import load_scorer, train_sequence_reward, train_token_reward, train_token_reward_bradley_terry
from errata.runs import read_json, write_json
from errata.runs.schedule import Stage
from errata.tuning import Stream, demonstrations, train_dpo, train_figa, train_ppo, train_sft
from errata.types import Correction, Demonstration, Preference, Prompt, PromptRow, Rollout, TokenLabels
from errata.winrate import Summary, summary_from_json

__all__ = ["DECODINGS", "REWARDS", "SeedRun"]

DECODINGS = {"sampled": 1.0, "greedy": 0.0}
REWARDS = ("sequence_preference", "sequence_edited", "token", "token_eq3")
ARM_NEEDS = {
    "ppo_preference": ("reward/sequence_preference",),
    "ppo_edited": ("reward/sequence_edited",),
    "ppo_token": ("reward/token",),
    "ppo_penalties": ("reward/token", "reward/sequence_edited"),
    "figa_ppo_token": ("tuning/figa", "edits/figa.jsonl", "reward/token_figa"),
}
"""The stages before its own that an arm's training time includes; a second reward is paid at the end."""


@dataclass(frozen=True)
class SeedRun:
    """One seed's folder. Every stage draws from a stream of chance of its own, so none disturbs another's numbers."""

    config: DemoConfig
    seed: int

    @property
    def folder(self) -> Path:
        """Where the stages of this seed lie, in the rooms' own names."""
        return self.config.out / f"seed-{self.seed}"

    def stages(self) -> list[Stage]:
        """The whole road, in an order that lets the longest ways start first."""
        start, prompts, heldout = "data/start", "data/prompts.jsonl", "data/heldout.jsonl"
        config = self.config
        rows = [
            self.stage(start, (), f"the start learns from {config.start_responses} flawed responses", self.make_start),
            self.stage(prompts, (), f"{config.prompts} prompts to train on", self.make_prompts),
            self.stage(heldout, (), f"{config.heldout} prompts held out", self.make_prompts),
            self.stage("data/preferences.jsonl", (start, prompts), "pairs of samples, a noisy choice", self.prefer),
            self.stage("edits/start.jsonl", ("data/preferences.jsonl",), "the rejected, corrected", self.edit_rejected),
            self.stage("labels/start.jsonl", ("edits/start.jsonl",), "labels on tokens", self.label),
            self.stage("tuning/figa", ("labels/start.jsonl",), "figa", self.tune),
        ]
        rows += [
            self.stage(f"reward/{reward}", ("labels/start.jsonl",), f"reward model {reward}", self.reward)
            for reward in REWARDS
        ]
        rows += [
            self.stage("edits/figa.jsonl", ("tuning/figa", prompts), "samples of figa, corrected", self.edit_figa),
            self.stage("labels/figa.jsonl", ("edits/figa.jsonl",), "labels on tokens", self.label),
            self.stage("reward/token_figa", ("labels/figa.jsonl",), "reward model token_figa", self.reward),
        ]
        for arm in sorted(ARMS[1:], key=lambda arm: "ppo" not in arm):
            if arm != "figa":
                needs = (*ARM_NEEDS.get(arm, ()), "labels/start.jsonl", heldout)
                rows.append(self.stage(f"tuning/{arm}", needs, arm, self.tune))
        for arm in ARMS:
            needs = (self.model_path(arm), heldout)
            rows.append(self.stage(f"winrate/responses/{arm}.jsonl", needs, f"{arm} answers", self.respond))
        for arm in ARMS:
            needs = (f"winrate/responses/{arm}.jsonl", "winrate/responses/start.jsonl")
            rows.append(self.stage(f"winrate/{arm}.json", needs, f"{arm} is judged", self.judge_arm))
        rows.append(
            self.stage("winrate/controls.json", needs[1:], "the start at lower temperatures", self.judge_controls)
        )
        needs = (*(f"reward/{reward}" for reward in REWARDS), heldout)
        rows.append(self.stage("winrate/reward_models.json", needs, "reward models are judged", self.judge_rewards))
        return rows

    def stages_for(self, *paths: str) -> list[Stage]:
        """Those of all stages that make these paths, and what they are made of."""
        wanted = {self.folder / path for path in paths}
        stages = self.stages()
        for stage in reversed(stages):  # none comes before its needs
            if stage.path in wanted:
                wanted.update(stage.needs)
        return [stage for stage in stages if stage.path in wanted]

    def stage(self, path: str, needs: Sequence[str], what: str, make: Callable[[Path], object]) -> Stage:
        """A stage of this seed."""
        where = f"[{self.seed}] " if self.config.seeds > 1 else ""
        return Stage(self.folder / path, tuple(self.folder / need for need in needs), f"{where}{what}", make)

    # What several stages need.

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

    # The stages.

    def make_start(self, path: Path) -> None:
        """A tiny Llama, from scratch, on responses with defects: a mediocre policy."""
        from transformers import LlamaForCausalLM  # seconds to import, and not for --help

        rng = self.rng("start")
        tokenizer = build_tokenizer()
        torch.manual_seed(rng.randrange(2**31))
        blank = path.with_name("blank")
        save_model(LlamaForCausalLM(_architecture(tokenizer)), tokenizer, blank, card={"fingerprint": f"{self.seed}"})
        rows = [
            Demonstration(
                id=row.id,
                prompt=row.prompt,
                response=write_response(row.prompt, rng, defect_rates=START_DEFECTS, habit_rate=HABIT_RATE),
            )
            for row in make_prompts(self.config.start_responses, rng, prefix="start")
        ]
        train_sft(blank, rows, Encoder(tokenizer), self.recipe.start, path)

    def make_prompts(self, path: Path) -> None:
        """Training and held-out prompts are drawn together, so that all are distinct."""
        rows = make_prompts(self.config.prompts + self.config.heldout, self.rng("prompts"))
        cut = self.config.prompts
        write_rows(path, rows[:cut] if path.stem == "prompts" else rows[cut:])

    def prefer(self, path: Path) -> None:
        """Two samples of the start for each prompt, and a noisy word on which is better."""
        rollouts = self.sample("start", self.prompts("prompts"), "pairs", samples=2)
        write_rows(path, as_preferences(rollouts, self.rng("preferences")))

    def edit_rejected(self, path: Path) -> None:
        """The rejected responses, minimally corrected by an editor who overlooks about half of the defects."""
        rng = self.rng("edits")
        rows = read_preferences(self.folder / "data" / "preferences.jsonl", empty_texts="keep")
        write_rows(path, [self.edit(row.id, row.prompt, row.rejected, row.rejected_ids, rng) for row in rows])

    def edit_figa(self, path: Path) -> None:
        """The same for samples of the FIGA model, one for each prompt."""
        rng = self.rng("edits figa")
        rows = self.sample("figa", self.prompts("prompts"), "figa")
        write_rows(path, [self.edit(row.id, row.prompt, row.text, row.response_ids, rng) for row in rows])

    def edit(self, id: str, prompt: Prompt, text: str, ids: tuple[int, ...] | None, rng: Random) -> Correction:
        """One response and its minimal correction."""
        edited = correct(prompt, text, rng, diligence=self.config.diligence)
        return Correction(id=id, prompt=prompt, original=text, edited=edited, original_ids=ids)

    def label(self, path: Path) -> None:
        """Edits projected on tokens."""
        write_labels(path, label_all(self.edits(path.stem), self.encoder), self.encoder)

    def reward(self, path: Path) -> None:
        """A reward model, from the policy whose samples it will judge."""
        start, encoder, recipe = self.folder / "data" / "start", self.encoder, self.recipe
        if path.name == "sequence_preference":
            rows = read_preferences(self.folder / "data" / "preferences.jsonl", empty_texts="keep")
            train_sequence_reward(start, rows, encoder, recipe.reward, path)
        elif path.name == "sequence_edited":
            train_sequence_reward(start, self.edits(), encoder, recipe.reward, path)
        elif path.name == "token":
            train_token_reward(start, self.labels(), encoder, recipe.token_reward, path)
        elif path.name == "token_eq3":
            train_token_reward_bradley_terry(start, self.labels(), encoder, recipe.reward, path)
        else:
            assert path.name == "token_figa"
            figa_model = self.folder / "tuning" / "figa"
            train_token_reward(figa_model, self.labels("figa"), encoder, recipe.token_reward, path)

    def tune(self, path: Path) -> None:
        """A policy."""
        start, encoder, recipe, arm = self.folder / "data" / "start", self.encoder, self.recipe, path.name
        if arm == "sft_edited":
            train_sft(start, demonstrations(self.edits()), encoder, recipe.sft, path)
        elif arm == "dpo_preference":
            rows = read_preferences(self.folder / "data" / "preferences.jsonl", empty_texts="keep")
            train_dpo(start, rows, encoder, recipe.dpo(arm), path)
        elif arm == "dpo_edited":
            train_dpo(start, self.edits(), encoder, recipe.dpo(arm), path)
        elif arm == "figa":
            train_figa(start, self.labels(), encoder, recipe.figa, path)
        elif arm == "figa_ppo_token":
            self.tune_ppo(self.folder / "tuning" / "figa", path)
        else:
            self.tune_ppo(start, path)

    def tune_ppo(self, model: Path, path: Path) -> None:
        """PPO, looked at on some held-out prompts while it learns."""
        folder, *others = (self.folder / need for need in ARM_NEEDS[path.name] if need.startswith("reward/"))
        streams = [
            # Beside a reward of the whole answer a token only costs, and no word is worth saying for its prize.
            Stream(name="reward", reward=folder, penalties_only=bool(others)),
            *(Stream(name="sequence", reward=other, terminal=True) for other in others),
        ]
        evaluate = measure.during_training(
            self.prompts("heldout")[: self.config.curve_prompts],
            self.sampling("curve"),
            start=load_causal(self.folder / "data" / "start"),
            reward=load_scorer(folder, self.encoder),
            encoder=self.encoder,
        )
        evaluate.identity = f"the demo's curve on {self.config.curve_prompts} prompts, seed {self.seed}"  # type: ignore[attr-defined]
        train_ppo(
            model, streams, self.prompts("prompts"), self.encoder, self.recipe.ppo(path.name), path, evaluate=evaluate
        )

    def respond(self, path: Path) -> None:
        """An arm's responses to the held-out prompts, sampled and greedy."""
        prompts = self.prompts("heldout")
        write_lines(
            path,
            [
                {"id": row.id, "prompt": row.prompt, "decoding": name, "response": row.text, "ids": row.response_ids}
                for name, temperature in DECODINGS.items()
                for row in self.sample(path.stem, prompts, "heldout", temperature=temperature)
            ],
        )

    def judge_arm(self, path: Path) -> None:
        """An arm against the start, both sampled, both greedy."""
        arm = path.stem
        found = {name: self.judged(arm, self.responses(arm, name), against=name) for name in DECODINGS}
        write_json(path, found)

    def judge_controls(self, path: Path) -> None:
        """The start at lower temperatures, against itself at 1."""
        prompts = self.prompts("heldout")
        drawn = {t: self.sample("start", prompts, "heldout", temperature=t) for t in CONTROLS}
        write_json(path, {str(t): self.judged("start", drawn[t], against="sampled", temperature=t) for t in CONTROLS})

    def judged(
        self, arm: str, rollouts: Sequence[Rollout], *, against: str, temperature: float = 1.0
    ) -> dict[str, Any]:
        """Responses of ``arm`` against the start's decoded as named."""
        model, start = (load_causal(self.folder / self.model_path(name)) for name in (arm, "start"))
        rng = self.rng("outsider")
        outsider = {
            row.id: write_response(row.prompt, rng, defect_rates=START_DEFECTS.scaled(OUTSIDER))
            for row in self.prompts("heldout")
        }
        return measure.decoded(
            rollouts,
            against=self.responses("start", against),
            outsider=outsider,
            model=model,
            start=start,
            encoder=self.encoder,
            temperature=temperature,
        )

    def judge_rewards(self, path: Path) -> None:
        """All reward models, on eight samples of the start for each of some held-out prompts."""
        prompts = self.prompts("heldout")[: self.config.curve_prompts]
        flat = self.sample("start", prompts, "best of 8", samples=8)
        groups = [flat[first : first + 8] for first in range(0, len(flat), 8)]
        rows = []
        for name in REWARDS:
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
        write_json(path, rows)

    # The findings.

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

    def summary(self, seconds: Mapping[str, float]) -> Summary:
        """Everything that was measured, with the seconds of each stage by path."""
        judged = {arm: read_json(self.folder / "winrate" / f"{arm}.json") for arm in ARMS}
        controls = read_json(self.folder / "winrate" / "controls.json")
        return summary_from_json(
            {
                "seeds": [self.seed],
                "arms": [{"name": arm, "seconds": self.seconds_of(arm, seconds), **judged[arm]} for arm in ARMS],
                "controls": [
                    {"name": f"start at T={name}", "temperature": float(name), "sampled": found}
                    for name, found in controls.items()
                ],
                "reward_models": read_json(self.folder / "winrate" / "reward_models.json"),
                "curves": [self.curve(arm) for arm in ARMS if "ppo" in arm],
                "data": self.counts(),
                "examples": self.examples(),
            }
        )

    def seconds_of(self, arm: str, seconds: Mapping[str, float]) -> float:
        """What an arm cost to train: its policy and its reward models, without evaluation."""
        if arm == "start":
            return 0.0
        own = read_card(self.folder / self.model_path(arm)).get("seconds", seconds.get(self.model_path(arm), 0.0))
        return float(own) + sum(seconds.get(stage, 0.0) for stage in ARM_NEEDS.get(arm, ()))

    def curve(self, arm: str) -> dict[str, Any]:
        """The evaluations during one PPO run."""
        lines = (self.folder / "tuning" / arm / "metrics.jsonl").read_text().splitlines()
        kept = ("step", "seconds", "proxy_reward", "mean_defects", "win_rate")
        return {
            "arm": arm,
            "points": [
                {**{key: row[key] for key in kept}, "kl": row["heldout_kl"]}
                for row in map(json.loads, lines)
                if "win_rate" in row
            ],
        }

    def counts(self) -> dict[str, float]:
        """What went in: rows, and the words that the editor typed."""
        edits, again = statistics(self.edits()), statistics(self.edits("figa"))
        return {
            "prompts": self.config.prompts,
            "rejected": edits.rows,
            "unchanged": edits.unchanged,
            "words_typed": edits.words_typed,
            "words_deleted": edits.words_deleted,
            "mean_edit_ratio": edits.mean_edit_ratio,
            "words_typed_for_figa_ppo_token": again.words_typed,
            "heldout_prompts": self.config.heldout,
        }

    def examples(self) -> list[dict[str, Any]]:
        """A few sampled responses before and after fine-grained PPO, coloured by the token reward."""
        before, after = self.responses("start", "sampled"), self.responses("ppo_token", "sampled")
        flawed = [k for k, row in enumerate(before) if judge(row.prompt, row.text).count >= 2][:4]
        reward = load_scorer(self.folder / "reward" / "token", self.encoder)
        return measure.examples(
            [before[k] for k in flawed], [after[k] for k in flawed], reward, self.encoder, name="ppo_token"
        )


def as_preferences(rollouts: Sequence[Rollout], rng: Random) -> list[Preference]:
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


def _architecture(tokenizer: Any) -> LlamaConfig:
    """About 200,000 parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=80,
        intermediate_size=216,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.1,  # with the usual 0.02 so small a model learns to copy facts five times later
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
