"""Labelled pairs side by side: what the correction took from the original, and what it put into the edited text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from errata.types import Label, LabeledTokens, TokenLabels
from errata.views.pages import render, visible
from errata.views.tokens import ColoredToken, color_tokens, tokens_to_html, tokens_to_terminal

__all__ = ["edits_page", "labels_to_terminal"]

_TEMPLATE = Path(__file__).parent / "edits.html.j2"
_ORIGINAL = {Label.KEPT: 0.0, Label.DELETED: -1.0, Label.SUBSTITUTED: -1.0}
_EDITED = {Label.KEPT: 0.0, Label.INSERTED: 1.0, Label.SUBSTITUTED: 1.0}
_SCALE = 1.0


def _colored(side: LabeledTokens, values: dict[Label, float], where: str) -> list[ColoredToken]:
    """Taken away = -1, put in = +1, kept = 0; framed where the other side has a token in its place."""
    offsets = side.encoded.offsets
    if len(side.labels) != len(offsets):
        raise ValueError(f"{where} has {len(side.labels)} labels for {len(offsets)} tokens: label the texts again")
    details = []
    for index, (label, (start, stop)) in enumerate(zip(side.labels, offsets, strict=True)):
        if label not in values:
            allowed = ", ".join(f"{known.value} ({known.name.lower()})" for known in values)
            raise ValueError(f"{where} has the label {label} at token {index}; this side knows {allowed}")
        detail = {"label": Label(label).name.lower(), "token": str(index), "id": str(side.encoded.response_ids[index])}
        if side.encoded.ended and index == len(offsets) - 1:
            detail["text"] = "end of sequence"
        elif start == stop or (index and stop <= offsets[index - 1][1]):
            detail["text"] = "no character of its own"
        details.append(detail)
    return color_tokens(
        side.text,
        offsets,
        [values[Label(label)] for label in side.labels],
        outlined=[label == Label.SUBSTITUTED for label in side.labels],
        details=details,
    )


def _both(pair: TokenLabels) -> tuple[list[ColoredToken], list[ColoredToken]]:
    return (
        _colored(pair.original, _ORIGINAL, f"pair {pair.id!r}, original side,"),
        _colored(pair.edited, _EDITED, f"pair {pair.id!r}, edited side,"),
    )


def _counts(pair: TokenLabels) -> str:
    before, after = Counter(pair.original.labels), Counter(pair.edited.labels)
    return (
        f"{before[Label.DELETED]} deleted, {after[Label.INSERTED]} inserted, {before[Label.SUBSTITUTED]} substituted "
        f"by {after[Label.SUBSTITUTED]}, {before[Label.KEPT]} kept"
    )


def labels_to_terminal(pair: TokenLabels) -> Table:
    """One labelled pair for the terminal, the original over the edited text.

    Raises:
        ValueError: A side has not one label for each token, or a label that belongs to the other side.
    """
    original, edited = _both(pair)
    table = Table.grid(padding=(0, 2))
    table.title, table.caption = Text(visible(pair.id)), _counts(pair)
    table.title_justify = table.caption_justify = "left"
    table.add_row("original", tokens_to_terminal(original, scale=_SCALE))
    table.add_row("edited", tokens_to_terminal(edited, scale=_SCALE))
    return table


def edits_page(pairs: Iterable[TokenLabels], *, title: str) -> str:
    """A self-contained HTML page of labelled pairs: each original beside its edited text, tokens coloured by label.

    Deleted and substituted tokens of the original are negative, inserted and substituted ones of the edited text
    positive; substituted ones are framed.

    Raises:
        ValueError: A side has not one label for each token, or a label that belongs to the other side.
    """
    rows = []
    for pair in pairs:
        original, edited = (tokens_to_html(side, scale=_SCALE) for side in _both(pair))
        rows.append({"id": pair.id, "counts": _counts(pair), "original": original, "edited": edited})
    return render(_TEMPLATE, title=title, rows=rows)
