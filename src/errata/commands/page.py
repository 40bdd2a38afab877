"""The verbs of the edit page: serve it, and get out what people made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tqdm import tqdm
from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.shared import Source, check_not_itself, console, set_aside
from errata.data import EmptyTexts, write_rows, writing_rows
from errata.data.fields import is_empty
from errata.edits import statistics
from errata.ranges import Range, Ranged, Size
from errata.types import Correction

if TYPE_CHECKING:
    from errata.page.store import NewItem, Store

__all__ = ["EditsExport", "EditsPage"]


@dataclass(frozen=True, kw_only=True)
class EditsPage(Ranged):
    """Serve a page on which people correct responses; what they type is saved as they type.

    Without --annotators it is for whoever sits at this machine. With them it prints one link for each, and one for the
    admin, who sees progress, statistics and agreement. Run it again with the same --db to go on.
    """

    stopped = "what was typed is saved; run it again with the same --db to go on"

    db: str
    """Where everything is kept: a file (SQLite), or a database URL such as postgresql+psycopg://user@host/name, which
    needs `pip install 'errata[postgres]'`."""
    data: Path | None = None
    """Responses to correct: any format of `errata edits import`, or rows of prompt and response. Those that the
    database has already are left as they are."""
    source: Flat[Source] = Source()
    annotators: tuple[str, ...] = ()
    """Names of people; each gets a link, which is shown once."""
    new_links: bool = False
    """Make new links for those named; their old ones end."""
    overlap: Size | None = None
    """How many people correct each response; 1 unless it was set before."""
    guideline: Path | None = None
    """Markdown that annotators see; another text is a new version, and each edit says which one it was made under."""
    reasons: tuple[str, ...] = ("wrong", "unsafe", "missing", "style", "instruction")
    """The tags that say why something was edited."""
    host: str = "127.0.0.1"
    """Where to listen; another than this machine needs --annotators, and a proxy in front that speaks https."""
    port: Annotated[int, Range(low=0, high=65_535)] = 8765
    """Port to listen on."""

    @property
    def also_locked(self) -> list[Path]:
        """The database, where it is a file: the page remembers some of it, so that one process serves it."""
        return [] if "://" in self.db else [Path(self.db)]

    def run(self) -> None:
        # A file that cannot be read is an error before anything is served; the rest is read beside.
        items = self._items()
        first = list(islice(items, 1))
        store = open_store(self.db)
        from errata.page.serve import check_host, make_links, serve

        check_host(self.host, self.annotators)
        if self.guideline is not None:
            store.set_guideline(self.guideline.read_text(encoding="utf-8"))
        if self.overlap is not None:
            store.set_overlap(self.overlap)
        for link in make_links(store, self.annotators, new=self.new_links):
            shown = link.url(self.host, self.port) if link.token else "has a link already; --new-links makes another"
            console.print(f"{link.name:16} {shown}", highlight=False, markup=False, soft_wrap=True)
        if not self.annotators:
            console.print(f"http://{self.host}:{self.port}/", highlight=False, soft_wrap=True)
        serve(
            store,
            host=self.host,
            port=self.port,
            annotators=self.annotators,
            reasons=self.reasons,
            items=chain(first, items),
            told=lambda text: console.print(text, highlight=False, markup=False),
        )

    def _items(self) -> Iterator[NewItem]:
        from errata.page.items import items_of

        if self.data is not None:
            yield from items_of(self.data, set_aside=set_aside(self.data), **self.source.how)


@dataclass(frozen=True, kw_only=True)
class EditsExport:
    """Get the edits out of the edit page's database: rows that `errata labels` and `errata edits import` read.

    Of what was submitted, the edited and the already good; skipped, flagged and hopeless ones are in --revisions only.
    """

    db: str
    """The database of `errata edits page`."""
    out: Path
    """The edits that count: .jsonl, .jsonl.gz or .parquet."""
    revisions: Path | None = None
    """Every revision ever saved, too: .jsonl, .jsonl.gz or .parquet."""
    empty_texts: EmptyTexts = "skip"
    """skip: leave out edits with an empty text before or after, and count them. keep: an empty text is meant."""

    def run(self) -> None:
        check_not_itself(self.out, Path(self.db))
        store = open_store(self.db, new=False)
        from errata.page.export import all_revisions, final_edits

        empty: list[str] = []

        def filled() -> Iterator[Correction]:
            for row in final_edits(store):
                if self.empty_texts == "keep" or not (is_empty(row.original) or is_empty(row.edited)):
                    yield row
                else:
                    empty.append(row.id)

        shown = tqdm(writing_rows(self.out, filled()), unit=" rows", leave=False, delay=2, disable=None)
        console.print(str(statistics(shown)), highlight=False, markup=False)
        if empty:
            told = f"{len(empty)} edits were left out for an empty text, the first {empty[0]!r}; "
            told += "--empty-texts keep writes them"
            console.print(told, highlight=False, markup=False, soft_wrap=True)
        if self.revisions is not None:
            check_not_itself(self.revisions, self.out, Path(self.db))
            write_rows(self.revisions, all_revisions(store))
            console.print(f"→ {self.revisions}", highlight=False, markup=False)


def open_store(db: str, *, new: bool = True) -> Store:
    """The database, by its file or URL.

    Raises:
        ValueError: the extra is not installed, or there is no such file and none is to be made.
    """
    try:
        from errata.page.store import Store

        if "://" in db:
            return Store(db)
    except ImportError as error:
        extra = "postgres" if db.startswith("postgresql") else "page"
        raise ValueError(f"the edit page needs more packages ({error}): pip install 'errata[{extra}]'") from error
    if not new and not Path(db).exists():
        raise ValueError(f"there is no database {db}; `errata edits page --db {db}` makes it")
    Path(db).parent.mkdir(parents=True, exist_ok=True)
    return Store(f"sqlite:///{db}")
