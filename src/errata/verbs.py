"""The verbs: what each is for and where it is. Nothing is imported for it that takes time."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes as long to import as all of this module
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VERBS", "methods", "overview", "verbs"]

VERBS: Mapping[str, tuple[str, str]] = {
    "demo": ("demo:Demo", "the whole road on an embedded world: corrections in, better models and a report out"),
    "learn": (
        "learn:Learn",
        "a log of drafts and what was sent → a better model with proof, or a refusal with reasons",
    ),
    "edits diff": ("edits:EditsDiff", "what an edit changes, word by word; two texts or a file of corrections"),
    "edits import": (
        "edits:EditsImport",
        "any file of corrections → edits.jsonl, with statistics and the bad rows set aside",
    ),
    "edits llm": (
        "editor:EditsLLM",
        "a language model corrects responses; what it wrote is checked, or set aside with the reason",
    ),
    "edits stats": (
        "curation:EditsStats",
        "how much was edited, what, where and why; duplicates; what the model could not have known",
    ),
    "edits filter": (
        "curation:EditsFilter",
        "the corrections worth training on; the others are set aside with the reason",
    ),
    "edits page": ("page:EditsPage", "people correct responses in a browser; nothing that they type is lost"),
    "edits export": ("page:EditsExport", "what they made, as edits; every revision, too"),
    "labels": ("labels:Labels", "edits → one label for every token of a model's tokenizer"),
    "doctor": (
        "doctor:Doctor",
        "what will the loss really see? rows, labels, weights and batches, before you train",
    ),
    "reward train": ("reward:RewardTrain", "labels or pairs → a token-level or sequence-level reward model"),
    "reward score": ("reward:RewardScore", "responses → rewards, one a token"),
    "reward eval": ("reward:RewardEval", "is the reward model right? accuracy on pairs, AUC on tokens"),
    "tune ppo": ("tune:TunePPO", "fine-grained PPO on a reward model"),
    "generate": ("winrate:Generate", "a model's answers to a file of prompts, to be judged or edited; resumes"),
    "winrate": (
        "winrate:WinRate",
        "models or files of responses against a baseline: references, an LLM, people or a reward judge",
    ),
    "view": ("labels:View", "labelled edits as coloured tokens, in the terminal or as one HTML file"),
    "client check": ("client:ClientCheck", "what a server of chat models honours of a request, and what it ignores"),
    "client costs": ("client:ClientCosts", "what the requests in a ledger have cost"),
}
"""Module and name below ``errata.commands``, and a line of the overview; without the methods on files."""


def methods() -> dict[str, str]:
    """The summaries of ``errata.tuning.METHODS`` by name; where torch was not imported yet, read from the sources."""
    if loaded := sys.modules.get("errata.tuning"):
        return {method.name: method.summary for method in loaded.methods()}
    if not _READ:
        _READ.update(_read())
    return dict(_READ)


_READ: dict[str, str] = {}
"""What ``_read`` found; a start of the program asks several times."""


def _read() -> dict[str, str]:
    import ast
    from pathlib import Path

    assigned = {
        ast.unparse(target): node.value
        for path in Path(__file__).with_name("tuning").glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }
    objects = [assigned[ast.unparse(name)] for name in assigned["METHODS"].elts]  # type: ignore[union-attr]
    said = [{each.arg: each.value for each in call.keywords} for call in objects]  # type: ignore[union-attr]
    return {ast.literal_eval(each["name"]): ast.literal_eval(each["summary"]) for each in said}


def verbs() -> dict[str, tuple[str, str]]:
    """``VERBS`` with a verb for each method on files."""
    tuned = {f"tune {name}": (f"tune:Tune{name.upper()}", summary) for name, summary in methods().items()}
    return {
        verb: said
        for each in VERBS
        for verb, said in [*(tuned.items() if each == "tune ppo" else ()), (each, VERBS[each])]
    }


def overview() -> str:
    """What ``errata`` alone prints."""
    lines = [f"  errata {verb:14}  {summary}\n" for verb, (_, summary) in verbs().items()]
    return f"""\
errata aligns a language model from the corrections that people make to its answers.

{"".join(lines[:2])}
{"".join(lines[2:])}
`errata VERB --help` says what a verb takes. New here? `errata demo`, then `errata tune figa --help`.
Exit codes: 0 done, 1 the input was wrong, 2 the command line was, 130 stopped; `doctor`, `learn` and `winrate` have
further ones, which their --help says.
"""
