"""Fine-grained PPO: its settings, a round of experience, what a round teaches, checkpoints, and the loop over them."""

from errata.tuning.ppo.config import PAPER, SEQUENCE, PPOConfig, RewardScaling
from errata.tuning.ppo.experience import Experience, policy_and_value_loss
from errata.tuning.ppo.loop import train_ppo
from errata.tuning.ppo.rollout import collect, prompts_of_step
from errata.tuning.ppo.run import Run
from errata.tuning.ppo.update import learn

__all__ = [
    "PAPER",
    "SEQUENCE",
    "Experience",
    "PPOConfig",
    "RewardScaling",
    "Run",
    "collect",
    "learn",
    "policy_and_value_loss",
    "prompts_of_step",
    "train_ppo",
]
