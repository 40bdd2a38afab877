"""The verbs ``winrate``, which of several answers is better, and ``generate``, which writes answers to be judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import UseAppendAction

from errata.commands.client import ClientFlags
from errata.commands.shared import (
    RESUMES,
    EncodingFlags,
    RunFlags,
    Source,
    check_not_itself,
    console,
    is_model,
    set_aside,
)
from errata.data import Reading, read_corrections, read_demonstrations, read_prompts
from errata.ranges import Range, Ranged, Seed, Size
from errata.runs import new_file
from errata.types import Demonstration
from errata.winrate import (
    ChatJudge,
    Contest,
    Judge,
    Pair,
    PromptFile,
    Ruling,
    compare_rulings,
    contest,
    contest_html,
    contest_markdown,
    contest_terminal,
    generate,
    is_outputs,
    pair_up,
    read_annotations,
    read_outputs,
    read_verdicts,
    reference_judge,
    reward_judge,
    write_annotations,
    write_contest,
)
from errata.winrate.judges import PROMPT

__all__ = ["NO_VERDICT", "Generate", "WinRate"]

NO_VERDICT = 5
"""The exit code where an arm has no valid verdict."""


@dataclass(frozen=True, kw_only=True)
class WinRate(Ranged):
    """One or more models, or files of responses, against a baseline on the same prompts, with 95 % intervals.

    The judge is one of four: what people really sent (--references: fewer words to change wins, edit cost left is
    shown), a chat model asked in both orders (--llm), people's verdicts (--verdicts), or a reward model (--reward: a
    proxy; do not judge a policy by the reward model that it was trained on). Or take verdicts that are there:
    --annotations.

    Exit code 5 where an arm has no valid verdict: everything is written all the same, and there is no win rate of it.
    """

    codes = (NO_VERDICT,)

    candidate: Annotated[tuple[str, ...], UseAppendAction] = ()
    """A model (a folder, also of a LoRA adapter, a GGUF file, or owner/name or owner/name@revision of the Hub), a file
    of rows with id, prompt and response, a data set of the Hub (owner/name:split), or AlpacaEval's model outputs
    (.json); repeat it for several arms. NAME=PATH names the arm."""
    baseline: str | None = None
    """The same, to compare with."""
    references: Path | None = None
    """Corrections whose edited side is what people sent; their ids or order name the prompts."""
    reward: Path | None = None
    """A folder of `errata reward train`."""
    verdicts: Path | None = None
    """JSON lines with id, verdict (candidate, baseline, tie or invalid) and, for several arms, arm."""
    annotations: Path | None = None
    """AlpacaEval's annotations: both answers and the verdicts are in it, so no other side or judge is needed."""
    judge_prompt: Path | None = None
    """Of --llm: a prompt file instead of ours, with the places {request}, {first} and {second}."""
    guideline: str = ""
    """Of --llm: what counts as better here, told to the judge besides."""
    editor_model: Annotated[tuple[str, ...], UseAppendAction] = ()
    """The model whose edits the arms learned from, where their rows do not say so: a judge of its kin is biased."""
    group_by: str | None = None
    """A field of the baseline's rows: win rates by its values, too."""
    prompts: Path | None = None
    """Rows with prompt, for models to answer; with --references not needed."""
    temperature: Annotated[float, Range(low=0, high=100)] = 1.0
    """Of sampling; 0 is greedy. All sides decode alike."""
    max_new_tokens: Size = 256
    """Longest response, in tokens."""
    seed: Seed = 0
    """Of sampling and of the sign flips."""
    out: Path | None = None
    """Write the numbers and each prompt's verdict here as JSON."""
    report: Annotated[tuple[Path, ...], UseAppendAction] = ()
    """Write the report here: one HTML page (.html) or Markdown (.md); repeat it for both."""
    alpaca_eval: Path | None = None
    """Write the verdicts here as AlpacaEval's annotations (.json)."""
    client: Flat[ClientFlags] = ClientFlags()
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    running: Flat[RunFlags] = RunFlags()

    @property
    def stopped(self) -> str | None:
        """What Ctrl-C is answered, where a chat model judges."""
        return self.client.llm and f"no answer of the judge is paid for twice; {RESUMES}"

    def run(self) -> int:
        for path in self.report:
            if path.suffix not in (".html", ".md"):
                raise ValueError(f"--report {path}: name a file .html or .md")
        found, paired, rulings = self._annotated() if self.annotations else self._judged()
        console.print(contest_terminal(found), highlight=False)
        if self.out is not None:
            write_contest(self.out, found)
        if self.alpaca_eval is not None:
            name = found.judge.name
            write_annotations(self.alpaca_eval, paired, rulings, annotator=name, baseline=found.baseline)
        for path in self.report:
            text = contest_html(found) if path.suffix == ".html" else contest_markdown(found)
            with new_file(path) as partial:
                partial.write_text(text, encoding="utf-8")
        for written in (self.out, *self.report, self.alpaca_eval):
            if written is not None:
                console.print(f"→ {written}", highlight=False)
        return NO_VERDICT if any(arm.win_rate is None for arm in found.arms) else 0

    def _annotated(self) -> tuple[Contest, dict[str, list[Pair]], dict[str, list[Ruling]]]:
        assert self.annotations is not None
        if self.candidate or self.baseline or self.group_by:
            raise ValueError("--annotations holds both sides: leave --candidate, --baseline and --group-by out")
        paired, rulings, judge, baseline = read_annotations(self.annotations)
        found = compare_rulings(
            paired, rulings, judge, baseline_name=baseline, editors=self.editor_model, seed=self.seed, date=_now()
        )
        return found, paired, rulings

    def _judged(self) -> tuple[Contest, dict[str, list[Pair]], dict[str, list[Ruling]]]:
        given = (self.references, self.reward, self.verdicts, self.client.llm)
        if sum(one is not None for one in given) != 1:
            raise ValueError("give one judge: --references, --llm, --verdicts or --reward (or --annotations alone)")
        if not self.candidate or self.baseline is None:
            raise ValueError("give --candidate, once or more, and --baseline")
        sources = [_source(one) for one in (*self.candidate, self.baseline)]
        count = Counter(name or _stem(path) for name, path in sources)
        # Two files of one name are told apart by their paths.
        names = [name or (str(path) if count[_stem(path)] > 1 else _stem(path)) for name, path in sources]
        if len(set(names[:-1])) < len(names) - 1:
            raise ValueError(f"two arms of {', '.join(names[:-1])} are called alike; name them: --candidate NAME=PATH")
        *candidates, rows = [self._responses(path) for _, path in sources]
        arms = dict(zip(names, candidates, strict=False))
        judge = self._judge()
        found, rulings = contest(
            arms,
            rows,
            judge,
            baseline_name=f"{names[-1]} (baseline)" if names[-1] in arms else names[-1],
            group_field=self.group_by,
            editors=self.editor_model,
            seed=self.seed,
            date=_now(),
        )
        return found, pair_up(arms, rows), rulings

    def _judge(self) -> Judge:
        if self.references is not None:
            return reference_judge(read_corrections(self.references, **self.source.how), name=str(self.references))
        if self.reward is not None:
            return reward_judge(self.reward, self.encoding.encoder(self.reward))
        if self.verdicts is not None:
            return read_verdicts(self.verdicts)
        assert self.client.llm is not None
        prompt = PROMPT if self.judge_prompt is None else PromptFile.read(self.judge_prompt)
        return ChatJudge(self.client.open(), name=self.client.llm, prompt=prompt, guideline=self.guideline)

    def _responses(self, source: Path) -> list[Demonstration]:
        if not is_model(source):
            # A model that answers nothing has answered.
            how = Reading(**{**self.source.how, "empty_texts": "keep"})
            return read_outputs(source) if is_outputs(source) else read_demonstrations(source, **how)
        asked = self.prompts or self.references
        if asked is None:
            raise ValueError(f"{source} is a model; give --prompts for it to answer")
        from errata.models import Sampling, TransformersGenerator

        generator = TransformersGenerator(self.running.load(source), self.encoding.encoder(source))
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, seed=self.seed)
        rows = read_prompts(asked, **self.source.how)
        drawn = generator(rows, sampling)
        return [
            Demonstration(id=row.id, prompt=row.prompt, response=one.text, extra=row.extra)
            for row, one in zip(rows, drawn, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Generate(Ranged):
    """A model's answers to a file of prompts, to be judged or edited: greedy unless a temperature is given.

    Prompts are encoded as they are for training. Stopped at any moment, rerun the same command to resume.
    """

    stopped = RESUMES

    model: Path
    """A causal language model: a local folder (of a LoRA adapter, too), a GGUF file, or owner/name or
    owner/name@revision of the Hugging Face Hub."""
    prompts: Path
    """Rows with prompt; their further fields travel into the answers."""
    out: Path
    """Rows with id, prompt and response; or, with --form alpaca_eval, a .json file of model outputs."""
    temperature: Annotated[float, Range(low=0, high=100)] = 0.0
    """0 is greedy; else plain sampling, no top-k, no top-p."""
    samples: Size = 1
    """Answers for each prompt; with more than one their ids are ID#0, ID#1, …"""
    seed: Seed = 0
    """Of sampling."""
    max_new_tokens: Size = 256
    """Longest answer, in tokens."""
    name: str | None = None
    """What the answers' field generator says; the folder's name if not given."""
    form: Literal["rows", "alpaca_eval"] = "rows"
    """errata's rows, or AlpacaEval's model outputs."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """vllm where it is installed: the same ids go in, and other numbers come out."""
    chunk: Size = 64
    """Prompts answered at once; after each chunk the answers are on disk."""
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    running: Flat[RunFlags] = RunFlags()

    def run(self) -> None:
        check_not_itself(self.out, self.prompts)
        if self.form == "alpaca_eval" and self.out.suffix != ".json":
            raise ValueError(f"--out {self.out}: AlpacaEval reads JSON arrays; name a file .json")
        from errata.models import Sampling, TransformersGenerator, identity, load_vllm

        prompts = read_prompts(self.prompts, set_aside=set_aside(self.out), **self.source.how)
        encoder = self.encoding.encoder(self.model)
        settings: dict[str, Any] = {
            "model": identity(self.model),
            "tokenizer": encoder.fingerprint,
            "max_length": self.encoding.max_length,
            "backend": self.backend,
            # What was not asked for is no setting, so that answers from before these flags are gone on with.
            **({"running": asdict(self.running)} if self.running != RunFlags() else {}),
        }
        taken = generate(
            load_vllm(self.model, encoder, dtype=self.running.dtype)
            if self.backend == "vllm"
            else TransformersGenerator(self.running.load(self.model), encoder),
            prompts,
            Sampling(
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                samples=self.samples,
                seed=self.seed,
            ),
            self.out,
            name=self.name or self.model.resolve().name,
            settings=settings,
            form=self.form,
            chunk=self.chunk,
        )
        total = len(prompts) * self.samples
        before = f", {taken} of them by an earlier run" if taken else ""
        console.print(f"{total} answers{before} → {self.out}", highlight=False)


def _source(given: str) -> tuple[str | None, Path]:
    """NAME=PATH, or a path."""
    name, equals, path = given.partition("=")
    return (name, Path(path)) if equals and name and not Path(given).exists() else (None, Path(given))


def _stem(path: Path) -> str:
    return path.resolve().name if is_model(path) else path.stem


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
