"""The report of an evaluation: in the terminal, and as one self-contained HTML page.

Both take a ``Summary`` and nothing else. What they say in words is made from its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from errata.views import (
    ColoredToken,
    Curve,
    curves_legend,
    curves_svg,
    interval_axis_svg,
    interval_svg,
    render,
    shared_scale,
    tokens_to_html,
    visible,
)
from errata.winrate.intervals import Interval, paired_t_interval
from errata.winrate.summary import CurvePoint, DecodedResult, ExampleText, Summary, WinRateResult

__all__ = ["headline", "report_html", "report_terminal"]

_TEMPLATE = Path(__file__).parent / "report.html.j2"
_HALF = 0.5
_MISSING = "–"

Decoding = Literal["greedy", "sampled"]
_DECODINGS: tuple[Decoding, ...] = ("greedy", "sampled")


@dataclass(frozen=True)
class _Row:
    """One policy under one way of decoding."""

    name: str
    seconds: float | None
    result: DecodedResult


def _arms(summary: Summary, decoding: Decoding) -> list[_Row]:
    return [_Row(arm.name, arm.seconds, arm.greedy if decoding == "greedy" else arm.sampled) for arm in summary.arms]


def _number(value: float | None, digits: int = 2) -> str:
    return _MISSING if value is None else f"{value:,.{digits}f}".replace("-", "−")


def _percent(value: float | None) -> str:
    return _MISSING if value is None else _number(100 * value, 1)


def _interval(row: WinRateResult) -> str:
    return f"{_percent(row.ci_low)} to {_percent(row.ci_high)}"


def _words(value: float) -> str:
    return f"{_number(value)} words"


def _difference(worse: DecodedResult, better: DecodedResult) -> Interval | None:
    """How many words ``better`` saves, with what can be known of the noise; None where nothing can."""
    ours, theirs = better.per_seed, worse.per_seed
    if ours and theirs and len(ours.edit_cost) == len(theirs.edit_cost) > 1:
        return paired_t_interval(theirs.edit_cost, ours.edit_cost)
    ends = (better.edit_cost_low, better.edit_cost_high, worse.edit_cost_low, worse.edit_cost_high)
    low, high, other_low, other_high = ends
    if low is None or high is None or other_low is None or other_high is None:
        return None
    # As if the two were measured on different prompts. They share them, so the truth is narrower: on the safe side.
    reach = (((high - low) / 2) ** 2 + ((other_high - other_low) / 2) ** 2) ** 0.5
    mean = worse.edit_cost - better.edit_cost
    return Interval(mean, mean - reach, mean + reach)


def _versus(worse: DecodedResult, better: DecodedResult) -> str:
    """Whether the difference in edit cost is more than noise, in words."""
    difference = _difference(worse, better)
    saved = _words(worse.edit_cost - better.edit_cost)
    if difference is None:
        return f"the difference, {saved}, comes without an interval, so whether it is noise cannot be said"
    span = f"95 % interval {_number(difference.low)} to {_number(difference.high)}"
    if difference.low > 0:
        return f"the difference, {saved}, is more than noise ({span})"
    return f"a tie: the difference, {saved}, is within the noise ({span})"


def _leader(rows: Sequence[_Row], decoding: Decoding) -> str:
    first, second = sorted(rows, key=lambda row: row.result.edit_cost)[:2]
    start = rows[0]
    how = "Decoded greedily" if decoding == "greedy" else "Sampled at T = 1"
    said = f"{how}, {first.name} leaves the least to correct: {_words(first.result.edit_cost)} a response"
    if start is first:
        said += f". No arm is below it; {second.name} is next with {_number(second.result.edit_cost)}"
    else:
        said += f", where {start.name} leaves {_number(start.result.edit_cost)}"
        if second is not start:
            said += f". Next is {second.name} with {_number(second.result.edit_cost)}"
    return f"{said}; {_versus(second.result, first.result)}."


def headline(summary: Summary) -> list[str]:
    """The findings in sentences: which arm leaves the least to correct, and whether that is more than noise.

    With several seeds the difference of two arms has a paired t-interval over seeds; with one seed the intervals of the
    two edit costs are added as if they were independent, which errs towards a tie.
    """
    if not summary.arms:
        return ["No arm was evaluated."]
    if len(summary.arms) == 1:
        return [
            f"{summary.arms[0].name} alone was evaluated: it leaves {_words(summary.arms[0].greedy.edit_cost)} a "
            "response to correct when decoded greedily."
        ]
    said = [_leader(_arms(summary, decoding), decoding) for decoding in _DECODINGS]
    same = [row.name for row in _arms(summary, "greedy")[1:] if row.result.ci_low <= _HALF <= row.result.ci_high]
    if same:
        said.append(f"Greedy, the judge cannot tell from {summary.arms[0].name}: {', '.join(same)}.")
    return said


def _how_many(summary: Summary) -> str:
    count = len(summary.seeds)
    listed = ", ".join(map(str, summary.seeds))
    return f"seed {listed}" if count == 1 else f"{count} seeds ({listed})"


def _interval_method(summary: Summary) -> str:
    """How the intervals of this summary were made, and what they leave out."""
    if len(summary.seeds) < 2:
        return (
            "Intervals are 95 % intervals over the prompts of one seed: they say how the numbers would vary with "
            "other prompts, not how another training run would come out."
        )
    return (
        f"Intervals are 95 % t-intervals over {len(summary.seeds)} seeds, each of which is a whole run with a start of "
        "its own: for a win rate over the per-seed differences from ½, for two arms over their paired per-seed "
        "differences. With few seeds they are wide, and may leave the range from 0 to 100 %."
    )


def _sharpening(summary: Summary) -> str:
    """Why the control rows stand there."""
    best = max(summary.controls, key=lambda row: row.sampled.win_rate)
    start = summary.arms[0].name if summary.arms else "the start"
    wins = f"{best.name} wins {_percent(best.sampled.win_rate)} % ({_interval(best.sampled)}) against {start} at T = 1"
    if best.sampled.ci_low > _HALF:
        said = f"Sharpening alone wins a sampled comparison: {wins}. So an arm"
    else:
        said = f"Sharpening alone wins nothing here: at best {wins}. Still, an arm"
    return (
        f"Control: {start} itself, untrained, at a lower temperature. {said} has learned something only where it does "
        "better than these rows, or wins greedily."
    )


def _data_words(summary: Summary) -> list[tuple[str, str]]:
    return [
        (key.replace("_", " "), f"{value:,.0f}" if value == round(value) else f"{value:,.1f}")
        for key, value in summary.data.items()
    ]


def _kinds(summary: Summary) -> list[str]:
    """All kinds of defects, the start's commonest first."""
    rows = [row for decoding in _DECODINGS for row in _arms(summary, decoding)]
    rows += [_Row(row.name, None, row.sampled) for row in summary.controls]
    kinds = dict.fromkeys(kind for row in rows for kind in row.result.defects_by_kind)
    return sorted(kinds, key=lambda kind: -rows[0].result.defects_by_kind.get(kind, 0.0))


