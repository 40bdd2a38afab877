"""``--config FILE``: its keys are read as flags, each value as it is typed there."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

__all__ = ["ALIASES", "fields_of", "flags_of", "read_config", "take_config"]

ALIASES = {
    "cliprange": "clip_range",
    "cliprange_value": "value_clip_range",
    "early_stopping_patience": "patience",
    "eval_steps": "evaluate_every",
    "gamma": "discount",
    "kl_coef": "kl_coefficient",
    "lam": "gae_lambda",
    "lora_r": "lora_rank",
    "lora_target_modules": "lora_targets",
    "lr_scheduler_type": "schedule",
    "num_ppo_epochs": "optimisation_epochs",
    "num_train_epochs": "epochs",
    "report_to": "tracker",
    "response_length": "max_new_tokens",
    "save_steps": "save_every",
}
"""What Hugging Face's TrainingArguments and TRL call a setting, and what it is called here; the meaning is the same."""


def take_config(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """``--config FILE`` is not a flag of any verb: it stands for flags."""
    rest, path = list(arguments), None
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            path, rest = Path(arguments[index + 1]), [*arguments[:index], *arguments[index + 2 :]]
        elif argument.startswith("--config="):
            path, rest = Path(argument.partition("=")[2]), [*arguments[:index], *arguments[index + 1 :]]
    return path, rest


def read_config(path: Path, kind: type[Any] | Callable[[Mapping[str, Any]], type[Any]]) -> dict[str, Any]:
    """The settings of a file, by the names of a verb's fields.

    A text is taken as it is typed: YAML makes a number of 1_000 or 1:30, and True of yes, which only who wants a number
    or a switch means.

    Args:
        path: of the file.
        kind: the verb's dataclass, or what makes it of the settings, where they decide which it is.

    Raises:
        ValueError: it is no YAML, no mapping, has a key twice, or one that the verb does not know (names the nearest).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ValueError(f"--config {path}: {why}; give a YAML file of one `key: value` a line") from error
    except ValueError as error:
        raise ValueError(f"{path} is not YAML ({error}); write one `key: value` a line") from error
    try:
        _refuse_twice(yaml.compose(text))
        settings, typed = yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)  # noqa: S506  # of texts alone
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path} is not YAML ({said}); write one `key: value` a line") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no mapping; write one `key: value` a line")
    hints = dict(fields_of(kind if isinstance(kind, type) else kind(settings)))
    found: dict[str, Any] = {}
    for (key, value), as_typed in zip(settings.items(), typed.values(), strict=True):
        name = str(key).replace("-", "_")
        if name not in hints and ALIASES.get(name) in hints:
            name = ALIASES[name]
            print(f"{path}: {key} is read as {name}", file=sys.stderr)
        if name not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)[0]
            raise ValueError(f"{path}: unknown key {key!r}; did you mean {near!r}?")
        if name in found:
            raise ValueError(f"{path}: key {key!r} stands there twice; keep one of the two")
        if isinstance(value, dict | list) and not (name == "columns" and isinstance(value, dict)):
            raise ValueError(f"{path}: key {key!r} holds {type(value).__name__}; every key takes one value")
        kinds = _kinds(hints[name])
        if value is None and NoneType not in kinds:
            raise ValueError(f"{path}: key {key!r} holds nothing; give it a value, or take the line out")
        found[name] = as_typed if isinstance(value, dict) or (value is not None and not _reads(kinds)) else value
    return found


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they are typed on a command line."""
    flags: list[str] = []
    for key, value in settings.items():
        # A mapping of columns is NAME=COLUMN, several times.
        values = [f"{name}={column}" for name, column in value.items()] if isinstance(value, dict) else [value]
        flags += [f"--{key.replace('_', '-')}={each}" for each in values]
    return flags


def fields_of(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """The flags of a verb by their names in Python, and their types."""
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from fields_of(hint)
        else:
            yield name.rstrip("_"), hint  # from_: a word of Python's own


def _kinds(hint: Any) -> set[Any]:
    """What a field takes: the parts of a union, of which each may be annotated."""
    parts = get_args(hint) if get_origin(hint) is not None and hint not in (int, float, bool) else ()
    return {hint, *(kind for part in parts for kind in _kinds(part))} if parts else {hint}


def _reads(kinds: set[Any]) -> bool:
    """Whether a field takes a number or a switch, which YAML reads in many spellings."""
    return bool(kinds & {int, float, bool})


def _refuse_twice(node: Any) -> None:
    """Raise ValueError for a key that a mapping has twice: YAML would take the last in silence."""
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"key {twice[0]!r} stands there twice; keep one of the two")
        if "<<" in names:
            raise ValueError("'<<' takes keys over from elsewhere; write them out")
        for _, value in node.value:
            _refuse_twice(value)
