"""Edits: a response and its correction as typed edits, the words they touch, and what they cost.

Here an edit is a pair of character spans; ``errata.labels`` projects it on tokens.
"""

from errata.edits.curate import (
    Curation,
    Dropped,
    Filter,
    FilterReport,
    Score,
    changed_only,
    edit_ratio_within,
    field_is_one_of,
    no_duplicates,
    reason_is_one_of,
    reward_gap,
    words_within,
)
from errata.edits.difference import apply, diff
from errata.edits.llm import (
    Aside,
    EditedDrafts,
    EditReport,
    LLMEditorConfig,
    Objections,
    SetAside,
    edit_drafts,
    first_asks,
)
from errata.edits.normalization import FOLDINGS, Folding, Mechanical, MechanicalOf, Normalizer, kinds_of, normalize
from errata.edits.request import Draft, read_material
from errata.edits.summary import EditStatistics, StatisticsOf, statistics
from errata.edits.ungrounded import FACTS, Kind, unknowable
from errata.edits.word_spans import edit_ratio, word_distance, words

__all__ = [
    "FACTS",
    "FOLDINGS",
    "Aside",
    "Curation",
    "Draft",
    "Dropped",
    "EditReport",
    "EditStatistics",
    "EditedDrafts",
    "Filter",
    "FilterReport",
    "Folding",
    "Kind",
    "LLMEditorConfig",
    "Mechanical",
    "MechanicalOf",
    "Normalizer",
    "Objections",
    "Score",
    "SetAside",
    "StatisticsOf",
    "apply",
    "changed_only",
    "diff",
    "edit_drafts",
    "edit_ratio",
    "edit_ratio_within",
    "field_is_one_of",
    "first_asks",
    "kinds_of",
    "no_duplicates",
    "normalize",
    "read_material",
    "reason_is_one_of",
    "reward_gap",
    "statistics",
    "unknowable",
    "word_distance",
    "words",
    "words_within",
]
