"""Which column is what: errata's own names in any spelling, other well-known names, and what somebody said.

Two columns that could both be meant are an error that lists them: nothing is guessed.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from errata.data.fields import Fields, is_conversation
from errata.data.sniff import name_key

if TYPE_CHECKING:
    from errata.data.formats import Format

__all__ = [
    "AFTER",
    "BEFORE",
    "OWN_NAMES",
    "PROMPT",
    "TEXT_PAIRS",
    "WELL_KNOWN",
    "EmptyTexts",
    "Kind",
    "Reading",
    "check_columns",
    "columns_of",
    "naming",
    "only_one",
    "renamed",
    "with_messages",
]

EmptyTexts = Literal["skip", "keep"]
Kind = Literal["prompts", "demonstrations", "preferences", "corrections"]


class Reading(TypedDict, total=False):
    """What is said of a file that its name and its first rows do not say."""

    columns: Mapping[str, str] | None
    """errata's name of a column → its name in the file; ``data.draft`` is field ``draft`` inside of field ``data``."""
    encoding: str | None
    """Of a file of text, such as ``cp1252``."""
    delimiter: str | None
    """What stands between the cells of a table of text."""
    form: Format | None
    """The published format of corrections, where the first rows do not say it."""
    empty_texts: EmptyTexts
    """Whether rows are kept whose text is empty; by default they are skipped and counted."""


TEXT_PAIRS = (("rejected", "chosen"), ("original", "edited"), ("draft", "sent"))
"""Names of the text before and after, in errata's own rows."""

_SPELLED = (
    *("prompt", *(name for pair in TEXT_PAIRS for name in pair), "response", "completion", "messages", "id", "reason"),
    *(f"{name}_{what}" for what in ("ids", "weights") for pair in TEXT_PAIRS for name in pair),
)
OWN_NAMES = (*_SPELLED, "user", "time")
"""Names that errata reads; another spelling of one (``Prompt``, ``rejected ids``) is taken for it."""

PROMPT = frozenset(
    [
        "input",
        "question",
        "instruction",
        "query",
        "request",
        "user_input",
        "user_message",
        "user_prompt",
        "user_query",
        "customer_message",
        "customer_request",
        "inquiry",
        "prompt_text",
    ]
)
"""Other names of a prompt."""
BEFORE = frozenset(
    [
        "response",
        "completion",
        "output",
        "answer",
        "reply",
        "model_output",
        "model_response",
        "model_answer",
        "model_draft",
        "model_completion",
        "ai_draft",
        "ai_response",
        "ai_output",
        "ai_answer",
        "ai_reply",
        "ai_suggestion",
        "llm_output",
        "llm_response",
        "bot_response",
        "bot_reply",
        "assistant_response",
        "suggestion",
        "suggested_text",
        "suggested_reply",
        "suggested_response",
        "generated",
        "generated_text",
        "generated_response",
        "generation",
        "original_text",
        "original_response",
        "original_output",
        "draft_text",
        "draft_response",
        "before",
        "machine_translation",
        "mt",
    ]
)
"""Other names of a text before its edit."""
AFTER = frozenset(
    [
        "final",
        "final_text",
        "final_response",
        "final_answer",
        "final_output",
        "final_version",
        "corrected",
        "corrected_text",
        "corrected_response",
        "corrected_output",
        "corrected_answer",
        "correction",
        "edited_text",
        "edited_response",
        "edited_output",
        "edited_answer",
        "human_edit",
        "human_edited",
        "human_correction",
        "revised",
        "revised_text",
        "revised_response",
        "revised_output",
        "revision",
        "rewritten",
        "rewrite",
        "sent_text",
        "sent_message",
        "sent_reply",
        "after",
        "post_edit",
        "post_edited",
        "pe",
    ]
)
"""Other names of a text after its edit."""
_REJECTED = BEFORE | frozenset(["dispreferred", "non_preferred", "rejected_response", "loser", "worse"])
_CHOSEN = AFTER | frozenset(["preferred", "preferred_response", "chosen_response", "accepted", "winner", "better"])
_ANSWER = frozenset(
    [
        "output",
        "answer",
        "reply",
        "target",
        "model_output",
        "model_response",
        "model_answer",
        "assistant_response",
        "generated_text",
    ]
)

WELL_KNOWN = frozenset(OWN_NAMES) | PROMPT | _REJECTED | _CHOSEN
"""All of them, as ``name_key`` gives them."""

