"""The whole road with a language model as the editor: sample → edit → labels → FIGA → judge, against any server.

    python recipes/llm_road.py --out runs/llm_road                                                 # no model at all
    python recipes/llm_road.py --llm anthropic:MODEL --judge openai:OTHER --max-cost 5 --out runs/llm_road
    python recipes/llm_road.py --llm MODEL@http://127.0.0.1:8000/v1 --out runs/llm_road            # vLLM and the like

The model to tune is the demo's start, which writes letters by cards, or with --model and --prompts your own. For the
first prompts the model writes one answer each, the editor corrects them, and FIGA learns from what it changed. For the
others the old and the new model answer, greedily; a judge compares the two (``errata winrate``), and beside its verdict
stands what the editor would still change in either. Without --llm the demo's editor and judge stand in, behind a server
on this machine.

Without --judge the editor judges its own pupil, and likes what it would have written: for a claim take another.
Whatever is set aside is counted, not guessed. Rerun it and only what is missing is made; answers of a server are in the
ledger and never paid twice. What came out: docs/edits_llm.md, The whole road.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes as Flat

from errata.client import Chat
from errata.commands.client import ClientFlags, JudgeFlags
from errata.data import Encoder, read_corrections, read_demonstrations, read_prompts, write_rows
from errata.data.encoding import load_encoder
from errata.data.rows import write_lines
from errata.demo.chat import DemoChat, serving
from errata.demo.recipe import DemoConfig, Recipe
from errata.demo.stages import SeedRun
from errata.edits import Draft, LLMEditorConfig, edit_drafts, word_distance
from errata.labels import label_all, read_labels, write_labels
from errata.models import Sampling, TransformersGenerator, device, identity, load_causal
from errata.runs import digest, new_file, read_json, write_json
from errata.runs.schedule import Stage, run_stages
from errata.tuning import FIGAConfig, train_figa
from errata.types import Demonstration
from errata.winrate import (
    ChatJudge,
    Contest,
    Judge,
    contest,
    contest_html,
    contest_markdown,
    contest_terminal,
    read_contest,
    write_contest,
)

__all__ = ["Road", "Settings", "main", "run"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A model, prompts and a server → a better model, who wins by a judge, and how much is left to correct."""

    out: Path = Path("runs/llm_road")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    model: Path | None = None
    """A causal language model in a local folder; without it the demo's start is made."""
    prompts: Path | None = None
    """Rows with prompt, for --model; and with the field `reference`, FIGA's y, if there is one."""
    train: int = 300
    """Prompts whose answers are edited."""
    heldout: int = 100
    """Prompts to judge on."""
    guideline: Path | None = None
    """A text file for editor and judge; the demo has its own."""
    start_responses: int = 4000
    """Flawed responses that the demo's start is trained on."""
    max_new_tokens: int = 80
    """Longest response, in tokens."""
    seed: int = 0
    """Of sampling."""
    editor: LLMEditorConfig = field(default_factory=LLMEditorConfig)
    figa: FIGAConfig = field(default_factory=FIGAConfig)
    """Of --model; the demo's start has the demo's settings."""


@dataclass(frozen=True, kw_only=True)
class Flags(Settings):
    """A model, prompts and a server → a better model, who wins by a judge, and how much is left to correct."""

    judging: Flat[JudgeFlags] = field(default_factory=JudgeFlags)
    client: Flat[ClientFlags] = field(default_factory=ClientFlags)


GUIDELINE = """\
A shop's support desk writes letters. The prompt is a card with facts. The letter greets the customer by name, states
each fact of the card once, in one plain sentence, in any order, and ends with a polite closing ("Kind regards, the
shop."). Wrong are values that differ from the card, facts that are not on it, rude words, a fact told twice, a fact
left out, a garbled sentence, and anything after the closing.
"""


