"""The report of ``errata learn``: in the terminal, and as one self-contained HTML page without a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from errata.edits import diff
from errata.types import Op
from errata.views import render, visible
from errata.winrate import Interval
from errata.workflows.learned import Example, Learned
from errata.workflows.measure import Comparison

__all__ = ["learned_html", "learned_terminal"]

_TEMPLATE = Path(__file__).parent / "learn_report.html.j2"
_MISSING = "–"

FAIR = (
    "What was sent was written from the logged draft, which is therefore nearer to it than any draft written anew, "
    "however good. So the new model is compared with the old model drafting anew, decoded alike, on the same prompts; "
    "the logged drafts stand beside them and decide nothing."
)
"""Why the logged draft is no baseline."""


def learned_terminal(found: Learned) -> Group:
    """The report for the terminal: print it with ``rich``."""
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1), title="On held-out rows", title_justify="left", title_style="bold"
    )
    table.add_column("", overflow="fold")
    for name in ("old model", "new model", "new − old"):
        table.add_column(name, justify="right")
    for title, rows in _figures(found):
        table.add_section()
        table.add_row(Text(title, "bold"))
        for row in rows:
            table.add_row(*row)
    lines = [
        *_said(found),
        *(f"The doctor: {one['what']} ({one['rows']:,} rows)." for one in found.doctor if one["severity"] == "warning"),
        FAIR,
        f"Logged drafts: {_interval(found.logged_cost)} words.",
    ]
    conditions = [
        Text.assemble(("✓ ", "green") if one.holds else ("✗ ", "bold red"), visible(one.said))
        for one in found.decision.conditions
    ]
    style = "bold green" if found.decision.promoted else "bold red"
    return Group(
        *(Text(visible(line)) for line in lines),
        Text(""),
        table,
        *conditions,
        Text(""),
        Text(visible(headline(found)), style),
    )


def headline(found: Learned) -> str:
    """The verdict in words."""
    reasons = " ".join(found.decision.reasons)
    return f"{'Promoted' if found.decision.promoted else 'Refused'} ({found.arm}). {reasons}"


def learned_html(found: Learned) -> str:
    """The report as one self-contained HTML page; all text of models and users is escaped."""
    return render(
        _TEMPLATE,
        title=f"errata learn: {'promoted' if found.decision.promoted else 'refused'}",
        promoted=found.decision.promoted,
        arm=found.arm,
        reasons=found.decision.reasons,
        facts=_facts(found),
        figures=list(_figures(found)),
        fair=FAIR,
        logged=_interval(found.logged_cost),
        conditions=found.decision.conditions,
        said=_said(found),
        accepted=[(how, *_against(one)) for how, one in found.accepted.items()],
        candidates=[(one.name, _interval(one.edit_cost)) for one in found.candidates],
        findings=[{"mark": _MARKS[one["severity"]], **one} for one in found.doctor],
        examples=[_example(one) for one in found.examples],
        rows=found.measured.comparison["greedy"].rows,
        users=found.split["heldout_users"],
        independent_users=found.measured.comparison["greedy"].users,
        general_tokens=found.general_tokens,
    )


_MARKS = {"error": "✗", "warning": "!", "note": "·"}


def _facts(found: Learned) -> list[tuple[str, str]]:
    greedy = found.measured.comparison["greedy"]
    old, new = (side["greedy"].edit_cost.mean for side in (found.measured.old, found.measured.new))
    share = 100 * (new - old) / old if old else 0.0
    return [
        ("words left to correct, a draft", f"{_n(old)} → {_n(new)}"),
        ("change", f"{_n(share, 0)} %"),
        (
            "better / same / worse",
            " / ".join(_n(100 * each, 0) for each in (greedy.wins, greedy.ties, greedy.losses)) + " %",
        ),
        ("held-out rows", f"{greedy.rows:,}"),
        ("trained on", f"{found.split['train']:,} edits"),
    ]


def _figures(found: Learned) -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    """Groups of rows: name, old, new, difference."""
    measured = found.measured
    for how in ("greedy", "sampled"):
        old, new, versus = measured.old[how], measured.new[how], measured.comparison[how]
        costs = _n(old.edit_cost.mean), _n(new.edit_cost.mean), _interval(versus.difference)
        yield (
            f"Drafts, {how}",
            [
                ("edit cost left, words", *costs),
                ("better / same / worse, %", "", "", _shares(versus)),
                *(
                    (name, _n(of(old), digits), _n(of(new), digits), _signed(of(new) - of(old), digits))
                    for name, digits, of in _DRAFT_FIGURES
                ),
            ],
        )
    tokens = [
        _pair(f"{name} tokens", getattr(measured.old_tokens, name), getattr(measured.new_tokens, name))
        for name in ("good", "bad", "kept")
    ]
    yield "Log-probability, nats", tokens
    if measured.old_general is not None:
        yield "Forgetting", [_pair("loss on the general text", measured.old_general, measured.new_general)]


_DRAFT_FIGURES: Sequence[tuple[str, int, Any]] = (
    ("tokens", 1, lambda one: one.length),
    ("drafts that end, %", 1, lambda one: 100 * one.ended),
    ("repetition, %", 1, lambda one: 100 * one.repetition),
)


def _pair(name: str, old: float | None, new: float | None) -> tuple[str, str, str, str]:
    if old is None or new is None:
        return name, _MISSING, _MISSING, _MISSING
    return name, _n(old, 3), _n(new, 3), _signed(new - old, 3)


def _against(one: Comparison) -> tuple[str, str, str]:
    return f"{one.rows:,}", _interval(one.difference), _shares(one)


def _shares(one: Comparison) -> str:
    return " / ".join(_n(100 * each, 0) for each in (one.wins, one.ties, one.losses))


def _said(found: Learned) -> list[str]:
    """What the numbers do not say by themselves."""
    log, split = found.log, found.split
    users = "" if split["heldout_users"] is None else f" of {split['heldout_users']:,} users"
    trained = "" if split["train_users"] is None else f" of {split['train_users']:,} users"
    said = [
        f"The log has {log['rows']:,} usable rows, {log['unchanged']:,} of them sent unchanged, and "
        f"{log['bad_rows']:,} that cannot be used.",
        f"{split['rule']} {split['train']:,} edits{trained} are trained on, {split['selection']:,} chose the method, "
        f"{split['heldout']:,}{users} judge.",
    ]
    if split["fallback"]:
        said.append(f"It is not split by users and time: {split['fallback']}.")
    if log["times"]:
        zone = f"; {log['times']['without_time_zone']:,} name no time zone, UTC is taken"
        said.append(
            f"{log['time_field']!r} says when, read as {log['times']['format']}: {log['times']['first']} to "
            f"{log['times']['last']}; {log['times']['unread']:,} cannot be read, {log['times']['missing']:,} have none"
            f"{zone if log['times']['without_time_zone'] else ''}."
        )
    if log["normalized"]["rows"]:
        said.append(f"{log['normalized']['said']}.")
    said += [line.strip() for line in log["mechanical"]["said"]]
    said += [f"{count:,} rows are left out: {reason}." for reason, count in _left_out(split)]
    if log["masked"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(log["masked"].items()))
        said.append(f"Masked in {log['rows_masked']:,} rows, as far as its shape gave it away: {kinds}.")
    if log["own_weights_dropped"]:
        said.append(f"{log['own_weights_dropped']:,} texts lost their own weights, which stood on what was masked.")
    if log["sampled_ids_dropped"]:
        said.append(f"{log['sampled_ids_dropped']:,} rows lost their sampled ids, which spell what was masked.")
    if found.measured.old_general is None:
        said.append("Forgetting was not measured; give --general a file of general text.")
    return said


def _left_out(split: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [
        *split["left_out"].items(),
        *(
            (f"{reason} (of the rows that choose the method)", count)
            for reason, count in split["selection_left_out"].items()
        ),
        *((f"{reason} (of the rows to be drafted)", count) for reason, count in split["not_drafted"].items()),
    ]


def _example(one: Example) -> dict[str, Any]:
    return {
        "prompt": one.prompt,
        "drafts": [
            {"name": "logged draft", "cost": None, "pieces": _pieces(one.logged, one.sent)},
            {"name": "old model, anew", "cost": one.old_cost, "pieces": _pieces(one.old, one.sent)},
            {"name": "new model", "cost": one.new_cost, "pieces": _pieces(one.new, one.sent)},
        ],
        "sent": one.sent,
    }


def _pieces(draft: str, sent: str) -> list[tuple[str, str, str]]:
    """A draft and what it takes to make it what was sent: kept, deleted and inserted text, one of the three each."""
    found = []
    # White space that stays between two changes goes with them, or a rewrite would be read word against word.
    for kept, run in groupby(diff(draft, sent), key=lambda edit: edit.op is Op.KEEP and not edit.edited.text.isspace()):
        together = list(run)
        before, after = ("".join(getattr(edit, side).text for edit in together) for side in ("original", "edited"))
        found.append((before, "", "") if kept else ("", before, after))
    return found


def _n(value: float, digits: int = 2) -> str:
    # round: no minus before a nought
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+,.{digits}f}".replace("-", "−")


def _interval(value: Interval | None) -> str:
    return _MISSING if value is None else f"{_n(value.mean)} ({_n(value.low)} to {_n(value.high)})"
