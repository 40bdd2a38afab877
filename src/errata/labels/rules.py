"""What the user may choose of how an edit becomes labels, and the text that teaches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from errata.edits import diff
from errata.edits.ungrounded import unknowable
from errata.types import Correction, Ties, Unit

__all__ = ["DEFAULT", "LabelRules", "ignored"]

_SIGN_OF_BLOCK = re.compile("</?(?:think|reasoning|tool_|function_)")
_BLOCKS = re.compile(
    r"(?:\A(?:(?!<think(?:ing)?>).)*?</think(?:ing)?>)"  # a template may have opened the block
    r"|<(think|thinking|reasoning|tool_calls?|tool_response|function_calls?)>.*?(?:</\1>|\Z)",
    re.DOTALL,
)


def _one_of(kind: type[StrEnum], value: str, name: str) -> StrEnum:
    if value not in list(kind):
        raise ValueError(f"unknown {name} {value!r}; use one of {', '.join(kind)}")
    return kind(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRules:
    """How an edit becomes labels."""

    unit: Unit = Unit.WORD
    """What one edit changes: word (a changed word marks all its pieces and nothing else), phrase, char or token."""
    ties: Ties = Ties.DEPARTURE
    """Which of several edits that are equally few: departure takes the last place, where a reader from left to right
    sees the texts part (of a sentence said twice the second goes); tagger the first, as quality-estimation tags do;
    released what FIGA's released code takes."""
    omissions: Literal["unmarked", "blame"] = "unmarked"
    """blame: where the edit only inserts, the original's token right after the gap is OMISSION (end included)."""
    inventions: Literal["learn", "ignore"] = "learn"
    """ignore: what an edit adds and the model could not have known (numbers, names, links) is IGNORED."""
    reasoning: Literal["ignore", "learn"] = "ignore"
    """ignore: <think> blocks and tool calls that the edit left alone are IGNORED on both sides."""

    def __post_init__(self) -> None:
        """Take plain texts for units and ties, and refuse what no rule is called.

        Raises:
            ValueError: a value that is none of its field's.
        """
        object.__setattr__(self, "unit", _one_of(Unit, self.unit, "unit"))
        object.__setattr__(self, "ties", _one_of(Ties, self.ties, "ties"))
        for name in ("omissions", "inventions", "reasoning"):
            values = ("unmarked", "blame") if name == "omissions" else ("learn", "ignore")
            if getattr(self, name) not in values:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; use one of {', '.join(values)}")


DEFAULT = LabelRules()


def ignored(row: Correction, rules: LabelRules) -> Iterator[tuple[int, int, int]]:
    """Side (0 original, 1 edited), start and stop of the characters that teach nothing."""
    texts = (row.original, row.edited)
    if rules.reasoning == "ignore" and _SIGN_OF_BLOCK.search(row.original):
        blocks = [[match.span() for match in _BLOCKS.finditer(text)] for text in texts]
        read = [[text[start:stop] for start, stop in side] for text, side in zip(texts, blocks, strict=True)]
        if read[0] == read[1]:
            yield from ((side, start, stop) for side in (0, 1) for start, stop in blocks[side])
    if rules.inventions == "ignore":
        yield from ((1, span.start, span.stop) for span in unknowable(row, diff(row.original, row.edited)))
