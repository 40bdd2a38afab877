"""One-file pages: the template environment with escaping on, and text with nothing invisible left in it."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["render", "stand_in", "visible"]

_HERE = Path(__file__).parent
_CONTROL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# Joiners only shape the letters and emoji beside them; a stand-in between would break the writing apart.
_JOINERS = frozenset("\u200c\u200d")


def stand_in(char: str) -> str | None:
    """What is shown for a character that cannot be seen or that moves its neighbours; None if it shows itself.

    Newline and tab have signs of their own, other control characters Unicode's pictures; format characters
    (bidirectional overrides, zero-width spaces), lone surrogates, private use and other spaces than U+0020 are shown
    by their number.
    """
    if char == "\n":
        return "⏎"
    if char == "\t":
        return "⇥"
    if char < " ":
        return chr(0x2400 + ord(char))
    if char == "\x7f":
        return "␡"
    category = unicodedata.category(char)
    if char not in _JOINERS and (category in _CONTROL or (category == "Zs" and char != " ")):
        return f"⟨U+{ord(char):04X}⟩"
    return None


def visible(text: str) -> str:
    """``text`` with a stand-in for each character that cannot be seen; spaces stay, a newline stays after its sign."""
    return "".join((stand_in(char) or char) + ("\n" if char == "\n" else "") for char in text)


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment


def render(template: Path, **values: object) -> str:
    """The page that ``template`` gives, every value escaped and a missing one an error.

    The template may extend ``page.html.j2`` of this room, and pass text of models and users through ``visible``.
    """
    return _environment(template.parent).get_template(template.name).render(**values)
