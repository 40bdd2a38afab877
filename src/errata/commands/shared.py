"""What the verbs share: the console, the flags of encoding, and how results are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Protocol

from rich.console import Console
from tyro.conf import UseAppendAction, arg

from errata.data import FORMATS, EmptyTexts, Encoder, FormatName, OnLong, Reading
from errata.data.encoding import load_encoder
from errata.edits import Normalizer, kinds_of
from errata.labels import LabelRules
from errata.labels.rules import DEFAULT
from errata.pretrained import is_hub_id
from errata.pretrained.kinds import Attention, Dtype, Precision
from errata.ranges import Ranged, Size
from errata.runs import new_file

__all__ = [
    "RESUMES",
    "RESUMES_TRAINING",
    "Command",
    "EncodingFlags",
    "NormalizeFlags",
    "RunFlags",
    "Source",
    "check_labels_stand",
    "check_not_itself",
    "choice_of",
    "console",
    "is_model",
    "report",
    "set_aside",
    "tell",
    "tell_normalized",
    "with_methods",
]


class _Console(Console):
    """Where nobody reads on (`| head`), the program ends as it does elsewhere, and not as after wrong input."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


console = _Console()

RESUMES = "rerun the same command to resume"
"""What a verb says when it is stopped and nothing that it finished is lost; one that says nothing starts over."""
RESUMES_TRAINING = f"{RESUMES} from the last checkpoint (--save-every)"


