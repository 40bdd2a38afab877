"""The verbs ``client check`` and ``client costs``, and the flags of every verb that asks a chat model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from errata.client import Engine, Ledger, Limits, Price, check_server, connect, open_chat
from errata.commands.shared import console
from errata.ranges import Range, Ranged, Size

__all__ = ["ClientCheck", "ClientCosts", "ClientFlags", "JudgeFlags"]


@dataclass(frozen=True, kw_only=True)
class ClientFlags(Ranged):
    """Which chat model is asked, how hard, and for how much."""

    llm: str | None = None
    """anthropic:MODEL, openai:MODEL, MODEL@URL or URL (vLLM, llama.cpp, transformers serve), or local:MODEL. Keys come
    from ANTHROPIC_API_KEY, OPENAI_API_KEY, for other servers ERRATA_API_KEY, and are written nowhere."""
    llm_url: str | None = None
    """A server that stands in for the provider's."""
    ledger: Path = Path("ledger.sqlite")
    """All requests and answers: what stands there is not asked (and paid) again. See `errata client costs`."""
    max_cost: Annotated[float, Range(low=0, high=inf)] | None = None
    """Stop before this job has cost more, in US dollars; the same command with more goes on."""
    price_in: Annotated[float, Range(low=0)] | None = None
    """US dollars for a million tokens read, where the list does not know the model."""
    price_out: Annotated[float, Range(low=0)] | None = None
    """US dollars for a million tokens written."""
    concurrency: Size = 8
    """Requests at a time."""
    rpm: Annotated[float, Range(above=0)] | None = None
    """Most requests a minute."""
    tries: Size = 6
    """Of one request: rate limits, server errors, time-outs."""
    timeout: Annotated[float, Range(above=0)] = 300.0
    """Longest wait for one answer, in seconds."""
    dry_run: bool = False
    """Print the first prompts and what all would cost, and send nothing."""

    def open(self, *, shares: Engine | None = None) -> Engine:
        """The chat; ``shares`` is another of the same job, for --max-cost.

        Raises:
            ValueError: no model is named, one price stands alone, or as ``open_chat``.
        """
        if self.llm is None:
            raise ValueError("--llm names no model; give anthropic:MODEL, openai:MODEL, MODEL@URL, URL or local:MODEL")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("--price-in and --price-out go together; 0 is a price")
        price = None
        if self.price_in is not None and self.price_out is not None:
            price = Price(self.price_in, self.price_out)
        limits = Limits(concurrency=self.concurrency, per_minute=self.rpm, tries=self.tries, max_cost=self.max_cost)
        return open_chat(
            self.llm,
            url=self.llm_url,
            ledger=self.ledger,
            price=price,
            limits=limits,
            timeout=self.timeout,
            dry_run=self.dry_run,
            shares=shares,
        )


@dataclass(frozen=True, kw_only=True)
class JudgeFlags(Ranged):
    """The chat model that judges what another wrote."""

    judge: str | None = None
    """A chat model that judges what --llm wrote, named as that is and best of another maker; asked in both orders, with
    the guideline. `errata edits llm` sets aside each edit that it does not prefer to the response both times. Its
    answers are in the same ledger, and what it costs counts against --max-cost."""
    judge_url: str | None = None
    """A server that stands in for the judge's provider."""
    judge_price_in: Annotated[float, Range(low=0)] | None = None
    """US dollars for a million tokens that the judge reads, where the list does not know it."""
    judge_price_out: Annotated[float, Range(low=0)] | None = None
    """US dollars for a million tokens that the judge writes."""

    def open(self, client: ClientFlags, *, shares: Engine) -> Engine:
        """The judge's chat, with all else as ``client`` has it.

        Raises:
            ValueError: as ``ClientFlags.open``.
        """
        prices = (self.judge_price_in, self.judge_price_out)
        judge = replace(client, llm=self.judge, llm_url=self.judge_url, price_in=prices[0], price_out=prices[1])
        try:
            return judge.open(shares=shares)
        except ValueError as error:
            raise ValueError(f"--judge {self.judge}: {str(error).replace('--price', '--judge-price')}") from error


@dataclass(frozen=True, kw_only=True)
class ClientCheck(Ranged):
    """What a server honours of a request (temperature, seed, schema, logprobs, n, …), and what it ignores in silence.

    It is asked some twenty short things. `errata client check http://127.0.0.1:8000/v1`
    """

    server: Annotated[str, tyro.conf.Positional]
    """anthropic:MODEL, openai:MODEL, MODEL@URL or URL, or local:MODEL."""
    timeout: Annotated[float, Range(above=0)] = 60.0
    """Longest wait for one answer, in seconds."""

    def run(self) -> None:
        server = connect(self.server, timeout=self.timeout)
        table = Table(title=f"{server.model} at {server.name}", title_justify="left")
        for name in ("parameter", "verdict", "how it was seen"):
            table.add_column(name)
        for finding in check_server(server):
            table.add_row(*finding)
        console.print(table, highlight=False, markup=False)


@dataclass(frozen=True, kw_only=True)
class ClientCosts:
    """What a ledger's requests have cost, by day (UTC) and model."""

    ledger: Annotated[Path, tyro.conf.Positional] = Path("ledger.sqlite")
    """The file."""

    def run(self) -> None:
        if not self.ledger.exists():
            raise ValueError(f"there is no ledger {self.ledger}")
        if not self.ledger.stat().st_size:
            raise ValueError(f"the ledger {self.ledger} is empty: it was cut off; there is nothing to tell")
        table = Table("day", "model", "requests", "tries", "tokens in", "tokens out", "US dollars", "of unknown price")
        rows = Ledger(self.ledger).spent()
        counted: list[tuple[int, int, int, int]] = []
        for row in rows:
            cost = "–" if row.cost is None else f"{row.cost:.4f}"
            counted.append((row.requests, row.tries, row.input_tokens, row.output_tokens))
            table.add_row(row.day, row.model, *map(str, counted[-1]), cost, str(row.unpriced))
        totals = [sum(row[k] for row in counted) for k in range(4)]
        table.add_row("", "all", *map(str, totals), f"{sum(row.cost or 0.0 for row in rows):.4f}", "")
        console.print(table, highlight=False)
