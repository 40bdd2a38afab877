"""Promoted or refused, and why in words: a pure function of what was measured on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Annotated

from errata.ranges import Range, Ranged
from errata.winrate import FEWEST, Interval
from errata.workflows.measure import Comparison, DraftFigures, TokenLogprobs

__all__ = ["Condition", "Decision", "Limits", "Measured", "decide"]


@dataclass(frozen=True, kw_only=True)
class Limits(Ranged):
    """How far something else may get worse before a model that leaves less to correct is refused all the same."""

    max_repetition_rise: Annotated[float, Range(low=-1, high=1)] = 0.05
    """Rise of the mean share of repeated runs of four words (1 is all)."""
    max_length_ratio: Annotated[float, Range(above=0, high=inf)] = 1.5
    """Mean length of the new drafts over that of the old model's."""
    max_ended_drop: Annotated[float, Range(low=-1, high=1)] = 0.05
    """Fall of the share of drafts that end before the limit (1 is all)."""
    max_general_rise: Annotated[float, Range(high=inf)] = 0.1
    """Rise of the loss on the general text, in nats a token."""
    max_kept_drop: Annotated[float, Range(high=inf)] = 0.1
    """Fall of the log-probability of tokens that people left alone, in nats a token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Two models on the same held-out rows, and what they think of the same texts."""

    old: Mapping[str, DraftFigures]
    """By decoding: ``greedy`` and ``sampled``."""
    new: Mapping[str, DraftFigures]
    comparison: Mapping[str, Comparison]
    """By decoding."""
    old_tokens: TokenLogprobs
    new_tokens: TokenLogprobs
    old_general: float | None = None
    """Loss on the general text in nats a token; None where none was given."""
    new_general: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One thing that has to hold."""

    name: str
    """A short name that does not change."""
    holds: bool
    said: str
    """What was found, in a sentence with its numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of the new model."""

    promoted: bool
    conditions: tuple[Condition, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each condition that failed; of a promoted model, what it was promoted for."""
        failed = tuple(one.said for one in self.conditions if not one.holds)
        return failed or (self.conditions[0].said,)


def decide(found: Measured, limits: Limits) -> Decision:
    """Promoted if the greedy edit cost falls for certain and nothing else breaks.

    The first condition wants the whole 95 % interval of the paired difference below 0: an improvement that cannot be
    told from noise is refused. Where users are told apart the interval is over users, and the mean over rows has to be
    below 0 as well.
    """
    conditions = tuple(_conditions(found, limits))
    return Decision(promoted=all(one.holds for one in conditions), conditions=conditions)


def _conditions(found: Measured, limits: Limits) -> Iterator[Condition]:
    greedy = found.comparison["greedy"]
    falls = greedy.difference.high < 0 and greedy.by_row < 0
    more = "" if falls else f". {_why_not(greedy)}"
    yield Condition(name="edit_cost", holds=falls, said=f"Decoded greedily, {_cost(found, 'greedy')}{more}.")
    rises = found.comparison["sampled"].difference.low > 0
    yield Condition(name="sampled_edit_cost", holds=not rises, said=f"Sampled, {_cost(found, 'sampled')}.")
    for decoding in ("greedy", "sampled"):
        old, new = found.old[decoding], found.new[decoding]
        how = "greedy" if decoding == "greedy" else "sampled"
        yield _at_most(
            f"{decoding}_repetition",
            new.repetition - old.repetition,
            limits.max_repetition_rise,
            f"of the runs of four words in {how} drafts {_p(new.repetition)} stood in them before, "
            f"{_p(old.repetition)} with the old model; the limit is a rise by {_p(limits.max_repetition_rise)}",
        )
        yield _at_most(
            f"{decoding}_length",
            new.length / max(old.length, 1.0),
            limits.max_length_ratio,
            f"{how} drafts have {_n(new.length)} tokens, {_n(old.length)} with the old model; the limit is "
            f"{_n(limits.max_length_ratio)} times as many",
        )
        yield _at_most(
            f"{decoding}_ended",
            old.ended - new.ended,
            limits.max_ended_drop,
            f"of the {how} drafts {_p(new.ended)} come to an end, {_p(old.ended)} with the old model; the limit is a "
            f"fall by {_p(limits.max_ended_drop)}",
        )
    if found.old_tokens.kept is not None and found.new_tokens.kept is not None:
        yield _at_most(
            "kept_tokens",
            found.old_tokens.kept - found.new_tokens.kept,
            limits.max_kept_drop,
            f"tokens that people left alone have a log-probability of {_n(found.new_tokens.kept)}, "
            f"{_n(found.old_tokens.kept)} with the old model; the limit is a fall by {_n(limits.max_kept_drop)} nats",
        )
    if found.old_general is not None and found.new_general is not None:
        yield _at_most(
            "general_loss",
            found.new_general - found.old_general,
            limits.max_general_rise,
            f"the loss on the general text is {_n(found.new_general)} nats a token, {_n(found.old_general)} with the "
            f"old model; the limit is a rise by {_n(limits.max_general_rise)}",
        )


