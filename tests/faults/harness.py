"""Running a verb on a damaged input, and what is right to come of it.

A damaged input either ends with a documented exit code and an error that names it, and leaves nothing half written, or
the verb ends with 0 and with what the undamaged input gives (or with what it said that it left out).
"""

from __future__ import annotations

import contextlib
import io
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from errata.cli import main

__all__ = ["CODES", "Fault", "Ran", "chunks", "damaged", "judge", "run"]

CODES = (0, 1, 2, 3, 4, 5, 6)
"""What ``main`` says that it returns, without 130, of a signal. ``commands.run`` lets a verb end with its own alone."""
UNTOLD = ("Traceback", "Errno", "object has no attribute", "NoneType", "list index out of range", "codec can't decode")
"""Words of Python's own, which tell a user nothing of what to do: no error is made of them alone."""


LONGEST = 10.0
"""Seconds of CPU for one damaged input: tens of milliseconds are usual."""


class Fault(AssertionError):  # noqa: N818
    """A verb that takes a damaged input in silence, breaks on it, or does not say what is damaged."""


class Ran(NamedTuple):
    """How a verb ended."""

    code: int | None
    """None: an exception came out of it."""
    out: str
    err: str
    raised: BaseException | None = None


def run(arguments: Sequence[str | Path], verb: Callable[[list[str]], int] = main) -> Ran:
    """The verb in this process; nothing comes out of it but this."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about files that we damaged; what errata says it prints
        try:
            code, raised = verb([str(each) for each in arguments]), None
        except SystemExit as error:
            code, raised = error.code if isinstance(error.code, int) else None, error
        except Exception as error:
            code, raised = None, error
    return Ran(code, out.getvalue(), err.getvalue(), None if code is not None else raised)


def judge(ran: Ran, *, names: Iterable[str], left: Iterable[Path] = (), right: Callable[[Ran], str | None]) -> None:
    """Hold how a verb ended against the rule.

    Args:
        ran: how it ended.
        names: an error says one of these: the damaged file, or what else is damaged.
        left: what an error must not leave.
        right: of a verb that ended with 0, what is wrong with what it made; None if it is right.

    Raises:
        Fault: the rule is broken; says how.
    """
    if ran.raised is not None or ran.code not in CODES:
        raise Fault(f"traceback: {ran.raised!r}") from ran.raised
    if "Traceback" in ran.err + ran.out:
        raise Fault(f"traceback: {ran.err[-600:]}")
    if ran.code == 0:
        if wrong := right(ran):
            raise Fault(f"silent success: {wrong}\n{ran.out[-600:]}{ran.err[-600:]}")
        return
    said = ran.err + (ran.out if ran.code > 1 else "")
    told = next((line for line in ran.err.splitlines() if line.startswith("errata: ")), None)
    if ran.code == 1 and told is None:
        raise Fault(f"no error is told: {said[-600:]}")
    if not any(name in said for name in names):
        raise Fault(f"the error names nothing of {sorted(names)}: {said[-600:]}")
    if told is not None and (words := [each for each in UNTOLD if told.startswith(f"errata: {each}")]):
        raise Fault(f"an error in Python's words {words}: {told}")
    if there := [path for path in left if path.exists()]:
        raise Fault(f"the error left {', '.join(map(str, there))}")


def chunks(count: int, size: int) -> Iterator[range]:
    """The numbers of inputs, in parts that are tests of their own."""
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def damaged(family: str, numbers: Iterable[int], one: Callable[[random.Random, int], None]) -> None:
    """Every input of a part, each from a seed that its family and number make; all that are wrong are told.

    Raises:
        Fault: one of them is; ``one(random.Random("FAMILY NUMBER"), NUMBER)`` makes it again.
    """
    faults = []
    for number in numbers:
        began = time.process_time()
        try:
            one(random.Random(f"{family} {number}"), number)
        except Fault as fault:
            faults.append(f"{family} {number}: {fault}")
        if (took := time.process_time() - began) > LONGEST:
            faults.append(f"{family} {number}: it takes {took:.0f} s of CPU")
    if faults:
        raise Fault(f"{len(faults)} faults\n" + "\n".join(faults))
