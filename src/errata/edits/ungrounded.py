"""What the model could not have known: words that an edit writes and that nothing before it held.

An editor who adds a price, a name or an address knows it from elsewhere. A model that is taught to write such a word
learns to invent one. So these words are found, counted, shown and, by option of the labels, teach nothing.

**The rule.** A word that an edit inserts or puts in the place of another is unknowable if it is of one of these kinds
and is found neither in the prompt (all messages of a conversation) nor in the original:

- ``number``: it holds a decimal digit. ``1,000`` = ``1000`` = ``1 000``, ``3,50`` = ``3.5``, ``07`` = ``7``; an English
  number word up to twenty or a Roman numeral makes its number known (``nine``, ``ninth``, ``IX`` → ``9``). The marker
  of a list (``2.`` at the start of a line) is none.
- ``link``: web and e-mail addresses, @handles, #tags, paths.
- ``name``: capitalised inside a sentence, or with a capital after its first letter (``McCoy``, ``GPT``); after a full
  stop only if the edit also writes it inside a sentence. English function words are none. It is known if its
  letters (case, accents and ``'s`` apart) are those of a known word, share the first four with one, or
  are 70 % the same (a spelling put right); an acronym also by the initials of the words before.
- ``content``, only if asked for: any other word of four letters or more that is no English function word and not known
  in the sense of a name.

How often it is right, read by hand, is in docs/curation.md.

- Known misses: a name that opens a sentence; names in scripts without capitals; number words (``seven``): most
  are no news (``one of``); known words put together to a new fact.
- Known false alarms: what follows from what is known (``18:00`` from ``6 pm``, an acronym written out); German, which
  capitalises every noun; title case and short words in capitals; names that a translation spells anew
  (``Țările de Jos`` → ``Netherlands``) and number words of another language (``nouă`` → ``9``); whatever the model was
  shown outside of ``prompt``: put retrieved passages into the prompt.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import Indel

from errata.edits.word_spans import words
from errata.types import Correction, Edit, Op, Prompt, Span

__all__ = ["FACTS", "Kind", "Unknown", "unknowable", "unknown_words"]


class Kind(StrEnum):
    """What sort of word it is that the model could not have known."""

    NUMBER = "number"
    LINK = "link"
    NAME = "name"
    CONTENT = "content"


FACTS = (Kind.NUMBER, Kind.LINK, Kind.NAME)
"""The kinds that are looked for unless others are asked for."""


class Unknown(NamedTuple):
    """One word of the edited text that the model could not have known."""

    kind: Kind
    span: Span


_PREFIX = 4  # letters that two words share at the start if they are forms of one
_ACRONYM = 6  # letters of the longest word in capitals that is taken for an acronym and not for shouting
_ALIKE = 0.7  # share of letters in common from which a word counts as respelled

_ALNUM = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"(?<!\d)\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)|\d(?:[\d.,'’]*\d)?")
_GROUPED = re.compile(r"\d{1,3}([.,'’ \u00a0\u202f])\d{3}(?:\1\d{3})*(?:[.,]\d+)?")
_DECIMAL = re.compile(r"\d+[.,]\d+")
_MARKER = re.compile(r"(?:^|\n)[ \t#>*]*(?:\d+)[.)](?=\s)")
_ROMAN = re.compile(r"\b[IVXLC]{1,8}\b")
_LINK = re.compile(
    r"(?:https?://|www\.)\S+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?<![\w@#&])[@#][^\W\d]\w+"
    r"|(?<![\w/<])(?:~|\.{1,2})?(?:/[\w.-]+){2,}/?|\b[A-Za-z]:\\\S+"
    r"|\b(?:[\w-]+\.)+(?:com|org|net|edu|gov|io|eu|uk|de|fr|ro|ee|dev|ai)\b(?:/\S*)?"
)
_BEFORE_SENTENCE = re.compile(r"(?:^|\n|[.!?:;…]|<[^<>]{1,12}>)[\s\"'“”„‘’«»()\[\]{}*_#>•–—-]*$")
_ABBREVIATION = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Prof|Gen|Col|Sen|Rep|Lt|Sgt|Jr|Sr|vs)\.\s*$")

_CARDINALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_ORDINALS = "- first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_VALUE_OF = {word: str(value) for names in (_CARDINALS, _ORDINALS) for value, word in enumerate(names.split())}
_ROMAN_VALUE = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}

_FUNCTION_TEXT = (
    "a about above across after afterwards again against all almost along already also although always am among an and "
    "another any anybody anyone anything are around as at away back be because been before being below between both "
    "but by can cannot could did do does doing done down during each either else enough even ever every everyone "
    "everything except far few first for former from further get gets given goes going got had has have having he her "
    "here hers herself him himself his how however i if in indeed instead into is it its itself just last latter least "
    "less like made make makes many may maybe me might mine more moreover most much must my myself namely near neither "
    "never nevertheless next no nobody none nor not nothing now of off often on once one only onto or other others "
    "otherwise our ours out over own per perhaps please quite rather really same second shall she should since so some "
    "somebody someone something sometimes soon still such take than that the their theirs them themselves then there "
    "therefore these they thing things third this those though three through throughout thus to together too toward "
    "towards two under unless until unto up upon us used using various very via was way we well were what whatever "
    "when where whereas whether which while who whole whom whose why will with within without would yes yet you your "
    "yours yourself yourselves ok okay mr mrs ms don won isn doesn didn wasn weren hasn haven hadn couldn wouldn "
    "shouldn aren ain mustn dr prof"
)
_FUNCTION_WORDS = frozenset(_FUNCTION_TEXT.split())


def unknowable(correction: Correction, edits: Sequence[Edit], kinds: Collection[Kind] = FACTS) -> list[Span]:
    """The words of the edited text that the model could not have known, by the rule of this module.

    Args:
        correction: the row, for what was known: its prompt and its original.
        edits: the edits from its original to its edited text, of any unit; only words that they wholly or partly write
            are looked at.
        kinds: which sorts of words to look for.

    Returns:
        Spans of the edited text in order, each one word of ``errata.edits.word_spans``, none twice.

    >>> from errata.edits import diff
    >>> after = "We open at 9, said Ada, until 17:30."
    >>> row = Correction(id="a", prompt="When do you open?", original="We open at nine.", edited=after)
    >>> [span.text for span in unknowable(row, diff(row.original, row.edited))]
    ['Ada', '17', '30']
    """
    return [word.span for word in unknown_words(correction, edits, kinds)]


def unknown_words(correction: Correction, edits: Sequence[Edit], kinds: Collection[Kind] = FACTS) -> list[Unknown]:
    """The same as ``unknowable``, each word with its kind."""
    written = [
        edit.edited for edit in edits if edit.op in (Op.INSERT, Op.SUBSTITUTE) and not edit.edited.text.isspace()
    ]
    written = [span for span in written if span.start < span.stop]
    if not written:
        return []
    text = correction.edited
    found = _candidates(text, written, kinds)
    if not found:
        return []
    known = _Known(f"{_text_of(correction.prompt)}\n{correction.original}")
    return [
        Unknown(kind, Span(start, stop, text[start:stop]))
        for (start, stop), (kind, key) in sorted(found.items())
        if not known.holds(kind, key)
    ]


_Found = dict[tuple[int, int], tuple[Kind, str]]
"""Words by where they are, with their kind and what to look up: a whole number or link for each word of it."""


def _candidates(text: str, written: Sequence[Span], kinds: Collection[Kind]) -> _Found:
    """The written words of the kinds asked for, known or not; the first kind that a word has is its only one."""
    spans = [
        (span.start + start, span.start + stop) for span in _whole(text, written) for start, stop in words(span.text)
    ]
    found: _Found = {}
    taken = set[tuple[int, int]]()  # a word has one kind, asked for or not
    for kind, matches in ((Kind.LINK, _links(text, spans)), (Kind.NUMBER, _numbers(text, spans))):
        for start, stop in matches:
            first = bisect_right(spans, start, key=itemgetter(1))  # the first that ends behind the start
            last = bisect_left(spans, stop, key=itemgetter(0))
            for word in spans[first:last]:
                if word not in taken:
                    taken.add(word)
                    if kind in kinds:
                        found[word] = (kind, text[start:stop])
    if Kind.NAME in kinds or Kind.CONTENT in kinds:
        found |= _names(text, [word for word in spans if word not in taken], kinds)
    return found


def _whole(text: str, written: Sequence[Span]) -> Iterator[Span]:
    """The written spans, grown to whole runs of letters where an edit (of characters, of tokens) ends within one."""
    stop = 0
    for span in written:
        start = max(span.start, stop)
        stop = max(span.stop, start)
        if start < stop:
            while start > 0 and text[start].isalnum() and text[start - 1].isalnum():
                start -= 1
            while stop < len(text) and text[stop - 1].isalnum() and text[stop].isalnum():
                stop += 1
            yield Span(start, stop, text[start:stop])


def _links(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if not spans or not any(mark in text for mark in "@#/\\."):
        return []
    return [(match.start(), match.start() + len(match[0].rstrip(".,;:!?)\"'»”"))) for match in _LINK.finditer(text)]


def _numbers(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if not any(text[k].isdecimal() for start, stop in spans for k in range(start, stop)):
        return []
    markers = {match.end() - 1 for match in _MARKER.finditer(text)}
    return [match.span() for match in _NUMBER.finditer(text) if match.end() not in markers]


def _names(text: str, spans: Sequence[tuple[int, int]], kinds: Collection[Kind]) -> _Found:
    found: _Found = {}
    inside = set[str]()
    opening: list[tuple[int, int]] = []
    for start, stop in spans:
        word = text[start:stop]
        if not word[0].isalpha() or (word.isascii() and not any(map(str.isupper, word)) and Kind.CONTENT not in kinds):
            continue
        plain = _fold(word).split("'")[0]
        if len(plain) < 2 or plain in _FUNCTION_WORDS:
            continue
        shouted = word.isupper() and len(word) > _ACRONYM
        inner = not shouted and any(map(str.isupper, word[1:].replace("-", "")))
        if inner or (word[0].isupper() and not shouted and not _opens(text, start)):
            inside.add(plain)
            if Kind.NAME in kinds and not _abbreviates(word, text[:start]):
                found[start, stop] = (Kind.NAME, word)
        elif word[0].isupper():
            opening.append((start, stop))
        elif Kind.CONTENT in kinds and len(plain) >= _PREFIX:
            found[start, stop] = (Kind.CONTENT, word)
    for start, stop in opening:
        plain = _fold(text[start:stop]).split("'")[0]
        if plain in inside and Kind.NAME in kinds:
            found[start, stop] = (Kind.NAME, text[start:stop])
        elif plain not in inside and Kind.CONTENT in kinds and len(plain) >= _PREFIX:
            found[start, stop] = (Kind.CONTENT, text[start:stop])
    return found


def _opens(text: str, start: int) -> bool:
    """Whether a sentence, a line or a quotation after a colon starts here."""
    before = text[max(start - 40, 0) : start]
    if start <= 40 and not before.strip():
        return True
    match = _BEFORE_SENTENCE.search(before)
    if match is None or (not match.start() and start > 40 and match[0][:1] not in "\n.!?:;…<"):
        return False
    return not _ABBREVIATION.search(before)


def _abbreviates(word: str, before: str) -> bool:
    """Whether it is the initials of the words right before it: ``question answering (QA)``."""
    if not word[:-1].isupper():
        return False
    letters = _fold(word).removesuffix("s")
    runs = [run for run in _ALNUM.findall(_fold(before[-40 * len(word) :])) if len(run) > 1]
    full = [run for run in runs if run not in _FUNCTION_WORDS]
    return any("".join(run[0] for run in each).endswith(letters) for each in (runs, full))


class _Known:
    """What prompt and original hold."""

    def __init__(self, text: str) -> None:
        self._raw = text
        self._text = _fold(text)
        self._runs = _ALNUM.findall(self._text)
        # Chinese and Japanese words stand next to others without a space, and are words of their own.
        parts = [] if self._text.isascii() else [self._text[start:stop] for start, stop in words(self._text)]
        self._words = {*self._runs, *(run for part in parts for run in _ALNUM.findall(part))}
        self._prefixes = {word[:_PREFIX] for word in self._words if len(word) >= _PREFIX}

    def holds(self, kind: Kind, key: str) -> bool:
        if kind is Kind.LINK:
            return _fold(key) in self._text
        if kind is Kind.NUMBER:
            return bool(_readings(key) & self._numbers) or (_is_several(key) and _pieces(key) <= self._numbers)
        parts = _ALNUM.findall(key.replace("'s", "").replace("’s", ""))
        if kind is Kind.NAME:  # of "AI-based" only the first
            parts = [part for part in parts if not part.islower()]
        parts = [part for part in map(_fold, parts) if len(part) > 1 and part not in _FUNCTION_WORDS]
        return all(map(self._word, parts)) or self._acronym(key)

    @cached_property
    def _numbers(self) -> set[str]:
        numbers = {_VALUE_OF[word] for word in self._words & _VALUE_OF.keys()}
        numbers |= {_roman(match) for match in _ROMAN.findall(self._raw)}
        for match in _NUMBER.findall(self._raw):
            numbers |= _readings(match)
            if _is_several(match) or _DECIMAL.fullmatch(match):
                numbers |= _pieces(match)
        return numbers

    def _word(self, word: str) -> bool:
        if word in self._words or (len(word) >= _PREFIX and word[:_PREFIX] in self._prefixes):
            return True
        return (
            process.extractOne(word, self._words, scorer=Indel.normalized_similarity, score_cutoff=_ALIKE) is not None
        )

    def _acronym(self, word: str) -> bool:
        letters = "".join(_ALNUM.findall(_fold(word)))
        is_acronym = sum(map(str.isupper, word)) >= max(3, len(letters) - 1)
        return is_acronym and letters.removesuffix("s") in "".join(run[0] for run in self._runs)


def _text_of(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(str(message.get("content") or "") for message in prompt)


def _fold(text: str) -> str:
    """Without case and accents, with one form of apostrophe and of compatible characters."""
    text = text.replace("’", "'")
    if text.isascii():
        return text.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def _digits(run: str) -> str:
    """A whole number without leading zeros, in ASCII: ``int`` refuses what is longer than 4,300 digits."""
    return "".join(str(unicodedata.decimal(c)) for c in run).lstrip("0") or "0"


def _pieces(number: str) -> set[str]:
    """The whole numbers that it is made of: ``16.30`` may be a time."""
    return {_digits(run) for run in re.findall(r"\d+", number)}


def _is_several(number: str) -> bool:
    """Whether it may be more than one number: ``31.08.2018``, and ``12 500``, but not ``12,500``."""
    return " " in number or not _readings(number)


def _readings(number: str) -> set[str]:
    """It as one number: ``1,000`` is 1000 and, to a German, 1; none if it can only be several."""
    if re.fullmatch(r"\d+", number):
        return {_digits(number)}
    found = set[str]()
    if match := _GROUPED.fullmatch(number):
        whole, _, end = number.rpartition(match[1])
        found.add(_decimal(_digits(re.sub(r"\D", "", whole) + end[:3]), end[4:]))
    if _DECIMAL.fullmatch(number):
        whole, decimals = re.split("[.,]", number)
        found.add(_decimal(_digits(whole), decimals))
    return found


def _decimal(whole: str, decimals: str) -> str:
    decimals = "".join(str(unicodedata.decimal(c)) for c in decimals).rstrip("0")
    return f"{whole}.{decimals}" if decimals else whole


def _roman(numeral: str) -> str:
    values = [_ROMAN_VALUE[letter] for letter in numeral]
    after = [*values[1:], 0]
    return str(sum(-value if value < following else value for value, following in zip(values, after, strict=True)))
