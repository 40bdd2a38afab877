"""A tokenizer with a template: prompts, conversations and texts to ids, and ids to text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, TypeVar

from jinja2 import TemplateError

from errata.types import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "HALF",
    "PLAIN_TEMPLATE",
    "PROBE",
    "STAND_IN",
    "IdsAndSpans",
    "Message",
    "S",
    "T",
    "attempt",
    "byte_offsets",
    "only_text",
    "open_messages",
    "prompt_key",
]

PLAIN_TEMPLATE = "{prompt}\n"

PROBE = "errataprobe"  # an answer that no template writes of its own accord

HALF = "a text holds half of a surrogate pair, which no tokenizer can read; mend it"

STAND_IN = 0xF0000  # the first of 65,534 private characters, in the place of control tokens that are spelled as text

Message = Mapping[str, str]

S = TypeVar("S")

T = TypeVar("T")

IdsAndSpans = tuple[list[int], list[tuple[int, int]]]
"""Ids, and the characters that each stands for."""


def prompt_key(prompt: Prompt) -> str | int:
    """By which prompts that come several times are told apart."""
    return prompt if isinstance(prompt, str) else id(prompt)


class TemplatedTokenizer:
    """A tokenizer and a template: what ``Encoder`` makes rows of.

    Args:
        tokenizer: as of ``Encoder``.
        template: as of ``Encoder``.

    Raises:
        ValueError: the tokenizer is slow, has no end-of-sequence token, or has no chat template where one is asked for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, template: str = "auto") -> None:
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} gives no character offsets; load the fast tokenizer of this model"
            )
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-sequence token; set tokenizer.eos_token before encoding")
        if template == "auto":
            template = "chat" if tokenizer.chat_template else PLAIN_TEMPLATE
        if template == "chat" and not tokenizer.chat_template:
            raise ValueError("template 'chat': this tokenizer has no chat template; give one with {prompt} in it")
        if template != "chat" and "{prompt}" not in template:
            raise ValueError(f"template {template!r} has no {{prompt}}; use 'auto', 'chat' or a text that holds it")
        self.tokenizer = tokenizer
        self.template = template

    @cached_property
    def end_id(self) -> int:
        """The id that ends a response: the last of every response that is encoded as ended.

        With a chat template it is the control token that the template writes after an assistant's message
        (``<|im_end|>``, ``<end_of_turn>``, ``<|eot_id|>``), found by rendering an answer; where it writes none, and
        with a plain template, it is the end of sequence.

        Raises:
            ValueError: the chat template renders no conversation of one question and one answer.
        """
        eos = int(self.tokenizer.eos_token_id)
        if self.template != "chat":
            return eos
        answered = [{"role": "user", "content": "question"}, {"role": "assistant", "content": PROBE}]
        _, found, tail = self.render(answered, add_generation_prompt=False).rpartition(PROBE)
        if not found:
            raise ValueError("the chat template leaves out the assistant's answer; mend it or give one with {prompt}")
        first = self._template_ids(tail.lstrip())[:1]
        return first[0] if first and first[0] in self._control else eos

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Every id that ends a sampled response: ``end_id`` first, then the end of sequence where it is another."""
        return tuple(dict.fromkeys((self.end_id, int(self.tokenizer.eos_token_id))))

    @property
    def pad_id(self) -> int:
        """An id to fill batches with. It may equal the end of sequence: masks come from lengths, never from ids."""
        pad = self.tokenizer.pad_token_id
        return self.end_id if pad is None else int(pad)

    def body_ids(self, response_ids: Sequence[int]) -> tuple[int, ...]:
        """Sampled ids without their end."""
        return tuple(response_ids[:-1] if response_ids and response_ids[-1] in self.end_ids else response_ids)

    def spoken_ids(self, response_ids: Sequence[int]) -> tuple[int, ...]:
        """Sampled ids that stand for text: without their end, and without control tokens that came before it."""
        return tuple(token for token in self.body_ids(response_ids) if token not in self.reserved)

    def decode(self, response_ids: Sequence[int]) -> str:
        """The text of sampled ids; the end of the response is not text, every other id is."""
        body = list(self.body_ids(response_ids))
        return str(self.tokenizer.decode(body, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The text that the chat template makes of a conversation.

        Raises:
            ValueError: the template refuses the conversation, say for its roles.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [dict(message) for message in messages], add_generation_prompt=add_generation_prompt, tokenize=False
                )
            )
        except TemplateError as error:
            raise ValueError(
                f"the chat template refuses this conversation: {error}; change its messages or the template"
            ) from error

    def conversation_ids(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> list[int]:
        """The ids that the chat template makes of a conversation; control tokens that its texts spell stay text.

        Raises:
            ValueError: as ``render``; the template begins with two BOS; or a control token in a text cannot be told
                from the template's own with this tokenizer.
        """
        spelled = sorted({token for m in messages for token in self._spelling.findall(m["content"])})
        if spelled:
            ids = self._ids_beside_spelled_control(messages, spelled, add_generation_prompt=add_generation_prompt)
        else:
            ids = self._template_ids(self.render(messages, add_generation_prompt=add_generation_prompt))
        bos = self.tokenizer.bos_token_id
        # Elsewhere a template may well use it as a mark, before every message (SmolLM2) or every question (Llama 2).
        if bos is not None and ids[:2] == [bos, bos]:
            raise ValueError("the chat template begins with two beginning-of-sequence tokens; mend the template")
        return ids

    @cached_property
    def _begin(self) -> list[int]:
        """What a plain template begins with: BOS, where there is one."""
        return [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]

    def _plain_prompt(self, prompt: Prompt) -> str:
        return self.template.replace("{prompt}", only_text(prompt))

    @cached_property
    def _control(self) -> dict[int, str]:
        """The control tokens and how they are spelled; ``all_special_tokens`` leaves out most of Llama 3's."""
        added = self.tokenizer.added_tokens_decoder
        return {place: token.content for place, token in added.items() if token.special and token.content}

    def _tokenize(self, texts: Sequence[str]) -> list[IdsAndSpans]:
        """Ids and offsets of texts, with nothing put before or behind them, cut off, or read as a control token."""
        try:
            found = self._backend.encode_batch(list(texts), add_special_tokens=False)
        except TypeError as error:
            raise ValueError(HALF) from error
        rows = [(one.ids, one.offsets) for one in found]
        if self._joins_unknown:
            rows = [(ids, byte_offsets(offsets, text)) for (ids, offsets), text in zip(rows, texts, strict=True)]
        return rows

    @cached_property
    def _backend(self) -> Tokenizer:
        """Reads texts: a response that spells "</s>" must not end the sequence."""
        return self._copy(encode_special_tokens=True)

    @cached_property
    def _template_backend(self) -> Tokenizer:
        """Reads what a template rendered."""
        return self._copy(encode_special_tokens=False)

    def _copy(self, *, encode_special_tokens: bool) -> Tokenizer:
        # Of one's own, so that nobody's padding, truncation or reading of control tokens gets in, from any thread.
        from tokenizers import Tokenizer

        backend = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = encode_special_tokens
        return backend

    def _checked(self, found: IdsAndSpans) -> IdsAndSpans:
        # Where control tokens are words of the model, too (Unigram, whole words), they are found in texts all the same.
        if not self.reserved.isdisjoint(found[0]):
            token = self._control[next(token for token in found[0] if token in self.reserved)]
            raise ValueError(
                f"the text spells the control token {token!r}, which this tokenizer cannot tell from the token itself; "
                "take it out of the text"
            )
        return found

    @cached_property
    def _joins_unknown(self) -> bool:
        """Whether neighbouring characters that fall back to bytes share one span, which none of the bytes has."""
        model = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        return bool(model["type"] == "Unigram" and model.get("byte_fallback"))

    @cached_property
    def _spelling(self) -> re.Pattern[str]:
        """Finds control tokens in a text, the longest first; one pass, for Llama 3 has 256 of them."""
        return re.compile("|".join(map(re.escape, sorted(self._control.values(), key=len, reverse=True))))

    @cached_property
    def reserved(self) -> frozenset[int]:
        """Ids that no text may have: the control tokens, but for the one that stands for unknown characters."""
        return frozenset(self._control) - {self.tokenizer.unk_token_id}

    def _template_ids(self, text: str) -> list[int]:
        return self._template_encoding(text)[0]

    def _template_encoding(self, text: str) -> IdsAndSpans:
        """Ids and offsets of what a template rendered: its control tokens are control tokens."""
        try:
            found = self._template_backend.encode(text, add_special_tokens=False)
        except TypeError as error:
            raise ValueError(HALF) from error
        return found.ids, found.offsets

    def _ids_beside_spelled_control(
        self, messages: Sequence[Message], spelled: Sequence[str], *, add_generation_prompt: bool
    ) -> list[int]:
        # A private character stands in for each spelled control token while the template is rendered: so all control
        # tokens that are found are the template's own. Between them the tokenizer sees texts; each is encoded by
        # itself, with its control tokens put back as text.
        stand_ins = {token: chr(STAND_IN + k) for k, token in enumerate(spelled)}
        masked = [{**m, "content": self._spelling.sub(lambda hit: stand_ins[hit[0]], m["content"])} for m in messages]
        text = self.render(masked, add_generation_prompt=add_generation_prompt)
        whole = self._template_encoding(text)
        marks = [
            (token, span)
            for token, span in zip(*whole, strict=True)
            if text[slice(*span)].strip() == self._control.get(token)
        ]
        edges = [(None, (0, 0)), *marks, (None, (len(text), len(text)))]

        def joined(restore: Mapping[str, str]) -> list[int]:
            ids: list[int] = []
            for (token, (_, start)), (_, (stop, _)) in pairwise(edges):
                ids += [] if token is None else [token]
                between = text[start:stop]
                for stand_in, control in restore.items():
                    between = between.replace(stand_in, control)
                ids += self._checked(self._tokenize([between])[0])[0] if between else []
            return ids

        clash = any(stand_in in m["content"] for stand_in in stand_ins.values() for m in messages)
        # Where texts between control tokens are not encoded by themselves (Llama 2 puts a space before the first one
        # only), putting the pieces together gives other ids than the tokenizer does, and nothing is certain.
        if clash or joined({}) != whole[0]:
            raise ValueError(
                f"the prompt spells the control token {spelled[0]!r}, which with this tokenizer cannot be told from "
                "the chat template's own; take it out of the text"
            )
        return joined({stand_in: token for token, stand_in in stand_ins.items()})

    def _offsets_by_decoding(self, ids: list[int], text: str) -> list[tuple[int, int]]:
        # Rare: the model spelled a word with other pieces than the tokenizer would. Quadratic in the row, and exact: a
        # piece that ends within a character shows as U+FFFD, so the boundary is where the decoded prefix agrees.
        prefixes = [self.decode(ids[: k + 1]) for k in range(len(ids))]
        if (prefixes[-1] if prefixes else "") != text:
            raise ValueError("the sampled ids do not decode to the response; store both as the model emitted them")
        offsets: list[tuple[int, int]] = []
        start, before = 0, ""
        for prefix in prefixes:
            if prefix == before and offsets:
                # It shows nothing new: one more piece of the last character, be it unfinished or broken.
                first, last = offsets[-1]
                offsets.append((max(first, last - 1), last))
                continue
            before, stop = prefix, len(prefix)
            while stop > start and not text.startswith(prefix[:stop]):
                stop -= 1
            # An unfinished character belongs to each of its pieces.
            unfinished = stop < len(prefix)
            offsets.append((start, min(stop + unfinished, len(text))))
            start = stop
        return offsets


