"""The one place where text becomes ids: labels, training, PPO and judging all encode here.

A row becomes ``[BOS] + prompt ids + response ids + [end]``. The response is tokenised on its own and appended, which is
what happens when a model generates: so the prompt's ids are a prefix of the whole by construction, for every tokenizer;
``errata.data.templates`` says where a chat template would have it otherwise. Control tokens that stand as text in a
prompt or a response stay text.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from jinja2 import TemplateError

from errata.pretrained import ModelFolder, find_model
from errata.pretrained.tokenizer import load_tokenizer
from errata.types import Encoded, Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "PLAIN_TEMPLATE",
    "Encoder",
    "LongRow",
    "OnLong",
    "TooLong",
    "load_encoder",
    "load_tokenizer",
]

PLAIN_TEMPLATE = "{prompt}\n"
_PROBE = "errataprobe"  # an answer that no template writes of its own accord
_HALF = "a text holds half of a surrogate pair, which no tokenizer can read; mend it"
_STAND_IN = 0xF0000  # the first of 65,534 private characters, in the place of control tokens that are spelled as text

Message = Mapping[str, str]
S = TypeVar("S")
T = TypeVar("T")
_Ids = tuple[list[int], list[tuple[int, int]]]
"""Ids, and the characters that each stands for."""


class OnLong(StrEnum):
    """What becomes of a row that is longer than ``max_length``."""

    ERROR = "error"
    DROP = "drop"
    TRUNCATE = "truncate"


class TooLong(ValueError):  # noqa: N818
    """A row that is longer than ``max_length``, where that is an error."""


class LongRow(ValueError):  # noqa: N818
    """A row that is too long and shall be left out: whoever loops over rows counts it and goes on."""


class Encoder:
    """Turns prompts and responses into ids with one tokenizer and one template.

    Args:
        tokenizer: a fast Hugging Face tokenizer with an end-of-sequence token.
        template: ``"auto"`` uses the tokenizer's chat template where it has one and ``PLAIN_TEMPLATE`` otherwise;
            ``"chat"`` insists on the former; any text with ``{prompt}`` in it is a plain template.
        max_length: the most tokens a row may have, prompt, response and control tokens together.
        on_long: what becomes of a longer row. ``error``: a ValueError. ``drop``: a ``LongRow``, which loops over rows
            count and leave out. ``truncate``: the response loses its last tokens, and its end with them; the prompt is
            never cut, so that a prompt which leaves no room for a response is a ``LongRow`` here, too.

    Raises:
        ValueError: the tokenizer is slow, has no end-of-sequence token, or has no chat template where one is asked for;
            or ``on_long`` has no ``max_length`` to act on.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str = "auto",
        max_length: int | None = None,
        on_long: OnLong | str = OnLong.ERROR,
    ) -> None:
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
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length is {max_length}; give 1 token or more, or leave it out")
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        self.on_long = OnLong(on_long)
        if max_length is None and self.on_long != OnLong.ERROR:
            raise ValueError(f"on_long {self.on_long.value!r} has no max_length to act on; give one")

    @cached_property
    def unlimited(self) -> Encoder:
        """The same for rows of any length."""
        if self.max_length is None:
            return self
        other = copy.copy(self)
        other.max_length, other.on_long = None, OnLong.ERROR
        return other

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that name the tokenizer and the template: files of ids carry it."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        # Padding and truncation are left behind by whoever called the tokenizer last and change no id.
        settled = {key: value for key, value in backend.items() if key not in ("padding", "truncation")}
        control = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.template]
        if self.template == "chat":
            control.append(self.tokenizer.chat_template)
        return hashlib.sha256(json.dumps([settled, control], sort_keys=True).encode()).hexdigest()[:16]

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
        answered = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _PROBE}]
        _, found, tail = self.render(answered, add_generation_prompt=False).rpartition(_PROBE)
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

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The ids that a model is given before it answers: at least one, and one BOS where the tokenizer has it.

        Raises:
            ValueError: the prompt is a conversation without a chat template or one that the template refuses, ends with
                an answer, holds a control token that cannot be told from the template's own, or encodes to nothing; or
                it is longer than ``max_length`` leaves room for (a ``LongRow`` if long rows are not an error).
        """
        if self.template == "chat":
            return self._head(self.conversation_ids(_open(prompt), add_generation_prompt=True))
        return self._plain_head(self._tokenize([self._plain_prompt(prompt)])[0])

    def encode(self, prompt: Prompt, response: str, *, ended: bool = True) -> Encoded:
        """Encode a row whose response is known as text. ``ended`` appends ``end_id``.

        Raises:
            ValueError: as ``prompt_ids``; or the row is longer than ``max_length`` (see ``on_long``).
        """
        ids, offsets = self._checked(self._tokenize([response])[0])
        return self._assemble(self.prompt_ids(prompt), ids, offsets, response, [self.end_id] if ended else [])

    def encode_sampled(self, prompt: Prompt, response: str, response_ids: Sequence[int]) -> Encoded:
        """Encode a row whose response was sampled: its ids are kept as they are, and their offsets worked out.

        Raises:
            ValueError: as ``encode``; or the ids do not decode to ``response``.
        """
        return self._assemble_sampled(self.prompt_ids(prompt), response, response_ids, self._tokenize([response])[0])

    def encode_all(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        sampled: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Encoded | ValueError]:
        """Encode many rows at once: each as ``encode`` does, or as ``encode_sampled`` where its ids are given.

        Args:
            prompts: one a row; one that comes several times is encoded once.
            responses: one a row, all ended.
            sampled: the sampled ids of a row or None, one a row; by default no row has any.

        Returns:
            For each row what it became, or the error that it would have raised.
        """
        try:
            bodies = self._tokenize(responses)
        except ValueError as error:  # half of a surrogate pair in one of them spoils the whole batch
            if len(responses) > 1:
                each = zip(prompts, responses, sampled or [None] * len(responses), strict=True)
                return [self.encode_all([p], [r], [ids])[0] for p, r, ids in each]
            return [error]
        heads = self._heads(prompts)
        rows: list[Encoded | ValueError] = []
        for k, (prompt, response, body) in enumerate(zip(prompts, responses, bodies, strict=True)):
            head = heads[_key(prompt)]
            given = None if sampled is None else sampled[k]
            try:
                if isinstance(head, ValueError):
                    rows.append(head)
                elif given is None:
                    rows.append(self._assemble(head, *self._checked(body), response, [self.end_id]))
                else:
                    rows.append(self._assemble_sampled(head, response, given, body))
            except ValueError as error:
                rows.append(error)
        return rows

    def text_ids(self, text: str) -> tuple[int, ...]:
        """The ids of a response by itself, without an end.

        Raises:
            ValueError: the text spells a control token that cannot be told from the token itself.
        """
        return tuple(self._checked(self._tokenize([text])[0])[0])

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

    def _assemble(
        self, head: tuple[int, ...], ids: list[int], offsets: list[tuple[int, int]], text: str, end: Sequence[int]
    ) -> Encoded:
        ends = ((len(text), len(text)),) * len(end)
        length = len(head) + len(ids) + len(end)
        if self.max_length is None or length <= self.max_length:
            return Encoded((*head, *ids, *end), len(head), (*offsets, *ends), bool(end))
        if self.on_long != OnLong.TRUNCATE:
            self._refuse(f"prompt and response have {length} tokens and the limit is {self.max_length}")
        kept, cut = self.max_length - len(head), length - self.max_length
        return Encoded((*head, *ids, *end)[: self.max_length], len(head), (*offsets, *ends)[:kept], False, cut)

    def _assemble_sampled(self, head: tuple[int, ...], text: str, response_ids: Sequence[int], plain: _Ids) -> Encoded:
        ids = self.body_ids(response_ids)
        offsets = plain[1] if plain[0] == list(ids) else self._offsets_by_decoding(list(ids), text)
        return self._assemble(head, list(ids), offsets, text, response_ids[len(ids) :])

    def _head(self, ids: list[int]) -> tuple[int, ...]:
        if not ids:
            raise ValueError("the prompt encodes to no id and the tokenizer has no BOS; use a template with some text")
        if self.max_length is not None and len(ids) >= self.max_length:
            self._refuse(f"the prompt has {len(ids)} tokens and the limit is {self.max_length}")
        return tuple(ids)

    def _plain_head(self, found: _Ids) -> tuple[int, ...]:
        return self._head([*self._begin, *self._checked(found)[0]])

    def _heads(self, prompts: Sequence[Prompt]) -> dict[str | int, tuple[int, ...] | ValueError]:
        """The ids of each of the prompts, or its error."""
        distinct = {_key(prompt): prompt for prompt in prompts}
        if self.template == "chat":
            return {key: _attempt(self.prompt_ids, prompt) for key, prompt in distinct.items()}
        texts = {key: _attempt(self._plain_prompt, prompt) for key, prompt in distinct.items()}
        heads: dict[str | int, tuple[int, ...] | ValueError] = {
            key: text for key, text in texts.items() if isinstance(text, ValueError)
        }
        usable = {key: text for key, text in texts.items() if not isinstance(text, ValueError)}
        try:
            found = self._tokenize(list(usable.values()))
        except ValueError:  # half of a surrogate pair in one of them spoils the whole batch
            return {key: _attempt(self.prompt_ids, prompt) for key, prompt in distinct.items()}
        return heads | {key: _attempt(self._plain_head, one) for key, one in zip(usable, found, strict=True)}

    def _refuse(self, reason: str) -> NoReturn:
        if self.on_long == OnLong.ERROR:
            raise TooLong(f"{reason}; raise the limit (max_length), or drop or truncate long rows (on_long)")
        raise LongRow(f"{reason}; raise the limit (max_length)")

    @cached_property
    def _begin(self) -> list[int]:
        """What a plain template begins with: BOS, where there is one."""
        return [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]

    def _plain_prompt(self, prompt: Prompt) -> str:
        return self.template.replace("{prompt}", _text(prompt))

    @cached_property
    def _control(self) -> dict[int, str]:
        """The control tokens and how they are spelled; ``all_special_tokens`` leaves out most of Llama 3's."""
        added = self.tokenizer.added_tokens_decoder
        return {place: token.content for place, token in added.items() if token.special and token.content}

    def _tokenize(self, texts: Sequence[str]) -> list[_Ids]:
        """Ids and offsets of texts, with nothing put before or behind them, cut off, or read as a control token."""
        try:
            found = self._backend.encode_batch(list(texts), add_special_tokens=False)
        except TypeError as error:
            raise ValueError(_HALF) from error
        rows = [(one.ids, one.offsets) for one in found]
        if self._joins_unknown:
            rows = [(ids, _part(offsets, text)) for (ids, offsets), text in zip(rows, texts, strict=True)]
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

    def _checked(self, found: _Ids) -> _Ids:
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

    def _template_encoding(self, text: str) -> _Ids:
        """Ids and offsets of what a template rendered: its control tokens are control tokens."""
        try:
            found = self._template_backend.encode(text, add_special_tokens=False)
        except TypeError as error:
            raise ValueError(_HALF) from error
        return found.ids, found.offsets

    def _ids_beside_spelled_control(
        self, messages: Sequence[Message], spelled: Sequence[str], *, add_generation_prompt: bool
    ) -> list[int]:
        # A private character stands in for each spelled control token while the template is rendered: so all control
        # tokens that are found are the template's own. Between them the tokenizer sees texts; each is encoded by
        # itself, with its control tokens put back as text.
        stand_ins = {token: chr(_STAND_IN + k) for k, token in enumerate(spelled)}
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


