"""Settings of PPO, and its presets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Annotated, Literal

from errata.models import (
    ModelConfig,
)
from errata.ranges import Range, Seed, Size, Weight
from errata.training import Tracker

__all__ = ["PAPER", "SEQUENCE", "PPOConfig", "RewardScaling"]


class RewardScaling(StrEnum):
    """What the rewards are divided by."""

    START = "start"
    """The deviation of their sum over a response, on samples of the starting policy; fixed for the run."""
    BATCH = "batch"
    """The deviation of the KL-penalised token rewards of each step, without mean shift (AlpacaFarm)."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig(ModelConfig):
    """Settings of PPO. The defaults are those under which dense rewards stay sane; PAPER holds the paper's."""

    steps: Size = 50
    """Rounds of sampling and learning."""
    rollouts_per_step: Size = 64
    """Responses sampled in one round, over all processes."""
    minibatch_size: Size = 64
    """Responses in one optimizer step, over all processes; divides ``rollouts_per_step``."""
    micro_batch_size: Size = 64
    """Responses whose activations one process holds at a time; lower it when memory runs out, the result stays the
    same. A single process on a CPU computes fewer at a time, which its cache holds."""
    optimisation_epochs: Size = 2
    """Passes over the responses of a round."""
    learning_rate: Annotated[float, Range(low=0)] | Literal["auto"] = "auto"
    """Learning rate of the policy's AdamW. auto: 1e-5 where all weights are trained, 2e-4 for an adapter
    (--lora-rank), which wants more."""
    value_learning_rate: Annotated[float, Range(low=0)] = 1e-5
    """Learning rate of the critic's AdamW; the critic is a model of its own."""
    schedule: Literal["constant", "linear"] = "constant"
    """Whether both learning rates stay, or fall to 0 at the end."""
    warmup_steps: Annotated[int, Range(low=0)] = 0
    """Rounds over which the learning rates rise from 0."""
    max_new_tokens: Size = 128
    """Longest response, in tokens; one that is cut off there bootstraps its value."""
    temperature: Annotated[float, Range(above=0, high=100)] = 1.0
    """Sampling temperature; the policy that learns, and its reference, are those at this temperature."""
    discount: Annotated[float, Range(low=0, high=1)] = 0.5
    """γ. A token reward already sits where the credit belongs: with 1, dense rewards pay for length and collapse."""
    gae_lambda: Annotated[float, Range(low=0, high=1)] = 0.95
    """λ of generalised advantage estimation."""
    terminal_discount: Annotated[float, Range(low=0, high=1)] = 1.0
    """γ of streams that pay for the whole response, where there are any beside dense ones."""
    terminal_weight: Weight = 1.0
    """Weight of their whitened advantages beside the dense ones'."""
    kl_coefficient: Weight = 0.2
    """β of the penalty β·(log π_old − log π_start) on every token, in reward units per nat."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Which estimate of the KL is penalised; k1 is the log-ratio itself, k2 and k3 are never negative."""
    missing_eos_penalty: Weight = 0.0
    """Taken off at the last token of a response that was cut off."""
    length_penalty: Weight = 0.0
    """Taken off at every token."""
    clip_range: Annotated[float, Range(above=0)] = 0.2
    """ε: the ratio π/π_old is clipped to 1 ± ε."""
    value_clip_range: Annotated[float, Range(above=0, high=inf)] = 0.2
    """ε_V: a value moves at most this far from the one at sampling time before its loss is clipped."""
    value_coefficient: Weight = 1.0
    """Weight of the value loss; the critic shares nothing with the policy, so it only matters beside clipping."""
    target_kl: Annotated[float, Range(above=0)] | None = None
    """A round ends early when policy and sampling policy are this far apart (k2, nats a token); none by default."""
    reward_scaling: RewardScaling = RewardScaling.START
    """What rewards are divided by: `start` or `batch`."""
    max_grad_norm: Annotated[float, Range(low=0, high=inf)] = 1.0
    """Policy and critic gradients are each clipped to this norm; 0 clips nothing."""
    save_every: Size = 25
    """Steps between checkpoints; a run that was killed goes on from the last one."""
    evaluate_every: Annotated[int, Range(low=0)] = 0
    """Steps between evaluations, where an evaluation is handed in; 0 is never."""
    best_by: str = ""
    """The measure of the evaluation by whose highest value the best policy is kept, in `best` beside the last one."""
    stop_on_collapse: bool = False
    """End the run when it is collapsing, which is warned of in any case."""
    samples_per_step: Annotated[int, Range(low=0)] = 4
    """Rollouts of each round that are noted in samples.jsonl."""
    tracker: Tracker = "none"
    """Where metrics are also sent; metrics.jsonl is written anyway."""
    seed: Seed = 0
    """Seeds prompts, sampling and minibatches."""


PAPER = {
    "rollouts_per_step": 512,
    "minibatch_size": 256,
    "discount": 1.0,
    "gae_lambda": 1.0,
    "kl_coefficient": 0.02,
    "value_coefficient": 0.1,
    "reward_scaling": RewardScaling.BATCH,
}
"""AlpacaFarm's recipe, on which the paper builds (PAPERS A6): ``--preset paper``."""

SEQUENCE = {"discount": 1.0}
"""For rewards that are paid at the last token: ``--preset sequence``."""
