"""The doctor's look at the rows, and the models that are trained on them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from errata.data import LengthCounts
from errata.data.rows import read_lines
from errata.doctor import examine, read_model_facts
from errata.labels import label_all
from errata.pretrained import find_model
from errata.runs import write_json
from errata.tuning import FIGAConfig, SFTConfig, demonstrations, train_figa, train_sft
from errata.types import Correction
from errata.workflows.learning.context import Run, edited
from errata.workflows.learning.settings import NotSafe


def ask_doctor(run: Run, path: Path) -> None:
    """What the losses will really see."""
    bad = [json.loads(line) for _, line in read_lines(run.out / "log" / "bad_rows.jsonl")]
    found = examine(
        tqdm(_trained(run), desc="doctor", unit=" rows", leave=False, delay=2, disable=None),
        run.encoder,
        method="sft" if run.arms == ("sft",) else "figa",
        config=_figa_config(run),
        model=read_model_facts(run.model),
        unreadable=[(row["line"], row["error"]) for row in bad],
    )
    if not found.safe:
        raise NotSafe(found)
    write_json(path, found.as_dict())


def train(run: Run, path: Path) -> None:
    """One candidate."""
    weights = {row.id: run.config.accepted_weight for row in _trained(run) if not edited(row)}
    if path.name == "figa":
        counts = LengthCounts()
        labels = list(label_all(_trained(run), run.encoder, counts=counts))
        train_figa(run.model, labels, run.encoder, _figa_config(run), path, counts=counts, row_weights=weights)
    else:
        train_sft(run.model, demonstrations(_trained(run)), run.encoder, _sft_config(run), path, row_weights=weights)


def _trained(run: Run) -> list[Correction]:
    """The rows to train on: the edited ones and, by option, those that were accepted."""
    return run.rows("train") + (run.rows("train_accepted") if run.config.accepted_weight > 0 else [])


def _sft_config(run: Run) -> SFTConfig:
    """What both methods have in common."""
    found = find_model(run.model)
    return SFTConfig(
        learning_rate=run.config.learning_rate,
        epochs=run.config.epochs,
        batch_size=run.details.batch_size,
        micro_batch_size=run.details.micro_batch_size,
        dtype="bfloat16" if run.details.bf16 else "auto",
        # Of an adapter the training goes on with that, of its own rank.
        lora_rank=0 if found.base else run.details.lora_rank,
        # Into quantized weights none can be merged.
        save="adapter" if found.quantization else "both",
        quantize=run.details.quantize,
        gradient_checkpointing=run.details.gradient_checkpointing,
        seed=run.details.seed,
    )


def _figa_config(run: Run) -> FIGAConfig:
    """FIGA's weights besides."""
    common = asdict(_sft_config(run))
    return FIGAConfig(**common, kept_weight=run.details.kept_weight, bad_weight=run.details.bad_weight)
