"""How long things take, as ratios measured side by side in one job: ``make bench``, about a minute.

Seconds belong to a machine, ratios travel. Each figure is the median over rounds, and the things that are compared
take turns within a round, so that a busy machine slows them alike. Rows are those of the embedded world; the model is
a tiny Llama with random weights, whose responses run to the limit.

    python benchmarks/run.py --out bench.json
"""

from __future__ import annotations

import difflib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from scale import long_corrections, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from errata.data import Encoder, read_corrections
from errata.demo.editor import correct
from errata.demo.tokenizer import build_tokenizer
from errata.demo.world import DefectRates, make_prompts, write_response
from errata.edits import diff, words
from errata.labels import label_all
from errata.models import LayoutKind, load_causal, load_token_reward_model, save_model
from errata.reward import TokenScorer
from errata.runs import new_file
from errata.tuning import FIGAConfig, PPOConfig, Stream, weigh
from errata.tuning.figa import collate_weighted, figa_step_loss
from errata.tuning.ppo import Run as PPORun
from errata.tuning.sft import collate_demonstrations, sft_step_loss
from errata.types import Correction

SHARED = Path(__file__).parents[2] / "shared" / "data" / "mlqe_pe_ro-en_et-en_train.jsonl.gz"
Seconds = Mapping[str, float]
"""The median seconds of each of the things that were compared."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Ratios of the times that errata's parts take, measured side by side."""

    out: Path | None = None
    """Write the figures here as JSON, too."""
    rows: int = 512
    """Corrections to diff and label."""
    rounds: int = 5
    """How often everything is measured."""
    batch_size: int = 64
    """Rows of a training step, and responses of a PPO step."""
    max_new_tokens: int = 64
    """Length of the responses of a PPO step, in tokens."""


def main() -> None:
    """Measure, print and, if asked to, write."""
    settings = tyro.cli(Settings)
    transformers_logging.disable_progress_bar()
    console = Console(highlight=False)
    with TemporaryDirectory() as folder:
        encoder, model = Encoder(build_tokenizer()), Path(folder) / "model"
        make_model(encoder, model)
        corrections = make_corrections(settings.rows)
        steps = ppo_steps(settings, encoder, model)
        found = {
            **{name: compare(labelling(rows), settings.rounds) for name, rows in long_rows(settings.rows).items()},
            "diff": compare(diffing(corrections), settings.rounds),
            "step": compare(training(corrections[: settings.batch_size], encoder, model), settings.rounds),
            "ppo": {part: median(one[part] for one in steps) for part in steps[0]},
        }
    table = Table("measured", "median", "ratio", "to", box=None, header_style="bold")
    for what, seconds in found.items():
        base = next(iter(seconds))
        table.add_section()
        table.add_row(f"[bold]{what}[/bold]")
        for name, value in seconds.items():
            ratio = ("1", "") if name == base else (f"{value / seconds[base]:.2f}", base)
            table.add_row(name, f"{1000 * value:,.1f} ms", *ratio)
    console.print(table)
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}"
    samples = settings.batch_size / found["ppo"]["a PPO step"]
    labelled = settings.rows / next(iter(found.values()))["errata.labels"]
    console.print(f"A second: {labelled:,.0f} corrections labelled, {samples:,.0f} PPO samples drawn and learned from.")
    console.print(f"Medians of {settings.rounds} rounds; {threads}.")
    if settings.out is not None:
        with new_file(settings.out) as unfinished:
            report = {
                "seconds": found,
                "ppo_samples_per_second": samples,
                "rounds": settings.rounds,
                "machine": threads,
            }
            unfinished.write_text(json.dumps(report, indent=1) + "\n")


def compare(things: Mapping[str, Callable[[], object]], rounds: int) -> Seconds:
    """Let the things take turns, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for number in range(rounds + 1):
        for name, do in things.items():
            started = time.perf_counter()
            do()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def make_corrections(count: int) -> list[Correction]:
    """Flawed responses of the embedded world, each with its full correction."""
    rng = Random(0)
    rows = []
    for row in make_prompts(count, rng):
        text = write_response(row.prompt, rng, defect_rates=DefectRates())
        rows.append(Correction(id=row.id, prompt=row.prompt, original=text, edited=correct(row.prompt, text, rng)))
    return rows


def make_model(encoder: Encoder, folder: Path) -> None:
    """A Llama of the size of the demo's, with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(encoder.tokenizer),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=encoder.pad_id,
        eos_token_id=encoder.end_id,
    )
    save_model(LlamaForCausalLM(config), encoder.tokenizer, folder)


