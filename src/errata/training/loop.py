"""One offline training loop for every loss: the Hugging Face Trainer, normalised over the whole optimizer step.

A loss here is a sum and a count. The count of a step may be known only after its last micro-batch (FIGA's gate), so
each micro-batch sends its *sum* backward, the counts are added over micro-batches and processes, and the gradients are
scaled by one over the total before clipping. One process or several, one micro-batch or many: the same gradient.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.state import PartialState
from accelerate.utils.operations import broadcast_object_list
from torch import nn
from transformers import PreTrainedTokenizerBase

from errata.models.adapters import has_adapter, merged, save_adapter
from errata.models.laid_out import keep_lower_layers
from errata.models.load import device, dtypes_in_words, load_causal, reference_of, save_model
from errata.models.settings import ModelConfig
from errata.runs import Metrics, RunFolder, check_sealed, read_record, writes_out
from errata.training.config import OfflineConfig, StepLoss, check_tracker
from errata.training.model_card import model_card
from errata.training.watch import best_step, evaluations, warnings_of

if TYPE_CHECKING:
    from errata.training.hf_trainer import StepTrainer

__all__ = ["fit", "written_adapter"]


_NUMBERS_AT_ONCE = 150_000_000  # in float32, with what else is kept of a token, 1 GB


@writes_out
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
    load: Callable[..., nn.Module] = load_causal,
    length: Callable[[Any], int] | None = None,
    ends: Sequence[int] = (),
    told: Callable[[int, int], None] | None = None,
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
        load: makes the start model again, with ``precision="master"``, to merge an adapter into.
        length: of a row in tokens: the micro-batches of a step then hold rows of about the same length, and are
            computed in parts where they have too many tokens.
        ends: ids that end a response and are trained to do so; the saved configurations stop at them, too.
        told: is told after each step which one it was, and of how many.

    Returns:
        The card as written, with ``trained_dtype`` and ``saved_dtype``, and ``warnings`` in words where there are any.
        Beside it lie ``metrics.jsonl`` (a line a
        step and an evaluation), ``README.md`` (a model card), and for LoRA ``adapter/``.

    Raises:
        ValueError: the batch does not divide over the processes; no row; no item was ever counted; the settings need
            held-out rows and there are none; the tracker is not installed; or a loss, a gradient, a weight or a
            held-out figure is no finite number any more (it names the step; nothing is written to ``out``, and the
            checkpoints before it stay).
    """
    # These take seconds to import, and most commands never train.
    from transformers import set_seed

    from errata.training.hf_trainer import Passes, Steps, StepTrainer, arguments_of

    _check(config, evaluate is not None)
    if not rows:
        raise ValueError("no row is left to train on; every row was excluded, see the counts above")
    run = RunFolder(out, str(card["fingerprint"]))
    work = run.work
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
    # Several processes go through the same number of passes.
    tokens = _tokens_at_once(model, config.micro_batch_tokens) if arguments.world_size == 1 else 0
    passes = Passes(rows, share=share, seed=config.seed, group=group, length=length, tokens=tokens)
    with PartialState().main_process_first():
        checkpoint = _last_complete(run)
        noted = {} if checkpoint is None else _noted(Path(checkpoint))
        metrics = Metrics(
            work / "metrics.jsonl",
            last_step=_step_of(checkpoint),
            writes=PartialState().is_main_process,
            mark=noted.get("metrics"),
        )
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
    callback.trainer, callback.told, trainer.named = trainer, told, str(card.get("stage", ""))
    if checkpoint is not None:
        trainer.empty_steps, trainer.last = noted["empty_steps"], noted["last"]
    with keep_lower_layers(model, work, config.lora_keep_gb * 1e9 if config.lora_layers else 0):
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.empty_steps == trainer.state.global_step and trainer.state.global_step:
        raise ValueError("no token was counted in any step; the loss saw nothing to learn from")
    if evaluate is None:
        trainer.check_result(collate(passes.parts(rows[: arguments.per_device_train_batch_size])[0]))
    written = {**card, "steps": trainer.state.global_step, "empty_steps": trainer.empty_steps, **trainer.last}
    written |= _choose(trainer, work)
    written["trained_dtype"] = dtypes_in_words({n: p for n, p in model.named_parameters() if p.requires_grad})
    if (origin := getattr(model, "origin", None)) is not None and origin.commit is not None:
        written["base_commit"] = origin.commit
    return _save(trainer, tokenizer, out, work, written, load, ends)


