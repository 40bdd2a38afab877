"""How hard a server is asked, and what it may cost."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Annotated

from errata.client.chat import Ask
from errata.client.prices import Price
from errata.client.server import Reply, Server, TryAgain
from errata.ranges import Range, Size, check_ranges

__all__ = ["LONGEST_WAIT", "Account", "Limits", "OverLimit", "Paid", "StoppedElsewhere", "in_dollars", "most_tokens"]

LONGEST_WAIT = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How hard a server is asked, and for how much."""

    concurrency: Size = 8
    """Requests at a time."""
    per_minute: Annotated[float, Range(above=0)] | None = None
    """Requests a minute, tries counted."""
    tries: Size = 6
    """Of one request: rate limits, server errors, time-outs, cut-off answers and answers that do not fit together."""
    first_wait: Annotated[float, Range(low=0)] = 1.0
    """Seconds before the second try; they double with each, up to a minute, less a chance part of up to a half."""
    max_cost: Annotated[float, Range(low=0, high=inf)] | None = None
    """US dollars for this job: what it finds in the ledger and what it pays now."""

    def __post_init__(self) -> None:
        """Raise ValueError for a number that is out of its range."""
        check_ranges(self, flags=False, owner=" of the client's limits")


class StoppedElsewhere(Exception):  # noqa: N818
    """Another request met what ends all of them."""


class OverLimit(ValueError):  # noqa: N818
    """The limit of cost is reached."""


@dataclass(slots=True)
class Paid:
    """What one request has taken so far."""

    tries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


def most_tokens(ask: Ask) -> int:
    """A token is a byte at least, and a template adds a few; usual text has one for every four."""
    extra = json.dumps(ask.schema) if ask.schema is not None else ""
    return sum(len(each["content"].encode("utf-8", "replace")) + 16 for each in ask.messages) + len(extra)


def in_dollars(amount: float) -> str:
    """An amount with as many decimals as it needs."""
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.6f}".rstrip("0").rstrip(".")


class Account:
    """The pace and the money of a job: of all its requests, and of another job that shares them."""

    def __init__(
        self, server: Server, *, price: Price | None = None, limits: Limits | None = None, shares: Account | None = None
    ) -> None:
        self.server, self.price = server, price
        self.limits = limits or Limits()
        for name in ("concurrency", "tries", "per_minute", "max_cost"):
            value = getattr(self.limits, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; give a number above 0")
        if self.limits.max_cost is not None and price is None:
            raise ValueError(
                f"--max-cost needs the price of {server.model}, which is not known; leave it out, or"
                " give --price-in and --price-out where the verb has them, US dollars for a million tokens (0 for a"
                " server of your own)"
            )
        self._lock = threading.Condition()
        self._stop = threading.Event()
        self._paid: dict[str, float] = {} if shares is None else shares._paid
        self._perhaps_billed: list[float] = [] if shares is None else shares._perhaps_billed
        self._under_way = 0.0
        self._next_slot = self._not_before = 0.0

    @property
    def spent(self) -> float:
        """US dollars that this job cost so far: answers, failed tries, and answers that it found in the ledger."""
        return sum(self._paid.values())

    def _halt(self) -> None:
        self._stop.set()
        with self._lock:
            self._lock.notify_all()

    def _wait_for_turn(self) -> None:
        with self._lock:
            slot = max(time.monotonic(), self._next_slot)
            if self.limits.per_minute is not None:
                self._next_slot = slot + 60 / self.limits.per_minute
        self._sleep(slot - time.monotonic())
        while (wait := self._not_before - time.monotonic()) > 0:  # a server that is busy says so to all
            self._sleep(wait)

    def _back_off(self, error: TryAgain, tried: int) -> None:
        if error.after:  # 0, or a date that has passed, says nothing
            after = min(error.after, LONGEST_WAIT)
            with self._lock:  # for everybody: the limit is the account's
                self._not_before = max(self._not_before, time.monotonic() + after)
            return
        self._sleep(min(60.0, self.limits.first_wait * 2 ** (tried - 1)) * random.uniform(0.5, 1.0))

    def _sleep(self, seconds: float) -> None:
        if (seconds > 0 and self._stop.wait(seconds)) or self._stop.is_set():
            raise StoppedElsewhere

    @contextmanager
    def _reserved(self, key: str, ask: Ask) -> Iterator[None]:
        """Hold back what the request may cost at worst while it is under way; wait for others to come in below it.

        What a server may have charged for an answer that never came stays held back.
        """
        worst = 0.0 if self.price is None else self.price.of(most_tokens(ask), ask.max_tokens)
        limit = self.limits.max_cost
        with self._lock:
            while limit is not None and self.spent + sum(self._perhaps_billed) + self._under_way + worst > limit:
                if self._stop.is_set():
                    raise StoppedElsewhere
                if not self._under_way:
                    raise OverLimit(
                        f"--max-cost {in_dollars(limit)} is reached: {in_dollars(self.spent)} spent,"
                        + (
                            f" up to {in_dollars(sum(self._perhaps_billed))} for answers that never came,"
                            if self._perhaps_billed
                            else ""
                        )
                        + f" and the next request may cost {in_dollars(worst)}"
                    )
                self._lock.wait(1.0)
            self._under_way += worst
        billed = False
        try:
            yield
        except TryAgain as error:
            billed = error.billed
            raise
        finally:
            with self._lock:
                self._under_way -= worst
                if self._under_way < 1e-12:
                    self._under_way = 0.0
                self._perhaps_billed += [worst] if billed else []
                self._lock.notify_all()

    def _pay(self, key: str, reply: Reply, paid: Paid) -> None:
        paid.input_tokens += reply.input_tokens
        paid.output_tokens += reply.output_tokens
        counted = reply.input_tokens and (reply.output_tokens or not reply.text)
        if self.limits.max_cost is not None and not counted:
            raise ValueError(f"{self.server.name} does not count tokens, so --max-cost cannot hold; leave it out")
        if self.price is not None:
            with self._lock:
                cost = self.price.of(reply.input_tokens, reply.output_tokens)
                self._paid[key] = self._paid.get(key, 0.0) + cost
