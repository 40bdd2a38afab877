"""A model folder in this process, by transformers: one request at a time. For many, serve it (vLLM, transformers)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Set
from pathlib import Path
from typing import Any

from errata.client.chat import Ask, Stop
from errata.client.server import Failed, Reply

__all__ = ["LocalServer"]


class LocalServer:
    """A chat model in a folder. It is loaded with the first request that the ledger cannot answer.

    Raises:
        ValueError: there is no model, or it has no chat template.
    """

    enforces_schema = False

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").exists():
            raise ValueError(f"{folder} is no model folder: it has no config.json")
        self._folder, self._lock = folder, threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        self.model = folder.resolve().name
        # Another model in the same folder is another model, and so is the same one with another template or tokenizer.
        files = sorted(file for file in folder.iterdir() if file.is_file())
        stamp = repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
        self.name = f"local {folder.resolve()} {hashlib.sha256(stamp.encode()).hexdigest()[:16]}"

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
            from transformers import AutoModelForCausalLM, AutoTokenizer

            tokenizer: Any = AutoTokenizer.from_pretrained(self._folder)
            if tokenizer.chat_template is None:
                raise ValueError(f"{self._folder} has no chat template, so it is no chat model; name one that has")
            model: Any = AutoModelForCausalLM.from_pretrained(self._folder, dtype="auto")
            self._loaded = (model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer)
        return self._loaded