def _tokens_at_once(model: nn.Module, wanted: int | None) -> int:
    """As wanted, or by what the linear layers take in and give out of a token, which is most of what is kept of it."""
    if wanted is not None:
        return wanted
    if device().type != "cpu":
        return 0
    inner: Any = model
    ends = [end.weight for end in (inner.get_input_embeddings(), inner.get_output_embeddings()) if end is not None]
    layers = [p for name, p in model.named_parameters() if p.ndim == 2 and "lora_" not in name]
    if has_adapter(model):
        # Of layers below the adapter nothing is kept for the backward pass.
        layers = [p for name, p in model.named_parameters() if p.ndim == 2 and ".base_layer." in name]
    kept = sum(sum(p.shape) for p in layers if all(p is not end for end in ends))
    return max(1, _NUMBERS_AT_ONCE // max(kept, 1))


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
    load: Callable[..., nn.Module],
    ends: Sequence[int],
) -> dict[str, Any]:
    written = dict(card)
    trainer.accelerator.wait_for_everyone()
    # Shards come together in all processes.
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        trained, more, folders = trainer.accelerator.unwrap_model(trainer.model), dict[str, Any](), dict[str, Path]()
        if has_adapter(trained):
            trained, more, folders = written_adapter(
                trained, work / "adapter", trainer.config, load, weights, last=True
            )
            weights = None
        if (work / "runs").exists():
            folders["runs"] = work / "runs"  # of TensorBoard
        lines = trainer.metrics.lines
        readme = model_card(card, dataclasses.asdict(trainer.config), lines, trained)
        files = {"README.md": readme, "metrics.jsonl": trainer.metrics.text()}
        dtype = trainer.config.save_dtype
        more |= {"files": files, "folders": folders, "state_dict": weights, "dtype": dtype, "ends": ends}
        written = save_model(trained, tokenizer, out, card=card, **more)
        shutil.rmtree(work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    # What was saved is known where it was.
    return dict(broadcast_object_list([written])[0]) if trainer.accelerator.num_processes > 1 else written


def written_adapter(
    model: Any,
    folder: Path,
    config: ModelConfig,
    load: Callable[..., nn.Module] = load_causal,
    weights: Any = None,
    *,
    last: bool = False,
) -> tuple[Any, dict[str, Any], dict[str, Path]]:
    """Save a trained adapter to ``folder``: what ``save_model`` is given to write what ``config.save`` asks for.

    If it is the ``last`` use of ``model``, its weights are let go before its base is loaded again, and never are two
    of them in memory.

    Returns:
        The model, further arguments, and folders.
    """
    save_adapter(model, folder, state_dict=weights)
    if config.save == "adapter":
        return model, {"adapter": folder}, {}
    start = reference_of(model)
    if last and weights is None and getattr(model, "hf_quantizer", None) is None:
        model.to("meta")
    return merged(start, folder, load), {}, {"adapter": folder} if config.save == "both" else {}


def _last_complete(run: RunFolder) -> str | None:
    if not run.begin():
        return None
    complete = [folder for folder in run.work.glob("checkpoint-*") if (folder / "complete").exists()]
    for folder in set(run.work.glob("checkpoint-*")) - set(complete):
        shutil.rmtree(folder)
    return str(max(complete, key=lambda folder: _step_of(folder.name))) if complete else None


def _noted(checkpoint: Path) -> dict[str, Any]:
    """What was noted with a checkpoint that is whole.

    Raises:
        ValueError: it is not.
    """
    remedy = f"delete {checkpoint}, and rerun the same command to go on from what was saved before it"
    check_sealed(checkpoint, remedy)
    return read_record(checkpoint / "complete", empty_steps=int, last=dict)


def _step_of(checkpoint: str | None) -> int:
    return -1 if checkpoint is None else int(checkpoint.rsplit("-", 1)[1])
