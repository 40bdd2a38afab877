"""Does a chat template agree with how errata encodes? What is trained is what generation sees; this says what differs.

Training and generation both have ``prompt ids + response ids + end``. A template that renders the whole conversation
may have it otherwise: the answer's white space stripped, an empty block of thoughts before it, another end.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from errata.data.encoding import Encoder
from errata.types import Prompt

__all__ = ["TemplateFinding", "check_template"]

_NO_THOUGHTS = r"<think>\s*</think>\s*"
_SHOWN = 24  # characters of a text that a finding quotes


class TemplateFinding(NamedTuple):
    """One departure of the template: an ``error`` to mend before training, or a ``note`` to know of."""

    severity: Literal["error", "note"]
    text: str


def check_template(encoder: Encoder, prompt: Prompt, response: str) -> list[TemplateFinding]:
    """Where the chat template's rendering of a whole conversation departs from the ids that errata trains on.

    An error means that the model is taught a text which the template would never show it: the prompt is rendered
    otherwise once it is answered, or the answer is changed. A note means the same text in other tokens, an empty block
    of thoughts, or something after the end, which is not trained. Lengths do not matter here.

    Args:
        encoder: how rows are encoded; a plain template cannot disagree.
        prompt: of one row.
        response: its answer.

    Returns:
        The findings; empty where whole and parts agree id by id. What cannot be encoded at all is an error among them.
    """
    encoder = encoder.unlimited
    dated = []
    if encoder.template == "chat" and "strftime_now" in str(encoder.tokenizer.chat_template):
        text = "the template writes the day's date: the same row has other ids tomorrow; give the date in the prompt"
        dated = [TemplateFinding("note", text)]
    return dated + _departures(encoder, prompt, response)


def _departures(encoder: Encoder, prompt: Prompt, response: str) -> list[TemplateFinding]:
    question = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    answered = [*question, {"role": "assistant", "content": response}]
    try:
        row = encoder.encode(prompt, response)
        if encoder.template != "chat":
            return []
        whole_ids = encoder.conversation_ids(answered, add_generation_prompt=False)
        whole = encoder.render(answered, add_generation_prompt=False)
        asked = encoder.render(question, add_generation_prompt=True)
    except ValueError as error:
        return [TemplateFinding("error", str(error))]
    found = _beginnings(encoder, row.ids)
    if tuple(whole_ids[: len(row.ids)]) == row.ids:
        return found + _after_the_end(encoder, whole_ids[len(row.ids) :])
    tail, departures = _answer_in(whole, asked, response)
    found += departures
    if tail is not None:
        found += _end(encoder, tail)
        if not departures and tuple(whole_ids[: len(row.ids) - 1]) != row.ids[:-1]:
            found.append(
                TemplateFinding(
                    "note", "the same text has other tokens in the whole conversation: they merge at a seam"
                )
            )
    return found


def _beginnings(encoder: Encoder, ids: tuple[int, ...]) -> list[TemplateFinding]:
    # Two at the start do not get here: encoding refuses them.
    bos = encoder.tokenizer.bos_token_id
    if bos is None or bos in encoder.end_ids or ids[0] == bos:
        return []
    return [
        TemplateFinding("note", f"no {encoder.tokenizer.bos_token!r} at the beginning, though the tokenizer has one")
    ]


def _answer_in(whole: str, asked: str, response: str) -> tuple[str | None, list[TemplateFinding]]:
    """What the template writes after the answer (None if the answer is not found), and what differs until there."""
    thoughts = "the template writes an empty block of thoughts before {} answer and not before {}; both are answered"
    found: list[TemplateFinding] = []
    if not whole.startswith(asked):
        without = re.sub(_NO_THOUGHTS + r"\Z", "", asked)
        if not (without != asked and whole.startswith(without)):
            at = next((k for k, pair in enumerate(zip(whole, asked, strict=False)) if len(set(pair)) > 1), len(whole))
            return None, [
                TemplateFinding(
                    "error",
                    "the prompt is rendered otherwise once it is answered: "
                    f"{asked[at : at + _SHOWN]!r} becomes {whole[at : at + _SHOWN]!r}; mend the template",
                )
            ]
        found.append(TemplateFinding("note", thoughts.format("a new", "one of the past")))
        asked = without
    rest = whole[len(asked) :]
    if not rest.startswith(response):
        without = re.sub(r"\A" + _NO_THOUGHTS, "", rest)
        if without != rest:
            found.append(TemplateFinding("note", thoughts.format("one of the past", "a new")))
            rest = without
    if rest.startswith(response):
        return rest[len(response) :], found
    if rest.lstrip().startswith(response.strip()):
        text = f"the template changes white space around the answer {response[:_SHOWN]!r}: it writes {rest[:_SHOWN]!r}"
        found.append(TemplateFinding("error", f"{text}; strip the responses, or mend the template"))
        return rest.lstrip()[len(response.strip()) :], found
    text = f"the template changes the answer {response[:_SHOWN]!r} to {rest[:_SHOWN]!r}; mend the template"
    return None, [*found, TemplateFinding("error", text)]


def _end(encoder: Encoder, tail: str) -> list[TemplateFinding]:
    ids = list(encoder.tokenizer(tail, add_special_tokens=False, verbose=False)["input_ids"])
    end = encoder.tokenizer.convert_ids_to_tokens(encoder.end_id)
    if encoder.end_id not in ids:
        return [TemplateFinding("note", f"the template writes no end after an answer; {end!r} is trained")]
    before, after = ids[: ids.index(encoder.end_id)], ids[ids.index(encoder.end_id) + 1 :]
    if before:
        found = TemplateFinding(
            "note", f"the template writes {encoder.tokenizer.decode(before)!r} before the end {end!r}"
        )
        return [found, *_after_the_end(encoder, after)]
    return _after_the_end(encoder, after)


def _after_the_end(encoder: Encoder, ids: list[int]) -> list[TemplateFinding]:
    if not ids:
        return []
    text = encoder.tokenizer.decode(ids)
    return [TemplateFinding("note", f"the template writes {text!r} after the end, which is not trained")]
