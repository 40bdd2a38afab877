"""The words of the embedded world: the facts a card can hold, the sentences that state them, and how to read both.

A shop's support desk writes letters. A *card* (the prompt) lists a few facts; the letter (the response) greets the
customer, states each fact in one sentence, and closes politely. Every sentence that the shop may write is a template
below, so a text is either explained by them word for word or it is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache

from errata.types import Prompt

__all__ = [
    "CARD_LINES",
    "PHRASES",
    "RUDE",
    "SLOTS",
    "Card",
    "Template",
    "Token",
    "Topic",
    "match",
    "opening_words",
    "parse_card",
    "scan",
    "spell",
    "word_types",
]


class Topic(StrEnum):
    """What a sentence is about, in the order in which a letter best speaks of it."""

    NAME = "name"
    ITEM = "item"
    CITY = "city"
    CARRIER = "carrier"
    ARRIVAL = "arrival"
    PRICE = "price"
    PAYMENT = "payment"
    GUARANTEE = "guarantee"
    CONTACT = "contact"
    CLOSING = "closing"
    """A right end of a letter."""
    DISMISSAL = "dismissal"
    """An end that the shop does not allow."""


# A word belongs to one slot or to none, and the words that open sentences stand nowhere else: reading needs no search.
SLOTS: Mapping[str, tuple[str, ...]] = {
    slot: tuple(words.split())
    for slot, words in {
        "name": """
            Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olga Paul Rosa Sam Tara Victor
        """,
        "number": "two three four five six seven eight nine ten",
        "colour": "red blue green black white yellow brown grey pink purple orange silver",
        "item": """
            lamps chairs tables cups plates bags coats shoes books clocks shelves pillows candles carpets mirrors vases
        """,
        "city": """
            Paris London Berlin Madrid Rome Vienna Oslo Dublin Lisbon Athens Prague Warsaw Zurich Milan Geneva Helsinki
        """,
        "carrier": "van truck train bike ship plane tram boat",
        "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "part": "morning afternoon evening",
        "amount": "eleven twelve fifteen eighteen twenty thirty forty fifty sixty seventy eighty ninety",
        "currency": "euros dollars pounds crowns francs",
        "method": "card cheque transfer voucher invoice cash phone instalments",
        "unit": "weeks months years",
        "contact": "Peter Laura Simon Julia Martin Nina Oscar Helen Frank Vera",
    }.items()
}
"""The values that a fact can take: one word each."""

RUDE = (
    "stupid",
    "dumb",
    "silly",
    "damn",
    "lousy",
    "ugly",
    "lazy",
    "boring",
    "useless",
    "pathetic",
    "foolish",
    "awful",
    "rotten",
    "nasty",
)
"""Words that never belong in a letter; a sentence is read as if they were not there."""

_CARD_LINES = {
    Topic.NAME: "Write to {name}.",
    Topic.ITEM: "Item: {number} {colour} {item}.",
    Topic.CITY: "City: {city}.",
    Topic.CARRIER: "Carrier: {carrier}.",
    Topic.ARRIVAL: "Arrives: {day} {part}.",
    Topic.PRICE: "Price: {amount} {currency}.",
    Topic.PAYMENT: "Pay: {method}.",
    Topic.GUARANTEE: "Guarantee: {number} {unit}.",
    Topic.CONTACT: "Contact: {contact}.",
}

_PHRASES = {
    Topic.NAME: [
        "Dear {name},",
        "Hello {name},",
        "Good day {name},",
        "Welcome {name},",
    ],
    Topic.ITEM: [
        "Thank you for ordering {number} {colour} {item}.",
        "We have packed your {number} {colour} {item}.",
        "Your {number} {colour} {item} are now ready.",
        "You asked us for {number} {colour} {item}.",
        "Your order of {number} {colour} {item} is complete.",
    ],
    Topic.CITY: [
        "The parcel goes straight to {city}.",
        "We deliver to your address in {city}.",
        "Our driver knows the way to {city}.",
        "Your shipment is bound for {city}.",
        "All boxes are sent to {city}.",
    ],
    Topic.CARRIER: [
        "It travels to you by {carrier}.",
        "A {carrier} brings it to your door.",
        "The {carrier} will carry your goods.",
        "We send this order by {carrier}.",
        "Transport is arranged with our {carrier}.",
    ],
    Topic.ARRIVAL: [
        "Expect it on {day} {part}.",
        "It should arrive on {day} {part}.",
        "You will receive everything on {day} {part}.",
        "Please be home on {day} {part}.",
        "Delivery takes place on {day} {part}.",
    ],
    Topic.PRICE: [
        "The total price is {amount} {currency}.",
        "This costs {amount} {currency} in all.",
        "The bill comes to {amount} {currency}.",
        "You owe us {amount} {currency}.",
        "We charge {amount} {currency} for this purchase.",
    ],
    Topic.PAYMENT: [
        "Please pay by {method}.",
        "You can settle the bill by {method}.",
        "We accept your payment by {method}.",
        "Payment by {method} works best.",
        "Kindly choose {method} when you pay.",
    ],
    Topic.GUARANTEE: [
        "The guarantee lasts {number} {unit}.",
        "You are covered for {number} {unit}.",
        "Repairs are free for {number} {unit}.",
        "We promise quality for {number} {unit}.",
        "Any damage within {number} {unit} is covered.",
    ],
    Topic.CONTACT: [
        "Our colleague {contact} is happy to help.",
        "For questions just ask {contact}.",
        "Please call {contact} with any questions.",
        "Feel free to write to {contact}.",
        "Your personal adviser is {contact}.",
    ],
    Topic.CLOSING: [
        "Kind regards, the shop.",
        "Best wishes from our team.",
        "Yours sincerely, the sales desk.",
        "Warm greetings from all of us.",
    ],
    Topic.DISMISSAL: [
        "Bye.",
        "See you around.",
        "That is all, folks.",
        "Take it or leave it.",
    ],
}


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a mark of punctuation, and the characters ``start`` to ``stop`` (exclusive) where it stands."""

    text: str
    start: int
    stop: int


