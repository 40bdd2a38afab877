from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from client.faults import Fault, FaultServer, Raw, Script
from errata.client import Ask, DryRun, Engine, Limits, Price, Stop, open_chat

pytest.importorskip("openai", reason="needs errata[openai]")

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def ask(text: str = "Hello", **more: object) -> Ask:
    return Ask(messages=({"role": "user", "content": text},), **more)  # type: ignore[arg-type]


def chat(
    server: FaultServer,
    ledger: Path | None = None,
    *,
    price: Price | None = None,
    timeout: float = 5.0,
    **limits: object,
) -> Engine:
    settings = {"first_wait": 0.01, "tries": 4, **limits}
    return open_chat(f"tiny@{server.url}", ledger=ledger, price=price, timeout=timeout, limits=Limits(**settings))  # type: ignore[arg-type]


def test_answers_come_in_order_with_what_they_cost() -> None:
    with FaultServer(lambda body, _: f"re {body['messages'][0]['content']}") as server:
        answers = chat(server, price=Price(1.0, 2.0))([ask(f"q{k}") for k in range(20)])
    assert [answer.text for answer in answers] == [f"re q{k}" for k in range(20)]
    first = answers[0]
    assert (first.stop, first.model, first.input_tokens, first.output_tokens) == (Stop.END, "tiny-2026-01-01", 10, 5)
    assert first.cost == pytest.approx((10 * 1.0 + 5 * 2.0) / 1e6)
    assert not first.cached


def test_equal_requests_are_one_and_other_parameters_are_another() -> None:
    with FaultServer(lambda *_: "yes") as server:
        chat(server)([ask(), ask(), ask(seed=1), ask(temperature=0.5), ask(max_tokens=7)])
        assert len(server.requests) == 4


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.BROKEN, Fault.CUT, Fault.ERROR_INSIDE])
def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    with FaultServer(lambda _, number: fault if number < 2 else "at last") as server:
        (answer,) = chat(server)([ask()])
        assert (answer.text, answer.stop, len(server.requests)) == ("at last", Stop.END, 3)


def openai_body(choice: dict[str, object], usage: object = None) -> Raw:
    named = {"id": "x", "object": "chat.completion", "created": 0, "model": "tiny"}
    choice = {"index": 0, "finish_reason": "stop", **choice}
    return Raw(200, json.dumps({**named, "choices": [choice], "usage": usage}).encode())


def test_an_error_in_the_place_of_the_message_is_tried_again() -> None:
    """Routers answer so when the provider behind them fails."""
    broken = openai_body({"finish_reason": "error", "error": {"code": 502, "message": "upstream"}})
    with FaultServer(lambda _, number: broken if number < 1 else "at last") as server:
        one, other = chat(server)([ask("a"), ask("b")])
        assert (one.text, other.text, len(server.requests)) == ("at last", "at last", 4)


def test_content_in_parts_and_counts_that_are_null() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes"}, {"type": "text", "text": "."}]
    body = openai_body({"message": {"content": parts}}, {"prompt_tokens": None, "completion_tokens": None})
    with FaultServer(lambda *_: body) as server:
        (answer,) = chat(server, price=Price(1, 1))([ask()])
        assert (answer.text, answer.input_tokens, answer.cost) == ("Yes.", 0, None)


def test_half_a_surrogate_pair_in_an_answer_ends_no_job(tmp_path: Path) -> None:
    half = openai_body({"message": {"content": "no \ud83d JSON"}}, {"prompt_tokens": 10, "completion_tokens": 5})
    with FaultServer(lambda *_: half) as server:
        plain, misfit = chat(server, tmp_path / "ledger")([ask(), ask(schema=SCHEMA)])
        assert (plain.text, misfit.text, misfit.stop) == ("no ? JSON", "no ? JSON", Stop.END)
        assert len(server.requests) == 1 + 3, "it goes back to the server, too, with what was wrong"


def test_an_answer_of_white_space_is_none() -> None:
    """Anthropic refuses a message without a character to see."""
    with FaultServer(lambda *_: " \n") as server:
        chat(server)([ask(schema=SCHEMA)])
        assert server.requests[1]["messages"][1]["content"] == "(nothing)"


def test_a_server_that_hangs_is_asked_again() -> None:
    with FaultServer(lambda _, number: Fault.HANG if number < 1 else "at last", hang=2.0) as server:
        (answer,) = chat(server, timeout=0.3)([ask()])
        assert (answer.text, len(server.requests)) == ("at last", 2)


