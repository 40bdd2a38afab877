"""What counts as a word, and how many of them an edit touches.

A word is a run of letters, digits and marks, joined by inner apostrophes and hyphens (``don't``, ``day-long``). Where a
script puts no spaces between words (Han, kana, Thai, Lao, Khmer, Burmese) each grapheme is a word of its own, and so is
every punctuation mark and symbol, an emoji with all its joiners included. White space belongs to no word.
"""

from __future__ import annotations

import re
from itertools import accumulate

import regex
from rapidfuzz.distance import Levenshtein

__all__ = ["edit_ratio", "split_text", "split_words", "word_distance", "words"]

# Thai, Lao, Khmer, Burmese and their relatives share the line-breaking class SA (UAX 14): "dictionary needed".
_LETTER = r"[[\p{L}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{LineBreak=SA}ー]]"
# Marks, the two zero-width joiners and the soft hyphen do not end a word.
_INNER = rf"(?:{_LETTER}|[\p{{M}}\u00ad\u200c\u200d])"
_RUN = rf"(?:{_LETTER}|\p{{M}}){_INNER}*"
# \x1c-\x1f: white space to str.isspace, though not to Unicode.
# Prepended marks (Arabic number signs) would draw what follows them into their grapheme, white space, too.
_WORD = regex.compile(rf"(?V1)({_RUN}(?:['’\-‐‑]{_RUN})*|(?![\s\x1c-\x1f])(?:\p{{GCB=Prepend}}|\X))")
# The same without marks, joiners, soft hyphens and the scripts named above, where the standard library is enough and
# three times as fast: the Latin blocks, and the dashes and quotes of U+2010 to U+2029.
_PLAIN_WORD = re.compile(r"([^\W_]+(?:['’\-‐‑][^\W_]+)*|\S)")
_NOT_PLAIN = re.compile("[^\x00-\xac\xae-\u02ff\u2010-\u2029]")


def split_text(text: str) -> list[str]:
    """White space and words in turn, white space first and last, which may be empty: joined they are the text.

    >>> split_text(" Don't stop!")
    [' ', "Don't", ' ', 'stop', '', '!', '']
    """
    plain = text.isascii() or not _NOT_PLAIN.search(text)
    parts: list[str] = (_PLAIN_WORD if plain else _WORD).split(text)
    return parts


def words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text start and stop, in order; what lies between them is white space only.

    >>> [text[start:stop] for text in ["Don't stop, day-long 東京 🏳️‍🌈!"] for start, stop in words(text)]
    ["Don't", 'stop', ',', 'day-long', '東', '京', '🏳️‍🌈', '!']
    """
    ends = list(accumulate(map(len, split_text(text))))
    return list(zip(ends[::2], ends[1::2], strict=False))


def split_words(text: str) -> list[str]:
    """The words of a text themselves, in order."""
    return split_text(text)[1::2]


def word_distance(original: str, edited: str) -> int:
    """The edit cost: the least number of words to insert, delete or substitute. White space costs nothing.

    >>> word_distance("It opens at 9 sharp.", "It opens at 10.")
    2
    """
    return int(Levenshtein.distance(split_words(original), split_words(edited)))


def edit_ratio(original: str, edited: str) -> float:
    """``word_distance`` over the words of the longer text: 0 for the same words, 1 for a rewrite.

    0 does not say that the texts are equal: only white space may differ, such as the line breaks of a mail program.
    """
    first, second = split_words(original), split_words(edited)
    return float(Levenshtein.distance(first, second)) / max(len(first), len(second), 1)
