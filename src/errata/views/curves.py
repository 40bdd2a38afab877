"""Line charts as inline SVG: no script, no font, no file beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from errata.views.pages import visible

__all__ = ["Curve", "curves_legend", "curves_svg"]

# Okabe and Ito's palette without its yellow, each hue with a dash pattern of its own. The page may redefine --curve-n
# for a dark background.
_HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_DASHES = ("none", "7 3", "3 2", "9 3 2 3", "12 4", "4 2")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: points in the order in which they are joined; a ``y`` or an ``x`` of None interrupts it."""

    name: str
    xs: Sequence[float | None]
    ys: Sequence[float | None]


def _look(index: int) -> str:
    hue = index % len(_HUES)
    # Beyond six curves the hues come again with other dashes.
    dash = (index + index // len(_HUES)) % len(_DASHES)
    return f"fill:none;stroke-width:2;stroke:var(--curve-{hue},{_HUES[hue]});stroke-dasharray:{_DASHES[dash]}"


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that enclose ``low`` and ``high``."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _label(tick: float) -> str:
    return f"{tick:g}".replace("-", "−")


def _range(numbers: Sequence[float]) -> tuple[float, float]:
    if not numbers:
        return 0.0, 1.0
    low, high = min(numbers), max(numbers)
    # A difference that rounding alone could make is no range to draw.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        pad = abs(low) / 2 or 0.5
        return low - pad, high + pad
    return low, high


def _pieces(curve: Curve) -> list[list[tuple[float, float]]]:
    """The curve's points, cut where a number is missing."""
    if len(curve.xs) != len(curve.ys):
        raise ValueError(f"curve {curve.name!r} has {len(curve.xs)} xs and {len(curve.ys)} ys: give one y for each x")
    pieces: list[list[tuple[float, float]]] = [[]]
    for index, (x, y) in enumerate(zip(curve.xs, curve.ys, strict=True)):
        if x is None or y is None:
            pieces.append([])
        elif math.isfinite(x) and math.isfinite(y):
            pieces[-1].append((x, y))
        else:
            raise ValueError(f"curve {curve.name!r} has the point {(x, y)} at {index}: give None for what is not known")
    return [piece for piece in pieces if piece]


def curves_legend(names: Sequence[str]) -> Markup:
    """The names beside a sample of the line that ``curves_svg`` draws for the curve at the same place."""
    items = Markup().join(
        Markup(
            '<span><svg width="34" height="10" viewBox="0 0 34 10" aria-hidden="true">'
            '<path d="M1 5H33" style="{}"/></svg> {}</span>'
        ).format(_look(index), visible(name))
        for index, name in enumerate(names)
    )
    return Markup('<div class="legend">{}</div>').format(items)


def curves_svg(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    width: int = 480,
    height: int = 300,
    legend: bool = True,
) -> Markup:
    """A line chart of the curves with axes, ticks and, where there is more than one curve, a legend over the plot.

    Args:
        curves: In the order of their hues and dashes; one without points keeps its place, so charts side by side agree.
        title: Over the plot, and read aloud.
        x_label: With its unit.
        y_label: With its unit.
        width: Of the drawing, in its own units; the page may scale it.
        height: The same.
        legend: Whether the names stand over the plot; charts side by side share one ``curves_legend`` instead.

    Raises:
        ValueError: A curve has not one y for each x, or a number that is not finite (says which).
    """
    pieces = [_pieces(curve) for curve in curves]
    points = [point for lines in pieces for line in lines for point in line]
    x_ticks = _ticks(*_range([x for x, _ in points]), about=max(2, width // 60))
    y_ticks = _ticks(*_range([y for _, y in points]), about=max(2, height // 45))

    names = [visible(curve.name) for curve in curves] if legend and len(curves) > 1 else []
    # The width of text is a guess, a little too wide on purpose: the drawing cannot measure a font.
    places, x, row = [], 0.0, 0
    for name in names:
        room = 46 + 6.6 * len(name)
        if x and x + room > width - 20:
            x, row = 0.0, row + 1
        places.append((x, row))
        x += room
    left = 18 + 6.6 * max(len(_label(tick)) for tick in y_ticks) + 8
    right, bottom = width - 12, height - 42
    top = 34 + (18 * (row + 1) if names else 0)

    def across(value: float) -> float:
        return left + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - left)

    def up(value: float) -> float:
        return bottom - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    drawn = [
        Markup('<text class="chart-title" x="2" y="15" font-size="13" font-weight="600">{}</text>').format(
            visible(title)
        )
    ]
    for index, (name, (x, row)) in enumerate(zip(names, places, strict=True)):
        y = 32 + 18 * row
        drawn.append(
            Markup('<path d="M{:.1f} {}h28" style="{}"/><text x="{:.1f}" y="{}">{}</text>').format(
                x + 2, y, _look(index), x + 36, y + 4, name
            )
        )
    drawn.extend(
        Markup(
            '<path d="M{:.1f} {:.1f}H{:.1f}" stroke="currentColor" stroke-opacity=".13"/>'
            '<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>'
        ).format(left, up(tick), right, left - 6, up(tick) + 4, _label(tick))
        for tick in y_ticks
    )
    drawn.extend(
        Markup(
            '<path d="M{0:.1f} {1}v4" stroke="currentColor" stroke-opacity=".6"/>'
            '<text x="{0:.1f}" y="{2}" text-anchor="middle">{3}</text>'
        ).format(across(tick), bottom, bottom + 17, _label(tick))
        for tick in x_ticks
    )
    middle = (top + bottom) / 2
    drawn.append(
        Markup(
            '<path d="M{0:.1f} {1:.1f}V{2}H{3}" fill="none" stroke="currentColor" stroke-opacity=".6"/>'
            '<text x="{4:.1f}" y="{5}" text-anchor="middle">{6}</text>'
            '<text transform="translate(11 {7:.1f}) rotate(-90)" text-anchor="middle">{8}</text>'
        ).format(left, top, bottom, right, (left + right) / 2, height - 6, visible(x_label), middle, visible(y_label))
    )
    if not points:
        drawn.append(
            Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">nothing to draw</text>').format(
                (left + right) / 2, middle
            )
        )
    for index, lines in enumerate(pieces):
        for line in lines:
            route = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line)
            drawn.append(Markup('<path class="curve" d="M{}" style="{}"/>').format(route, _look(index)))
            if len(line) == 1:
                drawn.append(
                    Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5" style="{}"/>').format(
                        across(line[0][0]), up(line[0][1]), _look(index)
                    )
                )
    return Markup(
        '<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" '
        'role="img" aria-label="{2}" font-family="system-ui,sans-serif" font-size="11" fill="currentColor">{3}</svg>'
    ).format(width, height, visible(title), Markup().join(drawn))