def test_tries_end_and_the_failure_is_an_answer_that_is_asked_again_next_time(tmp_path: Path) -> None:
    bad = {"on": True}
    script: Script = lambda body, _: Fault.BROKEN if bad["on"] and body["messages"][0]["content"] == "bad" else "good"  # noqa: E731
    with FaultServer(script) as server:
        engine = chat(server, tmp_path / "ledger")
        good, failed = engine([ask("good"), ask("bad")])
        assert (good.stop, failed.stop) == (Stop.END, Stop.ERROR)
        assert failed.error is not None
        assert "a server error" in failed.error
        assert len(server.requests) == 1 + 4
        bad["on"] = False
        answers = chat(server, tmp_path / "ledger")([ask("good"), ask("bad")])
        assert [(answer.text, answer.cached) for answer in answers] == [("good", True), ("good", False)]


def test_retry_after_is_waited_for_by_everybody() -> None:
    script: Script = lambda body, number: Fault.BUSY if number < 1 and body["messages"][0]["content"] == "0" else "ok"  # noqa: E731
    with FaultServer(script, retry_after="0.6") as server:
        started = time.monotonic()
        chat(server, concurrency=1)([ask("0"), ask("1")])
        assert 0.6 <= time.monotonic() - started < 5


@pytest.mark.parametrize("after", ["0", "Wed, 21 Oct 2015 07:28:00 GMT", "nan", "Wed, 99 Oct 99999 07:28:00 GMT"])
def test_a_wait_that_says_nothing_does_not_burn_the_tries(after: str) -> None:
    with FaultServer(lambda _, number: Fault.BUSY if number < 2 else "ok", retry_after=after) as server:
        started = time.monotonic()
        (answer,) = chat(server, first_wait=0.2, tries=3)([ask()])
        assert answer.text == "ok"
        assert time.monotonic() - started >= 0.1 + 0.2, "half of the first wait and half of the second"


def test_retry_after_is_waited_for_by_those_who_have_their_turn_already() -> None:
    asked: list[float] = []

    def script(*_: object) -> str | Fault:
        asked.append(time.monotonic())
        return Fault.BUSY if len(asked) == 1 else "ok"

    with FaultServer(script, retry_after="0.6") as server:
        chat(server, per_minute=600, concurrency=4)([ask(str(k)) for k in range(4)])  # turns at 0, .1, .2 and .3 s
        assert min(later - asked[0] for later in asked[1:]) >= 0.6


def test_requests_a_minute_and_at_a_time() -> None:
    def slow(*_: object) -> str:
        time.sleep(0.05)
        return "ok"

    with FaultServer(slow) as server:
        started = time.monotonic()
        chat(server, per_minute=600, concurrency=2)([ask(str(k)) for k in range(6)])
        assert time.monotonic() - started >= 5 * 0.1
        assert server.most_at_once <= 2


def test_an_answer_that_does_not_fit_the_schema_is_asked_for_again_and_told_why() -> None:
    texts = ['{"n": "seven"}', 'Sure!\n```json\n{"n": 7}\n```']
    with FaultServer(lambda *_: texts[min(len(server.requests) - 1, 1)]) as server:
        (answer,) = chat(server, price=Price(1, 1))([ask(schema=SCHEMA)])
        assert answer.value == {"n": 7}
        assert (answer.input_tokens, answer.output_tokens) == (20, 10)
        assert answer.cost == pytest.approx(30 / 1e6)
        first, second = server.requests
        assert '"integer"' in first["messages"][0]["content"]
        assert first["response_format"]["json_schema"]["schema"] == SCHEMA
        assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
        assert "the answer.n is no integer" in second["messages"][2]["content"]


def test_an_answer_that_never_fits_is_handed_on_without_a_value(tmp_path: Path) -> None:
    with FaultServer(lambda *_: "no JSON") as server:
        (answer,) = chat(server, tmp_path / "ledger")([ask(schema=SCHEMA)])
        assert (answer.value, answer.text, answer.stop) == (None, "no JSON", Stop.END)
        asked = len(server.requests)
        (again,) = chat(server, tmp_path / "ledger")([ask(schema=SCHEMA)])
        assert (again.value, again.cached, len(server.requests)) == (None, True, asked)


@pytest.mark.parametrize(("fault", "stop"), [(Fault.REFUSAL, Stop.REFUSAL), (Fault.LENGTH, Stop.LENGTH)])
def test_refusals_and_cut_answers_are_answers(fault: Fault, stop: Stop) -> None:
    with FaultServer(lambda *_: fault) as server:
        (answer,) = chat(server)([ask(schema=SCHEMA)])
        assert (answer.stop, answer.value, len(server.requests)) == (stop, None, 1)