_FLAGS: Mapping[Kind, str] = {
    "prompts": "prompt=COLUMN",
    "demonstrations": "prompt=COLUMN response=COLUMN",
    "preferences": "prompt=COLUMN chosen=COLUMN rejected=COLUMN",
    "corrections": "prompt=COLUMN draft=COLUMN sent=COLUMN",
}


def check_columns(given: Mapping[str, str]) -> None:
    """Refuse a name that errata does not read, or one column for two.

    Raises:
        ValueError: says which is nearest.
    """
    for ours in given:
        if ours not in OWN_NAMES:
            near = difflib.get_close_matches(ours, OWN_NAMES, n=1, cutoff=0.0)[0]
            raise ValueError(f"--columns {ours}={given[ours]}: errata reads no {ours!r}; did you mean {near!r}?")
    for theirs in given.values():
        twice = [ours for ours, each in given.items() if each == theirs]
        if len(twice) > 1:
            raise ValueError(f"--columns: {theirs!r} is given for {' and for '.join(twice)}; give a column of its own")


def columns_of(kind: Kind, names: Sequence[str], given: Mapping[str, str], *, aliases: bool) -> dict[str, str]:
    """Errata's name → the column that has it under another: what was said, other spellings and well-known names.

    Args:
        kind: of the rows.
        names: of the columns.
        given: what was said.
        aliases: whether well-known other names are looked at, besides spellings.

    Raises:
        ValueError: two columns could be meant.
    """
    found = dict(given)
    free = [name for name in names if name not in given.values()]
    for own in _SPELLED:
        if own not in names and own not in found and (same := [name for name in free if name_key(name) == own]):
            found[own] = only_one(same, own)
    if not aliases:
        return found
    free = [name for name in free if name not in found.values()]
    there = {*names, *found}

    def called(others: Iterable[str]) -> list[str]:
        return [name for name in free if name_key(name) in others]

    if kind in ("corrections", "preferences") and not any(there.issuperset(pair) for pair in TEXT_PAIRS):
        usual = ("rejected", "chosen") if kind == "preferences" else ("draft", "sent")
        pair = next((pair for pair in TEXT_PAIRS if there.intersection(pair)), usual)
        lists = (BEFORE, AFTER) if kind == "corrections" else (_REJECTED, _CHOSEN)
        sides = {name: called(others) for name, others in zip(pair, lists, strict=True) if name not in there}
        # Where one side is in no column, the other one's names mean something else.
        if all(sides.values()):
            found |= {name: only_one(columns, name) for name, columns in sides.items()}
    if kind == "demonstrations" and not there.intersection(("response", "completion", "chosen", "edited", "sent")):
        for others, name in ((_CHOSEN, "sent"), (_ANSWER, "response")):
            if columns := called(others):
                found[name] = only_one(columns, name)
                break
    if not there.intersection(("prompt", "messages")) and (columns := called(PROMPT)):
        found["prompt"] = only_one(columns, "prompt")
    return found


def only_one(columns: Sequence[str], own: str) -> str:
    """The column, if there is one.

    Raises:
        ValueError: there are more.
    """
    if len(columns) > 1:
        ways = " or ".join(f"--columns {own}={_quoted(name)}" for name in columns)
        raise ValueError(f"columns {', '.join(map(repr, columns))} could each be {own!r}; say which: {ways}")
    return columns[0]


def naming(kind: Kind, names: Sequence[str]) -> str:
    """What to type where no column is known."""
    return f"its columns are {', '.join(map(repr, names))}: say which is which with --columns {_FLAGS[kind]}"


def renamed(fields: Fields, columns: Mapping[str, str]) -> Fields:
    """The fields under errata's names; one that had such a name is kept as ``source_<name>``."""
    taken = {ours: value for ours, theirs in columns.items() if (value := _at(fields, theirs)) is not None}
    for ours in taken:
        if fields.get(ours) is not None:
            fields[f"source_{ours}"] = fields.pop(ours)
    return fields | taken


def with_messages(fields: Fields, names: Iterable[str]) -> Fields:
    """The fields of a row of a table, whose cells hold messages as JSON (or as Python prints them).

    Raises:
        ValueError: a cell begins like messages and is none.
    """
    for name in names:
        text = fields.get(name)
        if isinstance(text, str) and text[:1] == "[" and "role" in text[:200] and "{" in text[:20]:
            try:
                value = json.loads(text)
            except ValueError:
                try:
                    value = ast.literal_eval(text)
                except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                    raise ValueError(
                        f"field {name!r} begins like a list of messages and is no JSON; mend it"
                    ) from error
            if is_conversation(value):
                fields[name] = value
    return fields


def _at(fields: Fields, path: str) -> Any:
    if path in fields:
        return fields.pop(path)
    value: Any = fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
