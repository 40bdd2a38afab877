"""errata aligns a language model from the corrections that people make to its answers.

The folders are the pipeline: data → edits → labels → losses → models → reward → tuning → views → winrate. Here stand
only the two functions that everything begins with; the rest is imported from its room (``from errata.tuning import
figa``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from errata.edits import apply, diff

__version__ = "0.1.0"

__all__ = ["__version__", "apply", "diff"]


def __getattr__(name: str) -> Any:
    # When they are first asked for: a Ctrl-C while everything is imported would reach nobody who can answer it.
    if name in ("apply", "diff"):
        from errata import edits

        return getattr(edits, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
