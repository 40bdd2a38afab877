"""Who wins and by how much: verdicts on held-out prompts, intervals, the summary file, the report.

Every win rate is against the start decoded the same way. A tie counts half, and a tie is a result.
"""

from errata.winrate.intervals import Interval, bootstrap_interval, paired_t_interval, t_interval
from errata.winrate.report import headline, report_html, report_terminal
from errata.winrate.summary import (
    ArmResult,
    BestOfResult,
    ControlResult,
    CurvePoint,
    DecodedResult,
    Example,
    ExampleText,
    ExampleToken,
    LearningCurve,
    PerSeed,
    RewardModelResult,
    Summary,
    WinRateResult,
    combine_seeds,
    read_summary,
    summary_from_json,
    summary_to_json,
    write_summary,
)
from errata.winrate.verdicts import verdicts_from_scores, win_rate

__all__ = [
    "ArmResult",
    "BestOfResult",
    "ControlResult",
    "CurvePoint",
    "DecodedResult",
    "Example",
    "ExampleText",
    "ExampleToken",
    "Interval",
    "LearningCurve",
    "PerSeed",
    "RewardModelResult",
    "Summary",
    "WinRateResult",
    "bootstrap_interval",
    "combine_seeds",
    "headline",
    "paired_t_interval",
    "read_summary",
    "report_html",
    "report_terminal",
    "summary_from_json",
    "summary_to_json",
    "t_interval",
    "verdicts_from_scores",
    "win_rate",
    "write_summary",
]