def test_a_field_that_the_server_does_not_take_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with FaultServer(lambda body, _: Fault.NO_TEMPERATURE if "temperature" in body else "fine") as server:
        answers = chat(server, concurrency=1)([ask("a"), ask("b")])
        assert [answer.text for answer in answers] == ["fine", "fine"]
        assert len(server.requests) == 3
    assert "takes no temperature" in caplog.text


def test_a_field_that_is_refused_even_when_it_is_not_there_is_a_failure() -> None:
    with FaultServer(lambda *_: Fault.NO_TEMPERATURE) as server:
        (answer,) = chat(server)([ask()])
        assert (answer.stop, len(server.requests)) == (Stop.ERROR, 2)


def test_a_request_that_fails_for_another_reason_takes_no_field_from_the_others() -> None:
    """Servers put the request into their errors, and what it says is no complaint about a field."""

    def script(body: dict[str, Any], _: int) -> str | Raw:
        said = body["messages"][0]["content"]
        return Raw(400, json.dumps({"error": {"message": f"too long: {said}"}}).encode()) if "long" in said else "ok"

    with FaultServer(script) as server:
        bad, good = chat(server, concurrency=1)([ask("a long text on temperature"), ask("b")])
        assert (bad.stop, good.text) == (Stop.ERROR, "ok")
        assert server.requests[-1]["temperature"] == 0.0


def test_one_request_that_is_not_allowed_fails_alone() -> None:
    script: Script = lambda body, _: Fault.TOO_LONG if body["messages"][0]["content"] == "long" else "ok"  # noqa: E731
    with FaultServer(script) as server:
        one, other = chat(server)([ask("long"), ask("short")])
        assert (one.stop, other.text, len(server.requests)) == (Stop.ERROR, "ok", 2)


def test_what_fails_for_all_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_API_KEY", "secret-0123456789")
    with FaultServer(lambda *_: Fault.KEY) as server:
        with pytest.raises(ValueError, match="ERRATA_API_KEY") as caught:
            chat(server)([ask()])
        assert "secret" not in str(caught.value)
        assert server.headers[0]["authorization"] == "Bearer secret-0123456789"
    with FaultServer(lambda *_: Fault.NO_MODEL) as server, pytest.raises(ValueError, match="does not know this model"):
        chat(server)([ask()])
    with (
        FaultServer(lambda *_: Fault.TOO_LONG) as server,
        pytest.raises(ValueError, match="none of the first 8 requests"),
    ):
        chat(server)([ask(str(k)) for k in range(40)])
    with pytest.raises(ValueError, match="cannot be reached"):
        chat(server)([ask()])  # it is gone now


def test_no_key_in_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_API_KEY", "secret-0123456789")
    error = Raw(400, b'{"error": {"message": "bad key secret-0123456789 and sk-abcdefghijkl"}}')
    with FaultServer(lambda body, _: error if body["messages"][0]["content"] == "bad" else "ok") as server:
        failed, _ = chat(server, tmp_path / "ledger")([ask("bad"), ask("good")])
    assert failed.error is not None
    assert "[key]" in failed.error
    for file in tmp_path.iterdir():
        assert b"secret-0123" not in file.read_bytes()
        assert b"sk-abc" not in file.read_bytes()


def test_no_password_of_an_address_in_the_ledger(tmp_path: Path) -> None:
    with FaultServer(lambda *_: "ok") as server:
        place = server.url.replace("://", "://me:hunter2@")
        engine = open_chat(f"tiny@{place}", ledger=tmp_path / "ledger")
        assert engine([ask()])[0].text == "ok"
        assert engine.server.name == server.url
        server.models = ["a", "b"]
        with pytest.raises(ValueError, match="has 2 models") as caught:
            open_chat(place)
        assert "hunter2" not in str(caught.value)
    for file in tmp_path.iterdir():
        assert b"hunter2" not in file.read_bytes()


def test_of_equal_requests_one_is_paid() -> None:
    with FaultServer(lambda *_: "ok") as server:
        engine = chat(server, price=Price(1e6, 1e6))
        answers = engine([ask(), ask("b"), ask()])
        assert [answer.cached for answer in answers] == [False, False, True]
        assert sum(answer.cost or 0 for answer in answers if not answer.cached) == engine.spent == 30


