"""Can a judge be trusted? It is asked about answers of which one is better because a known defect was planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from errata.client import total_cost
from errata.edits.word_spans import split_words
from errata.winrate.comparison import compare_rulings, slices_by
from errata.winrate.contests import Slice
from errata.winrate.intervals import Interval
from errata.winrate.judges import Judge, JudgeIdentity, Pair

__all__ = ["JudgeCheck", "Planted", "check_judge"]

_LENGTHS = ("good is shorter", "as long", "good is longer")
_HALF = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """A good answer and the same answer with one defect; of a control, two answers of which neither is better."""

    id: str
    prompt: str
    good: str
    spoiled: str
    kind: str
    """Of the defect."""


@dataclass(frozen=True, kw_only=True)
class JudgeCheck:
    """How good a judge is on planted defects, and what leads it astray; a ``Slice``'s win rate is its accuracy."""

    judge: JudgeIdentity
    pairs: int
    accuracy: Interval | None
    """Share of the valid verdicts that preferred the good answer, a tie ½; ½ is what a judge who sees nothing gets.
    None where no verdict is valid."""
    right: int
    tied: int
    wrong: int
    invalid: int
    kinds: tuple[Slice, ...]
    """By the kind of defect."""
    lengths: tuple[Slice, ...]
    """By the good answer's words beside the spoiled one's: a judge that likes length is better where good is longer."""
    consistency: float | None
    """Share of the valid pairs on which the two orders agree; None where the judge was not asked in orders."""
    first_position: float | None
    """Share of its decided words that chose the answer shown first; ½ is no bias."""
    control_tied: float | None
    """Share of the control's pairs that it called a tie: there was nothing to prefer. An invalid verdict is none."""
    cost: float | None
    """US dollars of this run; None if a price is not known."""


def check_judge(judge: Judge, planted: Sequence[Planted], *, control: Sequence[Planted] = ()) -> JudgeCheck:
    """Ask about every planted pair, and about the control's.

    Args:
        judge: Any judge; a chat model is asked in both orders.
        planted: Pairs with different ids.
        control: Pairs of equally good answers, which count for nothing but ``control_tied`` and the cost.

    Raises:
        ValueError: Fewer than two planted pairs.
    """
    if len(planted) < 2:
        raise ValueError(f"{len(planted)} planted pairs: a check needs two or more")
    pairs = [
        Pair(id=one.id, prompt=one.prompt, candidate=one.good, baseline=one.spoiled, arm="good")
        for one in (*planted, *control)
    ]
    rulings = judge(pairs)
    ours, others = rulings[: len(planted)], rulings[len(planted) :]
    found = compare_rulings({"good": pairs[: len(planted)]}, {"good": ours}, judge.identity, examples=0)
    (arm,) = found.arms
    longer = [len(split_words(one.good)) - len(split_words(one.spoiled)) for one in planted]
    kinds = [one.kind for one in planted]
    return JudgeCheck(
        judge=found.judge,
        pairs=arm.prompts,
        accuracy=arm.win_rate,
        right=arm.wins,
        tied=arm.ties,
        wrong=arm.losses,
        invalid=arm.invalid,
        kinds=slices_by(kinds, ours, sorted(set(kinds))),
        lengths=slices_by([_LENGTHS[(more > 0) - (more < 0) + 1] for more in longer], ours, _LENGTHS),
        consistency=arm.consistency,
        first_position=arm.first_position,
        control_tied=sum(one.valid and one.score == _HALF for one in others) / len(others) if others else None,
        cost=total_cost(ruling.cost for ruling in rulings),
    )
