"""Wins, ties and losses as one bar, to stand in the cells of a table."""

from __future__ import annotations

from markupsafe import Markup

__all__ = ["outcomes_svg"]

_WIDTH = 200
_ROOM = 7
"""Units that one digit takes; a number that does not fit into its part of the bar is left to the label."""


def outcomes_svg(wins: int, ties: int, losses: int, invalid: int = 0) -> Markup:
    """A bar of wins, ties, losses and invalid verdicts, as long as their shares; its label says the numbers.

    Raises:
        ValueError: A number is below 0, or all are 0.
    """
    counts = {"win": wins, "even": ties, "loss": losses, "void": invalid}
    total = sum(counts.values())
    if min(counts.values()) < 0 or not total:
        raise ValueError(f"{counts}: give numbers of verdicts, at least one of them above 0")
    parts, at = [], 0.0
    for name, count in counts.items():
        width = _WIDTH * count / total
        if count:
            parts.append(
                Markup('<rect class="{}" x="{:.1f}" y="2.5" width="{:.1f}" height="15"/>').format(name, at, width)
            )
        if width > _ROOM * (len(str(count)) + 1):
            parts.append(
                Markup('<text x="{:.1f}" y="13.5" text-anchor="middle">{}</text>').format(at + width / 2, count)
            )
        at += width
    label = f"{wins} won, {ties} tied, {losses} lost" + (f", {invalid} invalid" if invalid else "")
    return Markup(
        '<svg class="outcomes" viewBox="0 0 {} 20" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(_WIDTH, label, label, Markup().join(parts))
