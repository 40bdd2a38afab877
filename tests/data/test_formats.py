from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from errata.data.formats import FORMATS, FormatName, recognise
from errata.data.rows import (
    corrections_from,
    iter_corrections,
    read_corrections,
    read_demonstrations,
    read_lines,
    recognise_file,
    write_rows,
)
from errata.types import Correction

SHARED = Path(__file__).parents[3] / "shared" / "data"
USER = {"role": "user", "content": "Is it safe?"}
YES, NO = ({"role": "assistant", "content": text} for text in ("Yes.", "No, it is not."))
TALK = [{"role": "system", "content": "Be kind."}, USER]
FEEDBACK = {
    "errors": [{"error type": "Irrelevant", "explanation": "", "start": 4, "end": 9}],
    "missing-info": [],
    "corrected-prediction": "In May. ",
}
HELPSTEER = {
    "domain": "general",
    "language": "english",
    "context": TALK,
    "original_response": "Yes.",
    "feedback": ["The response is slightly helpful.", "…", "…"],
}
TYPED = {"type": "textarea", "from_name": "reply", "to_name": "answer"}
CHOICE = {"type": "choices", "from_name": "mood", "to_name": "answer", "value": {"choices": ["good"]}}
HH = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Is it\n\nsafe?"

# One row of each format as its makers publish it, with what it says.
ROWS: dict[FormatName, tuple[dict[str, Any], Correction]] = {
    "preference": (
        {"prompt": "p", "chosen": "a b", "rejected": "a", "rejected_ids": [4, 2], "hter": 0.5},
        Correction(id="row-7", prompt="p", original="a", edited="a b", original_ids=(4, 2), extra={"hter": 0.5}),
    ),
    "conversational": (
        {"id": 3, "prompt": TALK, "chosen": [NO], "rejected": [YES], "reason": "unsafe"},
        Correction(id="3", prompt=TALK, original="Yes.", edited="No, it is not.", reasons=("unsafe",)),
    ),
    "implicit-prompt": (
        {"chosen": [*TALK, NO], "rejected": [*TALK, YES], "score": 1},
        Correction(id="row-7", prompt=TALK, original="Yes.", edited="No, it is not.", extra={"score": 1}),
    ),
    "original-edited": (
        {"prompt": "", "original": "one two", "edited": "one", "reason": ["style", "wrong"]},
        Correction(id="row-7", prompt="", original="one two", edited="one", reasons=("style", "wrong")),
    ),
    "draft-sent": (
        {"prompt": TALK, "draft": "one", "sent": "one two", "reason": ""},
        Correction(id="row-7", prompt=TALK, original="one", edited="one two"),
    ),
    "spa": (
        {
            "instruction": "Name a city.",
            "input": "In France",
            "output": "Lyon",
            "original_output": "Rome",
            "revised_output": "Paris!",
        },
        Correction(
            id="row-7", prompt="Name a city.\n\nIn France", original="Rome", edited="Paris!", extra={"output": "Lyon"}
        ),
    ),
    "fine-grained-rlhf": (
        {
            "question": "When does it come out?",
            "passages": [["Bloom", "Bloom is an album."]],
            "gold": "In August.",
            "prediction 1": "Out in July or so.",
            "prediction 2": "In June.",
            "feedback": FEEDBACK,
            "preference": [0, 1, 2, 1, 0, 2],
        },
        Correction(
            id="row-7",
            prompt="When does it come out?",
            original="Out in July or so.",
            edited="In May.",
            extra={
                "passages": [["Bloom", "Bloom is an album."]],
                "gold": "In August.",
                "prediction 2": "In June.",
                "feedback": FEEDBACK,
                "preference": [0, 1, 2, 1, 0, 2],
            },
        ),
    ),
    "helpsteer3-edit": (
        {**HELPSTEER, "edited_response": "No, it is not.", "change_summary": "Corrected."},
        Correction(
            id="row-7",
            prompt=TALK,
            original="Yes.",
            edited="No, it is not.",
            extra={
                "domain": "general",
                "language": "english",
                "feedback": HELPSTEER["feedback"],
                "change_summary": "Corrected.",
            },
        ),
    ),
    "helpsteer3-edit-quality": (
        {**HELPSTEER, "good_edited_response": "No, it is not.", "bad_edited_response": "Maybe."},
        Correction(
            id="row-7",
            prompt=TALK,
            original="Yes.",
            edited="No, it is not.",
            extra={
                "domain": "general",
                "language": "english",
                "feedback": HELPSTEER["feedback"],
                "bad_edited_response": "Maybe.",
            },
        ),
    ),
    "hh-rlhf": (
        {"chosen": f"{HH}\n\nAssistant: No, it\n\nis not.", "rejected": f"{HH}\n\nAssistant: Yes."},
        Correction(
            id="row-7",
            prompt=[
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": "Is it\n\nsafe?"},
            ],
            original="Yes.",
            edited="No, it\n\nis not.",
        ),
    ),
    "openai-preference": (
        {
            "input": {"messages": TALK, "tools": [], "parallel_tool_calls": True},
            "preferred_output": [NO],
            "non_preferred_output": [YES],
        },
        Correction(id="row-7", prompt=TALK, original="Yes.", edited="No, it is not."),
    ),
    "argilla": (
        {
            "id": "e1b5",
            "fields": {"instruction": "Is it safe?", "source": "faq"},
            "metadata": {"team": "a"},
            "suggestions": {"corrected": {"value": "Yes.", "score": None, "agent": "bot"}, "rating": {"value": 3}},
            "responses": {
                "corrected": [{"value": "No, it is not.", "user_id": "u1"}],
                "rating": [{"value": 5, "user_id": "u1"}],
            },
            "vectors": {},
            "status": "completed",
            "_server_id": "9f",
        },
        Correction(
            id="e1b5",
            prompt="Is it safe?",
            original="Yes.",
            edited="No, it is not.",
            extra={
                "metadata": {"team": "a"},
                "status": "completed",
                "_server_id": "9f",
                "source": "faq",
            },
        ),
    ),
    "argilla-table": (
        {
            "id": "e1b5",
            "status": "completed",
            "instruction": "Is it safe?",
            "draft": "Yes.",
            "corrected.responses": ["No, it is not.", "Never."],
            "corrected.responses.users": ["u1", "u2"],
            "corrected.responses.status": ["submitted", "discarded"],
        },
        Correction(
            id="e1b5",
            prompt="Is it safe?",
            original="Yes.",
            edited="No, it is not.",
            extra={"status": "completed", "corrected.responses.users": ["u1", "u2"]},
        ),
    ),
    "langfuse": (
        {
            "id": "t1",
            "timestamp": "2026-01-02T03:04:05Z",
            "input": {"messages": TALK},
            "output": YES,
            "scores": [
                {"name": "quality", "dataType": "NUMERIC", "value": 0.1},
                {"name": "output", "dataType": "CORRECTION", "value": 0, "stringValue": "No, it is not."},
            ],
        },
        Correction(
            id="t1",
            prompt=TALK,
            original="Yes.",
            edited="No, it is not.",
            extra={"timestamp": "2026-01-02T03:04:05Z"},
        ),
    ),
    "label-studio": (
        {
            "id": 4,
            "data": {"question": "Is it safe?", "source": "faq"},
            "annotations": [
                {"id": 1, "was_cancelled": True, "result": [TYPED | {"value": {"text": ["?"]}}]},
                {"id": 2, "was_cancelled": False, "result": [CHOICE, TYPED | {"value": {"text": ["No, it is not."]}}]},
            ],
            "predictions": [{"result": [TYPED | {"value": {"text": ["Yes."]}}]}],
            "project": 83,
        },
        Correction(
            id="4",
            prompt="Is it safe?",
            original="Yes.",
            edited="No, it is not.",
            extra={"project": 83, "source": "faq"},
        ),
    ),
    "label-studio-table": (
        {
            "id": "4",
            "question": "Is it safe?",
            "answer": "Yes.",
            "better": "No, it is not.",
            "annotation_id": "2",
            "created_at": "2026-01-02T03:04:05Z",
            "updated_at": "2026-01-02T03:04:05Z",
            "lead_time": "4.2",
        },
        Correction(
            id="4/2",
            prompt="Is it safe?",
            original="Yes.",
            edited="No, it is not.",
            extra={
                "annotation_id": "2",
                "created_at": "2026-01-02T03:04:05Z",
                "updated_at": "2026-01-02T03:04:05Z",
                "lead_time": "4.2",
            },
        ),
    ),
}


