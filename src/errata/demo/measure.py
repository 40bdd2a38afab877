"""How good a policy or a reward model of the demo is: the world's judge and editor, asked on held-out prompts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import torch

from errata.data import Encoder
from errata.demo.editor import correct, edit_cost
from errata.demo.judge import judge, preference
from errata.labels import label, label_all
from errata.losses import kl_k1
from errata.models import (
    TokenBatch,
    TransformersGenerator,
    pad,
    token_entropy,
    token_logprobs,
)
from errata.models.generation import Sampling
from errata.reward import RewardFunction, best_of_n, encode_rollout, localisation, pair_accuracy, score_texts
from errata.types import Correction, PromptRow, Rollout, TokenLabels
from errata.winrate import mean_interval, rate_interval, verdicts_from_scores

__all__ = ["decoded", "during_training", "examples", "reward_model", "win_rate_over"]

BATCH_SIZE = 256


def decoded(
    rollouts: Sequence[Rollout],
    *,
    against: Sequence[Rollout],
    outsider: Mapping[str, str],
    model: Any,
    start: Any,
    encoder: Encoder,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Everything the report says of one policy under one way of decoding (a ``DecodedResult`` as a dict).

    Args:
        rollouts: one response for each held-out prompt.
        against: the start's, decoded the same way.
        outsider: a frozen response to each prompt, by id.
        model: the policy.
        start: the model that it was trained from.
        encoder: of both.
        temperature: of the policy whose KL and entropy are told; the start's is 1.
    """
    found = [judge(row.prompt, row.text) for row in rollouts]
    kinds = Counter(defect.kind.value for judgement in found for defect in judgement.defects)
    kl, entropy = _kl_and_entropy(rollouts, model, start, encoder, temperature)
    cost = mean_interval([edit_cost(row.prompt, row.text) for row in rollouts], least=1.0)
    return {
        **win_rate_over(_scores(rollouts), _scores(against)),
        "mean_defects": float(np.mean([judgement.count for judgement in found])),
        "edit_cost": cost.mean,
        "edit_cost_low": cost.low,
        "edit_cost_high": cost.high,
        "mean_length": float(np.mean([len(row.response_ids) for row in rollouts])),
        "well_formed": float(
            np.mean([judgement.well_formed and row.ended for judgement, row in zip(found, rollouts, strict=True)])
        ),
        "kl": kl,
        "entropy": entropy,
        "defects_by_kind": {kind: count / len(rollouts) for kind, count in sorted(kinds.items())},
        "outsider": win_rate_over(
            _scores(rollouts), {row.id: -float(judge(row.prompt, outsider[row.id]).count) for row in rollouts}
        ),
    }


