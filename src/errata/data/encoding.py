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
from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from errata.data.templating import (
    PLAIN_TEMPLATE,
    IdsAndSpans,
    TemplatedTokenizer,
    attempt,
    open_messages,
    prompt_key,
)
from errata.pretrained import ModelFolder, find_model
from errata.pretrained.tokenizer import load_tokenizer
from errata.types import Encoded, Prompt

if TYPE_CHECKING:
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


class OnLong(StrEnum):
    """What becomes of a row that is longer than ``max_length``."""

    ERROR = "error"
    DROP = "drop"
    TRUNCATE = "truncate"


class TooLong(ValueError):  # noqa: N818
    """A row that is longer than ``max_length``, where that is an error."""


class LongRow(ValueError):  # noqa: N818
    """A row that is too long and shall be left out: whoever loops over rows counts it and goes on."""


class Encoder(TemplatedTokenizer):
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
        super().__init__(tokenizer, template=template)
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length is {max_length}; give 1 token or more, or leave it out")
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

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The ids that a model is given before it answers: at least one, and one BOS where the tokenizer has it.

        Raises:
            ValueError: the prompt is a conversation without a chat template or one that the template refuses, ends with
                an answer, holds a control token that cannot be told from the template's own, or encodes to nothing; or
                it is longer than ``max_length`` leaves room for (a ``LongRow`` if long rows are not an error).
        """
        if self.template == "chat":
            return self._head(self.conversation_ids(open_messages(prompt), add_generation_prompt=True))
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
            head = heads[prompt_key(prompt)]
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

    def _assemble_sampled(
        self, head: tuple[int, ...], text: str, response_ids: Sequence[int], plain: IdsAndSpans
    ) -> Encoded:
        ids = self.body_ids(response_ids)
        offsets = plain[1] if plain[0] == list(ids) else self._offsets_by_decoding(list(ids), text)
        return self._assemble(head, list(ids), offsets, text, response_ids[len(ids) :])

    def _head(self, ids: list[int]) -> tuple[int, ...]:
        if not ids:
            raise ValueError("the prompt encodes to no id and the tokenizer has no BOS; use a template with some text")
        if self.max_length is not None and len(ids) >= self.max_length:
            self._refuse(f"the prompt has {len(ids)} tokens and the limit is {self.max_length}")
        return tuple(ids)

    def _plain_head(self, found: IdsAndSpans) -> tuple[int, ...]:
        return self._head([*self._begin, *self._checked(found)[0]])

    def _heads(self, prompts: Sequence[Prompt]) -> dict[str | int, tuple[int, ...] | ValueError]:
        """The ids of each of the prompts, or its error."""
        distinct = {prompt_key(prompt): prompt for prompt in prompts}
        if self.template == "chat":
            return {key: attempt(self.prompt_ids, prompt) for key, prompt in distinct.items()}
        texts = {key: attempt(self._plain_prompt, prompt) for key, prompt in distinct.items()}
        heads: dict[str | int, tuple[int, ...] | ValueError] = {
            key: text for key, text in texts.items() if isinstance(text, ValueError)
        }
        usable = {key: text for key, text in texts.items() if not isinstance(text, ValueError)}
        try:
            found = self._tokenize(list(usable.values()))
        except ValueError:  # half of a surrogate pair in one of them spoils the whole batch
            return {key: attempt(self.prompt_ids, prompt) for key, prompt in distinct.items()}
        return heads | {key: attempt(self._plain_head, one) for key, one in zip(usable, found, strict=True)}

    def _refuse(self, reason: str) -> NoReturn:
        if self.on_long == OnLong.ERROR:
            raise TooLong(f"{reason}; raise the limit (max_length), or drop or truncate long rows (on_long)")
        raise LongRow(f"{reason}; raise the limit (max_length)")


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
