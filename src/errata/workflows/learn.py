"""From a log of drafts and what people sent to a better model, or to a refusal in words: ``errata learn``.

Every stage writes its file or folder in one step and is reused when the run is started again. The pieces are functions
of their own (``split_rows``, ``mask_correction``, ``write_drafts``, ``compare``, ``decide``, …); here they are put
together.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
from rich.console import Console
from tqdm import tqdm

from errata.data import (
    Encoder,
    LengthCounts,
    OnLong,
    Reading,
    iter_corrections,
    new_folder,
    read_corrections,
    recognise_file,
    write_rows,
)
from errata.data.encoding import load_encoder
from errata.data.files import read_json, write_json
from errata.data.rows import read_lines, write_lines
from errata.doctor import Diagnosis, examine, read_model_facts
from errata.edits import word_distance
from errata.labels import label_all
from errata.models import Sampling, device, fingerprint_of, identity, load_causal, read_card
from errata.tuning import FIGAConfig, SFTConfig, demonstrations, figa, sft
from errata.types import Correction, Rollout
from errata.winrate import Interval, bootstrap_interval
from errata.workflows.learned import Candidate, Example, Learned
from errata.workflows.measure import (
    TokenLogprobs,
    compare,
    describe,
    edit_costs,
    text_loss,
    token_logprobs_by_label,
    write_drafts,
)
from errata.workflows.privacy import Masker, mask_correction, mask_texts
from errata.workflows.split import TIME_FIELDS, USER_FIELDS, Split, SplitBy, read_time, split_rows
from errata.workflows.verdict import Limits, Measured, decide

__all__ = ["LearnConfig", "LearnDetails", "NotSafe", "learn"]

Arm = Literal["figa", "sft"]

DECODINGS = ("greedy", "sampled")


@dataclass(frozen=True, kw_only=True)
class LearnConfig:
    """What one decides about a run."""

    heldout_share: float = 0.2
    """Share of the rows used that judge the result and are never trained on."""
    mask_private: bool = True
    """Replace e-mail addresses, telephone, card and account numbers, IP addresses and private links by placeholders
    before anything is stored. Best effort: names stay."""
    accepted_weight: float = 0.0
    """Weight of drafts that were sent without a change, which is no proof that they were good: 0 leaves them out, 1
    imitates them like the rest."""
    max_new_tokens: int = 256
    """Longest draft, in tokens."""
    epochs: float = 3.0
    """Passes over the rows."""
    learning_rate: float = 2e-4
    """Peak learning rate; without an adapter (--lora-rank 0) take a tenth of it or less."""


@dataclass(frozen=True, kw_only=True)
class LearnDetails(Limits):
    """What seldom has to be decided."""

    user_field: str | None = None
    """Field that says who sent a row; else the first of user, annotator, author. 'none': treat them as unknown."""
    time_field: str | None = None
    """Field that says when; else the first of time, date, timestamp. 'none': treat it as unknown."""
    split_by: SplitBy = "auto"
    """What the held-out rows are set apart by; auto: the first of these that the log has the fields for."""
    method: Literal["both", "figa", "sft"] = "both"
    """What is trained; of both, the better one on a part of the training rows is judged."""
    selection_share: float = 0.1
    """Share of the training rows that choose between two methods and are trained on by neither."""
    min_rows: int = 20
    """Fewest edited rows to train on, and to be judged by."""
    heldout_rows: int = 500
    """Most rows, edited and accepted each, that are drafted anew."""
    temperature: float = 1.0
    """Of the drafts that are sampled; others are greedy."""
    kept_weight: float = 0.5
    """FIGA: weight of kept tokens."""
    bad_weight: float = 0.2
    """FIGA: size of the push away from what was struck out."""
    lora_rank: int = 16
    """Train an adapter of this rank, merged when it is saved (LoRA); 0 trains all weights, at a lower learning rate."""
    quantize: Literal["none", "4bit"] = "none"
    """Hold the frozen weights in 4 bits while an adapter is trained (QLoRA); needs bitsandbytes."""
    gradient_checkpointing: bool = False
    """Less memory, a third more time."""
    batch_size: int = 32
    """Rows in one optimizer step."""
    micro_batch_size: int = 8
    """Rows in one forward pass; lower it when memory runs out, the result stays the same."""
    bf16: bool = False
    """Train in bfloat16."""
    template: str = "auto"
    """auto: the chat template where there is one, else the prompt and a line break; or a text with {prompt}."""
    max_length: int | None = None
    """The most tokens of a row; longer ones are left out and counted. Default: what the model can take."""
    general_tokens: int = 50_000
    """So many tokens of the general text are read."""
    seed: int = 0
    """Of training, sampling and intervals."""


class NotSafe(ValueError):  # noqa: N818
    """The doctor found errors: what would be trained is not what is meant."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__("not safe to train; " + "; ".join(map(str, diagnosis.findings)))
        self.diagnosis = diagnosis


