r"""Edits that nobody made: what programs change in a text between the draft and what was sent.

A mail program ends lines with ``\r\n``, curls quotes, puts non-breaking spaces and ``&amp;``; a phone composes accents
otherwise. Compared with the draft all of that is an edit, and a model would learn it. Here each such kind has a name,
is found and counted by itself, and can be folded, in both texts of a pair and never in the prompt.

A kind that may be content somewhere (a text about HTML, German quotes, the line break of two spaces in Markdown) is
*careful*: it is folded only in a row of which one text has none of it. Where both have it, a person meant it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any, NamedTuple

import regex
from rapidfuzz.distance import Levenshtein

from errata.types import Correction

__all__ = ["FOLDINGS", "Folding", "Mechanical", "MechanicalOf", "Normalizer", "kinds_of", "normalize"]


class Folding(NamedTuple):
    """One kind of change that programs make, and how it is undone."""

    what: str
    """What becomes of what."""
    example: tuple[str, str]
    """A draft and what was sent, which are equal once this is folded."""
    fold: Callable[[str], str]
    careful: bool = False
    """Whether it is folded only in a row of which one text has none of it."""


def _sub(pattern: str, into: str, *, only_with: Sequence[str] = ("",)) -> Callable[[str], str]:
    """Substitute in texts that hold one of ``only_with``, which is looked for much faster."""
    found = re.compile(pattern)
    return lambda text: found.sub(into, text) if any(sign in text for sign in only_with) else text


def _beyond_ascii(fold: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: text if text.isascii() else fold(text)


def _translate(table: Mapping[str, str]) -> Callable[[str], str]:
    signs = re.compile(f"[{''.join(table)}]")  # str.translate takes twenty times as long
    return _beyond_ascii(lambda text: signs.sub(lambda sign: table[sign[0]], text))


# Joiners shape letters in Arabic and Indic scripts and build emoji; between these characters they do nothing.
_PLAIN = r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{ASCII}\s]"
# Scripts without spaces between words, where U+200B says where a word ends.
_UNSPACED = r"[\p{LineBreak=SA}\p{Javanese}\p{Balinese}\p{Sundanese}\p{Tibetan}]"
_ZERO_WIDTH = regex.compile(
    r"(?V1)[\ufeff\u2060]++"
    rf"|(?<!{_UNSPACED})\u200b(?!{_UNSPACED})"
    rf"|(?<![^{_PLAIN}])[\u200c\u200d]++(?![^{_PLAIN}])"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0]).replace("\u00a0", " ")


FOLDINGS: Mapping[str, Folding] = {
    "newlines": Folding(
        r"\r\n, \r, U+000B, U+2028 and U+2029 become \n",
        ("Dear Ada,\nhello", "Dear Ada,\r\nhello"),
        _sub("\r\n?|[\x0b\u2028\u2029]", "\n", only_with="\r\x0b\u2028\u2029"),
    ),
    "nfc": Folding(
        "letters and their accents become one character where there is one (Unicode's NFC)",
        ("caf\u00e9", "cafe\u0301"),
        _beyond_ascii(lambda text: unicodedata.normalize("NFC", text)),
    ),
    "zero-width": Folding(
        "U+200B, U+200C, U+200D, U+2060 and U+FEFF (a BOM) go; joiners in emoji and in scripts that need them stay",
        ("Dear Ada", "\ufeffDear\u200b Ada"),
        _beyond_ascii(lambda text: _ZERO_WIDTH.sub("", text)),
    ),
    "soft-hyphens": Folding(
        "U+00AD goes", ("donation", "do\u00adna\u00adtion"), _beyond_ascii(lambda text: text.replace("\u00ad", ""))
    ),
    "variation-selectors": Folding(
        "U+FE0E and U+FE0F, text or emoji, go; those inside a joined emoji or a keycap stay",
        ("I ❤ it", "I ❤\ufe0f it"),
        _sub("(?<!\u200d.)[\ufe0e\ufe0f](?![\u200d\u20e3])", "", only_with="\ufe0e\ufe0f"),
        careful=True,
    ),
    "spaces": Folding(
        "non-breaking and typographic spaces become a space",
        ("10 km", "10\u00a0km"),
        _beyond_ascii(_sub("[\u00a0\u2000-\u200a\u202f\u205f]", " ")),
        careful=True,
    ),
    "blanks": Folding(
        "a tab, or several spaces, between two words of a line become a space; indentation stays",
        ("Name: Ada", "Name:\tAda"),
        _sub(r"(?<=\S)(?:\t|[ \t]{2,}+)(?=\S)", " ", only_with=("\t", "  ")),
        careful=True,
    ),
    "trailing": Folding(
        "spaces and tabs before the end of a line go",
        ("Dear Ada,\nhello", "Dear Ada, \nhello"),
        _sub(r"(?<![^\S\r\n])[^\S\r\n]++(?=[\r\n])", "", only_with="\r\n"),
        careful=True,
    ),
    "edges": Folding("white space and blank lines around the text go", ("Dear Ada", "\nDear Ada\n\n"), str.strip),
    "quotes": Folding(
        "‘ ’ ‚ ‛ become ' and “ ” „ ‟ become \"",
        ('"It\'s here"', "“It’s here”"),
        _translate({**dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')}),
        careful=True,
    ),
    "dashes": Folding(
        "– ‐ ‑ become - and — becomes --",
        ("9-10 am", "9–10 am"),
        _translate({"–": "-", "‐": "-", "‑": "-", "—": "--"}),
        careful=True,
    ),
    "ellipsis": Folding("… becomes ...", ("Well...", "Well…"), _translate({"…": "..."}), careful=True),
    "entities": Folding(
        "HTML's &amp; &#39; &eacute; become the character, and &nbsp; a space",
        ("Tom & Ada", "Tom &amp;&nbsp;Ada"),
        lambda text: _ENTITY.sub(_character, text) if "&" in text else text,
        careful=True,
    ),
    "br": Folding(
        r"<br> becomes \n, together with a line break right after it",
        ("Dear Ada,\nhello", "Dear Ada,<br>hello"),
        _sub(r"(?i)<br\s*/?>(?:\r\n?|\n)?", "\n", only_with="<"),
        careful=True,
    ),
}
"""The kinds by name, in the order in which they are folded."""

SEVERAL = "several"
"""Stands for the kind of a row that no single kind makes equal, and several together do."""


def normalize(original: str, edited: str, kinds: Collection[str] = tuple(FOLDINGS)) -> tuple[str, str]:
    r"""Both texts of a pair, folded until nothing is left to fold; folding again changes nothing.

    Args:
        original: the text before.
        edited: the text after.
        kinds: names of ``FOLDINGS``; which one comes first does not matter.

    >>> normalize("Tom & Ada", "Tom &amp; Ada\r\n", ["newlines", "entities"])
    ('Tom & Ada', 'Tom & Ada\n')
    >>> normalize("HTML has &amp;", "HTML has &amp; and &lt;")  # both texts have it: somebody means it
    ('HTML has &amp;', 'HTML has &amp; and &lt;')
    """
    return _normalize(original, edited, kinds)[0]


def _normalize(
    original: str, edited: str, kinds: Collection[str]
) -> tuple[tuple[str, str], dict[str, tuple[bool, bool]]]:
    """The same, and which kinds changed the original and which the edited text."""
    changed: dict[str, tuple[bool, bool]] = {}
    foldings = [(name, folding) for name, folding in FOLDINGS.items() if name in kinds]
    while True:
        before = original, edited
        for name, folding in foldings:
            folded = folding.fold(original), folding.fold(edited)
            hit = folded[0] != original, folded[1] != edited
            if any(hit) and not (folding.careful and all(hit)):
                so_far = changed.get(name, (False, False))
                changed[name] = hit[0] or so_far[0], hit[1] or so_far[1]
                original, edited = folded
        # One fold may make room for another: &nbsp; is a space only once it is no entity any more.
        if (original, edited) == before:
            return before, changed


def kinds_of(flag: str) -> tuple[str, ...]:
    """The kinds that ``--normalize`` names, in the order of ``FOLDINGS``: with commas between, ``all`` or ``none``.

    Raises:
        ValueError: a name that is none of them.

    >>> kinds_of("quotes, newlines"), kinds_of("none")
    (('newlines', 'quotes'), ())
    """
    asked = [name.strip().lower() for name in flag.split(",")]
    if asked in (["all"], ["none"]):
        return tuple(FOLDINGS) if asked == ["all"] else ()
    for name in asked:
        if name not in FOLDINGS:
            near = get_close_matches(name, FOLDINGS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(
                f"--normalize {flag}: {name!r} is no kind of change; {hint}give all, none, or some of "
                f"{','.join(FOLDINGS)}"
            )
    return tuple(name for name in FOLDINGS if name in asked)


@dataclass(slots=True)
class Normalizer:
    r"""Folds one correction after another, and counts what it changed; prompts stay as they are.

    Sampled ids spell a draft to the character, and weights stand on its characters: where that text changes they are
    dropped, and counted.

    >>> normalizer = Normalizer(("newlines",))
    >>> normalizer(Correction(id="a", prompt="", original="a\nb", edited="a\r\nb", original_ids=(1, 2))).edited
    'a\nb'
    >>> print(normalizer)
    --normalize newlines folded 1 row on both sides (newlines: 0 drafts, 1 edited text); 1 row became unchanged
    """

    kinds: tuple[str, ...]
    rows: int = 0
    """Rows of which a text changed."""
    originals: Counter[str] = field(default_factory=Counter)
    """Original texts that changed, by kind."""
    edited: Counter[str] = field(default_factory=Counter)
    now_unchanged: int = 0
    """Rows whose texts differed and are equal now."""
    ids_dropped: int = 0
    """Rows that lost their sampled ids."""
    weights_dropped: int = 0
    """Texts that lost their own weights."""

    def __call__(self, row: Correction) -> Correction:
        """The row, folded; the same object where nothing changes."""
        (original, edited), changed = _normalize(row.original, row.edited, self.kinds)
        if not changed:
            return row
        self.rows += 1
        self.originals.update(name for name, (first, _) in changed.items() if first)
        self.edited.update(name for name, (_, second) in changed.items() if second)
        self.now_unchanged += original == edited and row.original != row.edited
        same_original, same_edited = original == row.original, edited == row.edited
        self.ids_dropped += not same_original and row.original_ids is not None
        self.weights_dropped += not same_original and row.original_weights is not None
        self.weights_dropped += not same_edited and row.edited_weights is not None
        return replace(
            row,
            original=original,
            edited=edited,
            original_ids=row.original_ids if same_original else None,
            original_weights=row.original_weights if same_original else None,
            edited_weights=row.edited_weights if same_edited else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it by name, and in words, ready for JSON."""
        return {
            "kinds": list(self.kinds),
            "rows": self.rows,
            "originals": dict(self.originals),
            "edited": dict(self.edited),
            "now_unchanged": self.now_unchanged,
            "sampled_ids_dropped": self.ids_dropped,
            "own_weights_dropped": self.weights_dropped,
            "said": str(self),
        }

    def __str__(self) -> str:
        by_kind = ", ".join(
            f"{name}: {_some(self.originals[name], 'draft')}, {_some(self.edited[name], 'edited text')}"
            for name in FOLDINGS
            if self.originals[name] or self.edited[name]
        )
        said = [
            f"--normalize {','.join(self.kinds) or 'none'} folded {_some(self.rows, 'row')} on both sides"
            + (f" ({by_kind})" if by_kind else "")
        ]
        if self.now_unchanged:
            said.append(f"{_some(self.now_unchanged, 'row')} became unchanged")
        if self.ids_dropped:
            said.append(f"{_some(self.ids_dropped, 'row')} lost the sampled ids, which spell the draft as it was")
        if self.weights_dropped:
            said.append(f"{_some(self.weights_dropped, 'text')} lost the weights that stood on its characters")
        return "; ".join(said)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanical:
    """How much of the edits programs made, by kind; counts of rows are of those whose texts differ."""

    all_rows: int = 0
    """Rows that were looked at, unchanged ones among them."""
    changed_rows: int = 0
    changed_characters: int = 0
    """The least number of characters to insert, delete or substitute, over all rows."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Rows that fold nearer to each other by this kind, whatever else changed."""
    only: Mapping[str, int] = field(default_factory=dict)
    """Rows that differ in nothing else, each counted once; ``several``: in several kinds and nothing else."""
    characters: Mapping[str, int] = field(default_factory=dict)
    """By how many changed characters fewer the rows differ once this kind is folded."""
    touched_rows: int = 0
    """Rows that have any of them."""

    @property
    def only_rows(self) -> int:
        """Rows that no person changed."""
        return sum(self.only.values())

    @property
    def flag(self) -> str:
        """What to type to fold all that was found."""
        return f"--normalize {','.join(self.rows)}"

    def as_dict(self) -> dict[str, Any]:
        """All of it by name, and in words, ready for JSON."""
        return {**asdict(self), "only_rows": self.only_rows, "said": self.lines()}

    def lines(self) -> list[str]:
        """What was found in words; nothing where nothing was."""
        if not self.rows:
            return []
        head = (
            f"{self.touched_rows:,} of {self.changed_rows:,} changed rows hold edits that programs make and nobody "
            f"meant, {self.only_rows:,} of them ({self.only_rows / self.changed_rows:.1%}) nothing else:"
        )
        kinds = [
            f"  {name}: in {_some(count, 'row')}, {self.only.get(name, 0):,} of them nothing else; "
            f"{self.characters[name]:,} of {self.changed_characters:,} changed characters "
            f"({self.characters[name] / self.changed_characters:.1%})"
            for name, count in self.rows.items()
        ]
        several = self.only.get(SEVERAL, 0)
        if several:
            kinds.append(f"  several of these and nothing else: in {_some(several, 'row')}")
        return [head, *kinds, f"  fold them in both texts with {self.flag}, or name only those not to be learned"]


