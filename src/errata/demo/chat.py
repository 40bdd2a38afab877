"""The editor of the embedded world in the place of a language model: it answers what ``errata edits llm`` asks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

from errata.client import Answer, Ask, Stop
from errata.demo.editor import correct
from errata.demo.judge import DefectKind, judge
from errata.edits import read_material

__all__ = ["EditorChat"]

_REASONS = {
    DefectKind.WRONG_FACT: "wrong",
    DefectKind.RUDE: "style",
    DefectKind.MISSING: "missing",
    DefectKind.REPETITION: "style",
    DefectKind.CLOSING: "instruction",
    DefectKind.GARBLED: "style",
}


class EditorChat:
    """A ``Chat`` that corrects letters by their cards; asked again, it says that it cannot.

    It looks at the card, so a reference tells it nothing. The same request always has the same answer.
    """

    def __init__(self, *, diligence: float = 1.0, seed: int = 0) -> None:
        self.diligence = diligence
        """The probability that a defect is noticed."""
        self.seed = seed

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer each request of the editor's."""
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        prompt, response, _ = read_material(ask.messages)
        edited = correct(prompt, response, Random(f"{self.seed} {prompt} {response}"), diligence=self.diligence)
        before, after = (judge(prompt, text).by_kind for text in (response, edited))
        mended = [kind for kind in DefectKind if after[kind] < before[kind]]
        value = {
            "why": f"mended: {', '.join(mended)}" if mended else "nothing is wrong",
            "verdict": "keep" if edited == response else "edit",
            "reasons": sorted({_REASONS[kind] for kind in mended}),
            "text": "" if edited == response else edited,
        }
        if len(ask.messages) > 2:
            value |= {"why": "it takes more than a few words", "verdict": "cannot", "reasons": [], "text": ""}
        text = json.dumps(value, ensure_ascii=False)
        words = [sum(len(message["content"].split()) for message in ask.messages), len(text.split())]
        return Answer(
            text=text,
            stop=Stop.END,
            model="demo-editor",
            input_tokens=words[0],
            output_tokens=words[1],
            cost=0.0,
            value=value,
        )
