"""Private matter out of texts, before anything is stored: best effort, by the shapes that such things have.

What is found: e-mail addresses, telephone numbers, IBANs and card numbers (their check digits must be right), IP
addresses, and links that carry a query, a password or a long key. Names and postal addresses have no shape and stay.
Every search takes time in proportion to the text, whatever stands in it.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, urlsplit

from errata.types import Correction, Prompt

__all__ = ["Masker", "mask_correction", "mask_texts"]

# Possessive repeats (++) never give back what they took, and each search begins only where a run begins: no text makes
# them try again and again.
_URL = re.compile(r"""(?:(?:https?|ftp|wss?)://|www\.)[^\s<>"'`|\\^{}]++""", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]++@[\w-]++(?:\.[\w-]++)+(?<=[^\W\d_]{2})")
_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}(?!\w)")
_DIGITS = re.compile(r"(?<!\w)\d++(?:[ -]\d++)*+")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_IPV6 = re.compile(r"(?<!\w)[0-9A-Fa-f:.]*+")
_NUMBER = re.compile(r"(?<!\w)[+(]?+\d[\d ()/.\-]*+")

_CARD_DIGITS = range(13, 20)
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})")
_DECIMAL = re.compile(r"\d+\.\d+")
_NATIONAL = re.compile(r"\(?\d{3}\)?[ .-]?\d{3}[ .-]\d{4}")
_KEY = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[\w.~-]{20,}")

_Found = Iterator[tuple[int, int, str]]
"""Start, stop, and what makes two spellings one thing."""


def mask_texts(texts: Sequence[str]) -> tuple[list[str], Counter[str]]:
    """The texts of one row with private matter replaced, and how often each kind stood in them.

    The same address has the same placeholder in all of the texts, so that an edit between them stays as small:

    >>> mask_texts(["Answer anna@example.com", "Dear Anna (Anna@example.com), call +49 171 1234567"])[0]
    ['Answer [EMAIL-1]', 'Dear Anna ([EMAIL-1]), call [PHONE-1]']
    """
    masker = Masker(taken=frozenset(re.findall(r"\[[A-Z]{2,5}-\d+\]", "\n".join(texts))))
    return [masker(text) for text in texts], masker.counts


@dataclass(slots=True)
class Masker:
    """Replaces private matter in one text after another; the same thing gets the same placeholder in all of them."""

    taken: frozenset[str] = frozenset()
    """Placeholders that the texts hold already, and that mean something else."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often each kind was replaced: ``email``, ``phone``, ``iban``, ``card``, ``ip``, ``link``."""
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _last: Counter[str] = field(default_factory=Counter)

    def __call__(self, text: str) -> str:
        """The text, masked."""
        for kind, find in _KINDS:
            parts, end = [], 0
            for start, stop, same in find(text):
                parts += [text[end:start], self._placeholder(kind, same)]
                end = stop
                self.counts[kind] += 1
            text = "".join([*parts, text[end:]])
        return text

    def _placeholder(self, kind: str, same: str) -> str:
        while (name := self._names.get((kind, same))) is None:
            self._last[kind] += 1
            fresh = f"[{kind.upper()}-{self._last[kind]}]"
            if fresh not in self.taken:
                self._names[kind, same] = fresh
        return name


def mask_correction(row: Correction) -> tuple[Correction, Counter[str]]:
    """A correction with prompt, both texts and reasons masked together, and how often each kind stood in them.

    Sampled ids spell the text as it was, and weights stand on its characters: where that text changes they are dropped.
    """
    spoken = [row.prompt] if isinstance(row.prompt, str) else [message["content"] for message in row.prompt]
    masked, counts = mask_texts([*spoken, row.original, row.edited, *row.reasons])
    original, edited = masked[len(spoken) : len(spoken) + 2]
    prompt: Prompt = masked[0]
    if not isinstance(row.prompt, str):
        prompt = [{**message, "content": text} for message, text in zip(row.prompt, masked, strict=False)]
    return replace(
        row,
        prompt=prompt,
        original=original,
        edited=edited,
        original_ids=row.original_ids if original == row.original else None,
        original_weights=row.original_weights if original == row.original else None,
        edited_weights=row.edited_weights if edited == row.edited else None,
        reasons=tuple(masked[len(spoken) + 2 :]),
    ), counts


