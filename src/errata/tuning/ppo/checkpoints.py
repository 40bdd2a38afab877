"""Checkpoints, and what is written at the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils.operations import broadcast_object_list
from safetensors.torch import save_file
from torch import Tensor

from errata.models import (
    has_adapter,
    save_model,
)
from errata.models.load import read_tensors
from errata.runs import Metrics, RunFolder, check_sealed, new_folder, read_record, seal, write_json
from errata.training import written_adapter
from errata.tuning.ppo.shares import copy_into, load_optimizer, optimizer_tensors, trainable, whole_tensors
from errata.tuning.ppo.update import gather

if TYPE_CHECKING:
    from errata.tuning.ppo.run import Run

__all__ = ["finish", "resume", "save"]


def save(run: Run, work: Path, step: int, metrics: Metrics, samples: Metrics) -> None:
    """Write a checkpoint in one step: the main process does, once it has the others' shares."""
    files: dict[str, dict[str, Tensor]] = {}
    for name, model, optimizer in _learners(run):
        files |= {name: whole_tensors(trainable(model)), f"{name}_optimizer": optimizer_tensors(optimizer)}
    if not run.accelerator.is_main_process:
        return
    with new_folder(work / f"step-{step}") as partial:
        for name, tensors in files.items():
            save_file(tensors, partial / f"{name}.safetensors")
        write_json(partial / "marks.json", {"metrics": metrics.mark(), "samples": samples.mark()})
        seal(partial)
    # What came before is not needed now; it was until here, for a kill may come between any two lines.
    keep = {f"step-{step}", f"best-{run.best(metrics)}"}
    for folder in [*work.glob("step-*"), *work.glob("best-*")]:
        if folder.name not in keep:
            shutil.rmtree(folder)


def resume(run: Run, of: RunFolder) -> tuple[Metrics, Metrics]:
    """Go back to the last checkpoint of this very run; returns its metrics and samples, empty without one."""
    work = of.work
    if run.accelerator.is_main_process:
        of.begin()
    run.accelerator.wait_for_everyone()
    run.done = max((int(path.name.split("-")[1]) for path in work.glob("step-*")), default=-1)
    marks: dict[str, Any] = {}
    if run.done >= 0:
        folder = work / f"step-{run.done}"
        check_sealed(folder, f"delete {folder.parent}, and rerun the same command to start over")
        if (folder / "marks.json").exists():
            marks = read_record(folder / "marks.json", metrics=dict, samples=dict)
        for name, model, optimizer in _learners(run):
            copy_into(read_tensors(folder / f"{name}.safetensors"), trainable(model))
            load_optimizer(optimizer, read_tensors(folder / f"{name}_optimizer.safetensors"))
        gather(run)
    main = run.accelerator.is_main_process
    metrics, samples = (
        Metrics(work / f"{name}.jsonl", last_step=run.done, writes=main, mark=marks.get(name))
        for name in ("metrics", "samples")
    )
    for count in range(1, len(metrics.lines) + 1):
        run.warn(metrics.lines[:count])
    return metrics, samples


def finish(
    run: Run, work: Path, out: Path, card: Mapping[str, Any], metrics: Metrics, samples: Metrics
) -> dict[str, Any]:
    """Write the policy to ``out``, and the best one into it; returns the record as written."""
    written = dict(card)
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        tokenizer, folders = run.encoder.tokenizer, {}
        # Sampling stopped at these, so what was learned ends there, if any response did.
        ended = any(line.get("val/num_eos_tokens") for line in metrics.lines)
        more: Any = {"dtype": run.config.save_dtype, "ends": run.encoder.end_ids if ended else ()}
        best = run.best(metrics)
        if best is not None:
            last = {name: tensor.detach().clone() for name, tensor in trainable(run.policy).items()}
            check_sealed(work / f"best-{best}", f"delete {work}, and rerun the same command to start over")
            copy_into(read_tensors(work / f"best-{best}" / "policy.safetensors"), trainable(run.policy))
            folders["best"] = work / "best"
            kept, how, _ = _whole(run, work)
            save_model(kept, tokenizer, folders["best"], card=card, **how, **more)
            copy_into(last, trainable(run.policy))
        trained, how, adapter = _whole(run, work)
        folders |= {**adapter, **({"errata": work / "errata"} if (work / "errata").exists() else {})}
        files = {"metrics.jsonl": metrics.text(), "samples.jsonl": samples.text()}
        written = save_model(trained, tokenizer, out, card=card, files=files, folders=folders, **how, **more)
        shutil.rmtree(work, ignore_errors=True)
    for tracker in run.accelerator.trackers:  # end_training would end what joins the processes, too
        tracker.finish()
    run.accelerator.wait_for_everyone()
    return dict(broadcast_object_list([written])[0]) if run.accelerator.num_processes > 1 else written


def _learners(run: Run) -> list[tuple[str, Any, Any]]:
    return [
        ("policy", run.learner, run.policy_optimizer),
        ("critic", run.accelerator.unwrap_model(run.critic), run.critic_optimizer),
    ]


def _whole(run: Run, work: Path) -> tuple[Any, dict[str, Any], dict[str, Path]]:
    """The policy as it is written (``written_adapter``)."""
    if not has_adapter(run.policy):
        return run.policy, {}, {}
    return written_adapter(run.policy, work / "adapter", run.config)
