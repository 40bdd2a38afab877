"""Data: rows in and out of files, and the one encoding of text as ids."""

from errata.data.encoding import PLAIN_TEMPLATE, Encoder
from errata.data.files import new_file, new_folder
from errata.data.rows import read_corrections, read_demonstrations, read_preferences, read_prompts, write_rows

__all__ = [
    "PLAIN_TEMPLATE",
    "Encoder",
    "new_file",
    "new_folder",
    "read_corrections",
    "read_demonstrations",
    "read_preferences",
    "read_prompts",
    "write_rows",
]
