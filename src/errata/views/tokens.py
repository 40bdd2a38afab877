"""Tokens coloured by a signed value: blue above zero, orange below, as strong as ``|value| / scale``.

The two hues are the blue and the vermilion of Okabe and Ito's palette, which colour-blind readers tell apart. The sign
is told a second time: negative tokens are underlined with dashes (in the terminal, underlined at all), positive ones
with a line, tokens of a fifth of the scale or more carry a small − or +, and the hover title states the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby

from markupsafe import Markup, escape
from rich.style import Style
from rich.text import Text

from errata.views.pages import stand_in, visible

__all__ = ["ColoredToken", "color_tokens", "shared_scale", "tokens_to_html", "tokens_to_terminal"]

_BLUE, _VERMILION = (0, 114, 178), (213, 94, 0)
_MARKED = 0.2  # what FIGA's defaults unlearn has a fifth of the weight of what they imitate
"""Tokens from this share of the scale on carry their sign as a small mark."""
_NO_TEXT = "∅"
"""Stands for a token without characters of its own: the end of sequence, later bytes of one character."""


@dataclass(frozen=True, slots=True)
class ColoredToken:
    """A token as it is shown: its characters, a signed value, whether it has a frame, and what hovering adds."""

    text: str
    value: float
    outlined: bool = False
    detail: Mapping[str, str] = field(default_factory=dict)


def color_tokens(
    text: str,
    offsets: Sequence[tuple[int, int]],
    values: Sequence[float],
    *,
    outlined: Sequence[bool] | None = None,
    details: Sequence[Mapping[str, str]] | None = None,
) -> list[ColoredToken]:
    """The tokens of ``text``, which their texts joined give back whole.

    Args:
        text: What the tokens stand for.
        offsets: For each token its characters in ``text``. Characters between two tokens go to the second; a token
            whose characters were all taken by those before it (a byte of an emoji, the end of sequence) has no text.
        values: One a token.
        outlined: One a token; none is framed by default.
        details: One a token; empty by default.

    Raises:
        ValueError: The sequences differ in length, or an offset lies outside the text.
    """
    count = len(offsets)
    outlined = [False] * count if outlined is None else outlined
    details = [{}] * count if details is None else details
    for name, given in (("values", values), ("outlined", outlined), ("details", details)):
        if len(given) != count:
            raise ValueError(f"{len(given)} {name} for {count} tokens: give one for each offset")
    tokens, taken = [], 0
    for index, (start, stop) in enumerate(offsets):
        if not 0 <= start <= stop <= len(text):
            raise ValueError(f"token {index} has the offsets {(start, stop)} in a text of {len(text)} characters")
        tokens.append(ColoredToken(text[taken:stop], values[index], outlined[index], details[index]))
        taken = max(taken, stop)
    if taken < len(text):
        tokens.append(ColoredToken(text[taken:], 0.0))
    return tokens


def shared_scale(values: Iterable[float]) -> float:
    """The largest ``|value|`` (1 where all are zero): a ``scale`` under which no colour of the page is cut off."""
    return max(map(abs, values), default=0.0) or 1.0


def _share(token: ColoredToken, index: int, scale: float) -> float:
    """``value / scale`` cut to [-1, 1]."""
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"the scale is {scale}: give the |value| of full colour, above zero")
    if not math.isfinite(token.value):
        raise ValueError(f"token {index} ({token.text!r}) has the value {token.value}: leave it out or give it 0")
    return max(-1.0, min(1.0, token.value / scale))


def _title(token: ColoredToken) -> str:
    return visible(" · ".join([f"{token.value:+.3g}", *(f"{key}: {value}" for key, value in token.detail.items())]))


def _html_text(text: str) -> Markup:
    shown = []
    for char in text:
        sign = stand_in(char)
        if sign is not None:
            shown.append(Markup('<span class="ctl">{}</span>').format(sign) + ("\n" if char == "\n" else ""))
        elif char == " ":
            shown.append(Markup('<span class="ws"> </span>'))
        else:
            shown.append(escape(char))
    return Markup().join(shown) if text else Markup('<span class="ctl">{}</span>').format(_NO_TEXT)


def tokens_to_html(tokens: Iterable[ColoredToken], *, scale: float) -> Markup:
    """The tokens as one inline element; ``page.css`` of this room gives it its looks.

    Args:
        tokens: In reading order.
        scale: The ``|value|`` that gets full colour, the same for all tokens of a page.

    Raises:
        ValueError: The scale is not above zero, or a value is not finite (says which).
    """
    spans = []
    for index, token in enumerate(tokens):
        share = _share(token, index, scale)
        names = ["tok"]
        if share:
            names.append("pos" if share > 0 else "neg")
        if abs(share) >= _MARKED:
            names.append("marked")
        if token.outlined:
            names.append("outlined")
        spans.append(
            Markup('<span class="{}" style="--a:{:.2f}" title="{}">{}</span>').format(
                " ".join(names), abs(share), _title(token), _html_text(token.text)
            )
        )
    return Markup('<span class="tokens" dir="auto">{}</span>').format(Markup().join(spans))


def _terminal_style(share: float) -> Style:
    if not share:
        return Style()
    # Black on a tint of white reads on dark and on light terminals alike.
    red, green, blue = (round(255 + (full - 255) * abs(share) * 0.7) for full in (_BLUE if share > 0 else _VERMILION))
    return Style(color="black", bgcolor=f"rgb({red},{green},{blue})", underline=share < 0)


def tokens_to_terminal(tokens: Iterable[ColoredToken], *, scale: float) -> Text:
    """The tokens as rich text: tinted, negative ones underlined, outlined ones between ⟦ and ⟧; spaces show as ·.

    Neighbours of one value are shown as one piece, with one sign.

    Args:
        tokens: In reading order.
        scale: The ``|value|`` that gets full colour, the same for all tokens of a page.

    Raises:
        ValueError: The scale is not above zero, or a value is not finite (says which).
    """
    tokens = list(tokens)
    shares = [_share(token, index, scale) for index, token in enumerate(tokens)]
    lines = accumulate((token.text.endswith("\n") for token in tokens), initial=0)
    line = Text()
    for (share, outlined, _), run in groupby(
        zip(shares, tokens, lines, strict=False), key=lambda each: (each[0], each[1].outlined, each[2])
    ):
        shown = "".join(visible(token.text).replace(" ", "·") if token.text else _NO_TEXT for _, token, _ in run)
        mark = "" if abs(share) < _MARKED else "⁺" if share > 0 else "⁻"
        # The line break of a newline stays outside of the tint, which would otherwise run to the edge of the terminal.
        body, breaks = shown.rstrip("\n"), "\n" if shown.endswith("\n") else ""
        line.append(f"⟦{body}{mark}⟧" if outlined else body + mark, _terminal_style(share)).append(breaks)
    return line
