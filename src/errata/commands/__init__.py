"""What each verb takes and does: one dataclass a verb, its fields are its flags, ``run`` composes rooms."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import tyro
import yaml
from transformers.utils import logging as transformers_logging

from errata.commands.client import ClientCheck, ClientCosts
from errata.commands.curation import EditsFilter, EditsStats
from errata.commands.demo import Demo
from errata.commands.doctor import Doctor
from errata.commands.editor import EditsLLM
from errata.commands.edits import EditsDiff, EditsImport
from errata.commands.labels import Labels, View
from errata.commands.learn import Learn, LearnInShort
from errata.commands.page import EditsExport, EditsPage
from errata.commands.reward import RewardEval, RewardScore, RewardTrain
from errata.commands.shared import Command
from errata.commands.tune import TuneDPO, TuneFIGA, TunePPO, TuneSFT
from errata.commands.winrate import Generate, WinRate
from errata.tuning.figa import PAPER as FIGA_PAPER
from errata.tuning.ppo import PAPER as PPO_PAPER
from errata.tuning.ppo import SEQUENCE as PPO_SEQUENCE

__all__ = ["COMMANDS", "Command", "parse"]


COMMANDS: Mapping[str, type[Any]] = {
    "demo": Demo,
    "learn": Learn,
    "edits diff": EditsDiff,
    "edits import": EditsImport,
    "edits llm": EditsLLM,
    "edits stats": EditsStats,
    "edits filter": EditsFilter,
    "edits page": EditsPage,
    "edits export": EditsExport,
    "labels": Labels,
    "doctor": Doctor,
    "reward train": RewardTrain,
    "reward score": RewardScore,
    "reward eval": RewardEval,
    "tune sft": TuneSFT,
    "tune figa": TuneFIGA,
    "tune dpo": TuneDPO,
    "tune ppo": TunePPO,
    "generate": Generate,
    "winrate": WinRate,
    "view": View,
    "client check": ClientCheck,
    "client costs": ClientCosts,
}

IN_SHORT: Mapping[str, type[Any]] = {"learn": LearnInShort}
"""What ``--help`` shows of verbs with many keys; ``--help-all`` shows all of them."""

PRESETS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("tune figa", "paper"): FIGA_PAPER,
    ("doctor", "paper"): FIGA_PAPER,
    ("tune ppo", "paper"): PPO_PAPER,
    ("tune ppo", "sequence"): PPO_SEQUENCE,
}


def parse(verb: str, arguments: Sequence[str]) -> Command:
    """Read the flags of a verb; ``--preset`` stands under ``--config``, which stands under what is typed.

    Raises:
        ValueError: the config file is no mapping, or has a key that the verb does not know (names the nearest).
    """
    kind = COMMANDS[verb]
    path, typed = _take_config(arguments)
    from_file = _flags(_read_config(path, kind)) if path else []
    preset = _preset([*from_file, *typed])
    under = _flags(PRESETS.get((verb, preset), {}))
    if verb in IN_SHORT and "--help-all" in typed:
        typed = ["--help"]
    elif {"-h", "--help"} & set(typed):
        kind = IN_SHORT.get(verb, kind)
    transformers_logging.disable_progress_bar()
    command: Command = tyro.cli(
        kind,
        args=_switches([*under, *from_file, *typed], kind),
        prog=f"errata {verb}",
        config=(tyro.conf.EnumChoicesFromValues,),
    )
    return command


def _take_config(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """``--config FILE`` is not a flag of any verb: it stands for flags."""
    rest, path = list(arguments), None
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            path, rest = Path(arguments[index + 1]), [*arguments[:index], *arguments[index + 2 :]]
        elif argument.startswith("--config="):
            path, rest = Path(argument.partition("=")[2]), [*arguments[:index], *arguments[index + 1 :]]
    return path, rest


def _preset(flags: Sequence[str]) -> str:
    named = [after for flag, after in pairwise(flags) if flag == "--preset"]
    named += [flag.partition("=")[2] for flag in flags if flag.startswith("--preset=")]
    return named[-1] if named else "default"


def _read_config(path: Path, kind: type[Any]) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(
            f"{path} is not YAML ({' '.join(str(error).split())}); write one `key: value` a line"
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no mapping; write one `key: value` a line")
    known = [name for name, _ in _fields(kind)]
    for key, value in settings.items():
        if str(key).replace("-", "_") not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ValueError(f"{path}: unknown key {key!r}; did you mean {near!r}?")
        if isinstance(value, dict | list):
            raise ValueError(f"{path}: key {key!r} holds {type(value).__name__}; every key takes one value")
    return settings


def _fields(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _fields(hint)
        else:
            yield name.rstrip("_"), hint  # from_: a word of Python's own


def _flags(settings: Mapping[str, Any]) -> list[str]:
    return [f"--{str(key).replace('_', '-')}={value}" for key, value in settings.items()]


def _switches(flags: Sequence[str], kind: type[Any]) -> list[str]:
    """``--strict True``, ``--strict=false`` (a file says it so) → ``--strict``, ``--no-strict``."""
    switches = {f"--{name.replace('_', '-')}" for name, hint in _fields(kind) if hint is bool}
    found: list[str] = []
    rest = list(flags)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        switch = name.replace("_", "-")
        if switch not in switches:
            found.append(f"{name}{equals}{value}")
            continue
        if not equals:
            value = rest.pop(0) if rest and rest[0].lower() in ("true", "false") else "true"
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{name}={value}: give {switch} or --no-{switch[2:]}")
        found.append(f"--no-{switch[2:]}" if value.lower() == "false" else switch)
    return found
