"""The stages of one seed's run: which file or folder is made of which, and how. Read ``stages`` first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import LlamaConfig

from errata.data import Encoder, read_preferences, write_rows
from errata.data.rows import write_lines
from errata.demo import measure
from errata.demo.editor import correct
from errata.demo.findings import ARM_NEEDS, SeedFindings
from errata.demo.judge import preference
from errata.demo.recipe import ARMS, CONTROLS, HABIT_RATE, OUTSIDER, START_DEFECTS
from errata.demo.tokenizer import build_tokenizer
from errata.demo.world import make_prompts, write_response
from errata.labels import label_all, write_labels
from errata.models import load_causal, read_card, save_model
from errata.reward import load_scorer, train_sequence_reward, train_token_reward, train_token_reward_bradley_terry
from errata.runs import write_json
from errata.runs.schedule import Stage
from errata.tuning import Stream, demonstrations, train_dpo, train_figa, train_ppo, train_sft
from errata.types import Correction, Demonstration, Preference, Prompt, Rollout

__all__ = ["DECODINGS", "REWARDS", "SeedRun"]

DECODINGS = {"sampled": 1.0, "greedy": 0.0}
REWARDS = ("sequence_preference", "sequence_edited", "token", "token_eq3")


@dataclass(frozen=True)
class SeedRun(SeedFindings):
    """One seed's folder. Every stage draws from a stream of chance of its own, so none disturbs another's numbers."""

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
            train_dpo(start, rows, encoder, recipe.comparisons(arm), path)
        elif arm == "dpo_edited":
            train_dpo(start, self.edits(), encoder, recipe.comparisons(arm), path)
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
