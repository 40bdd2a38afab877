"""Promoted or refused, and why in words: a pure function of what was measured on held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Annotated, Literal

from errata.ranges import Range, Ranged
from errata.workflows.edit_points import PointsCompared
from errata.workflows.measure import Comparison, DraftFigures, TokenLogprobs
from errata.workflows.verdict_words import change, decimals, named, number, percent, why_not

__all__ = ["AnewCompared", "Condition", "Decision", "Drafter", "JudgedPairs", "Limits", "Measured", "decide"]


@dataclass(frozen=True, kw_only=True)
class Limits(Ranged):
    """How far something else may get worse before a model that leaves less to correct is refused all the same."""

    max_over_editing: Annotated[float, Range(low=-1, high=1)] = 0.1
    """Rise of the share of the words that people left alone and the model would write otherwise (1 is all). Not 0:
    people overlook things, and a model that has learned well does not."""
    max_repetition_rise: Annotated[float, Range(low=-1, high=1)] = 0.05
    """Rise of the mean share of repeated runs of four words (1 is all)."""
    max_length_ratio: Annotated[float, Range(above=0, high=inf)] = 1.5
    """Mean length of the new drafts over that of the old model's."""
    max_ended_drop: Annotated[float, Range(low=-1, high=1)] = 0.05
    """Fall of the share of drafts that end before the limit (1 is all)."""
    min_ended: Annotated[float, Range(low=0, high=1)] = 0.5
    """Fewest drafts of either model that have to end before --max-new-tokens, as a share of all: a model whose drafts
    are cut is not judged by them."""
    max_general_rise: Annotated[float, Range(high=inf)] = 0.1
    """Rise of the loss on the general text, in nats a token."""
    max_kept_drop: Annotated[float, Range(high=inf)] = 0.1
    """Fall of the log-probability of tokens that people left alone, in nats a token."""
    max_drafter_gap: Annotated[float, Range(above=0, high=inf)] = 1.5
    """Where another model drafted the log: words that --model leaves to correct, over those that the logged drafts
    left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafter:
    """Whether the old model is the one that wrote the logged drafts."""

    rows: int
    """Held-out rows on which that was looked at."""
    again: float
    """Share of the logged drafts that the old model, asked anew and decoded greedily, writes again: nine words of ten
    are the same."""
    told: Literal["auto", "model", "other"] = "auto"
    """What the user said."""
    logged_cost: float = 0.0
    """Words that people changed in a logged draft."""

    @property
    def own(self) -> bool:
        """Whether the drafts count as the old model's own."""
        return self.told == "model" or (self.told == "auto" and self.again >= _MOST)


