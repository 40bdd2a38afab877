"""What an LLM editor is asked: one response, what it answered, and how to reply. The texts are files in ``prompts/``.

The response to edit is data, and may be hostile: it stands between tags whose mark occurs in none of the texts, so that
nothing in it can close them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from errata.types import Prompt

__all__ = ["PROMPT_VERSION", "REASONS", "Draft", "Material", "prompt_id", "read_material", "request", "retry", "schema"]

PROMPT_VERSION = "edit-1"
"""Of the files in ``prompts/``; a change of meaning is a new version."""

REASONS = ("wrong", "unsafe", "missing", "style", "instruction")
"""The tags that an editor gives its changes."""

_PROMPTS = Path(__file__).parent / "prompts"
_FILES = ("system.j2", "task.j2", "retry.j2")

Message = Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A response to fix."""

    id: str
    prompt: Prompt
    response: str
    reference: str | None = None
    """A good answer that the editor may take facts from: FIGA's y, or the preferred response of a pair."""
    response_ids: tuple[int, ...] | None = None
    """As the model sampled them, where they are known."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields that travel with the row."""


class Material(NamedTuple):
    """What stands in a request."""

    prompt: Prompt
    response: str
    reference: str | None


def request(draft: Draft, *, guideline: str = "", tags: Sequence[str] = REASONS) -> tuple[Message, ...]:
    """The messages that ask for an edit of ``draft``; the same draft gives the same messages.

    >>> system, task = request(Draft(id="a", prompt="When?", response="At nine.", reference="At ten."))
    >>> print(task["content"])
    <prompt-be83c7c8>
    When?
    </prompt-be83c7c8>
    <BLANKLINE>
    A good answer to the same prompt, to take facts from. The response need not become like it:
    <reference-be83c7c8>
    At ten.
    </reference-be83c7c8>
    <BLANKLINE>
    The response to edit:
    <response-be83c7c8>
    At nine.
    </response-be83c7c8>
    """
    texts = json.dumps([_plain(draft.prompt), draft.response, draft.reference])
    mark, salt = "", 0
    while not mark or mark in texts:  # the text of a draft can hold no mark but by chance, and then gets another
        mark = hashlib.sha256(f"{salt} {texts}".encode()).hexdigest()[:8]
        salt += 1
    task = _render("task.j2", mark=mark, prompt=draft.prompt, response=draft.response, reference=draft.reference)
    system = _render("system.j2", guideline=guideline.strip(), tags=tags)
    return {"role": "system", "content": system}, {"role": "user", "content": task}


def retry(messages: Sequence[Message], answer: str, why: str) -> tuple[Message, ...]:
    """The messages that ask once more, and say why.

    Args:
        messages: of ``request``.
        answer: what came back; empty where it is of no use, and then the note stands under the task.
        why: half a sentence, such as "it changes 9 of 10 words".
    """
    system, task = messages
    note = _render("retry.j2", why=why)
    if answer.strip():
        return system, task, {"role": "assistant", "content": answer}, {"role": "user", "content": note}
    return system, {"role": "user", "content": f"{task['content']}\n\n{note}"}


def read_material(messages: Sequence[Message]) -> Material:
    """The inverse of ``request``: for an editor that is a function of its own, and no language model."""
    text = messages[1]["content"]
    found = re.match(r"<(?:prompt|message)-(\w{8})", text)
    assert found, "no request of this module"
    mark = found[1]

    def between(name: str) -> list[tuple[str, str]]:
        return re.findall(rf"<{name}-{mark}([^>]*)>\n(.*?)\n</{name}-{mark}>", text, re.DOTALL)

    plain, reference = between("prompt"), between("reference")
    turns = re.findall(rf"<message-{mark} role=(\".*?\")>\n(.*?)\n</message-{mark}>", text, re.DOTALL)
    prompt: Prompt = plain[0][1] if plain else [{"role": json.loads(role), "content": said} for role, said in turns]
    return Material(prompt, between("response")[0][1], reference[0][1] if reference else None)


def schema(tags: Sequence[str] = REASONS) -> dict[str, Any]:
    """The JSON schema of a reply: every field required and none beside them, as strict servers want it."""
    fields = {
        "why": {"type": "string"},
        "verdict": {"type": "string", "enum": ["keep", "edit", "cannot"]},
        "reasons": {"type": "array", "items": {"type": "string", "enum": list(tags)}},
        "text": {"type": "string"},
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


@cache
def prompt_id(guideline: str = "", tags: tuple[str, ...] = REASONS) -> str:
    """The version of the prompts and a hash of their files, the guideline and the tags; it stands in each row."""
    parts = [(_PROMPTS / name).read_text(encoding="utf-8") for name in _FILES]
    digest = hashlib.sha256(json.dumps([*parts, guideline.strip(), tags]).encode()).hexdigest()
    return f"{PROMPT_VERSION} {digest[:12]}"


def _plain(prompt: Prompt) -> Any:
    return prompt if isinstance(prompt, str) else [[message["role"], message["content"]] for message in prompt]


@cache
def _environment() -> Environment:
    # Not HTML: escaping would change the text to edit.
    return Environment(
        loader=FileSystemLoader(_PROMPTS),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )


def _render(name: str, **values: object) -> str:
    return _environment().get_template(name).render(**values)
