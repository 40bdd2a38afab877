"""The report of a contest: in the terminal, as Markdown, and as one self-contained HTML page without a script."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from markupsafe import Markup
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from errata.edits import diff
from errata.types import Op, Ties
from errata.views import (
    ColoredToken,
    interval_axis_svg,
    interval_svg,
    outcomes_svg,
    render,
    tokens_to_html,
    visible,
)
from errata.winrate.contests import Contest, ContestArm, ContestDifference, ContestExample, Slice
from errata.winrate.intervals import Interval, sign_flip_p_value

__all__ = ["contest_headline", "contest_html", "contest_markdown", "contest_terminal"]

_TEMPLATE = Path(__file__).parent / "contest.html.j2"
_HALF = 0.5
_LEVEL = 0.05
_MISSING = "–"

METHOD = (
    "A win rate is the mean of the valid verdicts, a tie ½; where some are invalid, the rate with them as ties is "
    "shown, too. Intervals are 95 % (Clopper and Pearson's, for ties as well): how the numbers would vary with other "
    "prompts, not with another training run or another judge. The p-value of two arms flips the signs of their "
    "differences by prompt, and is not corrected for how many arms there are. The rate at equal length is ours (a "
    "logit in θ + φ·tanh(Δ/σ), at Δ = 0), not AlpacaEval's."
)
"""How the numbers were made, for the foot of a report."""


def _number(value: float | None, digits: int = 1) -> str:
    return _MISSING if value is None else f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")


def _percent(value: float | None, digits: int = 1) -> str:
    return _number(None if value is None else 100 * value, digits)


def _span(found: Interval | None) -> str:
    return _MISSING if found is None else f"{_percent(found.low)} to {_percent(found.high)}"


def _mean(found: Interval | None) -> float | None:
    return None if found is None else found.mean


def _p_value(value: float | None) -> str:
    return _MISSING if value is None else "< 0.001" if value < 0.001 else _number(value, 3)


def contest_headline(found: Contest) -> list[str]:
    """The findings in sentences: who wins against the baseline, and whether the best is told from the next."""
    rated = [(arm, arm.win_rate) for arm in found.arms if arm.win_rate is not None]
    said = [
        f"{arm.name} has no valid verdict, 0 of {arm.prompts}: nothing is known of its win rate."
        for arm in found.arms
        if arm.win_rate is None
    ]
    if not rated:
        return said
    (best, rate), *others = sorted(rated, key=lambda each: -each[1].mean)
    lead = [
        f"{best.name} wins {_percent(rate.mean)} % against {found.baseline} ({_span(rate)}): "
        f"{_told(best, rate, found.seed)}."
    ]
    if best.invalid:
        lead.append(
            f"{best.invalid} of {best.prompts} pairs have no valid verdict; as ties they would make it "
            f"{_percent(best.win_rate_invalid_tied)} %."
        )
    if others:
        second = others[0][0]
        one = next(each for each in found.differences if {each.first, each.second} == {best.name, second.name})
        lead.append(_versus(one, second.name))
    level = best.length_controlled
    if level is not None and rate.mean > _HALF and level.low <= _HALF < rate.low:
        lead.append(f"At equal length the lead is not certain: {_percent(level.mean)} % ({_span(level)}).")
    return lead + said


def _versus(one: ContestDifference, second: str) -> str:
    if one.difference is None or one.p_value is None:
        return f"No prompt has a valid verdict on both it and {second}: nothing is known of their difference."
    apart = f"{_percent(abs(one.difference.mean))} points, p {_relation(one.p_value)}"
    if _apart(one):
        return f"It is ahead of {second} by more than chance ({apart})."
    shown = (
        f"; {one.prompts} prompts show differences from {_percent(one.detectable, 0)} points on"
        if one.detectable is not None
        else f"; {one.prompts} prompts are too few to show any difference"
    )
    return f"It cannot be told from {second} ({apart}){shown}."


def _relation(p_value: float) -> str:
    return _p_value(p_value) if p_value < 0.001 else f"= {_p_value(p_value)}"


def _told(arm: ContestArm, rate: Interval, seed: int) -> str:
    valid = [score - _HALF for score in arm.verdicts.values() if score is not None]
    if not rate.low <= _HALF <= rate.high and sign_flip_p_value(valid, seed=seed) < _LEVEL:
        return f"{'better' if rate.mean > _HALF else 'worse'} than it by more than chance"
    return f"not to be told from it by {arm.valid} {'prompts' if arm.valid == arm.prompts else 'valid verdicts'}"


def _apart(one: ContestDifference) -> bool:
    if one.difference is None or one.p_value is None:
        return False
    return not one.difference.low <= 0 <= one.difference.high and one.p_value < _LEVEL


def _facts(found: Contest) -> list[tuple[str, str]]:
    """Who judged, when, and what it cost."""
    judge, spent = found.judge, found.spent
    facts = [("judge", f"{judge.kind}: {judge.name}"), ("prompts", f"{found.arms[0].prompts:,}")]
    if judge.models and judge.models != (judge.name,):
        facts.append(("answered as", ", ".join(judge.models)))
    if judge.prompt:
        facts.append(("prompt", f"{judge.prompt} · {judge.prompt_hash}"))
    if found.date:
        facts.append(("date", found.date))
    if judge.kind == "chat":
        cost = "price unknown" if spent.cost is None else f"${spent.cost:,.4f}"
        facts.append(("cost of this run", cost))
        facts.append(("tokens in, out", f"{spent.input_tokens:,}, {spent.output_tokens:,}"))
    return facts


_COLUMNS: dict[str, Callable[[ContestArm], str]] = {
    "won / tied / lost / invalid": lambda arm: f"{arm.wins} / {arm.ties} / {arm.losses} / {arm.invalid}",
    "invalid as ties, %": lambda arm: _percent(arm.win_rate_invalid_tied),
    "at equal length, %": lambda arm: f"{_percent(_mean(arm.length_controlled))} ({_span(arm.length_controlled)})",
    "words": lambda arm: f"{_number(arm.mean_length)} / {_number(arm.baseline_length)}",
    "longer always won, %": lambda arm: _percent(arm.longer_wins),
    "longer chosen, %": lambda arm: _percent(_mean(arm.longer_agreement)),
    "orders agree, %": lambda arm: _percent(arm.consistency),
    "first chosen, %": lambda arm: _percent(arm.first_position),
    "detectable, points": lambda arm: _percent(arm.detectable),
}


def _columns(found: Contest) -> dict[str, Callable[[ContestArm], str]]:
    """The columns that say something: those of orders only where the judge was asked in orders."""
    columns = dict(_COLUMNS)
    if not any(arm.invalid for arm in found.arms):
        del columns["invalid as ties, %"]
    if all(arm.consistency is None for arm in found.arms):
        del columns["orders agree, %"], columns["first chosen, %"]
    if any(arm.mean_value is not None for arm in found.arms):
        name = found.judge.value or "score"
        columns[f"{name}, mean"] = lambda arm: f"{_number(arm.mean_value, 2)} / {_number(arm.baseline_value, 2)}"
    return columns


def _cell(text: str) -> str:
    """A text as a cell of a Markdown table, or as a piece of a paragraph: nothing in it is markup."""
    shown = visible(text).replace("\n", " ")
    return re.sub(r"[\\|`*_<>\[\]#&~$]", _as_entities, shown)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def contest_markdown(found: Contest) -> str:
    """The report as Markdown; names and texts are shown, never obeyed."""
    columns = _columns(found)
    lines = [f"# Win rates against {_cell(found.baseline)}", ""]
    lines += [_cell(sentence) + "\n" for sentence in contest_headline(found)]
    lines += [f"- **{name}**: {_cell(value)}" for name, value in _facts(found)] + [""]
    lines += [f"> Warning: {_cell(warning)}\n" for warning in found.warnings]
    lines += _table(
        ["arm", "wins, %", "95 %", *columns],
        [
            [
                _cell(arm.name),
                f"**{_percent(_mean(arm.win_rate))}**",
                _span(arm.win_rate),
                *(c(arm) for c in columns.values()),
            ]
            for arm in found.arms
        ],
    )
    if found.differences:
        lines += ["## Between arms", ""]
        lines += _table(
            ["arms", "difference, points", "95 %", "p", "detectable, points"],
            [
                [
                    f"{_cell(one.first)} − {_cell(one.second)}",
                    _percent(_mean(one.difference)),
                    _span(one.difference),
                    _p_value(one.p_value),
                    _percent(one.detectable),
                ]
                for one in found.differences
            ],
        )
    for title, slices_of in _breakdowns(found):
        lines += [f"## {_cell(title)}", ""]
        lines += _table(
            ["arm", "", "prompts", "wins, %", "95 %"],
            [
                [_cell(arm.name), _cell(one.name), str(one.prompts), _percent(one.win_rate), _span(one.interval)]
                for arm in found.arms
                for one in slices_of(arm)
            ],
        )
    if found.examples:
        lines += ["## Where the arms differ most", ""]
    for example in found.examples:
        lines += [f"### {_cell(example.id)}", "", _quote(example.prompt), ""]
        lines += [f"{_cell(found.baseline)}:", "", _quote(example.baseline), ""]
        for arm, answer in example.answers.items():
            lines += [f"{_cell(arm)} ({_outcome(example, arm)}):", "", _quote(answer), ""]
    lines += ["---", "", METHOD, ""]
    return "\n".join(lines)


def _quote(text: str) -> str:
    # What begins a line may make a list, a rule or code of it, or a head of the line before.
    lines = [re.sub(r"^ *[-+=\d]|^ +", _as_entities, _cell(line)) for line in text.split("\n")]
    return "\n".join(f"> {line}  " for line in lines)


def _as_entities(found: re.Match[str]) -> str:
    return "".join(f"&#{ord(char)};" for char in found[0])


def _breakdowns(found: Contest) -> list[tuple[str, Callable[[ContestArm], tuple[Slice, ...]]]]:
    breakdowns: list[tuple[str, Callable[[ContestArm], tuple[Slice, ...]]]] = [("By length", lambda arm: arm.by_length)]
    if found.group_field is not None:
        breakdowns.append((f"By {found.group_field}", lambda arm: arm.by_group))
    return breakdowns


def _outcome(example: ContestExample, arm: str) -> str:
    score = example.verdicts[arm]
    if score is None:
        return "no valid verdict"
    return "wins" if score > _HALF else "loses" if score < _HALF else "ties"


def contest_terminal(found: Contest) -> Group:
    """The report for the terminal, without examples: print it with ``rich``."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for arm in found.arms:
        table.add_column(Text(visible(arm.name)), justify="right", overflow="fold")
    rows: dict[str, Callable[[ContestArm], str]] = {
        "wins, %": lambda arm: _percent(_mean(arm.win_rate)),
        "95 %": lambda arm: _span(arm.win_rate),
        **_columns(found),
    }
    for name, cell in rows.items():
        table.add_row(Text(name), *map(cell, found.arms))
    parts: list[Table | Text] = [table]
    parts += [
        Text(
            visible(
                f"{one.first} − {one.second}: {_percent(one.difference.mean)} points ({_span(one.difference)}), "
                f"p {_relation(one.p_value)}"
            )
        )
        for one in found.differences
        if one.difference is not None and one.p_value is not None
    ]
    parts += [Text(visible(f"warning: {warning}"), style="yellow") for warning in found.warnings]
    parts += [Text(visible(sentence), style="bold") for sentence in contest_headline(found)]
    return Group(*parts)


