"""``--help`` of verbs with many flags shows the usual ones, ``--help-all`` all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from inspect import cleandoc
from typing import Any, get_type_hints

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Suppress

__all__ = ["MOST", "USUAL", "in_short", "shown_flags"]

MOST = 25
"""Flags that ``--help`` shows."""
USUAL = frozenset(
    {
        *("columns", "max_length", "on_long", "learning_rate", "epochs", "batch_size", "micro_batch_size", "lora_rank"),
        *("evaluate_every", "seed", "llm", "llm_url", "max_cost", "concurrency", "dry_run", "judge"),
    }
)
"""What is shown of a group of flags, unless the verb says in ``shown`` what is."""


def in_short(kind: type[Any]) -> type[Any]:
    """The verb as ``--help`` shows it; itself, where it has few flags."""
    hidden = len(list(_flags(kind))) - len(shown_flags(kind))
    if not hidden:
        return kind
    made = _without(kind, getattr(kind, "shown", USUAL), top=True)
    made.__doc__ = (
        f"{cleandoc(kind.__doc__ or '')}\n\n{hidden} more flags: --help-all; all of them in a file: --config."
    )
    return made


def shown_flags(kind: type[Any]) -> list[str]:
    """The names of the fields that ``--help`` shows."""
    flags = list(_flags(kind))
    shown: Collection[str] = getattr(kind, "shown", USUAL)
    return [name for owner, name in flags if len(flags) <= MOST or owner is kind or name in shown]


def _flags(kind: type[Any]) -> Iterator[tuple[type[Any], str]]:
    """The flags of a verb and of its groups, with the class that has them."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _flags(hints[field.name])
        else:
            yield kind, field.name


def _without(kind: type[Any], shown: Collection[str], *, top: bool = False) -> type[Any]:
    """A class whose flags are left out of the help, but for those shown; a group without any goes as a whole."""
    hints, fields = get_type_hints(kind), list[Any]()
    for field in dataclasses.fields(kind):
        hint: Any = hints[field.name]
        if dataclasses.is_dataclass(hint):
            part = _without(hint, shown)  # type: ignore[arg-type]
            wraps: Any = Flat if any(name in shown for _, name in _flags(hint)) else Suppress  # type: ignore[arg-type]
            fields.append((field.name, wraps[part], part()))
        elif not top and field.name not in shown:
            fields.append((field.name, Suppress[hint], field.default))  # type: ignore[misc]
    unchecked = {"__post_init__": lambda self: None}  # it is printed and never run
    made = dataclasses.make_dataclass(
        kind.__name__, fields, bases=(kind,), frozen=True, kw_only=True, namespace=unchecked
    )
    made.__doc__, made.__module__ = kind.__doc__, kind.__module__
    return made
