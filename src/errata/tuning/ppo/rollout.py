"""A round"s responses: sampled, scored, and with their advantages."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from errata import losses
from errata.data import Encoder
from errata.models import (
    TokenBatch,
    adapter_off,
    critic_values,
    pad,
    pad_stream,
    to_lists,
)
from errata.reward import ProjectedReward, RewardFunction, encode_rollout, fit_scale, load_reward, repetition
from errata.tuning.ppo.config import PPOConfig, RewardScaling
from errata.tuning.ppo.experience import Experience, Live
from errata.tuning.streams import last_token, paid, rewards_of, summed
from errata.types import Encoded, PromptRow, Rollout

if TYPE_CHECKING:
    from errata.tuning.ppo.run import Run

__all__ = ["bare", "collect", "load_rewards", "prompts_of_step", "rows_at_once", "seed_of"]


KL = {"k1": losses.kl_k1, "k2": losses.kl_k2, "k3": losses.kl_k3}


def load_rewards(run: Run) -> list[RewardFunction]:
    """What scores the rows, stream by stream; reward models of a folder are scaled."""
    samples: list[Encoded] = []
    rewards: list[RewardFunction] = []
    for stream in run.streams:
        if not isinstance(stream.reward, Path | str):
            rewards.append(stream.reward)
            continue
        scorer = load_reward(stream.reward, run.encoder, [row.prompt for row in run.prompts])
        if isinstance(scorer, ProjectedReward):
            run.projected.append(stream.name)
            run.say(
                f"{stream.name}: {stream.reward} has another tokenizer or template than the policy; its rewards "
                "are projected through the characters that tokens stand for, and their sum stays the same"
            )
        if run.config.reward_scaling == RewardScaling.START:
            if not samples:
                # The same samples on every process, so that all of them scale alike.
                count, seed = min(256, len(run.prompts)), run.config.seed
                chosen = random.Random(seed).sample(list(run.prompts), count)
                samples = [encode_rollout(rollout) for rollout in run.sample(chosen, seed=seed)]
            scorer = scorer.fitted(samples) if isinstance(scorer, ProjectedReward) else fit_scale(scorer, samples)
        rewards.append(scorer)
    return rewards


def collect(run: Run, step: int) -> tuple[Experience, dict[str, float], list[dict[str, Any]]]:
    """Sample a step's prompts: the experience, what to note of it, and some rollouts."""
    config, rank, world = run.config, run.accelerator.process_index, run.accelerator.num_processes
    chosen = prompts_of_step(len(run.prompts), step, config)[rank::world]
    rollouts = run.sample([run.prompts[k] for k in chosen], seed=seed_of(config.seed, step, rank))
    rows = [encode_rollout(rollout) for rollout in rollouts]
    batch = pad(rows, pad_id=run.encoder.pad_id).to(run.accelerator.device)
    mask_BT = batch.response_mask_BT
    ended_B = torch.tensor([row.ended for row in rows], device=batch.ids_BT.device)
    *read, live = read_batch(run, batch)
    old_BT, entropy_BT, ref_BT, value_HBT, bootstrap_HB = read
    raw = {
        each.name: pad_stream(rewards_of(each, reward(rows), rollouts), batch)
        for each, reward in zip(run.streams, run.rewards, strict=True)
    }
    names = [rollout.id for rollout in rollouts]
    streams_BT = {each.name: paid(each, raw[each.name], mask_BT, run.moments, names) for each in run.streams}
    streams_BT["kl"] = losses.kl_penalty(
        old_BT, ref_BT, mask_BT, kl_coefficient=config.kl_coefficient, estimator=KL[config.kl_estimator]
    )
    if config.length_penalty:
        streams_BT["length"] = -config.length_penalty * mask_BT.float()
    if config.missing_eos_penalty:
        cut_off_BT = last_token(mask_BT) & ~ended_B[:, None]
        streams_BT["missing_eos"] = -config.missing_eos_penalty * cut_off_BT.float()
    advantages, returns, explained = [], [], []
    for head, reward_BT, value_BT, bootstrap_B in zip(
        run.heads, summed(run.heads, run.streams, streams_BT), value_HBT, bootstrap_HB, strict=True
    ):
        if config.reward_scaling == RewardScaling.BATCH:
            reward_BT = run.whitened(reward_BT, mask_BT, losses.whiten_keeping_mean)
        advantage_BT, return_BT = losses.gae(
            reward_BT, value_BT, mask_BT, ended_B, bootstrap_B, discount=head.discount, gae_lambda=config.gae_lambda
        )
        left, whole = (float(run.moments(x_BT, mask_BT).variance) for x_BT in (advantage_BT, return_BT))
        explained.append(1 - left / whole if whole > 0 else 0.0)
        advantages.append(head.weight * run.whitened(advantage_BT, mask_BT, losses.whiten))
        returns.append(return_BT)
    # Advantages are mixed, not rewards: each stream keeps its own discount, and none drowns the other.
    advantage_BT = advantages[0]
    if len(advantages) > 1:
        advantage_BT = run.whitened(torch.stack(advantages).sum(0), mask_BT, losses.whiten)
    length_B = mask_BT.sum(1).float()
    score_B = torch.stack([streams_BT[each.name] for each in run.streams]).sum(0).sum(1)
    total_B = torch.stack(list(streams_BT.values())).sum(0).sum(1)
    metrics = run.mean(
        **{f"objective/scores_{each.name}": raw[each.name].sum(1) for each in run.streams},
        **{
            "objective/scores": score_B,
            "objective/non_score_reward": total_B - score_B,
            "objective/rlhf_reward": total_B,
            "objective/kl": losses.kl_k1(old_BT, ref_BT, mask_BT).sum(1),
            "objective/entropy": -old_BT.sum(1),
            "response/length": length_B,
            "response/ended": ended_B.float(),
            "response/repetition": torch.tensor([repetition(row.response_ids) for row in rows]).to(length_B),
            "value/sum": value_HBT.sum((0, 2)),
            "entropy": entropy_BT.sum(1),
            "advantages": advantage_BT.sum(1),
            "returns": torch.stack(returns).sum((0, 2)),
        },
    )
    run.insist(metrics, step + 1, trained=step > 0)
    del metrics["advantages"], metrics["returns"]
    metrics["policy/entropy_avg"] = metrics.pop("entropy") / max(metrics["response/length"], 1e-9)
    metrics["val/num_eos_tokens"] = round(metrics["response/ended"] * config.rollouts_per_step)
    metrics["val/explained_variance"] = min(explained)
    experience = Experience(batch, old_BT, ref_BT, value_HBT, advantage_BT, torch.stack(returns), live)
    few = slice(0, config.samples_per_step)
    shown = {**{f"rewards/{name}": each_BT for name, each_BT in streams_BT.items()}, "advantages": advantage_BT}
    shown |= {f"values/{head.name}": value_BT for head, value_BT in zip(run.heads, value_HBT, strict=True)}
    shown |= {"logprobs": old_BT, "ref_logprobs": ref_BT}
    lists = {name: to_lists(each_BT[few], batch[few]) for name, each_BT in shown.items()}
    return (
        experience,
        metrics,
        [_sample_row(rollout, run.encoder, k, lists) for k, rollout in enumerate(rollouts[few])],
    )


