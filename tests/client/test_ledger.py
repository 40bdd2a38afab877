from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from errata.client import Answer, Ask, Ledger, Stop
from errata.client.ledger import key_of

ASK = Ask(messages=({"role": "user", "content": "Wörter"},), schema={"type": "object"})
GOOD = Answer(text="good", stop=Stop.END, model="m-1", input_tokens=10, output_tokens=5, cost=0.25)
BAD = Answer(text="", stop=Stop.ERROR, model="m", input_tokens=3, output_tokens=1, cost=0.5, error="500")
NAMES = {"server": "here", "model": "m"}


def add(ledger: Ledger, answer: Answer, *, key: str = "k", tries: int = 1) -> Answer:
    return ledger.add(key, ASK, answer, **NAMES, tries=tries)


def test_a_key_is_the_whole_request_and_who_is_asked() -> None:
    asks = [
        ASK,
        replace(ASK, seed=1),
        replace(ASK, temperature=None),
        replace(ASK, max_tokens=9),
        replace(ASK, schema=None),
        replace(ASK, messages=({"role": "system", "content": "Wörter"},)),
    ]
    keys = [key_of(ask, **NAMES) for ask in asks]
    keys += [key_of(ASK, server="there", model="m"), key_of(ASK, server="here", model="n")]
    assert len(set(keys)) == len(keys)
    turned = replace(ASK, messages=({"content": "Wörter", "role": "user"},))
    assert key_of(turned, **NAMES) == keys[0], "the order of a message's fields says nothing"


def test_an_answer_is_found_again_by_another_process(tmp_path: Path) -> None:
    assert add(Ledger(tmp_path / "l"), GOOD) == GOOD
    found = Ledger(tmp_path / "l").find(["k", "other"])
    assert found == {"k": replace(GOOD, cached=True)}


def test_after_a_failure_costs_add_up_and_the_answer_stands() -> None:
    ledger = Ledger(None)
    add(ledger, BAD, tries=6)
    assert ledger.find(["k"])["k"].stop is Stop.ERROR
    answer = add(ledger, GOOD, tries=2)
    assert (answer.text, answer.stop, answer.error, answer.cost) == ("good", Stop.END, None, 0.75)
    (spent,) = ledger.spent()
    assert (spent.requests, spent.tries, spent.input_tokens, spent.output_tokens, spent.cost) == (1, 8, 13, 6, 0.75)


def test_of_two_that_paid_the_first_answer_stands_and_both_are_counted() -> None:
    ledger = Ledger(None)
    add(ledger, GOOD)
    answer = add(ledger, replace(GOOD, text="later", model="m-2"))
    assert (answer.text, answer.model, answer.cost, answer.input_tokens) == ("good", "m-1", 0.5, 20)


def test_what_was_spent_by_model_with_unknown_prices_apart() -> None:
    ledger = Ledger(None)
    add(ledger, GOOD)
    add(ledger, replace(GOOD, cost=None), key="free")
    ledger.add("n", ASK, GOOD, server="here", model="a", tries=1)
    a, m = ledger.spent()
    assert (a.model, a.requests, a.cost, a.unpriced) == ("a", 1, 0.25, 0)
    assert (m.model, m.requests, m.cost, m.unpriced) == ("m", 2, 0.25, 1)


def test_columns(tmp_path: Path) -> None:
    Ledger(tmp_path / "l").add("k", ASK, GOOD, **NAMES, tries=1, without=["temperature"])
    rows = sqlite3.connect(tmp_path / "l")
    parameters, prompt, time = rows.execute("SELECT parameters, prompt, time FROM requests").fetchone()
    (mode,) = rows.execute("PRAGMA journal_mode").fetchone()
    rows.close()
    assert parameters == '{"max_tokens": 1024, "schema": {"type": "object"}}', "as it was sent, without the temperature"
    assert len(prompt) == 16
    assert time.endswith("+00:00")
    assert mode == "wal"


def test_what_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "rows.jsonl"
    text.write_text("not a database, and longer than a header" * 10)
    with pytest.raises(ValueError, match=r"rows.jsonl"):
        Ledger(text)
    assert text.read_text().startswith("not a database")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(ValueError, match="is no ledger"):
        Ledger(tmp_path / "other")
