"""One offline training loop for every loss: the Hugging Face Trainer, normalised over the whole optimizer step.

A loss here is a sum and a count. The count of a step may be known only after its last micro-batch (FIGA's gate), so
each micro-batch sends its *sum* backward, the counts are added over micro-batches and processes, and the gradients are
scaled by one over the total before clipping. One process or several, one micro-batch or many: the same gradient.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
from accelerate.state import PartialState
from accelerate.utils.operations import send_to_device
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from errata.models.adapters import Quantize, add_adapter, has_adapter, load_quantized, merged
from errata.models.card import model_card
from errata.models.load import device, load_causal, read_card, save_model
from errata.models.watch import Metrics, best_step, evaluations, warnings_of
from errata.ranges import Range, Ranged, Rank, Seed, Size

if TYPE_CHECKING:
    from errata.models.trainer import StepTrainer

__all__ = [
    "OfflineConfig",
    "Share",
    "StepLoss",
    "Tracker",
    "check_tracker",
    "evaluation_of",
    "fingerprint_of",
    "fit",
    "is_finished",
    "load_policy",
    "loss_shares",
    "with_adapter",
]


Tracker = Literal["none", "tensorboard", "wandb", "trackio", "mlflow"]


class StepLoss(NamedTuple):
    """What a loss says of a micro-batch; all of it is summed over the micro-batches and processes of a step."""

    total: Tensor
    """The unnormalised loss, a scalar."""
    count: Tensor  # type: ignore[assignment]  # which tuples also have as a method
    """The number of items that it sums over."""
    shares: Mapping[str, tuple[Tensor, Tensor]] = {}
    """Numerators and denominators of shares to be shown beside the loss, by name."""


@dataclass(frozen=True, kw_only=True)
class OfflineConfig(Ranged):
    """What all training on files has in common."""

    learning_rate: Annotated[float, Range(above=0)] = 1e-5
    """Peak learning rate of AdamW."""
    epochs: Annotated[float, Range(above=0, high=1e6)] = 3.0
    """Passes over the rows."""
    batch_size: Size = 64
    """Rows in one optimizer step, over all processes."""
    micro_batch_size: Size = 64
    """Rows in one forward pass on one process; lower it when memory runs out, the result stays the same."""
    schedule: str = "constant"
    """Learning-rate schedule, by its Hugging Face name: constant, linear, cosine, …"""
    warmup_steps: Annotated[int, Range(low=0)] = 0
    """Steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Range(low=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, Range(low=0, high=inf)] = 1.0
    """Gradients are clipped to this norm after normalisation; 0 clips nothing."""
    bf16: bool = False
    """Compute in bfloat16."""
    layout: Literal["auto", "plain"] = "auto"
    """auto: compute what the two sides of a pair share once, and nothing that no loss reads, where the model gives the
    same numbers so (it is tried out; the card says). plain: each side a row of its own."""
    lora_rank: Rank = 0
    """Train an adapter of this rank on all linear layers (LoRA); 0 trains all weights."""
    lora_alpha: Size | None = None
    """Scale of the adapter: it is added times alpha/rank. Twice the rank, if not given."""
    quantize: Quantize = "none"
    """Hold the frozen weights in 4 bits (QLoRA); needs --lora-rank, and bitsandbytes."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    save_every: Size = 200
    """Steps between checkpoints; a run that was killed goes on from the last complete one."""
    evaluate_every: Annotated[int, Range(low=0)] = 0
    """Steps between evaluations on held-out rows, which are also seen at the start and at the end; 0: only then."""
    patience: Annotated[int, Range(low=0)] = 0
    """Stop after so many evaluations in a row without a new lowest held-out loss (of reward models: highest held-out
    accuracy), and save the model that had the best; 0 never stops, and saves the last."""
    stop_when_kept_falls: Annotated[float, Range(low=0)] | None = None
    """Stop when kept tokens of held-out rows are less likely than at the start by more than this, nats a token."""
    tracker: Tracker = "none"
    """Where metrics are also sent; metrics.jsonl is written anyway."""
    seed: Seed = 0
    """Seeds the order of the rows and new heads."""


def load_policy(folder: Path | str, config: OfflineConfig) -> Any:
    """The causal language model in ``folder``, to be trained as ``config`` says: all of it, or frozen with an adapter.

    Raises:
        ValueError: there is none, or the settings do not go together.
    """
    if config.quantize != "none" and not config.lora_rank:
        raise ValueError(f"weights in {config.quantize} stay as they are; give --lora-rank to train an adapter on them")
    return with_adapter(load_quantized(folder) if config.quantize != "none" else load_causal(folder), config)


def with_adapter(model: Any, config: OfflineConfig) -> Any:
    """``model`` as ``config`` wants it trained: as it is, or in place frozen with an adapter.

    Raises:
        ValueError: as ``add_adapter``.
    """
    if not config.lora_rank:
        return model
    return add_adapter(model, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)


Share = tuple[str, Tensor, Tensor]
"""Of a mean: its name, the sum, and the number of items."""


def loss_shares(
    model: Any,
    rows: Sequence[Any],
    collate: Callable[[list[Any]], Any],
    loss: Callable[[Any, Any], StepLoss],
    config: OfflineConfig,
) -> Iterator[Share]:
    """What a loss says of ``rows``, micro-batch by micro-batch: itself as ``loss``, and its shares."""
    for first in range(0, len(rows), config.micro_batch_size):
        inputs = collate(list(rows[first : first + config.micro_batch_size]))
        total, count, shares = StepLoss(*loss(model, send_to_device(inputs, device())))
        yield "loss", total, count
        for name, (over, under) in shares.items():
            yield name, over, under


def evaluation_of(
    shares: Callable[[Any], Iterable[Share]], config: OfflineConfig
) -> Callable[[Any], Mapping[str, float]]:
    """What ``fit`` calls: a model to Σ/N of all ``shares`` of a name; a name without items is left out."""

    def evaluate(model: Any) -> Mapping[str, float]:
        totals: dict[str, tuple[float, float]] = {}
        training = model.training
        model.eval()
        with torch.no_grad(), torch.autocast(device().type, torch.bfloat16, enabled=config.bf16):
            for name, over, under in shares(model):
                before = totals.get(name, (0.0, 0.0))
                totals[name] = before[0] + float(over), before[1] + float(under)
        model.train(training)
        return {name: over / under for name, (over, under) in totals.items() if under}

    return evaluate


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
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    load: Callable[[Path | str], nn.Module] = load_causal,
    length: Callable[[Any], int] | None = None,
) -> dict[str, Any]:
    """Train ``model`` on ``rows`` and write it to ``out``; a killed run goes on from its last complete checkpoint.

    Args:
        model: any Hugging Face model.
        rows: what ``collate`` makes batches of; all of them have a gradient.
        collate: rows to the batch that ``loss`` takes (a mapping of tensors).
        loss: model and batch to (sum, count), or with shares to show.
        config: the common settings.
        tokenizer: saved beside the model.
        out: a folder; it appears in one step when training has ended.
        card: noted in ``out/errata.json`` with the final loss; must hold the run's ``fingerprint``.
        evaluate: what the model does on held-out rows, by name; ``loss`` is the one to be low, and the fall of
            ``logprob_kept`` is warned of; with ``accuracy``, that is to be high. Every process calls it and evaluates
            all of them.
        load: makes the start model again, to merge an adapter into.
        length: of a row in tokens: the micro-batches of a step then hold rows of about the same length.

    Returns:
        The card as written, with ``warnings`` in words where there are any. Beside it lie ``metrics.jsonl`` (a line a
        step and an evaluation), ``README.md`` (a model card), and for LoRA ``adapter/``.

    Raises:
        ValueError: the batch does not divide over the processes; no row; no item was ever counted; the settings need
            held-out rows and there are none; the tracker is not installed; or a loss, a gradient, a weight or a
            held-out figure is no finite number any more (it names the step; nothing is written to ``out``, and the
            checkpoints before it stay).
    """
    # These take seconds to import, and most commands never train.
    from transformers import set_seed

    from errata.models.trainer import Passes, Steps, StepTrainer, arguments_of

    _check(config, evaluate is not None)
    if not rows:
        raise ValueError("no row is left to train on; every row was excluded, see the counts above")
    work = out.with_name(f".{out.name}.training")
    arguments = arguments_of(config, work)
    per_pass = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    if per_pass != config.batch_size:
        raise ValueError(
            f"batch size {config.batch_size} does not divide into {arguments.world_size} process(es) of whole "
            f"micro-batches of {arguments.per_device_train_batch_size}; choose multiples"
        )
    set_seed(config.seed)
    callback = Steps()
    # One process needs no filling; its last micro-batch may be short.
    share = arguments.per_device_train_batch_size * arguments.world_size if arguments.world_size > 1 else 1
    group = config.batch_size if arguments.gradient_accumulation_steps > 1 else 0
    passes = Passes(rows, share=share, seed=config.seed, group=group, length=length)
    with PartialState().main_process_first():
        checkpoint = _last_complete(work, str(card["fingerprint"]))
        metrics = Metrics(work / "metrics.jsonl", last_step=_step_of(checkpoint), writes=PartialState().is_main_process)
    trainer = StepTrainer(
        model=model,
        args=arguments,
        train_dataset=passes,
        data_collator=partial(passes.collate, collate=collate),
        loss=loss,
        evaluate=evaluate,
        config=config,
        metrics=metrics,
        callbacks=[callback],
    )
    callback.trainer = trainer
    if checkpoint is not None:
        noted = json.loads((Path(checkpoint) / "complete").read_text())
        trainer.empty_steps, trainer.last = noted["empty_steps"], noted["last"]
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.empty_steps == trainer.state.global_step and trainer.state.global_step:
        raise ValueError("no token was counted in any step; the loss saw nothing to learn from")
    if evaluate is None:
        trainer.check_result(collate(list(rows[: arguments.per_device_train_batch_size])))
    written = {**card, "steps": trainer.state.global_step, "empty_steps": trainer.empty_steps, **trainer.last}
    written |= _choose(trainer, work)
    _save(trainer, tokenizer, out, work, written, load)
    return written


def _check(config: OfflineConfig, has_heldout: bool) -> None:
    looks = config.patience or config.stop_when_kept_falls is not None
    if not has_heldout and (looks or config.evaluate_every):
        raise ValueError(
            "--evaluate-every, --patience and --stop-when-kept-falls look at held-out rows; give --heldout where a "
            "policy is tuned, or leave them out"
        )
    if looks and not config.evaluate_every:
        raise ValueError("--patience and --stop-when-kept-falls look at evaluations; give --evaluate-every")
    check_tracker(config.tracker)


def check_tracker(tracker: Tracker) -> None:
    """Raise ValueError where metrics are to be sent to what is not installed."""
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise ValueError(f"--tracker {tracker} is not installed; pip install {tracker}, or leave it out")


def _choose(trainer: StepTrainer, work: Path) -> dict[str, Any]:
    """Go back to the best step where that was asked for; what was found there, and what to warn of."""
    lines, step = trainer.metrics.lines, trainer.state.global_step
    noted: dict[str, Any] = {}
    best = best_step(lines)
    if trainer.config.patience and best is not None:
        noted["best_step"] = best
        if best != step:
            trainer._load_from_checkpoint(str(work / f"checkpoint-{best}"))
            step = best
    noted |= next((line for line in evaluations(lines) if line["step"] == step), {})
    noted.pop("step", None)
    reason = trainer.stop_reason()
    told = [*([reason] if reason else []), *warnings_of(lines)]
    trainer.tell(told)
    return {**noted, **({"warnings": told} if told else {})}


def _save(
    trainer: StepTrainer,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    work: Path,
    card: Mapping[str, Any],
    load: Callable[[Path | str], nn.Module],
) -> None:
    trainer.accelerator.wait_for_everyone()
    # Shards come together in all processes.
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        trained, folders = trainer.accelerator.unwrap_model(trainer.model), {}
        start = trained.name_or_path
        if has_adapter(trained):
            trained.save_pretrained(work / "adapter", state_dict=weights)
            trained, weights, folders = merged(start, work / "adapter", load), None, {"adapter": work / "adapter"}
        if (work / "runs").exists():
            folders["runs"] = work / "runs"  # of TensorBoard
        lines = trainer.metrics.lines
        readme = model_card(card, dataclasses.asdict(trainer.config), lines, trained)
        files = {"README.md": readme, "metrics.jsonl": trainer.metrics.text()}
        save_model(trained, tokenizer, out, card=card, files=files, folders=folders, state_dict=weights)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _last_complete(work: Path, fingerprint: str) -> str | None:
    mark = work / "fingerprint"
    if not mark.exists() or mark.read_text() != fingerprint:
        # Checkpoints of other settings must not leak into this run.
        if mark.exists():
            words = f"{work} holds a run with other settings or data that did not end; this one starts anew"
            tqdm.write(words, file=sys.stderr)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        mark.write_text(fingerprint)
        return None
    complete = [folder for folder in work.glob("checkpoint-*") if (folder / "complete").exists()]
    for folder in set(work.glob("checkpoint-*")) - set(complete):
        shutil.rmtree(folder)
    return str(max(complete, key=lambda folder: _step_of(folder.name))) if complete else None


def _step_of(checkpoint: str | None) -> int:
    return -1 if checkpoint is None else int(checkpoint.rsplit("-", 1)[1])
