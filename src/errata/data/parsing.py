"""Which columns of a file are which texts, and how its fields become rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from errata.data.columns import (
    TEXT_PAIRS,
    Kind,
    Reading,
    columns_of,
    naming,
    renamed,
    with_messages,
)
from errata.data.fields import (
    ID_FIELDS,
    EmptyTextError,
    Fields,
    is_conversation,
    take_answer,
    take_conversation,
    take_id,
    take_ids,
    take_prompt,
)
from errata.data.formats import FORMATS, Format, any_pair, is_own, pair_of, recognise
from errata.data.records import (
    Opened,
)
from errata.types import Correction, Demonstration, Preference, PromptRow

__all__ = ["NEEDED", "TEXTS", "check_not_empty", "columns_in", "names_in", "plan_for"]

_ANSWERS = ("response", "completion", "chosen", "edited", "sent")

TEXTS = ("prompt", "messages", "input", *(name for pair in TEXT_PAIRS for name in pair), "response", "completion")
"""Fields that may hold messages."""


class _Plan(NamedTuple):
    """How the rows of a file are made of its records."""

    parse: Callable[[Fields, int], Any]
    columns: Mapping[str, str]
    said: tuple[str, ...]
    """What was recognised, in words."""
    hint: str
    """What to type, if no row can be used."""


def plan_for(kind: Kind, sample: Sequence[Fields], opened: Opened, how: Reading) -> _Plan:
    """Choose by the first rows: errata's own names, a published format, or other well-known names of columns.

    Raises:
        ValueError: two formats fit, or two columns could be meant.
    """
    form, columns = how.get("form"), columns_in(kind, sample, opened, how)
    rows = [renamed(dict(fields), columns) for fields in sample]
    said, hint = [f"column {theirs!r} is {ours!r}" for ours, theirs in columns.items() if ours != theirs], ""
    if how.get("columns") and not columns.keys() >= (how.get("columns") or {}).keys():
        said.append("--columns is not applied: its columns are not there, and errata's own names are")
    if form is not None and not any(map(form.fits, rows)) and _most(rows, _OWN[kind]):
        # As with --columns: a second file of the same verb.
        form, said = None, [*said, "--from is not applied: its rows have errata's own names"]
    if form is None and not _most(rows, _OWN[kind]):
        form = _format_of(rows)
        said += [] if form is None else [form.title]
        if opened.columns and form is None:
            hint = naming(kind, opened.columns)
    if opened.columns and any(with_messages(dict(row), TEXTS) != row for row in _parsable(rows)):
        said.append("messages as JSON are read as messages")
    return _Plan(_parser(kind, form), columns, tuple(said), hint)


def columns_in(kind: Kind, sample: Sequence[Fields], opened: Opened, how: Reading) -> dict[str, str]:
    """Errata's name of a column → its name in the file, where that is another."""
    names, given, form = names_in(sample, opened), how.get("columns") or {}, how.get("form")
    missing = [f"{ours}={theirs}" for ours, theirs in given.items() if sample and not _has(sample, theirs)]
    if missing and len(missing) == len(given) and _most(sample, _OWN[kind]):
        # A second file of the same verb, such as the held-out rows, may have errata's own names.
        given, missing = {}, []
    if missing:
        raise ValueError(f"--columns {missing[0]}: no row has that column; {naming(kind, names)}")
    columns = columns_of(kind, names, given, aliases=False)
    rows = [renamed(dict(fields), columns) for fields in sample]
    if _most(rows, _OWN[kind]):
        return columns
    # Of errata's own formats one that is not whole may have its other half under another name.
    found = form or _format_of(rows)
    if found is not None and not _is_pair_format(found):
        return columns
    try:
        return columns_of(kind, names, given, aliases=True)
    except ValueError:
        if form is None:
            raise
        # Whoever named the format is told what its rows lack.
        return columns


def _has(sample: Sequence[Fields], theirs: str) -> bool:
    return any(renamed(dict(fields), {"": theirs}).get("") is not None for fields in sample)


def _format_of(rows: Sequence[Fields]) -> Format | None:
    """The published format of most of the rows; two that fit are an error."""
    fitting = [form for form in FORMATS.values() if _most(rows, form.fits)]
    return recognise(rows).format if fitting else None


def _is_pair_format(form: Format) -> bool:
    return form in [FORMATS[name] for name in ("preference", "original-edited", "draft-sent")]


def _most(rows: Sequence[Fields], fits: Callable[[Fields], bool]) -> bool:
    return sum(map(fits, rows)) * 2 >= len(rows) > 0