def test_the_limit_of_cost_stops_in_time_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    # 10 and 5 tokens at a dollar a token: 15 dollars each; at worst 20 in and 5 out.
    price = Price(1e6, 1e6)
    asks = [ask(f"{k:4}", max_tokens=5) for k in range(10)]
    with FaultServer(lambda *_: "ok") as server:
        with pytest.raises(
            ValueError, match=r"\$60.00 spent, .* may cost \$25.00; 4 of 10 .* higher --max-cost goes on"
        ):
            chat(server, tmp_path / "ledger", price=price, max_cost=70.0)(asks)
        # The fifth would bring it to 60 and at worst 25 more.
        assert len(server.requests) == 4
        with pytest.raises(ValueError, match="is reached"):
            chat(server, tmp_path / "ledger", price=price, max_cost=70.0)(asks)
        assert len(server.requests) == 4, "what stands in the ledger counts"
        answers = chat(server, tmp_path / "ledger", price=price, max_cost=500.0)(asks)
        assert len(server.requests) == 10
        assert sum(answer.cached for answer in answers) == 4


def test_what_misfits_cost_is_written_down_and_counts_for_the_next_run(tmp_path: Path) -> None:
    with FaultServer(lambda *_: "no JSON") as server:
        for run in (1, 2):  # a second try, with what was wrong, may cost $908
            engine = chat(server, tmp_path / "ledger", price=Price(1e6, 1e6), max_cost=900.0)
            with pytest.raises(ValueError, match=rf"\${15 * run}.00 spent"):
                engine([ask(schema=SCHEMA, max_tokens=300)])
            assert len(server.requests) == run
            (row,) = engine.ledger.spent()
            assert (row.requests, row.tries, row.input_tokens, row.cost) == (1, run, 10 * run, 15.0 * run)


def test_a_limit_cannot_hold_where_only_what_is_read_is_counted() -> None:
    half = openai_body({"message": {"content": "ok"}}, {"prompt_tokens": 10, "completion_tokens": None})
    with FaultServer(lambda *_: half) as server, pytest.raises(ValueError, match="does not count tokens"):
        chat(server, price=Price(1, 1), max_cost=1.0)([ask()])


def test_a_limit_cannot_hold_where_tokens_are_not_counted(tmp_path: Path) -> None:
    choice = b'{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}'
    uncounted = Raw(
        200, b'{"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [%b]}' % choice
    )
    with FaultServer(lambda *_: uncounted) as server:
        with pytest.raises(ValueError, match="does not count tokens"):
            chat(server, price=Price(1, 1), max_cost=1.0)([ask()])
        (answer,) = chat(server, price=Price(1, 1))([ask()])
        assert (answer.text, answer.cost) == ("ok", None)


def test_a_server_that_goes_away_in_the_middle_ends_the_job(tmp_path: Path) -> None:
    with FaultServer(lambda body, _: Raw(200, server._openai(body, "ok", "stop"), {"Connection": "close"})) as server:
        engine = chat(server, tmp_path / "ledger")
        engine([ask("a")])
    with pytest.raises(ValueError, match="cannot be reached"):
        engine([ask("b")])


def test_a_chat_goes_on_after_what_ended_all_is_mended() -> None:
    with FaultServer(lambda _, number: Fault.NO_MODEL if number < 1 else "ok") as server:
        engine = chat(server, concurrency=1)
        with pytest.raises(ValueError, match="does not know this model"):
            engine([ask("a"), ask("b")])
        assert engine([ask("a")])[0].text == "ok"


