"""What an evaluation found, as the file ``summary.json`` holds it, and the mean of several seeds' findings.

The classes spell out the file: each is a JSON object with these keys, a field with a default may be missing. A number
is finite or null, where null says that it was not or cannot be measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from errata.winrate.intervals import t_interval
from errata.winrate.plain import from_plain, read_plain, to_plain, write_plain

__all__ = [
    "ArmResult",
    "BestOfResult",
    "ControlResult",
    "CurvePoint",
    "DecodedResult",
    "Example",
    "ExampleText",
    "ExampleToken",
    "LearningCurve",
    "PerSeed",
    "RewardModelResult",
    "Summary",
    "WinRateResult",
    "combine_seeds",
    "read_summary",
    "summary_from_json",
    "summary_to_json",
    "write_summary",
]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PerSeed:
    """The numbers behind an interval over seeds, one a seed in the order of ``Summary.seeds``."""

    win_rate: tuple[float, ...]
    edit_cost: tuple[float, ...] = ()
    """Empty for an outsider's row, which has no cost of its own."""


@dataclass(frozen=True, kw_only=True)
class WinRateResult:
    """How often one side won, ties counting half, with its 95 % interval; all in [0, 1] but for wide t-intervals."""

    win_rate: float
    ci_low: float
    ci_high: float
    per_seed: PerSeed | None = None
    """Set by ``combine_seeds``."""


@dataclass(frozen=True, kw_only=True)
class DecodedResult(WinRateResult):
    """One policy under one way of decoding; the win rate is against the start decoded the same way."""

    mean_defects: float
    """Per response."""
    edit_cost: float
    """Words that the full editor would still change, per response."""
    mean_length: float
    """Tokens per response."""
    well_formed: float
    """Share of the responses."""
    kl: float | None
    """Mean over prompts of the summed log-ratio to the start on the policy's own samples, nats."""
    entropy: float | None = None
    """Mean over the response's tokens, nats."""
    edit_cost_low: float | None = None
    """Lower end of the 95 % interval of ``edit_cost``."""
    edit_cost_high: float | None = None
    defects_by_kind: Mapping[str, float] = field(default_factory=dict)
    """Per response; a kind that is missing is 0."""
    outsider: WinRateResult | None = None
    """Against one frozen outsider."""


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm; the first of ``Summary.arms`` is the start, against which the others are judged."""

    name: str
    seconds: float | None
    """Of training."""
    sampled: DecodedResult
    """Sampled at temperature 1."""
    greedy: DecodedResult


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """The start decoded at a lower temperature, which costs no training, against the start sampled at 1."""

    name: str
    temperature: float
    sampled: DecodedResult


@dataclass(frozen=True, kw_only=True)
class BestOfResult:
    """The best of 8 samples of the start by a reward model, against the start sampled once."""

    win_rate: float
    mean_defects: float


@dataclass(frozen=True, kw_only=True)
class RewardModelResult:
    """One reward model on held-out data: accuracies in [0, 1], areas under the ROC curve in [0, 1]."""

    name: str
    kind: str
    """``token`` or ``sequence``: what one reward is given for."""
    objective: str
    preference_accuracy: float | None
    edit_accuracy: float | None
    auc_bad_kept: float | None
    """Bad tokens against kept ones on samples of the policy; null for sequence models."""
    auc_bad_good: float | None
    best_of_8: BestOfResult | None


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """An evaluation during training."""

    step: int
    seconds: float | None
    kl: float | None
    proxy_reward: float | None
    """What the arm's own reward model says, mean per response."""
    mean_defects: float | None
    win_rate: float | None


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """The evaluations of one arm in the order of steps."""

    arm: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, kw_only=True)
class ExampleToken:
    """One token of an example: its characters, its reward, and whether the gold editor would change it."""

    text: str
    value: float
    outlined: bool


