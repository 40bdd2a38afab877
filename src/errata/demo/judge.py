"""The judge of the embedded world: which words of a letter are wrong, and what would mend each of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from random import Random

from rapidfuzz.distance import Levenshtein

from errata.demo.language import RUDE, Card, Template, Token, Topic, match, opening_words, parse_card, scan, spell
from errata.types import Prompt

__all__ = ["Defect", "DefectKind", "Judgement", "judge", "preference"]


class DefectKind(StrEnum):
    """What can be wrong with a letter."""

    WRONG_FACT = "wrong_fact"
    """A value that contradicts the card, or a whole sentence about something that is not on it."""
    RUDE = "rude"
    """A rude word."""
    MISSING = "missing"
    """A fact of the card (the greeting included) that no sentence states: an empty span where it would stand."""
    REPETITION = "repetition"
    """A fact stated again, whatever the words and values."""
    CLOSING = "closing"
    """No right closing, one too early, or text after it."""
    GARBLED = "garbled"
    """A sentence that no template explains, or a first greeting in the middle of the letter."""


@dataclass(frozen=True, slots=True)
class Defect:
    """Characters ``start`` to ``stop`` (exclusive) of the response are wrong; ``start == stop`` where text is missing.

    Any text of ``mends`` in their place repairs the defect; the empty text deletes them.
    """

    kind: DefectKind
    start: int
    stop: int
    mends: tuple[str, ...]


_DELETE = ("",)


@dataclass(frozen=True, slots=True)
class Judgement:
    """All defects of one response, from left to right."""

    defects: tuple[Defect, ...]

    @property
    def count(self) -> int:
        """The number of defects."""
        return len(self.defects)

    @property
    def by_kind(self) -> Mapping[DefectKind, int]:
        """The number of defects of each kind, zeros included."""
        found = Counter(defect.kind for defect in self.defects)
        return {kind: found[kind] for kind in DefectKind}

    @property
    def well_formed(self) -> bool:
        """Whether every sentence is one of the shop's and a right closing ends the letter."""
        return not any(defect.kind in (DefectKind.GARBLED, DefectKind.CLOSING) for defect in self.defects)


@dataclass(frozen=True, slots=True)
class _Sentence:
    tokens: Sequence[Token]
    template: Template | None

    @property
    def topic(self) -> Topic | None:
        return None if self.template is None else self.template.topic

    @property
    def start(self) -> int:
        return self.tokens[0].start

    @property
    def stop(self) -> int:
        return self.tokens[-1].stop

    def flawed(self, kind: DefectKind, mends: tuple[str, ...] = _DELETE) -> Defect:
        return Defect(kind, self.start, self.stop, mends)


_OPENING = opening_words()


def _sentences(tokens: Sequence[Token]) -> list[_Sentence]:
    """Cut a text greedily from left to right; what no template explains ends at a full stop or before an opening."""
    words = [token.text for token in tokens]
    sentences = []
    at = 0
    while at < len(words):
        template = match(words, at)
        if template is not None:
            stop = at + len(template.words)
        else:
            stop = at + 1
            while stop < len(words) and words[stop - 1] not in ".!?" and words[stop] not in _OPENING:
                stop += 1
        sentences.append(_Sentence(tokens[at:stop], template))
        at = stop
    return sentences


def _nearest(sentence: _Sentence, card: Card, topics: Iterable[Topic]) -> tuple[Topic, tuple[str, ...]] | None:
    """The first of the right sentences that are the fewest words away, if at least half of it is there already."""
    words = [token.text for token in sentence.tokens]
    candidates = [(topic, candidate) for topic in topics for candidate in card.sentences[topic]]
    distances = [Levenshtein.distance(words, candidate) for _, candidate in candidates]
    near = [
        (distance, *pair) for distance, pair in zip(distances, candidates, strict=True) if 2 * distance <= len(pair[1])
    ]
    return min(near, key=itemgetter(0))[1:] if near else None


