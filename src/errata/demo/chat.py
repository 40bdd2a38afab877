"""The embedded world in the place of a language model: an editor, a judge, and both behind a server on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Thread
from typing import Any

from errata.client import Answer, Ask, Chat, Stop
from errata.demo.editor import correct
from errata.demo.judge import DefectKind, judge
from errata.edits import read_material

__all__ = ["DemoChat", "EditorChat", "JudgeChat", "serving"]

_REASONS = {
    DefectKind.WRONG_FACT: "wrong",
    DefectKind.RUDE: "style",
    DefectKind.MISSING: "missing",
    DefectKind.REPETITION: "style",
    DefectKind.CLOSING: "instruction",
    DefectKind.GARBLED: "style",
}


class EditorChat:
    """A ``Chat`` that corrects letters by their cards; asked again, it says that it cannot.

    It looks at the card, so a reference tells it nothing. The same request always has the same answer.
    """

    def __init__(self, *, diligence: float = 1.0, seed: int = 0) -> None:
        self.diligence = diligence
        """The probability that a defect is noticed."""
        self.seed = seed

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer each request of the editor's."""
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        prompt, response, _ = read_material(ask.messages)
        edited = correct(prompt, response, Random(f"{self.seed} {prompt} {response}"), diligence=self.diligence)
        before, after = (judge(prompt, text).by_kind for text in (response, edited))
        mended = [kind for kind in DefectKind if after[kind] < before[kind]]
        value = {
            "why": f"mended: {', '.join(mended)}" if mended else "nothing is wrong",
            "verdict": "keep" if edited == response else "edit",
            "reasons": sorted({_REASONS[kind] for kind in mended}),
            "text": "" if edited == response else edited,
        }
        if len(ask.messages) > 2:
            value |= {"why": "it takes more than a few words", "verdict": "cannot", "reasons": [], "text": ""}
        return _answer(ask, value, model="demo-editor")


class JudgeChat:
    """A ``Chat`` that says which of two letters has fewer defects: an incorruptible ``ChatJudge``."""

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer each request of the judge's."""
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        shown = {name: text for name, _, text in _SHOWN.findall(ask.messages[0]["content"])}
        first, second = (judge(shown["request"], shown[name]).count for name in ("first", "second"))
        better = "tie" if first == second else "first" if first < second else "second"
        return _answer(ask, {"reason": f"{first} and {second} defects", "better": better}, model="demo-judge")


class DemoChat:
    """Editor and judge in one, as a language model is: the editor's requests have a system message."""

    def __init__(self, *, diligence: float = 1.0, seed: int = 0) -> None:
        self._editor, self._judge = EditorChat(diligence=diligence, seed=seed), JudgeChat()

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer each request."""
        return [(self._editor if ask.messages[0]["role"] == "system" else self._judge)([ask])[0] for ask in asks]


_SHOWN = re.compile(r"<(\w+) (\w{8})>\n(.*?)\n</\1 \2>", re.DOTALL)
"""The places of the judge's prompt."""


def _answer(ask: Ask, value: dict[str, Any], *, model: str) -> Answer:
    text = json.dumps(value, ensure_ascii=False)
    return Answer(
        text=text,
        stop=Stop.END,
        model=model,
        input_tokens=sum(len(message["content"].split()) for message in ask.messages),
        output_tokens=len(text.split()),
        cost=0.0,
        value=value,
    )


@contextmanager
def serving(chat: Chat) -> Iterator[str]:
    """A server on this machine that speaks OpenAI's protocol and answers by ``chat``; gives what ``--llm`` takes."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            (answer,) = chat([Ask(messages=tuple(body["messages"]))])
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer.text}}
            usage = {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens}
            usage["total_tokens"] = sum(usage.values())
            reply = {"id": "", "object": "chat.completion", "created": 0, "model": answer.model}
            sent = json.dumps({**reply, "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"demo@http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
