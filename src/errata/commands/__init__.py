"""What each verb takes and does: one dataclass a verb, its fields are its flags, ``run`` composes rooms."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from errata.commands.config import fields_of, flags_of, read_config, take_config
from errata.commands.files import check_texts, with_its_flag
from errata.commands.help import in_short
from errata.ranges import raised_at_the_end
from errata.runs import locked
from errata.verbs import verbs

if TYPE_CHECKING:
    from errata.commands.shared import Command

__all__ = ["COMMANDS", "PRESETS", "load", "outputs", "parse", "run", "where_is"]


COMMANDS: Mapping[str, str] = {verb: f"errata.commands.{where}" for verb, (where, _) in verbs().items()}
"""Where each verb is, for ``load``: a verb imports its own module only, and torch takes seconds."""

PRESETS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("tune ppo", "paper"): ("errata.tuning.ppo:PAPER",),
    ("tune ppo", "sequence"): ("errata.tuning.ppo:SEQUENCE",),
}
"""The settings that stand under a verb's flags, of whatever part of it: all that has a flag may stand there. Those of
methods on files are the methods' own."""


def where_is(verb: str) -> str:
    """Where a verb is, as in ``COMMANDS``; also that of a method that has come since."""
    return f"errata.commands.{verbs()[verb][0]}"


def load(where: str) -> Any:
    """What ``module:name`` stands for; imports the module."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


def parse(verb: str, arguments: Sequence[str]) -> Command:
    """Read the flags of a verb; ``--preset`` stands under ``--config``, which stands under what is typed.

    Raises:
        ValueError: the config file is no mapping, or has a key that the verb does not know (names the nearest); or a
            number is out of its range.
    """
    # Read when transformers is imported, which may be late: bars for the loading of weights tell nobody anything.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    path, typed = take_config(arguments)

    def kind_of(settings: Mapping[str, Any]) -> type[Any]:
        """The verb; where it is one for each method, that of the method that is asked for."""
        kind: type[Any] = load(where_is(verb))
        if not hasattr(kind, "of_method"):
            return kind
        method = _given("method", [*flags_of({"method": settings.get("method", kind.method)}), *typed])
        made: type[Any] = kind.of_method(method)
        return made

    settings = read_config(path, kind_of) if path else {}
    kind, from_file = kind_of(settings), flags_of(settings)
    preset = _given("preset", ["--preset=default", *from_file, *typed])
    named = PRESETS.get((verb, preset))
    layers = map(load, named) if named else [getattr(kind, "presets", {}).get(preset, {})]
    under = [flag for layer in layers for flag in flags_of(layer)]
    if "--help-all" in typed:
        typed = ["--help"]
    elif {"-h", "--help"} & set(typed):
        kind = in_short(kind)
    with raised_at_the_end():  # tyro would put them in a frame, with another exit code than other wrong values
        command: Command = tyro.cli(
            kind,
            args=_switches([*under, *from_file, *typed], kind),
            prog=f"errata {verb}",
            config=(tyro.conf.EnumChoicesFromValues,),
        )
    return command


OUTPUTS = ("out", "report", "alpaca_eval", "revisions")
"""The fields of verbs that name what is written; files beside it go with it."""


def outputs(command: Any) -> list[Path]:
    """What a command writes: no two processes write it at a time."""
    found: list[Path] = []
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if dataclasses.is_dataclass(value):
            found += outputs(value)
        elif field.name in OUTPUTS:
            found += [path for path in (value if isinstance(value, tuple) else (value,)) if path is not None]
    return found + getattr(command, "also_locked", [])


def run(command: Command) -> int:
    """Run a command with its outputs locked; returns the exit code: 0, one of the verb's ``codes``, or 130.

    Stopped by Ctrl-C, it says what becomes of the work: ``stopped`` of the verb, where it resumes.

    Raises:
        ValueError: the input is wrong, or another process writes an output (``InUse``).
        OSError: a file cannot be read or written.
    """
    check_texts(command)
    written = outputs(command)
    before = [_state(path) for path in written]
    try:
        with locked(*written):
            code = command.run() or 0
    except KeyboardInterrupt:
        none = all(_state(path) == state for path, state in zip(written, before, strict=True))
        other = "nothing was written, rerun the same command" if none else "rerun the same command to start over"
        print(f"\nerrata: stopped; {getattr(command, 'stopped', None) or other}", file=sys.stderr)
        return 130
    except OSError as error:
        named = with_its_flag(error, command)
        if named is None:
            raise
        raise named from error
    assert code in (0, *getattr(command, "codes", ())), f"{type(command).__name__} ends with {code}; name it in codes"
    return code


def _state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _given(name: str, flags: Sequence[str]) -> str:
    """What a flag is given, the last time."""
    found = ""
    for flag, after in pairwise([*flags, ""]):
        if flag == f"--{name}":
            found = after
        elif flag.startswith(f"--{name}="):
            found = flag.partition("=")[2]
    return found


def _switches(flags: Sequence[str], kind: type[Any]) -> list[str]:
    """``--strict True``, ``--strict=false`` (a file says it so) → ``--strict``, ``--no-strict``."""
    switches = {f"--{name.replace('_', '-')}" for name, hint in fields_of(kind) if hint is bool}
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
