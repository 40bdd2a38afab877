"""The verb ``learn``: from a log to a better model, or to a refusal."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Positional

from errata.commands.hub import HubFlags
from errata.commands.shared import RESUMES, Source, console
from errata.doctor import diagnosis_to_terminal
from errata.runs import new_file
from errata.workflows import LearnConfig, LearnDetails, NotSafe, Waiting, learn, learned_html, learned_terminal

__all__ = ["Learn"]

UNSAFE, REFUSED, WAITING = 3, 4, 6


@dataclass(frozen=True, kw_only=True)
class Learn:
    """From a log of drafts and what people sent instead to a better model, or to a refusal in words.

    The log is read and masked, and rows are held out, of other users and later where that can be. FIGA and SFT train
    small adapters on the edits. The better one is promoted only if people would have less to change for certain, and
    nothing else breaks: along what was sent, does the model by itself write what people wrote, and leave what they
    left? Or, with --editor: what is still changed in fresh drafts? --out gets report.html, summary.json, all rows and
    drafts and, of a promoted model, model/, which plain transformers loads. Stop it at any moment; rerun the same
    command to resume.

    Exit code 0: promoted. 4: refused, and why is said. 3: not safe to train. 6: people have to edit drafts
    first. 1: the input is wrong. 2: the command is.
    """

    stopped = RESUMES
    codes = (UNSAFE, REFUSED, WAITING)
    shown = tuple(LearnConfig.__dataclass_fields__)

    log: Positional[Path]
    """Rows with prompt, draft and sent (CSV, JSONL, Parquet …, or another format that `errata edits import` knows);
    user and time, where there are columns of that name, keep the held-out rows apart."""
    model: Path
    """The causal language model that wrote the drafts, or one to start from: a local folder, a GGUF file, or owner/name
    or owner/name@revision of the Hugging Face Hub; or a folder of a LoRA adapter, with which training goes on."""
    out: Path
    """Folder of the run."""
    general: Path | None = None
    """A text file of general language: a model that has forgotten it is refused."""
    editor: str | None = None
    """Who corrects fresh drafts of both models, blind; what they still change decides. FILE.py:FUNCTION or
    MODULE:FUNCTION, a chat model (anthropic:MODEL, openai:MODEL, MODEL@URL, local:MODEL), or people, on the edit
    page."""
    source: Flat[Source] = Source()
    config: Flat[LearnConfig] = LearnConfig()
    details: Flat[LearnDetails] = LearnDetails()
    hub: Flat[HubFlags] = HubFlags()

    def run(self) -> int:
        self.hub.check()
        try:
            found = learn(
                self.log,
                self.model,
                self.out,
                self.config,
                self.details,
                general=self.general,
                editor=self.editor,
                command=shlex.join(["errata", *sys.argv[1:]]) if sys.argv[1:2] == ["learn"] else "",
                console=console,
                **self.source.how,
            )
        except NotSafe as error:
            console.print(diagnosis_to_terminal(error.diagnosis))
            return UNSAFE
        except Waiting as error:
            console.print(str(error), highlight=False, markup=False, soft_wrap=True)
            return WAITING
        page = self.out / "report.html"
        with new_file(page) as partial:
            partial.write_text(learned_html(found), encoding="utf-8")
        # A path or a command that is broken into lines cannot be typed as it stands.
        console.print(learned_terminal(found), crop=False)
        console.print(f"\nReport: {page}", highlight=False, markup=False, soft_wrap=True)
        if not found.decision.promoted:
            return REFUSED
        console.print(f"Model: {self.out / 'model'}", highlight=False, markup=False, soft_wrap=True)
        self.hub.push(self.out / "model")
        return 0