def _cells(row: _Row) -> list[str]:
    """The numbers of a row, as the columns of both reports have them."""
    result = row.result
    return [
        _percent(result.win_rate),
        _interval(result),
        _percent(result.outsider.win_rate if result.outsider else None),
        _number(result.edit_cost),
        _number(result.mean_defects),
        _percent(result.well_formed),
        _number(result.mean_length, 1),
        _number(result.kl),
        _number(result.entropy),
        _number(row.seconds, 0),
    ]


# What _cells gives, with the heads that keep the terminal's tables within 80 columns.
_COLUMNS = {
    "win_rate": "win\n%",
    "interval": "95 %",
    "outsider": "out-\nsider",
    "edit_cost": "edits\nleft",
    "defects": "de-\nfects",
    "well_formed": "formed\n%",
    "length": "len-\ngth",
    "kl": "KL",
    "entropy": "ent-\nropy",
    "seconds": "s",
}


def _terminal_table(title: str, columns: Sequence[str], *, first: str = "") -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0)
    table.add_column(first, min_width=14, overflow="fold")
    for column in columns:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def report_terminal(summary: Summary) -> Group:
    """The report for the terminal, without curves and examples: print it with ``rich``."""
    parts: list[Text | Table] = []
    for decoding in _DECODINGS:
        title = "Greedy, against the start greedy" if decoding == "greedy" else "Sampled at T = 1, against the start"
        table = _terminal_table(title, list(_COLUMNS.values()), first="arm")
        for row in _arms(summary, decoding):
            table.add_row(Text(visible(row.name)), *_cells(row))
        if decoding == "sampled" and summary.controls:
            table.add_section()
            for control in summary.controls:
                table.add_row(
                    Text(visible(control.name), style="italic"), *_cells(_Row(control.name, None, control.sampled))
                )
        parts.append(table)
    if summary.controls:
        parts.append(Text(visible(_sharpening(summary)) + "\n", style="italic"))
    kinds = _kinds(summary)
    if kinds:
        columns = [visible(kind).replace("_", "\n") for kind in kinds]
        table = _terminal_table("Defects by kind, greedy / sampled", columns, first="arm")
        for arm in summary.arms:
            both = (arm.greedy.defects_by_kind, arm.sampled.defects_by_kind)
            table.add_row(
                Text(visible(arm.name)),
                *(" / ".join(_number(by_kind.get(kind, 0.0)) for by_kind in both) for kind in kinds),
            )
        parts.append(table)
    if summary.reward_models:
        columns = [
            "objective",
            "prefe-\nrences",
            "edits\n%",
            "AUC\nkept",
            "AUC\ngood",
            "best of 8:\nwin %",
            "de-\nfects",
        ]
        table = _terminal_table("Reward models, held out", columns, first="model")
        for model in summary.reward_models:
            best = model.best_of_8
            table.add_row(
                Text(visible(model.name)),
                Text(visible(model.objective)),
                _percent(model.preference_accuracy),
                _percent(model.edit_accuracy),
                _number(model.auc_bad_kept, 3),
                _number(model.auc_bad_good, 3),
                _percent(best.win_rate if best else None),
                _number(best.mean_defects if best else None),
            )
        parts.append(table)
    if summary.data:
        counts = "; ".join(f"{value} {visible(key)}" for key, value in _data_words(summary))
        parts.append(Text(f"Data, per seed: {counts}.\n"))
    parts.append(Text("\n".join(map(visible, headline(summary))), style="bold"))
    parts.append(Text(f"{_how_many(summary).capitalize()}. {_interval_method(summary)}", style="dim"))
    return Group(*parts)


