"""Start the page: whom it is for, what is corrected, where it listens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import uvicorn

from errata.page.app import LOOPBACK, REASONS, create_app
from errata.page.store import NewItem, Store

__all__ = ["Link", "check_host", "make_links", "serve"]

ADMIN = "admin"
ALONE = "annotator"
"""Who corrects where there are no links."""


@dataclass(frozen=True, slots=True)
class Link:
    """An address for one person; ``token`` is None of a link that was handed out before."""

    name: str
    token: str | None

    def url(self, host: str, port: int) -> str:
        """The address; the token is behind the #, which browsers send to no server and no log."""
        shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104
        return f"http://{shown}:{port}/{'admin' if self.name == ADMIN else ''}#token={self.token}"


def check_host(host: str, annotators: Sequence[str]) -> None:
    """Without links, the page is for whoever sits at this machine.

    Raises:
        ValueError: another host and no annotators.
    """
    if host not in LOOPBACK and not annotators:
        raise ValueError(
            f"--host {host} would let everybody in who reaches it; name --annotators, who each get a link of their "
            "own, or leave --host out"
        )
    if ADMIN in annotators:
        raise ValueError(f"{ADMIN!r} has a link of its own; give this annotator another name")


def make_links(store: Store, annotators: Sequence[str], *, new: bool = False) -> list[Link]:
    """A link for each annotator and one for the admin; those handed out before stay valid, unless they are ``new``.

    Without annotators there are no links, and one annotator who needs none.
    """
    if not annotators:
        store.add_annotator(ALONE)
        return []
    links = [Link(name, store.add_annotator(name, new_token=new)) for name in annotators]
    return [*links, Link(ADMIN, store.add_annotator(ADMIN, admin=True, new_token=new))]


def serve(
    store: Store,
    *,
    host: str,
    port: int,
    annotators: Sequence[str] = (),
    reasons: Sequence[str] = REASONS,
    items: Iterable[NewItem] = (),
    told: Callable[[str], None] = print,
) -> None:
    """Answer until stopped; ``items`` come in meanwhile, and what becomes of them is ``told``.

    Raises:
        ValueError: as ``check_host``.
    """
    check_host(host, annotators)
    app = create_app(store, open_to=None if annotators else ALONE, reasons=reasons)
    threading.Thread(target=_bring_in, args=(store, items, told), daemon=True).start()
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


def _bring_in(store: Store, items: Iterable[NewItem], told: Callable[[str], None]) -> None:
    try:
        added, there = store.add_items(items)
    except (ValueError, OSError) as error:
        told(f"import stopped: {error}")
    else:
        told(f"{added} responses added, {there} were there already")
