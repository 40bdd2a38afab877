"""Means with their intervals on a common line, to stand in the cells of a table: a forest plot."""

from __future__ import annotations

from markupsafe import Markup

__all__ = ["interval_axis_svg", "interval_svg"]

_WIDTH, _MARGIN = 200, 6


def _across(value: float) -> float:
    """From 0 to 1 to the drawing's units; what lies outside is drawn at the edge."""
    return _MARGIN + min(1.0, max(0.0, value)) * (_WIDTH - 2 * _MARGIN)


def interval_svg(mean: float, low: float, high: float, *, reference: float) -> Markup:
    """One row of a forest plot from 0 to 1: a bar from the reference to the mean, the interval over it.

    The interval's end is open (no cap) where it leaves the range. Above the reference the row is blue, under it orange,
    and where the interval holds the reference grey with a hollow point.

    Raises:
        ValueError: The three numbers are not in order (NaN never is).
    """
    if not low <= mean <= high:
        raise ValueError(f"an interval from {low} to {high} does not hold its mean {mean}")
    side = "pos" if low > reference else "neg" if high < reference else "tie"
    caps = "".join(f"M{_across(end):.1f} 6v8" for end in (low, high) if 0 <= end <= 1)
    start, stop = sorted((_across(reference), _across(mean)))
    return Markup(
        '<svg class="forest {}" viewBox="0 0 {} 20" role="img" '
        'aria-label="{:.1%}, from {:.1%} to {:.1%}">'
        '<rect class="bar" x="{:.1f}" y="4" width="{:.1f}" height="12"/>'
        '<path class="reference" d="M{:.1f} 0V20"/>'
        '<path class="interval" d="M{:.1f} 10H{:.1f}{}"/><circle cx="{:.1f}" cy="10" r="3.5"/></svg>'
    ).format(
        side, _WIDTH, mean, low, high, start, stop - start, _across(reference), _across(low), _across(high), caps,
        _across(mean),
    )  # fmt: skip


def interval_axis_svg(reference: float) -> Markup:
    """The line that ``interval_svg`` draws upon: 0, the reference and 1 in per cent."""
    labels = Markup().join(
        Markup('<text x="{:.1f}" y="9" text-anchor="{}">{:.0%}</text>').format(_across(value), anchor, value)
        for value, anchor in ((0.0, "start"), (reference, "middle"), (1.0, "end"))
    )
    return Markup('<svg class="forest axis" viewBox="0 0 {} 12" aria-hidden="true">{}</svg>').format(_WIDTH, labels)