def _sides(baseline: str, answer: str) -> tuple[Markup, Markup]:
    """Both texts, coloured where they differ: orange stands in the baseline only, blue in the arm's answer only."""
    sides: tuple[list[ColoredToken], list[ColoredToken]] = ([], [])
    made = diff(baseline, answer, ties=Ties.DEPARTURE)
    # A kept space between two changes parts nothing.
    for kept, run in groupby(made, key=lambda edit: edit.op is Op.KEEP and not edit.edited.text.isspace()):
        edits = list(run)
        for side, texts, sign in (
            (sides[0], [edit.original.text for edit in edits], -1.0),
            (sides[1], [edit.edited.text for edit in edits], 1.0),
        ):
            if text := "".join(texts):
                side.append(ColoredToken(text, 0.0 if kept else sign, detail={} if kept else {"only": "on this side"}))
    # Half of the full colour: much may differ.
    left, right = (tokens_to_html(side or [ColoredToken("", 0.0)], scale=2) for side in sides)
    return left, right


def _html_example(example: ContestExample, baseline: str) -> dict[str, object]:
    return {
        "id": example.id,
        "prompt": example.prompt,
        "arms": [
            {
                "name": arm,
                "baseline": baseline,
                "outcome": _outcome(example, arm),
                "reasons": [reason for reason in example.reasons.get(arm, ()) if reason],
                "sides": _sides(example.baseline, answer),
            }
            for arm, answer in example.answers.items()
        ],
    }


