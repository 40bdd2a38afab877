"""Rows that come again, word for word or nearly so, found in one pass and in memory that does not grow.

Two rows are *the same* if prompt, original and edited text are, white space folded. Every row's 128-bit hash sets bits
of one Bloom filter of 2²⁷ bits (16 MiB): none that comes again is missed, and a row is taken for one that it is not
with a probability below 10⁻⁶ at a million rows and below .005 at ten million.

Two rows are *nearly the same* if their prompts, and their answers (original and edited), each have 80 % of their
three-word shingles in common (of those in either, white space and case folded), by an estimate (Broder's MinHash): 16
hash functions for the prompts, 48 for the answers, so that the standard error at 80 % is .10 and .06. Only the last
131,072 rows are compared with (32 MiB), and of those the latest in each of 16 bands of 3 + 1 functions, which misses 2
pairs in 10,000 at 80 %, and fewer beyond.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Literal

import numpy as np
import numpy.typing as npt

from errata.types import Correction, Prompt

__all__ = ["Duplicates", "Likeness"]

Likeness = Literal["same", "near"]
"""How much a row is like one before."""

_Hashes = npt.NDArray[np.uint64]

_BITS = 2**27
_PROBES = 4
_BANDS = 16
_ANSWER, _PROMPT = 3 * _BANDS, _BANDS  # hash functions of each: a band has three and one
_WINDOW = 2**17  # rows
_SLOTS = 2**18  # of each band
_SHINGLE = 3  # words
_ALIKE = 0.8

_CHANCE = np.random.default_rng(0)
_FACTORS: _Hashes = _CHANCE.integers(2**64, size=_ANSWER + _PROMPT, dtype=np.uint64) | np.uint64(1)
_OFFSETS: _Hashes = _CHANCE.integers(2**64, size=_ANSWER + _PROMPT, dtype=np.uint64)
_PLACES: _Hashes = _CHANCE.integers(2**64, size=_SHINGLE + 1, dtype=np.uint64) | np.uint64(1)
_SPACE = re.compile(r"\s+")


class Duplicates:
    """Remembers the rows that it was shown.

    >>> seen = Duplicates()
    >>> text = "The office opens at nine and closes at five, and on Fridays at noon, except in summer."
    >>> seen.add(Correction(id="a", prompt="When?", original=text, edited=text + " Bring a form."))
    >>> seen.add(Correction(id="b", prompt="When?", original=text, edited=text + "  Bring a form. "))
    'same'
    >>> seen.add(Correction(id="c", prompt="When?", original=text, edited=text + " Bring the form."))
    'near'
    >>> seen.add(Correction(id="d", prompt="Where?", original=text, edited=text + " Bring a form."))
    """

    def __init__(self) -> None:
        # numpy asks for zeroed pages, which take no memory before they are written.
        self._bits = np.zeros(_BITS // 8, dtype=np.uint8)
        self._signatures = np.zeros((_WINDOW, _ANSWER + _PROMPT), dtype=np.uint16)
        self._latest = np.zeros((_BANDS, _SLOTS), dtype=np.uint32)  # number from 1 of the last row in each slot
        self._rows = 0

    def add(self, row: Correction) -> Likeness | None:
        """Remember a row, and say whether one that came before is the same, or nearly."""
        texts = [_SPACE.sub(" ", text).strip() for text in (_flat(row.prompt), row.original, row.edited)]
        same = self._seen(texts)
        near = self._near(texts)
        return "same" if same else "near" if near else None

    def _seen(self, texts: Sequence[str]) -> bool:
        digest = blake2b("\0".join(texts).encode(errors="surrogatepass"), digest_size=4 * _PROBES).digest()
        seen = True
        for k in range(_PROBES):
            place = int.from_bytes(digest[4 * k : 4 * k + 4], "little") % _BITS
            mask = 1 << place % 8
            seen &= bool(self._bits[place // 8] & mask)
            self._bits[place // 8] |= mask
        return seen

    def _near(self, texts: Sequence[str]) -> bool:
        prompt, original, edited = (_shingles(text) for text in texts)
        answers = np.concatenate([original, edited * _PLACES[-1]])  # a shingle of one side is none of the other
        signature = np.concatenate([_minima(answers, slice(_ANSWER)), _minima(prompt, slice(_ANSWER, None))])
        bands = np.concatenate([signature[:_ANSWER].reshape(_BANDS, 3), signature[_ANSWER:, None]], axis=1)
        keys = _mixed((bands.astype(np.uint64) * _PLACES).sum(axis=1, dtype=np.uint64))
        slots = (np.arange(_BANDS), (keys % np.uint64(_SLOTS)).astype(np.intp))
        before = self._latest[slots]
        before = before[before > 0].astype(np.intp)
        # Where a row was overwritten by a later one, that one is compared with: if alike, it is as good an answer.
        alike = self._signatures[(before - 1) % _WINDOW] == signature
        self._signatures[self._rows % _WINDOW] = signature
        self._rows += 1
        self._latest[slots] = self._rows
        both = (alike[:, :_ANSWER].mean(axis=1) >= _ALIKE) & (alike[:, _ANSWER:].mean(axis=1) >= _ALIKE)
        return bool(both.any()) if len(before) else False


def _flat(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    messages: Iterable[Mapping[str, str]] = prompt
    return "\n".join(f"{message.get('role')}: {message.get('content')}" for message in messages)


def _shingles(text: str) -> _Hashes:
    """A hash of every three words in a row; of all words where there are fewer, and of none."""
    hashes = [zlib.crc32(word.encode(errors="surrogatepass")) for word in text.casefold().split()]
    hashes += [0] * (_SHINGLE - len(hashes))
    words = np.array(hashes, dtype=np.uint64)
    count = len(words) - _SHINGLE + 1
    total = np.zeros(count, dtype=np.uint64)
    for k in range(_SHINGLE):
        total += words[k : k + count] * _PLACES[k]
    return _mixed(total)


def _minima(shingles: _Hashes, functions: slice) -> npt.NDArray[np.uint16]:
    """Of each hash function, 16 bits of the smallest value."""
    least: _Hashes = np.full(len(_FACTORS[functions]), 2**64 - 1, dtype=np.uint64)
    for start in range(0, len(shingles), 4096):  # a long text must not take memory for all of its words at once
        values = shingles[start : start + 4096, None] * _FACTORS[functions] + _OFFSETS[functions]
        np.minimum(least, values.min(axis=0), out=least)
    return (_mixed(least) >> np.uint64(48)).astype(np.uint16)


def _mixed(values: _Hashes) -> _Hashes:
    """Every bit of the input changes half of the output's (the last steps of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
