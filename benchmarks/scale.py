"""Files of any size? Rows a second and peak memory of `errata edits import` and `errata labels`, small file and large.

Corrections of about 256 tokens a side are made from the embedded world's words with a byte-level BPE trained on them;
each command runs in a process of its own, and the memory is that of all its processes together, sampled meanwhile.

    python benchmarks/scale.py --rows 10000 100000
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import tyro
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from errata.data import write_rows
from errata.demo.editor import correct
from errata.demo.world import DefectRates, make_prompts, write_response
from errata.runs import new_file
from errata.types import Correction


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Rows a second and peak memory by size of file."""

    rows: tuple[int, ...] = (10_000, 100_000)
    """Sizes of the files."""
    workers: int = 2
    """Processes of `errata labels`."""
    out: Path | None = None
    """Write the figures here as JSON, too."""


def main() -> None:
    """Measure, print and, if asked to, write."""
    settings = tyro.cli(Settings)
    table = Table("rows", "command", "seconds", "rows a second", "peak memory, MiB", box=None, header_style="bold")
    found: list[dict[str, Any]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        texts = list(long_corrections(2_000))
        make_tokenizer(texts).save_pretrained(folder / "model")
        for count in settings.rows:
            data = folder / f"{count}.jsonl"
            write_rows(data, repeated(texts, count))
            for command in (
                ["edits", "import", f"--data={data}", f"--out={folder / 'edits.jsonl'}"],
                [
                    *("labels", f"--edits={data}", f"--model={folder / 'model'}"),
                    *(f"--out={folder / 'labels.jsonl'}", f"--workers={settings.workers}"),
                ],
            ):
                seconds, memory = measure(["errata", *command])
                verb = " ".join(word for word in command if not word.startswith("--"))
                found.append({"rows": count, "command": verb, "seconds": seconds, "peak_bytes": memory})
                figures = (f"{seconds:.0f}", f"{count / seconds:,.0f}", f"{memory / 2**20:,.0f}")
                table.add_row(f"{count:,}", verb, *figures)
    Console(highlight=False).print(table)
    if settings.out is not None:
        with new_file(settings.out) as unfinished:
            unfinished.write_text(json.dumps(found, indent=1) + "\n")


def long_corrections(count: int) -> Iterator[Correction]:
    """Several flawed responses of the world, one after the other, each with its correction."""
    rng = Random(0)
    for number in range(count):
        rows = make_prompts(5, rng)
        texts = [write_response(row.prompt, rng, defect_rates=DefectRates()) for row in rows]
        edited = [correct(row.prompt, text, rng) for row, text in zip(rows, texts, strict=True)]
        yield Correction(
            id=str(number), prompt=str(rows[0].prompt), original="\n".join(texts), edited="\n".join(edited)
        )


def repeated(rows: Sequence[Correction], count: int) -> Iterator[Correction]:
    """As many rows as asked for, no two with the same texts."""
    for k in range(count):
        one = rows[k % len(rows)]
        mark = f" No. {k}"
        yield Correction(id=f"row {k}", prompt=one.prompt, original=one.original + mark, edited=one.edited + mark)


def make_tokenizer(rows: Sequence[Correction], vocab_size: int = 600) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose pieces are short, as those of a large vocabulary are on ordinary text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False
    )
    backend.train_from_iterator((text for row in rows for text in (row.original, row.edited)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def measure(command: Sequence[str]) -> tuple[float, int]:
    """Seconds, and the most bytes that the process and its children held at once."""
    started, most = time.perf_counter(), 0
    with subprocess.Popen([Path(sys.executable).with_name(command[0]), *command[1:]], stdout=subprocess.DEVNULL) as run:
        family = psutil.Process(run.pid)
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess):  # one ended while it was counted
                most = max(most, sum(one.memory_info().rss for one in [family, *family.children(recursive=True)]))
            time.sleep(0.1)
        if run.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {run.returncode}")
    return time.perf_counter() - started, most


if __name__ == "__main__":
    main()