def _html_slice(arm: str, one: Slice) -> dict[str, object]:
    return {
        "arm": arm,
        "name": one.name,
        "prompts": f"{one.prompts:,}",
        "forest": _forest(one.interval),
        "rate": _percent(one.win_rate),
        "span": _span(one.interval),
    }


def _forest(rate: Interval | None) -> Markup:
    return Markup() if rate is None else interval_svg(rate.mean, rate.low, rate.high, reference=_HALF)


def contest_html(found: Contest) -> str:
    """The report as one self-contained HTML page: no script, nothing fetched, all text of models and users escaped."""
    columns = _columns(found)
    return render(
        _TEMPLATE,
        title=f"errata: win rates against {found.baseline}",
        baseline=found.baseline,
        headline=contest_headline(found),
        facts=_facts(found),
        warnings=found.warnings,
        axis=interval_axis_svg(_HALF),
        columns=list(columns),
        arms=[
            {
                "name": arm.name,
                "forest": _forest(arm.win_rate),
                "outcomes": outcomes_svg(arm.wins, arm.ties, arm.losses, arm.invalid),
                "rate": _percent(_mean(arm.win_rate)),
                "span": _span(arm.win_rate),
                "cells": {name: cell(arm) for name, cell in columns.items()},
            }
            for arm in found.arms
        ],
        differences=[
            {
                "names": (one.first, one.second),
                "points": _percent(_mean(one.difference)),
                "span": _span(one.difference),
                "p_value": _p_value(one.p_value),
                "detectable": _percent(one.detectable),
                "apart": _apart(one),
            }
            for one in found.differences
        ],
        breakdowns=[
            {"title": title, "rows": [_html_slice(arm.name, one) for arm in found.arms for one in slices_of(arm)]}
            for title, slices_of in _breakdowns(found)
        ],
        examples=[_html_example(example, found.baseline) for example in found.examples],
        method=METHOD,
    )