class MechanicalOf:
    r"""Counts them, one pair at a time: ``add`` each, then ask for the ``result``.

    >>> tally = MechanicalOf()
    >>> tally.add("a\nb", "a\r\nb")
    >>> tally.add("It's nine.", "It’s ten.")
    >>> found = tally.result()
    >>> found.only, found.rows, found.characters, found.changed_characters
    ({'newlines': 1}, {'newlines': 1, 'quotes': 1}, {'newlines': 1, 'quotes': 1}, 5)
    """

    def __init__(self) -> None:
        self._totals: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._only: Counter[str] = Counter()
        self._characters: Counter[str] = Counter()

    def add(self, original: str, edited: str) -> None:
        """Count one pair."""
        self._totals["all"] += 1
        if original == edited:
            return
        distance = int(Levenshtein.distance(original, edited))
        self._totals.update(changed=1, characters=distance)
        found, only = _share(original, edited, distance)
        self._rows.update(found.keys())
        self._characters.update(found)
        self._totals["touched"] += bool(found)
        if only:
            self._only[only] += 1

    def result(self) -> Mechanical:
        """All that was counted so far."""
        return Mechanical(
            all_rows=self._totals["all"],
            changed_rows=self._totals["changed"],
            changed_characters=self._totals["characters"],
            touched_rows=self._totals["touched"],
            rows=_by_kind(self._rows),
            only=_by_kind(self._only),
            characters=_by_kind(self._characters),
        )


def _share(original: str, edited: str, distance: int) -> tuple[dict[str, int], str | None]:
    """By how many characters each kind brings two texts nearer, and which of them makes them equal, if any does."""
    there = [name for name, each in FOLDINGS.items() if each.fold(original) != original or each.fold(edited) != edited]
    for name in there:
        first, second = normalize(original, edited, (name,))
        if first == second:
            return {name: distance}, name
    found: dict[str, int] = {}
    folded: tuple[str, ...] = ()
    for name in there:  # one after the other, so that no character is counted for two kinds
        folded = (*folded, name)
        left = int(Levenshtein.distance(*normalize(original, edited, folded)))
        if left < distance:
            found[name] = distance - left
        distance = left
    return found, None if distance else SEVERAL


def _by_kind(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in (*FOLDINGS, SEVERAL) if counts.get(name)}


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