class _Reading:
    """One pass over a letter, sentence by sentence, that collects its defects."""

    def __init__(self, card: Card, tokens: Sequence[Token]) -> None:
        self.card = card
        self.sentences = _sentences([token for token in tokens if token.text not in RUDE])
        self.end = tokens[-1].stop if tokens else 0
        self.defects = [Defect(DefectKind.RUDE, t.start, t.stop, _DELETE) for t in tokens if t.text in RUDE]
        self._find_statements()
        self._find_closing()
        self._read_body()
        self._read_end()
        self.defects.sort(key=lambda defect: (defect.start, defect.stop))

    def _find_statements(self) -> None:
        """Which sentence states each fact: the first one, save for a greeting that does not come first of all."""
        self.statements: dict[Topic, int] = {}
        for at, sentence in enumerate(self.sentences):
            topic = sentence.topic
            if topic is None or topic not in self.card.facts or topic in self.statements:
                continue
            if topic is not Topic.NAME or not self.statements:
                self.statements[topic] = at
        self.missing = [topic for topic in self.card.facts if topic not in self.statements]

    def _find_closing(self) -> None:
        """Where the letter ends: at the first right closing after all statements, else at the last attempt at one."""
        after = range(max(self.statements.values(), default=-1) + 1, len(self.sentences))
        right = [at for at in after if self.sentences[at].topic is Topic.CLOSING]
        attempts = (at for at in reversed(after) if self._is_attempt(self.sentences[at]))
        self.closing = right[0] if right else next(attempts, len(self.sentences))

    def _is_attempt(self, sentence: _Sentence) -> bool:
        if sentence.topic is None:
            return _nearest(sentence, self.card, [Topic.CLOSING]) is not None
        return sentence.topic is Topic.DISMISSAL

    def _read_body(self) -> None:
        places: dict[Topic, int] = {}
        for at, sentence in enumerate(self.sentences[: self.closing]):
            topic = sentence.topic
            if topic is None:
                meant, words = _nearest(sentence, self.card, self._repairable(at, places)) or (None, ())
                self.defects.append(sentence.flawed(DefectKind.GARBLED, (spell(words),)))
                if meant is not None:
                    self.missing.remove(meant)
                    places[meant] = sentence.stop
            elif topic in (Topic.CLOSING, Topic.DISMISSAL):
                self.defects.append(sentence.flawed(DefectKind.CLOSING))
            elif topic not in self.card.facts:
                self.defects.append(sentence.flawed(DefectKind.WRONG_FACT))
            elif topic in self.missing:
                self.defects.append(sentence.flawed(DefectKind.GARBLED))
            elif self.statements.get(topic) != at:
                self.defects.append(sentence.flawed(DefectKind.REPETITION))
            else:
                places[topic] = sentence.stop
                self._compare(sentence, self.card.facts[topic])
        self._read_gaps(places)

    def _repairable(self, at: int, places: Mapping[Topic, int]) -> list[Topic]:
        """The missing facts that a garbled sentence may be turned into: nothing may come before the greeting."""
        if at < self.statements.get(Topic.NAME, 0):
            return []
        return [topic for topic in self.missing if topic is not Topic.NAME or not places]

    def _compare(self, sentence: _Sentence, facts: Mapping[str, str]) -> None:
        assert sentence.template is not None
        for place, slot in sentence.template.slots:
            token = sentence.tokens[place]
            if token.text != facts[slot]:
                self.defects.append(Defect(DefectKind.WRONG_FACT, token.start, token.stop, (facts[slot],)))

    def _read_gaps(self, places: dict[Topic, int]) -> None:
        """A missing sentence belongs right after the one that best precedes it."""
        place = 0
        for topic in Topic:
            if topic in self.missing:
                mends = tuple(spell(words) for words in self.card.sentences[topic])
                self.defects.append(Defect(DefectKind.MISSING, place, place, mends))
            place = places.get(topic, place)

    def _read_end(self) -> None:
        closings = self.card.sentences[Topic.CLOSING]
        if self.closing == len(self.sentences):
            mends = tuple(spell(words) for words in closings)
            self.defects.append(Defect(DefectKind.CLOSING, self.end, self.end, mends))
            return
        sentence, tail = self.sentences[self.closing], self.sentences[self.closing + 1 :]
        if sentence.topic is not Topic.CLOSING:
            words = [token.text for token in sentence.tokens]
            distances = [Levenshtein.distance(words, closing) for closing in closings]
            mends = tuple(
                spell(closing)
                for closing, distance in zip(closings, distances, strict=True)
                if distance == min(distances)
            )
            self.defects.append(sentence.flawed(DefectKind.CLOSING, mends))
        if tail:
            self.defects.append(Defect(DefectKind.CLOSING, tail[0].start, tail[-1].stop, _DELETE))


def judge(prompt: Prompt, response: str) -> Judgement:
    """Find the defects of a response to a card; nothing but the two texts is known. Any response can be judged.

    Raises:
        ValueError: the prompt is no card of this world.
    """
    return Judgement(tuple(_Reading(parse_card(prompt), scan(response)).defects))


def preference(prompt: Prompt, a: str, b: str, rng: Random, *, noise: float = 1.75) -> bool:
    """Whether somebody prefers ``a`` to ``b``: true with probability σ((defects of b − defects of a) / noise).

    Args:
        prompt: the card.
        a: one response.
        b: the other.
        rng: where the chance comes from; one number is drawn.
        noise: the temperature, in defects.

    Raises:
        ValueError: the noise is not above 0, or the prompt is no card of this world.
    """
    if noise <= 0:
        raise ValueError(
            f"noise {noise} must be above 0; a small value such as 0.01 makes the better response always win"
        )
    margin = (judge(prompt, b).count - judge(prompt, a).count) / noise
    # σ as a hyperbolic tangent, which cannot overflow.
    return rng.random() < (1 + math.tanh(margin / 2)) / 2
