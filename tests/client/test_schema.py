from __future__ import annotations

import pytest

from errata.client.schema import in_words, misfit, read_answer

EDIT = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["keep", "edit"]},
        "text": {"type": ["string", "null"], "maxLength": 5},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["verdict"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"verdict": "keep"}, None),
        ({"verdict": "edit", "text": None, "tags": ["a", "b"], "score": 5}, None),
        ({"verdict": "edit", "score": 5.0}, None),  # to JSON Schema, an integer
        ([], "the answer is no object"),
        ({}, "lacks 'verdict'"),
        ({"verdict": "drop"}, "none of"),
        ({"verdict": "keep", "why": "x"}, "'why', which nobody asked for"),
        ({"verdict": "keep", "text": 1}, "answer.text is no string or null"),
        ({"verdict": "keep", "text": "longer"}, "answer.text has a length of 6"),
        ({"verdict": "keep", "tags": ["a", 1]}, r"answer.tags\[1\] is no string"),
        ({"verdict": "keep", "tags": ["a", "b", "c"]}, "answer.tags has a length of 3"),
        ({"verdict": "keep", "score": True}, "answer.score is no integer"),
        ({"verdict": "keep", "score": 0}, "below 1"),
        ({"verdict": "keep", "score": 6}, "above 5"),
        ({"verdict": "keep", "score": 4.5}, "no integer"),
    ],
)
def test_what_fits(value: object, problem: str | None) -> None:
    found = misfit(value, EDIT)
    if problem is None:
        assert found is None
    else:
        with pytest.raises(ValueError, match=problem):
            raise ValueError(found)


def test_any_of_and_const() -> None:
    either = {"anyOf": [{"const": 1}, {"type": "string"}]}
    assert misfit(1, either) is None
    assert misfit("a", either) is None
    assert misfit(True, either) is not None
    assert misfit({"a": 1}, {"type": "object", "additionalProperties": {"type": "string"}}) is not None


def test_an_unknown_word_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="pattern"):
        misfit("a", {"pattern": "a"})


@pytest.mark.parametrize(
    "text",
    [
        '{"verdict": "keep"}',
        'Sure!\n```json\n{"verdict": "keep"}\n```\nAnything else?',
        '<think>Perhaps {"verdict": "edit"}? {no}</think> {"verdict": "keep"}',
    ],
)
def test_words_around_the_value_are_passed_over(text: str) -> None:
    assert read_answer(text, EDIT) == ({"verdict": "keep"}, None)


@pytest.mark.parametrize("text", ["", "keep", '{"verdict": "ke', '{"verdict": NaN}', "[" * 100_000])
def test_no_json(text: str) -> None:
    value, problem = read_answer(text, EDIT)
    assert (value, problem) == (None, "the answer is no JSON, or is cut off")


def test_in_words_holds_the_schema() -> None:
    assert '"maxLength": 5' in in_words(EDIT)