def read_batch(run: Run, batch: TokenBatch) -> tuple[Any, ...]:
    """Log-probabilities and entropy of the policy, log-probabilities of the reference, values and bootstraps.

    None of them has a gradient. At the end stands what is ``live`` in the experience.
    """
    config, temperature = run.config, run.config.temperature
    shape = batch.ids_BT.shape
    old_BT, entropy_BT, ref_BT = torch.zeros(3, *shape, device=batch.ids_BT.device)
    value_HBT = old_BT.new_zeros(len(run.heads), *shape)
    bootstrap_HB = old_BT.new_zeros(len(run.heads), len(batch.ids_BT))
    # Nothing is learned before the first minibatch; if that is all there is, its forward pass is this one.
    single = config.minibatch_size == config.rollouts_per_step and len(batch.ids_BT) <= config.micro_batch_size
    live = list[Live]()
    for rows in batch.alike(rows_at_once(run, batch)):
        part = batch.narrowed(rows)
        with torch.no_grad(), run.accelerator.autocast():
            if run.reference_actor is None:
                with adapter_off(run.learner):
                    of_ref_BT, _ = run.actor(part, temperature)
            else:
                of_ref_BT, _ = run.reference_actor(part, temperature)
        with torch.set_grad_enabled(single):
            of_old_BT, of_entropy_BT = run.actor(part, temperature, True)
            of_value_HBT, of_bootstrap_HB = critic_values(run.critic, part)
        if single:
            live.append(Live(rows, of_old_BT, of_value_HBT))
        columns = slice(part.ids_BT.shape[1])
        for whole, found in (
            (old_BT, of_old_BT),
            (entropy_BT, of_entropy_BT),
            (ref_BT, of_ref_BT),
            (value_HBT, of_value_HBT),
        ):
            whole[..., rows, columns] = found.detach().to(whole)
        bootstrap_HB[:, rows] = of_bootstrap_HB.detach().to(bootstrap_HB)
    return old_BT, entropy_BT, ref_BT, value_HBT, bootstrap_HB, live


def rows_at_once(run: Run, batch: TokenBatch) -> int:
    """How many rows of a batch are computed at a time."""
    rows = run.config.micro_batch_size
    return rows if run.tokens_at_once is None else max(1, min(rows, run.tokens_at_once // batch.ids_BT.shape[1]))


def bare(row: PromptRow, *, encoder: Encoder) -> tuple[Encoded]:
    """The prompt alone, as ids; a tuple, as rows are encoded side by side."""
    ids = encoder.prompt_ids(row.prompt)
    return (Encoded(ids, len(ids), (), ended=False),)


def _sample_row(rollout: Rollout, encoder: Encoder, k: int, lists: Mapping[str, list[list[float]]]) -> dict[str, Any]:
    """A line of samples.jsonl: the tokens of a response, and a number for each of them from every stream."""
    row = {"id": rollout.id, "prompt": rollout.prompt, "response": rollout.text, "ended": rollout.ended}
    tokens = encoder.tokenizer.convert_ids_to_tokens(list(rollout.response_ids))
    streams = {name: [round(value, 6) for value in each[k]] for name, each in lists.items()}
    return {**row, "ids": list(rollout.response_ids), "tokens": tokens, **streams}


def prompts_of_step(count: int, step: int, config: PPOConfig) -> list[int]:
    """Which prompts a step takes: passes over all of them, each in a seeded order of its own."""
    first = step * config.rollouts_per_step
    wanted = range(first, first + config.rollouts_per_step)
    orders: dict[int, list[int]] = {}
    for number in {k // count for k in wanted}:
        orders[number] = list(range(count))
        random.Random(seed_of(config.seed, number)).shuffle(orders[number])
    return [orders[k // count][k % count] for k in wanted]


def seed_of(*parts: int) -> int:
    """A seed that each of these numbers changes."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
