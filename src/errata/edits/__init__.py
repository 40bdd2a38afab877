"""Edits: a response and its correction as typed edits, the words they touch, and what they cost.

Here an edit is a pair of character spans; ``errata.labels`` projects it on tokens.
"""

from errata.edits.difference import apply, diff
from errata.edits.statistics import EditStatistics, statistics
from errata.edits.words import edit_ratio, word_distance, words

__all__ = ["EditStatistics", "apply", "diff", "edit_ratio", "statistics", "word_distance", "words"]
