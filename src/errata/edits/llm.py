"""A language model as the editor: responses in, corrections out, and what cannot be used set aside with the reason.

The model gives a verdict and the whole edited text; what changed is found by ``errata.edits.diff``, never by the model.
An edit is taken only if it is whole, no refusal, and small enough; if not, the model is asked once more and told why.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import inf
from typing import Annotated, Any, NamedTuple

from errata.client import Answer, Ask, Chat, Stop, total_cost
from errata.edits.request import REASONS, Draft, prompt_id, request, retry, schema
from errata.edits.summary import EditStatistics, statistics
from errata.edits.word_spans import split_words, word_distance
from errata.ranges import Range, Size, check_ranges
from errata.types import Correction, Prompt

__all__ = [
    "Aside",
    "EditReport",
    "EditedDrafts",
    "LLMEditorConfig",
    "Objections",
    "SetAside",
    "edit_drafts",
    "first_asks",
]

Objections = Callable[[Sequence[tuple[Prompt, str, str]]], Sequence[str | None]]
"""Of each (prompt, original, edited) why the edited text is not the better one, or None: a judge, handed in."""

_REFUSAL = re.compile(
    r"(i['’]?m |i am )?(very |so )?(sorry|afraid|unable)\b.{0,60}?\b(can(no|['’])t|can not|unable|not able|won['’]t)\b"
    r"|i (can(no|['’])t|can not|won['’]t|will not|must decline|(am|'m) (unable|not able))\b"
    r"|i['’]m (unable|not able)\b|as an ai\b",
    re.IGNORECASE | re.DOTALL,
)
_FENCED = re.compile(r"(`{3,}|~{3,})[^\n`]*\n((?:(?!\1).)*?)\n?\1", re.DOTALL)
_TAGGED = re.compile(r"<response(-\w{8})?>\n?(.*?)\n?</response\1?>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class LLMEditorConfig:
    """What is asked of the editor, and what is taken of its answers."""

    max_edit_ratio: Annotated[float, Range(above=0, high=1)] = 0.5
    """The most that an edit may change, as a share of the words of the longer text."""
    max_growth: Annotated[float, Range(low=1, high=inf)] = 1.5
    """The most words of the edited text, as a multiple of those of the response."""
    free_words: Annotated[int, Range(low=0)] = 5
    """So many words may always be changed or added, however short the response is."""
    max_tokens: Size = 2048
    """Longest answer of the model, in its tokens; one that is cut off is asked for again with twice as many."""
    temperature: Annotated[float, Range(low=0, high=100)] | None = 0.0
    """Of the model; None leaves it to the server."""
    tags: tuple[str, ...] = REASONS
    """What the model may name as reasons; say in the guideline what tags of your own mean."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.tags:
            raise ValueError("tags is empty; give at least one")


class Aside(StrEnum):
    """Why a response has no correction."""

    OVER_EDITED = "over-edited"
    """More words changed than ``max_edit_ratio`` allows."""
    TOO_LONG = "too long"
    """More words than ``max_growth`` allows."""
    EMPTY = "empty"
    """No text where an edit was said to be, or nothing to edit."""
    REFUSAL = "refusal"
    """The model or its provider would not do it, or the text refuses in place of the response."""
    CUT_OFF = "cut off"
    """``max_tokens`` was reached."""
    UNREADABLE = "unreadable"
    """Not the JSON that was asked for."""
    CONTRADICTION = "contradiction"
    """The verdict is to keep the response, the text is another."""
    CANNOT = "cannot"
    """The model's own verdict."""
    NOT_PREFERRED = "not preferred"
    """The judge does not find the edited text better."""
    ERROR = "error"
    """No answer, after all tries of the client."""


