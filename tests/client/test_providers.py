"""One table of providers: whoever stands in it can be connected to, and its key is in no error."""

from __future__ import annotations

from typing import Any

import pytest

from errata.client import connect, providers
from errata.client.providers import Provider
from errata.client.server import scrubbed
from errata.commands.client import ClientFlags

KEY = "not-of-a-known-shape-0123"


class Silent:
    """A server that is never asked."""

    def __init__(self, model: str, *, url: str | None, timeout: float) -> None:
        self.model, self.found = model, NEW.key_for(url)


NEW = Provider("newcomer", "Newcomer", "NEWCOMER_KEY", f"{__name__}:Silent")


def test_a_line_in_the_table_is_a_new_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWCOMER_KEY", KEY)
    monkeypatch.setenv("ERRATA_API_KEY", "another-0123")
    assert scrubbed(f"bad key {KEY}") == f"bad key {KEY}", "nothing makes it a secret yet"
    with pytest.raises(ValueError, match="'newcomer:large' names no chat model; give anthropic:MODEL, openai:MODEL"):
        connect("newcomer:large")
    monkeypatch.setattr(providers, "PROVIDERS", (*providers.PROVIDERS, NEW))
    assert scrubbed(f"bad key {KEY}") == "bad key [key]"
    server: Any = connect("newcomer:large")
    assert (server.model, server.found) == ("large", ("NEWCOMER_KEY", KEY))
    other: Any = connect("newcomer:large", url="http://127.0.0.1:1")
    assert other.found == ("ERRATA_API_KEY", "another-0123"), "another server never sees the provider's key"
    monkeypatch.delenv("NEWCOMER_KEY")
    with pytest.raises(ValueError, match="Newcomer needs a key: set the environment variable NEWCOMER_KEY"):
        connect("newcomer:large")


def test_the_help_names_every_provider_and_its_key() -> None:
    import inspect

    source = inspect.getsource(ClientFlags)
    for provider in providers.PROVIDERS:
        assert f"{provider.name}:MODEL" in source
        assert provider.key in source
