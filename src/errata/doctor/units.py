"""How often does aligning ids (unit ``token``, the papers' choice) label otherwise than projecting words?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import tee
from typing import Any

import numpy as np

from errata.data import Encoder
from errata.labels import LabelRules, label_all
from errata.types import Correction, Label, LabeledTokens, TokenLabels, Unit

__all__ = ["UnitDifferences", "unit_differences"]

_PLACES = 3
_AROUND = 24  # characters on either side


@dataclass(slots=True)
class UnitDifferences:
    """Tokens whose label depends on the unit, over rows labelled twice."""

    rows: int = 0
    rows_otherwise: int = 0
    tokens: int = 0
    """Response tokens of both sides."""
    changed_by_words: int = 0
    """Tokens that are changed for the unit word."""
    changed_by_tokens: int = 0
    only_words: int = 0
    """Changed for words only: a piece that a changed word shares with the word that took its place."""
    only_tokens: int = 0
    """Changed for tokens only: a word that stayed and is spelled in other pieces, or another alignment."""
    other_kind: int = 0
    """Changed for both, in another way (substituted here, inserted there)."""
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By label of the words and label of the tokens."""
    places: list[tuple[str, str]] = field(default_factory=list)
    """Of the first rows in which a token is changed for one unit only: row, and the place with what each unit says."""

    @property
    def share(self) -> float:
        """Tokens labelled otherwise, of all."""
        return (self.only_words + self.only_tokens + self.other_kind) / max(self.tokens, 1)

    @property
    def share_of_changed(self) -> float:
        """Tokens labelled otherwise, of those that are changed for either unit."""
        otherwise = self.only_words + self.only_tokens + self.other_kind
        return otherwise / max(self.changed_by_words + self.only_tokens, 1)

    def add(self, by_words: TokenLabels, by_tokens: TokenLabels) -> None:
        """Count a row that was labelled with both units, all other rules alike."""
        self.rows += 1
        differ = False
        for one, other in ((by_words.original, by_tokens.original), (by_words.edited, by_tokens.edited)):
            words, tokens = np.array(one.labels), np.array(other.labels)
            self.tokens += len(words)
            word_changed, token_changed = (
                (names != Label.KEPT) & (names != Label.IGNORED) for names in (words, tokens)
            )
            self.changed_by_words += int(word_changed.sum())
            self.changed_by_tokens += int(token_changed.sum())
            self.only_words += int((word_changed & ~token_changed).sum())
            self.only_tokens += int((token_changed & ~word_changed).sum())
            self.other_kind += int((word_changed & token_changed & (words != tokens)).sum())
            found = np.flatnonzero(words != tokens)
            for k in found:
                self.kinds[Label(words[k]).name.lower(), Label(tokens[k]).name.lower()] += 1
            differ |= bool(len(found))
            telling = np.flatnonzero(word_changed != token_changed)
            shown = bool(self.places) and self.places[-1][0] == by_words.id
            if len(telling) and not shown and len(self.places) < _PLACES:
                self.places.append((by_words.id, _place(one, other, int(telling[0]))))
        self.rows_otherwise += differ

    def as_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        names = (
            *("rows", "rows_otherwise", "tokens", "changed_by_words", "changed_by_tokens", "only_words"),
            *("only_tokens", "other_kind", "share", "share_of_changed", "places"),
        )
        kinds = {f"{words} by words, {tokens} by tokens": count for (words, tokens), count in self.kinds.most_common()}
        return {**{name: getattr(self, name) for name in names}, "kinds": kinds}


def unit_differences(
    corrections: Iterable[Correction], encoder: Encoder, rules: LabelRules | None = None
) -> UnitDifferences:
    """Label corrections for words and for tokens, and count where the two differ.

    Raises:
        ValueError: as ``label_all``.
    """
    found = UnitDifferences()
    sides = [
        label_all(rows, encoder, replace(rules or LabelRules(), unit=unit))
        for rows, unit in zip(tee(corrections), (Unit.WORD, Unit.TOKEN), strict=True)
    ]
    for by_words, by_tokens in zip(*sides, strict=True):
        found.add(by_words, by_tokens)
    return found


def _place(words: LabeledTokens, tokens: LabeledTokens, k: int) -> str:
    start, stop = words.encoded.offsets[k]
    text = words.text
    before, after = text[max(start - _AROUND, 0) : start], text[stop : stop + _AROUND]
    names = (Label(words.labels[k]).name.lower(), Label(tokens.labels[k]).name.lower())
    return f"{before}[{text[start:stop]}]{after}: {names[0]} by words, {names[1]} by tokens"
