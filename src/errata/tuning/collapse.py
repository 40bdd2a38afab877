"""How a PPO run collapses, said in words: functions of the lines of metrics.jsonl alone.

A reward model is a proxy, and a policy that games it shows it elsewhere than in the reward (docs/ppo.md). A run that
was killed decides as one that was not, because nothing but the lines is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

__all__ = ["Sign", "signs_of_collapse"]

WINDOW = 5
"""Steps that are averaged at the start and at the end; nothing is said before there are twice as many."""

Line = Mapping[str, float]


class Sign(NamedTuple):
    """One thing that goes wrong."""

    name: str
    words: str
    """What is seen, and what helps."""
    stops: bool = True
    """Whether ``--stop-on-collapse`` ends the run for it."""


def signs_of_collapse(lines: Sequence[Line]) -> list[Sign]:
    """What the last steps show of a policy that games its reward, or is lost.

    >>> line = {"objective/scores": 1.0, "objective/kl": 3.0, "response/length": 10.0, "response/repetition": 0.0,
    ...         "response/ended": 1.0, "policy/entropy_avg": 2.0, "val/explained_variance": 0.4}
    >>> signs_of_collapse([line] * 20)
    []
    >>> [sign.name for sign in signs_of_collapse([line] * 10 + [{**line, "response/ended": 0.0}] * 5)]
    ['no end']
    """
    steps = [line for line in lines if "objective/scores" in line]
    if len(steps) < 2 * WINDOW:
        return []

    def at(part: Sequence[Line], key: str) -> float:
        return fmean(line[key] for line in part)

    first, last = steps[:WINDOW], steps[-WINDOW:]
    paid_more = at(last, "objective/scores") > at(first, "objective/scores")
    signs = []
    before, now = at(first, "response/length"), at(last, "response/length")
    if paid_more and now > 1.5 * before:
        signs.append(
            Sign(
                "length",
                f"the reward rises and so does the length, from {before:.3g} to {now:.3g} tokens: words are paid for "
                "being there; lower --discount, centre the rewards, or give --length-penalty",
            )
        )
    elif paid_more and now > 1.15 * (low := _lowest_mean([line["response/length"] for line in steps[:-WINDOW]])):
        signs.append(
            Sign(
                "longer",
                f"the reward rises, and responses, which had {low:.3g} tokens at their shortest, have {now:.3g}: it "
                "may be more that is paid for; read some against those of an earlier step, and raise --kl-coefficient, "
                "lower --discount or take fewer --steps",
                stops=False,
            )
        )
    before, now = at(first, "response/repetition"), at(last, "response/repetition")
    if paid_more and now > before + 0.15:
        signs.append(
            Sign(
                "repetition",
                f"the reward rises while {now:.0%} of all token triples are repeats, at the start {before:.0%}: the "
                "policy says again what was paid once; raise --kl-coefficient or lower --discount",
            )
        )
    each = [line["objective/kl"] / max(line["response/length"], 1.0) for line in steps]
    usual = median(each[-2 * WINDOW : -1])
    if each[-1] > max(0.3, 3 * usual):
        signs.append(
            Sign(
                "KL",
                f"the KL to the start jumped from {usual:.2g} to {each[-1]:.2g} nats a token within a step: lower "
                "--learning-rate, or give --target-kl",
            )
        )
    if not at(last, "response/ended"):
        could = at(first, "response/ended")
        how = f"at the start {could:.0%} did" if could else "nor did one at the start: raise --max-new-tokens"
        signs.append(Sign("no end", f"no response ends any more, {how}; give --missing-eos-penalty", stops=bool(could)))
    before, now = at(first, "policy/entropy_avg"), at(last, "policy/entropy_avg")
    if now < 0.1 * before:
        signs.append(
            Sign(
                "entropy",
                f"the entropy fell from {before:.2g} to {now:.2g} nats a token: there is nothing left to choose from; "
                "raise --kl-coefficient or lower --learning-rate",
            )
        )
    explained = at(last, "val/explained_variance")
    if explained < 0:
        signs.append(
            Sign(
                "critic",
                f"the critic explains {explained:.2g} of the variance of the returns, less than a constant would: "
                "raise --value-learning-rate",
                stops=False,
            )
        )
    return signs


def _lowest_mean(values: Sequence[float]) -> float:
    """Of any window of steps."""
    return min(fmean(values[start : start + WINDOW]) for start in range(len(values) - WINDOW + 1))
