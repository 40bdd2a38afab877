"""From a log of drafts and what people sent to a better model, or to a refusal in words: ``errata learn``.

Every stage writes its file or folder in one step and is reused when the run is started again. The pieces are functions
of their own (``split_rows``, ``mask_correction``, ``write_drafts``, ``compare``, ``decide``, …); here they are put
together.
"""

from __future__ import annotations

import math
import shutil
from functools import partial
from pathlib import Path
from typing import Unpack

from rich.console import Console

from errata.data import Reading
from errata.models import read_card
from errata.pretrained.bars import no_bars_in_files
from errata.runs import new_folder, write_json, writes_out
from errata.workflows.learned import Learned
from errata.workflows.learning.candidates import ask_doctor, train
from errata.workflows.learning.context import DECODINGS, Run
from errata.workflows.learning.drafting import draft, read_along, read_general, read_trained, score
from errata.workflows.learning.editing import check_editor, edited_by_editor, judged_by_judge
from errata.workflows.learning.findings import best, drafter, learned
from errata.workflows.learning.reading import read_log
from errata.workflows.learning.settings import LearnConfig, LearnDetails
from errata.workflows.learning.sides import split
from errata.workflows.verdict_words import percent


@writes_out
def learn(
    log: Path,
    model: Path,
    out: Path,
    config: LearnConfig | None = None,
    details: LearnDetails | None = None,
    *,
    general: Path | None = None,
    editor: str | None = None,
    command: str = "",
    console: Console | None = None,
    **how: Unpack[Reading],
) -> Learned:
    """Learn from a log of drafts and what people sent, and judge the result on rows that nothing was chosen by.

    Writes below ``out``: ``log/`` and ``split/`` (rows, masked), ``doctor.json``, ``candidates/``, ``selection/``,
    ``general/`` and ``heldout/`` (drafts and figures), ``summary.json``, ``report.html``; and, if the new model is
    promoted, ``model/``.
    A run that was stopped goes on to the same numbers.

    Args:
        log: a file of corrections in any of the formats of ``errata.data.FORMATS``.
        model: the causal language model to improve: a local folder, or a name of the Hugging Face Hub.
        out: the run's folder.
        config: what one decides.
        details: what seldom has to be decided.
        general: a plain text file on which the loss must not rise.
        editor: who corrects fresh drafts of both models, blind, and decides thereby: ``module:function`` or
            ``file.py:function`` (a prompt and a draft to the corrected text, or None), a chat model as ``open_chat``
            takes it, or ``people``, on the edit page.
        command: is named at the foot of the report.
        console: is told what is done.
        how: how the log is read, as of ``errata.data.iter_prompts``.

    Returns:
        All that was found; ``decision.promoted`` is the verdict.

    Raises:
        NotSafe: the doctor found errors.
        Waiting: people have to edit drafts first.
        ValueError: the log cannot be used or is too small; the folder holds a run with other settings, or a stage of it
            was damaged (the file is named); or another process runs in it.
    """
    config, details, console = config or LearnConfig(), details or LearnDetails(), console or Console()
    with no_bars_in_files():
        return _stages(Run(log, model, out, config, details, general, console, how, editor, command))


def _stages(run: Run) -> Learned:
    check_editor(run)
    _ = run.details.methods  # a name that is none is said before anything is written
    run.claim()
    run.made("log/counts.json", f"reading {run.log}", partial(read_log, run), "log/rows.jsonl", "log/bad_rows.jsonl")
    run.made("split", "setting rows apart", partial(split, run))
    run.made("doctor.json", "asking the doctor", partial(ask_doctor, run))
    run.made("heldout/old.greedy.jsonl", "the old model drafts the held-out rows, greedy", partial(draft, run))
    _warn(run)
    for arm in run.arms:
        run.made(f"candidates/{arm}", f"training {arm}", partial(train, run))
        if not math.isfinite(read_card(run.out / "candidates" / arm)["loss"]):
            raise ValueError(f"the loss of {arm} is no number any more; lower --learning-rate, in another --out")
    if run.counts("split")["selection"]:
        for name in ("old", *run.arms):
            run.made(f"selection/{name}.jsonl", f"{_who(name)} reads the rows that choose", partial(read_along, run))
    if run.general is not None:
        for name in ("old", *run.arms):
            run.made(f"general/{name}.json", f"{_who(name)} reads the general text", partial(read_general, run))
    arm = best(run)
    for name in ("old", arm):
        for decoding in DECODINGS:
            what = f"{_who(name)} drafts the held-out rows, {decoding}"
            run.made(f"heldout/{name}.{decoding}.jsonl", what, partial(draft, run))
        run.made(f"heldout/{name}.points.jsonl", f"{_who(name)} reads the held-out rows", partial(read_along, run))
        run.made(f"heldout/{name}.json", f"log-probabilities of the held-out rows, {_who(name)}", partial(score, run))
        if name == "old":
            run.made(
                "heldout/old.trained.jsonl", "the old model reads rows that are trained on", partial(read_trained, run)
            )
    found = learned(run, arm, edited_by_editor(run, arm), judged_by_judge(run, arm))
    write_json(run.out / "summary.json", found.as_dict())
    if found.decision.promoted:
        run.made("model", f"promoting {arm}", lambda path: _promote(run, arm, path))
    elif (run.out / "model").exists():
        run.say("a model was promoted before by other limits or another editor; it is no longer, and model/ is removed")
        run.folder.forget(run.out / "model")
        shutil.rmtree(run.out / "model")
    return found


def _who(name: str) -> str:
    return "the old model" if name == "old" else name


def _warn(run: Run) -> None:
    """Before hours of training: what the verdict will be refused for."""
    if any((run.out / "candidates" / arm).exists() for arm in run.arms):
        return
    found = drafter(run)
    rows = run.rows("heldout")
    fresh = run.drafts("old.greedy", [row.id for row in rows])
    ended = sum(one.ended for one in fresh) / len(fresh)
    if ended < run.details.min_ended:
        run.say(
            f"only {percent(ended)} of the old model's drafts come to an end within --max-new-tokens "
            f"{run.config.max_new_tokens}: whatever is trained will be refused; stop (Ctrl-C), and double it"
        )
    if not found.own and found.told == "auto":
        run.say(
            f"--model does not seem to have written the logged drafts: it writes {percent(found.again)} of them again; "
            "if it did, by sampling, say --drafted-by model"
        )


def _promote(run: Run, arm: str, path: Path) -> None:
    """The candidate becomes the model."""
    with new_folder(path) as folder:
        shutil.copytree(run.out / "candidates" / arm, folder, dirs_exist_ok=True)
