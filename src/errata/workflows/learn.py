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
from typing import Annotated, Any, Literal, Unpack

from rich.console import Console
from tqdm import tqdm

from errata.data import (
    Encoder,
    LengthCounts,
    OnLong,
    Reading,
    iter_corrections,
    read_corrections,
    recognise_file,
    write_rows,
)
from errata.data.encoding import load_encoder
from errata.data.hub import identity_of_data
from errata.data.rows import read_lines, write_lines
from errata.doctor import Diagnosis, examine, read_model_facts
from errata.edits import MechanicalOf, Normalizer, kinds_of, word_distance
from errata.labels import label_all
from errata.models import Sampling, device, identity, load_causal, read_card
from errata.pretrained import find_model
from errata.ranges import Range, Ranged, Rank, Seed, Size, Weight
from errata.runs import (
    SUMS,
    Damaged,
    StageFolder,
    changed_settings,
    claim_folder,
    digest,
    fingerprint_of,
    new_folder,
    read_json,
    write_json,
    writes_out,
)
from errata.tuning import FIGAConfig, SFTConfig, demonstrations, figa, sft
from errata.types import Correction, Rollout
from errata.winrate import FEWEST, Interval, mean_interval, smallest_shown
from errata.workflows.learned import Candidate, Example, Learned
from errata.workflows.measure import (
    WORD,
    TokenLogprobs,
    compare,
    describe,
    edit_costs,
    text_loss,
    token_logprobs_by_label,
    write_drafts,
)
from errata.workflows.privacy import Masker, mask_correction, mask_texts
from errata.workflows.split import USER_FIELDS, Split, SplitBy, split_rows
from errata.workflows.times import TIME_FIELDS, Times, matching_fields, read_times
from errata.workflows.verdict import Limits, Measured, decide

__all__ = ["LearnConfig", "LearnDetails", "NotSafe", "learn"]

Arm = Literal["figa", "sft"]

DECODINGS = ("greedy", "sampled")


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Ranged):
    """What one decides about a run."""

    heldout_share: Annotated[float, Range(above=0, below=1)] = 0.2
    """Share of the rows used that judge the result and are never trained on."""
    mask_private: bool = True
    """Replace e-mail addresses, telephone, card and account numbers, IP addresses and private links by placeholders
    before anything is stored. Best effort: names stay."""
    accepted_weight: Weight = 0.0
    """Weight of drafts that were sent without a change, which is no proof that they were good: 0 leaves them out, 1
    imitates them like the rest."""
    max_new_tokens: Size = 256
    """Longest draft, in tokens."""
    epochs: Annotated[float, Range(above=0, high=1e6)] = 3.0
    """Passes over the rows."""
    learning_rate: Annotated[float, Range(above=0)] | Literal["auto"] = "auto"
    """Peak learning rate. auto: 2e-4 for an adapter, and 1e-5 without one (--lora-rank 0)."""


@dataclass(frozen=True, kw_only=True)
class LearnDetails(Limits):
    """What seldom has to be decided."""

    user_field: str | None = None
    """Field that says who sent a row; else the first of user, annotator, author and the like. 'none': treat them as
    unknown."""
    time_field: str | None = None
    """Field that says when; else the first of time, date, timestamp, sent at, created at and the like that can be read.
    'none': treat it as unknown."""
    time_format: str | None = None
    """How times are written: iso, day-first, month-first, day-month-name, month-name-day, excel, seconds, milliseconds,
    microseconds, nanoseconds, or a strptime format such as '%d.%m.%Y %H:%M'; else what the whole column shows, and
    an error where it shows two."""
    normalize: str = "newlines"
    """Fold what programs change and nobody means, in drafts and sent texts and never in prompts: kinds with commas
    between, all, or none. Kinds: newlines, nfc, zero-width, soft-hyphens, variation-selectors, spaces, blanks,
    trailing, edges, quotes, dashes, ellipsis, entities, br. It is counted, and the report says what is left."""
    split_by: SplitBy = "auto"
    """What the held-out rows are set apart by; auto: the first of these that the log has the fields for."""
    method: Literal["both", "figa", "sft"] = "both"
    """What is trained; of both, the better one on a part of the training rows is judged."""
    selection_share: Annotated[float, Range(above=0, below=1)] = 0.1
    """Share of the training rows that choose between two methods and are trained on by neither."""
    min_rows: Size = 20
    """Fewest edited rows to train on, and to be judged by."""
    judge_by: Literal["users", "rows"] = "users"
    """What counts once when the models are compared: users, where the log has several, or rows. Rows of one user
    resemble each other, so a verdict by rows is about these users and says nothing of others."""
    heldout_rows: Size = 500
    """Most rows, edited and accepted each, that are drafted anew."""
    temperature: Annotated[float, Range(above=0, high=100)] = 1.0
    """Of the drafts that are sampled; others are greedy."""
    kept_weight: Weight = 0.5
    """FIGA: weight of kept tokens."""
    bad_weight: Weight = 0.2
    """FIGA: size of the push away from what was struck out."""
    lora_rank: Rank = 16
    """Train an adapter of this rank, merged when it is saved (LoRA); 0 trains all weights, at a lower learning rate."""
    quantize: Literal["none", "4bit"] = "none"
    """Hold the frozen weights in 4 bits while an adapter is trained (QLoRA); needs bitsandbytes."""
    gradient_checkpointing: bool = False
    """Less memory, a third more time."""
    batch_size: Size = 32
    """Rows in one optimizer step."""
    micro_batch_size: Size = 8
    """Rows in one forward pass; lower it when memory runs out, the result stays the same."""
    bf16: bool = False
    """Train in bfloat16."""
    template: str = "auto"
    """auto: the chat template where there is one, else the prompt and a line break; or a text with {prompt}."""
    max_length: Size | None = None
    """The most tokens of a row; longer ones are left out and counted. Default: what the model can take."""
    general_tokens: Size = 50_000
    """So many tokens of the general text are read."""
    seed: Seed = 0
    """Of training and sampling."""


