"""The type checker of the shape hook: beartype, which compiles what it checks once for each function in the source.

A function inside another is made, hence decorated, at every call of the outer one; its signature is the same each time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# The numeric tower, because an int is a float to mypy: `discount=1` must pass here too.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_checked: dict[tuple[Any, ...], Callable[..., Any]] = {}


def checked(function: Any) -> Any:
    """``function`` with its arguments and its result checked.

    Of a function jaxtyping hands in an empty one of the same signature, which knows nothing of what is around it.
    """
    if inspect.isclass(function) or "<locals>" not in function.__qualname__:
        return _beartype(function)
    signature = inspect.signature(function)
    hints = tuple((name, id(one.annotation), repr(one)) for name, one in signature.parameters.items())
    key = (function.__module__, function.__qualname__, hints, id(signature.return_annotation))
    if key not in _checked:
        _checked[key] = _beartype(function)
    return _checked[key]
