"""Judges: whatever says which of two answers to a prompt is better.

A judge is called with all pairs at once and gives one ruling for each, in their order; it never leaves one out. A chat
model is asked twice, with either answer first. A judge that scores each answer by itself (a reward model, what people
really sent, any function) has no order to be led astray by. People's verdicts are read from a file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from errata.client import Answer, Ask, Chat, total_cost
from errata.client.server import address
from errata.data import Encoder
from errata.data.records import records
from errata.edits import word_distance
from errata.types import Correction, Prompt
from errata.winrate.verdicts import verdicts_from_scores

__all__ = [
    "PROMPT",
    "ChatJudge",
    "HumanJudge",
    "Judge",
    "JudgeIdentity",
    "Pair",
    "PromptFile",
    "Ruling",
    "ScoreJudge",
    "family",
    "kinship",
    "prompt_text",
    "read_verdicts",
    "reference_judge",
    "reward_judge",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two answers to one prompt. ``arm`` names whose the candidate is."""

    id: str
    prompt: Prompt
    candidate: str
    baseline: str
    arm: str = "candidate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """What a judge says of one pair, and how it came to it."""

    score: float
    """As ``Verdict.score``: 1 where the candidate is better, 0 where the baseline is, ½ for a tie; several people's
    mean; ½, and in no rate, where ``valid`` is False."""
    valid: bool = True
    """False where the judge gave no usable word in one order or both. Such a pair is counted, and in no rate."""
    orders: tuple[float, float] | None = None
    """The two words behind a valid score: with the candidate shown first, and with it second. None where the judge
    was not asked in orders."""
    values: tuple[float, float] | None = None
    """The candidate's and the baseline's own scores, where the judge gives each answer one."""
    reasons: tuple[str, ...] = ()
    """The judge's words, or why there is none."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    """US dollars for this run; None if the price is not known."""


@dataclass(frozen=True, kw_only=True)
class JudgeIdentity:
    """Who judged, so that a number can be traced and made again."""

    kind: str
    """``chat``, ``reward``, ``references``, ``function`` or ``human``."""
    name: str
    """The model asked for, the folder, the file or the function."""
    models: tuple[str, ...] = ()
    """The models that answered, as the server named them."""
    prompt: str = ""
    """The prompt file's name, which has its version."""
    prompt_hash: str = ""
    """The first 16 hex digits of the SHA-256 of the prompt file and the guideline."""
    value: str = ""
    """What the judge's own scores are called, if it scores each answer."""


class Judge(Protocol):
    """Says which answer is better."""

    @property
    def identity(self) -> JudgeIdentity:
        """Who judges; after the judging, with the models that answered."""
        ...

    def __call__(self, pairs: Sequence[Pair]) -> list[Ruling]:
        """One ruling a pair, in their order."""
        ...


# Judges that score each answer by itself.


class ScoreJudge:
    """A function that scores each answer; the higher score is the better answer, equal ones are a tie.

    Args:
        score: from (prompt id, prompt, answer) of all answers to their scores, higher is better.
        name: what it is.
        kind: as in ``JudgeIdentity``.
        value: what its scores are called in a table.

    >>> shorter = ScoreJudge(lambda answers: [-len(answer) for _, _, answer in answers], name="shorter")
    >>> [ruling.score for ruling in shorter([Pair(id="a", prompt="Hi", candidate="Hello", baseline="Good evening")])]
    [1.0]
    """

    def __init__(
        self,
        score: Callable[[Sequence[tuple[str, Prompt, str]]], Sequence[float]],
        *,
        name: str,
        kind: str = "function",
        value: str = "score",
    ) -> None:
        self.score = score
        self.identity = JudgeIdentity(kind=kind, name=name, value=value)

    def __call__(self, pairs: Sequence[Pair]) -> list[Ruling]:
        """Score every distinct answer once.

        Raises:
            ValueError: A score is NaN (says of which prompt).
        """
        keys = [(pair.id, answer) for pair in pairs for answer in (pair.candidate, pair.baseline)]
        prompts = {pair.id: pair.prompt for pair in pairs}
        distinct = list(dict.fromkeys(keys))
        scores = self.score([(id, prompts[id], answer) for id, answer in distinct])
        found = dict(zip(distinct, map(float, scores), strict=True))
        rulings = []
        for pair in pairs:
            ours, theirs = found[pair.id, pair.candidate], found[pair.id, pair.baseline]
            (verdict,) = verdicts_from_scores({pair.id: ours}, {pair.id: theirs})
            rulings.append(Ruling(score=verdict.score, values=(ours, theirs)))
        return rulings


def reward_judge(folder: Path, encoder: Encoder) -> ScoreJudge:
    """A reward model: a proxy. Do not judge a policy by the reward model that it was trained on.

    Raises:
        ValueError: As ``load_scorer``.
    """
    from errata.reward import load_scorer, score_answers  # and torch, which no other judge needs

    scorer = load_scorer(folder, encoder)
    return ScoreJudge(
        lambda answers: score_answers(scorer, encoder, [(prompt, answer, None) for _, prompt, answer in answers]),
        name=str(folder),
        kind="reward",
        value="reward",
    )


