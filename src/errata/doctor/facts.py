"""What a model can take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from errata.pretrained import find_model
from errata.pretrained.load import load_config, stops_of

__all__ = ["ModelFacts", "read_model_facts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a model can take; None where its config does not say."""

    vocabulary: int | None = None
    """Rows of its embedding."""
    positions: int | None = None
    """The longest sequence that it was made for, in tokens."""
    ends: tuple[int, ...] | None = None
    """Ids at which plain ``generate`` and servers stop: ``eos_token_id`` of its configurations."""


def read_model_facts(folder: Path | str) -> ModelFacts:
    """What the configurations beside a model say.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    found = find_model(folder)
    try:
        config = load_config(found)
    except ValueError as error:
        raise ValueError(f"no model config could be loaded from {folder}: {error}") from error
    text = config.get_text_config()
    return ModelFacts(
        vocabulary=getattr(text, "vocab_size", None),
        positions=getattr(text, "max_position_embeddings", None),
        ends=stops_of(found),
    )
