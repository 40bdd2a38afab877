"""``errata``: an overview of the verbs, and the way to them; what each verb takes and does is in ``commands/``.

``--config file.yaml`` stands under the command line: its keys become flags that are read first, so an unknown key is an
error and what is typed wins. ``--preset paper`` stands under both.
"""

from __future__ import annotations

import sys

from errata.verbs import overview, verbs

TYPE_CHECKING = False  # typing takes as long to import as all of this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main", "script"]

PIPE_CLOSED = 141
"""The exit code where nobody reads on, as in `errata --help | head`: what a shell makes of SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code.

    0 done, 1 the input was wrong, 2 the command line was, 3 not safe to train (`errata doctor`,
    `errata learn`), 4 the new model was refused (`errata learn`), 5 no valid verdict (`errata winrate`),
    6 people have to edit drafts first (`errata learn`), 130 stopped, 141 nobody reads what is printed.
    """
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        # Before a verb began; one that has begun says itself what becomes of its work.
        print("\nerrata: stopped; nothing was written, rerun the same command", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return PIPE_CLOSED


def script() -> NoReturn:
    """The program ``errata``: ``main`` on its command line, and the end of the process."""
    try:
        try:
            code = main()
        except SystemExit as stop:  # of --help, and of a command line that is none
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        sys.stdout.flush()
    except BrokenPipeError:
        code = PIPE_CLOSED
    if code == PIPE_CLOSED:
        import os

        # Else the interpreter, which flushes once more at its end, would tell of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if "torch" not in sys.modules:
        sys.exit(code)
    from errata.runs.leaving import leave

    leave(code)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        from errata import __version__

        print(__version__)
        return 0
    known = list(verbs())
    verb = next((v for v in known if arguments[: len(v.split())] == v.split()), None)
    if verb is None and arguments[-1] in ("-h", "--help"):
        family = [line for line in overview().splitlines() if line.startswith(f"  errata {arguments[0]} ")]
        if family:
            print("\n".join(family))
            return 0
    if verb is None:
        return _unknown_verb(arguments, known)
    from errata import commands  # the overview needs none of it

    try:
        command = commands.parse(verb, arguments[len(verb.split()) :])
        return commands.run(command)
    except BrokenPipeError:  # an OSError, and no wrong input
        raise
    except (ValueError, OSError) as error:
        print(f"errata: {error}", file=sys.stderr)
        return 1


def _unknown_verb(arguments: Sequence[str], known: Sequence[str]) -> int:
    import difflib

    typed = " ".join(arguments[:2]) if any(v.startswith(f"{arguments[0]} ") for v in known) else arguments[0]
    family = [v for v in known if v.split()[0] == arguments[0]]
    near = family or difflib.get_close_matches(typed, known, n=3) or known
    print(f"errata: no verb {typed!r}; did you mean: {', '.join(near)}?", file=sys.stderr)
    return 2