# One search a kind.


def _links(text: str) -> _Found:
    for match in _URL.finditer(text):
        link = match[0].rstrip(".,;:!?)]*_")
        if _is_private_link(link):
            yield match.start(), match.start() + len(link), link


def _is_private_link(link: str) -> bool:
    try:
        parts: SplitResult = urlsplit(link)
    except ValueError:  # brackets that are no address
        return True
    return bool(
        parts.query
        or "@" in parts.netloc
        or "=" in parts.fragment
        or any(_KEY.fullmatch(piece) for piece in parts.path.split("/"))
    )


def _emails(text: str) -> _Found:
    for match in _EMAIL.finditer(text):
        yield *match.span(), match[0].casefold()


def _ibans(text: str) -> _Found:
    end = 0
    for match in _IBAN.finditer(text):
        if match.start() < end:
            continue
        # A word in capitals may stand right after it: the longest beginning whose check digits are right.
        for stop in range(match.end(), match.start() + 14, -1):
            if text[stop - 1] != " " and (stop == match.end() or not text[stop].isalnum()):
                plain = text[match.start() : stop].replace(" ", "").upper()
                if _iban_is_right(plain):
                    yield match.start(), stop, plain
                    end = stop
                    break


def _iban_is_right(iban: str) -> bool:
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1


def _cards(text: str) -> _Found:
    for match in _DIGITS.finditer(text):
        if len(match[0]) < _CARD_DIGITS[0]:
            continue
        groups = [(each.start(), each.end(), each[0]) for each in re.finditer(r"\d+", match[0])]
        first = 0
        while first < len(groups):
            found = _card_at(groups, first)
            if found is None:
                first += 1
                continue
            last, digits = found
            yield match.start() + groups[first][0], match.start() + groups[last][1], digits
            first = last + 1


def _card_at(groups: Sequence[tuple[int, int, str]], first: int) -> tuple[int, str] | None:
    """The last group of the longest card number that begins with the first one, and its digits."""
    digits, found = "", None
    for last in range(first, len(groups)):
        digits += groups[last][2][: _CARD_DIGITS[-1] + 1]
        if len(digits) > _CARD_DIGITS[-1]:
            break
        if len(digits) in _CARD_DIGITS and _luhn(digits):
            found = last, digits
    return found


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def _ipv6s(text: str) -> _Found:
    for match in _IPV6.finditer(text):
        shown = match[0].rstrip(".")
        if 3 <= len(shown) < 60 and shown.count(":") > 1 and any(char.isdigit() for char in shown):
            yield from _address(match.start(), shown)


def _ipv4s(text: str) -> _Found:
    for match in _IPV4.finditer(text):
        yield from _address(match.start(), match[0])


def _address(start: int, shown: str) -> _Found:
    try:
        address = ipaddress.ip_address(shown)
    except ValueError:
        return
    yield start, start + len(shown), str(address)


def _phones(text: str) -> _Found:
    for match in _NUMBER.finditer(text):
        shown = match[0].rstrip(" ()/.-")
        digits = re.sub(r"\D", "", shown)
        if len(digits) >= 7 and _is_phone(shown, digits):
            yield match.start(), match.start() + len(shown), digits


def _is_phone(shown: str, digits: str) -> bool:
    if _DATE.fullmatch(shown) or _DECIMAL.fullmatch(shown):
        return False
    if shown[0] in "+(" or re.match(r"0\d", shown):
        return True
    return _NATIONAL.fullmatch(shown) is not None or (shown.isdigit() and 10 <= len(digits) <= 15)


# In this order: a link may hold an address, and a telephone number is what no other kind of number is.
_KINDS: Sequence[tuple[str, Callable[[str], _Found]]] = (
    ("link", _links),
    ("email", _emails),
    ("iban", _ibans),
    ("card", _cards),
    ("ip", _ipv6s),
    ("ip", _ipv4s),
    ("phone", _phones),
)
