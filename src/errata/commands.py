"""What each verb takes and does: one dataclass a verb, its fields are its flags, ``run`` composes rooms."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, get_type_hints

import tyro
import yaml
from rich.console import Console
from rich.text import Text
from transformers.utils import logging as transformers_logging
from tyro.conf import OmitArgPrefixes as Flat  # the fields of a stage's settings are flags of the verb itself

from errata.data import (
    Encoder,
    new_file,
    read_corrections,
    read_demonstrations,
    read_preferences,
    read_prompts,
    write_rows,
)
from errata.demo.pipeline import run_demo
from errata.demo.recipe import DemoConfig
from errata.edits import diff, statistics, word_distance
from errata.labels import count_labels, label_all, read_labels, write_labels
from errata.models import Sampling, TransformersGenerator, device, load_causal, load_tokenizer
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    load_scorer,
    localisation,
    pair_accuracy,
    score_texts,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.tuning import DPOConfig, FIGAConfig, PPOConfig, SFTConfig, dpo, figa, ppo, sft
from errata.tuning.figa import PAPER as FIGA_PAPER
from errata.tuning.ppo import PAPER as PPO_PAPER
from errata.tuning.ppo import SEQUENCE as PPO_SEQUENCE
from errata.types import Correction, Demonstration, Edit, Op, TokenLabels, Unit
from errata.views import edits_page, labels_to_terminal
from errata.winrate import bootstrap_interval, verdicts_from_scores

__all__ = ["COMMANDS", "Command", "parse"]

console = Console()


class Command(Protocol):
    """A verb with its flags read."""

    def run(self) -> None:
        """Do it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole road on an embedded world, in minutes, on a laptop: corrections in, better models and a report out.

    Everything is made here: a tiny model, its flawed answers, their corrections, reward models, nine policies, and an
    evaluation that says which is better and by how much. Stop it at any moment; the same command goes on.
    """

    settings: Flat[DemoConfig]

    def run(self) -> None:
        run_demo(self.settings, console)


@dataclass(frozen=True, kw_only=True)
class EditsDiff:
    """Show what an edit changes: of two texts, or of every row of a file.

    With --out, each row is written with its edits: op and character spans of both sides.
    """

    original: str | None = None
    """A text, beside --edited."""
    edited: str | None = None
    """Its correction."""
    data: Path | None = None
    """A file of corrections instead: prompt with rejected and chosen, original and edited, or draft and sent."""
    unit: Unit = Unit.WORD
    """What one edit changes; token is the papers' choice and needs --model."""
    model: Path | None = None
    """A model folder, for its tokenizer."""
    out: Path | None = None
    """Write JSON lines here instead of showing the edits."""

    def run(self) -> None:
        rows = self._rows()
        tokenizer = None if self.model is None else load_tokenizer(self.model)
        found = [(row, diff(row.original, row.edited, self.unit, tokenizer)) for row in rows]
        if self.out is None:
            for row, edits in found:
                console.print(f"[dim]{row.id}[/dim]", _marked(edits), sep="\n", highlight=False)
        else:
            with new_file(self.out) as partial, partial.open("w", encoding="utf-8") as file:
                for row, edits in found:
                    file.write(json.dumps({"id": row.id, "edits": [_spelled(edit) for edit in edits]}) + "\n")
        console.print(statistics(rows), highlight=False)

    def _rows(self) -> list[Correction]:
        if self.data is not None and self.original is None and self.edited is None:
            return read_corrections(self.data)
        if self.data is None and self.original is not None and self.edited is not None:
            return [Correction(id="edit", prompt="", original=self.original, edited=self.edited)]
        raise ValueError("give --data, or --original and --edited")


@dataclass(frozen=True, kw_only=True)
class EditsImport:
    """Turn a file of corrections into edits.jsonl, whose rows are preference rows too (chosen = edited).

    Reads JSONL, CSV and Parquet with prompt and (rejected, chosen), (original, edited) or (draft, sent). Bad rows are
    written beside --out with their line numbers and what to mend; the good ones go on.
    """

    data: Path
    """The file to read."""
    out: Path
    """The file to write: .jsonl, .jsonl.gz or .parquet."""

    def run(self) -> None:
        rows = read_corrections(self.data, set_aside=_set_aside(self.out))
        write_rows(self.out, rows)
        console.print(statistics(rows), highlight=False)


