"""Real edits through ``errata learn``, with a model that is tiny and made here: modest numbers, reported.

Two logs of sentences that people edited: IteraTeR (revisions of what was written, all kinds but changes of meaning,
which no model could guess) and CAD-SNLI (a hypothesis changed as little as possible until it has the wanted label).
The prompt holds the sentence as it stood, in CAD-SNLI after the premise and the wanted label; the draft is an untouched
copy of it; what was sent is the person's revision. So the old model is one that copies, trained here from nothing on
drafts and on lists of words, never on what was sent; what is to be learned is which edits people make. A model that
copies badly gets better by copying better, which is no learning from edits: ``copies`` is the old model with as many
more passes over the drafts, the control.

    python recipes/edit_logs.py --log iterater --out runs/iterater

What came out: docs/learn.md, On real edits.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import post_edits
import tyro
from rich.table import Table
from transformers.utils import logging as transformers_logging

from errata.data import Encoder, LengthCounts, read_corrections
from errata.data.rows import write_lines
from errata.labels import label_all
from errata.models import Sampling, device, load_causal, load_tokenizer
from errata.runs import digest, read_json, write_json
from errata.tuning import SFTConfig, demonstrations, train_sft
from errata.types import Correction, Demonstration
from errata.workflows import (
    LearnConfig,
    LearnDetails,
    Learned,
    compare,
    describe,
    edit_costs,
    learn,
    token_logprobs_by_label,
    write_drafts,
)

__all__ = ["Settings", "main", "run"]

FILES = {"iterater": "iterater_train.jsonl.gz", "cad_snli": "cad_snli_train.jsonl.gz"}
PRACTICE_WORDS = 12  # of a list, at most
BATCH = 32
MODELS = {"old": "the old model", "figa": "FIGA", "sft": "SFT", "copies": "more copies"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """People's edits as a log → a tiny model that copies → ``errata learn`` → what it learned, and the verdict."""

    log: Literal["iterater", "cad_snli"] = "iterater"
    """Whose edits."""
    data: Path = Path(__file__).resolve().parents[2] / "shared" / "data"
    """Folder of the files; where the file is missing the recipe says so and ends well."""
    out: Path = Path("runs/edit_logs")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    rows: int = 1500
    """Rows of the log, at most, drawn by lot."""
    max_words: int = 24
    """Longer sentences are left out, before and after the edit: so small a model cannot copy them."""
    vocabulary: int = 1000
    """Pieces of the tokenizer, trained on prompts and drafts."""
    hidden_size: int = 64
    """Of the tiny Llama."""
    layers: int = 2
    """Of the tiny Llama."""
    practice: int = 48_000
    """Lists of words to copy, without which so small a model learns sentences by heart instead."""
    copy_epochs: float = 1.0
    """Passes over practice and drafts."""
    learn_epochs: float = 5.0
    """Passes of `errata learn`, and of the control."""
    learning_rate: float = 1e-3
    """Of `errata learn`, and of the control."""
    heldout_rows: int = 300
    """Rows that judge, at most."""
    seed: int = 0
    """Of all that is drawn."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code, which is 0 where the data is missing, too."""
    settings = tyro.cli(Settings, args=argv)
    name = FILES[settings.log]
    if not (settings.data / name).exists():
        print(f"edit_logs is skipped: there is no {name} in {settings.data}; say where it is with --data")
        return 0
    transformers_logging.disable_progress_bar()
    try:
        run(settings)
    except KeyboardInterrupt:
        print("\nedit_logs: stopped; rerun the same command to resume", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"edit_logs: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings) -> dict[str, Any]:
    """The whole road; returns what ``summary.json`` holds.

    Raises:
        ValueError: the folder holds a run with other settings, or too few rows are left.
    """
    name = FILES[settings.log]
    with post_edits.stages(settings, {name: digest(settings.data / name)}) as stage:
        return _run(settings, stage)


def _run(settings: Settings, stage: post_edits.Stages) -> dict[str, Any]:
    out, log = settings.out, settings.out / "log.jsonl"
    stage(log, partial(write_log, settings), "prompt, draft, sent: the log")
    rows = read_corrections(log, empty_texts="keep")
    drafts = [replace(row, edited=row.original) for row in rows]
    blank, old, copies = out / "models/blank", out / "models/old", out / "models/copies"
    sizes = {name: getattr(settings, name) for name in ("vocabulary", "hidden_size", "layers", "seed")}
    stage(
        blank,
        lambda path: post_edits.make_blank(post_edits.Settings(**sizes), drafts, path),
        "a tokenizer of prompts and drafts, a Llama that knows nothing",
    )
    encoder = Encoder(load_tokenizer(blank))
    stage(
        old,
        lambda path: train_sft(
            blank, [*practice(settings, rows), *demonstrations(drafts)], encoder, _copying(settings), path
        ),
        "it learns to copy: the old model",
    )
    config, details = _learning(settings)
    found = learn(log, old, out / "learn", config, details, console=stage.console)
    trained = {row.id for row in read_corrections(out / "learn/split/train.jsonl", empty_texts="keep")}
    more = SFTConfig(
        learning_rate=config.learning_rate,
        epochs=settings.learn_epochs,
        batch_size=BATCH,
        micro_batch_size=details.micro_batch_size,
        lora_rank=details.lora_rank,
        seed=details.seed,
    )
    stage(
        copies,
        lambda path: train_sft(old, demonstrations([row for row in drafts if row.id in trained]), encoder, more, path),
        "as many more passes over untouched copies: the control",
    )
    folders = {"old": old, "copies": copies, **{arm: out / "learn/candidates" / arm for arm in ("figa", "sft")}}
    for name in MODELS:
        stage(out / f"heldout/{name}.json", partial(measure, settings, folders[name], encoder), f"{name}, held out")
    measured = {name: read_json(out / f"heldout/{name}.json") for name in MODELS}
    summary = summarise(settings, found, measured)
    write_json(out / "summary.json", summary)
    stage.console.print(_table(summary))
    stage.console.print(*_said(summary), sep="\n")
    return summary


def write_log(settings: Settings, path: Path) -> None:
    """The file that ``errata learn`` reads; ``source`` numbers the sentences, whose edits must stay on one side."""
    rows = [
        row
        for row in read_corrections(settings.data / FILES[settings.log], empty_texts="keep")
        if _usable(row, settings.max_words)
    ]
    # Of a sentence revised twice, what was sent first stands in the second prompt, which may be on the other side.
    drafts = {_clean(row.original) for row in rows}
    rows = [row for row in rows if _clean(row.edited) not in drafts]
    random.Random(settings.seed).shuffle(rows)
    sources: dict[str, str] = {}
    lines = []
    for row in rows[: settings.rows]:
        draft, sent = _clean(row.original), _clean(row.edited)
        prompt = f"{_clean(str(row.prompt))}\n{row.extra['label_to']}: {draft}" if row.prompt else draft
        source = sources.setdefault(_clean(str(row.prompt)) or draft, f"s{len(sources)}")
        lines.append({"id": row.id, "prompt": prompt, "draft": draft, "sent": sent, "source": source})
    write_lines(path, lines)


def _usable(row: Correction, max_words: int) -> bool:
    texts = (_clean(row.original), _clean(row.edited))
    short = all(0 < len(text.split()) <= max_words for text in texts)
    return short and texts[0] != texts[1] and row.extra.get("labels") != "meaning-changed"


def _clean(text: str) -> str:
    """Without the line breaks and double spaces that taking sentences apart has left."""
    return " ".join(text.split())


def practice(settings: Settings, rows: Sequence[Correction]) -> Iterator[Demonstration]:
    """Prompts of the log's form about words of the drafts by lot, and their copies.

    No word comes twice, and rare ones as often as others: what comes next can only be read off the prompt.
    """
    rng = random.Random(settings.seed)
    words = sorted({word for row in rows for word in row.original.split()})
    for k in range(settings.practice):
        copy = " ".join(rng.sample(words, k=min(len(words), rng.randint(1, PRACTICE_WORDS))))
        like = rng.choice(rows)
        prompt = str(like.prompt).removesuffix(like.original) + copy
        yield Demonstration(id=f"practice-{k}", prompt=prompt, response=copy)


def _copying(settings: Settings) -> SFTConfig:
    return SFTConfig(
        learning_rate=4e-3,
        epochs=settings.copy_epochs,
        batch_size=32,
        micro_batch_size=32,
        schedule="cosine",
        warmup_steps=50,
        seed=settings.seed,
    )


def _learning(settings: Settings) -> tuple[LearnConfig, LearnDetails]:
    """An adapter of the default rank, as people run it; of layers so narrow it has two fifths of the size."""
    config = LearnConfig(
        epochs=settings.learn_epochs,
        learning_rate=settings.learning_rate,
        max_new_tokens=4 * settings.max_words,
    )
    details = LearnDetails(
        user_field="source",
        split_by="users",
        heldout_rows=settings.heldout_rows,
        batch_size=BATCH,
        micro_batch_size=BATCH,
        seed=settings.seed,
    )
    return config, details


def measure(settings: Settings, model: Path, encoder: Encoder, path: Path) -> None:
    """What one model writes and thinks on the rows that ``errata learn`` held out; nothing is chosen by it."""
    rows = read_corrections(settings.out / "learn/split/heldout.jsonl", empty_texts="keep")
    sent = {row.id: row.edited for row in rows}
    config, details = _learning(settings)
    net = load_causal(model).to(device())
    found: dict[str, Any] = {}
    for name, temperature in (("greedy", 0.0), ("sampled", details.temperature)):
        sampling = Sampling(max_new_tokens=config.max_new_tokens, temperature=temperature, seed=details.seed)
        drafts = write_drafts(net, rows, encoder, sampling, batch_size=BATCH, what=model.name)
        copied = sum(draft.text == row.original for draft, row in zip(drafts, rows, strict=True)) / len(rows)
        exact = sum(draft.text == row.edited for draft, row in zip(drafts, rows, strict=True)) / len(rows)
        found[name] = {
            "costs": edit_costs(drafts, sent),
            "untouched": copied,
            "as_sent": exact,
            "figures": asdict(describe(drafts, sent)),
        }
    labels = list(label_all(rows, encoder, counts=LengthCounts()))
    found["tokens"] = asdict(token_logprobs_by_label(net, labels, encoder, batch_size=BATCH))
    write_json(path, found)


def summarise(settings: Settings, found: Learned, measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All numbers of the table, and the verdict."""
    differences = {
        f"{new} − {old}": {
            how: asdict(compare(measured[new][how]["costs"], measured[old][how]["costs"]))
            for how in ("greedy", "sampled")
        }
        for new, old in (("figa", "old"), ("sft", "old"), ("copies", "old"), ("figa", "copies"), ("sft", "copies"))
    }
    return {
        "log": settings.log,
        "seed": settings.seed,
        "rows": found.log["rows"],
        "split": {name: found.split[name] for name in ("train", "selection", "heldout", "rule")},
        "logged_cost": asdict(found.logged_cost),
        "models": measured,
        "differences": differences,
        "judged": found.arm,
        "promoted": found.decision.promoted,
        "reasons": list(found.decision.reasons),
    }


def _table(summary: Mapping[str, Any]) -> Table:
    split = summary["split"]
    table = Table(
        title=f"{summary['log']}: {summary['rows']} rows, {split['train']} to train on, {split['selection']} that "
        f"choose, {split['heldout']} that judge; logged drafts {_interval(summary['logged_cost'])} words",
        title_justify="left",
    )
    table.add_column("")
    for name in ("greedy", "untouched", "as sent", "sampled", "good", "bad", "kept"):
        table.add_column(name, justify="right")
    for name, one in summary["models"].items():
        greedy, sampled = one["greedy"], one["sampled"]
        table.add_row(
            MODELS[name],
            f"{greedy['figures']['edit_cost']['mean']:.2f}",
            f"{greedy['untouched']:.1%}",
            f"{greedy['as_sent']:.1%}",
            f"{sampled['figures']['edit_cost']['mean']:.2f}",
            *(f"{one['tokens'][label]:.2f}" for label in ("good", "bad", "kept")),
        )
    return table


def _said(summary: Mapping[str, Any]) -> Iterator[str]:
    for name, one in summary["differences"].items():
        yield f"{name}, words: " + "; ".join(f"{how} {_interval(one[how]['difference'])}" for how in one)
    yield f"{summary['judged']} is {'promoted' if summary['promoted'] else 'refused'}: {' '.join(summary['reasons'])}"
    yield "Edit costs in words, 95 % bootstrap intervals over rows; log-probabilities in nats a token."


def _interval(one: Mapping[str, float]) -> str:
    return f"{one['mean']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
