"""Whole runs, from a file to a model and its report; their pieces are functions that can be used by themselves."""

from errata.workflows.learn import LearnConfig, LearnDetails, NotSafe, learn
from errata.workflows.learn_report import learned_html, learned_terminal
from errata.workflows.learned import Candidate, Example, Learned
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
from errata.workflows.split import Split, SplitBy, prompt_key, read_time, split_rows
from errata.workflows.verdict import Condition, Decision, Limits, Measured, decide

__all__ = [
    "Candidate",
    "Comparison",
    "Condition",
    "Decision",
    "DraftFigures",
    "Example",
    "LearnConfig",
    "LearnDetails",
    "Learned",
    "Limits",
    "Masker",
    "Measured",
    "NotSafe",
    "Split",
    "SplitBy",
    "TokenLogprobs",
    "compare",
    "decide",
    "describe",
    "edit_costs",
    "learn",
    "learned_html",
    "learned_terminal",
    "mask_correction",
    "mask_texts",
    "prompt_key",
    "read_time",
    "repetition",
    "split_rows",
    "text_loss",
    "token_logprobs_by_label",
    "write_drafts",
]