class SetAside(NamedTuple):
    """A response without a correction."""

    draft: Draft
    reason: Aside
    why: str
    answer: str
    """The model's last, as it came."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EditReport:
    """What became of the responses, and what it cost."""

    rows: int
    kept: int
    """Found good as they are: corrections whose two texts are equal."""
    edited: int
    retried: int
    """Asked for a second time."""
    mended: int
    """Of those, the ones whose second answer was taken."""
    set_aside: Mapping[str, int]
    """By reason, most first."""
    edits: EditStatistics
    """Of the corrections; the distribution of the edit ratio is in it."""
    prompt: str
    models: Mapping[str, int]
    """Answers by model, as the server names it."""
    input_tokens: int
    output_tokens: int
    cost: float | None
    """In US dollars, of all answers; None if a price is not known."""
    cost_now: float | None
    """Of those that were not in the ledger."""
    cached: int
    """Answers that were in the ledger."""
    answers: int

    def as_dict(self) -> dict[str, Any]:
        """All of it by name, ready for JSON."""
        return {**asdict(self), "edits": self.edits.as_dict()}

    def __str__(self) -> str:
        aside = ", ".join(f"{count} {reason}" for reason, count in self.set_aside.items())
        edits, quartile = self.edits, self.edits.edit_ratio_quantiles
        lines = [
            f"{self.rows} responses: {self.edited} edited, {self.kept} kept as they are, "
            f"{sum(self.set_aside.values())} set aside{f' ({aside})' if aside else ''}",
            f"asked twice: {self.retried}, of which the second answer was taken: {self.mended}",
        ]
        if self.edited:
            lines.append(
                f"edit ratio of the edited: {edits.median_edit_ratio:.2f} in the median, half of them from "
                f"{quartile['0.25']:.2f} to {quartile['0.75']:.2f}, one in twenty above {quartile['0.95']:.2f}; "
                f"{edits.words_typed} words typed, {edits.words_deleted} deleted"
            )
        if edits.reasons:
            lines.append(f"reasons: {', '.join(f'{tag} {count}' for tag, count in edits.reasons.items())}")
        models = " and ".join(self.models) or "no model"
        cost = "at prices that are not known" if self.cost is None else f"${self.cost:.4f}"
        now = "" if self.cost_now is None or not self.cached else f" (${self.cost_now:.4f} of it this time)"
        lines.append(
            f"{self.answers} answers by {models}, {self.cached} of them from the ledger: {self.input_tokens} tokens "
            f"in, {self.output_tokens} out, {cost}{now}; prompts {self.prompt}"
        )
        return "\n".join(lines)


class EditedDrafts(NamedTuple):
    """What ``edit_drafts`` gives."""

    corrections: list[Correction]
    """In the order of the drafts."""
    set_aside: list[SetAside]
    report: EditReport


def edit_drafts(
    chat: Chat,
    drafts: Sequence[Draft],
    config: LLMEditorConfig | None = None,
    *,
    guideline: str = "",
    objections: Objections | None = None,
) -> EditedDrafts:
    """Ask the model for all drafts, then once more for those whose edit cannot be used.

    A correction says in ``extra`` how it was made: ``editor_model``, ``editor_prompt`` (version and hash),
    ``editor_verdict`` (``keep`` or ``edit``), ``editor_tries`` and ``editor_why``, the model's own sentence.

    >>> def chat(asks):
    ...     value = {"why": "The hour.", "verdict": "edit", "reasons": ["wrong"], "text": "We open at ten."}
    ...     return [Answer(text="{…}", stop=Stop.END, value=value) for _ in asks]
    >>> found = edit_drafts(chat, [Draft(id="a", prompt="When?", response="We open at nine.")])
    >>> found.corrections[0].edited, found.corrections[0].reasons, found.report.edits.mean_edit_ratio
    ('We open at ten.', ('wrong',), 0.2)

    Args:
        chat: the model; called twice at most, with many requests.
        drafts: what to edit.
        config: caps and the rest.
        guideline: of the team, for the model.
        objections: is asked about all edits that were taken so far; those that it objects to are set aside.

    Raises:
        ValueError: what the chat raises, such as a limit of cost that was reached.
    """
    config = LLMEditorConfig() if config is None else config
    seen: list[Answer] = []

    def ask(asks: Sequence[Ask]) -> list[Answer]:
        answers = chat(asks) if asks else []
        assert len(answers) == len(asks), "a chat gives one answer for each request"
        seen.extend(answers)
        return answers

    to_ask = [draft for draft in drafts if draft.response.strip()]
    asks = first_asks(to_ask, config, guideline=guideline)
    answers = ask(asks)
    outcomes = {draft.id: _read(draft, answer, config) for draft, answer in zip(to_ask, answers, strict=True)}
    assert len(outcomes) == len(to_ask), "ids differ"
    again = [
        (draft, first, answer, outcome)
        for draft, first, answer in zip(to_ask, asks, answers, strict=True)
        if isinstance(outcome := outcomes[draft.id], _Problem) and outcome.ask_again
    ]
    second = ask([_second_ask(first, answer, problem) for _, first, answer, problem in again])
    for (draft, *_), answer in zip(again, second, strict=True):
        outcomes[draft.id] = _read(draft, answer, config, tries=2)
    made_by = {"editor_prompt": prompt_id(guideline, config.tags)}
    corrections, aside = [], []
    for draft in drafts:
        outcome = outcomes.get(draft.id, _Problem(Aside.EMPTY, "the response to edit is empty", ""))
        if isinstance(outcome, _Problem):
            aside.append(SetAside(draft, outcome.reason, outcome.why, outcome.answer))
        else:
            corrections.append(_correction(draft, outcome, made_by))
    if objections is not None:
        refused = _refused(corrections, objections)
        by_id = {row.id: row for row in corrections}
        corrections = [row for row in corrections if row.id not in refused]
        aside += [
            SetAside(draft, Aside.NOT_PREFERRED, refused[draft.id], by_id[draft.id].edited)
            for draft in drafts
            if draft.id in refused
        ]
    taken = {row.id for row in corrections}
    found = statistics(corrections)
    report = EditReport(
        rows=len(drafts),
        kept=found.unchanged,
        edited=found.rows - found.unchanged,
        retried=len(again),
        mended=sum(draft.id in taken for draft, *_ in again),
        set_aside=dict(Counter(each.reason.value for each in aside).most_common()),
        edits=found,
        prompt=made_by["editor_prompt"],
        models=dict(Counter(answer.model for answer in seen if answer.model).most_common()),
        input_tokens=sum(answer.input_tokens for answer in seen),
        output_tokens=sum(answer.output_tokens for answer in seen),
        cost=total_cost(answer.cost for answer in seen),
        cost_now=total_cost(answer.cost for answer in seen if not answer.cached),
        cached=sum(answer.cached for answer in seen),
        answers=len(seen),
    )
    return EditedDrafts(corrections, aside, report)


def first_asks(drafts: Sequence[Draft], config: LLMEditorConfig, *, guideline: str = "") -> list[Ask]:
    """The requests of the first round: what a dry run shows and counts. The caps are not in them, so that other caps
    cost nothing but the second round.
    """  # noqa: D205
    return [
        Ask(
            messages=request(draft, guideline=guideline, tags=config.tags),
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            schema=schema(config.tags),
        )
        for draft in drafts
    ]


class _Edit(NamedTuple):
    """An answer that was taken."""

    text: str
    verdict: str
    reasons: tuple[str, ...]
    why: str
    model: str
    tries: int


class _Problem(NamedTuple):
    """An answer that was not."""

    reason: Aside
    why: str
    answer: str
    ask_again: bool = False


def _read(draft: Draft, answer: Answer, config: LLMEditorConfig, *, tries: int = 1) -> _Edit | _Problem:
    value = answer.value
    if answer.stop is Stop.ERROR:
        return _Problem(Aside.ERROR, answer.error or "no answer", answer.text)
    if answer.stop is Stop.REFUSAL:
        return _Problem(Aside.REFUSAL, "the model or its provider would not answer", answer.text)
    if answer.stop is Stop.LENGTH:
        return _Problem(Aside.CUT_OFF, "the answer was cut off before its end", answer.text, ask_again=True)
    if not _is_reply(value):
        return _Problem(Aside.UNREADABLE, "it is not the JSON that was asked for", answer.text, ask_again=True)
    if value["verdict"] == "cannot":
        return _Problem(Aside.CANNOT, value["why"] or "no reason given", answer.text)
    text = _unwrapped(value["text"], draft.response)
    if value["verdict"] == "edit" and not text.strip():
        return _Problem(Aside.EMPTY, "the verdict is edit, and there is no text", answer.text, ask_again=True)
    if value["verdict"] == "keep":
        if text.strip() and word_distance(draft.response, text):
            why = 'the verdict is "keep", and the text is not that of the response'
            return _Problem(Aside.CONTRADICTION, why, answer.text, ask_again=True)
        text = draft.response
    if problem := _too_much(draft, text, config):
        return _Problem(*problem, answer.text, ask_again=True)
    kept = text == draft.response
    reasons = () if kept else tuple(tag for tag in dict.fromkeys(value["reasons"]) if tag in config.tags)
    return _Edit(text, "keep" if kept else "edit", reasons, value["why"], answer.model, tries)


def _is_reply(value: Any) -> bool:
    """Whether it is what the schema says, also where no server enforced it, and can be written as UTF-8."""
    return (
        isinstance(value, Mapping)
        and all(isinstance(value.get(name), str) for name in ("why", "verdict", "text"))
        and value["verdict"] in ("keep", "edit", "cannot")
        and isinstance(value.get("reasons"), list)
        and all(isinstance(tag, str) for tag in value["reasons"])
        and not any("\ud800" <= char <= "\udfff" for char in value["text"] + value["why"])
    )


def _too_much(draft: Draft, text: str, config: LLMEditorConfig) -> tuple[Aside, str] | None:
    before, after = len(split_words(draft.response)), len(split_words(text))
    if _REFUSAL.match(text.strip()) and not any(
        _REFUSAL.match(known.strip()) for known in (draft.response, draft.reference or "")
    ):
        return Aside.REFUSAL, "the text is a refusal in the place of the response"
    distance, longer = word_distance(draft.response, text), max(before, after)
    most = max(config.free_words, int(config.max_edit_ratio * longer))
    if distance > most:
        share = f"{distance} of {longer} words ({distance / longer:.0%})"
        return Aside.OVER_EDITED, f"it changes {share}, {distance - most} more than the {most} that are allowed"
    most = max(before + config.free_words, int(config.max_growth * before))
    if after > most:
        return Aside.TOO_LONG, f"it has {after} words, the response {before}, and at most {most} are allowed"
    return None


def _unwrapped(text: str, response: str) -> str:
    """The text without what models wrap round it, and with the white space at its ends that the response has."""
    for wrapping in (_TAGGED, _FENCED):
        found = wrapping.fullmatch(text.strip())
        if found and not wrapping.fullmatch(response.strip()):
            text = found[2]
    if "\n" in response and "\n" not in text and "\\n" in text and "\\n" not in response:
        text = text.replace("\\n", "\n").replace('\\"', '"')  # escaped twice
    if "\r\n" in response and "\r" not in text:
        text = text.replace("\n", "\r\n")
    start, end = len(response) - len(response.lstrip()), len(response.rstrip())
    return f"{response[:start]}{text.strip()}{response[end:]}" if text.strip() else ""


def _second_ask(first: Ask, answer: Answer, problem: _Problem) -> Ask:
    # What was cut off or is no JSON helps nobody; it would only be paid for once more.
    useful = "" if problem.reason in (Aside.CUT_OFF, Aside.UNREADABLE) else answer.text
    longer = 2 if problem.reason is Aside.CUT_OFF else 1
    return Ask(
        messages=retry(first.messages, useful, problem.why),
        max_tokens=longer * first.max_tokens,
        temperature=first.temperature,
        schema=first.schema,
    )


def _correction(draft: Draft, edit: _Edit, made_by: Mapping[str, str]) -> Correction:
    found = {"editor_model": edit.model, "editor_verdict": edit.verdict, "editor_tries": edit.tries}
    return Correction(
        id=draft.id,
        prompt=draft.prompt,
        original=draft.response,
        edited=edit.text,
        original_ids=draft.response_ids,
        reasons=edit.reasons,
        extra={**draft.extra, **made_by, **found, "editor_why": edit.why},
    )


def _refused(corrections: Sequence[Correction], objections: Objections) -> dict[str, str]:
    """By id why the judge does not find the edit better."""
    changed = [row for row in corrections if row.edited != row.original]
    found = objections([(row.prompt, row.original, row.edited) for row in changed]) if changed else []
    return {row.id: why for row, why in zip(changed, found, strict=True) if why is not None}