@dataclass(frozen=True, kw_only=True)
class EncodingFlags:
    """How a prompt and a response become ids."""

    template: str = "auto"
    """auto: the chat template where there is one, else the prompt and a line break; or a text with {prompt}."""
    max_length: int | None = None
    """The most tokens of a row; a longer one is an error that names it."""

    def encoder(self, model: Path) -> Encoder:
        return Encoder(load_tokenizer(model), template=self.template, max_length=self.max_length)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Edits → one label for every token: kept, inserted, deleted, substituted; each side of a pair has its own."""

    edits: Path
    """Corrections, as of `errata edits import`."""
    model: Path
    """A model folder, for its tokenizer."""
    out: Path
    """labels.jsonl; it names the tokenizer that it was made with."""
    unit: Unit = Unit.WORD
    """What one edit changes; a changed word marks all of its tokens."""
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.model)
        rows = list(label_all(read_corrections(self.edits, set_aside=_set_aside(self.out)), encoder, unit=self.unit))
        write_labels(self.out, rows, encoder)
        console.print(count_labels(rows), highlight=False)


@dataclass(frozen=True, kw_only=True)
class RewardTrain:
    """Train a reward model: one reward a token from edits, or one a response from preferences or edits.

    The token-level objective `classes` finds the tokens that an editor would change; `eq3` is the paper's Eq 3.
    """

    model: Path
    """The model to start from; its backbone gets a head of one number."""
    data: Path
    """Corrections (token and sequence) or preferences (sequence)."""
    out: Path
    """Folder of the reward model; plain transformers loads it."""
    kind: Literal["token", "sequence"] = "token"
    """What one reward is given for."""
    objective: Literal["classes", "eq3"] = "classes"
    """Of a token-level model."""
    unit: Unit = Unit.WORD
    """Of the edits that labels are made from."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[TokenRewardConfig] = TokenRewardConfig()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.model)
        if self.kind == "sequence":
            rows = read_preferences(self.data, set_aside=_set_aside(self.out))
            card = train_sequence_reward(self.model, rows, encoder, _as(RewardConfig, self.settings), self.out)
        else:
            edits = read_corrections(self.data, set_aside=_set_aside(self.out))
            labels = list(label_all(edits, encoder, unit=self.unit))
            if self.objective == "eq3":
                settings = _as(RewardConfig, self.settings)
                card = train_token_reward_bradley_terry(self.model, labels, encoder, settings, self.out)
            else:
                card = train_token_reward(self.model, labels, encoder, self.settings, self.out)
        _tell(card, self.out)


@dataclass(frozen=True, kw_only=True)
class RewardScore:
    """Responses → rewards: for each row the sum, and one number for every token with its text."""

    reward: Path
    """A folder of `errata reward train`."""
    data: Path
    """Rows with prompt and response."""
    out: Path
    """JSON lines: id, reward, tokens, token_rewards."""
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.reward)
        rows = read_demonstrations(self.data, set_aside=_set_aside(self.out))
        encoded = [encoder.encode(row.prompt, row.response) for row in rows]
        streams = load_scorer(self.reward, encoder)(encoded)
        with new_file(self.out) as partial, partial.open("w", encoding="utf-8") as file:
            for row, one, stream in zip(rows, encoded, streams, strict=True):
                tokens = [row.response[start:stop] for start, stop in one.offsets]
                line = {"id": row.id, "reward": sum(stream), "tokens": tokens, "token_rewards": stream}
                file.write(json.dumps(line) + "\n")
        console.print(f"{len(rows)} responses scored → {self.out}", highlight=False)


@dataclass(frozen=True, kw_only=True)
class RewardEval:
    """Is the reward model right? Accuracy on pairs, and AUC of bad against other tokens."""

    reward: Path
    """A folder of `errata reward train`."""
    data: Path
    """Corrections or preferences that it was not trained on."""
    out: Path | None = None
    """Write the numbers here as JSON, too."""
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.reward)
        scorer = load_scorer(self.reward, encoder)
        labels = [row for row in label_all(read_corrections(self.data), encoder) if _changed(row)]
        found: dict[str, Any] = {
            "rows": len(labels),
            "pair_accuracy": pair_accuracy(
                score_texts(scorer, [row.edited.encoded for row in labels]),
                score_texts(scorer, [row.original.encoded for row in labels]),
            ),
        }
        found |= {f"auc_{key}": value for key, value in localisation(scorer, labels)._asdict().items()}
        _report(found, self.out)


