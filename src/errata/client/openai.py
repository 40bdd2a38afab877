"""OpenAI, and whatever speaks its protocol: vLLM, llama.cpp, transformers serve."""

from __future__ import annotations

import weakref
from collections.abc import Set
from typing import Any

from errata.client.chat import Ask, Stop
from errata.client.providers import OPENAI
from errata.client.server import Reply, TryAgain, address, need, patience, scrubbed, translated

__all__ = ["OpenAIServer"]

_WIRE = {"temperature": "temperature", "seed": "seed", "schema": "response_format"}
_STOPS = {"stop": Stop.END, "length": Stop.LENGTH, "content_filter": Stop.REFUSAL}


class OpenAIServer:
    """A server that speaks OpenAI's protocol.

    Args:
        model: its name there.
        url: where it is; None is OpenAI. OPENAI_API_KEY goes to OpenAI alone, any other server gets ERRATA_API_KEY.
        timeout: longest wait for an answer, in seconds.

    Raises:
        ValueError: the SDK or the key is missing.
    """

    def __init__(self, model: str, *, url: str | None = None, timeout: float = 300.0) -> None:
        self._sdk = need("openai")
        self._key, key = OPENAI.key_for(url)
        self.sdk: Any = self._sdk.OpenAI(api_key=key, base_url=url, max_retries=0, timeout=patience(self._sdk, timeout))
        weakref.finalize(self, self.sdk.close)  # its connections outlive it otherwise
        self.model = model
        self.name = address(self.sdk.base_url)
        self.enforces_schema = url is None

    def models(self) -> list[str]:
        """What the server offers.

        Raises:
            ValueError: it cannot be asked.
        """
        try:
            return [model.id for model in self.sdk.models.list()]
        except Exception as error:
            found = translated(error, self._sdk, {}, key=self._key)
            raise ValueError(f"{self.name} does not say which models it has: {found}") from None

    def look(self) -> None:
        """Ask whether the model is there, for nothing at OpenAI, for one token elsewhere. Raises as ``send``."""
        if not self.enforces_schema:  # other servers often cannot be asked by name
            self.send(Ask(messages=({"role": "user", "content": "Say yes."},), max_tokens=1), without=frozenset())
            return
        try:
            self.sdk.models.retrieve(self.model)
        except Exception as error:
            raise translated(error, self._sdk, {}, key=self._key) from None

    def send(self, ask: Ask, *, without: Set[str]) -> Reply:
        """Send one request, once."""
        # OpenAI's newer models know only the new name, other servers often only the old one.
        limit = "max_completion_tokens" if self.enforces_schema else "max_tokens"
        settings: dict[str, Any] = {limit: ask.max_tokens}
        if ask.temperature is not None and "temperature" not in without:
            settings["temperature"] = ask.temperature
        if ask.seed is not None and "seed" not in without:
            settings["seed"] = ask.seed
        if ask.schema is not None and "schema" not in without:
            named = {"name": "answer", "schema": dict(ask.schema), "strict": True}
            settings["response_format"] = {"type": "json_schema", "json_schema": named}
        try:
            got = self.sdk.chat.completions.create(
                model=self.model, messages=[dict(each) for each in ask.messages], **settings
            )
        except Exception as error:
            raise translated(error, self._sdk, _WIRE, key=self._key) from None
        return _read(got)


def _read(got: Any) -> Reply:
    choice, usage = next(iter(getattr(got, "choices", None) or ()), None), getattr(got, "usage", None)
    message = getattr(choice, "message", None)
    # Some servers answer 200 with an error inside, routers with one in the place of the message.
    if choice is None or message is None:
        inside = getattr(got, "error", None)
        raise TryAgain(scrubbed(f"an answer without content: {inside or got}")[:500])
    refusal = getattr(message, "refusal", None)
    return Reply(
        text=refusal or _text(message.content),
        stop=Stop.REFUSAL if refusal else _STOPS.get(choice.finish_reason, Stop.END),
        model=got.model or "",
        input_tokens=(usage and usage.prompt_tokens) or 0,
        output_tokens=(usage and usage.completion_tokens) or 0,
    )


def _text(content: Any) -> str:
    """Of servers that answer in parts (thoughts, text) those that are text."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if part.get("type") == "text")
    return content or ""
