"""Fresh drafts of two models, corrected anew by one editor: what it changes is what people would still change.

The editor is a program, a chat model or people; it never learns which model wrote a draft.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errata.edits import edit_ratio, word_distance
from errata.types import Prompt, Rollout

__all__ = ["Anew", "DraftEditor", "EditedAnew", "blind", "by_function", "edited_anew", "editor_function"]

DraftEditor = Callable[[Prompt, str], str | None]
"""A draft's prompt and text to what the editor would send; None where it cannot say."""

REWRITTEN = 0.8
"""The edit ratio from which on a draft counts as rewritten, not corrected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anew:
    """One fresh draft to be edited, by a name that does not tell the model."""

    id: str
    row: str
    model: str
    prompt: Prompt
    draft: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EditedAnew:
    """What one editor changed in the fresh drafts of several models, row by row."""

    rows: tuple[str, ...]
    """Ids of the rows whose drafts were all edited; the others are left out for every model."""
    words: Mapping[str, tuple[int, ...]]
    """By model, words changed in each of ``rows``."""
    unedited: int
    """Drafts that the editor gave nothing for."""
    rewritten: int
    """Drafts of which the editor changed most words: there it wrote its own, and its words say little of the draft."""


def blind(drafts: Mapping[str, Sequence[Rollout]], *, seed: int = 0) -> list[Anew]:
    """The drafts of all models in random order, under names that do not tell whose they are.

    Args:
        drafts: by model; the same rows for each.
        seed: of the order and the names.
    """
    found = [
        Anew(id="", row=one.id, model=model, prompt=one.prompt, draft=one.text)
        for model, part in drafts.items()
        for one in part
    ]
    random.Random(seed).shuffle(found)
    return [
        Anew(id=f"draft-{k + 1:04}", row=one.row, model=one.model, prompt=one.prompt, draft=one.draft)
        for k, one in enumerate(found)
    ]


def edited_anew(drafts: Sequence[Anew], edited: Mapping[str, str | None]) -> EditedAnew:
    """Count the words that were changed.

    Args:
        drafts: of ``blind``.
        edited: by name, what the editor made of each draft; None or left out where there is nothing.

    Raises:
        ValueError: no row has all its drafts edited.
    """
    costs: dict[str, dict[str, int]] = {}
    unedited = rewritten = 0
    for one in drafts:
        text = edited.get(one.id)
        if text is None:
            unedited += 1
            continue
        rewritten += edit_ratio(one.draft, text) >= REWRITTEN and bool(one.draft.strip())
        costs.setdefault(one.row, {})[one.model] = word_distance(one.draft, text)
    models = list(dict.fromkeys(one.model for one in drafts))
    rows = tuple(row for row in dict.fromkeys(one.row for one in drafts) if len(costs.get(row, {})) == len(models))
    if not rows:
        raise ValueError(
            f"the editor gave nothing for {unedited} of {len(drafts)} drafts, and no row has all its drafts edited; "
            "look at what it returns, or leave --editor out"
        )
    words = {model: tuple(costs[row][model] for row in rows) for model in models}
    return EditedAnew(rows=rows, words=words, unedited=unedited, rewritten=rewritten)


def by_function(
    drafts: Sequence[Anew],
    edit: DraftEditor,
    *,
    begun: Path | None = None,
    told: Callable[[int, int], object] | None = None,
) -> dict[str, str | None]:
    """What a function makes of the drafts, by name.

    Args:
        drafts: of ``blind``.
        edit: the function.
        begun: a file for what it made so far; when it has failed, or was killed, only the rest is asked for.
        told: is told how many drafts are done, and of how many.

    Raises:
        ValueError: it raises, or returns something else than a text or None; the message names the draft.
    """
    found = {} if begun is None else _begun(begun)
    for done, one in enumerate(drafts, start=1):
        if one.id in found:
            continue
        try:
            text: Any = edit(one.prompt, one.draft)
        except (Exception, SystemExit) as error:  # whatever a user's function raises, the draft has to be named
            kept = f"; {len(found):,} of {len(drafts):,} drafts are edited and kept" if begun is not None else ""
            raise ValueError(f"the editor failed at row {one.row!r}: {type(error).__name__}: {error}{kept}") from error
        if text is not None and not isinstance(text, str):
            raise ValueError(
                f"the editor returned {type(text).__name__} for row {one.row!r}; return the corrected text, or None"
            )
        found[one.id] = text
        if begun is not None:
            with begun.open("a", encoding="ascii") as file:
                file.write(json.dumps({"id": one.id, "text": text}) + "\n")
        if told is not None:
            told(done, len(drafts))
    return found


def _begun(path: Path) -> dict[str, str | None]:
    """What was written down before; of a line that was cut, and what may follow on it, nothing."""
    found: dict[str, str | None] = {}
    whole = path.read_bytes() if path.exists() else b""
    lines = whole.splitlines(keepends=True)
    for line in lines:
        try:
            row = json.loads(line) if line.endswith(b"\n") else {}
            found[str(row["id"])] = row["text"]
        except (ValueError, LookupError, TypeError):
            break
    if len(found) < len(lines):
        path.write_bytes(b"".join(lines[: len(found)]))
    return found


def editor_function(spec: str) -> tuple[DraftEditor, str]:
    """The function that ``module:function`` or ``path/to/file.py:function`` names, and an identity of its source.

    The function is called with a prompt and a draft, and returns the corrected text or None. The identity is a digest
    of the file that it stands in: whoever changes the file gets another result, and a run must not mix the two.

    Raises:
        ValueError: there is no such module or function.
    """
    where, _, name = spec.rpartition(":")
    try:
        if where.endswith(".py"):
            found = importlib.util.spec_from_file_location(Path(where).stem, where)
            if found is None or found.loader is None or not Path(where).exists():
                raise ImportError(f"there is no file {where}")
            module = importlib.util.module_from_spec(found)
            sys.modules.setdefault(found.name, module)
            found.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
        function = getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        file = f"{where.replace('.', '/')}.py"
        there = f"give {file}:{name}" if Path(file).is_file() else "give module:function or path/to/file.py:function"
        raise ValueError(f"--editor {spec} names no function ({error}); {there}") from error
    except (Exception, SystemExit) as error:  # whatever a user's file does when it is read
        raise ValueError(f"--editor {spec}: {where} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"--editor {spec} is no function; give one that takes a prompt and a draft")
    source = Path(module.__file__ or "")
    digest = hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else "built in"
    return function, f"{name}@{digest}"