def learn(
    log: Path,
    model: Path,
    out: Path,
    config: LearnConfig | None = None,
    details: LearnDetails | None = None,
    *,
    general: Path | None = None,
    console: Console | None = None,
    **how: Unpack[Reading],
) -> Learned:
    """Learn from a log of drafts and what people sent, and judge the result on rows that nothing was chosen by.

    Writes below ``out``: ``log/`` and ``split/`` (rows, masked), ``doctor.json``, ``candidates/``, ``selection/`` and
    ``heldout/`` (drafts and figures), ``summary.json``, ``report.html``; and, if the new model is promoted, ``model/``.
    A run that was stopped goes on to the same numbers.

    Args:
        log: a file of corrections in any of the formats of ``errata.data.FORMATS``.
        model: the causal language model to improve, a local folder.
        out: the run's folder.
        config: what one decides.
        details: what seldom has to be decided.
        general: a plain text file on which the loss must not rise.
        console: is told what is done.
        how: how the log is read, as of ``errata.data.iter_prompts``.

    Returns:
        All that was found; ``decision.promoted`` is the verdict.

    Raises:
        NotSafe: the doctor found errors.
        ValueError: the log cannot be used or is too small; the folder holds a run with other settings.
    """
    config, details, console = config or LearnConfig(), details or LearnDetails(), console or Console()
    return _Run(log, model, out, config, details, general, console, how)()