def _at_most(name: str, value: float, limit: float, said: str) -> Condition:
    # NaN is not at most anything.
    return Condition(name=name, holds=value <= limit + 1e-12, said=f"{said[0].upper()}{said[1:]}.")


def _cost(found: Measured, decoding: str) -> str:
    old, new = found.old[decoding].edit_cost.mean, found.new[decoding].edit_cost.mean
    compared = found.comparison[decoding]
    difference: Interval = compared.difference
    what = "falls" if difference.high < 0 else "rises" if difference.low > 0 else "cannot be told from unchanged"
    digits = _digits(compared)
    over = "a difference of" if compared.users is None else f"over {compared.users} users a mean difference of"
    mean, low, high = (_n(value, digits) for value in (difference.mean, difference.low, difference.high))
    return (
        f"what is left to correct {what}: {_n(new, digits)} words a draft, {_n(old, digits)} with the old model, "
        f"{over} {mean} (95 % interval {low} to {high})"
    )


def _why_not(compared: Comparison) -> str:
    """What stands in the way of certainty, and what would help."""
    count, mean = compared.independent, compared.difference.mean
    what = "rows" if compared.users is None else "users"
    if count < FEWEST:
        remedy = (
            "" if compared.users is None else ", or let rows decide (--judge-by rows), which says nothing of others"
        )
        return f"Too few {what}: {count} judged, at least {FEWEST} needed; hold out more{remedy}"
    if compared.difference.high < 0:
        return f"But counted by row it does not fall: a difference of {_n(compared.by_row, _digits(compared))}"
    if mean >= 0:
        return "It did not fall, so more rows would not help"
    if compared.detectable is None:
        return f"Too few {what}: {count} judged, and they would show no difference for certain; hold out more"
    needed = _round_up(count * (compared.detectable / mean) ** 2)
    if needed > count:
        return f"Too few {what} to be certain of so small a difference: {count} judged, about {needed:,} needed"
    return f"{count} {what} show a difference from about {_n(compared.detectable, _digits(compared))} words on"


def _round_up(count: float) -> int:
    """A number of rows in two digits, upwards.

    >>> _round_up(23.4), _round_up(1234)
    (24, 1300)
    """
    step: int = 10 ** max(0, len(str(math.ceil(count))) - 2)
    return math.ceil(count / step) * step


def _digits(compared: Comparison) -> int:
    """Decimals that so many rows are worth; more where an end of the interval would read as 0 and is not."""
    ends = [end for end in (compared.difference.low, compared.difference.high) if end]
    least = 2 if compared.independent >= 100 else 1
    return next((digits for digits in range(least, 6) if all(round(end, digits) for end in ends)), 6)


def _n(value: float, digits: int = 2) -> str:
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")  # round: no minus before a nought


def _p(value: float) -> str:
    return f"{100 * value:.1f} %"