def _html_rows(rows: Sequence[_Row]) -> list[dict[str, object]]:
    return [
        {
            "name": row.name,
            "forest": interval_svg(row.result.win_rate, row.result.ci_low, row.result.ci_high, reference=_HALF),
            "cells": dict(zip(_COLUMNS, _cells(row), strict=True)),
            "per_seed": ", ".join(map(_percent, row.result.per_seed.win_rate)) if row.result.per_seed else "",
            "outsider_interval": _interval(row.result.outsider) if row.result.outsider else "",
            "edit_cost_interval": _MISSING
            if row.result.edit_cost_low is None
            else f"{_number(row.result.edit_cost_low)} to {_number(row.result.edit_cost_high)}",
        }
        for row in rows
    ]


def _html_kinds(summary: Summary, rows: Sequence[_Row]) -> list[dict[str, object]]:
    """For each row the defects by kind, as a number and as a share of the largest one of the table."""
    kinds = _kinds(summary)
    top = max((row.result.defects_by_kind.get(kind, 0.0) for row in rows for kind in kinds), default=0.0) or 1.0
    return [
        {
            "name": row.name,
            "cells": [
                {"kind": kind, "text": _number(value), "share": f"{value / top:.3f}"}
                for kind in kinds
                for value in [row.result.defects_by_kind.get(kind, 0.0)]
            ],
            "total": _number(row.result.mean_defects),
        }
        for row in rows
    ]


