"""The page's requests: who asks, what they may, and nothing that a request says is taken on trust."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errata.page.breaks import breaks_of, plain
from errata.page.progress import Overview, progress
from errata.page.show import edits_from, markdown_tree, meter
from errata.page.store import Annotator, Conflict, Effort, Kind, NewRevision, NotSaved, Revision, Store

__all__ = ["BODY_LIMIT", "LOOPBACK", "REASONS", "create_app"]

REASONS = ("wrong", "unsafe", "missing", "style", "instruction")
BODY_LIMIT = 4 << 20
"""Bytes of one request."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "errata_page_{}"
"""With the database's name: a browser sends its cookies to every port of a machine, and two pages may run there."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class SignIn(BaseModel):
    """The token of a link."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(max_length=200)


class Next(BaseModel):
    """Which item next."""

    model_config = ConfigDict(extra="forbid")
    new: bool = False


class Save(BaseModel):
    """One revision, as the browser sends it: text, never offsets."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    base: int = Field(ge=0)
    save_id: str = Field(min_length=8, max_length=64)
    kind: Kind
    text: str
    outcome: Literal["edited", "good", "unsalvageable", "skip", "flag"] | None = None
    reasons: list[Annotated[str, Field(min_length=1, max_length=60)]] = Field(default=[], max_length=20)
    note: str = Field(default="", max_length=4000)
    guideline: int = Field(ge=0)
    seconds: float = Field(default=0, ge=0, le=1e7)
    keystrokes: int = Field(default=0, ge=0, le=10**9)
    pastes: int = Field(default=0, ge=0, le=10**9)


def create_app(
    store: Store, *, open_to: str | None = None, reasons: Sequence[str] = REASONS, body_limit: int = BODY_LIMIT
) -> FastAPI:
    """The page over a store.

    Args:
        store: the database.
        open_to: without tokens: everybody who reaches the page is this annotator, and the admin. Requests for another
            host than this machine are then refused, so that no web site can reach it by a name of its own.
        reasons: the tags that an edit may have.
        body_limit: bytes of one request.
    """
    app = FastAPI(title="errata edit page", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store, app.state.reasons, app.state.overview = store, list(reasons), Overview(store)
    app.state.open_to = None if open_to is None else next(one for one in store.annotators() if one.name == open_to)
    app.add_middleware(_Guard, hosts=None if open_to is None else LOOPBACK, body_limit=body_limit)
    folder = files("errata.page") / "static"
    static = {each.name: each.read_bytes() for each in folder.iterdir() if each.name.rpartition(".")[2] in _TYPES}

    def page(name: str) -> Response:
        return Response(static[name], media_type=_TYPES[name.rpartition(".")[2]])

    @app.get("/")
    def index() -> Response:
        return page("index.html")

    @app.get("/admin")
    def admin() -> Response:
        return page("admin.html")

    @app.get("/static/{name}")
    def file(name: str) -> Response:
        return page(name) if name in static else Response(status_code=404)

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)

    app.post("/api/session")(_sign_in)
    app.get("/api/me")(_me)
    app.post("/api/next")(_next)
    app.get("/api/tasks")(_tasks)
    app.get("/api/tasks/{task}")(_task)
    app.post("/api/tasks/{task}/revisions")(_save)
    app.get("/api/overview")(_overview)
    app.exception_handler(RequestValidationError)(_unreadable)
    app.exception_handler(LookupError)(_not_found)
    app.exception_handler(NotSaved)(_not_saved)
    return app


# Who asks.


def _caller(request: Request) -> Annotator:
    if request.app.state.open_to is not None:
        return request.app.state.open_to  # type: ignore[no-any-return]
    store: Store = request.app.state.store
    found = store.annotator_of(request.cookies.get(COOKIE.format(store.name), ""))
    if found is None:
        raise HTTPException(401, "open the link that you were given")
    return found


def _annotator(request: Request) -> Annotator:
    found = _caller(request)
    if found.admin:
        raise HTTPException(403, "this link is the admin's; correct with a link of your own")
    return found


def _store(request: Request) -> Store:
    return request.app.state.store  # type: ignore[no-any-return]


Caller = Annotated[Annotator, Depends(_caller)]
Editor = Annotated[Annotator, Depends(_annotator)]
Database = Annotated[Store, Depends(_store)]


# What they ask.


def _sign_in(body: SignIn, request: Request, response: Response, store: Database) -> dict[str, Any]:
    if request.app.state.open_to is not None:
        return {}  # a link of times when there were some
    if store.annotator_of(body.token) is None:
        raise HTTPException(401, "this link is not, or no longer, valid; ask for a new one")
    response.set_cookie(
        COOKIE.format(store.name),
        body.token,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        max_age=90 * 86400,
    )
    return {}


def _me(request: Request, who: Caller, store: Database) -> dict[str, Any]:
    guideline = store.guideline()
    return {
        "name": who.name,
        "drafts": f"{store.name}:{who.number}",
        "admin": who.admin or request.app.state.open_to is not None,
        "edits": not who.admin,
        "reasons": request.app.state.reasons,
        "guideline": {"version": guideline.version, "tree": markdown_tree(guideline.text)},
        "progress": progress(store, who.number),
    }


def _next(body: Next, who: Editor, store: Database) -> dict[str, Any]:
    return {"task": store.next_task(who.number, new=body.new), "progress": progress(store, who.number)}


def _tasks(who: Editor, store: Database) -> list[tuple[int, str | None]]:
    return store.tasks(who.number)


def _task(task: int, who: Editor, store: Database) -> dict[str, Any]:
    work = store.work(who.number, task)
    return {
        "task": task,
        "id": work.item.id,
        "prompt": work.item.prompt,
        "response": plain(work.item.response),
        "breaks": breaks_of(work.item.response),
        "reference": work.item.reference,
        "outcome": work.task.outcome,
        "head": None if work.head is None else _seen(work.head),
        **_shown(work.item.response, work.head),
    }


def _save(task: int, body: Save, who: Editor, store: Database) -> Response:
    given = body.model_dump()
    effort = Effort(**{field.name: given.pop(field.name) for field in dataclasses.fields(Effort)})
    response = store.work(who.number, task).item.response
    try:
        json.dumps([body.text, body.note, body.reasons], ensure_ascii=False).encode()
        saved = store.save(who.number, task, NewRevision(**given, effort=effort))
    except Conflict as conflict:
        return JSONResponse({"detail": str(conflict), "head": _seen(conflict.head)}, 409)
    except UnicodeEncodeError:
        return JSONResponse({"detail": "the text holds half of a character (a lone surrogate); take it out"}, 422)
    except ValueError as error:
        return JSONResponse({"detail": str(error)}, 422)
    told = {"seq": saved.seq, "saved": saved.created, "guideline": store.guideline().version}
    return JSONResponse({**told, **_shown(response, saved)})


def _overview(request: Request, who: Caller) -> dict[str, Any]:
    if not (who.admin or request.app.state.open_to is not None):
        raise HTTPException(403, "this page is the admin's")
    overview: Overview = request.app.state.overview
    return overview.look()


def _shown(original: str, head: Revision | None) -> dict[str, Any]:
    if head is None:
        return {"edits": [["keep", original, original]] if original else [], "meter": meter([])}
    if head.edits is None:
        return {"edits": None, "meter": None}
    edits = edits_from(head.edits, original, head.text)
    return {
        "edits": [[edit.op.value, edit.original.text, edit.edited.text] for edit in edits],
        "meter": meter(edits),
    }


def _seen(revision: Revision) -> dict[str, Any]:
    names = ("seq", "save_id", "kind", "outcome", "reasons", "note", "seconds", "keystrokes", "pastes")
    return {"text": plain(revision.text), **{name: getattr(revision, name) for name in names}}


def _unreadable(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()[:3])
    return JSONResponse({"detail": said}, 422)


def _not_found(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error.args[0])}, 404)


def _not_saved(_: Request, error: Exception) -> Response:
    logging.getLogger("uvicorn.error").error("%s", error)  # whoever serves the page can do something about it
    return JSONResponse({"detail": str(error)}, 503)


class _Guard:
    """Before anything is read: the host, the origin, the size; and the headers of every answer."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str] | None, body_limit: int) -> None:
        self._app, self._hosts, self._limit = app, hosts, body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        refusal = self._refusal(scope)
        body, size, more = b"", 0, refusal is None
        # What is too long is read on for a while: a browser that is cut off while it sends takes that for no answer.
        while more and size <= 16 * self._limit:
            message = await receive()
            if message["type"] != "http.request":
                return None  # gone
            size += len(message.get("body", b""))
            body = body + message.get("body", b"") if size <= self._limit else b""
            more = message.get("more_body", False)
        if size > self._limit:
            refusal = JSONResponse({"detail": f"more than {self._limit} bytes; shorten the text"}, 413)
        if refusal is not None:
            return await refusal(scope, receive, send_with_headers)
        given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return given.pop() if given else await receive()

        await self._app(scope, receive_again, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        request = Request(scope)
        host = request.headers.get("host", "")
        if self._hosts is not None and _split(f"//{host}")[0] not in self._hosts:
            return JSONResponse({"detail": "the page answers on this machine's own address only"}, 400)
        if request.method not in ("GET", "HEAD"):
            # The cookie is SameSite=Strict; this holds where there is none, and in browsers that know no SameSite.
            origin = request.headers.get("origin")
            if origin is not None and _split(origin)[1] != host:
                return JSONResponse({"detail": "a request of another site"}, 403)
            if request.headers.get("x-errata") != "1":
                return JSONResponse({"detail": "a request that the page did not make"}, 403)
        return None


def _split(address: str) -> tuple[str | None, str | None]:
    """Host name and host with port; None where they cannot be read."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None, None
    return parts.hostname, parts.netloc
