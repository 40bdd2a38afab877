"""Fine-grained PPO: a reward on every token, paid where the credit belongs (Xu et al., Eq 4; docs/ppo.md).

The loop knows per-token reward streams (``tuning/streams.py``) and nothing of where they come from. A sequence-level
reward model is the stream that pays at the last token: with γ = 1 that is the ordinary PPO of RLHF.

Every random choice is a function of (seed, step, process), and so is the learning rate of the step. A checkpoint of
weights, optimizers and the number of steps is therefore all there is to a run, and a resumed run repeats the
uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from errata.data import Encoder, LengthCounts, encode_rows, rows_of
from errata.models import (
    identity,
    read_card,
    settle,
)
from errata.models.load import dtypes_in_words
from errata.pretrained import find_model
from errata.reward import RewardFunction
from errata.runs import RunFolder, fingerprint_of, named, writes_out
from errata.tuning import collapse
from errata.tuning.ppo.checkpoints import finish, resume, save
from errata.tuning.ppo.config import PPOConfig
from errata.tuning.ppo.rollout import bare
from errata.tuning.ppo.run import Evaluate, Run
from errata.tuning.ppo.shares import trainable
from errata.tuning.streams import Stream, check_streams
from errata.types import PromptRow

__all__ = ["train_ppo"]


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
    prompts = [row for row, _ in encode_rows(prompts, partial(bare, encoder=encoder), counts)]
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
    run = Run(model, streams, prompts, encoder, config, critic=critic)
    work = folder.work
    metrics, samples = resume(run, folder)
    run.start_tracker(work)
    done = max(run.done, 0)
    bar = tqdm(range(done, config.steps), initial=done, total=config.steps, desc="PPO", disable=None)
    if run.done < 0:
        run.note(metrics, {"step": 0, "seconds": 0.0, **run.evaluate(evaluate, 0)}, work)
    for step in bar:
        if config.stop_on_collapse and any(sign.stops for sign in collapse.signs_of_collapse(metrics.lines)):
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
            save(run, work, done, metrics, samples)
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
        "trained_dtype": dtypes_in_words(trainable(run.policy)),
        **({"base_commit": run.policy.origin.commit} if run.policy.origin.commit else {}),
        **(noted or {}),
        **({"warnings": warnings} if warnings else {}),
    }
    best = run.best(metrics)
    if best is not None:
        by = config.best_by
        card |= {"best_step": best, f"best_{by}": next(line[by] for line in metrics.lines if line["step"] == best)}
    return finish(run, work, out, card, metrics, samples)