@dataclass(frozen=True, kw_only=True)
class TuneSFT:
    """Imitate responses, or the corrected side of edits: every response token has weight 1."""

    model: Path
    """A causal language model in a local folder."""
    data: Path
    """Rows with prompt and response (or completion, or chosen); an edits file is one."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[SFTConfig] = SFTConfig()

    def run(self) -> None:
        rows = read_demonstrations(self.data, set_aside=_set_aside(self.out))
        _tell(sft(self.model, rows, self.encoding.encoder(self.model), self.settings, self.out), self.out)


@dataclass(frozen=True, kw_only=True)
class TuneFIGA:
    """FIGA: imitate what the editor wrote, unlearn what the editor struck out; no reward model, no sampling.

    --preset paper sets the paper's weights: 1 on written, 0 on kept, 0.5 on struck-out tokens, gate 0.6.
    """

    model: Path
    """A causal language model in a local folder."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    edits: Path | None = None
    """Corrections; or give --labels."""
    labels: Path | None = None
    """A file of `errata labels` made with this model's tokenizer."""
    unit: Unit = Unit.WORD
    """Of the edits that labels are made from."""
    preset: Literal["default", "paper"] = "default"
    """Whose settings stand under what else is given."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[FIGAConfig] = FIGAConfig()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.model)
        if (self.edits is None) == (self.labels is None):
            raise ValueError("give either --edits or --labels")
        if self.labels is not None:
            rows = read_labels(self.labels, encoder)
        else:
            assert self.edits is not None
            edits = read_corrections(self.edits, set_aside=_set_aside(self.out))
            rows = list(label_all(edits, encoder, unit=self.unit))
        console.print(count_labels(rows), highlight=False)
        _tell(figa(self.model, rows, encoder, self.settings, self.out), self.out)


@dataclass(frozen=True, kw_only=True)
class TuneDPO:
    """Direct preference optimisation on preferences, or on edits (corrected over original)."""

    model: Path
    """A causal language model in a local folder; also the reference."""
    data: Path
    """Rows with prompt, chosen and rejected; an edits file is one."""
    out: Path
    """Folder of the tuned model; plain transformers loads it."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[DPOConfig] = DPOConfig()

    def run(self) -> None:
        rows = read_preferences(self.data, set_aside=_set_aside(self.out))
        _tell(dpo(self.model, rows, self.encoding.encoder(self.model), self.settings, self.out), self.out)


