"""The nouns of errata, and the dimension key. Read this file first.

Dimension key, the suffix of every tensor's name (``logprob_BT``):

====  =====================================================================
B     sequences in a batch
T     tokens of a sequence, prompt and response together, padded on the right
U     tokens of the *second* text of a pair (the original beside the edited)
V     vocabulary
D     hidden size
H     heads: of a critic; in ``models/tree.py`` of attention
S     sequences of a layout, first all first sides, then all second ones
K     response tokens of a sequence of a layout
R     rows of a layout; in ``models/lora.py`` the rank
C     columns of a layout
N     tokens that are read, of a whole batch
M     tokens that the lower layers have computed (``models/lower.py``)
I, O  inputs and outputs of a linear layer (``models/lora.py``)
G, E  heads of keys and values, the size of a head (``models/tree.py``); J: columns that a block sees
====  =====================================================================

Column ``t`` of every ``_BT`` tensor speaks of token ``t``; the shift of a causal model exists once, in
``errata.models``. Masks are positive: True means that the token counts. The two texts of a pair never share a mask.

Rooms hand each other *per-token streams*: ``labels/`` and ``reward/`` produce them, ``tuning/`` consumes them and never
sees an edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

__all__ = [
    "Correction",
    "Demonstration",
    "Edit",
    "Encoded",
    "Label",
    "LabeledTokens",
    "Op",
    "Preference",
    "Prompt",
    "PromptRow",
    "Rollout",
    "Span",
    "Ties",
    "TokenLabels",
    "Unit",
    "Verdict",
    "WeightSpan",
]

Prompt = str | Sequence[Mapping[str, str]]
"""A plain instruction, or a conversation: messages with ``role`` and ``content``, oldest first."""


WeightSpan = tuple[int, int, float]
"""Characters ``start`` to ``stop`` (exclusive) of one text and their weight. The empty span at the end of the text is
the end of sequence."""


class Unit(StrEnum):
    """What one edit changes: a word, a phrase of them, a character, or a token of a tokenizer (the papers' choice)."""

    WORD = "word"
    PHRASE = "phrase"
    CHAR = "char"
    TOKEN = "token"


class Ties(StrEnum):
    """Which of several edits that are equally few is meant: in "go. go. stop" → "go. stop", which "go." went?"""

    TAGGER = "tagger"
    """The first, as in the OK/BAD tags of translation quality estimation: their tool's order of preference."""
    DEPARTURE = "departure"
    """The last: whoever reads from left to right sees the texts part there, and there a language model chose wrong."""
    RELEASED = "released"
    """What the package Levenshtein takes, with which FIGA's released code finds its signals: read from the end, between
    the common beginning and the common end, it deletes wherever that is minimal."""


class Op(StrEnum):
    """What an edit does to its span of the original."""

    KEEP = "keep"
    INSERT = "insert"
    DELETE = "delete"
    SUBSTITUTE = "substitute"


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``stop`` (exclusive) of one text, which read ``text``; ``start == stop`` is a gap.

    ``token_start`` and ``token_stop`` index the tokens of that text and are set by token-unit diffs only.
    """

    start: int
    stop: int
    text: str
    token_start: int | None = None
    token_stop: int | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """One operation that turns a span of the original text into a span of the edited text."""

    op: Op
    original: Span
    edited: Span


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRow:
    """A prompt without an answer, as generation and PPO take it."""

    id: str
    prompt: Prompt
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the file that errata does not know; they travel with the row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    """An answer to imitate."""

    id: str
    prompt: Prompt
    response: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """Two answers to one prompt, of which ``chosen`` was preferred; with the sampled ids where they are known."""

    id: str
    prompt: Prompt
    chosen: str
    rejected: str
    chosen_ids: tuple[int, ...] | None = None
    rejected_ids: tuple[int, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """An answer and what somebody made of it, most words kept: y_l and y_e (Xu et al.), ŷ and ỹ (FIGA).

    On file it is a preference row (``rejected`` = original, ``chosen`` = edited), so that any preference trainer reads
    it. ``original_ids`` are the ids that the model sampled, its end of sequence included, where they are known: a
    sampled response is never tokenised again.
    """

    id: str
    prompt: Prompt
    original: str
    edited: str
    original_ids: tuple[int, ...] | None = None
    original_weights: tuple[WeightSpan, ...] | None = None
    """Somebody's own weights in place of the edit's: how hard to push away from what, ≥ 0. Other characters weigh 0."""
    edited_weights: tuple[WeightSpan, ...] | None = None
    """The same for the edited text, of any sign: above zero imitated, below it unlearned."""
    reasons: tuple[str, ...] = ()
    """Why it was edited: ``wrong``, ``unsafe``, ``missing``, ``style``, ``instruction``, or the team's own tags."""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt and one response as ids: what every model in errata is given.

    ``offsets[k]`` are the characters of the *response* that response token ``k`` stands for; the end-of-sequence token
    has the empty span at the end of the text. ``ids[:prompt_length]`` is the prompt. Offsets may be empty
    where nothing reads them (a rollout that is only scored).
    """

    ids: tuple[int, ...]
    prompt_length: int
    offsets: tuple[tuple[int, int], ...]
    ended: bool
    """Whether the last id is the end of the response (a truncated response has none)."""
    cut: int = 0
    """Tokens that the response lost at its end, because the row was too long."""

    @property
    def response_ids(self) -> tuple[int, ...]:
        """The ids after the prompt."""
        return self.ids[self.prompt_length :]


class Label(IntEnum):
    """What the edit says of a response token; the original has none INSERTED, the edited text none DELETED."""

    KEPT = 0
    INSERTED = 1
    DELETED = 2
    SUBSTITUTED = 3
    OMISSION = 4
    """Original side, by option: the token stayed, and the edit inserts text right before it."""
    IGNORED = 5
    """Teaches nothing, whatever the edit says: reasoning, tool calls, by option what the model could not have known."""


@dataclass(frozen=True, slots=True)
class LabeledTokens:
    """One side of a labelled pair: its ids and one ``Label`` for each response token, end of sequence included."""

    encoded: Encoded
    labels: tuple[int, ...]
    text: str
    weights: tuple[float, ...] | None = None
    """Somebody's own weights in place of those that FIGA gives the labels, one for each response token: of any sign on
    the edited side, ≥ 0 on the original's, whose term the loss subtracts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLabels:
    """Both sides of a labelled pair, each with its own tokens; they share the prompt and nothing else."""

    id: str
    original: LabeledTokens
    edited: LabeledTokens
    reasons: tuple[str, ...] = ()
    """Those of the correction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A sampled response: the ids as the model emitted them, and the text that they decode to."""

    id: str
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """Including the end of sequence, if the model emitted it."""
    text: str
    ended: bool
    logprobs: tuple[float, ...] | None = field(default=None, compare=False)
    """Of the sampled tokens, at the temperature of sampling, in nats; None from a generator that does not tell them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A judge's word on one prompt: 1 if the candidate's answer is better, 0 if the baseline's is, ½ for a tie."""

    id: str
    score: float
