"""What the stages of a run have in common: its folder, its rows, its models, and what it says."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from errata.data import Encoder, OnLong, Reading, read_corrections
from errata.data.encoding import load_encoder
from errata.data.hub import identity_of_data
from errata.data.rows import read_lines
from errata.doctor import read_model_facts
from errata.models import device, identity, load_causal
from errata.runs import SUMS, Damaged, StageFolder, changed_settings, claim_folder, digest, fingerprint_of, read_json
from errata.types import Correction, Rollout
from errata.winrate import Interval, mean_interval
from errata.workflows.edit_points import Points, edit_points
from errata.workflows.learning.progress import Progress
from errata.workflows.learning.settings import NO_SETTINGS, LearnConfig, LearnDetails
from errata.workflows.measure import WORD

DECODINGS = ("greedy", "sampled")
STEPS = 30
"""Optimizer steps that a run should have; an adapter has learned little before."""


class Run:
    """One run. Its stages are functions of the modules beside this one; each reads files that earlier ones wrote."""

    def __init__(
        self,
        log: Path,
        model: Path,
        out: Path,
        config: LearnConfig,
        details: LearnDetails,
        general: Path | None,
        console: Console,
        how: Reading,
        editor: str | None = None,
        command: str = "",
    ) -> None:
        self.how, self.command = how, command
        self.log, self.model, self.out, self.general, self.console = log, model, out, general, console
        self.config, self.details, self.editor = config, details, editor
        self._loaded: tuple[Path, Any] | None = None
        self.progress = Progress(console, "")
        self._points: dict[str, list[Points]] = {}

    def made(self, name: str, what: str, make: Callable[[Path], None], *also: str) -> None:
        """Make a file or folder, unless it is there as it was written."""

        def told(path: Path) -> None:
            self.console.print(f"· {what}", highlight=False, markup=False, soft_wrap=True)
            self.progress = Progress(self.console, what)
            make(path)
            self.progress.end()

        self.folder.make(self.out / name, told, [self.out / each for each in also])

    @cached_property
    def folder(self) -> StageFolder:
        """What the stages wrote."""
        return StageFolder(self.out)

    def claim(self) -> None:
        """Note what the run is of; a run of anything else must not go on from these stages.

        As long as nothing was trained, a run with other settings starts anew in the same folder.

        Raises:
            ValueError: the folder holds another run, or something else.
        """
        said = {**self.how, "form": form.title} if (form := self.how.get("form")) else self.how
        settings: dict[str, Any] = {
            "log": _digest(self.log),
            "model": identity(self.model),
            "general": None if self.general is None else _digest(self.general),
            **asdict(self.config),
            **{name: value for name, value in asdict(self.details).items() if name not in NO_SETTINGS},
            # What was not said is no setting, so that runs from before these arguments go on.
            **{f"read_{name}": value for name, value in said.items() if value not in (None, {}, "skip")},
        }
        settings = {"fingerprint": fingerprint_of(settings), **settings}
        changed = changed_settings(self.out, settings)
        if changed is None and self.out.exists() and any(self.out.iterdir()):
            raise ValueError(f"{self.out} is not empty and holds no run of this kind; give another --out")
        if changed and not self._has_trained():
            for stage in ("log", "split", "heldout", "candidates", "selection", "general"):
                shutil.rmtree(self.out / stage, ignore_errors=True)
            for name in ("doctor.json", SUMS, "settings.json"):
                (self.out / name).unlink(missing_ok=True)
        claim_folder(self.out, settings)

    def _has_trained(self) -> bool:
        """Whether there is a candidate, or a checkpoint of one."""
        found = self.out / "candidates"
        return any(not each.name.startswith(".") or any(each.glob("checkpoint-*")) for each in found.glob("*"))

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the methods: of both only the first where no rows are left to choose by."""
        asked = self.details.methods
        return asked if self.counts("split")["selection"] else asked[:1]

    @property
    def batch_size(self) -> int:
        """Rows in one optimizer step."""
        return batch_size_of(len(self.trained), self.details)

    @cached_property
    def trained(self) -> list[Correction]:
        """The rows to train on: the edited ones and, by option, those that were accepted."""
        return self.rows("train") + (self.rows("train_accepted") if self.details.accepted_weight > 0 else [])

    def points(self, side: str) -> list[Points]:
        """Where people changed the drafts of a side, and what they left; a row that cannot be encoded has none."""
        if side not in self._points:
            self._points[side] = self.points_of(self.rows(side))
        return self._points[side]

    def points_of(self, rows: Sequence[Correction]) -> list[Points]:
        """The same of some rows."""
        found = []
        for row in rows:
            with suppress(ValueError):  # such a row is too long; the report counts it
                found.append(edit_points(row, self.encoder))
        return found

    @cached_property
    def encoder(self) -> Encoder:
        """Text to ids; longer rows than the model can take are left out."""
        facts = read_model_facts(self.model)
        limit = self.details.max_length or facts.positions
        return load_encoder(
            self.model,
            template=self.details.template,
            max_length=limit,
            on_long=OnLong.ERROR if limit is None else OnLong(self.details.on_long),
        )

    def loaded(self, name: str) -> Any:
        """A model, the last one kept."""
        path = self.model if name == "old" else self.out / "candidates" / name
        if self._loaded is None or self._loaded[0] != path:
            self._loaded = None
            self._loaded = (path, load_causal(path).to(device()))
        return self._loaded[1]

    def say(self, line: str) -> None:
        """Tell something in full, however narrow the terminal."""
        self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)

    def users(self, rows: Sequence[Correction]) -> list[str | None] | None:
        """Who sent each row; None where the log does not say."""
        return [row.extra.get("user") for row in rows] if self.counts("log")["user_field"] else None

    def by_users(self, split_by: str | None = None) -> bool:
        """Whether users count once each, and not rows; ``split_by`` where the split is not yet written."""
        if self.details.judge_by == "auto":
            return "users" in (split_by or self.counts("split")["by"])
        return self.details.judge_by == "users"

    def whose(self, rows: Sequence[Correction]) -> dict[str, Any]:
        """What ``compare`` is given of who sent the rows."""
        return {"users": self.users(rows), "count_users": self.by_users()}

    def rows(self, side: str) -> list[Correction]:
        """Rows of the split; none where the file is empty."""
        path = self.out / "split" / f"{side}.jsonl"
        return read_corrections(path, empty_texts="keep") if path.stat().st_size else []

    def counts(self, stage: str) -> dict[str, Any]:
        """What a stage counted."""
        found: dict[str, Any] = read_json(self.out / stage / "counts.json")
        return found

    def drafts(self, name: str, ids: Sequence[str], *, folder: str = "heldout") -> list[Rollout]:
        """Drafts that were written for the rows named.

        Raises:
            Damaged: one is missing; of a run of before there were digests.
        """
        path, remedy = self.out / folder / f"{name}.jsonl", "delete it, and rerun the same command to make it again"
        try:
            by_id = {row["id"]: row for row in (json.loads(line) for _, line in read_lines(path))}
            missing = next((id for id in ids if id not in by_id), None)
        except ValueError as error:
            raise Damaged(f"{path}: {error}; {remedy}") from error
        if missing is not None:
            raise Damaged(
                f"{path} has no draft of row {missing!r}; delete it, and rerun the same command to make it again"
            )
        prompts = {row.id: row.prompt for side in ("heldout", "heldout_accepted") for row in self.rows(side)}
        return [
            Rollout(
                id=one["id"],
                prompt=prompts.get(one["id"], ""),
                prompt_ids=(),
                response_ids=tuple(one["ids"]),
                text=one["response"],
                ended=one["ended"],
            )
            for one in (by_id[id] for id in ids)
        ]


