"""The chat that editors and judges get: the one owner of retries, limits, the ledger and the money."""

from __future__ import annotations

import json
import logging
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from queue import SimpleQueue
from typing import Annotated, Any

from tqdm import tqdm

from errata.client.chat import Answer, Ask, Stop
from errata.client.ledger import Ledger, key_of
from errata.client.prices import Price
from errata.client.schema import in_words, read_answer
from errata.client.server import Failed, Refused, Reply, Server, TryAgain
from errata.ranges import Range, Size, check_ranges

__all__ = ["DryRun", "Engine", "Limits"]

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT = 600.0
_HOPELESS = 8
"""So many requests that failed for good, before any went well, mean that all will."""
_UNCONNECTED = 3
"""After so many tries at a server that was never there, it is not."""
_MISFITS = 3
"""So many answers that do not fit the schema, and the last one is handed on as it is."""
_SHOWN = 2
"""Prompts that a dry run prints."""


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


class DryRun(SystemExit):
    """Nothing was sent, as asked; ends the program without an error."""


class _Stopped(Exception):  # noqa: N818
    """Another request met what ends all of them."""


class _OverLimit(ValueError):  # noqa: N818
    """The limit of cost is reached."""


class Engine:
    """Answers from the ledger, else from the server; equal requests of one call are sent once.

    Stopped at any moment (Ctrl-C, kill -9, the limit of cost), the same call goes on where it was.

    Args:
        server: who answers.
        ledger: where it is written down.
        price: of its tokens; None if not known.
        limits: how hard it is asked.
        dry_run: print the first prompts and what all would cost, and raise ``DryRun``.
        shares: another chat of the same job: what either costs counts against the limit of both. Ask one at a time.

    Raises:
        ValueError: a limit of cost without a price.
    """

    def __init__(
        self,
        server: Server,
        ledger: Ledger,
        *,
        price: Price | None = None,
        limits: Limits | None = None,
        dry_run: bool = False,
        shares: Engine | None = None,
    ) -> None:
        self.server, self.ledger, self.price, self.dry_run = server, ledger, price, dry_run
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
        self._without: set[str] = set()
        self._paid: dict[str, float] = {} if shares is None else shares._paid
        self._perhaps_billed: list[float] = [] if shares is None else shares._perhaps_billed
        self._under_way = 0.0
        self._next_slot = self._not_before = 0.0
        self._answered = self._failed = 0

    @property
    def spent(self) -> float:
        """US dollars that this job cost so far: answers, failed tries, and answers that it found in the ledger."""
        return sum(self._paid.values())

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Ask; answers in order.

        Raises:
            ValueError: no request can go well, or the limit of cost is reached; what was answered is in the ledger.
            DryRun: nothing was sent, as asked.
        """
        keys = [key_of(ask, server=self.server.name, model=self.server.model) for ask in asks]
        wanted = dict(zip(keys, asks, strict=True))
        before = self.ledger.find(wanted)
        for key, answer in before.items():
            self._paid.setdefault(key, answer.cost or 0.0)
        found = {key: answer for key, answer in before.items() if answer.stop is not Stop.ERROR}
        missing = {key: ask for key, ask in wanted.items() if key not in found}
        if self.dry_run:
            self._tell(missing, cached=len(found))
        found |= self._ask(missing)
        answers = []
        for key, ask in zip(keys, asks, strict=True):
            answers.append(_with_value(found[key], ask))
            found[key] = replace(found[key], cached=True)  # an equal request is paid once
        return answers

    def _ask(self, missing: Mapping[str, Ask]) -> dict[str, Answer]:
        results: SimpleQueue[tuple[str, Answer] | BaseException] = SimpleQueue()
        waiting, lock = iter(missing.items()), threading.Lock()

        def work() -> None:
            while not self._stop.is_set():
                with lock:
                    key, ask = next(waiting, (None, None))
                if key is None or ask is None:
                    return
                try:
                    results.put((key, self._answer(key, ask)))
                except _Stopped:
                    return
                except BaseException as error:
                    self._halt()
                    results.put(error)
                    return

        self._stop.clear()
        # Daemons: whoever stops twice does not wait for a server that hangs.
        threads = [
            threading.Thread(target=work, daemon=True) for _ in range(min(self.limits.concurrency, len(missing)))
        ]
        found: dict[str, Answer] = {}
        with tqdm(total=len(missing), desc=self.server.model, unit=" answers", disable=None, delay=1) as bar:
            try:
                for thread in threads:
                    thread.start()
                while len(found) < len(missing):
                    result = results.get()
                    if isinstance(result, BaseException):
                        raise result
                    found[result[0]] = result[1]
                    bar.update()
                    if self.price is not None:
                        bar.set_postfix_str(f"${self.spent:.4f}", refresh=False)
            except BaseException as error:
                self._halt()
                self._wait_for(threads, told=isinstance(error, KeyboardInterrupt))
                if isinstance(error, _OverLimit):
                    while not results.empty():
                        found |= [result] if isinstance(result := results.get(), tuple) else []
                    raise ValueError(
                        f"{error}; {len(found):,} of {len(missing):,} requests were answered and are in the ledger; the"
                        " same command with a higher --max-cost goes on"
                    ) from None
                raise
        for thread in threads:
            thread.join()
        return found

    def _halt(self) -> None:
        self._stop.set()
        with self._lock:
            self._lock.notify_all()

    def _wait_for(self, threads: Sequence[threading.Thread], *, told: bool) -> None:
        """What is under way is paid for, so it is waited for and written down."""
        alive = [thread for thread in threads if thread.is_alive()]
        if alive and told:
            print(f"\nwaiting for {len(alive)} answers under way; Ctrl-C again leaves them", file=sys.stderr)
        for thread in alive:
            thread.join()

    def _answer(self, key: str, ask: Ask) -> Answer:
        """One request with all its tries, written down."""
        paid = _Paid()
        try:
            answer = self._tries(key, ask, paid)
        except (_Stopped, ValueError):
            if paid.input_tokens:  # what misfits have cost stays written down
                stopped = self._as_answer(None, "stopped before an answer fitted", paid)
                self._write(key, ask, stopped, paid.tries)
            raise
        answer = self._write(key, ask, answer, paid.tries)
        self._count(answer)
        return answer

    def _write(self, key: str, ask: Ask, answer: Answer, tries: int) -> Answer:
        names = {"server": self.server.name, "model": self.server.model}
        return self.ledger.add(key, ask, answer, **names, tries=tries, without=frozenset(self._without))

    def _tries(self, key: str, ask: Ask, paid: _Paid) -> Answer:
        """Until there is an answer, or no hope of one."""
        misfits = 0
        reply: Reply | None = None
        refused: dict[str, Refused] = {}
        reason = unfit = ""
        while paid.tries < self.limits.tries and misfits < _MISFITS:
            without = frozenset(self._without | refused.keys())
            sent = self._worded(ask, without, misfit=(reply.text, unfit) if reply is not None and unfit else None)
            try:
                self._wait_for_turn()
                with self._reserved(key, sent):
                    reply = _sound(self.server.send(sent, without=without))
                    self._pay(key, reply, paid)
            except Refused as error:
                if error.field not in without:
                    refused[error.field] = error
                    continue
                paid.tries, reason = paid.tries + 1, str(error)
                break
            except Failed as error:
                paid.tries, reason = paid.tries + 1, str(error)
                break
            except TryAgain as error:
                paid.tries, reason = paid.tries + 1, str(error)
                patience = self.limits.tries if self._answered else _UNCONNECTED
                if not error.connected and paid.tries >= min(patience, self.limits.tries):
                    raise ValueError(f"{self.server.name} cannot be reached ({reason}); is the server up?") from None
                if paid.tries < self.limits.tries:
                    self._back_off(error, paid.tries)
                continue
            for refusal in refused.values():  # only now: what is refused without the field, too, has another reason
                self._leave_out(refusal)
            paid.tries, reason, unfit = paid.tries + 1, "", ""
            if ask.schema is None or reply.stop is not Stop.END:
                break
            if (misfit := read_answer(reply.text, ask.schema)[1]) is None:
                break
            unfit, misfits = misfit, misfits + 1
        return self._as_answer(reply, reason, paid)

    def _as_answer(self, reply: Reply | None, reason: str, paid: _Paid) -> Answer:
        uncounted = reply is not None and not paid.input_tokens
        cost = None if self.price is None or uncounted else self.price.of(paid.input_tokens, paid.output_tokens)
        spent: dict[str, Any] = {"input_tokens": paid.input_tokens, "output_tokens": paid.output_tokens, "cost": cost}
        if reason or reply is None:
            return Answer(text="", stop=Stop.ERROR, error=reason, model=self.server.model, **spent)
        return Answer(text=reply.text, stop=reply.stop, model=reply.model, **spent)

    def _worded(self, ask: Ask, without: Set[str], *, misfit: tuple[str, str] | None) -> Ask:
        """The request as it is sent: with the schema in words where nobody enforces it, and what was wrong before."""
        if ask.schema is None:
            return ask
        messages = list(ask.messages)
        words = in_words(ask.schema)
        if not self.server.enforces_schema or "schema" in without:
            messages[-1] = {**messages[-1], "content": messages[-1]["content"] + words}
        if misfit is not None:
            text, why = misfit
            messages.append({"role": "assistant", "content": text if text.strip() else "(nothing)"})
            messages.append({"role": "user", "content": f"That cannot be used: {why}.{words}"})
        return replace(ask, messages=tuple(messages))

    def _leave_out(self, error: Refused) -> None:
        with self._lock:
            if error.field not in self._without:
                self._without.add(error.field)
                _LOG.warning("%s takes no %s, which is left out: %s", self.server.model, error.field, error)

    def _count(self, answer: Answer) -> None:
        """Raises where nothing goes well, so that a thousand requests do not fail one by one."""
        with self._lock:
            if answer.stop is Stop.ERROR:
                self._failed += 1
            else:
                self._answered += 1
            hopeless = not self._answered and self._failed >= _HOPELESS
        if hopeless:
            raise ValueError(f"none of the first {self._failed} requests went well; the last one: {answer.error}")

    # Waiting.

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
            after = min(error.after, _LONGEST_WAIT)
            with self._lock:  # for everybody: the limit is the account's
                self._not_before = max(self._not_before, time.monotonic() + after)
            return
        self._sleep(min(60.0, self.limits.first_wait * 2 ** (tried - 1)) * random.uniform(0.5, 1.0))

    def _sleep(self, seconds: float) -> None:
        if (seconds > 0 and self._stop.wait(seconds)) or self._stop.is_set():
            raise _Stopped

    # Money.

    @contextmanager
    def _reserved(self, key: str, ask: Ask) -> Iterator[None]:
        """Hold back what the request may cost at worst while it is under way; wait for others to come in below it.

        What a server may have charged for an answer that never came stays held back.
        """
        worst = 0.0 if self.price is None else self.price.of(_most_tokens(ask), ask.max_tokens)
        limit = self.limits.max_cost
        with self._lock:
            while limit is not None and self.spent + sum(self._perhaps_billed) + self._under_way + worst > limit:
                if self._stop.is_set():
                    raise _Stopped
                if not self._under_way:
                    raise _OverLimit(
                        f"--max-cost {_dollars(limit)} is reached: {_dollars(self.spent)} spent,"
                        + (
                            f" up to {_dollars(sum(self._perhaps_billed))} for answers that never came,"
                            if self._perhaps_billed
                            else ""
                        )
                        + f" and the next request may cost {_dollars(worst)}"
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

    def _pay(self, key: str, reply: Reply, paid: _Paid) -> None:
        paid.input_tokens += reply.input_tokens
        paid.output_tokens += reply.output_tokens
        counted = reply.input_tokens and (reply.output_tokens or not reply.text)
        if self.limits.max_cost is not None and not counted:
            raise ValueError(f"{self.server.name} does not count tokens, so --max-cost cannot hold; leave it out")
        if self.price is not None:
            with self._lock:
                cost = self.price.of(reply.input_tokens, reply.output_tokens)
                self._paid[key] = self._paid.get(key, 0.0) + cost

    def _tell(self, missing: Mapping[str, Ask], *, cached: int) -> None:
        """What would be asked, and for how much."""
        sent = [self._worded(ask, frozenset(self._without), misfit=None) for ask in missing.values()]
        for number, ask in enumerate(sent[:_SHOWN], start=1):
            print(f"--- request {number:,} of {len(missing):,}")
            for message in ask.messages:
                print(f"[{message['role']}]\n{message['content']}\n")
        tokens_in, tokens_out = sum(map(_most_tokens, sent)) // 4, sum(ask.max_tokens for ask in sent)
        cost = f"at a price that is not known: see --price-in, --price-out (of {self.server.model})"
        if self.price is not None:
            least, most = self.price.of(tokens_in, 0), self.price.of(tokens_in, tokens_out)
            cost = f"{_dollars(least)} for what is read, at most {_dollars(most)} with the longest answers"
        print(
            f"dry run: {len(missing):,} requests to {self.server.model} ({cached:,} more are in the ledger), about "
            f"{tokens_in:,} tokens in, at most {tokens_out:,} out: {cost}. Nothing was sent."
        )
        raise DryRun


@dataclass(slots=True)
class _Paid:
    """What one request has taken so far."""

    tries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


def _most_tokens(ask: Ask) -> int:
    """A token is a byte at least, and a template adds a few; usual text has one for every four."""
    extra = json.dumps(ask.schema) if ask.schema is not None else ""
    return sum(len(each["content"].encode("utf-8", "replace")) + 16 for each in ask.messages) + len(extra)


def _sound(reply: Reply) -> Reply:
    """Without halves of surrogate pairs, which go into no file and no request."""
    return replace(reply, text=reply.text.encode("utf-8", "replace").decode())


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.6f}".rstrip("0").rstrip(".")


def _with_value(answer: Answer, ask: Ask) -> Answer:
    if ask.schema is None or answer.stop is not Stop.END:
        return answer
    return replace(answer, value=read_answer(answer.text, ask.schema)[0])