class NotSafe(ValueError):  # noqa: N818
    """The doctor found errors: what would be trained is not what is meant."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__("not safe to train; " + "; ".join(map(str, diagnosis.findings)))
        self.diagnosis = diagnosis


@writes_out
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
        model: the causal language model to improve: a local folder, or a name of the Hugging Face Hub.
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
        ValueError: the log cannot be used or is too small; the folder holds a run with other settings, or a stage of it
            was damaged (the file is named); or another process runs in it.
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
        self.made("log/counts.json", f"reading {self.log}", self.read_log, "log/rows.jsonl", "log/bad_rows.jsonl")
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

    def made(self, name: str, what: str, make: Callable[[Path], None], *also: str) -> None:
        """Make a file or folder, unless it is there as it was written."""

        def told(path: Path) -> None:
            self.console.print(f"· {what}", highlight=False, markup=False)
            make(path)

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
            **asdict(self.details),
            # What was not said is no setting, so that runs from before these arguments go on.
            **{f"read_{name}": value for name, value in said.items() if value not in (None, {}, "skip")},
        }
        settings = {"fingerprint": fingerprint_of(settings), **settings}
        changed = changed_settings(self.out, settings)
        if changed is None and self.out.exists() and any(self.out.iterdir()):
            raise ValueError(f"{self.out} is not empty and holds no run of this kind; give another --out")
        if changed and not (self.out / "candidates").exists():
            for stage in ("log", "split"):
                shutil.rmtree(self.out / stage, ignore_errors=True)
            for name in ("doctor.json", SUMS, "settings.json"):
                (self.out / name).unlink(missing_ok=True)
        claim_folder(self.out, settings)

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
        """The rows as they are stored: folded, masked, with user and time, without other fields; the counts last."""
        how: Reading = {**self.how, "form": self.how.get("form") or recognise_file(self.log, **self.how).format}
        mask = (lambda text: mask_texts([text])[0][0]) if self.config.mask_private else None
        bad = path.with_name("bad_rows.jsonl")
        read = iter_corrections(self.log, set_aside=bad, rewrite=mask, **how)
        normalizer, mechanical = Normalizer(kinds_of(self.details.normalize)), MechanicalOf()
        rows = list(map(normalizer, tqdm(read, desc="rows", leave=False, delay=2, disable=None)))
        for row in rows:
            mechanical.add(row.original, row.edited)
        users = self.fields(rows, self.details.user_field, USER_FIELDS, "user")
        user = users[0] if users else None
        time, times = self.time_column(rows)
        if normalizer.rows:
            self.say(str(normalizer))
        for line in mechanical.result().lines():
            self.say(line)
        if len(users) > 1:
            self.say(f"{user!r} says who sent a row; --user-field takes another ({', '.join(users[1:])})")
        seconds = {} if times is None else dict(zip((row.id for row in rows), times.seconds, strict=True))
        stored = _Stored(mask=self.config.mask_private, user_field=user, seconds=seconds)
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
            "times": times and times.as_dict(),
            "normalized": normalizer.as_dict(),
            "mechanical": mechanical.result().as_dict(),
            "fields_left_out": sorted({name for row in rows for name in row.extra} - {user, time}),
        }
        write_json(path, counts)

    def say(self, line: str) -> None:
        """Tell something in full, however narrow the terminal."""
        self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)

    def fields(self, rows: Sequence[Correction], asked: str | None, usual: Sequence[str], what: str) -> list[str]:
        """The fields that may say who or when, the first of them the best; one at most where one is asked for.

        Raises:
            ValueError: the one asked for is in no row.
        """
        there = list({name: None for row in rows for name in row.extra})
        if asked == "none":
            return []
        if asked is None:
            return matching_fields(there, usual)
        found = [asked] if asked in there else matching_fields(there, [asked])
        if not found:
            raise ValueError(
                f"--{what}-field {asked}: no row has it; the further fields are {', '.join(there) or 'none'}"
            )
        return found[:1]

    def time_column(self, rows: Sequence[Correction]) -> tuple[str | None, Times | None]:
        """The first field that says when and can be read, and its times; both None where no field is named like one.

        Raises:
            ValueError: no such field can be read in one format, or none has a value; says what to type.
        """
        names = self.fields(rows, self.details.time_field, TIME_FIELDS, "time")
        ids, refused = [row.id for row in rows], dict[str, str]()
        for name in names:
            values = [row.extra.get(name) for row in rows]
            try:
                times = read_times(values, rows=ids, form=self.details.time_format, what=f"field {name!r}")
                if not times.read:
                    raise ValueError(f"field {name!r} has a time in no row; name another with --time-field, or none")
            except ValueError as error:
                refused[name] = str(error)
                continue
            self.say(f"{name!r}: {times}")
            for other in (other for other in names if other != name):
                passed_over = f" (it was passed over: {refused[other]})" if other in refused else ""
                self.say(f"{other!r} may say when, too; --time-field {other!r} takes it{passed_over}")
            return name, times
        if refused:
            raise ValueError(next(iter(refused.values())))
        if self.details.time_format is not None:
            raise ValueError(
                f"--time-format {self.details.time_format} has no field to read; name it with --time-field, or leave "
                "--time-format out"
            )
        return None, None

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
        self.say(f"split by {outer.by}: {outer.rule}")
        if outer.fallback:
            self.say(f"not by users and time: {outer.fallback}; --user-field and --time-field name the fields")
        if inner is not None:
            self.say(f"the rows that choose the method are split off by {inner.by}")
        self.check_sizes(sides, outer)
        with new_folder(path) as folder:
            for name, part in sides.items():
                write_rows(folder / f"{name}.jsonl", part)
            card = {
                **{name: len(part) for name, part in sides.items()},
                "rule": outer.rule,
                "by": outer.by,
                "fallback": outer.fallback,
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
        times = [row.extra.get("time") for row in rows] if counts["time_field"] else None
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

        users = self.users(sides["heldout"])
        if users is not None and len(set(users) - {None}) > 1 and len(_independent(users)) < FEWEST:
            raise ValueError(
                f"the held-out rows are of {len(_independent(users))} users, and {FEWEST} are needed: fewer cannot "
                "prove anything of other users; raise --heldout-share, give --split-by time or prompt, or --judge-by "
                "rows, which says nothing of other users"
            )

    def users(self, rows: Sequence[Correction]) -> list[str | None] | None:
        """Who sent each row; None where rows decide."""
        return [row.extra.get("user") for row in rows] if self.details.judge_by == "users" else None

    def detectable(self, sides: Mapping[str, Sequence[Correction]], name: str) -> str:
        """What so few rows could show, guessed from how much the edit costs of the log vary."""
        costs = [word_distance(row.original, row.edited) for part in ("train", name) for row in sides[part]]
        count = len(sides[name])
        if name != "heldout" or count < 2 or len(costs) < 2:
            return ""
        size = smallest_shown(costs, least=WORD, count=count)
        what = "no difference" if size is None else f"only a difference of about {size:.1f} words a draft"
        return f"; with {count} rows {what} can be told from noise"

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
        found = find_model(self.model)
        return SFTConfig(
            learning_rate=self.config.learning_rate,
            epochs=self.config.epochs,
            batch_size=self.details.batch_size,
            micro_batch_size=self.details.micro_batch_size,
            dtype="bfloat16" if self.details.bf16 else "auto",
            # Of an adapter the training goes on with that, of its own rank.
            lora_rank=0 if found.base else self.details.lora_rank,
            # Into quantized weights none can be merged.
            save="adapter" if found.quantization else "both",
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
                edit_cost=_interval(edit_costs(self.drafts(arm, list(sent), folder="selection"), sent)),
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
        scored = {name: read_json(self.out / "heldout" / f"{name}.json") for name in ("old", arm)}

        def drafts(name: str, rows: Sequence[Correction]) -> dict[str, list[Rollout]]:
            return {how: self.drafts(f"{name}.{how}", [row.id for row in rows]) for how in DECODINGS}

        def against(rows: Sequence[Correction], new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
            sent = {row.id: row.edited for row in rows}
            return {
                how: compare(edit_costs(new[how], sent), edit_costs(old[how], sent), users=self.users(rows))
                for how in DECODINGS
            }

        sent = {row.id: row.edited for row in heldout}
        old, new = drafts("old", heldout), drafts(arm, heldout)
        measured = Measured(
            old={how: describe(old[how], sent) for how in DECODINGS},
            new={how: describe(new[how], sent) for how in DECODINGS},
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
            logged_cost=_interval([word_distance(row.original, row.edited) for row in heldout]),
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
    seconds: Mapping[str, float | None]
    """When each row was sent, by its id."""
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
        if (seconds := self.seconds.get(row.id)) is not None:
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


def _interval(values: Sequence[float]) -> Interval:
    return mean_interval(values, least=WORD)


def _independent(users: Sequence[str | None]) -> list[object]:
    """One for each user, and one for each row whose user is not known."""
    return [*{user for user in users if user is not None}, *(None for user in users if user is None)]


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
    """What tells a file, a folder of files, or a data set of the Hub from another."""
    if (hub := identity_of_data(path)) is not None:
        return hub
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return [(str(each.relative_to(path)), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return digest(path)
