"""One offline training loop for every loss: the Hugging Face Trainer, normalised over the whole optimizer step.

A loss here is a sum and a count. The count of a step may be known only after its last micro-batch (FIGA's gate), so
each micro-batch sends its *sum* backward, the counts are added over micro-batches and processes, and the gradients are
scaled by one over the total before clipping. One process or several, one micro-batch or many: the same gradient.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from errata.data.files import new_file
from errata.models.load import read_card, save_model

__all__ = ["OfflineConfig", "StepLoss", "fingerprint_of", "fit", "is_finished"]

StepLoss = tuple[Tensor, Tensor]
"""The unnormalised loss of a micro-batch and the number of items it sums over, both scalars."""


@dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """What all training on files has in common."""

    learning_rate: float = 1e-5
    """Peak learning rate of AdamW."""
    epochs: float = 3.0
    """Passes over the rows."""
    batch_size: int = 64
    """Rows in one optimizer step, over all processes."""
    micro_batch_size: int = 64
    """Rows in one forward pass on one process; lower it when memory runs out, the result stays the same."""
    schedule: str = "constant"
    """Learning-rate schedule, by its Hugging Face name: constant, linear, cosine, …"""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm after normalisation; 0 clips nothing."""
    bf16: bool = False
    """Compute in bfloat16."""
    layout: Literal["auto", "plain"] = "auto"
    """auto: compute what the two sides of a pair share once, and nothing that no loss reads, where the model gives the
    same numbers so (it is tried out; the card says). plain: each side a row of its own."""
    save_every: int = 200
    """Steps between checkpoints; a run that was killed goes on from the last complete one."""
    seed: int = 0
    """Seeds the order of the rows and new heads."""


def fingerprint_of(*parts: Any) -> str:
    """16 hex digits over settings and data: a finished folder is reused only for the run that made it."""
    digest = hashlib.sha256()
    for part in parts:
        value = dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else part
        digest.update(json.dumps(value, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def is_finished(out: Path, fingerprint: str) -> bool:
    """Whether ``out`` holds the result of this very run.

    Raises:
        ValueError: ``out`` holds something else; errata overwrites no result that it was not asked to make again.
    """
    if not out.exists():
        return False
    if read_card(out).get("fingerprint") == fingerprint:
        return True
    raise ValueError(f"{out} exists and was made by another run or other settings; delete it or name another --out")


class _Passes(Dataset[Any]):
    """The rows in a seeded order, another one in each pass, and None after them until every share is whole.

    accelerate repeats rows to give all processes whole micro-batches, and these would count twice.
    """

    def __init__(self, rows: Sequence[Any], *, share: int, seed: int) -> None:
        self.rows, self.share, self.seed = rows, share, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        # Called by the Trainer, also for the pass in which a resumed run goes on.
        self.order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.share) * self.share

    def __getitem__(self, place: int) -> Any:
        return self.rows[self.order[place]] if place < len(self.order) else None

    def collate(self, rows: Sequence[Any], collate: Callable[[list[Any]], Any]) -> dict[str, Any]:
        real = [row for row in rows if row is not None]
        # Where there is none, any row keeps the process in step with the others, and counts nothing.
        return {"inputs": collate(real or [self.rows[0]]), "counts": bool(real)}


class _StepTrainer(Trainer):
    """The Trainer with a loss that is a sum and a count."""

    def __init__(self, *, loss: Callable[[Any, Any], StepLoss], max_grad_norm: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = loss
        self.max_grad_norm = max_grad_norm
        self.step_sum: Tensor | float = 0.0
        self.step_count: Tensor | float = 0.0
        self.empty_steps = 0
        self.last: dict[str, float] = {}

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        del num_items_in_batch  # The Trainer counts labels; the count that matters comes from the loss.
        model.train()
        with self.compute_loss_context_manager():
            total, count = self.loss(model, inputs["inputs"])
            if not inputs["counts"]:
                total, count = total * 0, count * 0
        self.accelerator.backward(total * self.accelerator.gradient_accumulation_steps)
        self.step_sum = self.step_sum + total.detach()
        self.step_count = self.step_count + count.detach()
        return total.detach()

    def normalise_gradients(self) -> None:
        """Scale the summed gradients by 1 / N of the whole step, then clip."""
        both = torch.stack([torch.as_tensor(self.step_sum), torch.as_tensor(self.step_count).float()])
        total, count = self.accelerator.reduce(both, reduction="sum").tolist()
        self.step_sum = self.step_count = 0.0
        self.empty_steps += count == 0
        # DDP and FSDP average over processes what we want summed.
        scale = self.accelerator.num_processes / count if count else 0.0
        assert self.model is not None
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(scale)
        norm = self.accelerator.clip_grad_norm_(parameters, self.max_grad_norm or float("inf"))
        self.last = {"loss": total / count if count else 0.0, "count": count, "grad_norm": float(norm)}

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        del train_dataset
        assert isinstance(self.train_dataset, _Passes)  # which has an order of its own
        return SequentialSampler(self.train_dataset)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, **({key: self.last[key] for key in self.last} if "loss" in logs else {})}, start_time)


