"""What was measured of a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from errata.demo import measure
from errata.demo.judge import judge
from errata.demo.recipe import ARMS
from errata.demo.seed import SeedFolder
from errata.edits import statistics
from errata.models import read_card
from errata.reward import load_scorer
from errata.runs import read_json
from errata.winrate import Summary, summary_from_json

__all__ = ["ARM_NEEDS", "SeedFindings"]

ARM_NEEDS = {
    "ppo_preference": ("reward/sequence_preference",),
    "ppo_edited": ("reward/sequence_edited",),
    "ppo_token": ("reward/token",),
    "ppo_penalties": ("reward/token", "reward/sequence_edited"),
    "figa_ppo_token": ("tuning/figa", "edits/figa.jsonl", "reward/token_figa"),
}
"""The stages before its own that an arm's training time includes; a second reward is paid at the end."""


@dataclass(frozen=True)
class SeedFindings(SeedFolder):
    """What the stages of a seed found."""

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