_MOST = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class AnewCompared:
    """Fresh drafts of both models, corrected anew by one editor who did not know whose they were."""

    editor: str
    old: float
    """Words changed in a draft of the old model."""
    new: float
    words: Comparison
    """Words changed in a draft, new − old, paired by row."""
    unedited: int
    """Drafts that the editor gave nothing for; the other model's draft of such a row is left out, too."""
    rewritten: int
    """Drafts of which it changed most words."""
    drafts: int
    """All drafts that it was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedPairs:
    """Fresh drafts of both models, side by side before a judge."""

    judge: str
    pairs: int
    """With a valid ruling."""
    invalid: int
    rate: float
    """Share that the new model won, ties as halves."""
    low: float
    high: float
    """Of its 95 % interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Two models on the same held-out rows, and what they think of the same texts."""

    points: PointsCompared
    """Along what was sent; nothing is generated."""
    drafter: Drafter
    old: Mapping[str, DraftFigures]
    """By decoding: ``greedy`` and ``sampled``."""
    new: Mapping[str, DraftFigures]
    comparison: Mapping[str, Comparison]
    """By decoding: the distance of fresh drafts to what was sent."""
    old_tokens: TokenLogprobs
    new_tokens: TokenLogprobs
    old_general: float | None = None
    """Loss on the general text in nats a token; None where none was given."""
    new_general: float | None = None
    anew: AnewCompared | None = None
    """None where no editor was given."""
    judged: JudgedPairs | None = None
    """None where no judge was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One thing that has to hold."""

    name: str
    """A short name that does not change."""
    holds: bool
    said: str
    """What was found, in a sentence with its numbers."""
    remedy: str = ""
    """What to do next where it does not hold."""


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

    @property
    def next(self) -> str:
        """The one thing to do next."""
        return next(iter(self._remedies), _PROMOTED)

    @property
    def then(self) -> tuple[str, ...]:
        """What the other conditions that failed ask for, in their order, each thing once."""
        return self._remedies[1:]

    @property
    def _remedies(self) -> tuple[str, ...]:
        failed = [one for one in self.conditions if not one.holds]
        # Where nothing can be judged, that comes before what was found by it.
        failed.sort(key=lambda one: one.name not in _FIRST)
        return tuple(dict.fromkeys(one.remedy for one in failed))


_FIRST = ("drafts_end", "drafter")
_PROMOTED = "Let some people work with model/, and run errata learn on what they change in its drafts."


def decide(found: Measured, limits: Limits) -> Decision:
    """Promoted if people would have less to change for certain, and nothing else breaks.

    What decides first is what an editor still changes in fresh drafts; without an editor, the edit points: how many of
    the words that people changed the model would by itself not write as they did. Of the paired difference the whole
    95 % interval has to lie below 0: an improvement that cannot be told from noise is refused. The interval is over
    users where those who judge were not trained on, else over rows; the mean the other way has to be below 0 as well.
    The distance of fresh drafts to the text that was sent has to fall, too, where another model drafted the log; where
    it drafted the log itself, any better model pays for each word that it says differently, and the distance decides
    nothing.
    """
    conditions = tuple(_conditions(found, limits))
    return Decision(promoted=all(one.holds for one in conditions), conditions=conditions)


def _conditions(found: Measured, limits: Limits) -> Iterator[Condition]:
    if found.anew is not None:
        yield _anew(found.anew)
    yield _edit_points(found.points, decides=found.anew is None)
    yield from _over_editing(found.points, limits)
    if not found.drafter.own:
        yield _distance(found)
        yield _drafter(found, limits)
    if found.judged is not None:
        yield _judged(found.judged)
    yield _drafts_end(found, limits)
    for decoding in ("greedy", "sampled"):
        yield from _drafts(found.old[decoding], found.new[decoding], decoding, limits)
    if found.old_tokens.kept is not None and found.new_tokens.kept is not None:
        yield _at_most(
            "kept_tokens",
            found.old_tokens.kept - found.new_tokens.kept,
            limits.max_kept_drop,
            f"tokens that people left alone have a log-probability of {number(found.new_tokens.kept, 2)} nats, "
            f"{number(found.old_tokens.kept, 2)} with the old model; it may fall by {number(limits.max_kept_drop, 2)}",
            "Hold the new model closer to what people left alone: --kept-weight 1, in another --out.",
        )
    if found.old_general is not None and found.new_general is not None:
        yield _at_most(
            "general_loss",
            found.new_general - found.old_general,
            limits.max_general_rise,
            f"the loss on the general text is {number(found.new_general, 2)} nats a token, "
            f"{number(found.old_general, 2)} with the old model; it may rise by {number(limits.max_general_rise, 2)}",
            "Let the new model forget less: halve --learning-rate, in another --out.",
        )


def _anew(found: AnewCompared) -> Condition:
    fewer = found.words.fewer
    digits = decimals(found.words.independent)
    who = named(found.editor) if found.editor.startswith(("people", "the editor ")) else found.editor
    changes, it = ("change", "they") if found.editor == "people" else ("changes", "it")
    said = (
        f"{who} still {changes} {number(found.new, digits)} words in a draft of the new model, "
        f"{number(found.old, digits)} in one of the old: {change(found.words, found.old)}"
    )
    why, remedy = ("", "") if fewer else why_not(found.words)
    if found.rewritten > found.drafts / 2:
        why = f" But {it} wrote {found.rewritten:,} of {found.drafts:,} drafts anew, which says little of the drafts."
        remedy, fewer = "Let the editor change only what has to be changed, and rerun.", False
    without = f" {named(it)} gave nothing for {found.unedited:,} of {found.drafts:,} drafts." if found.unedited else ""
    return Condition(name="edited_anew", holds=fewer, said=f"{said}.{without}{why}", remedy=remedy)


def _edit_points(found: PointsCompared, *, decides: bool) -> Condition:
    fewer = found.missed.fewer
    digits = decimals(found.missed.independent)
    if not found.old.points:
        said = "The held-out rows have no place where people changed a word, so nothing can be judged by them."
        remedy = "Give a log with more rows in which people changed words."
        return Condition(name="edit_points", holds=not decides, said=said, remedy=remedy)
    said = (
        f"Of the words that people changed, the new model would by itself still get {number(found.new.missed, digits)} "
        f"a draft wrong, the old model {number(found.old.missed, digits)}: {change(found.missed, found.old.missed)}"
    )
    if decides:
        why, remedy = ("", "") if fewer else why_not(found.missed)
        return Condition(name="edit_points", holds=fewer, said=f"{said}.{why}", remedy=remedy)
    remedy = "Look at the examples in the report: the editor and the log seem to want different things."
    return Condition(name="edit_points", holds=found.missed.difference.low <= 0, said=f"{said}.", remedy=remedy)


def _over_editing(found: PointsCompared, limits: Limits) -> Iterator[Condition]:
    remedy = "Hold the new model closer to what people left alone: --kept-weight 1, in another --out."
    if found.new.otherwise_share is not None and found.old.otherwise_share is not None:
        yield _at_most(
            "over_editing",
            found.new.otherwise_share - found.old.otherwise_share,
            limits.max_over_editing,
            f"of the words that people left alone, the new model would write {percent(found.new.otherwise_share)} "
            f"otherwise, the old model {percent(found.old.otherwise_share)}; it may be "
            f"{number(100 * limits.max_over_editing, 0)} points more",
            remedy,
        )
    won, lost = found.old.missed - found.new.missed, found.new.otherwise - found.old.otherwise
    # Where nothing is won, the edit points say so.
    yield Condition(
        name="net_words",
        holds=lost <= max(won, 0.0) + 1e-12,
        said=f"Along what was sent, the new model gets {number(max(won, 0.0), 1)} more words a draft right that people "
        f"changed, and {number(max(lost, 0.0), 1)} fewer that they left alone; it has to win more than it loses.",
        remedy=remedy,
    )


def _distance(found: Measured) -> Condition:
    compared, old, new = found.comparison["greedy"], found.old["greedy"].edit_cost, found.new["greedy"].edit_cost
    fewer = compared.fewer
    digits = decimals(compared.independent)
    why, remedy = ("", "") if fewer else why_not(compared)
    said = (
        f"Fresh greedy drafts of the new model are {number(new.mean, digits)} words from what was sent, "
        f"{number(old.mean, digits)} with the old model: {change(compared, old.mean)}"
    )
    return Condition(name="edit_cost", holds=fewer, said=f"{said}.{why}", remedy=remedy)


def _drafter(found: Measured, limits: Limits) -> Condition:
    drafter, cost = found.drafter, found.old["greedy"].edit_cost.mean
    seen = f" It writes {percent(drafter.again)} of them again." if drafter.told == "auto" else ""
    # A word more or less is no sign of anything where drafts are nearly right.
    equal = cost <= limits.max_drafter_gap * max(drafter.logged_cost, 1.0)
    said = (
        f"--model does not seem to have written the logged drafts.{seen}"
        if drafter.told == "auto"
        else "Another model wrote the logged drafts."
    )
    gap = (
        f" It leaves {number(cost, 1)} words to correct where the logged drafts left {number(drafter.logged_cost, 1)}; "
        f"up to {number(limits.max_drafter_gap, 1)} times as many would do"
    )
    return Condition(
        name="drafter",
        holds=equal,
        said=f"{said}{gap}.",
        remedy="Give --model the model that wrote the drafts. If it did write them, by sampling, say so: "
        "rerun with --drafted-by model.",
    )


def _judged(found: JudgedPairs) -> Condition:
    without = f"; {found.invalid:,} more pairs got no valid word" if found.invalid else ""
    return Condition(
        name="judge",
        holds=found.high >= 0.5,
        said=f"{found.judge} prefers the new model's draft in {percent(found.rate)} of {found.pairs:,} pairs (with "
        f"95 % certainty {percent(found.low)} to {percent(found.high)}){without}; it must not be fewer than half for "
        "certain.",
        remedy="Read some pairs in the report: whoever judges wants something else than whoever edited the log.",
    )


def _drafts_end(found: Measured, limits: Limits) -> Condition:
    old, new = found.old["greedy"].ended, found.new["greedy"].ended
    return Condition(
        name="drafts_end",
        holds=min(old, new) >= limits.min_ended - 1e-12,
        said=f"Of the greedy drafts {percent(new)} come to an end, {percent(old)} with the old model; of either at "
        f"least {percent(limits.min_ended)} have to, for drafts that are cut show little.",
        remedy="Let drafts come to an end: double --max-new-tokens, in another --out.",
    )


def _drafts(old: DraftFigures, new: DraftFigures, how: str, limits: Limits) -> Iterator[Condition]:
    yield _at_most(
        f"{how}_repetition",
        new.repetition - old.repetition,
        limits.max_repetition_rise,
        f"of the runs of four words in {how} drafts {percent(new.repetition)} stood in them before, "
        f"{percent(old.repetition)} with the old model; it may be {number(100 * limits.max_repetition_rise, 0)} points "
        "more",
        "The new model repeats itself: train longer (--epochs 6), or halve --learning-rate, in another --out.",
    )
    yield _at_most(
        f"{how}_length",
        new.length / max(old.length, 1.0),
        limits.max_length_ratio,
        f"{how} drafts have {number(new.length, 0)} tokens, {number(old.length, 0)} with the old model; they may have "
        f"{number(limits.max_length_ratio, 1)} times as many",
        "The new model does not find an end: train longer (--epochs 6), in another --out.",
    )
    yield _at_most(
        f"{how}_ended",
        old.ended - new.ended,
        limits.max_ended_drop,
        f"of the {how} drafts {percent(new.ended)} come to an end, {percent(old.ended)} with the old model; it may be "
        f"{number(100 * limits.max_ended_drop, 0)} points less",
        "The new model does not find an end: train longer (--epochs 6), in another --out.",
    )


def _at_most(name: str, value: float, limit: float, said: str, remedy: str) -> Condition:
    # NaN is not at most anything.
    return Condition(name=name, holds=value <= limit + 1e-12, said=f"{named(said)}.", remedy=remedy)
