"""What a round teaches the policy and the critic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from errata.models import (
    norm_of,
)
from errata.tuning.ppo.config import PPOConfig
from errata.tuning.ppo.experience import Experience, policy_and_value_loss
from errata.tuning.ppo.rollout import rows_at_once, seed_of
from errata.tuning.ppo.shares import copy_into, trainable, whole_tensors

if TYPE_CHECKING:
    from errata.tuning.ppo.run import Run

__all__ = ["gather", "learn"]


def learn(run: Run, experience: Experience, step: int) -> dict[str, float]:
    """Learn from a round of experience, in minibatches; what to note of it."""
    config, accelerator = run.config, run.accelerator
    pairs = ((run.actor, run.policy_optimizer), (run.critic, run.critic_optimizer))
    share = rate_at(step, config)
    for (_, optimizer), rate in zip(pairs, (config.rate, config.value_learning_rate), strict=True):
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate * share
    totals: dict[str, float] = {}
    minibatches, stopped = 0, 0.0
    for minibatch in _minibatches(run, experience, step):
        count = int(accelerator.reduce(minibatch.batch.response_mask_BT.sum(), reduction="sum"))
        sums: dict[str, Tensor] = {}
        parts = list(minibatch.split(rows_at_once(run, minibatch.batch)))
        for number, part in enumerate(parts, start=1):
            with ExitStack() as waiting:
                if number < len(parts):  # gradients meet those of other processes once a minibatch
                    for model, _ in pairs:
                        waiting.enter_context(accelerator.no_sync(model))
                policy_loss, value_loss, shown = policy_and_value_loss(
                    run.actor, run.critic, part, config, num_tokens=count
                )
                # DDP averages over processes what the global count wants summed.
                total = (policy_loss + config.value_coefficient * value_loss) * accelerator.num_processes
                accelerator.backward(total)
            shown = {name: each / count for name, each in shown.items()}
            shown |= {"policy_loss": policy_loss.detach().double(), "value_loss": value_loss.detach().double()}
            sums = {name: each + sums.get(name, 0) for name, each in shown.items()}
        found = run.sum(sums)
        run.insist(found, step + 1, trained=step > 0 or minibatches > 0)
        if minibatches and config.target_kl is not None and found["approxkl"] > config.target_kl:
            for _, optimizer in pairs:
                optimizer.zero_grad()
            stopped = 1.0
            break
        minibatches += 1
        for name, (model, _) in zip(("grad_norm", "value_grad_norm"), pairs, strict=True):
            found[name] = float(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm or inf))
        run.insist(found, step + 1, trained=step > 0 or minibatches > 1)
        for _, optimizer in pairs:
            optimizer.step()
            optimizer.zero_grad()
        totals = {name: totals.get(name, 0.0) + value for name, value in found.items()}
    norms = {f"norm of the weights of the {name}": norm_of(model) for name, model in run.models.items()}
    run.insist(norms, step + 1, trained=True)
    gather(run)
    mean = {name: value / minibatches for name, value in totals.items()}
    return {
        "loss/policy_avg": mean["policy_loss"],
        "loss/value_avg": mean["value_loss"],
        "policy/approxkl_avg": mean["approxkl"],
        "policy/clipfrac_avg": mean["clipped"],
        "policy/grad_norm": mean["grad_norm"],
        "policy/stopped_by_target_kl": stopped,
        "val/clipfrac_avg": mean["value_clipped"],
        "val/ratio": mean["ratio"],
        "val/ratio_var": max(mean["ratio_squared"] - mean["ratio"] ** 2, 0.0),
        "val/grad_norm": mean["value_grad_norm"],
        "lr": config.rate * share,
        "episode": (step + 1) * config.rollouts_per_step,
    }


def gather(run: Run) -> None:
    """Bring what is sampled from up to what was learned."""
    if run.sharded:
        copy_into(whole_tensors(trainable(run.learner)), trainable(run.policy))


def _minibatches(run: Run, experience: Experience, step: int) -> Iterator[Experience]:
    size = run.config.minibatch_size // run.accelerator.num_processes
    rows = experience.batch.ids_BT.shape[0]
    order = torch.Generator().manual_seed(seed_of(run.config.seed, step, run.accelerator.process_index))
    for epoch in range(run.config.optimisation_epochs):
        parts = torch.randperm(rows, generator=order).tensor_split(list(range(size, rows, size)))
        if epoch == 0 and experience.live:
            yield experience
            continue
        for part in parts:
            yield experience[part.to(experience.batch.ids_BT.device)]


def rate_at(step: int, config: PPOConfig) -> float:
    """The share of the learning rates that a step has."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return warm * (1.0 if config.schedule == "constant" else 1 - step / config.steps)
