"""The server in a process of its own, to be killed: ``python serving.py FOLDER PORT [NAME …]``."""

from __future__ import annotations

import sys
from pathlib import Path

from errata.page.serve import make_links, serve
from errata.page.store import Store


def main(folder: Path, port: int, names: list[str]) -> None:
    store = Store(f"sqlite:///{folder / 'edits.db'}")
    tokens = [f"{link.name} {link.token}" for link in make_links(store, names) if link.token]
    with (folder / "tokens").open("a") as file:
        file.writelines(f"{line}\n" for line in tokens)
    serve(store, host="127.0.0.1", port=port, annotators=names)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
