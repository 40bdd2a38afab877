"""Scripted chat models: what a judge is told is read back from its request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from errata.client import Answer, Ask, Stop

SHOWN = re.compile(r"<(\w+) (\w{8})>\n(.*?)\n</\1 \2>", re.DOTALL)


def shown(ask: Ask) -> dict[str, str]:
    """The request, the first and the second answer."""
    return {found[1]: found[3] for found in SHOWN.finditer(ask.messages[-1]["content"])}


class Scripted:
    """A chat model that judges by a function of (request, first, second) to ``first``, ``second``, ``tie`` or else.

    Anything else, and None, is an answer without a verdict.
    """

    def __init__(self, judge: Callable[[str, str, str], str | None], *, cost: float | None = 0.001) -> None:
        self.judge, self.cost = judge, cost
        self.asks: list[Ask] = []

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        self.asks += asks
        return [self.answer(ask) for ask in asks]

    def answer(self, ask: Ask) -> Answer:
        seen = shown(ask)
        better = self.judge(seen["request"], seen["first"], seen["second"])
        spent = {"input_tokens": 100, "output_tokens": 10}
        if better is None:
            return Answer(text="", stop=Stop.ERROR, error="timed out", model="scripted-1", cost=self.cost, **spent)
        value = {"reason": f"{better} it is", "better": better}
        return Answer(text=json.dumps(value), stop=Stop.END, value=value, model="scripted-1", cost=self.cost, **spent)


def fewer_rude(request: str, first: str, second: str) -> str:
    """A good judge of the toy world: fewer "rude" wins."""
    a, b = first.count("rude"), second.count("rude")
    return "first" if a < b else "second" if b < a else "tie"