def batch_size_of(rows: int, details: LearnDetails) -> int:
    """Rows in one optimizer step: as asked, or the power of two up to a sixteenth of the rows, from 4 to 32.

    >>> [batch_size_of(rows, LearnDetails()) for rows in (20, 164, 5000)]
    [4, 8, 32]
    """
    if details.batch_size != "auto":
        return details.batch_size
    found: int = 2 ** max(2, min(5, (rows // 16).bit_length() - 1))
    # Whole micro-batches.
    return (
        found if details.micro_batch_size >= found else -(-found // details.micro_batch_size) * details.micro_batch_size
    )


def passes_of(rows: int, batch_size: int, epochs: float | Literal["auto"]) -> float:
    """Passes over the rows: as asked, or 3, and more where they come to fewer than ``STEPS`` optimizer steps.

    >>> passes_of(1000, 32, "auto"), passes_of(20, 4, "auto"), passes_of(20, 4, 1.5)
    (3.0, 6.0, 1.5)
    """
    if epochs != "auto":
        return epochs
    return max(3.0, float(math.ceil(STEPS / math.ceil(rows / batch_size))))


def first_by_lot(rows: Sequence[Correction], most: int) -> list[Correction]:
    """At most so many of the rows, in their order: the same ones each time, whatever the order of the log."""
    drawn = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode("utf-8", "replace")).digest())
    kept = {row.id for row in drawn[:most]}
    return [row for row in rows if row.id in kept]


def edited(row: Correction) -> bool:
    """Whether people changed the draft."""
    return row.original != row.edited


def interval(values: Sequence[float]) -> Interval:
    """The mean of words with its interval, compared with nothing."""
    return mean_interval(values, least=WORD)


def _digest(path: Path) -> Any:
    """What tells a file, a folder of files, or a data set of the Hub from another."""
    if (hub := identity_of_data(path)) is not None:
        return hub
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return [(str(each.relative_to(path)), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return digest(path)
