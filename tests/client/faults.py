"""A server on a real socket that speaks OpenAI's and Anthropic's protocols, well or badly, as a script says.

    with FaultServer(lambda body, number: "The text." if number else Fault.BUSY) as server:
        chat = open_chat(f"tiny@{server.url}")

``body`` is the request as it came, ``number`` how often an equal prompt came before. A script returns the answer's
text, a ``Fault``, or a ``Raw`` status, headers and body. What was asked is in ``server.requests``.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Fault(StrEnum):
    """What may go wrong."""

    BUSY = "429, and how long to wait"
    BROKEN = "500"
    HANG = "no answer for a long time"
    CUT = "a body that ends too early"
    ERROR_INSIDE = "200 with an error inside"
    REFUSAL = "the provider will not answer"
    LENGTH = "the answer is cut off at max_tokens"
    KEY = "401, with the key in its words"
    NO_MODEL = "404"
    NO_TEMPERATURE = "400 for a temperature"
    TOO_LONG = "400 for this request alone"


class Raw(NamedTuple):
    """An answer by hand."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


Script = Callable[[dict[str, Any], int], "str | Fault | Raw"]


class FaultServer:
    """See above. ``retry_after`` is what BUSY asks for, ``hang`` how long HANG takes, in seconds."""

    def __init__(self, script: Script, *, retry_after: str = "0.05", hang: float = 3.0) -> None:
        self.script, self.retry_after, self.hang = script, retry_after, hang
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.models = ["tiny"]
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                data = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in outer.models]
                self.send(200, json.dumps({"object": "list", "data": data}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    with outer._lock:
                        outer.at_once += 1
                        outer.most_at_once = max(outer.most_at_once, outer.at_once)
                    self.send(*outer.reply(self.path, body, dict(self.headers)))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with outer._lock:
                        outer.at_once -= 1

            def send(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
                self.send_response(status)
                for name, value in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(body)),
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                if int(headers.get("Content-Length", len(body))) != len(body):
                    self.close_connection = True

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.root = f"http://127.0.0.1:{self.http.server_port}"
        self.url = f"{self.root}/v1"

    def __enter__(self) -> FaultServer:
        self._thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def reply(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> tuple[Any, ...]:
        """Status, body and headers for one request."""
        with self._lock:
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            said = json.dumps(body["messages"][0])
            number, self._seen[said] = self._seen[said], self._seen[said] + 1
        found = self.script(body, number)
        if isinstance(found, Raw):
            return tuple(found)
        openai = path.endswith("/chat/completions")
        whole = self._openai if openai else self._anthropic
        if not isinstance(found, Fault):
            return 200, whole(body, found, "stop" if openai else "end_turn")
        match found:
            case Fault.BUSY:
                return 429, _error("slow down"), {"retry-after": self.retry_after}
            case Fault.BROKEN:
                return 500, _error("a server error")
            case Fault.HANG:
                time.sleep(self.hang)
                return 200, whole(body, "too late", "stop" if openai else "end_turn")
            case Fault.CUT:
                full = whole(body, "never seen", "stop" if openai else "end_turn")
                return 200, full[: len(full) // 2], {"Content-Length": str(len(full))}
            case Fault.ERROR_INSIDE:
                return 200, _error("out of memory")
            case Fault.REFUSAL:
                return 200, whole(body, "", "content_filter" if openai else "refusal")
            case Fault.LENGTH:
                return 200, whole(body, '{"cut', "length" if openai else "max_tokens")
            case Fault.KEY:
                key = self.headers[-1].get("authorization", self.headers[-1].get("x-api-key", ""))
                return 401, _error(f"invalid key {key}")
            case Fault.NO_MODEL:
                return 404, _error("no such model")
            case Fault.NO_TEMPERATURE:
                return 400, _error("temperature is not supported with this model", param="temperature")
            case Fault.TOO_LONG:
                return 400, _error("the prompt is too long")

    def _openai(self, body: dict[str, Any], text: str, finish: str) -> bytes:
        choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        named = {"id": "x", "object": "chat.completion", "created": 0, "model": f"{body['model']}-2026-01-01"}
        return json.dumps({**named, "choices": [choice], "usage": usage}).encode()

    def _anthropic(self, body: dict[str, Any], text: str, finish: str) -> bytes:
        named = {"id": "x", "type": "message", "role": "assistant", "model": f"{body['model']}-20260101"}
        content = [{"type": "text", "text": text}] if text else []
        usage = {"input_tokens": 10, "output_tokens": 5}
        return json.dumps(
            {**named, "content": content, "stop_reason": finish, "stop_sequence": None, "usage": usage}
        ).encode()


def _error(message: str, **more: str) -> bytes:
    return json.dumps({"type": "error", "error": {"message": message, "type": "some_error", **more}}).encode()