def parse(name: FormatName, row: dict[str, Any], line: int = 7) -> Correction:
    return FORMATS[name].parse(copy.deepcopy(row), line)


def is_trl_preference(row: dict[str, Any]) -> bool:
    """As TRL documents it: three texts, or three lists of messages."""
    values = [row["prompt"], row["chosen"], row["rejected"]]
    messages = [
        isinstance(value, list) and value and all(isinstance(m["role"] + m["content"], str) for m in value)
        for value in values
    ]
    return all(isinstance(value, str) for value in values) or all(messages)


def test_the_names_are_those_of_the_table() -> None:
    assert set(get_args(FormatName)) == set(FORMATS) == set(ROWS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_as_published(tmp_path: Path, name: FormatName) -> None:
    row, expected = ROWS[name]
    assert parse(name, row) == expected
    write_rows(tmp_path / "edits.jsonl", [expected])
    assert is_trl_preference(json.loads((tmp_path / "edits.jsonl").read_text()))
    assert read_corrections(tmp_path / "edits.jsonl") == [expected]


@pytest.mark.parametrize("name", FORMATS)
def test_is_recognised_as_itself_only(name: FormatName) -> None:
    row, _ = ROWS[name]
    assert [other for other, form in FORMATS.items() if form.fits(row)] == [name]
    form, why = recognise([row, row, {"prompt": "p"}])
    assert form is FORMATS[name]
    assert why == f"{form.title}: fields {', '.join(form.fields)} in 2 of 3 rows"
    assert set(form.fields) <= row.keys()


def test_recognise_at_exactly_half() -> None:
    row, _ = ROWS["spa"]
    assert recognise([row, {}]).format is FORMATS["spa"]
    with pytest.raises(ValueError, match=r"no format fits half of the first 3 rows, whose fields are .*input, instr"):
        recognise([row, {}, {}])


def test_what_is_not_recognised() -> None:
    with pytest.raises(ValueError, match=r"there is no row"):
        recognise([])
    with pytest.raises(
        ValueError, match=r"whose fields are question, text; looked for preference \(chosen, rej.*: 0\)"
    ):
        recognise([{"question": "q", "text": "t"}])
    with pytest.raises(ValueError, match=r"looked for .* spa \(instruction, original_output, revised_output: 0\)"):
        recognise([{}])
    with pytest.raises(
        ValueError, match=r"more than one format .* 2 rows: preference \(2\), draft-sent \(1\); .*--from"
    ):
        recognise([{"chosen": "a", "rejected": "b"}, {"chosen": "a", "rejected": "b", "draft": "c", "sent": "d"}])
    for name in ("response", "completion"):
        with pytest.raises(ValueError, match=r"rows are demonstrations .* `errata tune sft`"):
            recognise([{"prompt": "p", name: "yes"}])


def test_the_same_title_needs_the_types_too() -> None:
    # Column names alone say nothing: a ranking is no pair of texts.
    with pytest.raises(ValueError, match=r"no format fits"):
        recognise([{"prompt": "p", "chosen": 1, "rejected": 0}])
    with pytest.raises(ValueError, match=r"no format fits"):
        recognise([{"context": [1], "original_response": "a", "edited_response": "b"}])


# What each format makes of the unusual.


def test_an_answer_that_was_already_good() -> None:
    row = parse("implicit-prompt", {"chosen": [*TALK, YES], "rejected": [*TALK, YES]})
    assert (row.prompt, row.original, row.edited) == (TALK, "Yes.", "Yes.")
    row = parse("hh-rlhf", {"chosen": f"{HH}\n\nAssistant: Yes.", "rejected": f"{HH}\n\nAssistant: Yes."})
    assert (len(row.prompt), row.original, row.edited) == (3, "Yes.", "Yes.")


@pytest.mark.parametrize("prompt", ["Be kind.", "Is it safe?", TALK])
def test_a_conversation_that_repeats_its_prompt(prompt: Any) -> None:
    row = {"prompt": prompt, "chosen": [*TALK, NO], "rejected": [*TALK, YES]}
    assert recognise([row]).format is FORMATS["implicit-prompt"]
    assert parse("implicit-prompt", row).prompt == TALK


@pytest.mark.parametrize("between", ["", "\n\nAssistant:", "\n\nAssistant: "])
def test_an_hh_prompt_that_was_split_off(between: str) -> None:
    whole, expected = ROWS["hh-rlhf"]
    cut = len(f"{HH}\n\nAssistant:") + (between != "\n\nAssistant:")
    row = {"prompt": HH + between, **{name: text[cut:] for name, text in whole.items()}}
    assert recognise([row]).format is FORMATS["hh-rlhf"]
    assert parse("hh-rlhf", row) == expected


@pytest.mark.parametrize("context", [None, ""])
def test_spa_without_input(context: str | None) -> None:
    row, _ = ROWS["spa"]
    assert parse("spa", {**row, "input": context}).prompt == "Name a city."


def test_content_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Is it "}, {"type": "text", "text": "safe?", "image": None}]
    prompt = [{"role": "user", "content": parts, "tool_calls": None, "name": "Jo"}]
    answer = [{"role": "assistant", "content": [{"type": "text", "text": "No."}], "tool_calls": []}]
    row = parse("conversational", {"prompt": prompt, "chosen": answer, "rejected": [YES]})
    assert row.prompt == [{"role": "user", "content": "Is it safe?", "name": "Jo"}]
    assert row.edited == "No."


IMAGE = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "…"}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
REFUSED: list[tuple[FormatName, dict[str, Any], str]] = [
    ("conversational", {"prompt": [USER, {"role": "user", "content": IMAGE}]}, r"'prompt', message 2 .* 'image_url'"),
    ("conversational", {"prompt": [USER, CALL, USER]}, r"field 'prompt', message 2 calls a tool \('tool_calls'\)"),
    ("conversational", {"chosen": [CALL]}, r"field 'chosen' calls a tool"),
    (
        "conversational",
        {"rejected": [{"role": "assistant", "content": IMAGE}]},
        r"field 'rejected' has a .* 'image_url'",
    ),
    ("conversational", {"prompt": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, r"type 'text'"),
    ("conversational", {"prompt": [{"role": "user", "content": []}]}, r"field 'prompt' is neither"),
    ("conversational", {"reason": 3}, r"field 'reason' is neither a text nor a list of texts"),
    ("conversational", {"reason": ["style", ""]}, r"field 'reason' is neither"),
    (
        "implicit-prompt",
        {"chosen": [*TALK, YES, USER, NO]},
        r"share 2 messages and then differ in more than one answer",
    ),
    ("implicit-prompt", {"chosen": [*TALK, USER]}, r"share 2 messages and then differ"),
    ("implicit-prompt", {"chosen": [YES], "rejected": [NO]}, r"share no message before the answer"),
    ("implicit-prompt", {"prompt": "another"}, r"field 'prompt' is not what 'chosen' and 'rejected' begin with"),
    ("implicit-prompt", {"rejected": "text"}, r"field 'rejected' is neither a text nor a list"),
    ("preference", {"original": "a", "edited": "b"}, r"\('rejected', 'chosen'\) and \('original', 'edited'\) both"),
    ("preference", {"prompt": None}, r"field 'prompt' is missing; add it, or an empty text"),
    ("draft-sent", {"sent": 3}, r"field 'sent' is neither"),
    ("draft-sent", {"chosen": "x"}, r"field 'chosen' is none of this format, and errata writes one of that name"),
    ("spa", {"input": 3}, r"field 'input' is not a text but a int"),
    ("spa", {"revised_output": None}, r"field 'revised_output' is missing"),
    ("spa", {"draft": "a", "sent": "b"}, r"fields \('draft', 'sent'\) hold a text before and after, too"),
    ("spa", {"prompt": "another"}, r"field 'prompt' is none of this format"),
    ("fine-grained-rlhf", {"feedback": {**FEEDBACK, "corrected-prediction": " "}}, r"'corrected-prediction' is empty"),
    ("fine-grained-rlhf", {"feedback": {}}, r"holds no text 'corrected-prediction'"),
    ("fine-grained-rlhf", {"feedback": "good"}, r"holds no text 'corrected-prediction'"),
    ("helpsteer3-edit", {"context": []}, r"field 'context' is neither a text nor a list of messages"),
    ("helpsteer3-edit-quality", {"good_edited_response": [NO]}, r"'good_edited_response' is not a text but a list"),
    ("hh-rlhf", {"chosen": "Human: Hi\n\nAssistant: No."}, r"field 'chosen' does not begin with '\\n\\nHuman: '"),
    ("hh-rlhf", {"chosen": "\n\nAssistant: No."}, r"'chosen' and 'rejected' share 0 messages"),
    (
        "hh-rlhf",
        {"chosen": f"{HH}\n\nHuman: Well?\n\nAssistant: No."},
        r"share 3 messages and then differ in more than",
    ),
    ("hh-rlhf", {"prompt": TALK}, r"field 'prompt' is not a text"),
]


@pytest.mark.parametrize(("name", "fields", "message"), REFUSED)
def test_a_row_that_does_not_fit(name: FormatName, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(name, {**ROWS[name][0], **fields})


# Properties.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
parts = st.builds(lambda kind, text: {"type": kind, "text": text}, st.sampled_from(["text", "image"]), json_values)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | json_values},
    optional={"content": st.text(max_size=9) | st.lists(parts, max_size=2), "tool_calls": json_values},
)
dialogues = st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", " a", "b\n"]), max_size=7).map("".join)
values = json_values | st.lists(messages, max_size=4) | dialogues | st.just(FEEDBACK)
KNOWN = sorted({"id", "original_ids", *(name for row, _ in ROWS.values() for name in row)})