_XS: tuple[tuple[str, str, Callable[[CurvePoint], float | None]], ...] = (
    ("step", "steps", lambda point: point.step),
    ("second", "seconds", lambda point: point.seconds),
    ("KL", "KL to the start, nats", lambda point: point.kl),
)
_YS: tuple[tuple[str, str, Callable[[CurvePoint], float | None]], ...] = (
    ("Proxy reward", "reward", lambda point: point.proxy_reward),
    ("True defects", "per response", lambda point: point.mean_defects),
    ("Win rate", "against the start", lambda point: point.win_rate),
)


def _charts(summary: Summary) -> list[Markup]:
    """Small multiples: each measure (a row) by step, by second and by KL (the columns)."""
    return [
        curves_svg(
            [
                Curve(line.arm, [x_of(point) for point in line.points], [y_of(point) for point in line.points])
                for line in summary.curves
            ],
            title=f"{title} by {x_name}",
            x_label=x_label,
            y_label=y_label,
            width=360,
            height=230,
            legend=False,
        )
        for title, y_label, y_of in _YS
        if any(y_of(point) is not None for line in summary.curves for point in line.points)
        for x_name, x_label, x_of in _XS
    ]


def _colored(response: ExampleText, scale: float) -> Markup:
    tokens = [
        ColoredToken(token.text, token.value, token.outlined, {"gold editor": "changes it"} if token.outlined else {})
        for token in response.tokens
    ]
    return tokens_to_html(tokens, scale=scale)


def report_html(summary: Summary) -> str:
    """The report as one self-contained HTML page: no script, nothing fetched, all text of models escaped."""
    start = summary.arms[0].name if summary.arms else "the start"
    greedy, sampled = _arms(summary, "greedy"), _arms(summary, "sampled")
    controls = [_Row(row.name, None, row.sampled) for row in summary.controls]
    scale = shared_scale(
        token.value
        for example in summary.examples
        for response in (example.before, example.after)
        for token in response.tokens
    )
    samples = [ColoredToken(f" {_number(share * scale)} ", share * scale) for share in (-1, -0.5, 0, 0.5, 1)]
    return render(
        _TEMPLATE,
        title="errata: the report",
        start=start,
        seeds=_how_many(summary),
        headline=headline(summary),
        interval_method=_interval_method(summary),
        axis=interval_axis_svg(_HALF),
        greedy=_html_rows(greedy),
        sampled=_html_rows(sampled),
        controls=_html_rows(controls),
        sharpening=_sharpening(summary) if controls else "",
        kinds=_kinds(summary),
        defects=[
            {"title": "Greedy", "rows": _html_kinds(summary, greedy), "controls": []},
            {
                "title": "Sampled at T = 1",
                "rows": _html_kinds(summary, [*sampled, *controls])[: len(sampled)],
                "controls": _html_kinds(summary, [*sampled, *controls])[len(sampled) :],
            },
        ],
        reward_models=[
            {
                "name": model.name,
                "kind": model.kind,
                "objective": model.objective,
                "cells": {
                    "preferences %": _percent(model.preference_accuracy),
                    "edits %": _percent(model.edit_accuracy),
                    "AUC bad / kept": _number(model.auc_bad_kept, 3),
                    "AUC bad / good": _number(model.auc_bad_good, 3),
                    "best of 8: win %": _percent(model.best_of_8.win_rate if model.best_of_8 else None),
                    "best of 8: defects": _number(model.best_of_8.mean_defects if model.best_of_8 else None),
                },
            }
            for model in summary.reward_models
        ],
        charts=_charts(summary),
        chart_legend=curves_legend([line.arm for line in summary.curves]),
        data=_data_words(summary),
        examples=[
            {
                "prompt": example.prompt,
                "name": example.name,
                "before": _colored(example.before, scale),
                "after": _colored(example.after, scale),
            }
            for example in summary.examples
        ],
        scale_samples=tokens_to_html(samples, scale=scale),
    )
