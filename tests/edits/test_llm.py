"""The LLM editor against scripted chats: what is taken, what is asked again and what is set aside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from errata.client import Answer, Ask, Stop
from errata.data import write_rows
from errata.edits import Draft, LLMEditorConfig, edit_drafts, read_material, statistics
from errata.edits.request import prompt_id

TEN = "One two three four five six seven eight nine ten"
"""Ten words, of which the caps below let five change."""


def reply(verdict: str = "edit", text: str = "", reasons: Sequence[str] = ("wrong",), why: str = "because") -> Answer:
    value = {"why": why, "verdict": verdict, "reasons": list(reasons), "text": text}
    return answer(json.dumps(value), value=value)


def answer(text: str, **settings: Any) -> Answer:
    usual = {"stop": Stop.END, "model": "m-1", "input_tokens": 10, "output_tokens": 2, "cost": 0.5}
    return Answer(text=text, **{**usual, **settings})


class Scripted:
    """Gives, for each response, one answer after the other; notes what it was asked."""

    def __init__(self, script: dict[str, list[Answer]]) -> None:
        self.script = {key: list(answers) for key, answers in script.items()}
        self.rounds: list[list[Ask]] = []

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        self.rounds.append(list(asks))
        return [self.script[read_material(ask.messages).response].pop(0) for ask in asks]


def drafts(*responses: str) -> list[Draft]:
    return [Draft(id=f"d{k}", prompt="Count.", response=text) for k, text in enumerate(responses)]


def one(answers: Sequence[Answer], response: str = TEN, reference: str | None = None, **settings: Any) -> Any:
    chat = Scripted({response: list(answers)})
    (draft,) = drafts(response)
    found = edit_drafts(chat, [replace(draft, reference=reference)], LLMEditorConfig(**settings))
    return found, chat


def test_an_edit_is_a_correction_that_says_how_it_was_made() -> None:
    found, chat = one([reply(text=TEN.replace("two", "2"), reasons=["style", "nonsense", "style"])])
    (row,) = found.corrections
    assert (row.original, row.edited, row.reasons) == (TEN, TEN.replace("two", "2"), ("style",))
    assert (row.extra["editor_model"], row.extra["editor_verdict"], row.extra["editor_tries"]) == ("m-1", "edit", 1)
    assert row.extra["editor_prompt"] == found.report.prompt
    assert row.extra["editor_why"] == "because"
    assert len(chat.rounds) == 1
    assert not found.set_aside


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("keep", ""),
        ("keep", TEN),
        ("keep", f"  {TEN}\n"),
        ("keep", TEN.replace(" ", "  ")),
        ("edit", TEN),
        ("edit", f"  {TEN}\n"),
    ],
)
def test_what_is_good_is_kept_as_a_correction_without_edit(verdict: str, text: str) -> None:
    found, _ = one([reply(verdict, text)])
    (row,) = found.corrections
    assert row.original == row.edited == TEN
    assert row.reasons == ()
    assert row.extra["editor_verdict"] == "keep"
    assert (found.report.kept, found.report.edited) == (1, 0)


def test_ids_fields_and_conversations_travel_and_blanks_at_the_ends_are_the_responses() -> None:
    prompt = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "When?"}]
    draft = Draft(id="a", prompt=prompt, response=" At nine.\n\n", response_ids=(1, 2), extra={"user": "u"})
    found = edit_drafts(Scripted({draft.response: [reply(text="At ten.")]}), [draft])
    (row,) = found.corrections
    assert (row.edited, row.original_ids, row.extra["user"], row.prompt) == (" At ten.\n\n", (1, 2), "u", prompt)


@pytest.mark.parametrize(
    ("response", "said", "taken"),
    [
        ("a b c", "```\na b d\n```", "a b d"),
        ("a b c", "~~~text\na b d\n~~~", "a b d"),
        ("```\na b\n```", "```\na c\n```", "```\na c\n```"),
        ("a b c d", "```\na b\n```\nc\n```\nd\n```", "```\na b\n```\nc\n```\nd\n```"),
        ("a b c", "<response>\na b d\n</response>", "a b d"),
        ("a b c", "<response-12345678>a b d</response-12345678>", "a b d"),
        ("<response>a b</response>", "<response>a c</response>", "<response>a c</response>"),
        ('a\n"b"', 'a\\n\\"c\\"', 'a\n"c"'),
        (r"a\nb", r"a\nc", r"a\nc"),
        ("a\nb \\n c", "a b \\n d", "a b \\n d"),
        ("a\r\nb c", "a\nb d", "a\r\nb d"),
        ("a\r\nb c", "a\r\nb d", "a\r\nb d"),
    ],
)
def test_what_models_wrap_round_a_text_is_taken_off(response: str, said: str, taken: str) -> None:
    found, _ = one([reply(text=said)], response, max_edit_ratio=1.0, max_growth=9, free_words=20)
    assert [row.edited for row in found.corrections] == [taken]


SIX_CHANGED = "a b c d e f seven eight nine ten"
PROBLEMS: dict[str, tuple[Answer, str]] = {
    "over-edited": (reply(text=SIX_CHANGED), "it changes 6 of 10 words (60%), 1 more than the 5 that are allowed"),
    "too long": (
        reply(text=f"{TEN} a b c d e f"),
        "it has 16 words, the response 10, and at most 15 are allowed",
    ),
    "empty": (reply(text=" \n"), "there is no text"),
    "refusal": (reply(text="I'm sorry, but I can't help with that."), "refusal in the place of the response"),
    "cut off": (answer('{"why": "', stop=Stop.LENGTH), "cut off"),
    "unreadable": (answer("Sure! Here you go"), "not the JSON"),
    "contradiction": (reply("keep", TEN.replace("two", "2")), "not that of the response"),
}


@pytest.mark.parametrize("reason", PROBLEMS)
def test_a_bad_edit_is_asked_for_once_more_and_told_why(reason: str) -> None:
    bad, why = PROBLEMS[reason]
    good = TEN.replace("two", "2")
    found, chat = one([bad, reply(text=good)], max_growth=1.5)
    assert [row.edited for row in found.corrections] == [good]
    assert found.corrections[0].extra["editor_tries"] == 2
    assert (found.report.retried, found.report.mended) == (1, 1)
    (first,), (second,) = chat.rounds
    assert why in second.messages[-1]["content"]
    assert second.schema == first.schema
    assert second.max_tokens == first.max_tokens * (2 if reason == "cut off" else 1)
    useless = reason in ("cut off", "unreadable")
    assert [message["role"] for message in second.messages] == [
        "system",
        "user",
        *([] if useless else ["assistant", "user"]),
    ]
    assert useless or second.messages[2]["content"] == bad.text


@pytest.mark.parametrize("reason", PROBLEMS)
def test_a_second_bad_edit_is_set_aside_with_the_reason_of_the_second(reason: str) -> None:
    bad, why = PROBLEMS[reason]
    other = PROBLEMS["over-edited" if reason != "over-edited" else "empty"][0]
    found, chat = one([other, bad])
    (aside,) = found.set_aside
    assert (aside.reason, aside.draft.response, aside.answer) == (reason, TEN, bad.text)
    assert why in aside.why
    assert (found.report.retried, found.report.mended) == (1, 0)
    assert found.report.set_aside == {reason: 1}
    assert len(chat.rounds) == 2


@pytest.mark.parametrize(
    ("bad", "reason", "why"),
    [
        (reply("cannot", why="no idea"), "cannot", "no idea"),
        (answer("", stop=Stop.ERROR, error="500 after 5 tries"), "error", "500 after 5 tries"),
        (answer("", stop=Stop.REFUSAL), "refusal", "would not answer"),
    ],
)
def test_what_asking_again_does_not_change_is_set_aside_at_once(bad: Answer, reason: str, why: str) -> None:
    found, chat = one([bad])
    assert (found.set_aside[0].reason, why in found.set_aside[0].why, found.report.retried) == (reason, True, 0)
    assert len(chat.rounds) == 1


@pytest.mark.parametrize(
    ("text", "taken"),
    [("a b c d e six seven eight nine ten", True), (SIX_CHANGED, False), (f"{TEN} a b c d e", True)],
)
def test_the_caps_are_limits_that_may_be_reached(text: str, taken: bool) -> None:
    found, _ = one([reply(text=text)] * 2)
    assert bool(found.corrections) is taken


def test_a_short_response_may_change_wholly() -> None:
    assert one([reply(text="No, they are not")], "Yes")[0].corrections
    assert not one([reply(text="No, they are not")] * 2, "Yes", free_words=2)[0].corrections


def test_a_refusal_is_none_where_the_response_or_the_reference_is_one() -> None:
    refusal = "I cannot help with that."
    caps = {"max_edit_ratio": 1.0, "free_words": 30}
    assert one([reply(text=refusal)], "I can't help with this.")[0].corrections
    assert one([reply(text=refusal)], reference="I won't do that.", **caps)[0].corrections
    assert one([reply(text=refusal)] * 2, reference="Ten, of course.", **caps)[0].set_aside[0].reason == "refusal"
    assert one([reply(text="I can see why. One two.")], "I can see. One two.")[0].corrections
    assert one([reply(text="Sorry, we are closed on Monday.")], "We are closed on Monday.")[0].corrections


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"verdict": "edit", "text": TEN, "reasons": []},
        {"why": "", "verdict": "perhaps", "text": TEN, "reasons": []},
        {"why": "", "verdict": "edit", "text": None, "reasons": []},
        {"why": "", "verdict": "edit", "text": TEN, "reasons": "wrong"},
        {"why": "", "verdict": "edit", "text": TEN, "reasons": [1]},
        {"why": "", "verdict": "edit", "text": TEN + "\ud83d", "reasons": []},
        {"why": "\ud83d", "verdict": "cannot", "text": "", "reasons": []},
    ],
)
def test_a_server_that_enforces_no_schema(value: object) -> None:
    found, _ = one([answer("…", value=value)] * 2)
    assert found.set_aside[0].reason == "unreadable"


def test_an_empty_response_is_set_aside_and_nobody_is_asked() -> None:
    chat = Scripted({TEN: [reply("keep")]})
    found = edit_drafts(chat, drafts(" \n", TEN))
    assert [(each.draft.id, each.reason) for each in found.set_aside] == [("d0", "empty")]
    assert [row.id for row in found.corrections] == ["d1"]
    assert len(chat.rounds[0]) == 1
    assert edit_drafts(Scripted({}), []).report.rows == 0


def test_all_rows_are_asked_in_the_first_round_and_some_in_a_second() -> None:
    good, bad = reply(text="x"), PROBLEMS["unreadable"][0]
    chat = Scripted({"a": [good], "b": [bad, good], "c": [reply("cannot")], "d": [bad, bad], "e": [reply("keep")]})
    found = edit_drafts(chat, drafts(*"abcde"))
    assert [len(asks) for asks in chat.rounds] == [5, 2]
    assert [row.id for row in found.corrections] == ["d0", "d1", "d4"]
    assert [each.draft.id for each in found.set_aside] == ["d2", "d3"]
    report = found.report
    assert (report.rows, report.kept, report.edited, report.retried, report.mended) == (5, 1, 2, 2, 1)
    assert report.set_aside == {"cannot": 1, "unreadable": 1}
    assert (report.answers, report.input_tokens, report.output_tokens, report.cost) == (7, 70, 14, 3.5)
    assert report.edits == statistics(found.corrections)
    assert "5 responses: 2 edited, 1 kept as they are, 2 set aside (1 cannot, 1 unreadable)" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["edits"]["rows"] == 3


def test_cost_is_known_or_not_and_the_ledger_is_free() -> None:
    cached = replace(reply(text="x"), cached=True, cost=0.75)
    found = edit_drafts(Scripted({"a": [cached], "b": [reply("keep")]}), drafts("a", "b"))
    assert (found.report.cost, found.report.cost_now, found.report.cached) == (1.25, 0.5, 1)
    assert "$1.2500 ($0.5000 of it this time)" in str(found.report)
    found = edit_drafts(Scripted({"a": [replace(cached, cost=None)]}), drafts("a"))
    assert found.report.cost is None
    assert "prices that are not known" in str(found.report)


def test_a_judge_is_asked_of_edits_only_and_has_the_last_word() -> None:
    seen: list[object] = []

    def objections(pairs: Sequence[tuple[object, str, str]]) -> list[str | None]:
        seen.extend(pairs)
        return ["it is worse" if edited == "worse" else None for _, _, edited in pairs]

    chat = Scripted({"a": [reply(text="better")], "b": [reply(text="worse")], "c": [reply("keep")]})
    found = edit_drafts(chat, drafts("a", "b", "c"), objections=objections)
    assert seen == [("Count.", "a", "better"), ("Count.", "b", "worse")]
    assert [row.id for row in found.corrections] == ["d0", "d2"]
    assert [(each.draft.id, *each[1:]) for each in found.set_aside] == [("d1", "not preferred", "it is worse", "worse")]
    assert (found.report.edited, found.report.set_aside) == (1, {"not preferred": 1})


def test_rows_can_be_written_and_say_no_more_than_text(tmp_path) -> None:
    found, _ = one([reply(text=TEN.replace("two", "2"))])
    write_rows(tmp_path / "edits.jsonl", found.corrections)
    (line,) = [json.loads(line) for line in (tmp_path / "edits.jsonl").read_text().splitlines()]
    assert (line["rejected"], line["chosen"], line["reason"]) == (TEN, TEN.replace("two", "2"), ["wrong"])


@pytest.mark.parametrize(
    "settings", [{"max_edit_ratio": 0}, {"max_edit_ratio": 1.5}, {"max_growth": 0.5}, {"free_words": -1}, {"tags": ()}]
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings)).replace('_', '[-_]')} .*is"):
        LLMEditorConfig(**settings)


def test_settings_are_what_is_asked() -> None:
    chat = Scripted({TEN: [reply("keep")]})
    config = LLMEditorConfig(max_tokens=99, temperature=None, tags=("tone",))
    found = edit_drafts(chat, drafts(TEN), config, guideline="Be kind.")
    assert found.report.prompt == prompt_id("Be kind.", ("tone",))
    (ask,) = chat.rounds[0]
    assert (ask.max_tokens, ask.temperature) == (99, None)
    assert ask.schema is not None
    assert ask.schema["properties"]["reasons"]["items"]["enum"] == ["tone"]
    assert "Be kind." in ask.messages[0]["content"]


def test_other_caps_ask_the_same_first_question() -> None:
    asked: Callable[..., Ask] = lambda **caps: one([reply("keep")], **caps)[1].rounds[0][0]  # noqa: E731
    assert asked() == asked(max_edit_ratio=0.9, max_growth=3, free_words=0)
