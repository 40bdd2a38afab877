"""A server that we did not write: `transformers serve` with a tiny chat model of random weights, on a real socket.

with serving(chat_model(tmp_path / "tiny")) as spec:
    chat = open_chat(spec)
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.utils.import_utils import is_serve_available

import tiny

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}say {% endif %}"
)


def chat_model(folder: Path) -> Path:
    """Talks in the fourteen words of ``tiny``, and never of anything."""
    tiny.llama(folder, max_position_embeddings=2048)  # room for what an editor is told
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """What --llm takes, FOLDER@URL; skips where the server is not installed."""
    command = shutil.which("transformers", path=sysconfig.get_path("scripts"))
    if command is None or not is_serve_available():
        pytest.skip("transformers serve is not installed: pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The server lists the models of the cache: an empty one, and never the network.
    (folder / "cache").mkdir(exist_ok=True)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    address = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = folder.with_name(f"{folder.name}.log")
    with log.open("w") as out:
        process = subprocess.Popen(
            [command, "serve", str(folder), *address], stdout=out, stderr=out, env={**os.environ, **offline}
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield f"{folder}@http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(3000):  # a busy machine takes minutes to import transformers
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())
