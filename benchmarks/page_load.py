"""Many people at the edit page at once: each saves a draft every second; is any save slow, refused or lost?

The server runs in a process of its own on SQLite, the people in this one; both share the machine. With ``--rows`` that
many responses are imported meanwhile.

    python benchmarks/page_load.py --annotators 50 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import numpy as np

from errata.page.export import all_revisions
from errata.page.serve import make_links, serve
from errata.page.store import NewItem, Store

PORT = 8791
WORDS = 200
VOCABULARY = [f"word{k}" for k in range(2000)]


def response(rng: random.Random) -> str:
    return " ".join(rng.choices(VOCABULARY, k=WORDS))


def run_server(folder: Path, rows: int) -> None:
    store = Store(f"sqlite:///{folder / 'edits.db'}")
    rng = random.Random(1)
    items = (NewItem(id=f"more-{k}", prompt="Write.", response=response(rng)) for k in range(rows))

    def told(text: str) -> None:
        print(f"after {time.monotonic() - started:.1f} s: {text}", flush=True)

    started = time.monotonic()
    serve(store, host="127.0.0.1", port=PORT, annotators=["x"], items=items, told=told)


async def annotate(token: str, number: int, seconds: float, found: dict[str, list]) -> None:
    rng = random.Random(number)
    await asyncio.sleep(rng.random())
    base_url = f"http://127.0.0.1:{PORT}"
    async with httpx2.AsyncClient(base_url=base_url, headers={"X-Errata": "1"}, timeout=30) as client:
        (await client.post("/api/session", json={"token": token})).raise_for_status()
        task = (await client.post("/api/next", json={})).json()["task"]
        words = (await client.get(f"/api/tasks/{task}")).json()["response"].split()
        seq, stop, due = 0, time.perf_counter() + seconds, time.perf_counter()
        while due < stop:
            words[rng.randrange(len(words))] = rng.choice(VOCABULARY)
            body = {"base": seq, "save_id": f"{number}-{seq}-save", "kind": "draft", "guideline": 0}
            body["text"] = " ".join(words)
            begun = time.perf_counter()
            try:
                answer = await client.post(f"/api/tasks/{task}/revisions", json=body)
                answer.raise_for_status()
                seq = answer.json()["seq"]
                found["saved"].append((number, seq, body["text"]))
            except httpx2.HTTPError as error:
                found["errors"].append(repr(error))
            found["seconds"].append(time.perf_counter() - begun)
            due += 1
            await asyncio.sleep(max(due - time.perf_counter(), 0))


def wait_for_server() -> None:
    for _ in range(600):
        try:
            httpx2.get(f"http://127.0.0.1:{PORT}/favicon.ico")
        except httpx2.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, default=0, help="responses to import meanwhile")
    parser.add_argument("--folder", type=Path, help="where the database goes; the disk matters, saves wait for it")
    parser.add_argument("--server", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        return run_server(options.server, options.rows)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        store = Store(f"sqlite:///{folder / 'edits.db'}")
        rng = random.Random(0)
        items = (NewItem(id=str(k), prompt="Write.", response=response(rng)) for k in range(options.annotators * 2))
        store.add_items(items)
        links = make_links(store, [f"annotator {k}" for k in range(options.annotators)])[:-1]
        command = [sys.executable, __file__, "--server", name, "--rows", str(options.rows)]
        with subprocess.Popen(command) as server:
            wait_for_server()
            found: dict[str, list] = {"saved": [], "errors": [], "seconds": []}

            async def everybody() -> None:
                people = (annotate(link.token, k, options.seconds, found) for k, link in enumerate(links))
                await asyncio.gather(*people)

            asyncio.run(everybody())
            server.kill()  # -9: what was acknowledged is on disk
        kept = {
            (int(row.extra["annotator"].split()[1]), row.extra["revision"], row.edited) for row in all_revisions(store)
        }
        lost = [each for each in found["saved"] if each not in kept]
        store.close()
    ms = 1000 * np.array(found["seconds"])
    print(
        f"{options.annotators} annotators, {options.seconds:g} s, {options.rows} rows imported meanwhile, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: {len(ms)} saves, {len(found['errors'])} errors, "
        f"{len(lost)} lost; median {np.median(ms):.0f} ms, 95 % {np.quantile(ms, 0.95):.0f} ms, most {ms.max():.0f} ms"
    )
    if found["errors"]:
        print(found["errors"][0])


if __name__ == "__main__":
    main()
