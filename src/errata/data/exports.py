"""Rows that annotation tools and tracing servers export: what was asked, the model's text, and a person's.

Each function takes a prompt and both texts out of a row's fields and leaves the rest. Projects name their own fields,
so names are looked up among the well-known ones of ``errata.data.columns``; a row where two could be meant is an error.
A field ``prompt``, ``draft`` or ``sent`` that somebody named (``--columns draft=data.answer``) comes first.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from errata.data.columns import AFTER, BEFORE, PROMPT, only_one
from errata.data.fields import Fields, is_conversation, take_answer, take_prompt
from errata.data.sniff import name_key
from errata.types import Prompt

__all__ = [
    "Parts",
    "argilla",
    "argilla_table",
    "is_argilla",
    "is_argilla_table",
    "is_label_studio",
    "is_label_studio_table",
    "is_langfuse",
    "is_openai",
    "label_studio",
    "label_studio_table",
    "langfuse",
    "openai_preference",
]

Parts = tuple[Prompt, str, str]
"""The prompt, the text before, the text after."""

_TABLE_NAMES = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"})
_LANGFUSE_MARKS = ("expectedOutput", "expected_output", "scores")


# OpenAI.


def is_openai(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of OpenAI's preference fine-tuning."""
    asked = row.get("input")
    outputs = (row.get("preferred_output"), row.get("non_preferred_output"))
    return isinstance(asked, Mapping) and "messages" in asked and all(map(is_conversation, outputs))


def openai_preference(fields: Fields) -> Parts:
    """The messages of ``input``; the assistant's message that is not preferred, and the one that is.

    https://developers.openai.com/api/docs/guides/direct-preference-optimization

    >>> message = lambda role, text: [{"role": role, "content": text}]
    >>> openai_preference({"input": {"messages": message("user", "Hi")},
    ...     "preferred_output": message("assistant", "Hello!"), "non_preferred_output": message("assistant", "What?")})
    ([{'role': 'user', 'content': 'Hi'}], 'What?', 'Hello!')

    Raises:
        ValueError: an output is not one message with text.
    """
    asked = dict(fields.pop("input"))
    prompt = take_prompt(asked, "messages")
    if asked.get("tools"):
        fields["tools"] = asked["tools"]
    return prompt, take_answer(fields, "non_preferred_output"), take_answer(fields, "preferred_output")


# Argilla.


def is_argilla(row: Mapping[str, Any]) -> bool:
    """Whether a row is a record of Argilla as ``to_json`` and ``to_list`` give it."""
    return isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), Mapping)


def argilla(fields: Fields) -> Parts:
    """The submitted response to the one text question, and its suggestion or else the field that holds the draft.

    https://docs.argilla.io/latest/how_to_guides/import_export/

    >>> argilla({"fields": {"instruction": "Greet.", "draft": "Hello"}, "suggestions": {},
    ...     "responses": {"corrected": [{"value": "Hello!", "user_id": "1"}]}})
    ('Greet.', 'Hello', 'Hello!')

    Raises:
        ValueError: nobody responded, people responded differently, or it is not clear which field is which.
    """
    responses, suggestions = fields.pop("responses"), fields.pop("suggestions", None) or {}
    answers = {
        question: [each.get("value") for each in found if each.get("status") in (None, "submitted")]
        for question, found in responses.items()
    }
    named = fields.pop("sent", None)
    if named is not None:
        answers = {"sent": [each["value"] if isinstance(each, Mapping) else each for each in named]}
    question, sent = _answer(answers, "responses.", "")
    before = suggestions.get(question, {}).get("value")
    prompt, draft = _asked(fields, dict(fields.pop("fields")), "fields.", before if isinstance(before, str) else None)
    for name in ("metadata", "vectors"):
        if not fields.get(name):  # Parquet has no empty record
            fields.pop(name, None)
    return prompt, draft, sent


def is_argilla_table(row: Mapping[str, Any]) -> bool:
    """Whether a row is a record of Argilla as ``to_datasets`` gives it, with columns such as ``QUESTION.responses``."""
    return any(name.endswith(".responses.users") for name in row)


def argilla_table(fields: Fields) -> Parts:
    """As ``argilla``, of ``QUESTION.responses`` and ``QUESTION.suggestion``.

    >>> argilla_table({"instruction": "Greet.", "corrected.suggestion": "Hello", "corrected.responses": ["Hello!"],
    ...     "corrected.responses.users": ["1"], "corrected.responses.status": ["submitted"]})
    ('Greet.', 'Hello', 'Hello!')

    Raises:
        ValueError: as ``argilla``.
    """
    answers, suggested = {}, {}
    for question in [name.removesuffix(".responses.users") for name in fields if name.endswith(".responses.users")]:
        given, states = (fields.pop(f"{question}.responses{what}", None) for what in ("", ".status"))
        states = states or [None] * len(given or ())
        answers[question] = [v for v, s in zip(given or (), states, strict=False) if s in (None, "submitted")]
        suggested[question] = fields.pop(f"{question}.suggestion", None)
    named = fields.pop("sent", None)
    question, sent = _answer(answers if named is None else {"sent": named}, "", ".responses")
    # A text of the project's is in a column without a dot.
    own = {name: value for name, value in fields.items() if "." not in name and _is_prompt(value)}
    before = suggested.get(question)
    prompt, draft = _asked(fields, own, "", before if isinstance(before, str) else None)
    return prompt, draft, sent


