"""The win rate of a policy while it is tuned: its answers to held-out prompts against the start's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from errata.data import Encoder
from errata.runs import identity_of
from errata.types import Demonstration, PromptRow
from errata.winrate.comparison import contest
from errata.winrate.judges import Judge

if TYPE_CHECKING:
    from errata.models import Generator, Precision, Sampling

__all__ = ["win_rate_over_start"]


def win_rate_over_start(
    start: Path | str, prompts: Sequence[PromptRow], judge: Judge, encoder: Encoder, sampling: Sampling
) -> Callable[[Generator, int], dict[str, float]]:
    """What ``ppo`` takes as ``evaluate``: ``win_rate`` (½ at the start) and more, by which the best policy is chosen.

    Both sides are decoded alike, from one seed. The start answers when it is first needed, so a run that is taken up
    again compares with the same answers.

    Args:
        start: the model that the policy started from.
        prompts: held-out ones, two or more.
        judge: says which answer is better; not the reward model that the policy learns from, if it can be helped.
        encoder: of the policy.
        sampling: how both answer.
    """
    # And torch, which a contest of texts does without.
    import torch

    from errata.models import TransformersGenerator, device, identity, load_causal

    baseline: list[Demonstration] = []

    def answers(generator: Generator) -> list[Demonstration]:
        return [
            # A control token that was sampled is no text, and could end a prompt of the judge's.
            Demonstration(id=row.id, prompt=row.prompt, response=encoder.decode(encoder.spoken_ids(one.response_ids)))
            for row, one in zip(prompts, generator(prompts, sampling), strict=True)
        ]

    def evaluate(generator: Generator, step: int) -> dict[str, float]:
        if not baseline:
            # In the type that the policy is computed in, so that the start ties with itself.
            policy = getattr(getattr(generator, "model", None), "dtype", None)
            precision: Precision = "master" if policy in (torch.float32, torch.float64) else "saved"
            model = load_causal(start, precision=precision).to(device())
            baseline.extend(answers(TransformersGenerator(model, encoder)))
        found, _ = contest({"policy": answers(generator)}, baseline, judge, seed=sampling.seed)
        (arm,) = found.arms
        if arm.win_rate is None or arm.length_controlled is None:
            raise ValueError(
                f"step {step}: {arm.valid} valid verdicts on {arm.prompts} held-out prompts are no win rate; ask the "
                "judge with `errata winrate` what is wrong, then rerun the same command to resume"
            )
        measured = {
            "win_rate": arm.win_rate.mean,
            "win_rate_low": arm.win_rate.low,
            "win_rate_high": arm.win_rate.high,
            "win_rate_invalid": arm.invalid / arm.prompts,
            "win_rate_at_equal_length": arm.length_controlled.mean,
            "heldout_words": arm.mean_length,
        }
        return measured if arm.mean_value is None else {**measured, "heldout_judge": arm.mean_value}

    evaluate.identity = [  # type: ignore[attr-defined]
        "win rate over the start",
        identity(start),
        [(row.id, row.prompt) for row in prompts],
        identity_of(judge),
        encoder.fingerprint,
        asdict(sampling),
    ]
    return evaluate
