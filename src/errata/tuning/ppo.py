"""Fine-grained PPO: a reward on every token, paid where the credit belongs (Xu et al., Eq 4; docs/ppo.md).

The loop knows per-token reward streams (``tuning/streams.py``) and nothing of where they come from. A sequence-level
reward model is the stream that pays at the last token: with γ = 1 that is the ordinary PPO of RLHF.

Every random choice is a function of (seed, step, process), and so is the learning rate of the step. A checkpoint of
weights, optimizers and the number of steps is therefore all there is to a run, and a resumed run repeats the
uninterrupted one.
"""

from __future__ import annotations

import copy
import hashlib
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils.dataclasses import DistributedType
from accelerate.utils.operations import broadcast_object_list
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from errata import losses
from errata.data import Encoder, LengthCounts, encode_rows, rows_of
from errata.models import (
    Actor,
    ModelConfig,
    NotFinite,
    Sampling,
    TokenBatch,
    TransformersGenerator,
    adapter_off,
    check_finite,
    check_ids,
    critic_values,
    has_adapter,
    identity,
    load_critic,
    load_policy,
    norm_of,
    off_is_start,
    pad,
    pad_stream,
    read_card,
    save_model,
    settle,
    to_lists,
)
from errata.models.load import dtypes_in_words, read_tensors
from errata.pretrained import find_model
from errata.ranges import Range, Seed, Size, Weight
from errata.reward import ProjectedReward, RewardFunction, encode_rollout, fit_scale, load_reward, repetition
from errata.runs import (
    Metrics,
    RunFolder,
    check_sealed,
    fingerprint_of,
    named,
    new_folder,
    read_record,
    seal,
    write_json,
    writes_out,
)
from errata.training import Tracker, check_tracker, written_adapter
from errata.tuning.collapse import signs_of_collapse
from errata.tuning.streams import Stream, check_streams, group, last_token, paid, rewards_of, summed
from errata.types import Encoded, PromptRow, Rollout

__all__ = ["PAPER", "SEQUENCE", "Experience", "PPOConfig", "RewardScaling", "policy_and_value_loss", "train_ppo"]


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

TOKENS_IN_CACHE = 1408
"""What a single process on a CPU computes at a time: less padding, a fifth less memory, and what one layer hands to the
next is still in the cache."""

KL = {"k1": losses.kl_k1, "k2": losses.kl_k2, "k3": losses.kl_k3}

Evaluate = Callable[[TransformersGenerator, int], Mapping[str, float]]


class Live(NamedTuple):
    """What was read of some rows, as wide as the longest of them, and the graph that it came from."""

    rows: Tensor
    logprob_BT: Tensor
    value_HBT: Tensor


@dataclass(frozen=True, slots=True)
class Experience:
    """One round's responses and what was known of them when they were sampled; columns speak of their own token.

    H are the heads of the critic: one, or dense and terminal.
    """

    batch: TokenBatch
    old_logprob_BT: Tensor
    ref_logprob_BT: Tensor
    old_value_HBT: Tensor
    advantage_BT: Tensor
    return_HBT: Tensor
    live: Sequence[Live] = ()
    """For the first minibatch of a round that is a single one, where the policy that learns is still the one that
    sampled: every row once, with the graph. One part is all of its rows, once the experience is split."""

    def __getitem__(self, rows: Tensor) -> Experience:
        """Some of the rows, as wide as the longest of them."""
        batch = self.batch.narrowed(rows)
        columns = slice(batch.ids_BT.shape[1])
        old_BT, ref_BT, value_HBT, advantage_BT, return_HBT = (
            x[..., rows, columns]
            for x in (
                self.old_logprob_BT,
                self.ref_logprob_BT,
                self.old_value_HBT,
                self.advantage_BT,
                self.return_HBT,
            )
        )
        return Experience(batch, old_BT, ref_BT, value_HBT, advantage_BT, return_HBT)

    def split(self, size: int) -> Iterator[Experience]:
        """Parts of at most ``size`` rows of about the same length."""
        if self.live:
            return (replace(self[part.rows], live=(part,)) for part in self.live)
        return (self[rows] for rows in self.batch.alike(size))