def _answer(answers: Mapping[str, Sequence[Any]], before: str, after: str) -> tuple[str, str]:
    """The question that is answered by a text, and the text."""
    texts = {name: found for name, found in answers.items() if found and all(isinstance(text, str) for text in found)}
    if not texts:
        raise ValueError("no response is submitted that is a text, nobody corrected this record; drop it")
    question = next(iter(texts)) if len(texts) == 1 else _one_of(texts, AFTER, "sent", before, after)
    return question, _agreed(texts[question], f"question {question!r}")


# Langfuse.


def is_langfuse(row: Mapping[str, Any]) -> bool:
    """Whether a row is a trace, an observation or a dataset item of Langfuse that has an output."""
    return {"input", "output"} <= row.keys() and any(name in row for name in _LANGFUSE_MARKS)


def langfuse(fields: Fields) -> Parts:
    """``input``, ``output``, and the corrected output: the score of type CORRECTION, or else the expected output.

    https://langfuse.com/docs/observability/features/corrections and
    https://langfuse.com/docs/api-and-data-platform/features/export-from-ui

    >>> langfuse({"input": {"messages": [{"role": "user", "content": "Hi"}]}, "output": {"role": "assistant",
    ...     "content": "What?"}, "scores": [{"name": "output", "dataType": "CORRECTION", "stringValue": "Hello!"}]})
    ([{'role': 'user', 'content': 'Hi'}], 'What?', 'Hello!')

    Raises:
        ValueError: there is no correction; what was asked or answered is no text.
    """
    corrected = _corrections(fields.pop("scores", None))
    expected = [fields.pop(name, None) for name in _LANGFUSE_MARKS[:2]]
    corrected = corrected or [value for value in expected if value not in (None, "")]
    if not corrected:
        raise ValueError("no score of type CORRECTION and no expected output, nobody corrected this trace; drop it")
    prompt = _said(fields.pop("input"), "input", conversation=True)
    original = _said(fields.pop("output"), "output")
    sent = _agreed([_said(value, "the correction") for value in corrected], "the output")
    assert isinstance(original, str)
    return prompt, original, sent


def _corrections(scores: object) -> list[Any]:
    scores = _unpacked(scores)
    if isinstance(scores, Mapping):
        # The export of the interface has the values by name; a correction is always called output.
        named = scores.get("output")
        return [each for each in (named if isinstance(named, list) else [named]) if isinstance(each, str)]
    listed = scores if isinstance(scores, list) else []
    found = [each for each in listed if isinstance(each, Mapping) and each.get("dataType") == "CORRECTION"]
    values = [each["stringValue"] if isinstance(each.get("stringValue"), str) else each.get("value") for each in found]
    return [value for value in values if isinstance(value, str)]


def _said(value: Any, name: str, *, conversation: bool = False) -> Any:
    """The text of what chat models are given and give, however it was logged; messages where they are wanted."""
    value = _unpacked(value)
    if isinstance(value, Mapping):
        if conversation and is_conversation(value.get("messages")):
            value = value["messages"]
        elif isinstance(value.get("content"), str | list):
            value = value["content"] if not conversation else [dict(value)]
        elif isinstance(value.get("choices"), list) and len(value["choices"]) == 1:
            value = _said(value["choices"][0].get("message"), name)
        elif len(texts := [each for each in value.values() if isinstance(each, str)]) == len(value) == 1:
            value = texts[0]
    if conversation:
        return take_prompt({name: value}, name)
    if isinstance(value, list) and value and isinstance(value[-1], Mapping) and len(value) == 1:
        return take_answer({name: value}, name)
    if not isinstance(value, str):
        raise ValueError(
            f"field {name!r} is no text and no message; say where the text is: --columns draft={name}.FIELD"
        )
    return value


def _unpacked(value: Any) -> Any:
    """An export as CSV has objects as JSON."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


# Label Studio.


def is_label_studio(row: Mapping[str, Any]) -> bool:
    """Whether a row is a task of Label Studio's JSON export."""
    return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations"), list)