def long_rows(count: int) -> dict[str, list[Correction]]:
    """Corrections of more than 200 tokens a side: real post-edits, nine at a time, where they are; and the world's."""
    found = {}
    if SHARED.exists():
        real = read_corrections(SHARED, empty_texts="keep")[: 9 * count]
        groups = [real[k : k + 9] for k in range(0, len(real), 9)]
        found["labels of real post-edits"] = [
            Correction(
                id=group[0].id,
                prompt=" ".join(str(row.prompt) for row in group[:2]),
                original=" ".join(row.original for row in group),
                edited=" ".join(row.edited for row in group),
            )
            for group in groups
        ]
    return found | {"labels of the world's rows": list(long_corrections(count))}


def labelling(rows: list[Correction]) -> dict[str, Callable[[], object]]:
    """Labels of long texts, against only tokenising prompts and texts in one batch, with offsets."""
    encoder = Encoder(make_tokenizer(rows, vocab_size=8_000))
    texts = [text for row in rows for text in (str(row.prompt), row.original, row.edited)]
    return {
        "tokenising the texts in one batch": lambda: encoder.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True
        ),
        "errata.labels": lambda: list(label_all(rows, encoder)),
    }


def diffing(rows: list[Correction]) -> dict[str, Callable[[], object]]:
    """The word diff with its spans, against difflib's opcodes of the same words, which know no spans."""

    def split(text: str) -> list[str]:
        return [text[start:stop] for start, stop in words(text)]

    def by_difflib() -> None:
        for row in rows:
            difflib.SequenceMatcher(None, split(row.original), split(row.edited), autojunk=False).get_opcodes()

    return {
        "difflib on the same words": by_difflib,
        "errata.diff": lambda: [diff(row.original, row.edited) for row in rows],
    }


def training(rows: list[Correction], encoder: Encoder, folder: Path) -> dict[str, Callable[[], object]]:
    """One optimizer step of each kind on the same rows, collating included; FIGA reads two texts a row, SFT one."""
    model: Any = load_causal(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    labels, config = list(label_all(rows, encoder)), FIGAConfig()
    pairs = [weigh(row, config) for row in labels]
    edited = [(row.edited.encoded, 1.0) for row in labels]
    sft = collate_demonstrations, sft_step_loss
    figa = collate_weighted, partial(figa_step_loss, low=config.gate_low, high=config.gate)

    def learn(
        collate: Callable[..., Any], loss: Callable[[Any, Any], Any], rows: Sequence[Any], kind: LayoutKind
    ) -> None:
        total, count = loss(model, collate(rows, encoder=encoder, kind=kind))
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {
        **{f"an SFT step, edited texts, {kind}": partial(learn, *sft, edited, kind) for kind in LayoutKind},
        **{f"a FIGA step, {kind}": partial(learn, *figa, pairs, kind) for kind in LayoutKind},
    }


@dataclass
class Timed:
    """A callable that adds up the seconds it takes."""

    call: Callable[..., Any]
    seconds: float = 0.0

    def __call__(self, rows: Sequence[Any], *more: Any) -> Any:
        """Call it."""
        started = time.perf_counter()
        result = self.call(rows, *more)
        self.seconds += time.perf_counter() - started
        return result


def ppo_steps(settings: Settings, encoder: Encoder, folder: Path) -> list[dict[str, float]]:
    """Whole PPO steps, and where their time goes; the update has the log-probs, values and advantages in it."""
    config = PPOConfig(
        rollouts_per_step=settings.batch_size,
        minibatch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
    )
    score = Timed(TokenScorer(load_token_reward_model(folder).eval(), encoder.pad_id, level_is_free=False))
    streams = [Stream(name="reward", reward=score)]
    ppo = PPORun(folder, streams, make_prompts(256, Random(1)), encoder, config, critic=None)
    generate = Timed(ppo.generator)
    ppo.generator = generate  # type: ignore[assignment]
    steps = []
    for number in range(settings.rounds + 1):
        generate.seconds = score.seconds = 0.0
        whole = ppo.round(number)[0]["seconds"]
        if number:
            rest = whole - generate.seconds - score.seconds
            steps.append({"a PPO step": whole, "generate": generate.seconds, "score": score.seconds, "update": rest})
    return steps


if __name__ == "__main__":
    main()
