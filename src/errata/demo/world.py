"""The generator of the embedded world: seeded prompts, and responses whose defects are known because they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from random import Random

from errata.demo.judge import DefectKind
from errata.demo.language import PHRASES, RUDE, SLOTS, Card, Template, Topic, match, parse_card, spell
from errata.types import Prompt, PromptRow

__all__ = ["DefectRates", "make_prompts", "write_response", "write_with"]

_OPTIONAL = (
    Topic.CITY,
    Topic.CARRIER,
    Topic.ARRIVAL,
    Topic.PRICE,
    Topic.PAYMENT,
    Topic.GUARANTEE,
    Topic.CONTACT,
)
_CHANCES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class DefectRates:
    """The expected number of defects of each kind in a response; see ``DefectKind``.

    Each kind gets three independent chances (a closing one), so rates above 3 (1) are cut there.
    """

    wrong_fact: float = 0.6
    rude: float = 0.5
    missing: float = 0.45
    repetition: float = 0.35
    closing: float = 0.25
    garbled: float = 0.35

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"DefectRates: {field.name} is {getattr(self, field.name)}; rates are 0 or more")

    def scaled(self, factor: float) -> DefectRates:
        """The same mixture with ``factor`` times as many defects."""
        return DefectRates(**{field.name: getattr(self, field.name) * factor for field in fields(self)})

    def draw(self, rng: Random) -> list[DefectKind]:
        """The kinds of defects of one response, one entry for each defect."""
        kinds = []
        for kind in DefectKind:
            chances = 1 if kind is DefectKind.CLOSING else _CHANCES
            rate = getattr(self, kind)
            kinds += [kind for _ in range(chances) if rng.random() < rate / chances]
        return kinds


def make_prompts(count: int, rng: Random, *, prefix: str = "prompt") -> list[PromptRow]:
    """Draw ``count`` distinct cards: a name, an item, and two or three of seven other facts.

    Args:
        count: how many.
        rng: where the chance comes from.
        prefix: rows are called ``<prefix>-0``, ``<prefix>-1``, …
    """
    texts: dict[str, None] = {}
    while len(texts) < count:
        extra = rng.sample(_OPTIONAL, rng.choice((2, 3)))
        topics = [topic for topic in Topic if topic in (Topic.NAME, Topic.ITEM) or topic in extra]
        texts[Card({topic: _values(topic, rng) for topic in topics}).text] = None
    return [PromptRow(id=f"{prefix}-{row}", prompt=text) for row, text in enumerate(texts)]


def _values(topic: Topic, rng: Random) -> dict[str, str]:
    return {slot: rng.choice(SLOTS[slot]) for _, slot in PHRASES[topic][0].slots}


@dataclass(slots=True)
class _Line:
    """A sentence being written. ``touched`` lines are left alone by defects that would hide one another."""

    template: Template
    words: list[str]
    touched: bool = False

    @property
    def topic(self) -> Topic:
        return self.template.topic


def _line(topic: Topic, card: Card, rng: Random) -> _Line:
    template = rng.choice(PHRASES[topic])
    return _Line(template, list(template.fill(card.facts.get(topic, {}))))


def _misstate(letter: list[_Line], card: Card, rng: Random) -> None:
    right = [
        (line, at, slot)
        for line in letter
        for at, slot in line.template.slots
        if not line.touched and line.words[at] == card.facts[line.topic][slot]
    ]
    if right:
        line, at, slot = rng.choice(right)
        line.words[at] = rng.choice([value for value in SLOTS[slot] if value != line.words[at]])


def _insult(letter: list[_Line], card: Card, rng: Random) -> None:
    words = rng.choice(letter).words
    # After the opening word and before the mark at the end.
    words.insert(rng.randrange(1, len(words)), rng.choice(RUDE))


def _omit(letter: list[_Line], card: Card, rng: Random) -> None:
    stated = [at for at, line in enumerate(letter) if line.topic in card.facts]
    if len(stated) > 1:
        del letter[rng.choice(stated)]


def _repeat(letter: list[_Line], card: Card, rng: Random) -> None:
    stated = [at for at, line in enumerate(letter) if line.topic in card.facts and line.topic is not Topic.NAME]
    if stated:
        at = rng.choice(stated)
        copy = _line(letter[at].topic, card, rng)
        letter[at].touched = copy.touched = True
        letter.insert(rng.randrange(at + 1, len(letter)), copy)


def _garble(letter: list[_Line], card: Card, rng: Random) -> None:
    whole = [line for line in letter if not line.touched and line.topic not in (Topic.NAME, Topic.CLOSING)]
    if whole:
        line = rng.choice(whole)
        line.touched = True
        _mangle(line, rng)


def _mangle(line: _Line, rng: Random) -> None:
    """Drop, double or swap a word between the opening one and the mark at the end."""
    words = line.words
    while match(line.words) is not None:
        line.words = list(words)
        at = rng.randrange(1, len(words) - 2)
        line.words[at : at + 2] = rng.choice(
            ([words[at]], [words[at + 1]], [words[at], words[at], words[at + 1]], [words[at + 1], words[at]])
        )


def _spoil_closing(letter: list[_Line], card: Card, rng: Random) -> None:
    end = letter[-1]
    roll = rng.randrange(4)
    if roll == 0:
        letter.pop()
    elif roll == 1:
        _mangle(end, rng)
    elif roll == 2:
        letter[-1] = _line(Topic.DISMISSAL, card, rng)
    else:
        letter.append(_line(rng.choice((Topic.DISMISSAL, Topic.CLOSING)), card, rng))


# In this order no defect hides or doubles another: sentences come and go before their words are touched.
_DAMAGE: dict[DefectKind, Callable[[list[_Line], Card, Random], None]] = {
    DefectKind.MISSING: _omit,
    DefectKind.REPETITION: _repeat,
    DefectKind.GARBLED: _garble,
    DefectKind.WRONG_FACT: _misstate,
    DefectKind.CLOSING: _spoil_closing,
    DefectKind.RUDE: _insult,
}


def write_with(prompt: Prompt, kinds: Sequence[DefectKind], rng: Random) -> str:
    """Write a response that has one defect for each entry of ``kinds``, as far as the letter has room for them.

    Raises:
        ValueError: the prompt is no card of this world.
    """
    letter, card = _letter(prompt, rng)
    _damage(letter, card, kinds, rng)
    return _text(letter)


def _letter(prompt: Prompt, rng: Random) -> tuple[list[_Line], Card]:
    card = parse_card(prompt)
    middle = [topic for topic in card.facts if topic not in (Topic.NAME, Topic.ITEM)]
    rng.shuffle(middle)
    return [_line(topic, card, rng) for topic in (Topic.NAME, Topic.ITEM, *middle, Topic.CLOSING)], card


def _damage(letter: list[_Line], card: Card, kinds: Sequence[DefectKind], rng: Random) -> None:
    for kind, damage in _DAMAGE.items():
        for _ in range(kinds.count(kind)):
            damage(letter, card, rng)


def _text(letter: Iterable[_Line]) -> str:
    return " ".join(spell(line.words) for line in letter)


def write_response(prompt: Prompt, rng: Random, *, defect_rates: DefectRates, habit_rate: float = 0.0) -> str:
    """Write a response with defects drawn at the given rates, and the writer's habits beside them.

    A habit is a defect that comes again and again in the same place: the guarantee is left out, the arrival told twice,
    the carrier mistaken for another, the payment asked for rudely. Each shows with ``habit_rate`` where its topic is on
    the card. Above one half, a model that learned from this writer has the habit even when it is decoded greedily.

    Raises:
        ValueError: the prompt is no card of this world.
    """
    letter, card = _letter(prompt, rng)
    for topic, slip in _HABITS.items():
        line = next((line for line in letter if line.topic is topic), None)
        if line is not None and rng.random() < habit_rate:
            slip(letter, line, rng)
    _damage(letter, card, defect_rates.draw(rng), rng)
    return _text(letter)


def _leave_out(letter: list[_Line], line: _Line, rng: Random) -> None:
    letter.remove(line)


def _tell_twice(letter: list[_Line], line: _Line, rng: Random) -> None:
    copy = _Line(line.template, list(line.words), touched=True)
    line.touched = True
    letter.insert(letter.index(line) + 1, copy)


def _mistake(letter: list[_Line], line: _Line, rng: Random) -> None:
    at, slot = line.template.slots[0]
    values = SLOTS[slot]
    line.words[at] = values[(values.index(line.words[at]) + 1) % len(values)]
    line.touched = True


def _snap(letter: list[_Line], line: _Line, rng: Random) -> None:
    line.words.insert(1, RUDE[0])
    line.touched = True


_HABITS: dict[Topic, Callable[[list[_Line], _Line, Random], None]] = {
    Topic.GUARANTEE: _leave_out,
    Topic.ARRIVAL: _tell_twice,
    Topic.CARRIER: _mistake,
    Topic.PAYMENT: _snap,
}