def label_studio(fields: Fields) -> Parts:
    """The text that was typed into the task's ``TextArea``, and that of the prediction or else of the task's data.

    https://labelstud.io/guide/task_format and https://labelstud.io/tags/textarea

    >>> typed = lambda text: [{"result": [{"type": "textarea", "from_name": "reply", "value": {"text": [text]}}]}]
    >>> label_studio({"data": {"question": "Hi"}, "predictions": typed("What?"), "annotations": typed("Hello!")})
    ('Hi', 'What?', 'Hello!')

    Raises:
        ValueError: nobody typed, people typed different texts, or it is not clear which field is which.
    """
    annotations = [each for each in fields.pop("annotations") if not each.get("was_cancelled")]
    typed, predicted = _typed(annotations), _typed(fields.pop("predictions", None) or ())
    if not typed:
        raise ValueError("field 'annotations' holds no text of a TextArea, nobody corrected this task; drop it")
    area = next((area for area in typed if len(typed) == 1 or name_key(area) in AFTER), None)
    if area is None or len([each for each in typed if name_key(each) in AFTER]) > 1:
        raise ValueError(
            f"the text areas {', '.join(map(repr, typed))} could each be 'sent'; export the project as "
            "JSON-MIN or CSV, and say which with --columns sent=NAME"
        )
    original = _agreed(predicted[area], "the prediction") if area in predicted else None
    prompt, draft = _asked(fields, dict(fields.pop("data")), "data.", original)
    return prompt, draft, _agreed(typed[area], f"the TextArea {area!r}")


def is_label_studio_table(row: Mapping[str, Any]) -> bool:
    """Whether a row is one annotation of Label Studio's CSV or JSON-MIN export."""
    return {"annotation_id", "lead_time"} <= row.keys()


def label_studio_table(fields: Fields) -> Parts:
    """The column of the ``TextArea``: one with a well-known name, or the only one beside prompt and draft.

    https://labelstud.io/guide/export

    >>> label_studio_table({"id": 1, "question": "Hi", "answer": "What?", "better": "Hello!", "annotator": 1,
    ...     "annotation_id": 7, "lead_time": 2.5})
    ('Hi', 'What?', 'Hello!')

    Raises:
        ValueError: it is not clear which column is which, or it holds several texts.
    """
    if fields.get("id") not in (None, ""):
        # A task that several people annotated has a row for each.
        fields["id"] = f"{fields['id']}/{fields['annotation_id']}"
    texts = {
        name: value
        for name, value in fields.items()
        if name not in _TABLE_NAMES and isinstance(value, str | list | dict)
    }
    sent = fields.pop("sent", None)
    if sent is None:
        others = [name for name in texts if name_key(name) not in PROMPT | BEFORE | {"prompt", "draft", "original"}]
        sent = fields.pop(others[0] if len(others) == 1 else _one_of(others, AFTER, "sent"))
    sent = _unpacked(sent)
    sent = sent.get("text") if isinstance(sent, Mapping) else sent
    prompt, draft = _asked(fields, {name: texts[name] for name in texts if name in fields}, "", None)
    return prompt, draft, _agreed(sent if isinstance(sent, list) else [sent], "the TextArea")


def _typed(annotations: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Texts by the name of their ``TextArea``."""
    found: dict[str, list[Any]] = {}
    for annotation in annotations:
        for each in annotation.get("result") or ():
            if isinstance(each, Mapping) and str(each.get("type")).casefold() == "textarea":
                text = (each.get("value") or {}).get("text")
                found.setdefault(str(each.get("from_name")), []).extend(text if isinstance(text, list) else [text])
    return found


# What they share.


def _asked(fields: Fields, given: dict[str, Any], inside: str, original: str | None) -> tuple[Prompt, str]:
    """The prompt and the draft among fields that the project named; the others travel along.

    ``inside`` is the field that holds those of the project; where it is empty, they are the row's own.
    """
    taken = []
    for own, names, known in (
        ("prompt", PROMPT | {"prompt"}, None),
        ("draft", BEFORE | {"draft", "original"}, original),
    ):
        value = fields.pop(own, None)
        value = known if value is None else value
        if value is None:
            name = _one_of({name: given[name] for name in given if name in fields or inside}, names, own, inside)
            value = given.pop(name)
            if not inside:
                fields.pop(name)
        taken.append({own: value})
    fields |= {name: value for name, value in given.items() if inside and name not in fields}
    return take_prompt(taken[0]), take_answer(taken[1], "draft")


def _one_of(given: Iterable[str], names: Collection[str], own: str, inside: str = "", after: str = "") -> str:
    """The field with one of these names.

    Raises:
        ValueError: there is none, or there are more.
    """
    found = [name for name in given if name_key(name) in names]
    paths = {f"{inside}{name}{after}": name for name in found}
    if not found:
        raise ValueError(
            f"none of the fields {', '.join(map(repr, given)) or '(none)'} is known as {own!r}; say which "
            f"with --columns {own}={inside}FIELD{after}"
        )
    return paths[only_one(list(paths), own)]


def _agreed(values: Sequence[Any], what: str) -> str:
    """The one text of several people.

    Raises:
        ValueError: they differ, or one is no text.
    """
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{what} holds no text; drop the row")
    if len(set(values)) > 1:
        raise ValueError(f"{what} has {len(set(values))} different texts; errata takes one a row: keep one")
    return str(values[0])


def _is_prompt(value: object) -> bool:
    return isinstance(value, str) or is_conversation(value)
