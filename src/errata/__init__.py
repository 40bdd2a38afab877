"""errata aligns a language model from the corrections that people make to its answers.

The folders are the pipeline: data → edits → labels → losses → models → reward → tuning → views → winrate. Here stand
only the two functions that everything begins with; the rest is imported from its room (``from errata.tuning import
figa``).
"""

from errata.edits import apply, diff

__version__ = "0.1.0"

__all__ = ["__version__", "apply", "diff"]