@given(st.sampled_from(sorted(FORMATS)), st.booleans(), st.dictionaries(st.sampled_from(KNOWN), values, max_size=6))
@example("implicit-prompt", False, {"chosen": [YES], "rejected": []})
@example("hh-rlhf", True, {"prompt": "\n\nHuman:"})
def test_any_row_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: FormatName, whole: bool, fields: dict[str, Any]
) -> None:
    row = {**(ROWS[name][0] if whole else {}), **fields}
    try:
        found = parse(name, row)
    except ValueError:
        return
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    write_rows(path, [found])
    assert is_trl_preference(json.loads(path.read_text()))
    assert read_corrections(path, empty_texts="keep") == [found]


@given(st.lists(st.dictionaries(st.sampled_from(KNOWN), values, max_size=6), max_size=3))
def test_any_rows_are_recognised_or_refused(rows: list[dict[str, Any]]) -> None:
    try:
        form, _ = recognise(rows)
    except ValueError:
        return
    assert form in FORMATS.values()


contents = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=9)


@given(st.lists(contents, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2), contents, contents)
def test_hh_dialogues_come_apart_as_they_were_put_together(turns: list[str], original: str, edited: str) -> None:
    names = ["Human", "Assistant"] * 3
    dialogue = "".join(f"\n\n{name}: {turn}" for name, turn in zip(names, turns, strict=False))
    row = {"rejected": f"{dialogue}\n\nAssistant: {original}", "chosen": f"{dialogue}\n\nAssistant: {edited}"}
    found = parse("hh-rlhf", row)
    assert (found.original, found.edited) == (original, edited)
    assert [message["content"] for message in found.prompt] == turns  # type: ignore[index]
    assert [message["role"] for message in found.prompt] == ["user", "assistant", "user", "assistant", "user"][
        : len(turns)
    ]  # type: ignore[index]