@dataclass(frozen=True, kw_only=True)
class ExampleText:
    """One response of an example."""

    text: str
    tokens: tuple[ExampleToken, ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """The responses of the start and of the arm ``name`` to one prompt."""

    prompt: str
    before: ExampleText
    after: ExampleText
    name: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything that the report shows."""

    seeds: tuple[int, ...]
    arms: tuple[ArmResult, ...]
    controls: tuple[ControlResult, ...] = ()
    reward_models: tuple[RewardModelResult, ...] = ()
    curves: tuple[LearningCurve, ...] = ()
    data: Mapping[str, float] = field(default_factory=dict)
    """Counts, per seed: ``prompts``, ``rejected``, ``unchanged``, ``words_typed``, …."""
    examples: tuple[Example, ...] = ()


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain dicts, lists, strings and finite numbers.

    Raises:
        ValueError: A number is NaN or infinite (says which); one that was not measured is None.
    """
    return to_plain(summary, "summary")


def summary_from_json(plain: Mapping[str, Any]) -> Summary:
    """The summary that ``plain`` spells out.

    Raises:
        ValueError: A key is unknown or missing, a value of another type, or a number not finite (says where).
    """
    return from_plain(Summary, plain, "summary")


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``summary.json`` in one step.

    Raises:
        ValueError: A number is NaN or infinite (says which); nothing is written then.
    """
    write_plain(path, summary, "summary")


def read_summary(path: Path) -> Summary:
    """The summary that ``write_summary`` wrote, whoever wrote it.

    Raises:
        ValueError: The file is no JSON, or as in ``summary_from_json``; says which file.
    """
    return read_plain(Summary, path, "summary")


def _merge(values: Sequence[T], where: str) -> T:
    """The same place of several summaries as one: numbers by their mean, what is equal as it is.

    A number that some seeds lack is the mean over those that have it; a key that some mappings lack counts as 0 there.
    """
    present: list[Any] = [value for value in values if value is not None]
    first: Any = present[0] if present else None
    if all(value == first for value in present):
        return first  # type: ignore[no-any-return]
    merged: Any
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        merged = dataclasses.replace(
            first,
            **{
                known.name: _merge([getattr(value, known.name) for value in present], f"{where}.{known.name}")
                for known in dataclasses.fields(first)
            },
        )
    elif isinstance(first, Mapping):
        keys = dict.fromkeys(key for value in present for key in value)
        merged = {key: _merge([value.get(key, 0.0) for value in present], f"{where}.{key}") for key in keys}
    elif isinstance(first, tuple) and len({len(value) for value in present}) == 1:
        merged = tuple(_merge(parts, f"{where}[{index}]") for index, parts in enumerate(zip(*present, strict=True)))
    elif isinstance(first, (int, float)):
        merged = math.fsum(present) / len(present)
    else:
        raise ValueError(f"{where} differs between the seeds ({present}): combine runs of one configuration")
    return merged  # type: ignore[no-any-return]


def _against_half(rows: Sequence[WinRateResult]) -> dict[str, Any]:
    """The mean win rate, its interval, and what they were made of."""
    differences = t_interval([row.win_rate - 0.5 for row in rows])
    return {
        "win_rate": 0.5 + differences.mean,
        "ci_low": 0.5 + differences.low,
        "ci_high": 0.5 + differences.high,
        "per_seed": PerSeed(win_rate=tuple(row.win_rate for row in rows)),
    }


def _combine_decoded(rows: Sequence[DecodedResult], where: str) -> DecodedResult:
    costs = t_interval([row.edit_cost for row in rows])
    outsiders = [row.outsider for row in rows if row.outsider is not None]
    if outsiders and len(outsiders) < len(rows):
        raise ValueError(f"{where}.outsider is missing for some seeds: combine runs of one configuration")
    merged = dataclasses.replace(
        _merge(rows, where),
        edit_cost_low=costs.low,
        edit_cost_high=costs.high,
        outsider=dataclasses.replace(outsiders[0], **_against_half(outsiders)) if outsiders else None,
        **_against_half(rows),
    )
    assert merged.per_seed is not None
    per_seed = dataclasses.replace(merged.per_seed, edit_cost=tuple(row.edit_cost for row in rows))
    return dataclasses.replace(merged, per_seed=per_seed)


def _combine_curves(curves: Sequence[LearningCurve], where: str) -> LearningCurve:
    """Mean by step, over the steps that every seed has: a mean over fewer seeds would jump."""
    by_step = [{point.step: point for point in curve.points} for curve in curves]
    steps = sorted(set.intersection(*map(set, by_step)))
    points = tuple(_merge([points[step] for points in by_step], f"{where}.step {step}") for step in steps)
    return LearningCurve(arm=curves[0].arm, points=points)


def combine_seeds(summaries: Sequence[Summary]) -> Summary:
    """Several seeds' findings as one: every number its mean, the examples those of the first seed.

    The interval of a win rate becomes the t-interval of the per-seed differences from ½ (each seed's own comparison
    with its own start), that of the edit cost the t-interval over seeds; both keep their numbers in ``per_seed``.
    Learning curves are averaged step by step. A single summary comes back as it is, with its intervals over prompts.

    Args:
        summaries: One seed each, with the same arms, controls and reward models in the same order.

    Raises:
        ValueError: There is none, one has several seeds, a seed comes twice, or they are not of one configuration.
    """
    if not summaries:
        raise ValueError("there is no summary to combine")
    seeds = [seed for summary in summaries for seed in summary.seeds]
    if len(summaries) == 1:
        return summaries[0]
    if len(seeds) != len(summaries):
        raise ValueError(f"{len(summaries)} summaries hold the seeds {seeds}: give summaries of one seed each")
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"the seeds are {seeds}: a seed that comes twice is not another measurement")
    first = summaries[0]
    for summary in summaries[1:]:
        for what, names, expected in (
            ("arms", [arm.name for arm in summary.arms], [arm.name for arm in first.arms]),
            ("controls", [row.name for row in summary.controls], [row.name for row in first.controls]),
            ("reward models", [row.name for row in summary.reward_models], [row.name for row in first.reward_models]),
            ("curves", [row.arm for row in summary.curves], [row.arm for row in first.curves]),
        ):
            if names != expected:
                raise ValueError(
                    f"seed {summary.seeds[0]} has the {what} {names}, seed {first.seeds[0]} has {expected}: "
                    "combine runs of one configuration"
                )

    arms = []
    for rows in zip(*(summary.arms for summary in summaries), strict=True):
        name = rows[0].name
        arms.append(
            ArmResult(
                name=name,
                seconds=_merge([row.seconds for row in rows], f"{name}.seconds"),
                sampled=_combine_decoded([row.sampled for row in rows], f"{name}.sampled"),
                greedy=_combine_decoded([row.greedy for row in rows], f"{name}.greedy"),
            )
        )
    return Summary(
        seeds=tuple(seeds),
        arms=tuple(arms),
        controls=tuple(
            dataclasses.replace(rows[0], sampled=_combine_decoded([row.sampled for row in rows], rows[0].name))
            for rows in zip(*(summary.controls for summary in summaries), strict=True)
        ),
        reward_models=tuple(
            _merge(rows, rows[0].name) for rows in zip(*(summary.reward_models for summary in summaries), strict=True)
        ),
        curves=tuple(
            _combine_curves(rows, rows[0].arm) for rows in zip(*(summary.curves for summary in summaries), strict=True)
        ),
        data=_merge([summary.data for summary in summaries], "data"),
        examples=first.examples,
    )