@dataclass(frozen=True, kw_only=True)
class TunePPO:
    """Fine-grained PPO on a token-level reward model; ordinary PPO on a sequence-level one (--preset sequence).

    The defaults keep dense rewards sane (discount .5, KL .1); --preset paper sets the paper's recipe.
    """

    model: Path
    """The policy to start from, also the reference of the KL penalty."""
    reward: Path
    """A folder of `errata reward train`, with the same tokenizer."""
    prompts: Path
    """Rows with prompt; an edits file is one."""
    out: Path
    """Folder of the tuned model, with metrics.jsonl; plain transformers loads it."""
    critic: Path | None = None
    """A model to start the critic from; the policy, if not given."""
    preset: Literal["default", "paper", "sequence"] = "default"
    """Whose settings stand under what else is given."""
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[PPOConfig] = PPOConfig()

    def run(self) -> None:
        prompts = read_prompts(self.prompts, set_aside=_set_aside(self.out))
        encoder = self.encoding.encoder(self.model)
        card = ppo(self.model, self.reward, prompts, encoder, self.settings, self.out, critic=self.critic)
        _tell(card, self.out)


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """Two models, or two files of responses, against each other on the same prompts, with a 95 % interval.

    The judge is either what people really sent (--references: fewer words to change wins, and edit cost left is shown)
    or a reward model (--reward: a proxy; do not judge a policy by the reward model that it was trained on).
    """

    candidate: Path
    """A model folder, or a file of rows with id, prompt and response."""
    baseline: Path
    """The same, to compare with."""
    references: Path | None = None
    """Corrections whose edited side is what people sent; their ids or order name the prompts."""
    reward: Path | None = None
    """A folder of `errata reward train`."""
    prompts: Path | None = None
    """Rows with prompt, for models to answer; with --references not needed."""
    temperature: float = 1.0
    """Of sampling; 0 is greedy. Both sides decode alike."""
    max_new_tokens: int = 256
    """Longest response, in tokens."""
    seed: int = 0
    """Of sampling and of the bootstrap."""
    out: Path | None = None
    """Write the numbers and each prompt's verdict here as JSON."""
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        if (self.references is None) == (self.reward is None):
            raise ValueError("give a judge: either --references or --reward")
        sides = {"candidate": self._responses(self.candidate), "baseline": self._responses(self.baseline)}
        scores = {name: self._scores(rows) for name, rows in sides.items()}
        verdicts = verdicts_from_scores(scores["candidate"], scores["baseline"])
        interval = bootstrap_interval([verdict.score for verdict in verdicts], seed=self.seed)
        found: dict[str, Any] = {
            "prompts": len(verdicts),
            "win_rate": interval.mean,
            "ci_low": interval.low,
            "ci_high": interval.high,
        }
        for name in sides:
            mean = sum(scores[name].values()) / len(scores[name])
            found[f"{name}_{'edit_cost' if self.references else 'reward'}"] = -mean if self.references else mean
        _report(found, self.out, verdicts={verdict.id: verdict.score for verdict in verdicts})

    def _responses(self, source: Path) -> list[Demonstration]:
        if not source.is_dir():
            return read_demonstrations(source)
        asked = self.prompts or self.references
        if asked is None:
            raise ValueError(f"{source} is a model; give --prompts for it to answer")
        generator = TransformersGenerator(load_causal(source).to(device()), self.encoding.encoder(source))
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, seed=self.seed)
        drawn = generator(read_prompts(asked), sampling)
        return [Demonstration(id=row.id, prompt=row.prompt, response=row.text) for row in drawn]

    def _scores(self, rows: Sequence[Demonstration]) -> Mapping[str, float]:
        if self.references is not None:
            sent = {row.id: row.edited for row in read_corrections(self.references)}
            missing = [row.id for row in rows if row.id not in sent]
            if missing:
                raise ValueError(f"no reference for the prompt {missing[0]!r} ({len(missing)} in all); add or drop it")
            return {row.id: -float(word_distance(row.response, sent[row.id])) for row in rows}
        assert self.reward is not None
        encoder = self.encoding.encoder(self.reward)
        encoded = [encoder.encode(row.prompt, row.response) for row in rows]
        return dict(zip((row.id for row in rows), score_texts(load_scorer(self.reward, encoder), encoded), strict=True))


@dataclass(frozen=True, kw_only=True)
class View:
    """Labelled edits as coloured tokens: in the terminal, or with --out as one self-contained HTML file."""

    model: Path
    """A model folder, for its tokenizer."""
    edits: Path | None = None
    """Corrections; or give --labels."""
    labels: Path | None = None
    """A file of `errata labels` made with this model's tokenizer."""
    out: Path | None = None
    """The HTML file; without it the first rows are shown here."""
    rows: int = 20
    """How many rows to show."""
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.model)
        if (self.edits is None) == (self.labels is None):
            raise ValueError("give either --edits or --labels")
        if self.labels is not None:
            pairs = read_labels(self.labels, encoder)
        else:
            assert self.edits is not None
            pairs = list(label_all(read_corrections(self.edits), encoder))
        shown = pairs[: self.rows]
        if self.out is None:
            for pair in shown:
                console.print(labels_to_terminal(pair))
        else:
            with new_file(self.out) as partial:
                partial.write_text(edits_page(shown, title=str(self.edits or self.labels)), encoding="utf-8")
        console.print(f"{len(shown)} of {len(pairs)} rows shown", highlight=False)


COMMANDS: Mapping[str, type[Any]] = {
    "demo": Demo,
    "edits diff": EditsDiff,
    "edits import": EditsImport,
    "labels": Labels,
    "reward train": RewardTrain,
    "reward score": RewardScore,
    "reward eval": RewardEval,
    "tune sft": TuneSFT,
    "tune figa": TuneFIGA,
    "tune dpo": TuneDPO,
    "tune ppo": TunePPO,
    "winrate": WinRate,
    "view": View,
}

