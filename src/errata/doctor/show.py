"""A diagnosis for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from errata.doctor.findings import Diagnosis, Finding, Severity
from errata.views import Show, labels_to_terminal, legend_to_terminal, view_scale, visible

__all__ = ["diagnosis_to_terminal"]

_MARKS = {
    Severity.ERROR: ("✗ error  ", "bold red"),
    Severity.WARNING: ("! warning", "yellow"),
    Severity.NOTE: ("· note   ", "dim"),
}


def diagnosis_to_terminal(diagnosis: Diagnosis) -> Group:
    """Figures, a few rows coloured by their weight in the loss, the findings, and the verdict last."""
    return Group(*_parts(diagnosis))


def _parts(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    table = Table.grid(padding=(0, 2))
    for name, value in diagnosis.figures.items():
        for label, shown in _lines(name, value):
            table.add_row(label, Text(visible(shown)))
    yield table
    if diagnosis.rows:
        weighed = [row for row in diagnosis.rows if any(map(any, filter(None, row.weights)))]
        scale = view_scale(weighed, Show.WEIGHTS) if weighed else 1.0
        yield Text("")
        yield legend_to_terminal(Show.WEIGHTS, scale)
        for row in diagnosis.rows:
            yield labels_to_terminal(row.labels, values=row.weights, scale=scale, reasons=row.reasons)
    yield Text("")
    yield from map(_line, diagnosis.findings)
    errors, warnings = len(diagnosis.of(Severity.ERROR)), len(diagnosis.of(Severity.WARNING))
    verdict = "safe to train" if diagnosis.safe else "not safe to train"
    yield Text(f"{verdict}: {errors} errors, {warnings} warnings", "bold green" if diagnosis.safe else "bold red")


def _line(finding: Finding) -> Text:
    mark, style = _MARKS[finding.severity]
    return Text.assemble((mark, style), " ", visible(str(finding).partition(": ")[2]))


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:
    words = name.replace("_", " ")
    if isinstance(value, dict):
        parts = [f"{key.replace('_', ' ')} {_number(each)}" for key, each in value.items() if each and key != "places"]
        yield words, ", ".join(parts) or "none"
        for row, place in value.get("places", ()):
            yield "", f"{row}: {place}"
    else:
        yield words, _number(value)


def _number(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, dict):
        return "; ".join(f"{key} {_number(each)}" for key, each in value.items())
    return str(value)
