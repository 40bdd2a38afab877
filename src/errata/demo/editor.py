"""The editor of the embedded world: makes the minimal correction, and overlooks some defects, as people do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from errata.demo.judge import Defect, judge
from errata.edits import word_distance
from errata.types import Prompt

__all__ = ["correct", "edit_cost"]


def _glue(left: str, right: str) -> str:
    """Two pieces of a letter, divided by a space where the writing asks for one."""
    if not left or not right or left[-1].isspace() or right[0].isspace() or right[0] in ".,":
        return left + right
    return f"{left} {right}"


def _mend(response: str, defects: Iterable[Defect], choose: Callable[[tuple[str, ...]], str]) -> str:
    """Replace each span by one of its mends; a defect inside a longer one goes with it."""
    text = ""
    done = 0

    def keep(stop: int) -> str:
        kept = response[done:stop]
        return _glue(text, kept if text or not done else kept.lstrip())

    for defect in sorted(defects, key=lambda defect: (defect.start, defect.stop > defect.start, -defect.stop)):
        if defect.start < done:
            continue
        mend = choose(defect.mends)
        text = keep(defect.start)
        text = _glue(text, mend) if mend else text.rstrip()
        done = defect.stop
    return keep(len(response))


def correct(prompt: Prompt, response: str, rng: Random, *, diligence: float = 1.0) -> str:
    """Correct each defect of a response with the fewest words that mend it, if it is noticed.

    A wrong value is replaced, a rude word, a repetition and text after the closing are deleted, a missing sentence is
    inserted where it best stands, a garbled sentence becomes the missing one that keeps at least half of its words, or
    goes. With diligence 1 the judge finds nothing afterwards, whatever the response was. A clean text comes back as is.

    Args:
        prompt: the card.
        response: any text.
        rng: decides which defects are noticed and which of several equally good sentences is written.
        diligence: the probability that a defect is noticed, each independently of the others.

    Raises:
        ValueError: the prompt is no card of this world.
    """
    noticed = [defect for defect in judge(prompt, response).defects if rng.random() < diligence]
    return _mend(response, noticed, rng.choice) if noticed else response


def edit_cost(prompt: Prompt, response: str) -> int:
    """The words that the full editor would still change: 0 for a clean response.

    Word Levenshtein distance to the correction that takes the first of several equally good sentences, so that the
    same texts always cost the same.

    Raises:
        ValueError: the prompt is no card of this world.
    """
    defects = judge(prompt, response).defects
    return word_distance(response, _mend(response, defects, lambda mends: mends[0])) if defects else 0