def load_encoder(
    folder: Path | str, *, template: str = "auto", max_length: int | None = None, on_long: OnLong | str = OnLong.ERROR
) -> Encoder:
    """The ``Encoder`` with the tokenizer saved beside a model.

    Raises:
        ValueError: as both do; or the tokenizer is another model's: its ids are beyond the embedding.
    """
    tokenizer = load_tokenizer(folder)
    try:
        encoder = Encoder(tokenizer, template=template, max_length=max_length, on_long=on_long)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    _check_vocabulary(encoder, find_model(folder))
    return encoder


def _check_vocabulary(encoder: Encoder, model: ModelFolder) -> None:
    try:
        config = json.loads((model.whole.path / "config.json").read_text(encoding="utf-8"))
        size = config.get("text_config", config)["vocab_size"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return  # whoever loads the model says what is wrong with it
    # Added tokens may well lie beyond (of images, say), if they are never used.
    words = encoder.tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    highest = max(words - 1, *encoder.end_ids, encoder.pad_id)
    if isinstance(size, int) and highest >= size:
        raise ValueError(
            f"{model.tokenizer_path / 'tokenizer.json'} writes ids up to {highest}, and the model of config.json has "
            f"{size}: it is another model's tokenizer, or its embedding was not resized; {model.remedy}"
        )


def _key(prompt: Prompt) -> str | int:
    return prompt if isinstance(prompt, str) else id(prompt)


def _attempt(do: Callable[[S], T], what: S) -> T | ValueError:
    try:
        return do(what)
    except ValueError as error:
        return error


def _part(offsets: Sequence[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Give each byte of a run of characters that share one span the character that it belongs to.

    >>> _part([(0, 1), (1, 3), (1, 3), (1, 3), (1, 3), (1, 3)], "xé€")
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


def _open(prompt: Prompt) -> Sequence[Message]:
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


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    only: Sequence[Message] = prompt
    if len(only) == 1 and only[0]["role"] == "user":
        return only[0]["content"]
    raise ValueError("the prompt is a conversation and the tokenizer has no chat template; use a model that has one")
