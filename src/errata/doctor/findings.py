"""What the doctor found: findings with a remedy each, and the figures they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from errata.views import ViewRow

__all__ = ["Diagnosis", "Finding", "Severity"]


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """What is trained is not what was meant: mend it first."""
    WARNING = "warning"
    """It can be trained on; look whether it is meant."""
    NOTE = "note"
    """To know of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing found, in how many rows, and what to do about it."""

    severity: Severity
    name: str
    """A short name that does not change, such as ``end_not_trained``."""
    what: str
    remedy: str
    rows: int = 0
    """In how many rows; 0 where it is no matter of single rows."""
    example: str | None = None
    """The id of the first row that has it."""

    def __str__(self) -> str:
        first = "" if self.example is None else f", the first is {self.example!r}"
        where = f" ({self.rows:,} rows{first})" if self.rows else ""
        return f"{self.severity.value}: {self.what}{where}; {self.remedy}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """All that was found, worst first, the figures, and a few rows to look at with their weights."""

    findings: tuple[Finding, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[ViewRow, ...] = ()
    """The most telling rows, one with a finding first."""

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity is severity)

    @property
    def safe(self) -> bool:
        """Whether nothing found is an error."""
        return not self.of(Severity.ERROR)

    def names(self) -> tuple[str, ...]:
        """The names of the findings, worst first."""
        return tuple(finding.name for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Findings and figures, ready for JSON."""
        return {"safe": self.safe, "findings": [asdict(one) for one in self.findings], "figures": dict(self.figures)}


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; else in the order given."""
    return tuple(finding for severity in Severity for finding in findings if finding.severity is severity)