# Files and other ways in.

cells = (
    json_values.map(json.dumps)
    | st.sampled_from(['"', "'", "\\ud83d", "[" * 999, "{" * 9, "\0", "9" * 5000])
    | st.text()
)
rows_of_text = st.lists(
    st.dictionaries(st.sampled_from(KNOWN), values, max_size=4).map(json.dumps) | cells | st.just("chosen,rejected")
)
files = st.binary() | st.builds(
    lambda rows, by: by.join(rows).encode(), rows_of_text, st.sampled_from(["\n", ",", ", "])
)


@given(
    files | files.map(lambda data: b"[" + data + b"]"), st.sampled_from(["json", "jsonl", "csv", "jsonl.gz", "parquet"])
)
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(data)
    try:
        form, _ = recognise_file(path)
    except ValueError:
        form = FORMATS["implicit-prompt"]
    try:
        rows = list(iter_corrections(path, form=form, set_aside=path.with_name("aside.jsonl")))
    except ValueError:
        return
    assert rows


def test_a_row_nested_too_deep(tmp_path: Path) -> None:
    # Which step gives up first depends on the depth; the limit of Python is 1000 frames, ours among them.
    path = tmp_path / "rows.jsonl"
    for depth in range(880, 1000):
        deep = "[" * depth + '"\\u00e9"' + "]" * depth
        row = json.dumps({**ROWS["spa"][0], "k": 0}).replace('"k": 0', f'"k": {deep}')
        path.write_text(f"{row}\n{json.dumps(ROWS['spa'][0])}\n")
        recognise_file(path)
        rows = list(iter_corrections(path, form=FORMATS["spa"], set_aside=tmp_path / "aside.jsonl"))
        assert rows[-1].id == "row-2"


