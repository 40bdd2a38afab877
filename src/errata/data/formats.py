"""The formats in which people publish corrections: how each is recognised, and how a row of it becomes a correction.

A format reads what the row says and guesses nothing: a row that does not fit it is an error that names the field.
Fields that a format does not use travel with the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, cast

from errata.data.columns import TEXT_PAIRS
from errata.data.exports import (
    Parts,
    argilla,
    argilla_table,
    is_argilla,
    is_argilla_table,
    is_label_studio,
    is_label_studio_table,
    is_langfuse,
    is_openai,
    label_studio,
    label_studio_table,
    langfuse,
    openai_preference,
)
from errata.data.fields import (
    ID_FIELDS,
    Fields,
    is_conversation,
    take_answer,
    take_conversation,
    take_id,
    take_ids,
    take_prompt,
    take_reasons,
    take_text,
    take_weights,
)
from errata.types import Correction, Prompt

__all__ = [
    "FORMATS",
    "TEXT_PAIRS",
    "Format",
    "FormatName",
    "Recognised",
    "any_pair",
    "is_own",
    "is_response",
    "pair_of",
    "recognise",
]

FormatName = Literal[
    "preference",
    "conversational",
    "implicit-prompt",
    "original-edited",
    "draft-sent",
    "spa",
    "fine-grained-rlhf",
    "helpsteer3-edit",
    "helpsteer3-edit-quality",
    "hh-rlhf",
    "openai-preference",
    "argilla",
    "argilla-table",
    "langfuse",
    "label-studio",
    "label-studio-table",
]

_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_HH_ROLE = {"Human": "user", "Assistant": "assistant"}


class Format(NamedTuple):
    """One published format of corrections."""

    title: str
    fields: tuple[str, ...]
    """The fields that it is recognised by."""
    fits: Callable[[Mapping[str, Any]], bool]
    """Whether the fields of a row are of this format, by their names and types."""
    parse: Callable[[Fields, int], Correction]
    """Makes the row of its fields (the caller's to take apart) and its line; raises ValueError."""


class Recognised(NamedTuple):
    """A format, and the sentence that says why it was recognised."""

    format: Format
    why: str


def recognise(rows: Iterable[Mapping[str, Any]]) -> Recognised:
    """The one format that at least half of the rows have; give the first hundred or so.

    >>> found = recognise([{"prompt": "Write to Anna.", "draft": "Dear Ana,", "sent": "Dear Anna,"}])
    >>> found.why
    'a draft and what was sent: fields draft, sent in 1 of 1 rows'

    Raises:
        ValueError: no format fits half of the rows, or more than one does; there is no row.
    """
    seen = list(rows)
    if not seen:
        raise ValueError("there is no row to recognise a format by; give at least one")
    counts = {name: sum(form.fits(row) for row in seen) for name, form in FORMATS.items()}
    found = [name for name, count in counts.items() if count * 2 >= len(seen)]
    if len(found) == 1:
        form, count = FORMATS[found[0]], counts[found[0]]
        return Recognised(form, f"{form.title}: fields {', '.join(form.fields)} in {count} of {len(seen)} rows")
    if found:
        raise ValueError(
            f"more than one format fits at least half of the first {len(seen)} rows: "
            f"{', '.join(f'{name} ({counts[name]})' for name in found)}; say which with --from"
        )
    if sum(map(_is_demonstration, seen)) * 2 >= len(seen):
        raise ValueError(
            f"the first {len(seen)} rows are demonstrations (prompt and response or completion), which have no text "
            "before the edit; give them to `errata tune sft`, or add the model's draft"
        )
    looked_for = "; ".join(f"{name} ({', '.join(form.fields)}: {counts[name]})" for name, form in FORMATS.items())
    names = sorted({name for row in seen for name in row})
    if sum(map(_is_best_of_n, seen)) * 2 >= len(seen):
        raise ValueError(
            f"chosen and rejected are lists of texts in the first {len(seen)} rows, as in RM-Bench: several answers to "
            "one prompt, and no edits; write a row for each pair of texts that you mean"
        )
    raise ValueError(
        f"no format fits half of the first {len(seen)} rows, whose fields are {', '.join(names) or 'none'}; looked for "
        f"{looked_for}; say which fields are which with --columns prompt=FIELD draft=FIELD sent=FIELD, or the format "
        "with --from"
    )


def any_pair(fields: Fields, line: int) -> Correction:
    """A row of errata's own: ``prompt`` and whichever of the ``TEXT_PAIRS`` it has, answers plain or one message.

    Raises:
        ValueError: no pair is whole, or more than one is; a field is missing or of the wrong type.
    """
    return _pair(fields, line, pair=pair_of(fields))


def pair_of(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The pair of names that a row has; where none is whole, the one that is nearest names what is missing.

    Raises:
        ValueError: two pairs are whole.
    """
    found = {pair: sum(fields.get(name) is not None for name in pair) for pair in TEXT_PAIRS}
    whole = [pair for pair, count in found.items() if count == 2]
    if len(whole) > 1:
        raise ValueError(f"fields {whole[0]} and {whole[1]} both hold a text before and after; keep one pair")
    return max(TEXT_PAIRS, key=found.__getitem__)


def is_own(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of errata's own: a prompt and a pair of texts, each plain or one message."""
    return row.get("prompt") is not None and any(all(_is_answer(row.get(name)) for name in pair) for pair in TEXT_PAIRS)


def is_response(row: Mapping[str, Any]) -> bool:
    """Whether a row is an answer without a correction: ``prompt`` and ``response`` or ``completion``, and no format."""
    return _is_demonstration(row) and not any(form.fits(row) for form in FORMATS.values())


def _pair(fields: Fields, line: int, *, pair: tuple[str, str]) -> Correction:
    for other in TEXT_PAIRS:
        if other != pair and all(fields.get(name) is not None for name in (*pair, *other)):
            raise ValueError(f"fields {pair} and {other} both hold a text before and after; keep one pair")
    prompt = take_prompt(fields)
    original, edited = (take_answer(fields, name) for name in pair)
    return _correction(fields, line, prompt, original, edited)


def _implicit(fields: Fields, line: int) -> Correction:
    chosen, rejected = (take_conversation(fields, name) for name in ("chosen", "rejected"))
    # Equal conversations are an answer that was already good: their last message is the answer all the same.
    shared = min(len(chosen), len(rejected)) - 1
    common = next((k for k in range(shared) if chosen[k] != rejected[k]), shared)
    answers = [conversation[common:] for conversation in (chosen, rejected)]
    if any(len(rest) != 1 or rest[0]["role"] != "assistant" for rest in answers):
        raise ValueError(
            f"fields 'chosen' and 'rejected' share {common} messages and then differ in more than one answer of the "
            "assistant; make them one conversation up to its last message"
        )
    if not common:
        raise ValueError("fields 'chosen' and 'rejected' share no message before the answer; add the prompt to both")
    # Some releases repeat the (last) question as text; another prompt would be a question of its own.
    given = fields.pop("prompt", None)
    if given is not None and given not in (chosen[0]["content"], chosen[common - 1]["content"], chosen[:common]):
        raise ValueError("field 'prompt' is not what 'chosen' and 'rejected' begin with; drop one of the two")
    return _correction(fields, line, chosen[:common], answers[1][0]["content"], answers[0][0]["content"])


def _spa(fields: Fields, line: int) -> Correction:
    instruction = take_text(fields, "instruction")
    context = take_text(fields, "input") if fields.get("input") is not None else ""
    prompt = f"{instruction}\n\n{context}" if context else instruction
    original, edited = (take_text(fields, name) for name in ("original_output", "revised_output"))
    return _correction(fields, line, prompt, original, edited)


def _fine_grained_rlhf(fields: Fields, line: int) -> Correction:
    prompt, original = take_text(fields, "question"), take_text(fields, "prediction 1")
    feedback = fields.get("feedback")
    edited = feedback.get("corrected-prediction") if isinstance(feedback, dict) else None
    if not isinstance(edited, str):
        raise ValueError("field 'feedback' holds no text 'corrected-prediction'; add it, or drop the row")
    # The form that people typed into left blanks around their text; they are no edit.
    edited = edited.strip()
    if not edited:
        raise ValueError("field 'feedback': 'corrected-prediction' is empty, nobody corrected this row; drop it")
    return _correction(fields, line, prompt, original, edited)


def _helpsteer3(fields: Fields, line: int, *, edited: str) -> Correction:
    prompt = take_prompt(fields, "context")
    return _correction(fields, line, prompt, take_text(fields, "original_response"), take_text(fields, edited))


def _hh_rlhf(fields: Fields, line: int) -> Correction:
    # Releases carry whole dialogues; where somebody split the prompt off it goes back, and all rows are read alike.
    before = take_text(fields, "prompt") if fields.get("prompt") else ""
    if before and not before.rstrip(" ").endswith("\n\nAssistant:"):
        before += "\n\nAssistant: "
    for name in ("chosen", "rejected"):
        fields[name] = _hh_messages(before + take_text(fields, name), name)
    return _implicit({**fields, "prompt": None}, line)


def _hh_messages(text: str, name: str) -> list[dict[str, str]]:
    opening, *turns = _HH_TURN.split(text)
    if opening or not turns:
        raise ValueError(f"field {name!r} does not begin with '\\n\\nHuman: '; give the dialogue as HH-RLHF has it")
    return [{"role": _HH_ROLE[who], "content": said} for who, said in zip(turns[::2], turns[1::2], strict=True)]


def _exported(fields: Fields, line: int, *, parts: Callable[[Fields], Parts]) -> Correction:
    try:
        prompt, original, edited = parts(fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the row is built otherwise than its tool exports it ({error!r}); drop it") from error
    return _correction(fields, line, prompt, original, edited)


def _correction(fields: Fields, line: int, prompt: Prompt, original: str, edited: str) -> Correction:
    identity, ids, reasons = take_id(fields, line), take_ids(fields, ID_FIELDS), take_reasons(fields)
    weights = [take_weights(fields, [f"{pair[side]}_weights" for pair in TEXT_PAIRS]) for side in (0, 1)]
    for name in ("prompt", *TEXT_PAIRS[0]):
        if fields.pop(name, None) is not None:
            raise ValueError(f"field {name!r} is none of this format, and errata writes one of that name; rename it")
    for pair in TEXT_PAIRS[1:]:
        if all(fields.get(name) is not None for name in pair):
            raise ValueError(f"fields {pair} hold a text before and after, too; keep one pair")
    return Correction(
        id=identity,
        prompt=prompt,
        original=original,
        edited=edited,
        original_ids=ids,
        original_weights=weights[0],
        edited_weights=weights[1],
        reasons=reasons,
        extra=fields,
    )


# What the fields of each format look like.


def _texts(row: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


def _is_answer(value: object) -> bool:
    return isinstance(value, str) or (is_conversation(value) and len(cast(list[Any], value)) == 1)


def _is_exported(row: Mapping[str, Any], *, fits: Callable[[Mapping[str, Any]], bool]) -> bool:
    """Whether a row is a tool's, and was not made one of errata's own, with which the tool's other fields travel."""
    return fits(row) and not is_own(row)


def _is_best_of_n(row: Mapping[str, Any]) -> bool:
    sides = (row.get("chosen"), row.get("rejected"))
    return all(isinstance(side, list) and side and all(isinstance(each, str) for each in side) for side in sides)


def _is_preference(row: Mapping[str, Any]) -> bool:
    return _texts(row, "chosen", "rejected") and not _is_hh_rlhf(row)


def _conversations(row: Mapping[str, Any]) -> bool:
    return is_conversation(row.get("chosen")) and is_conversation(row.get("rejected"))


def _is_conversational(row: Mapping[str, Any]) -> bool:
    return _conversations(row) and not _is_implicit(row)


def _is_implicit(row: Mapping[str, Any]) -> bool:
    return _conversations(row) and (row.get("prompt") is None or len(row["chosen"]) > 1)


def _is_pair(row: Mapping[str, Any], *, pair: tuple[str, str]) -> bool:
    return _texts(row, *pair) or all(is_conversation(row.get(name)) for name in pair)


def _is_fine_grained_rlhf(row: Mapping[str, Any]) -> bool:
    feedback = row.get("feedback")
    return _texts(row, "question", "prediction 1") and isinstance(feedback, dict) and "corrected-prediction" in feedback


def _is_helpsteer3(row: Mapping[str, Any], *, edited: str) -> bool:
    return _texts(row, "original_response", edited) and (_texts(row, "context") or is_conversation(row.get("context")))


def _is_hh_rlhf(row: Mapping[str, Any]) -> bool:
    if not _texts(row, "chosen", "rejected"):
        return False
    openings = (row["prompt"],) if row.get("prompt") else (row["chosen"], row["rejected"])
    return all(isinstance(text, str) and text.startswith("\n\nHuman:") for text in openings)


def _is_demonstration(row: Mapping[str, Any]) -> bool:
    return row.get("prompt") is not None and any(row.get(name) is not None for name in ("response", "completion"))


FORMATS: Mapping[FormatName, Format] = {
    "preference": Format(
        "preference rows (TRL)",
        ("chosen", "rejected"),
        _is_preference,
        partial(_pair, pair=("rejected", "chosen")),
    ),
    "conversational": Format(
        "conversational preference rows (TRL)",
        ("prompt", "chosen", "rejected"),
        _is_conversational,
        partial(_pair, pair=("rejected", "chosen")),
    ),
    "implicit-prompt": Format(
        "whole conversations whose common beginning is the prompt (TRL)",
        ("chosen", "rejected"),
        _is_implicit,
        _implicit,
    ),
    "original-edited": Format(
        "an original and its edit",
        ("original", "edited"),
        partial(_is_pair, pair=("original", "edited")),
        partial(_pair, pair=("original", "edited")),
    ),
    "draft-sent": Format(
        "a draft and what was sent",
        ("draft", "sent"),
        partial(_is_pair, pair=("draft", "sent")),
        partial(_pair, pair=("draft", "sent")),
    ),
    "spa": Format(
        "SPA rows (FIGA)",
        ("instruction", "original_output", "revised_output"),
        lambda row: _texts(row, "instruction", "original_output", "revised_output"),
        _spa,
    ),
    "fine-grained-rlhf": Format(
        "FineGrainedRLHF feedback",
        ("question", "prediction 1", "feedback"),
        _is_fine_grained_rlhf,
        _fine_grained_rlhf,
    ),
    "helpsteer3-edit": Format(
        "HelpSteer3 edits",
        ("context", "original_response", "edited_response"),
        partial(_is_helpsteer3, edited="edited_response"),
        partial(_helpsteer3, edited="edited_response"),
    ),
    "helpsteer3-edit-quality": Format(
        "HelpSteer3 edits, good and bad",
        ("context", "original_response", "good_edited_response"),
        partial(_is_helpsteer3, edited="good_edited_response"),
        partial(_helpsteer3, edited="good_edited_response"),
    ),
    "hh-rlhf": Format(
        "HH-RLHF dialogues (\\n\\nHuman: … \\n\\nAssistant: …)",
        ("chosen", "rejected"),
        _is_hh_rlhf,
        _hh_rlhf,
    ),
    "openai-preference": Format(
        "OpenAI's preference fine-tuning rows",
        ("input", "preferred_output", "non_preferred_output"),
        partial(_is_exported, fits=is_openai),
        partial(_exported, parts=openai_preference),
    ),
    "argilla": Format(
        "Argilla records",
        ("fields", "responses"),
        partial(_is_exported, fits=is_argilla),
        partial(_exported, parts=argilla),
    ),
    "argilla-table": Format(
        "Argilla records, a column for each field and question",
        ("id", "status"),
        partial(_is_exported, fits=is_argilla_table),
        partial(_exported, parts=argilla_table),
    ),
    "langfuse": Format(
        "Langfuse traces or dataset items",
        ("input", "output"),
        partial(_is_exported, fits=is_langfuse),
        partial(_exported, parts=langfuse),
    ),
    "label-studio": Format(
        "Label Studio tasks",
        ("data", "annotations"),
        partial(_is_exported, fits=is_label_studio),
        partial(_exported, parts=label_studio),
    ),
    "label-studio-table": Format(
        "Label Studio annotations (CSV, JSON-MIN)",
        ("annotation_id", "lead_time"),
        partial(_is_exported, fits=is_label_studio_table),
        partial(_exported, parts=label_studio_table),
    ),
}