@dataclass(frozen=True)
class Road:
    """The stages of a run, each a function of its path."""

    settings: Settings
    chat: Chat
    """The editor."""
    judge: Judge

    @property
    def demo(self) -> SeedRun:
        """Whose start is tuned where no model is given."""
        settings = self.settings
        config = DemoConfig(
            out=settings.out,
            prompts=settings.train,
            heldout=settings.heldout,
            start_responses=settings.start_responses,
            workers=1,
        )
        return SeedRun(config, settings.seed)

    @property
    def start(self) -> Path:
        """The model before."""
        return self.settings.model or self.settings.out / "data/start"

    @cached_property
    def encoder(self) -> Encoder:
        """Of both models."""
        return load_encoder(self.start)

    @property
    def guideline(self) -> str:
        """What the editor is told."""
        return guideline_of(self.settings)

    def stages(self) -> Iterator[Stage]:
        """In order."""
        for path, what, make, *also in (
            ("data/start", "the start learns from flawed responses", self.demo.make_start),
            ("data/prompts.jsonl", "prompts to learn from", self.take_prompts),
            ("data/heldout.jsonl", "prompts to judge on", self.take_prompts),
            ("data/samples.jsonl", "the start answers", self.sample),
            ("edits/edits.jsonl", "its answers are edited", self.edit, "edits/report.json", "edits/set-aside.jsonl"),
            ("labels/labels.jsonl", "labels on tokens", self.label),
            ("tuning/figa", "figa", self.tune),
            ("winrate/start.jsonl", "the old model answers", partial(self.answer, self.start)),
            ("winrate/figa.jsonl", "the new model answers", partial(self.answer, self.settings.out / "tuning/figa")),
            ("winrate/edit_cost.json", "both are edited", self.edit_cost),
            ("winrate/report.html", "both are judged", self.compare, "winrate/contest.json", "winrate/report.md"),
        ):
            if path != "data/start" or self.settings.model is None:
                yield Stage(self.settings.out / path, (), what, make, tuple(self.settings.out / one for one in also))

    def take_prompts(self, path: Path) -> None:
        """The first prompts to learn from, the next to judge on."""
        settings = self.settings
        if settings.prompts is None:
            return self.demo.make_prompts(path)
        rows = read_prompts(settings.prompts, empty_texts="keep")
        if len(rows) < settings.train + settings.heldout:
            raise ValueError(
                f"{settings.prompts} has {len(rows)} prompts; lower --train {settings.train} and --heldout"
            )
        first = 0 if path.stem == "prompts" else settings.train
        return write_rows(path, rows[first : first + (settings.train if first == 0 else settings.heldout)])

    def sample(self, path: Path) -> None:
        """One answer to each prompt, with the ids that were sampled."""
        prompts = read_prompts(path.with_name("prompts.jsonl"), empty_texts="keep")
        sampling = Sampling(max_new_tokens=self.settings.max_new_tokens, seed=self.settings.seed)
        drawn = TransformersGenerator(load_causal(self.start).to(device()), self.encoder)(prompts, sampling)
        fields = [{"response": row.text, "response_ids": list(row.response_ids)} for row in drawn]
        rows = [{"id": row.id, "prompt": row.prompt, **row.extra} for row in prompts]
        write_lines(path, [{**row, **more} for row, more in zip(rows, fields, strict=True)])

    def edit(self, path: Path) -> None:
        """What ``errata edits llm`` does, with the sampled ids kept.

        Raises:
            ValueError: nothing was edited.
        """
        rows = read_demonstrations(self.settings.out / "data/samples.jsonl", empty_texts="keep")
        drafts = [
            Draft(
                id=row.id,
                prompt=row.prompt,
                response=row.response,
                reference=row.extra.get("reference"),
                response_ids=tuple(row.extra["response_ids"]),
            )
            for row in rows
        ]
        found = edit_drafts(self.chat, drafts, self.settings.editor, guideline=self.guideline)
        write_json(path.with_name("report.json"), {"text": str(found.report), **found.report.as_dict()})
        aside = [{"id": each.draft.id, "reason": each.reason, "why": each.why} for each in found.set_aside]
        write_lines(path.with_name("set-aside.jsonl"), aside)
        if not found.report.edited:
            raise ValueError(
                f"the editor changed none of {len(drafts)} answers, so there is nothing to learn from;\n{found.report}"
            )
        write_rows(path, found.corrections)

    def label(self, path: Path) -> None:
        """Edits projected on tokens."""
        write_labels(
            path,
            label_all(read_corrections(self.settings.out / "edits/edits.jsonl", empty_texts="keep"), self.encoder),
            self.encoder,
        )

    def tune(self, path: Path) -> None:
        """FIGA on them."""
        labels = read_labels(self.settings.out / "labels/labels.jsonl", self.encoder)
        config = self.settings.figa
        if self.settings.model is None:
            config = Recipe(seed=self.settings.seed, config=self.demo.config).figa
        train_figa(self.start, labels, self.encoder, config, path)

    def answer(self, model: Path, path: Path) -> None:
        """Held-out prompts, greedily."""
        prompts = read_prompts(self.settings.out / "data/heldout.jsonl", empty_texts="keep")
        sampling = Sampling(max_new_tokens=self.settings.max_new_tokens, temperature=0)
        drawn = TransformersGenerator(load_causal(model).to(device()), self.encoder)(prompts, sampling)
        write_rows(path, [Demonstration(id=row.id, prompt=row.prompt, response=row.text) for row in drawn])

    def edit_cost(self, path: Path) -> None:
        """The words that the editor would change in either answer; in the mean over prompts where both could be edited.

        Raises:
            ValueError: there is no such prompt.
        """
        costs: dict[str, dict[str, int]] = {}
        reports = {}
        for name in ("start", "figa"):
            rows = read_demonstrations(path.with_name(f"{name}.jsonl"), empty_texts="keep")
            drafts = [Draft(id=row.id, prompt=row.prompt, response=row.response) for row in rows]
            found = edit_drafts(self.chat, drafts, self.settings.editor, guideline=self.guideline)
            costs[name] = {row.id: word_distance(row.original, row.edited) for row in found.corrections}
            reports[name] = found.report.as_dict()
        both = [id for id in costs["start"] if id in costs["figa"]]
        if not both:
            raise ValueError(f"the editor could edit both answers to none of {len(rows)} prompts: no comparison")
        mean = {name: sum(cost[id] for id in both) / len(both) for name, cost in costs.items()}
        write_json(path, {"prompts": len(rows), "edited": len(both), "edit_cost": mean, "editor": reports})

    def compare(self, path: Path) -> None:
        """What ``errata winrate`` does: the judge on both answers to every prompt, as numbers, page and Markdown."""
        old, new = (
            read_demonstrations(path.with_name(f"{name}.jsonl"), empty_texts="keep") for name in ("start", "figa")
        )
        editors = list(read_json(self.settings.out / "edits/report.json")["models"])
        date = datetime.now(UTC).isoformat(timespec="seconds")
        found, _ = contest({"figa": new}, old, self.judge, baseline_name="start", editors=editors, date=date)
        write_contest(path.with_name("contest.json"), found)
        for page, text in ((path.with_suffix(".md"), contest_markdown(found)), (path, contest_html(found))):
            with new_file(page) as partial:
                partial.write_text(text, encoding="utf-8")