def test_a_file_is_recognised_by_its_first_rows(tmp_path: Path) -> None:
    row, expected = ROWS["helpsteer3-edit"]
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row)] * 3 + ["{oops"] + [json.dumps({"prompt": "p", "draft": "a", "sent": "a b"})] * 9
    path.write_text("\n".join(lines))
    form, why = recognise_file(path, first=4)
    assert why == "HelpSteer3 edits: fields context, original_response, edited_response in 3 of 3 rows"
    kept = list(iter_corrections(path, form=form, set_aside=tmp_path / "aside.jsonl"))
    assert [found.id for found in kept] == ["row-1", "row-2", "row-3"]
    assert kept[0].edited == expected.edited
    aside = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert [each["line"] for each in aside] == list(range(4, 14))
    assert aside[1]["error"] == "field 'context' is missing; add it, or an empty text where there was none"


def test_a_file_that_is_not_recognised_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "t"}\n')
    with pytest.raises(
        ValueError, match=r"rows.jsonl: no format fits half of the first 1 rows, whose fields are text;"
    ):
        recognise_file(path)
    path.write_text("{oops\n[]\n")
    with pytest.raises(
        ValueError, match=r"has no usable row among its first 100: line 1: not JSON.*; give it at least"
    ):
        recognise_file(path)
    path.write_text("")
    with pytest.raises(ValueError, match=r"rows.jsonl has no usable row; give it at least one"):
        recognise_file(path)


