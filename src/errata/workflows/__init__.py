"""Whole runs, from a file to a model and its report; their pieces are functions that can be used by themselves."""

from errata.workflows.harness import TaskScore, forgotten, task_scores
from errata.workflows.learn_report import learned_html, learned_terminal
from errata.workflows.learned import Candidate, Example, Learned
from errata.workflows.learning import LearnConfig, LearnDetails, NotSafe, Waiting, learn
from errata.workflows.measure import (
    Comparison,
    DraftFigures,
    TokenLogprobs,
    compare,
    describe,
    edit_costs,
    repetition,
    text_loss,
    token_logprobs_by_label,
    write_drafts,
)
from errata.workflows.privacy import Masker, mask_correction, mask_texts
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
from errata.workflows.split import Split, SplitBy, prompt_key, split_rows
from errata.workflows.times import TIME_FORMATS, Times, read_time, read_times
from errata.workflows.verdict import Condition, Decision, Limits, Measured, decide

__all__ = [
    "TIME_FORMATS",
    "Answer",
    "AnswerScore",
    "Candidate",
    "Comparison",
    "Condition",
    "Decision",
    "DraftFigures",
    "Editor",
    "Example",
    "LearnConfig",
    "LearnDetails",
    "Learned",
    "Limits",
    "Masker",
    "Measured",
    "NotSafe",
    "SPAReport",
    "Split",
    "SplitBy",
    "TaskScore",
    "Thresholds",
    "Times",
    "TokenLogprobs",
    "Waiting",
    "compare",
    "curate_spa",
    "decide",
    "describe",
    "edit_costs",
    "forgotten",
    "learn",
    "learned_html",
    "learned_terminal",
    "mask_correction",
    "mask_texts",
    "prompt_key",
    "read_time",
    "read_times",
    "repetition",
    "revise",
    "sample_and_score",
    "split_rows",
    "suggest_thresholds",
    "task_scores",
    "text_loss",
    "token_logprobs_by_label",
    "write_drafts",
]