class _Normalise(TrainerCallback):
    def __init__(self) -> None:
        self.trainer: _StepTrainer | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        self.trainer.normalise_gradients()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Written last: a checkpoint without it was cut off while it was written.
        if state.is_world_process_zero:
            assert self.trainer is not None
            noted = {"empty_steps": self.trainer.empty_steps, "last": self.trainer.last}
            with new_file(Path(args.output_dir) / f"checkpoint-{state.global_step}" / "complete") as file:
                file.write_text(json.dumps(noted))


def fit(
    model: Any,
    rows: Sequence[Any],
    *,
    collate: Callable[[list[Any]], Any],
    loss: Callable[[Any, Any], StepLoss],
    config: OfflineConfig,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    card: Mapping[str, Any],
) -> dict[str, Any]:
    """Train ``model`` on ``rows`` and write it to ``out``; a killed run goes on from its last complete checkpoint.

    Args:
        model: any Hugging Face model.
        rows: what ``collate`` makes batches of; all of them have a gradient.
        collate: rows to the batch that ``loss`` takes (a mapping of tensors).
        loss: model and batch to (sum, count).
        config: the common settings.
        tokenizer: saved beside the model.
        out: a folder; it appears in one step when training has ended.
        card: noted in ``out/errata.json`` with the final loss; must hold the run's ``fingerprint``.

    Returns:
        The card as written.

    Raises:
        ValueError: the batch does not divide over the processes; no row; or no item was ever counted.
    """
    if not rows:
        raise ValueError("no row is left to train on; every row was excluded, see the counts above")
    work = out.with_name(f".{out.name}.training")
    arguments = _arguments(config, work)
    per_pass = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    if per_pass != config.batch_size:
        raise ValueError(
            f"batch size {config.batch_size} does not divide into {arguments.world_size} process(es) of whole "
            f"micro-batches of {arguments.per_device_train_batch_size}; choose multiples"
        )
    set_seed(config.seed)
    callback = _Normalise()
    # One process needs no filling; its last micro-batch may be short.
    share = arguments.per_device_train_batch_size * arguments.world_size if arguments.world_size > 1 else 1
    passes = _Passes(rows, share=share, seed=config.seed)
    trainer = _StepTrainer(
        model=model,
        args=arguments,
        train_dataset=passes,
        data_collator=partial(passes.collate, collate=collate),
        loss=loss,
        max_grad_norm=config.max_grad_norm,
        callbacks=[callback],
    )
    callback.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    with trainer.accelerator.main_process_first():
        checkpoint = _last_complete(work, str(card["fingerprint"]))
    if checkpoint is not None:
        noted = json.loads((Path(checkpoint) / "complete").read_text())
        trainer.empty_steps, trainer.last = noted["empty_steps"], noted["last"]
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.empty_steps == trainer.state.global_step and trainer.state.global_step:
        raise ValueError("no token was counted in any step; the loss saw nothing to learn from")
    written = {**card, "steps": trainer.state.global_step, "empty_steps": trainer.empty_steps, **trainer.last}
    if trainer.accelerator.num_processes > 1:
        trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        save_model(trainer.accelerator.unwrap_model(trainer.model), tokenizer, out, card=written)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return written


def _arguments(config: OfflineConfig, work: Path) -> TrainingArguments:
    world = max(1, int(os.environ.get("WORLD_SIZE", "1")))
    micro = min(config.micro_batch_size, max(1, config.batch_size // world))
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=max(1, config.batch_size // (micro * world)),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        # Hugging Face's "constant" would ignore the warm-up without a word.
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=0.0,  # normalise_gradients clips, after scaling
        bf16=config.bf16,
        seed=config.seed,
        data_seed=config.seed,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        logging_steps=10,
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )


def _last_complete(work: Path, fingerprint: str) -> str | None:
    mark = work / "fingerprint"
    if not mark.exists() or mark.read_text() != fingerprint:
        # Checkpoints of other settings must not leak into this run.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        mark.write_text(fingerprint)
        return None
    complete = [folder for folder in work.glob("checkpoint-*") if (folder / "complete").exists()]
    for folder in set(work.glob("checkpoint-*")) - set(complete):
        shutil.rmtree(folder)
    return str(max(complete, key=lambda folder: int(folder.name.split("-")[1]))) if complete else None
