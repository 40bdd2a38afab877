"""The doctor's look at the rows, and the models that are trained on them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from errata.data import LengthCounts
from errata.data.rows import read_lines
from errata.doctor import examine, read_model_facts
from errata.labels import LabelRules
from errata.models import Save, device
from errata.pretrained import find_model
from errata.runs import write_json
from errata.training import OfflineConfig, OfflineMethod, Watch, run_offline
from errata.tuning import method_of
from errata.workflows.edit_points import choices_at, figures_of
from errata.workflows.learning.context import STEPS, Run, edited, passes_of
from errata.workflows.learning.settings import NotSafe

_SURE = 1e-5
FEW_STEPS = 10


def ask_doctor(run: Run, path: Path) -> None:
    """What the losses will really see."""
    bad = [json.loads(line) for _, line in read_lines(run.out / "log" / "bad_rows.jsonl")]
    found = examine(
        tqdm(run.trained, desc="doctor", unit=" rows", leave=False, delay=2, disable=None),
        run.encoder,
        method=run.arms[0],
        rules=LabelRules(inventions=run.details.inventions),
        config=_config(run, method_of(run.arms[0])),
        model=read_model_facts(run.model),
        unreadable=[(row["line"], row["error"]) for row in bad],
    )
    if not found.safe:
        raise NotSafe(found)
    write_json(path, found.as_dict())


def train(run: Run, path: Path) -> None:
    """One candidate: the checkpoint that would miss the fewest words of the rows that choose."""
    method, rows, counts = method_of(path.name), run.trained, LengthCounts()
    weights = {row.id: run.details.accepted_weight for row in rows if not edited(row)}
    if method.reads == "pairs" and weights:
        run.say(f"{len(weights):,} drafts that were sent without a change are no pairs; {method.name} leaves them out")
        rows, weights = [row for row in rows if edited(row)], {}
    config, watch = _config(run, method), _watch(run)
    _tell_steps(run, config, len(rows))
    source = method.source(rows, run.encoder, LabelRules(inventions=run.details.inventions), counts)
    run_offline(method, run.model, source, run.encoder, config, path, row_weights=weights, counts=counts, watch=watch)


def _watch(run: Run) -> Watch:
    """Looks at the rows that choose: words that people changed and the model would not, and the other way round."""
    points = run.points("selection")
    if not points:
        return Watch(step=run.progress)

    def figures(model: Any) -> Mapping[str, float]:
        bf16 = run.details.bf16 or run.details.dtype == "bfloat16"
        with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
            found = figures_of(choices_at(model, points, run.encoder))
        # Of equals the surer one.
        sure = _SURE * max(-1.0, min(found.margin or 0.0, 100.0))
        return {"missed": found.missed, "otherwise": found.otherwise, "loss": found.wrong - sure}

    rows = [(one.id, one.encoded.ids, one.edits, one.kept) for one in points]
    return Watch(figures=figures, identity=("words wrong along what was sent", rows), step=run.progress)


def _tell_steps(run: Run, config: OfflineConfig, rows: int) -> None:
    """How long it will be, and a warning where it is so short that little can be learned."""
    steps = math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    looks = f"; the best of {math.ceil(steps / config.evaluate_every)} checkpoints is kept" if config.patience else ""
    run.say(f"{rows:,} rows, {config.batch_size} in a step, {config.epochs:g} passes: {steps:,} optimizer steps{looks}")
    if steps < FEW_STEPS:
        run.say(
            f"warning: only {steps} optimizer steps, in which little is learned; give --epochs "
            f"{math.ceil(config.epochs * STEPS / steps)}, or leave --epochs and --batch-size out"
        )


def _config(run: Run, method: OfflineMethod[Any]) -> OfflineConfig:
    """What all methods have in common, and what ``LearnDetails`` or the method itself says of its own settings."""
    found, details = find_model(run.model), run.details
    epochs = passes_of(len(run.trained), run.batch_size, run.config.epochs)
    steps = math.ceil(epochs * math.ceil(len(run.trained) / run.batch_size))
    chooses = bool(run.points("selection"))
    save: Save = "adapter" if found.quantization else "both"
    config: OfflineConfig = method.config(
        **{**method.learn, **{name: getattr(details, name) for name in method.own_settings if hasattr(details, name)}},
        learning_rate=run.config.learning_rate,
        epochs=epochs,
        batch_size=run.batch_size,
        micro_batch_size=details.micro_batch_size,
        # A dozen looks; the best of them is saved, and none ends the training.
        evaluate_every=math.ceil(steps / 12) if chooses else 0,
        patience=1000 if chooses else 0,
        dtype="bfloat16" if details.bf16 else details.dtype,
        attention=details.attention,
        lora_targets=details.lora_targets,
        lora_layers=details.lora_layers,
        # Of an adapter the training goes on with that, of its own rank.
        lora_rank=0 if found.base else details.lora_rank,
        # Into quantized weights none can be merged.
        save=save if details.save == "auto" else details.save,
        quantize=details.quantize,
        gradient_checkpointing=details.gradient_checkpointing,
        seed=details.seed,
    )
    return config