_TOKEN = re.compile(r"\w+|[^\w\s]")


def scan(text: str) -> list[Token]:
    """The words and marks of any text, in order; white space only divides them."""
    return [Token(found.group(), found.start(), found.end()) for found in _TOKEN.finditer(text)]


def spell(words: Iterable[str]) -> str:
    """Words and marks as one text: a space before each word, none before a mark."""
    return "".join(word if word in ".,:" else f" {word}" for word in words).strip()


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence with slots: ``words`` are literal words, marks, and ``{slot}`` names."""

    topic: Topic
    words: tuple[str, ...]

    @property
    def slots(self) -> tuple[tuple[int, str], ...]:
        """Position and name of each slot."""
        return tuple((at, word[1:-1]) for at, word in enumerate(self.words) if word.startswith("{"))

    def fill(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The words of the sentence, slots replaced by ``values``."""
        return tuple(values[word[1:-1]] if word.startswith("{") else word for word in self.words)


def _template(topic: Topic, phrase: str) -> Template:
    return Template(topic, tuple(re.findall(r"\{\w+\}|\w+|[^\w\s]", phrase)))


CARD_LINES: Mapping[Topic, Template] = {topic: _template(topic, line) for topic, line in _CARD_LINES.items()}
"""The line of the card for each fact."""

PHRASES: Mapping[Topic, tuple[Template, ...]] = {
    topic: tuple(_template(topic, phrase) for phrase in phrases) for topic, phrases in _PHRASES.items()
}
"""The sentences for each topic: any of them will do, and no other."""

_SLOT_OF = {word: f"{{{slot}}}" for slot, words in SLOTS.items() for word in words}


@dataclass(slots=True)
class _Node:
    """One word of the tree of all sentences; a sentence that ends here is never the beginning of another."""

    children: dict[str, _Node]
    template: Template | None = None


def _tree(templates: Iterable[Template]) -> _Node:
    root = _Node({})
    for template in templates:
        node = root
        for word in template.words:
            node = node.children.setdefault(word, _Node({}))
        node.template = template
    return root


_LETTER = _tree(template for templates in PHRASES.values() for template in templates)
_CARD = _tree(CARD_LINES.values())


def _walk(root: _Node, words: Sequence[str], at: int) -> Template | None:
    node = root
    for word in words[at:]:
        child = node.children.get(_SLOT_OF.get(word, word))
        if child is None:
            return None
        if child.template is not None:
            return child.template
        node = child
    return None


def match(words: Sequence[str], at: int = 0) -> Template | None:
    """The template of the sentence that begins at ``words[at]``, whatever its slots say; None if there is none."""
    return _walk(_LETTER, words, at)


def opening_words() -> frozenset[str]:
    """The words that open a sentence of a letter; they stand nowhere else in it."""
    return frozenset(_LETTER.children)


@dataclass(frozen=True)
class Card:
    """The facts of a prompt: for each topic, the values of its slots."""

    facts: Mapping[Topic, Mapping[str, str]]

    @cached_property
    def sentences(self) -> Mapping[Topic, tuple[tuple[str, ...], ...]]:
        """The words of every right sentence, by topic; those of a right closing too."""
        topics = {**self.facts, Topic.CLOSING: {}}
        return {topic: tuple(template.fill(values) for template in PHRASES[topic]) for topic, values in topics.items()}

    @property
    def text(self) -> str:
        """The card as a prompt."""
        return " ".join(spell(CARD_LINES[topic].fill(values)) for topic, values in self.facts.items())


@lru_cache(maxsize=4096)
def _parse_card(text: str) -> Card:
    words = [token.text for token in scan(text)]
    facts: dict[Topic, Mapping[str, str]] = {}
    at = 0
    while at < len(words):
        template = _walk(_CARD, words, at)
        if template is None or template.topic in facts:
            raise ValueError(
                f"not a card of the embedded world at word {at} ({words[at]!r}) of {text[:80]!r}; "
                "prompts come from errata.demo.world.make_prompts"
            )
        facts[template.topic] = {slot: words[at + place] for place, slot in template.slots}
        at += len(template.words)
    return Card(facts)


def parse_card(prompt: Prompt) -> Card:
    """Read the facts back from a prompt.

    Raises:
        ValueError: the prompt is a conversation, or a text that is no card.
    """
    if not isinstance(prompt, str):
        raise ValueError("prompts of the embedded world are plain text, not conversations; pass the card itself")
    return _parse_card(prompt)


def word_types() -> tuple[str, ...]:
    """Every word and mark that cards and letters can hold, rude ones too, sorted."""
    templates = [*CARD_LINES.values(), *(template for group in PHRASES.values() for template in group)]
    literal = {word for template in templates for word in template.words if not word.startswith("{")}
    return tuple(sorted(literal.union(RUDE, *SLOTS.values())))