def policy_and_value_loss(
    actor: nn.Module, critic: nn.Module, experience: Experience, config: PPOConfig, *, num_tokens: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Clipped surrogate and clipped value loss of some rows, each summed and divided by the global token count.

    Returns:
        Both, and sums over the tokens of the rows of what is shown of them.
    """
    mask_BT, old_BT = experience.batch.response_mask_BT, experience.old_logprob_BT
    if experience.live:
        ((_, logprob_BT, value_HBT),) = experience.live
    else:
        logprob_BT, _ = actor(experience.batch, config.temperature)
        value_HBT, _ = critic_values(critic, experience.batch)
    surrogate_BT = losses.clipped_surrogate(
        logprob_BT, old_BT, experience.advantage_BT, mask_BT, clip_range=config.clip_range
    )
    value_loss_HBT = [
        losses.clipped_value_loss(value_BT, old_value_BT, return_BT, mask_BT, clip_range=config.value_clip_range)
        for value_BT, old_value_BT, return_BT in zip(
            value_HBT, experience.old_value_HBT, experience.return_HBT, strict=True
        )
    ]
    with torch.no_grad():
        ratio_BT = torch.where(mask_BT, logprob_BT - old_BT, 0).exp()
        value_moved_BT = (value_HBT - experience.old_value_HBT).abs().amax(0) > config.value_clip_range
        shown = {
            "approxkl": losses.kl_k2(logprob_BT, old_BT, mask_BT),
            "clipped": ((ratio_BT - 1).abs() > config.clip_range).float(),
            "value_clipped": value_moved_BT.float(),
            "ratio": ratio_BT,
            "ratio_squared": ratio_BT.square(),
        }
        sums = {name: torch.where(mask_BT, each_BT, 0).sum().double() for name, each_BT in shown.items()}
    return (
        losses.token_mean(surrogate_BT, mask_BT, num_tokens=num_tokens),
        sum(
            (losses.token_mean(each_BT, mask_BT, num_tokens=num_tokens) for each_BT in value_loss_HBT[1:]),
            losses.token_mean(value_loss_HBT[0], mask_BT, num_tokens=num_tokens),
        ),
        sums,
    )


@writes_out
def train_ppo(
    model: Path | str,
    reward: Path | str | RewardFunction | Iterable[Stream],
    prompts: Iterable[PromptRow],
    encoder: Encoder,
    config: PPOConfig,
    out: Path | str,
    *,
    critic: Path | str | None = None,
    evaluate: Evaluate | None = None,
    noted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Improve a policy on rewards by PPO and write it to ``out``, with metrics.jsonl and samples.jsonl beside it.

    Args:
        model: the policy to start from, also the reference of the KL penalty.
        reward: streams; or the only one, a folder of ``errata reward train`` (token- or sequence-level; scaled as
            ``config`` says; with a tokenizer of its own it is read through a ``ProjectedReward``) or any function from
            rows to one reward a response token, taken as it is. A function says by an attribute ``identity`` what it
            is; without one, no folder that is there is gone on from or taken for its result.
        prompts: used in a seeded order, again and again.
        encoder: of the policy.
        config: the settings.
        out: a folder; it appears in one step at the end. Until then the files lie in ``.NAME.training`` beside it,
            a line a step.
        critic: a model to start the critic from; by default ``model``.
        evaluate: called with a generator and the step every ``config.evaluate_every`` steps, step 0 and the last
            included; what it returns goes into the metrics, its time does not. It has an ``identity``, too, unless
            ``noted`` says what it depends on.
        noted: goes into the card, and tells this run from another: what the evaluation depends on. Its ``warnings``
            stand before the run's own.

    Returns:
        The card written beside the model; ``warnings`` says in words how the run went wrong, if it did.

    Raises:
        ValueError: no prompt is left, settings that do not go together, a folder that is no reward model, or ``out``
            was made by another run or by functions without an identity; a reward
            function gives something else than one finite number for each response token; or a number of a step is not
            finite any more (the message names the step; nothing is written to ``out``, and the checkpoints before it
            stay).
        TypeError: ``prompts`` or ``reward`` are of another kind.
    """
    config, settled = settle(config, model)
    if config.lora_dropout:
        raise ValueError(
            "--lora-dropout: PPO compares the policy with itself, and noise in their ratio would be taken for signal; "
            "leave it out"
        )
    if find_model(critic or model).quantization:
        raise ValueError(
            f"the critic learns with all its weights, and those of {critic or model} are quantized; give --critic a "
            "model that is not"
        )
    out, prompts = Path(out), rows_of(prompts, PromptRow, "prompts", "read them with read_prompts")
    if not prompts:
        raise ValueError("no prompt to sample responses for")
    streams = (
        [Stream(name="reward", reward=reward)]
        if isinstance(reward, Path | str) or callable(reward)
        else rows_of(reward, Stream, "reward", "give a folder, a function or streams")
    )
    check_streams(streams)
    counts = LengthCounts()
    prompts = [row for row, _ in encode_rows(prompts, partial(_bare, encoder=encoder), counts)]
    functions: dict[str, Any] = {
        f"reward of the stream {each.name!r}": each.reward
        for each in streams
        if not isinstance(each.reward, Path | str)
    }
    if evaluate is not None and config.evaluate_every and not noted:
        functions["evaluation"] = evaluate
    identities, unnamed = named(functions)
    told = [
        (
            each.name,
            identity(each.reward) if isinstance(each.reward, Path | str) else "function",
            *(each.coefficient, each.clip, each.centred, each.terminal),
            *(["penalties only"] if each.penalties_only else []),
        )
        for each in streams
    ]
    fingerprint = fingerprint_of(
        "ppo",
        [identity(model), identity(critic or model)],
        told,
        config,
        [(row.id, row.prompt) for row in prompts],
        *([noted] if noted else []),
        encoder.fingerprint,
        *([identities] if identities else []),
    )
    folder = RunFolder(out, fingerprint, unnamed)
    if folder.is_finished():
        return read_card(out)
    run = _Run(model, streams, prompts, encoder, config, critic=critic)
    work = folder.work
    metrics, samples = run.resume(folder)
    run.start_tracker(work)
    done = max(run.done, 0)
    bar = tqdm(range(done, config.steps), initial=done, total=config.steps, desc="PPO", disable=None)
    if run.done < 0:
        run.note(metrics, {"step": 0, "seconds": 0.0, **run.evaluate(evaluate, 0)}, work)
    for step in bar:
        if config.stop_on_collapse and any(sign.stops for sign in signs_of_collapse(metrics.lines)):
            break
        found, rollouts = run.round(step)
        done = step + 1
        seconds = metrics.lines[-1]["seconds"] + found.pop("seconds")
        run.note(metrics, {"step": done, "seconds": seconds, **found, **run.evaluate(evaluate, done)}, work)
        for row in rollouts:
            samples.add({"step": done, **row})
        bar.set_postfix(reward=f"{found['objective/scores']:.3f}", kl=f"{found['objective/kl']:.2f}")
        if done % config.save_every == 0 and done < config.steps:
            run.check_result(done)
            run.save(work, done, metrics, samples)
    run.check_result(done)
    warnings = [*(noted or {}).get("warnings", ()), *run.told.values()]
    card = {
        "stage": "ppo",
        **settled,
        "config": asdict(config),
        "prompts": len(prompts),
        **asdict(counts),
        "fingerprint": fingerprint,
        **metrics.lines[-1],
        **({"projected_rewards": ", ".join(run.projected)} if run.projected else {}),
        "trained_dtype": dtypes_in_words(_trained(run.policy)),
        **({"base_commit": run.policy.origin.commit} if run.policy.origin.commit else {}),
        **(noted or {}),
        **({"warnings": warnings} if warnings else {}),
    }
    best = run.best(metrics)
    if best is not None:
        by = config.best_by
        card |= {"best_step": best, f"best_{by}": next(line[by] for line in metrics.lines if line["step"] == best)}
    return run.finish(work, out, card, metrics, samples)


class _Run:
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
        check_ids(self.policy, ((row.id, _bare(row, encoder=encoder)[0]) for row in prompts))
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
            torch.optim.AdamW(_trained(self.learner).values(), lr=config.rate, weight_decay=0.0),
        )
        self.critic, self.critic_optimizer = self.accelerator.prepare(
            value_model,
            torch.optim.AdamW(value_model.parameters(), lr=config.value_learning_rate, weight_decay=0.0),
        )
        self.policy.to(self.accelerator.device)
        self.models = nn.ModuleDict({"policy": self.learner, "critic": value_model})
        self.judge = None if self.reference is None else Actor(self.reference)
        self.generator = TransformersGenerator(self.policy, encoder)
        # With several processes each forward pass meets the others', and what is learned from must be a single one.
        self.tokens_at_once = TOKENS_IN_CACHE if self.accelerator.device.type == "cpu" and world == 1 else None
        self.streams, self.projected = list(streams), list[str]()
        self.rewards = self._load_rewards()

    def _load_rewards(self) -> list[RewardFunction]:
        """What scores the rows, stream by stream; reward models of a folder are scaled."""
        samples: list[Encoded] = []
        rewards: list[RewardFunction] = []
        for stream in self.streams:
            if not isinstance(stream.reward, Path | str):
                rewards.append(stream.reward)
                continue
            scorer = load_reward(stream.reward, self.encoder, [row.prompt for row in self.prompts])
            if isinstance(scorer, ProjectedReward):
                self.projected.append(stream.name)
                self._say(
                    f"{stream.name}: {stream.reward} has another tokenizer or template than the policy; its rewards "
                    "are projected through the characters that tokens stand for, and their sum stays the same"
                )
            if self.config.reward_scaling == RewardScaling.START:
                if not samples:
                    # The same samples on every process, so that all of them scale alike.
                    count, seed = min(256, len(self.prompts)), self.config.seed
                    chosen = random.Random(seed).sample(list(self.prompts), count)
                    samples = [encode_rollout(rollout) for rollout in self._sample(chosen, seed=seed)]
                scorer = scorer.fitted(samples) if isinstance(scorer, ProjectedReward) else fit_scale(scorer, samples)
            rewards.append(scorer)
        return rewards

    def _sample(self, prompts: Sequence[PromptRow], *, seed: int) -> list[Rollout]:
        config = self.config
        with self.accelerator.autocast():
            return self.generator(
                prompts, Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=seed)
            )

    def evaluate(self, evaluate: Evaluate | None, step: int) -> Mapping[str, float]:
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
            experience, metrics, samples = self._collect(step)
        except NotFinite as error:
            raise ValueError(f"step {step + 1}: {error}") from error
        metrics |= self._learn(experience, step)
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

    def _collect(self, step: int) -> tuple[Experience, dict[str, float], list[dict[str, Any]]]:
        config, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        chosen = _prompts_of_step(len(self.prompts), step, config)[rank::world]
        rollouts = self._sample([self.prompts[k] for k in chosen], seed=_seed(config.seed, step, rank))
        rows = [encode_rollout(rollout) for rollout in rollouts]
        batch = pad(rows, pad_id=self.encoder.pad_id).to(self.accelerator.device)
        mask_BT = batch.response_mask_BT
        ended_B = torch.tensor([row.ended for row in rows], device=batch.ids_BT.device)
        *read, live = self._read(batch)
        old_BT, entropy_BT, ref_BT, value_HBT, bootstrap_HB = read
        raw = {
            each.name: pad_stream(rewards_of(each, reward(rows), rollouts), batch)
            for each, reward in zip(self.streams, self.rewards, strict=True)
        }
        names = [rollout.id for rollout in rollouts]
        streams_BT = {each.name: paid(each, raw[each.name], mask_BT, self._moments, names) for each in self.streams}
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
            self.heads, summed(self.heads, self.streams, streams_BT), value_HBT, bootstrap_HB, strict=True
        ):
            if config.reward_scaling == RewardScaling.BATCH:
                reward_BT = self._whitened(reward_BT, mask_BT, losses.whiten_keeping_mean)
            advantage_BT, return_BT = losses.gae(
                reward_BT, value_BT, mask_BT, ended_B, bootstrap_B, discount=head.discount, gae_lambda=config.gae_lambda
            )
            left, whole = (float(self._moments(x_BT, mask_BT).variance) for x_BT in (advantage_BT, return_BT))
            explained.append(1 - left / whole if whole > 0 else 0.0)
            advantages.append(head.weight * self._whitened(advantage_BT, mask_BT, losses.whiten))
            returns.append(return_BT)
        # Advantages are mixed, not rewards: each stream keeps its own discount, and none drowns the other.
        advantage_BT = advantages[0]
        if len(advantages) > 1:
            advantage_BT = self._whitened(torch.stack(advantages).sum(0), mask_BT, losses.whiten)
        length_B = mask_BT.sum(1).float()
        score_B = torch.stack([streams_BT[each.name] for each in self.streams]).sum(0).sum(1)
        total_B = torch.stack(list(streams_BT.values())).sum(0).sum(1)
        metrics = self._mean(
            **{f"objective/scores_{each.name}": raw[each.name].sum(1) for each in self.streams},
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
        self.insist(metrics, step + 1, trained=step > 0)
        del metrics["advantages"], metrics["returns"]
        metrics["policy/entropy_avg"] = metrics.pop("entropy") / max(metrics["response/length"], 1e-9)
        metrics["val/num_eos_tokens"] = round(metrics["response/ended"] * config.rollouts_per_step)
        metrics["val/explained_variance"] = min(explained)
        experience = Experience(batch, old_BT, ref_BT, value_HBT, advantage_BT, torch.stack(returns), live)
        few = slice(0, config.samples_per_step)
        shown = {**{f"rewards/{name}": each_BT for name, each_BT in streams_BT.items()}, "advantages": advantage_BT}
        shown |= {f"values/{head.name}": value_BT for head, value_BT in zip(self.heads, value_HBT, strict=True)}
        shown |= {"logprobs": old_BT, "ref_logprobs": ref_BT}
        lists = {name: to_lists(each_BT[few], batch[few]) for name, each_BT in shown.items()}
        return (
            experience,
            metrics,
            [_sample_row(rollout, self.encoder, k, lists) for k, rollout in enumerate(rollouts[few])],
        )

    def _read(self, batch: TokenBatch) -> tuple[Any, ...]:
        """Log-probabilities and entropy of the policy, log-probabilities of the reference, values and bootstraps.

        None of them has a gradient. At the end stands what is ``live`` in the experience.
        """
        config, temperature = self.config, self.config.temperature
        shape = batch.ids_BT.shape
        old_BT, entropy_BT, ref_BT = torch.zeros(3, *shape, device=batch.ids_BT.device)
        value_HBT = old_BT.new_zeros(len(self.heads), *shape)
        bootstrap_HB = old_BT.new_zeros(len(self.heads), len(batch.ids_BT))
        # Nothing is learned before the first minibatch; if that is all there is, its forward pass is this one.
        single = config.minibatch_size == config.rollouts_per_step and len(batch.ids_BT) <= config.micro_batch_size
        live = list[Live]()
        for rows in batch.alike(self._rows_at_once(batch)):
            part = batch.narrowed(rows)
            with torch.no_grad(), self.accelerator.autocast():
                if self.judge is None:
                    with adapter_off(self.learner):
                        of_ref_BT, _ = self.actor(part, temperature)
                else:
                    of_ref_BT, _ = self.judge(part, temperature)
            with torch.set_grad_enabled(single):
                of_old_BT, of_entropy_BT = self.actor(part, temperature, True)
                of_value_HBT, of_bootstrap_HB = critic_values(self.critic, part)
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

    def _rows_at_once(self, batch: TokenBatch) -> int:
        """How many rows of a batch are computed at a time."""
        rows = self.config.micro_batch_size
        return rows if self.tokens_at_once is None else max(1, min(rows, self.tokens_at_once // batch.ids_BT.shape[1]))

    def _learn(self, experience: Experience, step: int) -> dict[str, float]:
        config, accelerator = self.config, self.accelerator
        pairs = ((self.actor, self.policy_optimizer), (self.critic, self.critic_optimizer))
        share = _rate(step, config)
        for (_, optimizer), rate in zip(pairs, (config.rate, config.value_learning_rate), strict=True):
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate * share
        totals: dict[str, float] = {}
        minibatches, stopped = 0, 0.0
        for minibatch in self._minibatches(experience, step):
            count = int(accelerator.reduce(minibatch.batch.response_mask_BT.sum(), reduction="sum"))
            sums: dict[str, Tensor] = {}
            parts = list(minibatch.split(self._rows_at_once(minibatch.batch)))
            for number, part in enumerate(parts, start=1):
                with ExitStack() as waiting:
                    if number < len(parts):  # gradients meet those of other processes once a minibatch
                        for model, _ in pairs:
                            waiting.enter_context(accelerator.no_sync(model))
                    policy_loss, value_loss, shown = policy_and_value_loss(
                        self.actor, self.critic, part, config, num_tokens=count
                    )
                    # DDP averages over processes what the global count wants summed.
                    total = (policy_loss + config.value_coefficient * value_loss) * accelerator.num_processes
                    accelerator.backward(total)
                shown = {name: each / count for name, each in shown.items()}
                shown |= {"policy_loss": policy_loss.detach().double(), "value_loss": value_loss.detach().double()}
                sums = {name: each + sums.get(name, 0) for name, each in shown.items()}
            found = self._sum(sums)
            self.insist(found, step + 1, trained=step > 0 or minibatches > 0)
            if minibatches and config.target_kl is not None and found["approxkl"] > config.target_kl:
                for _, optimizer in pairs:
                    optimizer.zero_grad()
                stopped = 1.0
                break
            minibatches += 1
            for name, (model, _) in zip(("grad_norm", "value_grad_norm"), pairs, strict=True):
                found[name] = float(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm or inf))
            self.insist(found, step + 1, trained=step > 0 or minibatches > 1)
            for _, optimizer in pairs:
                optimizer.step()
                optimizer.zero_grad()
            totals = {name: totals.get(name, 0.0) + value for name, value in found.items()}
        norms = {f"norm of the weights of the {name}": norm_of(model) for name, model in self.models.items()}
        self.insist(norms, step + 1, trained=True)
        self._gather()
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

    def _gather(self) -> None:
        """Bring what is sampled from up to what was learned."""
        if self.sharded:
            _copy(_tensors(_trained(self.learner)), _trained(self.policy))

    def _minibatches(self, experience: Experience, step: int) -> Iterator[Experience]:
        size = self.config.minibatch_size // self.accelerator.num_processes
        rows = experience.batch.ids_BT.shape[0]
        order = torch.Generator().manual_seed(_seed(self.config.seed, step, self.accelerator.process_index))
        for epoch in range(self.config.optimisation_epochs):
            parts = torch.randperm(rows, generator=order).tensor_split(list(range(size, rows, size)))
            if epoch == 0 and experience.live:
                yield experience
                continue
            for part in parts:
                yield experience[part.to(experience.batch.ids_BT.device)]

    def _moments(self, x_BT: Tensor, mask_BT: Tensor) -> losses.Moments:
        """Count, sum and sum of squares over the tokens of all processes."""
        local = torch.stack(tuple(losses.moments(x_BT, mask_BT)))
        return losses.Moments(*self.accelerator.reduce(local, reduction="sum").unbind())

    def _whitened(self, x_BT: Tensor, mask_BT: Tensor, how: Callable[..., Tensor]) -> Tensor:
        moments = self._moments(x_BT, mask_BT)
        return how(x_BT, mask_BT, mean=moments.mean, variance=moments.variance)

    def _mean(self, **values_B: Tensor) -> dict[str, float]:
        stacked = torch.stack([value.mean() for value in values_B.values()])
        return dict(zip(values_B, self.accelerator.reduce(stacked, reduction="mean").tolist(), strict=True))

    def _sum(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
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
                save_file(_tensors(_trained(self.policy)), partial / "policy.safetensors")
                seal(partial)
        for words in self._warn(metrics.lines):
            self._say(words)

    def _say(self, words: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(words, file=sys.stderr)

    def _warn(self, lines: Sequence[Mapping[str, float]]) -> list[str]:
        """What is to be said after these lines and was not said before."""
        new = {
            sign.name: f"step {int(lines[-1]['step'])}: {sign.words}"
            for sign in signs_of_collapse(lines)
            if sign.name not in self.told
        }
        self.told |= new
        return list(new.values())

    def best(self, metrics: Metrics) -> int | None:
        """The first step with the highest value of what the best is chosen by."""
        name = self.config.best_by
        seen = [line for line in metrics.lines if name in line]
        return int(max(seen, key=lambda line: line[name])["step"]) if seen else None

    def save(self, work: Path, step: int, metrics: Metrics, samples: Metrics) -> None:
        """Write a checkpoint in one step: the main process does, once it has the others' shares."""
        files: dict[str, dict[str, Tensor]] = {}
        for name, model, optimizer in self._learners():
            files |= {name: _tensors(_trained(model)), f"{name}_optimizer": _optimizer_tensors(optimizer)}
        if not self.accelerator.is_main_process:
            return
        with new_folder(work / f"step-{step}") as partial:
            for name, tensors in files.items():
                save_file(tensors, partial / f"{name}.safetensors")
            write_json(partial / "marks.json", {"metrics": metrics.mark(), "samples": samples.mark()})
            seal(partial)
        # What came before is not needed now; it was until here, for a kill may come between any two lines.
        keep = {f"step-{step}", f"best-{self.best(metrics)}"}
        for folder in [*work.glob("step-*"), *work.glob("best-*")]:
            if folder.name not in keep:
                shutil.rmtree(folder)

    def _learners(self) -> list[tuple[str, Any, Any]]:
        return [
            ("policy", self.learner, self.policy_optimizer),
            ("critic", self.accelerator.unwrap_model(self.critic), self.critic_optimizer),
        ]

    def resume(self, run: RunFolder) -> tuple[Metrics, Metrics]:
        """Go back to the last checkpoint of this very run; returns its metrics and samples, empty without one."""
        work = run.work
        if self.accelerator.is_main_process:
            run.begin()
        self.accelerator.wait_for_everyone()
        self.done = max((int(path.name.split("-")[1]) for path in work.glob("step-*")), default=-1)
        marks: dict[str, Any] = {}
        if self.done >= 0:
            folder = work / f"step-{self.done}"
            check_sealed(folder, f"delete {folder.parent}, and rerun the same command to start over")
            if (folder / "marks.json").exists():
                marks = read_record(folder / "marks.json", metrics=dict, samples=dict)
            for name, model, optimizer in self._learners():
                _copy(read_tensors(folder / f"{name}.safetensors"), _trained(model))
                _load_optimizer(optimizer, read_tensors(folder / f"{name}_optimizer.safetensors"))
            self._gather()
        main = self.accelerator.is_main_process
        metrics, samples = (
            Metrics(work / f"{name}.jsonl", last_step=self.done, writes=main, mark=marks.get(name))
            for name in ("metrics", "samples")
        )
        for count in range(1, len(metrics.lines) + 1):
            self._warn(metrics.lines[:count])
        return metrics, samples

    def finish(
        self, work: Path, out: Path, card: Mapping[str, Any], metrics: Metrics, samples: Metrics
    ) -> dict[str, Any]:
        """Write the policy to ``out``, and the best one into it; returns the record as written."""
        written = dict(card)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            tokenizer, folders = self.encoder.tokenizer, {}
            # Sampling stopped at these, so what was learned ends there, if any response did.
            ended = any(line.get("val/num_eos_tokens") for line in metrics.lines)
            more: Any = {"dtype": self.config.save_dtype, "ends": self.encoder.end_ids if ended else ()}
            best = self.best(metrics)
            if best is not None:
                last = {name: tensor.detach().clone() for name, tensor in _trained(self.policy).items()}
                check_sealed(work / f"best-{best}", f"delete {work}, and rerun the same command to start over")
                _copy(read_tensors(work / f"best-{best}" / "policy.safetensors"), _trained(self.policy))
                folders["best"] = work / "best"
                kept, how, _ = self._whole(work)
                save_model(kept, tokenizer, folders["best"], card=card, **how, **more)
                _copy(last, _trained(self.policy))
            trained, how, adapter = self._whole(work)
            folders |= {**adapter, **({"errata": work / "errata"} if (work / "errata").exists() else {})}
            files = {"metrics.jsonl": metrics.text(), "samples.jsonl": samples.text()}
            written = save_model(trained, tokenizer, out, card=card, files=files, folders=folders, **how, **more)
            shutil.rmtree(work, ignore_errors=True)
        for tracker in self.accelerator.trackers:  # end_training would end what joins the processes, too
            tracker.finish()
        self.accelerator.wait_for_everyone()
        return dict(broadcast_object_list([written])[0]) if self.accelerator.num_processes > 1 else written

    def _whole(self, work: Path) -> tuple[Any, dict[str, Any], dict[str, Path]]:
        """The policy as it is written (``written_adapter``)."""
        if not has_adapter(self.policy):
            return self.policy, {}, {}
        return written_adapter(self.policy, work / "adapter", self.config)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn: all, or those of the adapter."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _gathered(tensor: Tensor) -> Tensor:
    """With the shares of all processes, which all have to ask."""
    from torch.distributed.tensor import DTensor  # a second to import, at the first checkpoint

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(whole: Tensor, tensor: Tensor) -> Tensor:
    """A tensor that was whole, in shares where the other is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    whole = whole.to(tensor.device)
    return distribute_tensor(whole, tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else whole


def _tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _gathered(tensor.detach()).cpu().contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def _copy(tensors: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    assert tensors.keys() == into.keys(), tensors.keys() ^ into.keys()
    for name, tensor in into.items():
        tensor.copy_(_like(tensors[name], tensor))


def _optimizer_tensors(optimizer: Any) -> dict[str, Tensor]:
    """The state of AdamW as tensors; its settings are those of the run."""
    state = optimizer.state_dict()["state"]
    return _tensors({f"{number}.{name}": each for number, found in state.items() for name, each in found.items()})


def _load_optimizer(optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    (group,) = optimizer.param_groups
    for key, tensor in tensors.items():
        number, name = key.split(".")
        # All but the count of steps have the shape of the parameter, and are shared out as it is.
        parameter = group["params"][int(number)]
        state.setdefault(int(number), {})[name] = tensor if name == "step" else _like(tensor, parameter.detach())
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _bare(row: PromptRow, *, encoder: Encoder) -> tuple[Encoded]:
    ids = encoder.prompt_ids(row.prompt)
    return (Encoded(ids, len(ids), (), ended=False),)


def _rate(step: int, config: PPOConfig) -> float:
    """The share of the learning rates that a step has."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return warm * (1.0 if config.schedule == "constant" else 1 - step / config.steps)


def _sample_row(rollout: Rollout, encoder: Encoder, k: int, lists: Mapping[str, list[list[float]]]) -> dict[str, Any]:
    """A line of samples.jsonl: the tokens of a response, and a number for each of them from every stream."""
    row = {"id": rollout.id, "prompt": rollout.prompt, "response": rollout.text, "ended": rollout.ended}
    tokens = encoder.tokenizer.convert_ids_to_tokens(list(rollout.response_ids))
    streams = {name: [round(value, 6) for value in each[k]] for name, each in lists.items()}
    return {**row, "ids": list(rollout.response_ids), "tokens": tokens, **streams}


def _prompts_of_step(count: int, step: int, config: PPOConfig) -> list[int]:
    """Which prompts a step takes: passes over all of them, each in a seeded order of its own."""
    first = step * config.rollouts_per_step
    wanted = range(first, first + config.rollouts_per_step)
    orders: dict[int, list[int]] = {}
    for number in {k // count for k in wanted}:
        orders[number] = list(range(count))
        random.Random(_seed(config.seed, number)).shuffle(orders[number])
    return [orders[k // count][k % count] for k in wanted]


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
