"""What a comparison found, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from errata.winrate.intervals import (
    Interval,
)
from errata.winrate.judges import JudgeIdentity
from errata.winrate.plain import read_plain, write_plain

__all__ = [
    "Contest",
    "ContestArm",
    "ContestDifference",
    "ContestExample",
    "Slice",
    "Spent",
    "read_contest",
    "write_contest",
]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The win rate on some of the prompts, over their valid verdicts."""

    name: str
    prompts: int
    """With a valid verdict; prompts without one are in no slice."""
    win_rate: float
    interval: Interval
    """95 %, as the arm's."""


@dataclass(frozen=True, kw_only=True)
class ContestArm:
    """One arm against the baseline; rates are in [0, 1], lengths in words."""

    name: str
    prompts: int
    valid: int
    """Pairs with a valid verdict; all rates are over these."""
    win_rate: Interval | None
    """Mean valid verdict, a tie ½, with its 95 % interval (``rate_interval``); None where no verdict is valid."""
    win_rate_invalid_tied: float | None
    """The same if the invalid ones are counted as ties; None where no verdict is valid."""
    standard_error: float | None
    """s / √n of the valid verdicts, as AlpacaEval gives it; None for fewer than two."""
    wins: int
    ties: int
    losses: int
    invalid: int
    """Pairs without a usable word of the judge: they are in no rate."""
    detectable: float | None
    """The smallest distance of the win rate from ½ that so many verdicts would show in 80 of 100 cases; None where
    even unanimous ones would not."""
    mean_length: float
    baseline_length: float
    length_controlled: Interval | None
    """Our rate at equal length (``length_controlled``), not AlpacaEval's; None for fewer than two valid verdicts."""
    longer_wins: float | None
    """The win rate if the judge always picked the longer answer, on the same pairs."""
    longer_agreement: Interval | None
    """Share of the decided verdicts that went to the longer answer, where one has 1.25 times the other's words."""
    consistency: float | None = None
    """Share of the valid pairs on which the two orders agree; None where the judge was not asked in orders."""
    first_position: float | None = None
    """Share of the judge's single decided words that chose the answer shown first; ½ is no bias."""
    mean_value: float | None = None
    """Mean of the judge's own scores, where it scores each answer (``JudgeIdentity.value`` says what they are)."""
    baseline_value: float | None = None
    by_length: tuple[Slice, ...] = ()
    """By how long the candidate is beside the baseline: shorter, alike, longer, by a factor of 1.25."""
    by_group: tuple[Slice, ...] = ()
    """By the prompts' groups, the largest first."""
    verdicts: Mapping[str, float | None] = field(default_factory=dict)
    """By prompt id; None where it is invalid."""
    invalid_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ContestDifference:
    """The win rate of one arm minus that of another, paired by prompt."""

    first: str
    second: str
    prompts: int
    """With a valid verdict on both arms."""
    difference: Interval | None
    """Mean and 95 % interval of the paired differences (``rate_difference_interval``); None where there are none."""
    p_value: float | None
    """Two-sided, by flipping signs; not corrected for how many pairs of arms there are."""
    detectable: float | None
    """The smallest difference that so many prompts would show in 80 of 100 cases; None where none would be."""


@dataclass(frozen=True, kw_only=True)
class ContestExample:
    """One prompt with all the answers to it."""

    id: str
    prompt: str
    baseline: str
    answers: Mapping[str, str]
    """By arm."""
    verdicts: Mapping[str, float | None]
    """None where it is invalid."""
    reasons: Mapping[str, tuple[str, ...]]
    """The judge's words, by arm."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What the judging cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    """US dollars of this run (answers from the ledger cost nothing); None if a price is not known."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Everything that the report shows."""

    baseline: str
    judge: JudgeIdentity
    arms: tuple[ContestArm, ...]
    differences: tuple[ContestDifference, ...] = ()
    """Of every two arms."""
    group_field: str | None = None
    seed: int = 0
    date: str = ""
    """ISO 8601."""
    spent: Spent = Spent()
    warnings: tuple[str, ...] = ()
    examples: tuple[ContestExample, ...] = ()
    """Where the arms' verdicts differ most."""


def write_contest(path: Path, found: Contest) -> None:
    """Write the contest as JSON in one step."""
    write_plain(path, found, "contest")


def read_contest(path: Path) -> Contest:
    """What ``write_contest`` wrote.

    Raises:
        ValueError: The file is none (says where).
    """
    return read_plain(Contest, path, "contest")