def reference_judge(sent: Sequence[Correction], *, name: str = "references") -> ScoreJudge:
    """What people really sent, by prompt id: the answer with fewer words to change wins; a score is minus that number.

    Raises:
        ValueError: On judging, a prompt has no reference.
    """
    edited = {row.id: row.edited for row in sent}

    def score(answers: Sequence[tuple[str, Prompt, str]]) -> list[float]:
        missing = dict.fromkeys(id for id, _, _ in answers if id not in edited)
        if missing:
            raise ValueError(
                f"no reference for the prompt {next(iter(missing))!r} ({len(missing)} in all); add or drop it"
            )
        return [-float(word_distance(answer, edited[id])) for id, _, answer in answers]

    return ScoreJudge(score, name=name, kind="references", value="minus edit cost")


# A chat model.


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """A prompt with the places ``{mark}``, ``{guideline}``, ``{request}``, ``{first}`` and ``{second}``."""

    name: str
    text: str

    @classmethod
    def read(cls, path: Path) -> PromptFile:
        """The prompt in a file.

        Raises:
            ValueError: It lacks a place for the request or for an answer.
        """
        text = path.read_text(encoding="utf-8")
        for place in ("request", "first", "second"):
            if f"{{{place}}}" not in text:
                raise ValueError(
                    f"{path} has no place {{{place}}}; a prompt names {{request}}, {{first}} and {{second}}"
                )
        return cls(name=path.stem, text=text)

    def hash(self, guideline: str = "") -> str:
        """16 hex digits that name what the judge was told."""
        return hashlib.sha256(f"{self.text}\0{guideline}".encode()).hexdigest()[:16]

    def fill(self, **places: str) -> str:
        """The prompt with its places filled, in one pass: braces in an answer stay what they are."""
        return re.sub(r"\{(\w+)\}", lambda found: places.get(found[1], found[0]), self.text)


PROMPT = PromptFile.read(Path(__file__).parent / "prompts" / "pairwise_1.txt")
"""The judge's prompt unless another is given."""

_SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "better": {"type": "string", "enum": ["first", "second", "tie"]}},
    "required": ["reason", "better"],
    "additionalProperties": False,
}
_TIE = 0.5


class ChatJudge:
    """A chat model that is shown both answers, once with either first.

    Two words that agree are the verdict; two that differ are a tie, whatever they are. Where either order brings no
    usable word (no answer, cut off, refused, not in the schema) the pair is invalid: counted, in no rate. Equal answers
    are a tie that nobody is asked about.

    Args:
        chat: the model.
        name: as it was asked for; a password in an address is taken out.
        prompt: what it is told.
        guideline: a sentence or more that the judge is told besides: what counts as better here.
        temperature: 0 is the most reproducible; None leaves it to the server.
        max_tokens: longest answer.

    Raises:
        ValueError: there is a guideline, and the prompt has no place for it.
    """

    def __init__(
        self,
        chat: Chat,
        *,
        name: str,
        prompt: PromptFile = PROMPT,
        guideline: str = "",
        temperature: float | None = 0.0,
        max_tokens: int = 512,
    ) -> None:
        if guideline and "{guideline}" not in prompt.text:
            raise ValueError(f"the prompt {prompt.name} has no place {{guideline}} for the guideline; give it one")
        self.chat, self.name, self.prompt, self.guideline = chat, address(name), prompt, guideline
        self.temperature, self.max_tokens = temperature, max_tokens
        self._models: dict[str, None] = {}

    @property
    def identity(self) -> JudgeIdentity:
        """Who judges; after the judging, with the models that answered."""
        return JudgeIdentity(
            kind="chat",
            name=self.name,
            models=tuple(self._models),
            prompt=self.prompt.name,
            prompt_hash=self.prompt.hash(self.guideline),
        )

    def asks(self, pairs: Sequence[Pair]) -> list[Ask]:
        """What is asked: for each pair two requests, the candidate first in the one and second in the other."""
        return [
            self._ask(pair, *shown)
            for pair in pairs
            for shown in ((pair.candidate, pair.baseline), (pair.baseline, pair.candidate))
        ]

    def __call__(self, pairs: Sequence[Pair]) -> list[Ruling]:
        """Ask about every pair in both orders."""
        differing = [pair for pair in pairs if pair.candidate != pair.baseline]
        answers = self.chat(self.asks(differing))
        self._models |= dict.fromkeys(answer.model for answer in answers if answer.model)
        both = iter(zip(answers[::2], answers[1::2], strict=True))
        return [
            Ruling(score=_TIE, reasons=("equal texts",)) if pair.candidate == pair.baseline else _ruling(*next(both))
            for pair in pairs
        ]

    def _ask(self, pair: Pair, first: str, second: str) -> Ask:
        request = prompt_text(pair.prompt)
        # A mark that depends on the texts: no answer can close its own tag, and the ledger knows the request again.
        mark = hashlib.sha256("\0".join((request, *sorted((first, second)))).encode()).hexdigest()[:8]
        guideline = f"\n{self.guideline}\n" if self.guideline else ""
        content = self.prompt.fill(mark=mark, guideline=guideline, request=request, first=first, second=second)
        return Ask(
            messages=({"role": "user", "content": content},),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            schema=_SCHEMA,
        )