def test_corrections_from_mappings(tmp_path: Path) -> None:
    rows = [ROWS["spa"][0], {"instruction": 3}, {**ROWS["spa"][0], "id": None, "note": None}]
    given_rows = copy.deepcopy(rows)
    found = list(corrections_from(iter(rows), form=FORMATS["spa"], set_aside=tmp_path / "aside.jsonl"))
    assert [row.id for row in found] == ["row-1", "row-3"]
    assert found[1].extra == {"output": "Lyon"}
    assert rows == given_rows
    assert json.loads((tmp_path / "aside.jsonl").read_text())["line"] == 2
    with pytest.raises(ValueError, match=r"the rows, line 1: field 'chosen' holds half of a surrogate pair"):
        list(corrections_from([{"prompt": "p", "chosen": "\ud83d", "rejected": "b"}]))
    with pytest.raises(ValueError, match=r"the rows, line 1: not a mapping but a str"):
        list(corrections_from(["row"]))  # type: ignore[list-item]


def test_prompt_completion_rows_are_demonstrations(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps([{"prompt": TALK, "completion": [YES]}, {"prompt": "p", "completion": "No, it is not."}])
    )
    assert [row.response for row in read_demonstrations(path)] == ["Yes.", "No, it is not."]


@pytest.mark.parametrize(
    ("name", "form"),
    [("hh_harmless_test_first1000", "hh-rlhf"), ("iterater_train", "preference"), ("fgrlhf_edits_spans", "preference")],
)
def test_shared_data_is_recognised(name: str, form: FormatName) -> None:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    found = recognise_file(path)
    assert found.format is FORMATS[form]
    rows = list(iter_corrections(path, form=found.format, empty_texts="keep"))
    raw = [json.loads(line) for _, line in read_lines(path)]
    assert [(row.original, row.edited) for row in rows] == [(row["rejected"], row["chosen"]) for row in raw]
    if form == "hh-rlhf":
        assert all(row.prompt[-1]["role"] == "user" for row in rows)  # type: ignore[index]
