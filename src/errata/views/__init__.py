"""What a person looks at: coloured tokens in the terminal and in one-file HTML pages, curves, labelled pairs.

Text of models and users is hostile here: everything is escaped, controls and bidirectional overrides are shown as what
they are. A page needs no network, and no script but the one of its own that draws labelled pairs. Colours are blue for
good, orange for bad, on one zero-centred scale a page, and never the only sign.
"""

from errata.views.curves import Curve, curves_legend, curves_svg
from errata.views.edits import (
    Show,
    SideStreams,
    ViewRow,
    edits_page,
    labels_to_terminal,
    legend_to_terminal,
    view_scale,
)
from errata.views.intervals import interval_axis_svg, interval_svg
from errata.views.pages import render, visible
from errata.views.rollouts import rollouts_page, rollouts_to_terminal
from errata.views.statistics import statistics_to_terminal
from errata.views.tokens import ColoredToken, color_tokens, shared_scale, tokens_to_html, tokens_to_terminal

__all__ = [
    "ColoredToken",
    "Curve",
    "Show",
    "SideStreams",
    "ViewRow",
    "color_tokens",
    "curves_legend",
    "curves_svg",
    "edits_page",
    "interval_axis_svg",
    "interval_svg",
    "labels_to_terminal",
    "legend_to_terminal",
    "render",
    "rollouts_page",
    "rollouts_to_terminal",
    "shared_scale",
    "statistics_to_terminal",
    "tokens_to_html",
    "tokens_to_terminal",
    "view_scale",
    "visible",
]
