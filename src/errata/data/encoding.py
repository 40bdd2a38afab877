"""The one place where text becomes ids: labels, training, PPO and judging all encode here.

A row becomes ``[BOS] + prompt ids + response ids + [EOS]``. The response is tokenised on its own and appended, which is
what happens when a model generates: so the prompt's ids are a prefix of the whole by construction, for every tokenizer.
Control tokens that stand as text in a response (or in a plainly templated prompt) stay text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from errata.types import Encoded, Prompt

__all__ = ["PLAIN_TEMPLATE", "Encoder"]

PLAIN_TEMPLATE = "{prompt}\n"


class Encoder:
    """Turns prompts and responses into ids with one tokenizer and one template.

    Args:
        tokenizer: a fast Hugging Face tokenizer with an end-of-sequence token.
        template: ``"auto"`` uses the tokenizer's chat template where it has one and ``PLAIN_TEMPLATE`` otherwise;
            ``"chat"`` insists on the former; any text with ``{prompt}`` in it is a plain template.
        max_length: the most tokens a row may have, prompt, response and control tokens together.

    Raises:
        ValueError: the tokenizer is slow, has no end-of-sequence token, or has no chat template where one is asked for.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, template: str = "auto", max_length: int | None = None
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
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length

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

    @property
    def end_id(self) -> int:
        """The end-of-sequence id, which every response that ended carries last."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """An id to fill batches with. It may equal the end of sequence: masks come from lengths, never from ids."""
        pad = self.tokenizer.pad_token_id
        return self.end_id if pad is None else int(pad)

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The ids that a model is given before it answers: at least one, and one BOS where the tokenizer has it.

        Raises:
            ValueError: the prompt is longer than ``max_length`` leaves room for, is a conversation without a chat
                template, holds a control token that a chat template could not tell from its own, or encodes to nothing.
        """
        if self.template == "chat":
            ids = self._chat_ids(prompt)
        else:
            bos = self.tokenizer.bos_token_id
            ids = ([] if bos is None else [bos]) + self._plain_ids(self.template.replace("{prompt}", _text(prompt)))[0]
        if not ids:
            raise ValueError("the prompt encodes to no id and the tokenizer has no BOS; use a template with some text")
        if self.max_length is not None and len(ids) >= self.max_length:
            raise ValueError(
                f"the prompt has {len(ids)} tokens and the limit is {self.max_length}; raise the limit or leave it out"
            )
        return tuple(ids)

    def encode(self, prompt: Prompt, response: str, *, ended: bool = True) -> Encoded:
        """Encode a row whose response is known as text. ``ended`` appends the end of sequence.

        Raises:
            ValueError: as ``prompt_ids``; or the row is longer than ``max_length``.
        """
        ids, offsets = self._plain_ids(response)
        if ended:
            ids, offsets = [*ids, self.end_id], [*offsets, (len(response), len(response))]
        return self._assemble(prompt, ids, offsets, ended)

    def encode_sampled(self, prompt: Prompt, response: str, response_ids: Sequence[int]) -> Encoded:
        """Encode a row whose response was sampled: its ids are kept as they are, and their offsets worked out.

        Raises:
            ValueError: as ``encode``; or the ids do not decode to ``response``.
        """
        ended = bool(response_ids) and response_ids[-1] == self.end_id
        body = list(response_ids[:-1] if ended else response_ids)
        ids, offsets = self._plain_ids(response)
        if ids != body:
            offsets = self._offsets_by_decoding(body, response)
        if ended:
            body, offsets = [*body, self.end_id], [*offsets, (len(response), len(response))]
        return self._assemble(prompt, body, offsets, ended)

    def decode(self, response_ids: Sequence[int]) -> str:
        """The text of sampled ids; the end of sequence is not text, every other id is."""
        body = response_ids[:-1] if response_ids and response_ids[-1] == self.end_id else response_ids
        return str(self.tokenizer.decode(list(body), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _assemble(self, prompt: Prompt, ids: list[int], offsets: list[tuple[int, int]], ended: bool) -> Encoded:
        prompt_ids = self.prompt_ids(prompt)
        length = len(prompt_ids) + len(ids)
        if self.max_length is not None and length > self.max_length:
            raise ValueError(f"prompt and response have {length} tokens and the limit is {self.max_length}; raise it")
        return Encoded((*prompt_ids, *ids), len(prompt_ids), tuple(offsets), ended)

    def _plain_ids(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        # split_special_tokens: a response that spells "</s>" must not end the sequence.
        output = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True, verbose=False
        )
        return list(output["input_ids"]), [(start, stop) for start, stop in output["offset_mapping"]]

    def _chat_ids(self, prompt: Prompt) -> list[int]:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
        for message in messages:
            for control in self.tokenizer.all_special_tokens:
                if control in message["content"]:
                    raise ValueError(
                        f"the prompt spells the control token {control!r}, which this chat template could not tell "
                        "from its own; take it out of the text"
                    )
        rendered = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = list(self.tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"])
        bos = self.tokenizer.bos_token_id
        if bos is not None and bos != self.end_id and ids.count(bos) > 1:
            raise ValueError(
                f"the chat template gives {ids.count(bos)} beginning-of-sequence tokens; mend the template"
            )
        return ids

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


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    only: Sequence[Mapping[str, str]] = prompt
    if len(only) == 1 and only[0]["role"] == "user":
        return only[0]["content"]
    raise ValueError("the prompt is a conversation and the tokenizer has no chat template; use a model that has one")