def made_of(settings: Settings) -> dict[str, Any]:
    """What changes a number: the settings, what the files hold, and who edits and judges."""
    made = {key: each for key, each in asdict(settings).items() if key not in ("out", "judging", "client")}
    made |= {name: digest(getattr(settings, name)) for name in ("prompts", "guideline") if getattr(settings, name)}
    if settings.model is not None:
        made["model"] = identity(settings.model)
    if isinstance(settings, Flags):
        made |= {name: getattr(settings.client, name) for name in ("llm", "llm_url")}
        made |= {name: getattr(settings.judging, name) for name in ("judge", "judge_url")}
    return made


def guideline_of(settings: Settings) -> str:
    """What editor and judge are told."""
    if settings.guideline is not None:
        return settings.guideline.read_text(encoding="utf-8")
    return GUIDELINE if settings.model is None else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code."""
    flags = tyro.cli(Flags, args=argv)
    alone = flags.client.llm is None
    try:
        with serving(DemoChat(diligence=0.5)) if alone else nullcontext(flags.client.llm) as llm:
            client = replace(flags.client, llm=llm)
            editor = client.open()
            judge = editor if flags.judging.judge is None else flags.judging.open(client, shares=editor)
            name = flags.judging.judge or llm
            run(flags, editor, ChatJudge(judge, name=name, guideline=guideline_of(flags)))
    except ValueError as error:
        print(f"llm_road: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings, chat: Chat, judge: Judge) -> Contest:
    """Make what is missing; returns the judge's word on the old and the new model.

    Raises:
        ValueError: the folder holds a run with other settings, or the editor gave nothing to go on with.
    """
    if (settings.model is None) != (settings.prompts is None):
        raise ValueError("--model and --prompts go together; leave both out for the demo's world")
    out, console = settings.out, Console(width=120, highlight=False)
    stages = list(Road(settings, chat, judge).stages())
    # In this process they run one after the other as listed, so that needs are there without being named.
    run_stages(stages, out=out, settings=made_of(settings), workers=1, console=console)
    console.print(read_json(out / "edits/report.json")["text"], soft_wrap=True)
    console.print(told(read_json(out / "winrate/edit_cost.json")), soft_wrap=True)
    found = read_contest(out / "winrate/contest.json")
    console.print(contest_terminal(found))
    console.print(f"→ {out / 'winrate/report.html'}")
    return found


def told(found: Mapping[str, Any]) -> str:
    """The edit cost, for people."""
    cost = found["edit_cost"]
    return (
        f"on {found['edited']} of {found['prompts']} held-out prompts both answers could be edited: "
        f"{cost['start']:.2f} words to change in one of the old model, {cost['figa']:.2f} in one of the new"
    )


if __name__ == "__main__":
    sys.exit(main())
