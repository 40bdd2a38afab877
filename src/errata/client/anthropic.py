"""Claude, by Anthropic's SDK."""

from __future__ import annotations

import weakref
from collections.abc import Set
from typing import Any

from errata.client.chat import Ask, Stop
from errata.client.providers import ANTHROPIC
from errata.client.server import Reply, TryAgain, address, need, patience, scrubbed, translated

__all__ = ["AnthropicServer"]

_WIRE = {"temperature": "temperature", "schema": "output_config"}
_STOPS = {"max_tokens": Stop.LENGTH, "model_context_window_exceeded": Stop.LENGTH, "refusal": Stop.REFUSAL}


class AnthropicServer:
    """A model of Anthropic's. It knows no seed; newer ones take no temperature, which is then left out.

    Args:
        model: its name.
        url: a server that stands in for Anthropic's; it gets ERRATA_API_KEY, never ANTHROPIC_API_KEY.
        timeout: longest wait for an answer, in seconds.

    Raises:
        ValueError: the SDK or the key is missing.
    """

    def __init__(self, model: str, *, url: str | None = None, timeout: float = 300.0) -> None:
        self._sdk = need("anthropic")
        self._key, key = ANTHROPIC.key_for(url)
        self.sdk: Any = self._sdk.Anthropic(
            api_key=key, base_url=url, max_retries=0, timeout=patience(self._sdk, timeout)
        )
        weakref.finalize(self, self.sdk.close)  # its connections outlive it otherwise
        self.model = model
        self.name = address(self.sdk.base_url)
        self.enforces_schema = True

    def look(self) -> None:
        """Ask whether the model is there, for nothing. Raises as ``send``."""
        try:
            self.sdk.models.retrieve(self.model)
        except Exception as error:
            raise translated(error, self._sdk, {}, key=self._key) from None

    def send(self, ask: Ask, *, without: Set[str]) -> Reply:
        """Send one request, once."""
        system = "\n\n".join(each["content"] for each in ask.messages if each["role"] == "system")
        settings: dict[str, Any] = {"system": system} if system else {}
        if ask.temperature is not None and "temperature" not in without:
            settings["extra_body"] = {"temperature": ask.temperature}  # the SDK has no word for it any more
        if ask.schema is not None and "schema" not in without:
            settings["output_config"] = {"format": {"type": "json_schema", "schema": dict(ask.schema)}}
        try:
            got = self.sdk.messages.create(
                model=self.model,
                max_tokens=ask.max_tokens,
                messages=[dict(each) for each in ask.messages if each["role"] != "system"],
                **settings,
            )
        except Exception as error:
            raise translated(error, self._sdk, _WIRE, key=self._key) from None
        return _read(got)


def _read(got: Any) -> Reply:
    content, usage = getattr(got, "content", None), getattr(got, "usage", None)
    if content is None or usage is None:
        inside = getattr(got, "error", None)
        raise TryAgain(scrubbed(f"an answer without content: {inside or got}")[:500])
    return Reply(
        text="".join(block.text for block in content if block.type == "text"),
        stop=_STOPS.get(got.stop_reason, Stop.END),
        model=got.model or "",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
    )