def names_in(sample: Sequence[Fields], opened: Opened) -> list[str]:
    """The columns of a table, or the fields that at least half of the rows have."""
    if opened.columns or not sample:
        return list(opened.columns)
    count = Counter(name for fields in sample for name, value in fields.items() if value is not None)
    return [name for name in count if count[name] * 2 >= len(sample)]


def _parsable(rows: Iterable[Fields]) -> Iterator[Fields]:
    for row in rows:
        with suppress(ValueError):
            with_messages(dict(row), TEXTS)
            yield row


def check_not_empty(row: Any, texts: Sequence[tuple[str, str]]) -> bool:
    """Refuse a row without a text to learn from; whether its prompt is empty, which may be.

    Raises:
        EmptyTextError: a text is empty, or white space alone: nobody wrote it, and it is no wish for silence.
    """
    for name, what in texts:
        text = getattr(row, name)
        # A prompt may be messages. As is_empty, without a call for each text of each row.
        if not text or (text.__class__ is str and text.isspace()):
            raise EmptyTextError(f"the text {what} is empty; write it, or keep such rows with --empty-texts keep")
    prompt = row.prompt
    return not prompt or (prompt.__class__ is str and prompt.isspace())


NEEDED: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    "prompts": (("prompt", "of the prompt"),),
    "demonstrations": (("response", "of the answer"),),
    "preferences": (("rejected", "that was rejected"), ("chosen", "that was chosen")),
    "corrections": (
        ("original", "before the edit (draft, original, rejected)"),
        ("edited", "after the edit (sent, edited, chosen)"),
    ),
}
"""The texts that a row needs, and what they are."""


def _parser(kind: Kind, form: Format | None) -> Callable[[Fields, int], Any]:
    if form is None or form is FORMATS["preference"]:
        return {
            "prompts": _prompt_row,
            "demonstrations": _demonstration,
            "preferences": _preference,
            "corrections": any_pair if form is None else form.parse,
        }[kind]
    parse = form.parse
    if kind == "corrections":
        return parse
    made = {"prompts": _prompt_of, "demonstrations": _demonstration_of, "preferences": _preference_of}[kind]
    return lambda fields, line: made(parse(fields, line))


def _prompt_of(row: Correction) -> PromptRow:
    return PromptRow(id=row.id, prompt=row.prompt, extra=row.extra)


def _demonstration_of(row: Correction) -> Demonstration:
    return Demonstration(id=row.id, prompt=row.prompt, response=row.edited, extra=row.extra)


def _preference_of(row: Correction) -> Preference:
    extra = {**row.extra, "reason": list(row.reasons)} if row.reasons else row.extra
    return Preference(
        id=row.id,
        prompt=row.prompt,
        chosen=row.edited,
        rejected=row.original,
        rejected_ids=row.original_ids,
        extra=extra,
    )


def _prompt_row(fields: Fields, line: int) -> PromptRow:
    return PromptRow(id=take_id(fields, line), prompt=take_prompt(fields), extra=fields)


def _demonstration(fields: Fields, line: int) -> Demonstration:
    name = next((name for name in _ANSWERS if fields.get(name) is not None), _ANSWERS[0])
    if _is_chat(fields):
        *prompt, answer = take_conversation(fields, "messages")
        fields |= {"prompt": prompt, name: [answer]}
    return Demonstration(
        id=take_id(fields, line), prompt=take_prompt(fields), response=take_answer(fields, name), extra=fields
    )


def _is_chat(fields: Mapping[str, Any]) -> bool:
    """Whether a row is a conversation whose last message is the answer."""
    named = [name for name in ("prompt", *_ANSWERS) if fields.get(name) is not None]
    return not named and is_conversation(fields.get("messages")) and len(fields["messages"]) > 1


def _preference(fields: Fields, line: int) -> Preference:
    rejected, chosen = pair_of(fields)
    return Preference(
        id=take_id(fields, line),
        prompt=take_prompt(fields),
        chosen=take_answer(fields, chosen),
        rejected=take_answer(fields, rejected),
        chosen_ids=take_ids(fields, ("chosen_ids",)),
        rejected_ids=take_ids(fields, ID_FIELDS),
        extra=fields,
    )


_OWN: Mapping[Kind, Callable[[Fields], bool]] = {
    "prompts": lambda fields: fields.get("prompt") is not None,
    "demonstrations": lambda fields: (
        (fields.get("prompt") is not None and any(fields.get(name) is not None for name in _ANSWERS))
        or _is_chat(fields)
    ),
    "preferences": is_own,
    "corrections": is_own,
}
"""Whether a row is one of errata's own."""