def attempt(do: Callable[[S], T], what: S) -> T | ValueError:
    """What it gives, or the ValueError that it raises."""
    try:
        return do(what)
    except ValueError as error:
        return error


def byte_offsets(offsets: Sequence[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Give each byte of a run of characters that share one span the character that it belongs to.

    >>> byte_offsets([(0, 1), (1, 3), (1, 3), (1, 3), (1, 3), (1, 3)], "xé€")
    [(0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (2, 3)]
    """
    if len(set(offsets)) == len(offsets):
        return list(offsets)
    parted: list[tuple[int, int]] = []
    for (start, stop), run in groupby(offsets):
        size = sum(1 for _ in run)
        each = [(k, k + 1) for k in range(start, stop) for _ in text[k].encode()]
        parted += each if len(each) == size else [(start, stop)] * size
    return parted


def open_messages(prompt: Prompt) -> Sequence[Message]:
    """The messages of a prompt, the last of which waits for an answer."""
    messages: Sequence[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not messages:
        raise ValueError("the prompt is a conversation without a message; give it one")
    if messages[-1]["role"] == "assistant":
        raise ValueError(
            "the prompt ends with an assistant's message, and what follows would be no answer to anybody; "
            "end it with the user's, and give the answer as the response"
        )
    return messages


def only_text(prompt: Prompt) -> str:
    """The text of a prompt of one message; raises ValueError for a conversation."""
    if isinstance(prompt, str):
        return prompt
    only: Sequence[Message] = prompt
    if len(only) == 1 and only[0]["role"] == "user":
        return only[0]["content"]
    raise ValueError("the prompt is a conversation and the tokenizer has no chat template; use a model that has one")
