"""The chat that editors and judges get: the one owner of retries, limits, the ledger and the money."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from tqdm import tqdm

from errata.client.account import (
    Account,
    Limits,
    OverLimit,
    Paid,
    StoppedElsewhere,
    in_dollars,
    most_tokens,
)
from errata.client.chat import Answer, Ask, Stop
from errata.client.ledger import Ledger, key_of
from errata.client.prices import Price
from errata.client.schema import in_words, read_answer
from errata.client.server import Failed, Refused, Reply, Server, TryAgain

__all__ = ["DryRun", "Engine", "Limits"]

_LOG = logging.getLogger(__name__)
_HOPELESS = 8
"""So many requests that failed for good, before any went well, mean that all will."""
_UNCONNECTED = 3
"""After so many tries at a server that was never there, it is not."""
_MISFITS = 3
"""So many answers that do not fit the schema, and the last one is handed on as it is."""
_SHOWN = 2
"""Prompts that a dry run prints."""


class DryRun(SystemExit):
    """Nothing was sent, as asked; ends the program without an error."""


class Engine(Account):
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
        super().__init__(server, price=price, limits=limits, shares=shares)
        self.ledger, self.dry_run = ledger, dry_run
        self._without: set[str] = set()
        self._answered = self._failed = 0

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
                except StoppedElsewhere:
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
                if isinstance(error, OverLimit):
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

    def _wait_for(self, threads: Sequence[threading.Thread], *, told: bool) -> None:
        """What is under way is paid for, so it is waited for and written down."""
        alive = [thread for thread in threads if thread.is_alive()]
        if alive and told:
            print(f"\nwaiting for {len(alive)} answers under way; Ctrl-C again leaves them", file=sys.stderr)
        for thread in alive:
            thread.join()

    def _answer(self, key: str, ask: Ask) -> Answer:
        """One request with all its tries, written down."""
        paid = Paid()
        try:
            answer = self._tries(key, ask, paid)
        except (StoppedElsewhere, ValueError):
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

    def _tries(self, key: str, ask: Ask, paid: Paid) -> Answer:
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

    def _as_answer(self, reply: Reply | None, reason: str, paid: Paid) -> Answer:
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

    # Money.

    def _tell(self, missing: Mapping[str, Ask], *, cached: int) -> None:
        """What would be asked, and for how much."""
        sent = [self._worded(ask, frozenset(self._without), misfit=None) for ask in missing.values()]
        for number, ask in enumerate(sent[:_SHOWN], start=1):
            print(f"--- request {number:,} of {len(missing):,}")
            for message in ask.messages:
                print(f"[{message['role']}]\n{message['content']}\n")
        tokens_in, tokens_out = sum(map(most_tokens, sent)) // 4, sum(ask.max_tokens for ask in sent)
        cost = f"at a price that is not known: see --price-in, --price-out (of {self.server.model})"
        if self.price is not None:
            least, most = self.price.of(tokens_in, 0), self.price.of(tokens_in, tokens_out)
            cost = f"{in_dollars(least)} for what is read, at most {in_dollars(most)} with the longest answers"
        print(
            f"dry run: {len(missing):,} requests to {self.server.model} ({cached:,} more are in the ledger), about "
            f"{tokens_in:,} tokens in, at most {tokens_out:,} out: {cost}. Nothing was sent."
        )
        raise DryRun


def _sound(reply: Reply) -> Reply:
    """Without halves of surrogate pairs, which go into no file and no request."""
    return replace(reply, text=reply.text.encode("utf-8", "replace").decode())


def _with_value(answer: Answer, ask: Ask) -> Answer:
    if ask.schema is None or answer.stop is not Stop.END:
        return answer
    return replace(answer, value=read_answer(answer.text, ask.schema)[0])
