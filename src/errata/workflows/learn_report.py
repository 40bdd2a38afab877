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
from errata.workflows.edit_points import PointsCompared
from errata.workflows.learned import Candidate, Example, Learned
from errata.workflows.measure import Comparison
from errata.workflows.verdict_words import decimals

__all__ = ["learned_html", "learned_terminal"]

_TEMPLATE = Path(__file__).parent / "learn_report.html.j2"
_MISSING = "–"

FAIR = (
    "What was sent was written from the logged draft. A model that drafted the log itself writes the logged text "
    "again, and is therefore near to it; a better model says some things in other words, and each of them counts as "
    "distance. So the distance of fresh drafts to what was sent decides only where another model drafted the log."
)
"""Why the distance to one text that was sent is no measure by itself."""


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
        f"Here the logged drafts are {_interval(found.logged_cost, _logged_digits(found))} words from what was sent.",
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
        Text(f"Next: {visible(found.decision.next)}", style, no_wrap=True, overflow="ignore"),
        *(Text(f"Then: {visible(each)}", no_wrap=True, overflow="ignore") for each in found.decision.then),
        Text(visible(provenance(found)), "dim", no_wrap=True, overflow="ignore"),
    )


def headline(found: Learned) -> str:
    """The verdict in words, and the limits that were lowered for it."""
    reasons = " ".join(found.decision.reasons)
    verdict = f"{'Promoted' if found.decision.promoted else 'Refused'} ({found.arm}). {reasons}"
    return " ".join([verdict, *lowered(found)])


def lowered(found: Learned) -> list[str]:
    """The limits that let more pass than the usual ones, in a sentence; none where there are none."""
    return [f"Limits were lowered for this verdict: {', '.join(found.lowered)}."] if found.lowered else []


def provenance(found: Learned) -> str:
    """Where the verdict comes from, in a line."""
    return "; ".join(f"{name}: {value}" for name, value in found.provenance.items())


def learned_html(found: Learned) -> str:
    """The report as one self-contained HTML page; all text of models and users is escaped."""
    return render(
        _TEMPLATE,
        title=f"errata learn: {'promoted' if found.decision.promoted else 'refused'}",
        promoted=found.decision.promoted,
        arm=found.arm,
        reasons=list(found.decision.reasons),
        lowered=lowered(found),
        next=found.decision.next,
        then=found.decision.then,
        provenance=provenance(found),
        facts=_facts(found),
        figures=list(_figures(found)),
        fair=FAIR,
        deciding=_deciding(found),
        logged=_interval(found.logged_cost, _logged_digits(found)),
        conditions=found.decision.conditions,
        said=_said(found),
        accepted=[(how, *_against(one)) for how, one in found.accepted.items()],
        candidates=[_candidate(one) for one in found.candidates if one.points is not None],
        findings=[{"mark": _MARKS[one["severity"]], **one} for one in found.doctor],
        examples=[_example(one) for one in found.examples],
        rows=found.measured.comparison["greedy"].rows,
        users=found.split["heldout_users"],
        independent_users=found.measured.comparison["greedy"].users,
        general_tokens=found.general_tokens,
    )


_MARKS = {"error": "✗", "warning": "!", "note": "·"}


def _deciding(found: Learned) -> list[str]:
    """The groups of figures that decide first."""
    anew = found.measured.anew
    groups = ["Along what was sent" if anew is None else f"Drafts edited anew by {anew.editor}"]
    return groups if found.measured.drafter.own else [*groups, "Drafts, greedy"]


def _facts(found: Learned) -> list[tuple[str, str]]:
    anew, points = found.measured.anew, found.measured.points
    decides = points.missed if anew is None else anew.words
    old, new = (points.old.missed, points.new.missed) if anew is None else (anew.old, anew.new)
    what = "words people changed, still wrong, a draft" if anew is None else "words the editor still changes, a draft"
    return [
        (what, f"{_n(old, 1)} → {_n(new, 1)}"),
        ("change", f"{_n(100 * decides.difference.mean / old if old else 0.0, 0)} %"),
        ("better / same / worse", f"{_shares(decides)} %"),
        ("held-out rows", f"{points.missed.rows:,}"),
        ("trained on", f"{found.split['train']:,} edits"),
    ]


