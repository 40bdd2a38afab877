"""What a run of ``errata learn`` found: everything that its report tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from errata.winrate import Interval
from errata.workflows.edit_points import EditPointFigures
from errata.workflows.measure import Comparison
from errata.workflows.verdict import Decision, Measured

__all__ = ["Candidate", "Example", "Learned"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A trained model, or the old one, on the part of the training rows that chooses."""

    name: str
    points: EditPointFigures | None
    """Along what was sent; None where no rows were left to choose by."""
    general: float | None
    """Loss on the general text in nats a token; None where none was given."""
    step: int
    """The optimizer step that was saved."""
    steps: int
    """All that were made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One held-out row with both models' greedy drafts."""

    prompt: str
    sent: str
    logged: str
    old: str
    new: str
    old_cost: int
    new_cost: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """A verdict, and what it rests on."""

    decision: Decision
    measured: Measured
    arm: str
    """Which candidate was judged."""
    candidates: tuple[Candidate, ...]
    logged_cost: Interval
    """Edit cost of the logged drafts on the held-out rows. What was sent was written from them: no new draft is judged
    against this."""
    accepted: Mapping[str, Comparison]
    """By decoding, on held-out drafts that were sent unchanged; empty where there are too few."""
    log: Mapping[str, Any]
    split: Mapping[str, Any]
    doctor: tuple[Mapping[str, Any], ...]
    """Its findings, worst first."""
    lowered: tuple[str, ...]
    """Limits that let more pass than the usual ones, as flags."""
    provenance: Mapping[str, str]
    """Of which model, log and day."""
    general_tokens: int | None
    examples: tuple[Example, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = asdict(self)
        decision = self.decision
        found["decision"] |= {"reasons": decision.reasons, "next": decision.next, "then": decision.then}
        return found
