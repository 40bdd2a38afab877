"""The models of one run, and what a step does with them."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils.dataclasses import DistributedType
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from errata import losses
from errata.data import Encoder
from errata.models import (
    Actor,
    NotFinite,
    Sampling,
    TokenBatch,
    TransformersGenerator,
    check_finite,
    check_ids,
    critic_values,
    load_critic,
    load_policy,
    off_is_start,
)
from errata.runs import Metrics, new_folder, seal
from errata.training import check_tracker
from errata.tuning import collapse
from errata.tuning.ppo.config import PPOConfig
from errata.tuning.ppo.rollout import bare, collect, load_rewards
from errata.tuning.ppo.shares import trainable, whole_tensors
from errata.tuning.ppo.update import learn
from errata.tuning.streams import Stream, group
from errata.types import PromptRow, Rollout

__all__ = ["Evaluate", "Run"]


TOKENS_IN_CACHE = 1408
"""What a single process on a CPU computes at a time: less padding, a fifth less memory, and what one layer hands to the
next is still in the cache."""

Evaluate = Callable[[TransformersGenerator, int], Mapping[str, float]]


class Run:
    """The models of one run and what a step does with them."""

    def __init__(
        self,
        model: Path | str,
        streams: Sequence[Stream],
        prompts: Sequence[PromptRow],
        encoder: Encoder,
        config: PPOConfig,
        *,
        critic: Path | str | None,
    ) -> None:
        tracker: list[Any] = [] if config.tracker == "none" else [config.tracker]
        check_tracker(config.tracker)
        AcceleratorState._reset_state()  # an earlier run of this process may have computed in another precision
        self.accelerator: Any = Accelerator(
            mixed_precision="bf16" if config.dtype == "bfloat16" else "no",
            log_with=tracker or None,
            project_dir=".",  # TensorBoard asks for one now; start_tracker names it
        )
        world, self.sharded = self.accelerator.num_processes, bool(self.accelerator.is_fsdp2)
        kind = self.accelerator.distributed_type
        if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED) and not self.sharded:
            raise ValueError(f"PPO knows DDP and FSDP2, not {kind.value}; set FSDP_VERSION=2, or leave it out")
        if config.rollouts_per_step % config.minibatch_size or config.minibatch_size % world:
            raise ValueError(
                f"{config.rollouts_per_step} rollouts a step, minibatches of {config.minibatch_size} and {world} "
                "process(es) must divide: choose multiples"
            )
        if config.best_by and not config.evaluate_every:
            raise ValueError(f"--best-by {config.best_by} names a measure of the evaluations; give --evaluate-every")
        self.model, self.prompts, self.encoder, self.config = model, prompts, encoder, config
        self.heads = group(
            streams,
            discount=config.discount,
            terminal_discount=config.terminal_discount,
            terminal_weight=config.terminal_weight,
        )
        self.done, self.told = -1, dict[str, str]()
        self.few: TokenBatch | None = None  # of the last round
        # Weights that learn are float32, and the reference is computed as the policy is: their ratio starts at 1.
        self.policy: Any = load_policy(model, config)
        self.reference: Any = None
        if not off_is_start(self.policy):
            self.reference = load_policy(model, config).to(self.accelerator.device).eval().requires_grad_(False)
        check_ids(self.policy, ((row.id, bare(row, encoder=encoder)[0]) for row in prompts))
        value_model: Any = load_critic(critic or model, heads=len(self.heads), attention=config.attention)
        if config.gradient_checkpointing:
            both: list[Any] = [self.policy, value_model]
            for each in both:
                # The older of the names of transformers 5 is deprecated in its newer versions.
                enable = getattr(each, "activation_checkpointing_enable", None) or each.gradient_checkpointing_enable
                enable({"use_reentrant": False})
                each.config.use_cache = False
                each.train()  # transformers recomputes in training only; every dropout is 0
        # What is sampled from stays whole; the learner's weights, where each process has a share, are copied into it.
        self.learner: Any = copy.deepcopy(self.policy) if self.sharded else self.policy
        # One optimizer each: their learning rates and clipped norms are their own.
        self.actor, self.policy_optimizer = self.accelerator.prepare(
            Actor(self.learner),
            torch.optim.AdamW(trainable(self.learner).values(), lr=config.rate, weight_decay=0.0),
        )
        self.critic, self.critic_optimizer = self.accelerator.prepare(
            value_model,
            torch.optim.AdamW(value_model.parameters(), lr=config.value_learning_rate, weight_decay=0.0),
        )
        self.policy.to(self.accelerator.device)
        self.models = nn.ModuleDict({"policy": self.learner, "critic": value_model})
        self.reference_actor = None if self.reference is None else Actor(self.reference)
        self.generator = TransformersGenerator(self.policy, encoder)
        # With several processes each forward pass meets the others', and what is learned from must be a single one.
        self.tokens_at_once = TOKENS_IN_CACHE if self.accelerator.device.type == "cpu" and world == 1 else None
        self.streams, self.projected = list(streams), list[str]()
        self.rewards = load_rewards(self)

    def sample(self, prompts: Sequence[PromptRow], *, seed: int) -> list[Rollout]:
        """Responses of the policy as it is now."""
        config = self.config
        with self.accelerator.autocast():
            return self.generator(
                prompts, Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=seed)
            )

    def evaluate(self, evaluate: Evaluate | None, step: int) -> Mapping[str, float]:
        """What the evaluation measures at this step; nothing where it is not its turn."""
        every, last = self.config.evaluate_every, self.config.steps
        if evaluate is None or not every or not (step % every == 0 or step == last):
            return {}
        try:
            with self.accelerator.autocast():
                found = evaluate(self.generator, step)
        except NotFinite as error:
            raise ValueError(f"step {step}: {error}") from error
        if self.config.best_by and self.config.best_by not in found:
            raise ValueError(f"--best-by {self.config.best_by}: the evaluation measures {', '.join(found)}")
        if self.config.best_by:
            self.insist({self.config.best_by: found[self.config.best_by]}, step, trained=step > 0)
        return found

    def insist(self, numbers: Mapping[str, float], step: int, *, trained: bool) -> None:
        """Stop where a number of a step is none. What was saved before stays, and a rerun comes to the same end."""
        rates = f"--learning-rate ({self.config.rate:g}) or --value-learning-rate"
        remedy = f"lower {rates} ({self.config.value_learning_rate:g}), or scale the rewards down"
        check_finite(numbers, step, self.models, remedy=remedy, trained=trained)

    def round(self, step: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Sample, score, estimate advantages, learn; what to note, and some rollouts."""
        started = time.perf_counter()
        try:
            experience, metrics, samples = collect(self, step)
        except NotFinite as error:
            raise ValueError(f"step {step + 1}: {error}") from error
        metrics |= learn(self, experience, step)
        self.few = experience.batch[:1]
        return {**metrics, "seconds": time.perf_counter() - started}, samples

    def check_result(self, step: int) -> None:
        """Insist that policy and critic, as they are saved now, give numbers: no later round has shown it yet."""
        if self.few is None:
            return
        with torch.no_grad(), self.accelerator.autocast():
            logprob_BT, _ = self.actor(self.few, self.config.temperature)
            value_HBT, _ = critic_values(self.critic, self.few)
        after = {"log-probability after it": float(logprob_BT.sum()), "value after it": float(value_HBT.sum())}
        self.insist(after, step, trained=True)

    def moments(self, x_BT: Tensor, mask_BT: Tensor) -> losses.Moments:
        """Count, sum and sum of squares over the tokens of all processes."""
        local = torch.stack(tuple(losses.moments(x_BT, mask_BT)))
        return losses.Moments(*self.accelerator.reduce(local, reduction="sum").unbind())

    def whitened(self, x_BT: Tensor, mask_BT: Tensor, how: Callable[..., Tensor]) -> Tensor:
        """Over the tokens of all processes, by ``losses.whiten`` or one like it."""
        moments = self.moments(x_BT, mask_BT)
        return how(x_BT, mask_BT, mean=moments.mean, variance=moments.variance)

    def mean(self, **values_B: Tensor) -> dict[str, float]:
        """Over the rows of all processes."""
        stacked = torch.stack([value.mean() for value in values_B.values()])
        return dict(zip(values_B, self.accelerator.reduce(stacked, reduction="mean").tolist(), strict=True))

    def sum(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Each process has its own tokens' share, over the count of all."""
        stacked = self.accelerator.reduce(torch.stack(list(sums.values())), reduction="sum")
        return dict(zip(sums, stacked.tolist(), strict=True))

    def start_tracker(self, work: Path) -> None:
        """Open the tracker, if one was asked for."""
        if self.config.tracker != "none":
            self.accelerator.project_configuration.logging_dir = str(work)
            self.accelerator.init_trackers("errata", config={k: str(v) for k, v in asdict(self.config).items()})

    def note(self, metrics: Metrics, line: Mapping[str, float], work: Path) -> None:
        """Write a line down, keep the policy if it is the best so far, and say once what goes wrong."""
        metrics.add(line)
        if self.config.tracker != "none":
            self.accelerator.log(dict(line), step=int(line["step"]))
        if self.best(metrics) == line["step"] and self.accelerator.is_main_process:
            with new_folder(work / f"best-{int(line['step'])}") as partial:
                save_file(whole_tensors(trainable(self.policy)), partial / "policy.safetensors")
                seal(partial)
        for words in self.warn(metrics.lines):
            self.say(words)

    def say(self, words: str) -> None:
        """Print it once, above the bar."""
        if self.accelerator.is_main_process:
            tqdm.write(words, file=sys.stderr)

    def warn(self, lines: Sequence[Mapping[str, float]]) -> list[str]:
        """What is to be said after these lines and was not said before."""
        new = {
            sign.name: f"step {int(lines[-1]['step'])}: {sign.words}"
            for sign in collapse.signs_of_collapse(lines)
            if sign.name not in self.told
        }
        self.told |= new
        return list(new.values())

    def best(self, metrics: Metrics) -> int | None:
        """The first step with the highest value of what the best is chosen by."""
        name = self.config.best_by
        seen = [line for line in metrics.lines if name in line]
        return int(max(seen, key=lambda line: line[name])["step"]) if seen else None
