"""Labels: edits projected on the tokens of one tokenizer, one value for every token, each text with its own.

These per-token streams are what reward models and policies are trained on; nothing after this room sees an edit.
"""

from errata.labels.counts import LabelCounts, changed, count_labels, has_change
from errata.labels.files import SCHEMA, read_labels, write_labels
from errata.labels.labeling import label, label_all, label_rows, sides_of
from errata.labels.projection import project, project_weights
from errata.labels.rules import LabelRules
from errata.labels.stream import LabelReport, label_file
from errata.labels.weights import check_row_weights, token_weights

__all__ = [
    "SCHEMA",
    "LabelCounts",
    "LabelReport",
    "LabelRules",
    "changed",
    "check_row_weights",
    "count_labels",
    "has_change",
    "label",
    "label_all",
    "label_file",
    "label_rows",
    "project",
    "project_weights",
    "read_labels",
    "sides_of",
    "token_weights",
    "write_labels",
]
