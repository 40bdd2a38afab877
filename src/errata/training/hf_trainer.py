"""transformers' Trainer for a loss that is a sum and a count: ``training`` imports it when it trains."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.operations import broadcast_object_list, send_to_device
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from errata.models.adapters import has_adapter, load_adapter
from errata.models.finite import check_finite, norm_of
from errata.models.load import device
from errata.runs import Metrics, new_file, seal
from errata.runs.disk import sync
from errata.training.config import OfflineConfig, StepLoss
from errata.training.watch import best_step, evaluations, stop_reason, warnings_of

__all__ = ["Passes", "StepTrainer", "Steps", "arguments_of"]


def _is_news(record: logging.LogRecord) -> bool:
    # Checkpoints of short runs are written within a second of each other; their numbers order them as well.
    return "mtime may not be reliable" not in record.getMessage()


logging.getLogger("transformers.trainer_utils").addFilter(_is_news)


class Passes(Dataset[Any]):
    """The rows in a seeded order, another one in each pass, and None after them until every share is whole.

    accelerate repeats rows to give all processes whole micro-batches, and these would count twice.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        *,
        share: int,
        seed: int,
        group: int = 0,
        length: Callable[[Any], int] | None = None,
        tokens: int = 0,
    ) -> None:
        # The rows of a step, so many, are sorted by length: micro-batches pad less, and the step learns the same.
        self.rows, self.share, self.seed, self.group, self.length = rows, share, seed, group, length
        self.tokens = tokens  # in one pass, if it is more than one row
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of a pass. The Trainer calls it, also for the pass in which a resumed run goes on."""
        self.order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
        if self.length is not None and self.group:
            length, starts = self.length, range(0, len(self.order), self.group)
            steps = [self.order[start : start + self.group] for start in starts]
            self.order = [k for step in steps for k in sorted(step, key=lambda k: length(self.rows[k]))]

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.share) * self.share

    def __getitem__(self, place: int) -> Any:
        return self.rows[self.order[place]] if place < len(self.order) else None

    def collate(self, rows: Sequence[Any], collate: Callable[[list[Any]], Any]) -> dict[str, Any]:
        """The parts of a batch of the rows that are there, and whether it counts."""
        real = [row for row in rows if row is not None]
        # Where there is none, any row keeps the process in step with the others, and counts nothing.
        return {"parts": [collate(part) for part in self.parts(real or [self.rows[0]])], "counts": bool(real)}

    def parts(self, rows: Sequence[Any]) -> list[list[Any]]:
        """The rows in order, so many at a time as have about the tokens of one pass."""
        if self.length is None or not self.tokens:
            return [list(rows)]
        found: list[list[Any]] = []
        room = 0
        for row in rows:
            room -= (size := self.length(row))
            if room < 0 or not found:
                found.append([])
                room = self.tokens - size
            found[-1].append(row)
        return found


class StepTrainer(Trainer):
    """The Trainer with a loss that is a sum and a count, and an evaluation that is a function."""

    def __init__(
        self,
        *,
        loss: Callable[[Any, Any], StepLoss],
        evaluate: Callable[[Any], Mapping[str, float]] | None,
        config: OfflineConfig,
        metrics: Metrics,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)
        self.loss, self.held_out, self.config, self.metrics = loss, evaluate, config, metrics
        self.step_sums: dict[str, Tensor | float] = {}
        self.empty_steps = 0
        self.last: dict[str, float] = {}
        self.told: set[str] = set()
        self.named = ""
        """What is trained, where several are told of in one run."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Send a micro-batch's sum backward; what divides it is known at the end of the step."""
        del num_items_in_batch  # The Trainer counts labels; the count that matters comes from the loss.
        model.train()
        counts = 1.0 if inputs["counts"] else 0.0
        return torch.stack([self._learn(model, part, counts) for part in inputs["parts"]]).sum()

    def _learn(self, model: Any, inputs: Any, counts: float) -> Tensor:
        with self.compute_loss_context_manager():
            total, count, shares = StepLoss(*self.loss(model, inputs))
        self.accelerator.backward(total * (counts * self.accelerator.gradient_accumulation_steps))
        parts = {"total": total, "count": count}
        for name, (over, under) in shares.items():
            parts |= {f"{name}/over": over, f"{name}/under": under}
        for name, part in parts.items():
            self.step_sums[name] = self.step_sums.get(name, 0.0) + part.detach().float() * counts
        return total.detach() * counts

    def normalise_gradients(self) -> None:
        """Scale the summed gradients by 1 / N of the whole step, then clip."""
        stacked = torch.stack([torch.as_tensor(part) for part in self.step_sums.values()])
        summed = self.accelerator.reduce(stacked, reduction="sum").tolist()
        sums = dict(zip(self.step_sums, summed, strict=True))
        self.step_sums = {}
        total, count = sums["total"], sums["count"]
        self.empty_steps += count == 0
        # DDP and FSDP average over processes what we want summed.
        scale = self.accelerator.num_processes / count if count else 0.0
        assert self.model is not None
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(scale)
        norm = self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm or float("inf"))
        self.last = {"loss": total / count if count else 0.0, "count": count, "grad_norm": float(norm)}
        for name in (key.removesuffix("/over") for key in sums if key.endswith("/over")):
            if under := sums[f"{name}/under"]:
                self.last[name] = sums[f"{name}/over"] / under
        self._insist(self.last, self.state.global_step + 1)
        self.rate = float(self._get_learning_rate())

    def _insist(self, numbers: Mapping[str, float], step: int) -> None:
        """Stop where a number is none. What was saved before stays, and a rerun comes to the same end."""
        remedy = f"lower --learning-rate, which is {self.config.rate:g}"
        trained = self.state.global_step > 0
        check_finite(numbers, step, self.accelerator.unwrap_model(self.model), remedy=remedy, trained=trained)

    def check_weights(self) -> None:
        """Insist that the step left weights that are numbers."""
        assert self.model is not None
        self._insist({"norm of the weights": norm_of(self.model)}, self.state.global_step)

    def check_result(self, batch: Any) -> None:
        """Insist that the model, as it will be saved, has a loss: no step came after the last one to show it."""
        with torch.no_grad(), self.compute_loss_context_manager():
            total, *_ = self.loss(self.model, send_to_device(batch, device()))
        self._insist({"loss after it": float(total)}, self.state.global_step)

    def note_step(self) -> None:
        """A line for the step that was made."""
        step = {"step": self.state.global_step, "epoch": float(self.state.epoch or 0.0)}
        self.metrics.add({**step, **self.last, "learning_rate": self.rate})

    def note_evaluation(self) -> None:
        """Look at the held-out rows, and write down what was found; all processes find the same."""
        if self.held_out is None or self._seen_at(self.state.global_step):
            return
        found = [{f"eval_{name}": value for name, value in self.held_out(self.model).items()}]
        # Their last bits may differ, and what follows from them must not.
        found = broadcast_object_list(found) if self.accelerator.num_processes > 1 else found
        self._insist(found[0], self.state.global_step)
        self.metrics.add({"step": self.state.global_step, **found[0]})
        if self.config.patience and self.state.global_step == best_step(self.metrics.lines):
            self.state.best_global_step = self.state.global_step  # its checkpoint outlives newer ones
        self.log(dict(found[0]))
        self.tell(warnings_of(self.metrics.lines))

    def _seen_at(self, step: int) -> bool:
        return any(line["step"] == step for line in evaluations(self.metrics.lines))

    def stop_reason(self) -> str | None:
        """Why training should end here."""
        config = self.config
        return stop_reason(self.metrics.lines, patience=config.patience, max_fall=config.stop_when_kept_falls)

    def tell(self, sentences: Sequence[str]) -> None:
        """Say once what was not said before."""
        for sentence in sentences:
            if sentence not in self.told and self.is_world_process_zero():
                tqdm.write(f"{self.named}: {sentence}" if self.named else sentence, file=sys.stderr)
            self.told.add(sentence)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        del train_dataset
        assert isinstance(self.train_dataset, Passes)  # which has an order of its own
        return SequentialSampler(self.train_dataset)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if has_adapter(self.model) and not self.is_fsdp_enabled:
            load_adapter(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Show the shares beside the loss."""
        super().log({**logs, **({key: self.last[key] for key in self.last} if "loss" in logs else {})}, start_time)


class Steps(TrainerCallback):
    """What happens around a step beside the Trainer's own; it comes after the Trainer's callbacks."""

    def __init__(self) -> None:
        self.trainer: StepTrainer | None = None
        self.told: Callable[[int, int], None] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the held-out rows before anything is learned."""
        assert self.trainer is not None
        self.trainer.note_evaluation()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Divide by what the step counted."""
        assert self.trainer is not None
        self.trainer.normalise_gradients()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the step; look at the held-out rows where it is time, and stop or save as they say."""
        assert self.trainer is not None
        self.trainer.check_weights()
        self.trainer.note_step()
        if self.told is not None and state.is_world_process_zero:
            self.told(state.global_step, state.max_steps)
        every = self.trainer.config.evaluate_every
        if every and state.global_step % every == 0:
            self.trainer.note_evaluation()
            if self.trainer.stop_reason() is not None:
                # A run that is killed before it has saved its model stops here again.
                control.should_training_stop, control.should_save = True, False
            elif self.trainer.config.patience and state.best_global_step == state.global_step:
                control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the held-out rows once more."""
        assert self.trainer is not None
        self.trainer.note_evaluation()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as complete."""
        # Written last: a checkpoint without it was cut off while it was written.
        if state.is_world_process_zero:
            assert self.trainer is not None
            noted: dict[str, Any] = {"empty_steps": self.trainer.empty_steps, "last": self.trainer.last}
            noted["metrics"] = self.trainer.metrics.mark()
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            sync(folder)
            with new_file(folder / "complete") as file:
                file.write_text(json.dumps(noted))
            seal(folder)


def arguments_of(config: OfflineConfig, work: Path) -> TrainingArguments:
    """What the Trainer calls our settings."""
    world = max(1, int(os.environ.get("WORLD_SIZE", "1")))
    micro = min(config.micro_batch_size, max(1, config.batch_size // world))
    # The older of the names of transformers 5 is deprecated in its newer versions.
    newer = hasattr(TrainingArguments, "activation_checkpointing")
    checkpointing = "activation_checkpointing" if newer else "gradient_checkpointing"
    recompute: dict[str, Any] = {checkpointing: True, f"{checkpointing}_kwargs": {"use_reentrant": False}}
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=max(1, config.batch_size // (micro * world)),
        learning_rate=config.rate,
        num_train_epochs=config.epochs,
        # Hugging Face's "constant" would ignore the warm-up without a word.
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=0.0,  # normalise_gradients clips, after scaling
        bf16=config.dtype == "bfloat16",
        use_cpu=device().type == "cpu",  # without it, bfloat16 asks for a GPU
        **(recompute if config.gradient_checkpointing else {}),
        seed=config.seed,
        data_seed=config.seed,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        logging_steps=10,
        report_to=[] if config.tracker == "none" else [config.tracker],
        run_name=work.name.removeprefix(".").removesuffix(".training"),
        remove_unused_columns=False,
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )
