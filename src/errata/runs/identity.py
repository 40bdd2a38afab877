"""What tells one run from another: a fingerprint over all that changes its result.

It has no version of errata in it: a new version does not throw away what an older one made, and where a version changes
numbers its notes say so. What a *function* does cannot be read from it, so a function says itself what it is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

__all__ = ["HOW_TO_NAME", "fingerprint_of", "identity_of", "named"]

HOW_TO_NAME = "give it an attribute `identity` (its name, version and settings: `score.identity = 'rude words, 2'`)"


def fingerprint_of(*parts: Any) -> str:
    """16 hex digits over settings and data: a finished folder is reused only for the run that made it."""
    digest = hashlib.sha256()
    for part in parts:
        value = dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else part
        digest.update(json.dumps(value, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def identity_of(function: Any) -> Any:
    """What a function or object says that it is: its attribute ``identity``, as plain values; None if it says nothing.

    Nothing is guessed from its name or its source: closures of one source with other values do other things.

    >>> def plus(rows):
    ...     return [[1.0] * len(row.response_ids) for row in rows]
    >>> identity_of(plus)
    >>> plus.identity = "a reward of 1 on every token, version 1"
    >>> identity_of(plus)
    'a reward of 1 on every token, version 1'
    """
    found = getattr(function, "identity", None)
    return dataclasses.asdict(found) if dataclasses.is_dataclass(found) and not isinstance(found, type) else found


def named(functions: Mapping[str, Any]) -> tuple[list[Any], tuple[str, ...]]:
    """The identities of functions by what they are for, and which have none.

    One without has a name in the fingerprint that no other run has.
    """
    found = {name: identity_of(function) for name, function in functions.items()}
    unnamed = tuple(name for name, identity in found.items() if identity is None)
    return [secrets.token_hex(8) if each is None else each for each in found.values()], unnamed
