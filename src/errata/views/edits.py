"""Labelled pairs side by side: what the correction took from the original, and what it put into the edited text."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Group
from rich.table import Table
from rich.text import Text

from errata.types import Label, LabeledTokens, TokenLabels
from errata.views.facing import face
from errata.views.island import DIGITS, pack, to_json
from errata.views.pages import render, visible
from errata.views.tokens import ColoredToken, color_tokens, shared_scale, tokens_to_terminal

__all__ = ["Show", "SideStreams", "ViewRow", "edits_page", "labels_to_terminal", "legend_to_terminal", "view_scale"]

_TEMPLATE = Path(__file__).parent / "edits.html.j2"
_SCRIPT = Path(__file__).parent / "edits.js"
_SIDES = ("original", "edited")
_TINTS: tuple[Mapping[Label, float], Mapping[Label, float]] = (
    {Label.KEPT: 0.0, Label.DELETED: -1.0, Label.SUBSTITUTED: -1.0, Label.OMISSION: 0.0, Label.IGNORED: 0.0},
    {Label.KEPT: 0.0, Label.INSERTED: 1.0, Label.SUBSTITUTED: 1.0, Label.IGNORED: 0.0},
)
"""The labels that each side knows, as the numbers that colour them."""
_WORDS = {
    Label.KEPT: "kept",
    Label.INSERTED: "inserted",
    Label.DELETED: "deleted",
    Label.SUBSTITUTED: "substituted",
    Label.OMISSION: "omission: something is missing right before it",
    Label.IGNORED: "ignored: teaches nothing",
}
_END, _MISSING_HERE = "⟨end⟩", "‸"
_NO_LABEL = -1
"""Of the text after the last token, where a row was cut."""
_SET_APART = {int(Label.IGNORED): "ignored", _NO_LABEL: "no token"}

SideStreams = tuple[Sequence[float] | None, Sequence[float] | None]
"""One number for each response token of the original and of the edited text; None for a side that has none."""


class Show(StrEnum):
    """What colours the tokens: their label, their weight in the loss, or their reward."""

    LABELS = "labels"
    WEIGHTS = "weights"
    REWARDS = "rewards"


_SIGNS = {Show.LABELS: ("taken away", "put in"), Show.WEIGHTS: ("unlearned", "imitated"), Show.REWARDS: ("bad", "good")}


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewRow:
    """A labelled pair and what else is known of it."""

    labels: TokenLabels
    reasons: Sequence[str] = ()
    weights: SideStreams = (None, None)
    """Signed: above zero is imitated, below it unlearned."""
    rewards: SideStreams = (None, None)


def view_scale(rows: Iterable[ViewRow], show: Show = Show.LABELS) -> float:
    """The ``|value|`` of full colour: 1 for labels, otherwise the largest of all rows.

    Raises:
        ValueError: there are no such values at all.
    """
    if show == Show.LABELS:
        return 1.0
    values = [value for row in rows for stream in _given(row, show) if stream is not None for value in stream]
    if not values:
        raise ValueError(f"no row has {show.value} to show; hand them in, or show the labels")
    return shared_scale(values)


def labels_to_terminal(
    pair: TokenLabels, *, values: SideStreams | None = None, scale: float = 1.0, reasons: Sequence[str] = ()
) -> Group:
    """One labelled pair for the terminal, the original over the edited text; ``legend_to_terminal`` explains it.

    Args:
        pair: The labels.
        values: What colours the tokens; their labels by default.
        scale: The ``|value|`` that gets full colour.
        reasons: Why it was edited.

    Raises:
        ValueError: A side has not one label and one value for each token, or a label that belongs to the other side.
    """
    table = Table.grid(padding=(0, 2))
    table.highlight = False
    for index, name in enumerate(_SIDES):
        side = _checked(pair, index)
        stream = _tints(side, index) if values is None else values[index]
        _check_stream(stream, side, f"pair {pair.id!r}, {name} side,")
        table.add_row(name, _line(side, stream, scale))
    # Not the table's own title and caption, which are no wider than the table and would be broken at its edge.
    return Group(Text(visible(" · ".join([pair.id, *reasons])), "italic"), table, Text(_counts(pair), "dim italic"))


def legend_to_terminal(show: Show = Show.LABELS, scale: float = 1.0) -> Text:
    """What the marks mean, and which value gets full colour."""
    samples = [ColoredToken("−", -scale), ColoredToken("+", scale), ColoredToken("substituted", 0.0, outlined=True)]
    less, more, framed = (tokens_to_terminal([sample], scale=scale) for sample in samples)
    return Text.assemble(
        less, " ", more, " ", _scale_words(show, scale), "\n", framed, "  ",
        f"{_MISSING_HERE}something is missing here  ⟪ignored: teaches nothing⟫  ·space  ⏎newline  ⟨1/4⟩a byte of it",
    )  # fmt: skip


def edits_page(rows: Iterable[ViewRow], *, title: str, show: Show = Show.LABELS) -> str:
    """A self-contained HTML page of labelled pairs: each original beside its edited text, word facing word.

    A script of the page's own, the only one that its policy lets run, draws the tokens as they scroll into view and
    shows what hovering, focus and a click ask for; all text of models and users is data to it. Numbers are kept to
    three digits.

    Args:
        rows: The pairs, with the streams that are to be shown.
        title: Over the page.
        show: What colours the tokens; one scale holds for the page.

    Raises:
        ValueError: A side has not one label (weight, reward) for each token, a label that belongs to the other side, or
            a value that is not finite; or there is nothing of what is to be shown.
    """
    rows = list(rows)
    scale = view_scale(rows, show) if rows else 1.0
    script = _SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(
        _TEMPLATE,
        title=title,
        count=len(rows),
        scale=_number(scale),
        signs=_SIGNS[show],
        scale_words=_scale_words(show, scale),
        script=Markup(script),  # noqa: S704
        script_source=f"'sha256-{digest}'",
        data=to_json(_data(rows, show, scale)),
    )


def _data(rows: Sequence[ViewRow], show: Show, scale: float) -> dict[str, Any]:
    """What the script is given: streams packed (see ``errata.views.island``), in the order of ``_SIDES``."""
    streams: dict[str, list[Sequence[float]]] = {}
    shown: list[dict[str, Any]] = []
    for row in rows:
        pair, sides = row.labels, []
        for index, name in enumerate(_SIDES):
            side = _checked(pair, index)
            one: dict[str, Sequence[float] | None] = {
                "lengths": _lengths(side),
                "ids": side.encoded.response_ids,
                "labels": side.labels,
                "weights": row.weights[index],
                "rewards": row.rewards[index],
            }
            for kind, stream in one.items():
                _check_stream(stream, side, f"pair {pair.id!r}, {name} side, {kind}:")
            sides.append(one)
        columns = face(pair.original, pair.edited)
        streams.setdefault("columns", []).extend([list(counts) for counts in zip(*columns, strict=True)] or [[], []])
        for kind in sides[0]:
            streams.setdefault(kind, []).extend(_rounded(side[kind]) for side in sides)
        texts = [{"text": side.text, "ended": side.encoded.ended} for side in (pair.original, pair.edited)]
        given = {kind: [side[kind] is not None for side in sides] for kind in ("weights", "rewards")}
        shown.append({"id": pair.id, "reasons": list(row.reasons), "counts": _counts(pair), "sides": texts, **given})
    packed = {kind: pack(given) for kind, given in streams.items()}
    for index, entry in enumerate(shown):
        entry["streams"] = {kind: texts[2 * index : 2 * index + 2] for kind, (_, texts) in packed.items()}
    return {
        "digits": DIGITS,
        "tables": {kind: table for kind, (table, _) in packed.items()},
        "labels": [_WORDS[label] for label in Label],
        "tints": [[tints.get(label, 0.0) for label in Label] for tints in _TINTS],
        "show": show.value,
        "scale": scale,
        "rows": shown,
    }


def _checked(pair: TokenLabels, index: int) -> LabeledTokens:
    """A side of the pair whose labels are one a token and of this side."""
    side, where = (pair.original, pair.edited)[index], f"pair {pair.id!r}, {_SIDES[index]} side,"
    count = len(side.encoded.offsets)
    if len(side.labels) != count:
        raise ValueError(f"{where} has {len(side.labels)} labels for {count} tokens: label the texts again")
    known = _TINTS[index]
    for token, label in enumerate(side.labels):
        if label not in known:
            allowed = ", ".join(f"{one.value} ({one.name.lower()})" for one in known)
            raise ValueError(f"{where} has the label {label} at token {token}; this side knows {allowed}")
    return side


def _check_stream(stream: Sequence[float] | None, side: LabeledTokens, where: str) -> None:
    if stream is None:
        return
    if len(stream) != len(side.labels):
        raise ValueError(f"{where} {len(stream)} values for {len(side.labels)} tokens: give one a token")
    for token, value in enumerate(stream):
        if not math.isfinite(value):
            raise ValueError(f"{where} the value of token {token} is {value}: leave the stream out or mend it")


def _given(row: ViewRow, show: Show) -> SideStreams:
    return row.weights if show == Show.WEIGHTS else row.rewards


def _tints(side: LabeledTokens, index: int) -> list[float]:
    return [_TINTS[index][Label(label)] for label in side.labels]


def _rounded(stream: Sequence[float] | None) -> list[float]:
    return [value if isinstance(value, int) else float(f"{value:.3g}") for value in stream or ()]


def _number(value: float) -> str:
    return f"{value:.3g}"


def _scale_words(show: Show, scale: float) -> str:
    what, largest = {
        Show.LABELS: ("label", ""),
        Show.WEIGHTS: ("weight in the loss", ", the largest shown"),
        Show.REWARDS: ("reward", ", the largest shown"),
    }[show]
    less, more = _SIGNS[show]
    return f"colour is the {what}: − {less}, + {more}; none at 0, full at ±{_number(scale)}{largest}"


def _counts(pair: TokenLabels) -> str:
    before, after = Counter(pair.original.labels), Counter(pair.edited.labels)
    said = {
        "{} deleted": (before[Label.DELETED],),
        "{} inserted": (after[Label.INSERTED],),
        "{} substituted by {}": (before[Label.SUBSTITUTED], after[Label.SUBSTITUTED]),
        "{} after an omission": (before[Label.OMISSION],),
        "{} and {} ignored": (before[Label.IGNORED], after[Label.IGNORED]),
    }
    changes = [words.format(*counts) for words, counts in said.items() if any(counts)]
    return ", ".join([*(changes or ["nothing changed"]), f"{before[Label.KEPT]} kept"])


def _lengths(side: LabeledTokens) -> list[int]:
    """How much of the text each token shows, in UTF-16 units; −1 for one more byte piece of the character before it."""
    offsets = side.encoded.offsets
    tokens = color_tokens(side.text, offsets, [0.0] * len(offsets))
    return [
        sum(1 + (char > "\uffff") for char in token.text) or -int(start < stop)
        for token, (start, stop) in zip(tokens, offsets, strict=False)  # The rest of the text is no token.
    ]


def _line(side: LabeledTokens, stream: Sequence[float] | None, scale: float) -> Text:
    """A side for the terminal."""
    labels = list(side.labels)
    values = [0.0] * len(labels) if stream is None else stream
    outlined = [label == Label.SUBSTITUTED for label in labels]
    tokens = color_tokens(side.text, side.encoded.offsets, values, outlined=outlined)
    texts = _texts([token.text for token in tokens], _lengths(side), side.encoded.ended)
    labels += [_NO_LABEL] * (len(tokens) - len(labels))
    shown = [ColoredToken(text, token.value, token.outlined) for text, token in zip(texts, tokens, strict=True)]
    line = Text(overflow="fold")
    for label, run in groupby(zip(labels, shown, strict=True), key=lambda item: item[0]):
        found = [token for _, token in run]
        for piece in [[token] for token in found] if label == Label.OMISSION else [found]:
            joined = tokens_to_terminal(piece, scale=scale)
            if label in _SET_APART:
                joined = Text.assemble(f"⟪{_SET_APART[label]}: ", joined, "⟫")
                joined.stylize("dim")
            line.append(_MISSING_HERE if label == Label.OMISSION else "", "bold").append_text(joined)
    return line


def _texts(texts: Sequence[str], lengths: Sequence[int], ended: bool) -> Iterator[str]:
    """The tokens' texts, with words for those that have none and numbers for the bytes of one character."""
    for index, text in enumerate(texts):
        if index >= len(lengths):
            yield text
        elif ended and index == len(lengths) - 1:
            yield text + _END
        elif lengths[index] == -1 or lengths[index + 1 : index + 2] == [-1]:
            first, last = index, index + 1
            while lengths[first] == -1 and first:
                first -= 1
            while last < len(lengths) and lengths[last] == -1:
                last += 1
            yield f"{text}⟨{index - first + 1}/{last - first}⟩"
        else:
            yield text
