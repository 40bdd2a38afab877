"""A judge on edits: is each better than what it was made of? What ``edit_drafts`` takes as ``objections``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from errata.client import total_cost
from errata.types import Prompt
from errata.winrate.judges import Judge, Pair, Ruling

__all__ = ["BetterEdits"]

_WHY = {
    "original": "the judge prefers the response as it was",
    "neither": "the judge finds neither better",
    "inconsistent": "the judge contradicts itself when the two texts change places",
    "invalid": "the judge gave no valid verdict",
}


class BetterEdits:
    """Objects to each edit that the judge does not prefer to its original, in both orders if it is asked in orders.

    >>> from errata.winrate import ScoreJudge
    >>> shorter = BetterEdits(ScoreJudge(lambda answers: [-len(text) for _, _, text in answers], name="shorter"))
    >>> shorter([("Hi", "hello", "hey"), ("Hi", "hey", "hello")])
    [None, 'the judge prefers the response as it was']
    >>> print(shorter)
    function judge shorter: 1 of 2 edits preferred, 1 original
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.rulings: list[Ruling] = []
        """On all edits so far."""

    def __call__(self, edits: Sequence[tuple[Prompt, str, str]]) -> list[str | None]:
        """Of each (prompt, original, edited) why the edit is not better, with the judge's words; None if it is."""
        rulings = self.judge(
            [
                Pair(id=str(k), prompt=prompt, candidate=edited, baseline=original)
                for k, (prompt, original, edited) in enumerate(edits)
            ]
        )
        self.rulings += rulings
        return [_objection(ruling) for ruling in rulings]

    def as_dict(self) -> dict[str, Any]:
        """Who judged, how many edits, how they fared and what it cost this time, ready for JSON."""
        words = Counter(map(_word, self.rulings))
        return {
            "judge": asdict(self.judge.identity),
            "edits": len(self.rulings),
            **{name: words[name] for name in ("preferred", *_WHY)},
            "input_tokens": sum(ruling.input_tokens for ruling in self.rulings),
            "output_tokens": sum(ruling.output_tokens for ruling in self.rulings),
            "cost_now": total_cost(ruling.cost for ruling in self.rulings),
        }

    def __str__(self) -> str:
        found, who = self.as_dict(), self.judge.identity
        said = "".join(f", {found[name]} {name}" for name in _WHY if found[name])
        prompt = f"; prompt {who.prompt} {who.prompt_hash}" if who.prompt else ""
        cost = "" if not found["cost_now"] else f"; ${found['cost_now']:.4f} this time"
        return (
            f"{who.kind} judge {who.name}: {found['preferred']} of {found['edits']} edits preferred{said}{cost}{prompt}"
        )


def _word(ruling: Ruling) -> str:
    if not ruling.valid:
        return "invalid"
    if ruling.orders is not None and ruling.orders[0] != ruling.orders[1]:
        return "inconsistent"
    return "preferred" if ruling.score > 0.5 else "original" if ruling.score < 0.5 else "neither"


def _objection(ruling: Ruling) -> str | None:
    word = _word(ruling)
    if word == "preferred":
        return None
    words = "; ".join(reason for reason in dict.fromkeys(ruling.reasons) if reason)
    return f"{_WHY[word]}: {words}" if words else _WHY[word]
