"""The server in a process of its own, to be killed: ``python serving.py URL FOLDER PORT [NAME …]``."""

from __future__ import annotations

import sys
from pathlib import Path

from errata.page.serve import make_links, serve
from errata.page.store import Store


def main(url: str, folder: Path, port: int, names: list[str]) -> None:
    store = Store(url)
    tokens = [f"{link.name} {link.token}" for link in make_links(store, names) if link.token]
    with (folder / "tokens").open("a") as file:
        file.writelines(f"{line}\n" for line in tokens)
    serve(store, host="127.0.0.1", port=port, annotators=names)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
