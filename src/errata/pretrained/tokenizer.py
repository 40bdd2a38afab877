"""Loading a tokenizer: a damaged file is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from errata.pretrained.folder import ModelFolder, find_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["load_tokenizer"]


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside a model, or beside an adapter or its base; ``folder`` is whatever names a model.

    Raises:
        ValueError: there is none, or its files are damaged.
    """
    from transformers import AutoTokenizer  # and with it torch, which who has no model does without

    found = find_model(folder)
    try:
        _check_files(found)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(found.tokenizer_path), trust_remote_code=False
        )
    except Exception as error:  # of tokenizers it is an Exception, of damaged configurations anything
        reason = " ".join(str(error).split())
        raise ValueError(
            f"no tokenizer could be loaded from {folder}: {reason}; save the model's tokenizer there, with its "
            "tokenizer.json"
        ) from error
    return tokenizer


def _check_files(found: ModelFolder) -> None:
    """Refuse damaged files: transformers makes an empty tokenizer of some damaged files."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        path = found.tokenizer_path / name
        if path.exists():
            try:
                whole = isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
            except ValueError:
                whole = False
            if not whole:
                raise ValueError(f"{path} is damaged; {found.remedy}")
