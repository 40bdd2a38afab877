"""Labelled pairs made by hand, of tokens that need no tokenizer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate, pairwise

from errata.types import Encoded, LabeledTokens, TokenLabels
from errata.views import ViewRow


def side(tokens: Sequence[str], labels: Sequence[int], *, ended: bool = True) -> LabeledTokens:
    """A text cut as told; "" is one more byte of the character before. ``ended`` adds the end of sequence."""
    stops = [0, *accumulate(map(len, tokens))]
    offsets = [(start - (start == stop), stop) for start, stop in pairwise(stops)]
    if ended:
        offsets.append((stops[-1], stops[-1]))
    ids = tuple(range(100, 102 + len(offsets)))
    return LabeledTokens(Encoded(ids, 2, tuple(offsets), ended), tuple(labels), "".join(tokens))


def pair(name: str, original: LabeledTokens, edited: LabeledTokens) -> TokenLabels:
    return TokenLabels(id=name, original=original, edited=edited)


PAIR = pair(
    "row <7>",
    side(["It", " costs", " ni", "ne", " stupid", " coins", " now"], [0, 0, 3, 3, 2, 0, 0], ended=False),
    side(["It", " costs", " seven", " coins", " now", ".", " Thanks"], [0, 0, 3, 0, 0, 1, 1, 0]),
)


def many(count: int, tokens: int) -> list[ViewRow]:
    """Rows as large as they get: ``tokens`` tokens a side and more, ids and rewards all over the place."""
    rng = random.Random(0)
    vocabulary = [" " + "".join(rng.choices("abcdefghijklmnopqrstuvwxyzé", k=rng.randint(2, 6))) for _ in range(5000)]
    rows = []
    for index in range(count):
        original = rng.choices(vocabulary, k=tokens - 1)
        edited, original_labels, edited_labels = [], [], []
        for token in original:
            kind = rng.choices((0, 2, 3), (8, 1, 1))[0]
            original_labels.append(kind)
            if kind != 2:
                edited.append(rng.choice(vocabulary) if kind == 3 else token)
                edited_labels.append(kind)
        extra = max(0, tokens + 1 - len(edited))
        edited += rng.choices(vocabulary, k=extra)
        edited_labels += [1] * extra
        sides = []
        for text, labels in ((original, original_labels), (edited, edited_labels)):
            made = side(text, [*labels, 0])
            ids = tuple(rng.randrange(150_000) for _ in made.encoded.ids)
            sides.append(LabeledTokens(Encoded(ids, 2, made.encoded.offsets, True), made.labels, made.text))
        weights, rewards = (
            tuple([draw() for _ in made.labels] for made in sides)
            for draw in (lambda: rng.choice((-0.2, 0.5, 1.0)), lambda: rng.gauss(0, 1))
        )
        rows.append(ViewRow(labels=pair(f"r{index}", *sides), reasons=("wrong",), weights=weights, rewards=rewards))
    return rows
