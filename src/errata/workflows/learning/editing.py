"""Fresh drafts of both models before an editor, and before a judge: neither learns whose they are.

What was edited or judged is kept in a folder of its own for each editor, so that one can be added to a finished run,
and what two of them said is never mixed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from errata.client import Limits as ClientLimits
from errata.client import check_chat, open_chat
from errata.data.rows import read_lines, write_lines
from errata.edits import Draft, LLMEditorConfig, edit_drafts
from errata.types import Correction, Rollout
from errata.winrate import ChatJudge, Pair
from errata.winrate.intervals import rate_interval
from errata.workflows.anew import Anew, blind, by_function, edited_anew, editor_function
from errata.workflows.learning.context import Run, first_by_lot
from errata.workflows.learning.settings import Waiting
from errata.workflows.measure import compare
from errata.workflows.verdict import AnewCompared, JudgedPairs

PEOPLE = "people"


def edited_by_editor(run: Run, arm: str) -> AnewCompared | None:
    """What the editor of ``--editor`` still changes in drafts of the old model and of ``arm``; None without one.

    Raises:
        Waiting: people are not done.
        ValueError: the editor is none, or does wrong; the message names it, and the row.
    """
    if run.editor is None:
        return None
    edit, identity = _editor(run, run.editor)
    rows = first_by_lot(run.rows("heldout"), run.details.editor_rows)
    fresh = _fresh(run, arm, rows)
    folder = f"edited-{arm}-{_short(identity, _guideline(run), [[one.text for one in side] for side in fresh])}"

    def drafts(path: Path) -> None:
        found = blind({"old": fresh[0], "new": fresh[1]}, seed=run.details.seed)
        shown = ({"id": one.id, "prompt": one.prompt, "response": one.draft} for one in found)
        write_lines(path.with_name("drafts.jsonl"), shown)
        write_lines(path, map(asdict, found))

    run.made(f"{folder}/key.jsonl", "drafts of both models for the editor", drafts, f"{folder}/drafts.jsonl")
    blinded = [Anew(**json.loads(line)) for _, line in read_lines(run.out / folder / "key.jsonl")]

    def edits(path: Path) -> None:
        found = edit(blinded, path.parent)
        write_lines(path, ({"id": one.id, "text": found.get(one.id)} for one in blinded))
        (path.parent / _BEGUN).unlink(missing_ok=True)

    who = "people edit" if run.editor == PEOPLE else f"{run.editor} edits"
    run.made(f"{folder}/edits.jsonl", f"{who} {len(blinded):,} drafts", edits)
    texts = [json.loads(line) for _, line in read_lines(run.out / folder / "edits.jsonl")]
    found = edited_anew(blinded, {one["id"]: one["text"] for one in texts})
    if len(found.rows) < 2:
        raise ValueError(f"--editor {run.editor} edited both drafts of {len(found.rows)} rows only; two are the fewest")
    by_id = {row.id: row for row in rows}
    words = compare(found.words["new"], found.words["old"], **run.whose([by_id[id] for id in found.rows]))
    return AnewCompared(
        editor=_named(run.editor),
        old=sum(found.words["old"]) / len(found.rows),
        new=sum(found.words["new"]) / len(found.rows),
        words=words,
        unedited=found.unedited,
        rewritten=found.rewritten,
        drafts=len(blinded),
    )


def judged_by_judge(run: Run, arm: str) -> JudgedPairs | None:
    """Which drafts the chat model of ``--judge`` prefers, asked in both orders; None without one.

    Raises:
        ValueError: as ``open_chat``; or there is no valid word of it.
    """
    spec = run.details.judge
    if spec is None:
        return None
    rows = first_by_lot(run.rows("heldout"), run.details.editor_rows)
    old, new = _fresh(run, arm, rows)
    guideline = _guideline(run)
    name = f"judged-{arm}-{_short(spec, guideline, [[one.text for one in side] for side in (old, new)])}"

    def rule(path: Path) -> None:
        chat = open_chat(spec, ledger=run.out / "ledger.sqlite", limits=_limits(run))
        pairs = [
            Pair(id=row.id, prompt=row.prompt, candidate=one.text, baseline=other.text, arm=arm)
            for row, one, other in zip(rows, new, old, strict=True)
        ]
        rulings = ChatJudge(chat, name=spec, guideline=guideline)(pairs)
        write_lines(path, ({"id": row.id, **asdict(one)} for row, one in zip(rows, rulings, strict=True)))

    run.made(f"{name}.jsonl", f"{spec} judges {len(rows):,} pairs of drafts", rule)
    rulings = [json.loads(line) for _, line in read_lines(run.out / f"{name}.jsonl")]
    valid = [one["score"] for one in rulings if one["valid"]]
    if not valid:
        raise ValueError(
            f"--judge {spec} gave no valid word on any of {len(rulings)} pairs ({rulings[0]['reasons'][0]}); look at "
            f"{run.out / f'{name}.jsonl'}, delete it and give another judge, or leave --judge out"
        )
    rate = rate_interval(valid)
    return JudgedPairs(
        judge=spec, pairs=len(valid), invalid=len(rulings) - len(valid), rate=rate.mean, low=rate.low, high=rate.high
    )


_BEGUN = "begun.jsonl"
"""What a function has edited so far, in the folder of its edits until all is done."""
_Edit = Callable[[Sequence[Anew], Path], Mapping[str, str | None]]
"""Drafts, and the folder of their files, to what was made of each, by its name."""


def check_editor(run: Run) -> None:
    """Whether there is such an editor and such a judge, before hours of training.

    Raises:
        ValueError: there is none, or it cannot be asked; the flag is named, and what to do.
    """
    if run.editor is not None:
        _editor(run, run.editor)
    if run.editor == PEOPLE:
        _page()
    if run.details.judge is not None and not is_chat(run.details.judge):
        raise ValueError(
            f"--judge {run.details.judge} names no chat model; give anthropic:MODEL, openai:MODEL, MODEL@URL, URL or "
            "local:MODEL"
        )
    _guideline(run)
    if (run.out / "candidates").exists():
        return  # something was trained; all that they said may be there already
    for flag, spec in (("--editor", run.editor), ("--judge", run.details.judge)):
        if spec is None or not is_chat(spec):
            continue
        try:
            check_chat(spec, limits=_limits(run))
        except ValueError as error:
            raise ValueError(
                f"{flag} {spec} cannot be asked: {error}. Nothing was trained yet; put it right, or leave {flag} out, "
                "which can be given to the finished run"
            ) from error


def is_chat(spec: str) -> bool:
    """Whether ``open_chat`` would take it for a chat model."""
    return spec.startswith(("anthropic:", "openai:", "local:")) or "://" in spec


def _editor(run: Run, spec: str) -> tuple[_Edit, str]:
    """The editor, and what tells it from others."""
    if spec == PEOPLE:
        return lambda drafts, folder: _by_people(run, drafts, folder), spec
    if is_chat(spec):
        return lambda drafts, _: _by_chat(run, spec, drafts), spec
    function, identity = editor_function(spec)
    return lambda drafts, folder: by_function(drafts, function, begun=folder / _BEGUN, told=run.progress), identity


def _by_chat(run: Run, spec: str, drafts: Sequence[Anew]) -> dict[str, str | None]:
    """A chat model that corrects; whatever it changes counts, so that nothing is set aside for being much."""
    chat = open_chat(spec, ledger=run.out / "ledger.sqlite", limits=_limits(run))
    config = LLMEditorConfig(max_edit_ratio=1.0, max_growth=1e6)
    asked = [Draft(id=one.id, prompt=one.prompt, response=one.draft) for one in drafts]
    found = edit_drafts(chat, asked, config, guideline=_guideline(run))
    run.say(str(found.report))
    return {row.id: row.edited for row in found.corrections}


def _by_people(run: Run, drafts: Sequence[Anew], folder: Path) -> dict[str, str | None]:
    """What people submitted on the edit page. Raises Waiting until each draft was submitted once."""
    database = folder / "page.db"
    told = shlex.join(["errata", "edits", "page", "--db", str(database), "--data", str(folder / "drafts.jsonl")])
    if not database.exists():
        raise Waiting(f"{len(drafts):,} drafts of both models wait for people, who do not see whose they are", told)
    _page()
    from sqlalchemy import select

    from errata.page.export import final_edits
    from errata.page.store import Item, Store, Task

    with closing(Store(f"sqlite:///{database}")) as store:
        with store.read() as session:
            done = set(
                session.scalars(select(Item.id).join(Task, Task.item == Item.number).where(Task.outcome.is_not(None)))
            )
        missing = [one.id for one in drafts if one.id not in done]
        if missing:
            raise Waiting(f"{len(missing):,} of {len(drafts):,} drafts are not edited yet", told)
        found: dict[str, str | None] = {}
        for row in final_edits(store):
            found.setdefault(str(row.extra["item"]), row.edited)
    return found


def _page() -> None:
    """Raise ValueError where what the edit page needs is not installed."""
    try:
        import_module("errata.page.serve")
    except ImportError as error:
        raise ValueError(f"the edit page needs more packages ({error}): pip install 'errata[page]'") from error


def _fresh(run: Run, arm: str, rows: Sequence[Correction]) -> tuple[list[Rollout], list[Rollout]]:
    """Greedy drafts of the old model and of ``arm``."""
    ids = [row.id for row in rows]
    return run.drafts("old.greedy", ids), run.drafts(f"{arm}.greedy", ids)


def _guideline(run: Run) -> str:
    path = run.details.guideline
    return "" if path is None else path.read_text(encoding="utf-8")


def _limits(run: Run) -> ClientLimits:
    return ClientLimits(max_cost=run.details.max_cost)


def _named(spec: str) -> str:
    """An editor's name for a sentence."""
    if spec == PEOPLE:
        return PEOPLE
    return spec if is_chat(spec) else f"the editor {spec.rpartition(':')[2]}"


def _short(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
