"""The providers of chat models: one line each, and everything else follows from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["OTHER_KEY", "PROVIDERS", "Provider", "key_variables", "provider_of"]

OTHER_KEY = "ERRATA_API_KEY"
"""The environment variable with the key of any server that is not a provider's own."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who offers chat models: ``name:MODEL`` on the command line."""

    name: str
    title: str
    key: str
    """The environment variable that holds its key; it is sent to this provider alone, and taken out of every error."""
    server: str
    """``module:class`` of its ``Server``; imported when it is asked for, as its SDK may not be installed."""

    def key_for(self, url: str | None) -> tuple[str, str]:
        """The environment variable of the key, and the key; a server at ``url`` that stands in for it gets another.

        Raises:
            ValueError: the provider's is not set.
        """
        variable = self.key if url is None else OTHER_KEY
        key = os.environ.get(variable)
        if url is None and not key:
            raise ValueError(f"{self.title} needs a key: set the environment variable {variable}")
        return variable, key or "none"

    def connect(self, model: str, *, url: str | None = None, timeout: float) -> Any:
        """One of its models, as a ``Server``.

        Raises:
            ValueError: the SDK or the key is missing.
        """
        module, _, kind = self.server.partition(":")
        return getattr(import_module(module), kind)(model, url=url, timeout=timeout)


ANTHROPIC = Provider("anthropic", "Anthropic", "ANTHROPIC_API_KEY", "errata.client.anthropic:AnthropicServer")
OPENAI = Provider("openai", "OpenAI", "OPENAI_API_KEY", "errata.client.openai:OpenAIServer")
PROVIDERS = (ANTHROPIC, OPENAI)


def provider_of(spec: str) -> Provider | None:
    """Whose model ``spec`` names; None where it is no provider's.

    >>> provider_of("openai:gpt").key, provider_of("local:folder")
    ('OPENAI_API_KEY', None)
    """
    name, _, model = spec.partition(":")
    return next((each for each in PROVIDERS if each.name == name and model), None)


def key_variables() -> list[str]:
    """The environment variables that may hold a key.

    >>> key_variables()
    ['ANTHROPIC_API_KEY', 'OPENAI_API_KEY', 'ERRATA_API_KEY']
    """
    return [*(provider.key for provider in PROVIDERS), OTHER_KEY]
