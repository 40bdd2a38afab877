"""Workflows: several rooms at work one after the other, on files in one folder, resumable."""

from errata.workflows.spa import (
    Answer,
    AnswerScore,
    Editor,
    SPAReport,
    Thresholds,
    curate_spa,
    revise,
    sample_and_score,
    suggest_thresholds,
)

__all__ = [
    "Answer",
    "AnswerScore",
    "Editor",
    "SPAReport",
    "Thresholds",
    "curate_spa",
    "revise",
    "sample_and_score",
    "suggest_thresholds",
]