class Command(Protocol):
    """A verb with its flags read; ``codes`` of its class are the exit codes that it has beside the general ones."""

    def run(self) -> int | None:
        """Do it; what is not None is the exit code."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """How files of rows are read, where their names and first rows do not say it."""

    columns: Annotated[tuple[tuple[str, ...], ...], UseAppendAction] = ()
    """Names of columns as NAME=COLUMN, several after one another: draft=model_output sent=final_text. A field inside of
    another is data.draft."""
    encoding: str | None = None
    """Of a file of text, such as cp1252; else it is recognised, and said."""
    delimiter: Annotated[str | None, arg(aliases=["--sep"])] = None
    """Between the cells of a table, such as ; or tab; else it is recognised, and said."""
    from_: Annotated[Literal["auto"] | FormatName, arg(name="from")] = "auto"
    """The published format of corrections; auto judges by the first 100 rows and says why."""
    empty_texts: EmptyTexts = "skip"
    """skip: leave out rows whose text is empty, and count them: nobody filled them in. keep: an empty text is meant."""

    @property
    def how(self) -> Reading:
        """What the readers of ``errata.data`` take."""
        columns: dict[str, str] = {}
        for given in (one for several in self.columns for one in several):
            name, sign, column = given.partition("=")
            if not name or not column or name in columns:
                why = "is given twice" if sign and name in columns else "is not NAME=COLUMN"
                raise ValueError(f"--columns {given!r} {why}; write for example draft=model_output sent=final_text")
            columns[name] = column
        return Reading(
            columns=columns,
            encoding=self.encoding,
            delimiter=self.delimiter,
            form=None if self.from_ == "auto" else FORMATS[self.from_],
            empty_texts=self.empty_texts,
        )


@dataclass(frozen=True, kw_only=True)
class EncodingFlags(Ranged):
    """How a prompt and a response become ids."""

    template: str = "auto"
    """auto: the chat template where there is one, else the prompt and a line break; or a text with {prompt}."""
    max_length: Size | None = None
    """The most tokens of a row: prompt, response and control tokens together."""
    on_long: OnLong = OnLong.ERROR
    """What becomes of a row longer than --max-length. `error`: stop and name it. `drop`: leave it out, both sides of a
    pair, and count it. `truncate`: cut the end off the response, ids, labels and weights together, and count the
    tokens; such a response no longer ends, so it teaches nothing about when to stop. A prompt is never cut: one that
    leaves no room for a response is dropped. The counts stand in the card."""

    def encoder(self, model: Path) -> Encoder:
        return self.loader(model)()

    def loader(self, model: Path) -> Callable[[], Encoder]:
        """The same to be done elsewhere: what another process needs to import for it is little."""
        return partial(load_encoder, model, template=self.template, max_length=self.max_length, on_long=self.on_long)


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """In what a model computes that only answers."""

    attention: Attention = "auto"
    """Implementation of attention: auto leaves it to transformers (sdpa where the model has it). flash_attention_2 and
    3 need their package and a GPU."""
    dtype: Dtype = "auto"
    """What is computed in. auto: the type that most of the weights are stored in."""

    def load(self, model: Path | str) -> Any:
        """A causal language model where this process computes."""
        from errata.models import device, load_causal

        precision: Precision = "bfloat16" if self.dtype == "bfloat16" else "saved" if self.dtype == "auto" else "master"
        return load_causal(model, precision=precision, attention=self.attention).to(device())


@dataclass(frozen=True, kw_only=True)
class NormalizeFlags:
    """What is folded in both texts of a correction before anything is made of it."""

    normalize: str = "none"
    """Fold what programs change and nobody means, in both texts and never in the prompt: kinds with commas between,
    all, or none. Kinds: newlines, nfc, zero-width, soft-hyphens, variation-selectors, spaces, blanks, trailing, edges,
    quotes, dashes, ellipsis, entities, br. `errata edits stats` says which of them your rows have. What is folded is
    counted; sampled ids of a draft that changes are dropped."""

    def normalizer(self) -> Normalizer:
        """Folds rows and counts; raises ValueError for a kind that is none."""
        return Normalizer(kinds_of(self.normalize))


def choice_of(names: Sequence[str]) -> Any:
    """The type of a flag that takes one of some names that are known late."""
    return Literal[tuple(names)]


def with_methods(kind: type[Any], methods: Sequence[str], **more: tuple[Any, Any]) -> type[Any]:
    """A verb whose ``--method`` takes these names.

    Args:
        kind: its dataclass.
        methods: the names.
        more: types and defaults of other fields, by name.
    """
    fields = [("method", choice_of(methods), kind.method), *((name, *field) for name, field in more.items())]
    made = make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True, kw_only=True)
    made.__doc__, made.__module__ = kind.__doc__, kind.__module__
    return made


def tell_normalized(normalizer: Normalizer) -> None:
    """Print what was folded, where something was to be."""
    if normalizer.kinds:
        console.print(str(normalizer), highlight=False, markup=False, soft_wrap=True)


def set_aside(out: Path) -> Path:
    """Where rows that could not be read are kept, beside what was made of the others."""
    return out.with_name(f"{out.name}.bad_rows.jsonl")


def check_labels_stand(
    rules: LabelRules,
    encoding: EncodingFlags,
    normal: NormalizeFlags = NormalizeFlags(),
    *,
    usual: LabelRules = DEFAULT,
) -> None:
    """Refuse flags that a file of labels cannot follow any more; ``usual`` is what nobody asked for.

    Raises:
        ValueError: they say how edits become labels.
    """
    if rules != usual or encoding.max_length is not None or normal.normalizer().kinds:
        raise ValueError(
            "--unit, --ties, --omissions, --inventions, --reasoning, --max-length and --normalize say how edits become "
            "labels, and --labels holds labels; leave them out, or give --edits"
        )


def is_model(source: Path) -> bool:
    """Whether it is a model rather than a file of rows: a folder, or a name of the Hugging Face Hub.

    What is not there and ends as files of rows do is a file that is missing.
    """
    rows = {".json", ".jsonl", ".csv", ".parquet", ".gz"}
    return source.is_dir() or source.suffix == ".gguf" or (is_hub_id(source) and source.suffix not in rows)


def check_not_itself(out: Path | None, *sources: Path | None) -> None:
    """Refuse to write over what is read.

    Raises:
        ValueError: ``out`` is one of the sources.
    """
    if out is not None and out.resolve() in [source.resolve() for source in sources if source is not None]:
        raise ValueError(f"{out} would take the place of the rows it is made of; name another file")


def tell(card: Mapping[str, Any], out: Path) -> None:
    """Print the plain values of a card, and where the model is."""
    report({key: value for key, value in card.items() if isinstance(value, int | float | str)}, None)
    console.print(f"→ {out}", highlight=False)


def report(found: Mapping[str, Any], out: Path | None, **more: Any) -> None:
    """Print figures, and write them with ``more`` to ``out`` as JSON."""
    for key, value in found.items():
        console.print(f"{key:28} {value:.4f}" if isinstance(value, float) else f"{key:28} {value}", highlight=False)
    if out is not None:
        with new_file(out) as partial:
            partial.write_text(json.dumps({**found, **more}, indent=1) + "\n", encoding="utf-8")
