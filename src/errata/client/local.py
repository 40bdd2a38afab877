"""A model folder in this process, by transformers: one request at a time. For many, serve it (vLLM, transformers)."""

from __future__ import annotations

import threading
from collections.abc import Set
from pathlib import Path
from typing import Any

from errata.client.chat import Ask, Stop
from errata.client.server import Failed, Reply
from errata.pretrained import find_model, identity

__all__ = ["LocalServer"]


class LocalServer:
    """A chat model in a folder or of the Hugging Face Hub. It is loaded with the first request that the ledger cannot
    answer, in the type that it is stored in.

    Raises:
        ValueError: there is no model, it is damaged, or it has no chat template.
    """  # noqa: D205

    enforces_schema = False

    def __init__(self, reference: Path | str) -> None:
        found = find_model(reference)
        if not (found.whole.path / "config.json").exists():
            raise ValueError(f"{reference} is no model folder: it has no config.json; {found.remedy}")
        # What was named is what answers, should the Hub's revision move meanwhile.
        self._reference, self._lock = found.pinned, threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        self.model = found.name
        # Another model in the same folder is another model, and so is the same one with another template or tokenizer.
        name, mark = identity(self._reference)
        self.name = f"local {name if found.repo else Path(found.reference).resolve()} {mark}"

    def send(self, ask: Ask, *, without: Set[str]) -> Reply:
        """Generate one answer; greedy at temperature 0, and seeded where a seed is given."""
        import torch

        with self._lock, torch.random.fork_rng():
            model, tokenizer = self._load()
            inputs = tokenizer.apply_chat_template(
                [dict(each) for each in ask.messages], add_generation_prompt=True, return_tensors="pt", return_dict=True
            ).to(model.device)
            length = inputs["input_ids"].shape[1]
            room = getattr(model.config, "max_position_embeddings", None)
            if room is not None and length >= room:
                raise Failed(f"the request has {length} tokens, the model has room for {room}")
            if ask.seed is not None:
                torch.manual_seed(ask.seed)
            sampling: dict[str, Any] = {"do_sample": False} if ask.temperature == 0 else {}
            if ask.temperature:
                sampling = {"do_sample": True, "temperature": ask.temperature, "top_k": 0, "top_p": 1.0}
            limit = ask.max_tokens if room is None else min(ask.max_tokens, room - length)
            with torch.inference_mode():
                ids = model.generate(**inputs, max_new_tokens=limit, **sampling)[0, length:].tolist()
        ends = model.generation_config.eos_token_id
        ended = bool(ids) and ids[-1] in (ends if isinstance(ends, list) else [ends])
        return Reply(
            text=tokenizer.decode(ids, skip_special_tokens=True),
            stop=Stop.END if ended else Stop.LENGTH,
            model=self.model,
            input_tokens=length,
            output_tokens=len(ids),
        )

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForCausalLM

            from errata.pretrained.load import load_pretrained
            from errata.pretrained.tokenizer import load_tokenizer

            tokenizer: Any = load_tokenizer(self._reference)
            if tokenizer.chat_template is None:
                raise ValueError(f"{self._reference} has no chat template, so it is no chat model; name one that has")
            model, _ = load_pretrained(
                AutoModelForCausalLM, self._reference, what="causal language model", trust_remote_code=False
            )
            self._loaded = (model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer)
        return self._loaded