PRESETS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("tune figa", "paper"): FIGA_PAPER,
    ("tune ppo", "paper"): PPO_PAPER,
    ("tune ppo", "sequence"): PPO_SEQUENCE,
}


def parse(verb: str, arguments: Sequence[str]) -> Command:
    """Read the flags of a verb; ``--preset`` stands under ``--config``, which stands under what is typed.

    Raises:
        ValueError: the config file is no mapping, or has a key that the verb does not know (names the nearest).
    """
    kind = COMMANDS[verb]
    path, typed = _take_config(arguments)
    from_file = _flags(_read_config(path, kind)) if path else []
    preset = _preset([*from_file, *typed])
    under = _flags(PRESETS.get((verb, preset), {}))
    transformers_logging.disable_progress_bar()
    command: Command = tyro.cli(
        kind,
        args=[*under, *from_file, *typed],
        prog=f"errata {verb}",
        config=(tyro.conf.FlagConversionOff, tyro.conf.EnumChoicesFromValues),
    )
    return command


def _take_config(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """``--config FILE`` is not a flag of any verb: it stands for flags."""
    rest, path = list(arguments), None
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            path, rest = Path(arguments[index + 1]), [*arguments[:index], *arguments[index + 2 :]]
        elif argument.startswith("--config="):
            path, rest = Path(argument.partition("=")[2]), [*arguments[:index], *arguments[index + 1 :]]
    return path, rest


def _preset(flags: Sequence[str]) -> str:
    named = [after for flag, after in pairwise(flags) if flag == "--preset"]
    named += [flag.partition("=")[2] for flag in flags if flag.startswith("--preset=")]
    return named[-1] if named else "default"


def _read_config(path: Path, kind: type[Any]) -> dict[str, Any]:
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no mapping; write one `key: value` a line")
    known = list(_field_names(kind))
    for key, value in settings.items():
        if str(key).replace("-", "_") not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ValueError(f"{path}: unknown key {key!r}; did you mean {near!r}?")
        if isinstance(value, dict | list):
            raise ValueError(f"{path}: key {key!r} holds {type(value).__name__}; every key takes one value")
    return settings


def _field_names(kind: type[Any]) -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _field_names(hint)
        else:
            yield name


def _flags(settings: Mapping[str, Any]) -> list[str]:
    return [f"--{str(key).replace('_', '-')}={value}" for key, value in settings.items()]


def _set_aside(out: Path) -> Path:
    """Where rows that could not be read are kept, beside what was made of the others."""
    return out.with_name(f"{out.name}.bad_rows.jsonl")


def _as(kind: type[Any], settings: Any) -> Any:
    """The fields of ``settings`` that a more general class of settings has, too."""
    return kind(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)})


def _changed(row: TokenLabels) -> bool:
    return any(row.original.labels) or any(row.edited.labels)


def _tell(card: Mapping[str, Any], out: Path) -> None:
    _report({key: value for key, value in card.items() if isinstance(value, int | float | str)}, None)
    console.print(f"→ {out}", highlight=False)


def _report(found: Mapping[str, Any], out: Path | None, **more: Any) -> None:
    for key, value in found.items():
        console.print(f"{key:28} {value:.4f}" if isinstance(value, float) else f"{key:28} {value}", highlight=False)
    if out is not None:
        with new_file(out) as partial:
            partial.write_text(json.dumps({**found, **more}, indent=1) + "\n", encoding="utf-8")


def _spelled(edit: Edit) -> dict[str, Any]:
    sides = {"original": edit.original, "edited": edit.edited}
    return {"op": edit.op.value, **{name: [span.start, span.stop] for name, span in sides.items()}}


def _marked(edits: Sequence[Edit]) -> Text:
    """The edit as one line: struck out what went, underlined what came."""
    line = Text()
    for edit in edits:
        if edit.op is Op.KEEP:
            line.append(edit.original.text)
        else:
            line.append(edit.original.text, style="strike red")
            line.append(edit.edited.text, style="underline green")
    return line