def _ruling(candidate_first: Answer, candidate_second: Answer) -> Ruling:
    both = (candidate_first, candidate_second)
    (first, why), (second, why_too) = map(_word, both)
    # What is second best when it comes first is the other one.
    orders = None if first is None or second is None else (first, 1 - second)
    return Ruling(
        score=orders[0] if orders is not None and orders[0] == orders[1] else _TIE,
        valid=orders is not None,
        orders=orders,
        reasons=(why, why_too),
        input_tokens=sum(answer.input_tokens for answer in both),
        output_tokens=sum(answer.output_tokens for answer in both),
        cost=total_cost(answer.cost for answer in both if not answer.cached),
    )


def _word(answer: Answer) -> tuple[float | None, str]:
    """1 if the answer shown first is better, 0 if the second is, ½ for a tie, None for no usable word; and why."""
    value = answer.value
    if not isinstance(value, Mapping) or value.get("better") not in ("first", "second", "tie"):
        return None, answer.error or f"no verdict ({answer.stop}): {answer.text[:200]}"
    return {"first": 1.0, "second": 0.0, "tie": _TIE}[value["better"]], str(value.get("reason", ""))


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one text: a conversation by its turns."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in prompt)


# People.

_WORDS = {"candidate": 1.0, "baseline": 0.0, "tie": _TIE}


class HumanJudge:
    """People's verdicts from a file.

    Args:
        scores: by (arm, prompt id) the scores of all who judged it; arm "" stands for any.
        name: the file.
    """

    def __init__(self, scores: Mapping[tuple[str, str], Sequence[float]], *, name: str) -> None:
        self.scores, self.identity = scores, JudgeIdentity(kind="human", name=name)

    def __call__(self, pairs: Sequence[Pair]) -> list[Ruling]:
        """Look each pair up; several people's verdicts on one are averaged, one without a usable verdict is invalid.

        Raises:
            ValueError: There is no line for a pair.
        """
        rulings = []
        for pair in pairs:
            found = self.scores.get((pair.arm, pair.id), self.scores.get(("", pair.id)))
            if found is None:
                raise ValueError(
                    f"{self.identity.name} has no verdict on the prompt {pair.id!r} of {pair.arm!r}; add one, if need "
                    'be {"verdict": "invalid"}'
                )
            valid = bool(found)
            rulings.append(Ruling(score=sum(found) / len(found) if valid else _TIE, valid=valid))
        return rulings


def read_verdicts(path: Path) -> HumanJudge:
    """JSON lines with ``id``, ``verdict`` (``candidate``, ``baseline``, ``tie`` or ``invalid``) and maybe ``arm``.

    Several lines on one prompt are several people's verdicts.

    Raises:
        ValueError: A line lacks the id or has another verdict (says which line).
    """
    scores: dict[tuple[str, str], list[float]] = {}
    for record in records(path):
        fields = record.load()
        id, verdict, arm = fields.get("id"), fields.get("verdict"), fields.get("arm", "")
        if not isinstance(id, str | int) or verdict not in (*_WORDS, "invalid"):
            raise ValueError(
                f"{path}, line {record.line}: id {id!r} and verdict {verdict!r}; give an id, and as its verdict "
                "candidate, baseline, tie or invalid"
            )
        found = scores.setdefault((str(arm), str(id)), [])
        if verdict != "invalid":
            found.append(_WORDS[verdict])
    return HumanJudge(scores, name=str(path))


# Families.

_MAKERS = {
    "anthropic": ("claude",),
    "openai": ("gpt", "chatgpt", "o1", "o3", "o4"),
    "google": ("gemini", "gemma"),
    "meta": ("llama", "codellama"),
    "mistral": ("mistral", "mixtral", "ministral", "magistral"),
    "alibaba": ("qwen", "qwq"),
}


def family(model: str) -> str:
    """Who made a model, by its name; the first word of the name where that is not known.

    >>> [family(name) for name in ("claude-opus-4-1", "openai/gpt-4o-mini", "meta-llama/Llama-3", "tiny")]
    ['anthropic', 'openai', 'meta', 'tiny']
    """
    model = model.partition("@http")[0]
    words = re.findall(r"[a-z]+\d*|\d+", model.rsplit("/", 1)[-1].lower())
    for maker, names in _MAKERS.items():
        if any(re.fullmatch(rf"{name}\d*", word) for word in words for name in names):
            return maker
    return words[0] if words else model.lower()


def kinship(judges: Sequence[str], editors: Sequence[str]) -> str | None:
    """A warning where a judge is of the family of an editor whose work it judges; None where it is not.

    >>> kinship(["gpt-5"], ["claude-opus-4-1"]) is None
    True
    """
    kin = [editor for editor in editors if family(editor) in set(map(family, judges))]
    if not kin:
        return None
    return (
        f"the judge ({', '.join(judges)}) and the editor ({', '.join(kin)}) are one family: a model likes its own "
        "kind's writing; take a judge of another"
    )
