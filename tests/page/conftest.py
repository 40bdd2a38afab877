"""A store, and the page over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs errata[page]")
pytest.importorskip("sqlalchemy", reason="needs errata[page]")
pytest.importorskip("httpx2", reason="needs httpx2, which the test extra brings")

from fastapi.testclient import TestClient

from errata.page.app import create_app
from errata.page.store import Effort, NewItem, NewRevision, Store

from .postgres import database, server

HEADERS = {"X-Errata": "1"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    with server() as engine:
        yield engine


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'edits.db'}"


@pytest.fixture
def postgresql_url(postgres: Any) -> Iterator[str]:
    with database(postgres) as url:
        yield url


@pytest.fixture
def url(sqlite_url: str) -> str:
    """An empty database. Modules whose tests run on both kinds say so in a fixture of this name."""
    return sqlite_url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    yield made
    made.close()


@pytest.fixture
def three(store: Store) -> Store:
    """Three items and two annotators, ada (1) and ben (2)."""
    store.add_items(NewItem(id=name, prompt="Say it.", response=f"The {name} lamp.") for name in ("red", "blue", "old"))
    for name in ("ada", "ben"):
        store.add_annotator(name)
    return store


@pytest.fixture
def worked(store: Store) -> Store:
    """Ada and Ben on two items: drafts, edits, a skip and a flag."""
    store.add_items(
        [
            NewItem(
                id="a", prompt="p", response="😀 one\r\ntwo three\r\n", response_ids=(3, 4), extra={"source": "log"}
            ),
            NewItem(id="b", prompt="p", response="It is good."),
        ]
    )
    store.add_annotator("ada")
    store.add_annotator("ben")
    store.set_overlap(2)
    effort = Effort(seconds=8.0, keystrokes=3, pastes=0)
    for who, texts in ((1, ["😀 one\ntwo four\n", "It is good."]), (2, ["😀 one\ntwo five\n", None])):
        for text in texts:
            task = store.next_task(who)
            response = store.work(who, task).item.response
            if text is None:
                store.save(who, task, revision(0, response, kind="submit", outcome="flag", note="look <b>"))
                continue
            store.save(who, task, revision(0, "a draft"))
            outcome = "good" if text == response else "edited"
            store.save(who, task, revision(1, text, kind="submit", outcome=outcome, reasons=["wrong"], effort=effort))
    return store


@pytest.fixture
def client_of(store: Store) -> Iterator[Callable[..., Any]]:
    """Makes a client; of an annotator, who is signed in, or of nobody."""
    opened = []

    def make(name: str | None = None, *, admin: bool = False, **settings: Any) -> Any:
        client = TestClient(create_app(store, **settings), base_url="http://localhost:8765", headers=HEADERS)
        client.__enter__()
        opened.append(client)
        if name is not None:
            token = store.add_annotator(name, admin=admin, new_token=True)
            assert client.post("/api/session", json={"token": token}).status_code == 200
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def revision(base: int, text: str, **more: Any) -> NewRevision:
    return NewRevision(**{"base": base, "save_id": f"{base}-{text}-{more}"[:60], "kind": "draft", "text": text} | more)
