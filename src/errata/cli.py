"""``errata``: an overview of the verbs, and the way to them; what each verb takes and does is in ``commands/``.

``--config file.yaml`` stands under the command line: its keys become flags that are read first, so an unknown key is an
error and what is typed wins. ``--preset paper`` stands under both.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes as long to import as all of this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main", "script"]

PIPE_CLOSED = 141
"""The exit code where nobody reads on, as in `errata --help | head`: what a shell makes of SIGPIPE."""

OVERVIEW = """\
errata aligns a language model from the corrections that people make to its answers.

  errata demo            the whole road on an embedded world: corrections in, better models and a report out
  errata learn           a log of drafts and what was sent → a better model with proof, or a refusal with reasons

  errata edits diff      what an edit changes, word by word; two texts or a file of corrections
  errata edits import    any file of corrections → edits.jsonl, with statistics and the bad rows set aside
  errata edits llm       a language model corrects responses; what it wrote is checked, or set aside with the reason
  errata edits stats     how much was edited, what, where and why; duplicates; what the model could not have known
  errata edits filter    the corrections worth training on; the others are set aside with the reason
  errata edits page      people correct responses in a browser; nothing that they type is lost
  errata edits export    what they made, as edits; every revision, too
  errata labels          edits → one label for every token of a model's tokenizer
  errata doctor          what will the loss really see? rows, labels, weights and batches, before you train
  errata reward train    labels or pairs → a token-level or sequence-level reward model
  errata reward score    responses → rewards, one a token
  errata reward eval     is the reward model right? accuracy on pairs, AUC on tokens
  errata tune sft        imitate the corrected responses
  errata tune figa       imitate what was written, unlearn what was struck out (no reward model needed)
  errata tune dpo        prefer the corrected to the original, as a whole
  errata tune ppo        fine-grained PPO on a reward model
  errata generate        a model's answers to a file of prompts, to be judged or edited; resumes
  errata winrate         models or files of responses against a baseline: references, an LLM, people or a reward judge
  errata view            labelled edits as coloured tokens, in the terminal or as one HTML file
  errata client check    what a server of chat models honours of a request, and what it ignores
  errata client costs    what the requests in a ledger have cost

`errata VERB --help` says what a verb takes. New here? `errata demo`, then `errata tune figa --help`.
Exit codes: 0 done, 1 the input was wrong, 2 the command line was, 130 stopped; `doctor`, `learn` and `winrate` have
further ones, which their --help says.
"""


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
        print(OVERVIEW)
        return 0
    if arguments[0] == "--version":
        from errata import __version__

        print(__version__)
        return 0
    verbs = [
        line.split("  ")[1].removeprefix("errata ").strip() for line in OVERVIEW.splitlines() if "  errata " in line
    ]
    verb = next((v for v in verbs if arguments[: len(v.split())] == v.split()), None)
    if verb is None and arguments[0] == "tune" and len(arguments) > 1 and not arguments[1].startswith("-"):
        from errata.tuning import methods  # one that the overview does not list

        verb = next((f"tune {method.name}" for method in methods() if method.name == arguments[1]), None)
    if verb is None and arguments[-1] in ("-h", "--help"):
        family = [line for line in OVERVIEW.splitlines() if line.startswith(f"  errata {arguments[0]} ")]
        if family:
            print("\n".join(family))
            return 0
    if verb is None:
        return _unknown_verb(arguments, verbs)
    from errata import commands  # the overview needs none of it

    try:
        command = commands.parse(verb, arguments[len(verb.split()) :])
        return commands.run(command)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        print(f"errata: {error}", file=sys.stderr)
        return 1


def _unknown_verb(arguments: Sequence[str], verbs: Sequence[str]) -> int:
    import difflib

    typed = " ".join(arguments[:2]) if any(v.startswith(f"{arguments[0]} ") for v in verbs) else arguments[0]
    family = [v for v in verbs if v.split()[0] == arguments[0]]
    near = family or difflib.get_close_matches(typed, verbs, n=3) or verbs
    print(f"errata: no verb {typed!r}; did you mean: {', '.join(near)}?", file=sys.stderr)
    return 2
