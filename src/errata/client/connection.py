"""From a name on the command line to a chat."""

from __future__ import annotations

import re
from pathlib import Path

from errata.client import providers
from errata.client.engine import Engine, Limits
from errata.client.ledger import Ledger
from errata.client.prices import Price, price_of
from errata.client.providers import provider_of
from errata.client.server import Failed, Refused, Server, TryAgain

__all__ = ["check_chat", "connect", "open_chat"]


def connect(spec: str, *, url: str | None = None, timeout: float = 300.0) -> Server:
    """The model that ``spec`` names; nothing is sent, but for a URL alone, whose server is asked what it has.

    ==============================  ======================================================================
    ``anthropic:MODEL``             Anthropic, key in ANTHROPIC_API_KEY
    ``openai:MODEL``                OpenAI, key in OPENAI_API_KEY
    ``MODEL@URL`` or ``URL``        any server with OpenAI's protocol (vLLM, llama.cpp, transformers serve),
                                    key, if it wants one, in ERRATA_API_KEY; URL alone: its only model
    ``local:MODEL``                 a model folder, or owner/name or owner/name@revision of the
                                    Hugging Face Hub, in this process
    ==============================  ======================================================================

    Args:
        spec: as above.
        url: a server that stands in for the provider's.
        timeout: longest wait for an answer, in seconds.

    Raises:
        ValueError: it names nothing that is known; the SDK or the key is missing; the URL has several models.
    """
    kind, _, name = spec.partition(":")
    provider = provider_of(spec)
    if provider is not None:
        server: Server = provider.connect(name, url=url, timeout=timeout)
        return server
    if kind == "local" and name:
        from errata.client.local import LocalServer

        return LocalServer(name)
    found = re.fullmatch(r"(?:(.*)@)?(https?://.*)", spec)
    if found is None:
        offers = ", ".join(f"{each.name}:MODEL" for each in providers.PROVIDERS)
        raise ValueError(
            f"{spec!r} names no chat model; give {offers}, MODEL@URL or URL (a server with "
            "OpenAI's protocol), or local:MODEL (a folder, or owner/name of the hub)"
        )
    from errata.client.openai import OpenAIServer

    model, place = found.groups()
    if model is None:
        asked = OpenAIServer("", url=place, timeout=timeout)
        offered = asked.models()
        if len(offered) != 1:
            some = ", ".join(offered[:5]) or "none that it names"
            raise ValueError(f"{asked.name} has {len(offered)} models ({some}); name one: MODEL@{asked.name}")
        model = offered[0]
    return OpenAIServer(model, url=place, timeout=timeout)


def open_chat(
    spec: str,
    *,
    url: str | None = None,
    ledger: Path | None = None,
    price: Price | None = None,
    limits: Limits | None = None,
    timeout: float = 300.0,
    dry_run: bool = False,
    shares: Engine | None = None,
) -> Engine:
    """A chat with the model that ``spec`` names, as ``connect`` says.

    Args:
        spec: the model.
        url: a server that stands in for the provider's.
        ledger: the file in which all is written down; None keeps it in memory.
        price: of its tokens; the list price of a provider's model if not given, nothing for ``local:``.
        limits: how hard it is asked, and for how much.
        timeout: longest wait for an answer, in seconds.
        dry_run: print and send nothing.
        shares: another chat of the same job, for the limit of cost.

    Raises:
        ValueError: as ``connect``; a limit of cost without a price; the ledger is none.
    """
    server = connect(spec, url=url, timeout=timeout)
    if price is None:
        provider = url is None and provider_of(spec) is not None
        price = Price(0, 0) if spec.startswith("local:") else price_of(server.model) if provider else None
    return Engine(server, Ledger(ledger), price=price, limits=limits, dry_run=dry_run, shares=shares)


def check_chat(spec: str, *, limits: Limits | None = None) -> None:
    """See whether the model that ``spec`` names can be asked, before other work that would be in vain.

    It costs nothing, or one token of a server that is named by its URL. One that is there and busy is taken.

    Raises:
        ValueError: as ``open_chat``; or nobody is there, the key is refused, or the model is not known.
    """
    look = getattr(open_chat(spec, limits=limits, timeout=30.0).server, "look", None)
    if look is None:  # in this process
        return
    try:
        look()
    except TryAgain as error:
        if not error.connected:
            raise ValueError(f"nobody answers there ({error}); start the server, or correct the address") from None
    except (Failed, Refused):
        pass  # it answers, and wants to be asked otherwise
