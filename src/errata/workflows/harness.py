"""Forgetting on public tasks, by EleutherAI's lm-evaluation-harness: an extra, ``pip install 'errata[lm-eval]'``.

Beside ``text_loss``, which needs a text file and nothing else: a loss tells that something moved, tasks tell what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errata.models import device
from errata.pretrained import find_model

__all__ = ["TaskScore", "forgotten", "task_scores"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """One figure of one task."""

    value: float
    stderr: float | None
    """Standard error; None where the harness gives none."""
    higher_is_better: bool
    rows: int
    """Questions that were asked."""


def task_scores(
    model: Path,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    include: Path | None = None,
    chat_template: bool = False,
) -> dict[str, TaskScore]:
    """A model's figures on tasks of the harness, by ``task figure`` such as ``arc_easy acc``.

    Args:
        model: a model folder, as every verb of errata writes them.
        tasks: names of the harness (``lm-eval ls tasks``) or of ``include``; most fetch their data from the network.
        limit: only so many questions of each; for a look, not for a claim.
        batch_size: questions at a time.
        include: a folder of task files of your own.
        chat_template: whether questions are put in the model's chat template.

    Raises:
        ValueError: the harness is not installed, or does not know a task.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ValueError("tasks need the lm-evaluation-harness: pip install 'errata[lm-eval]'") from error
    found = find_model(model, weights=True)
    manager = TaskManager(include_path=None if include is None else str(include))
    if unknown := [task for task in tasks if not manager.match_tasks([task])]:
        raise ValueError(f"the harness knows no task {unknown[0]!r}; `lm-eval ls tasks` names them")
    peft = {"peft": str(found.path)} if found.base is not None else {}
    results = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(found.whole.path), "dtype": "auto", **peft},
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        batch_size=batch_size,
        device=str(device()),
        apply_chat_template=chat_template,
        bootstrap_iters=1000,
        log_samples=False,
    )
    assert results is not None, "only other processes than the first get nothing"
    return dict(_scores(results))


def forgotten(before: Mapping[str, TaskScore], after: Mapping[str, TaskScore]) -> dict[str, float]:
    """By how much each figure is worse after than before, above 0 where something was forgotten, in its own unit.

    >>> before, after = ({"t acc": TaskScore(value=v, stderr=0.1, higher_is_better=True, rows=9)} for v in (0.75, 0.5))
    >>> forgotten(before, after)
    {'t acc': 0.25}
    """
    return {
        name: (score.value - after[name].value) * (1 if score.higher_is_better else -1)
        for name, score in before.items()
        if name in after
    }


def _scores(found: Any) -> Iterator[tuple[str, TaskScore]]:
    """The harness names a figure ``acc,none`` (figure, filter) and its error ``acc_stderr,none``."""
    for task, figures in found["results"].items():
        for key, value in figures.items():
            name, _, filtered = key.partition(",")
            if not filtered or name.endswith("_stderr"):
                continue
            stderr = figures.get(f"{name}_stderr,{filtered}")
            yield (
                f"{task} {name}" + ("" if filtered == "none" else f" ({filtered})"),
                TaskScore(
                    value=float(value),
                    stderr=float(stderr) if isinstance(stderr, int | float) else None,
                    higher_is_better=bool(found["higher_is_better"][task].get(name, True)),
                    rows=int(found["n-samples"][task]["effective"]),
                ),
            )