def test_ctrl_c_waits_for_what_is_under_way_and_the_same_call_goes_on(tmp_path: Path) -> None:
    reached = threading.Event()

    def slow(*_: object) -> str:
        if len(server.requests) >= 10:
            reached.set()
        time.sleep(0.1)
        return "ok"

    with FaultServer(slow) as server:
        command = [sys.executable, "-c", JOB, server.url, str(tmp_path / "ledger"), "60"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert reached.wait(60)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert "answers under way" in told
        before = len(server.requests)
        assert before < 60
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (int(done.stdout), len(server.requests)) == (before, 60)


def test_a_limit_needs_a_price() -> None:
    with FaultServer(lambda *_: "ok") as server, pytest.raises(ValueError, match="--price-in"):
        chat(server, max_cost=1.0)


def test_what_timed_out_may_have_been_billed() -> None:
    with FaultServer(lambda _, number: Fault.HANG if number < 1 else "ok", hang=1.0) as server:
        engine = chat(server, price=Price(1e6, 1e6), max_cost=40.0, timeout=0.2)
        with pytest.raises(ValueError, match="is reached"):  # 25 perhaps and 25 more
            engine([ask("    ", max_tokens=5)])


def test_a_dry_run_sends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(lambda *_: "ok") as server:
        engine = open_chat(f"tiny@{server.url}", price=Price(1, 1), dry_run=True)
        with pytest.raises(DryRun):
            engine([ask("One?"), ask("Two?"), ask("Three?", schema=SCHEMA)])
        assert server.requests == []
    out = capsys.readouterr().out
    assert "One?" in out
    assert "3 requests to tiny" in out
    assert "at most $" in out


def test_anthropic_speaks_its_own_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anthropic", reason="needs errata[anthropic]")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789")
    monkeypatch.setenv("ERRATA_API_KEY", "other-0123456789")
    texts = [Fault.BUSY, '{"n": 7}']
    with FaultServer(lambda *_: texts[len(server.requests) - 1]) as server:
        engine = open_chat("anthropic:claude-haiku-4-5", url=server.root, limits=Limits(first_wait=0.01))
        question = Ask(
            messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}),
            schema=SCHEMA,
        )
        (answer,) = engine([question])
        assert (answer.value, answer.stop, answer.input_tokens) == ({"n": 7}, Stop.END, 10)
        body, headers = server.requests[-1], server.headers[-1]
    assert (body["system"], body["messages"]) == ("Be brief.", [{"role": "user", "content": "How many?"}])
    assert body["temperature"] == 0.0
    assert body["output_config"]["format"]["schema"] == SCHEMA
    assert "other-0123456789" in headers.get("x-api-key", headers.get("authorization", "")), (
        "a stand-in never gets the provider's key"
    )


@pytest.mark.parametrize(("fault", "stop"), [(Fault.REFUSAL, Stop.REFUSAL), (Fault.LENGTH, Stop.LENGTH)])
def test_anthropic_says_why_it_stopped(fault: Fault, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anthropic", reason="needs errata[anthropic]")
    with FaultServer(lambda *_: fault) as server:
        (answer,) = open_chat("anthropic:claude-haiku-4-5", url=server.root)([ask()])
        assert answer.stop is stop


@pytest.mark.parametrize("spec", ["gpt-5", "anthropic:", "local:", "ftp://x/v1"])
def test_a_name_that_says_nothing(spec: str) -> None:
    with pytest.raises(ValueError, match="names no chat model"):
        open_chat(spec)


def test_a_url_alone_is_its_only_model() -> None:
    with FaultServer(lambda *_: "ok") as server:
        assert open_chat(server.url).server.model == "tiny"
        server.models = ["a", "b"]
        with pytest.raises(ValueError, match="has 2 models \\(a, b\\)"):
            open_chat(server.url)


def test_keys_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
        with pytest.raises(ValueError, match=name):
            open_chat(f"{name.split('_')[0].lower()}:model")


JOB = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts the tests in the background ignores it
from errata.client import Ask, Limits, open_chat
from pathlib import Path
asks = [Ask(messages=({"role": "user", "content": f"question {k}"},)) for k in range(int(sys.argv[3]))]
chat = open_chat(f"tiny@{sys.argv[1]}", ledger=Path(sys.argv[2]), limits=Limits(concurrency=4))
print(sum(answer.cached for answer in chat(asks)))
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_a_thousand_requests_none_is_paid_again(tmp_path: Path) -> None:
    reached = threading.Event()

    def script(body: dict[str, object], _: int) -> str:
        if len(server.requests) > 400:
            reached.set()
        return "ok"

    with FaultServer(script) as server:
        command = [sys.executable, "-c", JOB, server.url, str(tmp_path / "ledger"), "1000"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        assert reached.wait(60)
        process.kill()
        process.wait()
        before = len(server.requests)
        assert before < 1000
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cached = int(done.stdout)
        # Only what was under way when it was killed is asked twice: four at a time.
        assert before - 4 <= cached <= before
        assert len(server.requests) == before + 1000 - cached


def test_two_processes_share_a_ledger(tmp_path: Path) -> None:
    with FaultServer(lambda *_: "ok") as server:
        command = [sys.executable, "-c", JOB, server.url, str(tmp_path / "ledger"), "100"]
        both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
        assert [process.wait(120) for process in both] == [0, 0]
        (third,) = chat(server, tmp_path / "ledger")([ask("question 99", temperature=0.0)])
        assert third.cached