class _Run:
    """The stages, in order. Each reads files that earlier ones wrote."""

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
    ) -> None:
        self.how = how
        self.log, self.model, self.out, self.general, self.console = log, model, out, general, console
        self.config, self.details = config, details
        self._loaded: tuple[Path, Any] | None = None

    def __call__(self) -> Learned:
        self.claim()
        self.made("log/counts.json", f"reading {self.log}", self.read_log)
        self.made("split", "setting rows apart", self.split)
        self.made("doctor.json", "asking the doctor", self.examine)
        for arm in self.arms:
            self.made(f"candidates/{arm}", f"training {arm}", self.train)
            if not math.isfinite(read_card(self.out / "candidates" / arm)["loss"]):
                raise ValueError(f"the loss of {arm} is no number any more; lower --learning-rate, in another --out")
        if len(self.arms) > 1:
            for arm in self.arms:
                self.made(f"selection/{arm}.jsonl", f"{arm} drafts the rows that choose", self.draft)
        arm = self.best()
        for name in ("old", arm):
            for decoding in DECODINGS:
                what = f"{'the old model' if name == 'old' else arm} drafts the held-out rows, {decoding}"
                self.made(f"heldout/{name}.{decoding}.jsonl", what, self.draft)
            self.made(f"heldout/{name}.json", "log-probabilities of the held-out rows", self.score)
        found = self.learned(arm)
        write_json(self.out / "summary.json", found.as_dict())
        if found.decision.promoted:
            self.made("model", f"promoting {arm}", lambda path: self.promote(arm, path))
        return found

    # How stages run.

    def made(self, name: str, what: str, make: Callable[[Path], None]) -> None:
        """Make a file or folder, unless it is there."""
        path = self.out / name
        if path.exists():
            return
        self.console.print(f"· {what}", highlight=False, markup=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)

    def claim(self) -> None:
        """Note what the run is of; a run of anything else must not go on from these stages.

        As long as nothing was trained, a run with other settings starts anew in the same folder.

        Raises:
            ValueError: the folder holds another run, or something else.
        """
        said = {**self.how, "form": form.title} if (form := self.how.get("form")) else self.how
        settings = {
            "log": _digest(self.log),
            "model": identity(self.model),
            "general": None if self.general is None else _digest(self.general),
            **asdict(self.config),
            **asdict(self.details),
            # What was not said is no setting, so that runs from before these arguments go on.
            **{f"read_{name}": value for name, value in said.items() if value not in (None, {}, "skip")},
        }
        mark, path = fingerprint_of(settings), self.out / "settings.json"
        if path.exists():
            noted = json.loads(path.read_text(encoding="utf-8"))
            if noted["fingerprint"] == mark:
                return
            if (self.out / "candidates").exists():
                changed = [key for key, value in settings.items() if noted.get(key) != json.loads(json.dumps(value))]
                raise ValueError(
                    f"{self.out} holds a run with other settings ({', '.join(changed)}); delete it, or give another "
                    "--out"
                )
            for stage in ("log", "split"):
                shutil.rmtree(self.out / stage, ignore_errors=True)
            (self.out / "doctor.json").unlink(missing_ok=True)
        elif self.out.exists() and any(self.out.iterdir()):
            raise ValueError(f"{self.out} is not empty and holds no run of this kind; give another --out")
        write_json(path, {"fingerprint": mark, **settings})

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What is trained."""
        return ("figa", "sft") if self.details.method == "both" else (self.details.method,)

    @cached_property
    def encoder(self) -> Encoder:
        """Text to ids; longer rows than the model can take are left out."""
        facts = read_model_facts(self.model)
        limit = self.details.max_length or facts.positions
        return load_encoder(
            self.model,
            template=self.details.template,
            max_length=limit,
            on_long=OnLong.ERROR if limit is None else OnLong.DROP,
        )

    def loaded(self, name: str) -> Any:
        """A model, the last one kept."""
        path = self.model if name == "old" else self.out / "candidates" / name
        if self._loaded is None or self._loaded[0] != path:
            self._loaded = None
            self._loaded = (path, load_causal(path).to(device()))
        return self._loaded[1]

    # Stages.

    def read_log(self, path: Path) -> None:
        """The rows as they are stored: masked, with user and time, without other fields. The counts come last."""
        how: Reading = {**self.how, "form": self.how.get("form") or recognise_file(self.log, **self.how).format}
        mask = (lambda text: mask_texts([text])[0][0]) if self.config.mask_private else None
        bad = path.with_name("bad_rows.jsonl")
        read = iter_corrections(self.log, set_aside=bad, rewrite=mask, **how)
        rows = list(tqdm(read, desc="rows", leave=False, delay=2, disable=None))
        user = self.field(rows, self.details.user_field, USER_FIELDS, "user")
        time = self.field(rows, self.details.time_field, TIME_FIELDS, "time")
        stored = _Stored(mask=self.config.mask_private, user_field=user, time_field=time)
        shown = tqdm(rows, desc="masking", leave=False, delay=2, disable=None)
        write_rows(path.with_name("rows.jsonl"), map(stored, shown))
        counts = {
            "rows": len(rows),
            "bad_rows": sum(1 for _ in read_lines(bad)),
            "unchanged": sum(not _edited(row) for row in rows),
            "masked": dict(stored.masked),
            "rows_masked": stored.rows_masked,
            "sampled_ids_dropped": stored.ids_dropped,
            "own_weights_dropped": stored.weights_dropped,
            "user_field": user,
            "time_field": time,
            "fields_left_out": sorted({name for row in rows for name in row.extra} - {user, time}),
        }
        write_json(path, counts)

    def field(self, rows: Sequence[Correction], asked: str | None, usual: Sequence[str], what: str) -> str | None:
        """The field that says who or when, or None.

        Raises:
            ValueError: the one asked for is in no row.
        """
        there = {name: None for row in rows for name in row.extra}
        if asked == "none":
            return None
        if asked is not None and asked not in there:
            raise ValueError(
                f"--{what}-field {asked}: no row has it; the further fields are {', '.join(there) or 'none'}"
            )
        by_case = {name.casefold(): name for name in there}
        return asked or next((by_case[name] for name in usual if name in by_case), None)

    def split(self, path: Path) -> None:
        """Rows to train on, to choose by, and to judge by; accepted drafts apart."""
        rows, counts = read_corrections(self.out / "log" / "rows.jsonl", empty_texts="keep"), self.counts("log")
        outer = self.split_rows(rows, counts, self.config.heldout_share, self.details.split_by)
        train, selection = list(outer.train), list[Correction]()
        inner: Split | None = None
        if len(self.arms) > 1:
            inner = self.inner_split(train, counts)
            train, selection = list(inner.train), list(inner.heldout)
        left_out: Counter[str] = Counter()
        sides = {
            "train": [row for row in train if _edited(row)],
            "train_accepted": [row for row in train if not _edited(row)],
            "selection": self.drafted([row for row in selection if _edited(row)], left_out),
            "heldout": self.drafted([row for row in outer.heldout if _edited(row)], left_out),
            "heldout_accepted": self.drafted([row for row in outer.heldout if not _edited(row)], left_out),
        }
        self.check_sizes(sides, outer)
        with new_folder(path) as folder:
            for name, part in sides.items():
                write_rows(folder / f"{name}.jsonl", part)
            card = {
                **{name: len(part) for name, part in sides.items()},
                "rule": outer.rule,
                "by": outer.by,
                "selection_rule": inner and inner.rule,
                "selection_left_out": dict(inner.left_out) if inner else {},
                "left_out": dict(outer.left_out),
                "not_drafted": dict(left_out),
                "train_users": outer.train_users,
                "heldout_users": outer.heldout_users,
                "cut": outer.cut,
            }
            write_json(folder / "counts.json", card)

    def split_rows(self, rows: Sequence[Correction], counts: Mapping[str, Any], share: float, by: SplitBy) -> Split:
        """``split_rows`` of this log."""
        users = [row.extra.get("user") for row in rows] if counts["user_field"] else None
        times = [read_time(row.extra.get("time")) for row in rows] if counts["time_field"] else None
        return split_rows(rows, share=share, users=users, times=times, by=by)

    def inner_split(self, train: Sequence[Correction], counts: Mapping[str, Any]) -> Split:
        """The rows that choose between methods, by the first rule that leaves enough.

        Whole users where that is possible; a cut in time besides would cost too much.
        """
        rules: list[SplitBy] = ["prompt"]
        rules[:0] = ["time"] if counts["time_field"] else []
        rules[:0] = ["users"] if counts["user_field"] else []
        for by in rules[:-1]:
            try:
                found = self.split_rows(train, counts, self.details.selection_share, by)
            except ValueError:  # one user, one time
                continue
            if sum(map(_edited, found.heldout)) >= self.fewest_to_choose:
                return found
        return self.split_rows(train, counts, self.details.selection_share, rules[-1])

    @property
    def fewest_to_choose(self) -> int:
        """Edited rows without which no choice is made."""
        return min(self.details.min_rows, 10)

    def drafted(self, rows: Sequence[Correction], left_out: Counter[str]) -> list[Correction]:
        """The rows for which a draft can and shall be written."""
        encoder, positions = self.encoder, self.encoder.max_length
        fitting = []
        for row in rows:
            try:
                length = len(encoder.prompt_ids(row.prompt))
                room = positions is None or length + self.config.max_new_tokens <= positions
            except ValueError:
                room = False
            fitting += [row] if room else []
        chosen = sorted(fitting, key=lambda row: hashlib.sha256(row.id.encode("utf-8", "replace")).digest())
        kept = {row.id for row in chosen[: self.details.heldout_rows]}
        left_out["the prompt leaves no room for --max-new-tokens"] += len(rows) - len(fitting)
        left_out["more than --heldout-rows"] += len(fitting) - len(kept)
        for reason in [reason for reason, count in left_out.items() if not count]:
            del left_out[reason]
        return [row for row in fitting if row.id in kept]

    def check_sizes(self, sides: Mapping[str, Sequence[Correction]], outer: Split) -> None:
        """Raise ValueError where too little is left to learn from or to judge by."""
        fewest = self.details.min_rows
        left_out = "; ".join(f"{count} left out: {reason}" for reason, count in outer.left_out.items())
        what = f"{left_out}. {outer.rule}" if left_out else outer.rule
        for name, need in (("train", fewest), ("heldout", fewest), ("selection", self.fewest_to_choose)):
            count = len(sides[name])
            if count >= need or (name == "selection" and len(self.arms) == 1):
                continue
            verb = {"train": "are left to train on", "heldout": "are held out", "selection": "are left to choose by"}
            remedy = {
                "train": "add rows, lower --heldout-share, or give --split-by users, time or prompt",
                "heldout": "add rows, raise --heldout-share, or give --split-by users, time or prompt",
                "selection": "add rows, raise --selection-share, or give --method figa, which needs none",
            }
            raise ValueError(
                f"{count} edited rows {verb[name]}, and {need} are needed ({what}){self.detectable(sides, name)}; "
                f"{remedy[name]}"
            )

    def detectable(self, sides: Mapping[str, Sequence[Correction]], name: str) -> str:
        """What so few rows could show, guessed from how much the edit costs of the log vary."""
        costs = [word_distance(row.original, row.edited) for part in ("train", name) for row in sides[part]]
        count = len(sides[name])
        if name != "heldout" or count < 2 or len(costs) < 2:
            return ""
        least = 2.8 * float(np.std(costs, ddof=1)) / count**0.5
        return f"; with {count} rows only a difference of about {least:.1f} words a draft can be told from noise"

    def examine(self, path: Path) -> None:
        """What the losses will really see."""
        bad = [json.loads(line) for _, line in read_lines(self.out / "log" / "bad_rows.jsonl")]
        found = examine(
            tqdm(self.trained, desc="doctor", unit=" rows", leave=False, delay=2, disable=None),
            self.encoder,
            method="sft" if self.arms == ("sft",) else "figa",
            config=self.figa_config,
            model=read_model_facts(self.model),
            unreadable=[(row["line"], row["error"]) for row in bad],
        )
        if not found.safe:
            raise NotSafe(found)
        write_json(path, found.as_dict())

    def train(self, path: Path) -> None:
        """One candidate."""
        weights = {row.id: self.config.accepted_weight for row in self.trained if not _edited(row)}
        if path.name == "figa":
            counts = LengthCounts()
            labels = list(label_all(self.trained, self.encoder, counts=counts))
            figa(self.model, labels, self.encoder, self.figa_config, path, counts=counts, row_weights=weights)
        else:
            sft(self.model, demonstrations(self.trained), self.encoder, self.sft_config, path, row_weights=weights)

    @cached_property
    def trained(self) -> list[Correction]:
        """The rows to train on: the edited ones and, by option, those that were accepted."""
        return self.rows("train") + (self.rows("train_accepted") if self.config.accepted_weight > 0 else [])

    @property
    def sft_config(self) -> SFTConfig:
        """What both methods have in common."""
        return SFTConfig(
            learning_rate=self.config.learning_rate,
            epochs=self.config.epochs,
            batch_size=self.details.batch_size,
            micro_batch_size=self.details.micro_batch_size,
            bf16=self.details.bf16,
            lora_rank=self.details.lora_rank,
            quantize=self.details.quantize,
            gradient_checkpointing=self.details.gradient_checkpointing,
            seed=self.details.seed,
        )

    @property
    def figa_config(self) -> FIGAConfig:
        """FIGA's weights besides."""
        common = asdict(self.sft_config)
        return FIGAConfig(**common, kept_weight=self.details.kept_weight, bad_weight=self.details.bad_weight)

    def draft(self, path: Path) -> None:
        """Drafts of one model: ``selection/ARM.jsonl``, or ``heldout/MODEL.DECODING.jsonl``."""
        name, _, decoding = path.stem.partition(".")
        selecting = path.parent.name == "selection"
        rows = self.rows("selection") if selecting else self.rows("heldout") + self.rows("heldout_accepted")
        sampling = Sampling(
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.details.temperature if decoding == "sampled" else 0.0,
            seed=self.details.seed,
        )
        drafts = write_drafts(
            self.loaded(name), rows, self.encoder, sampling, batch_size=self.details.batch_size, what=name
        )
        write_lines(
            path, ({"id": one.id, "response": one.text, "ids": one.response_ids, "ended": one.ended} for one in drafts)
        )

    def score(self, path: Path) -> None:
        """Log-probabilities of the held-out rows' tokens, and the loss on the general text."""
        model, size = self.loaded(path.stem), self.details.micro_batch_size
        labels = list(label_all(self.rows("heldout"), self.encoder, counts=LengthCounts(), on_error=lambda *_: None))
        found: dict[str, Any] = {
            "tokens": asdict(token_logprobs_by_label(model, labels, self.encoder, batch_size=size, what=path.stem)),
            "rows": len(labels),
        }
        if self.general is not None:
            window = min(512, self.encoder.max_length or 512)
            loss, count = text_loss(
                model,
                self.general,
                self.encoder,
                window=window,
                max_tokens=self.details.general_tokens,
                batch_size=size,
                what=path.stem,
            )
            found |= {"general": loss, "general_tokens": count}
        write_json(path, found)

    def promote(self, arm: Arm, path: Path) -> None:
        """The candidate becomes the model."""
        with new_folder(path) as folder:
            shutil.copytree(self.out / "candidates" / arm, folder, dirs_exist_ok=True)

    # What was found.

    def rows(self, side: str) -> list[Correction]:
        """Rows of the split; none where the file is empty."""
        path = self.out / "split" / f"{side}.jsonl"
        return read_corrections(path, empty_texts="keep") if path.stat().st_size else []

    def counts(self, stage: str) -> dict[str, Any]:
        """What a stage counted."""
        found: dict[str, Any] = read_json(self.out / stage / "counts.json")
        return found

    def drafts(self, name: str, ids: Sequence[str], *, folder: str = "heldout") -> list[Rollout]:
        """Drafts that were written for the rows named."""
        lines = (json.loads(line) for _, line in read_lines(self.out / folder / f"{name}.jsonl"))
        by_id = {row["id"]: row for row in lines}
        return [
            Rollout(
                id=one["id"],
                prompt="",
                prompt_ids=(),
                response_ids=tuple(one["ids"]),
                text=one["response"],
                ended=one["ended"],
            )
            for one in (by_id[id] for id in ids)
        ]

    def selection(self) -> list[Candidate]:
        """How the candidates did on the rows that choose."""
        if len(self.arms) == 1:
            return [Candidate(name=self.arms[0], edit_cost=None)]
        rows = self.rows("selection")
        sent = {row.id: row.edited for row in rows}
        return [
            Candidate(
                name=arm,
                edit_cost=_interval(
                    edit_costs(self.drafts(arm, list(sent), folder="selection"), sent), self.details.seed
                ),
            )
            for arm in self.arms
        ]

    def best(self) -> Arm:
        """The candidate that left the least to correct on the rows that choose; of equals the first."""
        found = self.selection()
        costs = [one.edit_cost.mean if one.edit_cost else 0.0 for one in found]
        return self.arms[costs.index(min(costs))]

    def learned(self, arm: Arm) -> Learned:
        """Everything that was measured, and the verdict."""
        heldout, accepted = self.rows("heldout"), self.rows("heldout_accepted")
        seed, scored = (
            self.details.seed,
            {name: read_json(self.out / "heldout" / f"{name}.json") for name in ("old", arm)},
        )

        def drafts(name: str, rows: Sequence[Correction]) -> dict[str, list[Rollout]]:
            return {how: self.drafts(f"{name}.{how}", [row.id for row in rows]) for how in DECODINGS}

        def against(rows: Sequence[Correction], new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
            sent = {row.id: row.edited for row in rows}
            return {
                how: compare(edit_costs(new[how], sent), edit_costs(old[how], sent), seed=seed) for how in DECODINGS
            }

        sent = {row.id: row.edited for row in heldout}
        old, new = drafts("old", heldout), drafts(arm, heldout)
        measured = Measured(
            old={how: describe(old[how], sent, seed=seed) for how in DECODINGS},
            new={how: describe(new[how], sent, seed=seed) for how in DECODINGS},
            comparison=against(heldout, new, old),
            old_tokens=TokenLogprobs(**scored["old"]["tokens"]),
            new_tokens=TokenLogprobs(**scored[arm]["tokens"]),
            old_general=scored["old"].get("general"),
            new_general=scored[arm].get("general"),
        )
        limits = Limits(**{name: getattr(self.details, name) for name in Limits.__dataclass_fields__})
        return Learned(
            decision=decide(measured, limits),
            measured=measured,
            arm=arm,
            candidates=tuple(self.selection()),
            logged_cost=_interval([word_distance(row.original, row.edited) for row in heldout], seed),
            accepted=against(accepted, drafts(arm, accepted), drafts("old", accepted)) if len(accepted) > 1 else {},
            log=self.counts("log"),
            split=self.counts("split"),
            doctor=tuple(read_json(self.out / "doctor.json")["findings"]),
            general_tokens=scored["old"].get("general_tokens"),
            examples=tuple(_examples(heldout, old["greedy"], new["greedy"])),
        )


@dataclass(slots=True)
class _Stored:
    """Makes of a row of the log the row that is stored."""

    mask: bool
    user_field: str | None
    time_field: str | None
    masked: Counter[str] = field(default_factory=Counter)
    rows_masked: int = 0
    ids_dropped: int = 0
    weights_dropped: int = 0
    """Sides whose own weights stood on a text that was masked; the edit's rule weighs them."""
    ids_masked: int = 0
    users: dict[str, str] = field(default_factory=dict)

    def __call__(self, row: Correction) -> Correction:
        extra: dict[str, Any] = {}
        user = row.extra.get(self.user_field) if self.user_field else None
        if user not in (None, ""):
            # A name is private, too; that two rows have the same one is all that is needed.
            extra["user"] = self.users.setdefault(str(user), f"user-{len(self.users) + 1}") if self.mask else str(user)
        seconds = read_time(row.extra.get(self.time_field)) if self.time_field else None
        if seconds is not None:
            extra["time"] = seconds
        stored = replace(row, extra=extra)
        if self.mask:
            stored, counts = mask_correction(stored)
            self.masked.update(counts)
            self.rows_masked += bool(counts)
            self.ids_dropped += row.original_ids is not None and stored.original_ids is None
            self.weights_dropped += row.original_weights is not None and stored.original_weights is None
            self.weights_dropped += row.edited_weights is not None and stored.edited_weights is None
            if Masker()(row.id) != row.id:
                self.ids_masked += 1
                stored = replace(stored, id=f"masked-id-{self.ids_masked}")
        return stored


def _edited(row: Correction) -> bool:
    return row.original != row.edited


def _interval(values: Sequence[float], seed: int) -> Interval:
    return bootstrap_interval(values, seed=seed)


def _examples(rows: Sequence[Correction], old: Sequence[Rollout], new: Sequence[Rollout]) -> Iterator[Example]:
    """Rows on which the most was won, the most was lost, and some in between."""
    found = [
        Example(
            prompt=row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"],
            sent=row.edited,
            logged=row.original,
            old=before.text,
            new=after.text,
            old_cost=word_distance(before.text, row.edited),
            new_cost=word_distance(after.text, row.edited),
        )
        for row, before, after in zip(rows, old, new, strict=True)
    ]
    found.sort(key=lambda one: one.new_cost - one.old_cost)
    places = [0, 1, len(found) // 2, len(found) - 2, len(found) - 1]
    yield from (found[place] for place in dict.fromkeys(places) if 0 <= place < len(found))


def _digest(path: Path) -> Any:
    """What tells a file, or a folder of files, from another."""
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return [(str(each.relative_to(path)), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
