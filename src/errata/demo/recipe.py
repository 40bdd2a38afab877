"""What the demo runs: its sizes and the settings of every arm. How they were found is in notes/LOG.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from errata.demo.world import DefectRates
from errata.ranges import Range, Ranged, Size
from errata.reward import RewardConfig, TokenRewardConfig
from errata.tuning import DPOConfig, FIGAConfig, PPOConfig, SFTConfig

__all__ = ["ARMS", "CONTROLS", "HABIT_RATE", "OUTSIDER", "START_DEFECTS", "DemoConfig", "Recipe"]

START_DEFECTS = DefectRates(wrong_fact=0.3, rude=0.3, missing=0.2, repetition=0.2, closing=0.25, garbled=0.2)
"""Accidents of the writer that the start learns from."""

HABIT_RATE = 0.65
"""How often that writer's habits show: above one half, so that greedy decoding has them too."""

OUTSIDER = 1.25
"""The frozen outsider is the same writer with this many times the accidents and none of the habits."""

CONTROLS = (0.7, 0.5, 0.3)
"""Temperatures of the control rows."""

ARMS = (
    "start",
    "sft_edited",
    "dpo_preference",
    "dpo_edited",
    "figa",
    "ppo_preference",
    "ppo_edited",
    "ppo_token",
    "ppo_penalties",
    "figa_ppo_token",
)
"""Every policy of the demo; all but the last are trained from the start, on the same rejected responses."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Ranged):
    """The main job on the embedded world: corrections in, a better model and an honest report out."""

    out: Path = Path("runs/demo")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    seeds: Size = 1
    """Independent repetitions; each draws everything anew, the start model included."""
    prompts: Size = 1200
    """Prompts to sample two responses for; the rejected one of each is corrected."""
    heldout: Size = 400
    """Prompts of the final evaluation."""
    curve_prompts: Size = 100
    """Held-out prompts of the evaluations during PPO."""
    start_responses: Size = 4000
    """Flawed responses that the start model is trained on."""
    start_epochs: Annotated[float, Range(above=0, high=1e6)] = 5.0
    """Passes over them."""
    ppo_steps: Size = 50
    """Rounds of each PPO arm."""
    diligence: Annotated[float, Range(low=0, high=1)] = 0.5
    """Probability that the editor notices a defect."""
    max_new_tokens: Size = 80
    """Longest response, in tokens."""
    workers: Size = 2
    """Stages at a time, each in a process of one thread."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of all stages for one seed."""

    seed: int
    config: DemoConfig

    @property
    def start(self) -> SFTConfig:
        """The start model, from scratch."""
        return SFTConfig(
            learning_rate=3e-3,
            epochs=self.config.start_epochs,
            batch_size=32,
            schedule="cosine",
            warmup_steps=30,
            save_every=200,
            seed=self.seed,
        )

    @property
    def reward(self) -> RewardConfig:
        """Sequence reward models, and Eq 3."""
        return RewardConfig(learning_rate=3e-3, epochs=3, batch_size=32, schedule="linear", seed=self.seed)

    @property
    def token_reward(self) -> TokenRewardConfig:
        """The token-level reward model that PPO uses."""
        return TokenRewardConfig(
            learning_rate=1e-3, epochs=3, batch_size=32, schedule="linear", sequence_coefficient=1.0, seed=self.seed
        )

    @property
    def sft(self) -> SFTConfig:
        """Imitation of the edited responses."""
        return SFTConfig(learning_rate=3e-4, epochs=3, seed=self.seed)

    def comparisons(self, arm: str) -> DPOConfig:
        """Whole preferences stand a higher rate than pairs that share most words."""
        rate = 3e-4 if arm == "dpo_preference" else 1e-4
        return DPOConfig(learning_rate=rate, epochs=2, beta=0.3, seed=self.seed)

    @property
    def figa(self) -> FIGAConfig:
        """FIGA at the learning rate of a tiny model."""
        return FIGAConfig(learning_rate=3e-4, epochs=3, seed=self.seed)

    def ppo(self, arm: str) -> PPOConfig:
        """All PPO arms; what they do not say is PPO's default."""
        config = PPOConfig(
            steps=self.config.ppo_steps,
            learning_rate=2e-4,
            value_learning_rate=1e-3,
            max_new_tokens=self.config.max_new_tokens,
            evaluate_every=max(1, self.config.ppo_steps // 5),
            seed=self.seed,
        )
        if arm in ("ppo_preference", "ppo_edited"):
            return replace(config, discount=1.0)  # all that is paid comes at the end
        if arm == "ppo_penalties":
            return replace(config, discount=0.8, kl_coefficient=0.1, terminal_weight=0.5)  # docs/ppo_study.md
        return config
