"""Data: rows in and out of files, and the one encoding of text as ids."""

from errata.data.columns import EmptyTexts, Reading
from errata.data.encoding import PLAIN_TEMPLATE, Encoder, LongRow, OnLong
from errata.data.formats import FORMATS, Format, FormatName, recognise
from errata.data.given import demonstrations, rows_of
from errata.data.lengths import LengthCounts, encode_rows
from errata.data.rows import (
    corrections_from,
    iter_corrections,
    iter_demonstrations,
    iter_preferences,
    iter_prompts,
    read_corrections,
    read_demonstrations,
    read_preferences,
    read_prompts,
    recognise_file,
    write_rows,
    writing_rows,
)
from errata.data.templates import TemplateFinding, check_template

__all__ = [
    "FORMATS",
    "PLAIN_TEMPLATE",
    "EmptyTexts",
    "Encoder",
    "Format",
    "FormatName",
    "LengthCounts",
    "LongRow",
    "OnLong",
    "Reading",
    "TemplateFinding",
    "check_template",
    "corrections_from",
    "demonstrations",
    "encode_rows",
    "iter_corrections",
    "iter_demonstrations",
    "iter_preferences",
    "iter_prompts",
    "read_corrections",
    "read_demonstrations",
    "read_preferences",
    "read_prompts",
    "recognise",
    "recognise_file",
    "rows_of",
    "write_rows",
    "writing_rows",
]