def _figures(found: Learned) -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    """Groups of rows: name, old, new, difference."""
    measured = found.measured
    yield "Along what was sent", list(_along(measured.points))
    if measured.anew is not None:
        yield (
            f"Drafts edited anew by {measured.anew.editor}",
            [
                (
                    "words changed",
                    _n(measured.anew.old, _digits(measured.anew.words)),
                    _n(measured.anew.new, _digits(measured.anew.words)),
                    _difference(measured.anew.words),
                ),
                ("better / same / worse, %", "", "", _shares(measured.anew.words)),
            ],
        )
    for how in ("greedy", "sampled"):
        old, new, versus = measured.old[how], measured.new[how], measured.comparison[how]
        before, after = (_n(side.edit_cost.mean, _digits(versus)) for side in (old, new))
        yield (
            f"Drafts, {how}",
            [
                ("words from what was sent", before, after, _difference(versus)),
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


def _along(found: PointsCompared) -> Iterator[tuple[str, str, str, str]]:
    """Edit points and over-editing, in words and in per cent."""
    old, new = found.old, found.new
    before, after = (_n(side.missed, _digits(found.missed)) for side in (old, new))
    yield "words people changed, still wrong", before, after, _difference(found.missed)
    yield "better / same / worse, %", "", "", _shares(found.missed)
    for name, attribute in (
        ("edit points written as sent, %", "written"),
        ("sent above drafted, % of edit points", "preferred"),
        ("words people left, now otherwise, %", "otherwise_share"),
    ):
        before, after = (getattr(side, attribute) for side in (old, new))
        yield _pair(name, before and 100 * before, after and 100 * after, 1)
    yield (
        "words people left, now otherwise",
        _n(old.otherwise, _digits(found.otherwise)),
        _n(new.otherwise, _digits(found.otherwise)),
        _difference(found.otherwise),
    )


_DRAFT_FIGURES: Sequence[tuple[str, int, Any]] = (
    ("tokens", 1, lambda one: one.length),
    ("drafts that end, %", 1, lambda one: 100 * one.ended),
    ("repetition, %", 1, lambda one: 100 * one.repetition),
)


def _candidate(one: Candidate) -> tuple[str, str, str, str, str]:
    assert one.points is not None
    step = _MISSING if one.name == "old" else f"{one.step} of {one.steps}"
    general = _MISSING if one.general is None else _n(one.general, 3)
    digits = decimals(one.points.rows)
    return one.name, step, _n(one.points.missed, digits), _n(one.points.otherwise, digits), general


def _pair(name: str, old: float | None, new: float | None, digits: int = 3) -> tuple[str, str, str, str]:
    if old is None or new is None:
        return name, _MISSING, _MISSING, _MISSING
    return name, _n(old, digits), _n(new, digits), _signed(new - old, digits)


def _against(one: Comparison) -> tuple[str, str, str]:
    return f"{one.rows:,}", _difference(one), _shares(one)


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
        f"{split['rule']} {split['train']:,} edits{trained} are trained on, {split['selection']:,} chose the "
        f"checkpoint and the method, {split['heldout']:,}{users} judge.",
        _who_drafted(found),
    ]
    if split["fallback"]:
        said.append(f"It is not split by users and time: {split['fallback']}.")
    if unread := split["heldout"] - found.measured.points.new.rows:
        said.append(f"{unread:,} held-out rows are too long to be read along what was sent, and have no edit points.")
    if log["times"]:
        unread = f"; {log['times']['unread']:,} cannot be read" if log["times"]["unread"] else ""
        missing = f"; {log['times']['missing']:,} rows have none" if log["times"]["missing"] else ""
        zone = f"; {log['times']['without_time_zone']:,} name no time zone, UTC is taken"
        said.append(
            f"{log['time_field']!r} says when, read as {log['times']['format']}: {log['times']['first']} to "
            f"{log['times']['last']}{unread}{missing}{zone if log['times']['without_time_zone'] else ''}."
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


def _who_drafted(found: Learned) -> str:
    drafter = found.measured.drafter
    again = f"asked anew, the old model writes {_n(100 * drafter.again, 0)} % of {drafter.rows:,} logged drafts again"
    if drafter.told != "auto":
        who = "--model" if drafter.own else "another model"
        return f"You say that {who} wrote the logged drafts; {again}."
    return f"--model {'wrote' if drafter.own else 'does not seem to have written'} the logged drafts: {again}."


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


def _digits(found: Comparison) -> int:
    """Decimals of words: as many as the rows, or the users, are worth; the sentences of the verdict have the same."""
    return decimals(found.independent)


def _logged_digits(found: Learned) -> int:
    """The same for the logged drafts, which are those of the held-out rows."""
    return decimals(found.measured.comparison["greedy"].rows)


def _difference(found: Comparison) -> str:
    return _interval(found.difference, _digits(found))


def _interval(value: Interval, digits: int) -> str:
    return f"{_n(value.mean, digits)} ({_n(value.low, digits)} to {_n(value.high, digits)})"