def win_rate_over(candidate: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    """Win rate, ties one half, with its 95 % interval over prompts."""
    interval = rate_interval([verdict.score for verdict in verdicts_from_scores(candidate, baseline)])
    return {"win_rate": interval.mean, "ci_low": interval.low, "ci_high": interval.high}


def during_training(
    prompts: Sequence[PromptRow], sampling: Sampling, *, start: Any, reward: RewardFunction, encoder: Encoder
) -> Callable[[TransformersGenerator, int], dict[str, float]]:
    """An evaluation to hand to PPO: samples of the policy so far against the start's, the proxy beside the truth."""
    baseline = _scores(TransformersGenerator(start, encoder)(prompts, sampling))

    def evaluate(generator: TransformersGenerator, step: int) -> dict[str, float]:
        del step
        rollouts = generator(prompts, sampling)
        scores = _scores(rollouts)
        return {
            "win_rate": win_rate_over(scores, baseline)["win_rate"],
            "mean_defects": -float(np.mean(list(scores.values()))),
            "heldout_kl": _kl_and_entropy(rollouts, generator.model, start, encoder)[0],
            "proxy_reward": float(np.mean(score_texts(reward, [encode_rollout(row) for row in rollouts]))),
        }

    return evaluate


def reward_model(
    reward: RewardFunction,
    groups: Sequence[Sequence[Rollout]],
    encoder: Encoder,
    rng: Random,
    *,
    diligence: float,
    localises: bool,
) -> dict[str, Any]:
    """Accuracy, localisation and best-of-n of one reward model on samples of the start for held-out prompts."""
    rows = [[encode_rollout(rollout) for rollout in group] for group in groups]
    scores = [score_texts(reward, group) for group in rows]
    # A held-out preference: the first two samples of a prompt, judged with noise as in training.
    prefers_first = [preference(group[0].prompt, group[0].text, group[1].text, rng) for group in groups]
    chosen = [pair[0] if first else pair[1] for pair, first in zip(scores, prefers_first, strict=True)]
    rejected = [pair[1] if first else pair[0] for pair, first in zip(scores, prefers_first, strict=True)]
    halfway = _labels([group[0] for group in groups], encoder, rng, diligence)
    everything = _labels([group[0] for group in groups], encoder, rng, 1.0)
    best = [group[index] for group, index in zip(groups, best_of_n(reward, rows), strict=True)]
    found = localisation(reward, everything) if localises else None
    return {
        "preference_accuracy": pair_accuracy(chosen, rejected),
        "edit_accuracy": pair_accuracy(
            score_texts(reward, [row.edited.encoded for row in halfway]),
            score_texts(reward, [row.original.encoded for row in halfway]),
        ),
        "auc_bad_kept": found.bad_kept if found and math.isfinite(found.bad_kept) else None,
        "auc_bad_good": found.bad_good if found and math.isfinite(found.bad_good) else None,
        "best_of_8": {
            "win_rate": win_rate_over(_scores(best), _scores([group[0] for group in groups]))["win_rate"],
            "mean_defects": -float(np.mean(list(_scores(best).values()))),
        },
    }


def examples(
    before: Sequence[Rollout], after: Sequence[Rollout], reward: RewardFunction, encoder: Encoder, *, name: str
) -> list[dict[str, Any]]:
    """Responses to the same prompts, their tokens with their rewards, what the full editor would change outlined."""
    return [
        {
            "prompt": str(first.prompt),
            "before": _example(first, reward, encoder),
            "after": _example(second, reward, encoder),
            "name": name,
        }
        for first, second in zip(before, after, strict=True)
    ]


def _example(rollout: Rollout, reward: RewardFunction, encoder: Encoder) -> dict[str, Any]:
    row = label(_corrected(rollout, Random(0), 1.0), encoder).original
    pieces = [encoder.tokenizer.decode([token], skip_special_tokens=False) for token in row.encoded.response_ids]
    values = reward([row.encoded])[0]
    return {
        "text": rollout.text,
        "tokens": [
            {"text": piece, "value": value, "outlined": bool(mark)}
            for piece, value, mark in zip(pieces, values, row.labels, strict=True)
        ],
    }


def _scores(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Fewer defects is better."""
    return {row.id: -float(judge(row.prompt, row.text).count) for row in rollouts}


def _corrected(rollout: Rollout, rng: Random, diligence: float) -> Correction:
    return Correction(
        id=rollout.id,
        prompt=rollout.prompt,
        original=rollout.text,
        edited=correct(rollout.prompt, rollout.text, rng, diligence=diligence),
        original_ids=rollout.response_ids,
    )


def _labels(rollouts: Sequence[Rollout], encoder: Encoder, rng: Random, diligence: float) -> list[TokenLabels]:
    """Labels of the responses that the editor changed."""
    rows = [_corrected(rollout, rng, diligence) for rollout in rollouts]
    return list(label_all([row for row in rows if row.edited != row.original], encoder))


@torch.no_grad()
def _kl_and_entropy(
    rollouts: Sequence[Rollout], model: Any, start: Any, encoder: Encoder, temperature: float = 1.0
) -> tuple[float, float]:
    """Mean over responses of the summed log-ratio to the start, and entropy per token; nats."""
    kl, entropy, tokens = 0.0, 0.0, 0
    for first in range(0, len(rollouts), BATCH_SIZE):
        part = rollouts[first : first + BATCH_SIZE]
        batch: TokenBatch = pad([encode_rollout(row) for row in part], pad_id=encoder.pad_id)
        mask_BT = batch.response_mask_BT
        logprob_BT = token_logprobs(model, batch, temperature=temperature)
        kl += float(kl_k1(logprob_BT, token_logprobs(start, batch), mask_BT).sum())
        entropy += float(token_entropy(model, batch, temperature=temperature).sum())
        tokens += int(mask_BT.sum())
    return kl / len(rollouts), entropy / tokens
