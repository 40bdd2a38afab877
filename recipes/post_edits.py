"""Real corrections, from file to figures: human post-edits of machine translations, and a reward for every token.

Human post-edits (MLQE-PE, Romanian and Estonian into English) become edits, token labels and a token-level reward
model whose prompt is the source sentence. It is asked which words of unseen translations a person would change, and
its answers are held against the gold OK/BAD tags, beside two honest baselines: prevalence, and the surprise of the
language model that the reward model was made from.

    python recipes/post_edits.py --data ../shared/data --out runs/post_edits

Rows have ``id, prompt, rejected, chosen, lang`` and ``word_tags``: OK or BAD for each word of ``rejected`` split on
spaces. A run that was stopped goes on at the first stage that is not there. What came out: docs/post_edits.md.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import tyro
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from errata.data import Encoder, read_corrections, write_rows
from errata.edits import statistics
from errata.labels import changed, count_labels, label_all, read_labels, write_labels
from errata.models import load_causal, load_tokenizer, pad, save_model, to_lists, token_logprobs
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    load_scorer,
    train_token_reward,
    train_token_reward_bradley_terry,
    word_lows,
)
from errata.reward.train import ClassObjective, PairObjective
from errata.runs import StageFolder, digest, new_file, new_folder
from errata.tuning import SFTConfig, demonstrations, train_sft
from errata.types import Correction, Encoded, TokenLabels

__all__ = ["Settings", "main", "run"]

TRAIN = "mlqe_pe_ro-en_et-en_train.jsonl.gz"
DEV = ("mlqe_pe_ro-en_et-en_dev.jsonl.gz", "mlqe_pe_en-de_dev.jsonl.gz")
RESAMPLES = 1000
Objective = ClassObjective | PairObjective
OBJECTIVES: Mapping[Objective, str] = {
    "classes": "classes of changed tokens",
    "soft": "soft targets for all tokens",
    "eq3": "Eq 3 (token Bradley-Terry)",
    "changed_mean": "Bradley-Terry on the mean of changed tokens",
    "changed_sum": "Bradley-Terry on the sum of changed tokens",
}

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Suspicion = Callable[[Sequence[Encoded]], list[list[float]]]
"""Rows to one number for each response token: the higher, the more likely is the token to be changed."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Human post-edits → token labels → a token-level reward model → held against gold OK/BAD word tags."""

    data: Path = Path(__file__).resolve().parents[2] / "shared" / "data"
    """Folder of the MLQE-PE files; where they are missing the recipe says so and ends well."""
    out: Path = Path("runs/post_edits")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    train_rows: int = 13_000
    """Rows to train on, at most."""
    heldout_rows: int = 1000
    """Rows of the training file that nothing is trained on; thresholds are chosen on them, never on dev."""
    dev_rows: int = 1000
    """Rows of each language pair to measure on, at most."""
    vocabulary: int = 4000
    """Pieces of the tokenizer, which is trained on the training rows."""
    hidden_size: int = 64
    """Of the tiny Llama."""
    layers: int = 3
    """Of the tiny Llama."""
    language_epochs: float = 2.0
    """Passes over the post-edited sentences, to make a language model."""
    reward_epochs: float = 2.0
    """Passes over the labelled pairs, to make a reward model of it."""
    objectives: tuple[Objective, ...] = ("eq3", "classes")
    """What reward models learn by, each a model; those of `errata reward train --objective`."""
    seed: int = 0
    """Of all that is drawn."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code, which is 0 where the data is missing, too."""
    settings = tyro.cli(Settings, args=argv)
    missing = [name for name in (TRAIN, *DEV) if not (settings.data / name).exists()]
    if missing:
        print(f"post_edits is skipped: there is no {missing[0]} in {settings.data}; say where it is with --data")
        return 0
    transformers_logging.disable_progress_bar()
    try:
        run(settings)
    except KeyboardInterrupt:
        print("\npost_edits: stopped; rerun the same command to resume", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"post_edits: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings) -> dict[str, Any]:
    """The whole road; returns what ``summary.json`` holds.

    Raises:
        ValueError: the folder holds a run with other settings, or a file of the data is not what it should be.
    """
    data = {name: digest(settings.data / name) for name in (TRAIN, *DEV)}
    with stages(settings, data) as stage:
        return _run(settings, stage)


def _run(settings: Settings, stage: Stages) -> dict[str, Any]:
    out = settings.out
    edits, labels, blank, language_model = out / "edits", out / "labels", out / "data/blank", out / "data/language"

    stage(edits, partial(import_edits, settings), "post-edits, some of the training rows held out")
    train = read_corrections(edits / "train.jsonl", empty_texts="keep")
    stage.note(statistics(train))

    stage(blank, partial(make_blank, settings, train), "a tokenizer of the training text, a Llama that knows nothing")
    encoder = Encoder(load_tokenizer(blank))
    stage(
        language_model,
        lambda path: train_sft(blank, demonstrations(train), encoder, _language(settings), path),
        "it learns to write the post-edited sentence, given its source",
    )

    def label(path: Path) -> None:
        write_labels(path, label_all(read_corrections(edits / path.name, empty_texts="keep"), encoder), encoder)

    sets = ["train", "heldout", *sorted(path.stem for path in edits.glob("dev_*.jsonl"))]
    for name in sets:
        stage(labels / f"{name}.jsonl", label, "the edits as one label for every token")
    rows = read_labels(labels / "train.jsonl", encoder)
    stage.note(count_labels(rows))

    for name in settings.objectives:
        stage(
            out / "reward" / name,
            partial(train_reward, settings, name, language_model, rows, encoder),
            f"token-level reward model, by {OBJECTIVES[name]}",
        )
    stage(out / "summary.json", partial(measure, settings, sets[1:], encoder), "which words would a person change?")
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    stage.console.print(*_tables(summary), sep="\n")
    stage.console.print(f"\nMCC and AUC with 95 % bootstrap intervals over sentences. Numbers: {out / 'summary.json'}")
    return summary


def _language(settings: Settings) -> SFTConfig:
    return SFTConfig(
        learning_rate=4e-3,
        epochs=settings.language_epochs,
        batch_size=32,
        micro_batch_size=32,
        schedule="cosine",
        warmup_steps=20,
        seed=settings.seed,
    )


def train_reward(
    settings: Settings, objective: Objective, start: Path, rows: Sequence[TokenLabels], encoder: Encoder, out: Path
) -> None:
    """A reward model by one of the objectives, at the same settings."""
    how = {
        "learning_rate": 1e-3,
        "epochs": settings.reward_epochs,
        "batch_size": 32,
        "schedule": "linear",
        "seed": settings.seed,
    }
    if objective == "classes" or objective == "soft":
        train_token_reward(start, rows, encoder, TokenRewardConfig(**how), out, objective=objective)
    else:
        train_token_reward_bradley_terry(start, rows, encoder, RewardConfig(**how), out, objective=objective)


class Stages:
    """Each stage makes one file or folder in one step, and is passed over where that is there."""

    def __init__(self, folder: StageFolder) -> None:
        self.folder, self.out, self.console = folder, folder.out, Console(highlight=False, soft_wrap=True)

    def __call__(self, path: Path, make: Callable[[Path], object], what: str) -> None:
        name = str(path.relative_to(self.out))
        if self.folder.is_made(path):
            self.console.print(f"{name:24} already there", style="dim")
            return
        self.console.print(f"{name:24} {what}")
        started = time.perf_counter()
        self.folder.make(path, make)
        seconds = {**read_seconds(self.out), name: round(time.perf_counter() - started, 1)}
        with new_file(self.out / "seconds.json") as unfinished:
            unfinished.write_text(json.dumps(seconds, indent=1) + "\n")

    def note(self, what: object) -> None:
        self.console.print(f"{'':24} {what}", style="dim")


@contextmanager
def stages(settings: Any, data: Mapping[str, str]) -> Iterator[Stages]:
    """The stages of a folder that is this run's alone; ``data`` are the digests of the files that it reads."""
    made_of = {key: value for key, value in asdict(settings).items() if key not in ("data", "out")}
    with StageFolder.opened(settings.out, {**made_of, "data": data}) as folder:
        yield Stages(folder)


def read_seconds(out: Path) -> dict[str, float]:
    """What each finished stage took."""
    path = out / "seconds.json"
    seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    return seconds


def import_edits(settings: Settings, folder: Path) -> None:
    """Read the three files; part the training rows in two, and the dev rows by language pair."""
    rows = read_corrections(settings.data / TRAIN, empty_texts="keep")
    random.Random(settings.seed).shuffle(rows)
    cut = settings.heldout_rows
    sets = {"heldout": rows[:cut], "train": rows[cut : cut + settings.train_rows]}
    for name in DEV:
        for row in read_corrections(settings.data / name, empty_texts="keep"):
            sets.setdefault(f"dev_{row.extra['lang']}", []).append(row)
    with new_folder(folder) as unfinished:
        for name, part in sets.items():
            write_rows(unfinished / f"{name}.jsonl", part[: settings.dev_rows] if name.startswith("dev_") else part)


def make_blank(settings: Settings, rows: Sequence[Correction], folder: Path) -> None:
    """A byte-level BPE tokenizer trained on all texts of the rows, and a Llama with random weights."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator((text for row in rows for text in (row.prompt, row.original, row.edited)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.hidden_size * 8 // 3,
        num_hidden_layers=settings.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    save_model(LlamaForCausalLM(config), tokenizer, folder)


class Words(NamedTuple):
    """The words of a set of sentences, one after the other: a score for each, whether it is BAD, and its sentence."""

    score: Floats
    bad: npt.NDArray[np.bool_]
    sentence: Ints


def word_scores(text: str, offsets: Sequence[tuple[int, int]], values: Sequence[float]) -> Floats:
    """The highest value among each word's tokens, words being split on spaces; blank tokens belong to no word."""
    return -word_lows(text, offsets, [-value for value in values])


def words_of(rows: Sequence[Correction], encoded: Sequence[Encoded], streams: Sequence[Sequence[float]]) -> Words:
    """The words of the original texts, with one number for each of their tokens, beside their gold tags."""
    scores, bad, sentence = [], [], []
    for k, (row, one, stream) in enumerate(zip(rows, encoded, streams, strict=True)):
        tags = row.extra["word_tags"]
        scores.append(word_scores(row.original, one.offsets, stream))
        if len(scores[-1]) != len(tags):
            raise ValueError(f"row {row.id!r} has {len(scores[-1])} words and {len(tags)} word_tags; mend the file")
        bad += [tag == "BAD" for tag in tags]
        sentence += [k] * len(tags)
    return Words(np.concatenate(scores), np.array(bad), np.array(sentence))


def surprise(model: Any, pad_id: int, rows: Sequence[Encoded]) -> list[list[float]]:
    """−log π(y_t | x, y_<t) in nats."""
    found: list[list[float]] = []
    for start in range(0, len(rows), 64):
        batch = pad(rows[start : start + 64], pad_id=pad_id)
        with torch.no_grad():
            found += to_lists(-token_logprobs(model, batch), batch)
    return found


def measure(settings: Settings, sets: Sequence[str], encoder: Encoder, path: Path) -> None:
    """Score all words of ``sets`` in every way, choose thresholds on the first of them, and write the summary."""
    out = settings.out
    scorers: dict[str, Suspicion] = {"surprise": partial(surprise, load_causal(out / "data/language"), encoder.pad_id)}
    for name in settings.objectives:
        scorers[name] = partial(_negated, load_scorer(out / "reward" / name, encoder))
    words: dict[str, dict[str, Words]] = {}
    for one in sets:
        rows, labels = (
            read_corrections(out / f"edits/{one}.jsonl", empty_texts="keep"),
            read_labels(out / f"labels/{one}.jsonl", encoder),
        )
        encoded = [row.original.encoded for row in labels]
        words[one] = {name: words_of(rows, encoded, scorer(encoded)) for name, scorer in scorers.items()}
        words[one]["the edit itself"] = words_of(rows, encoded, [changed(row.original.labels) for row in labels])
    heldout, *devs = sets
    thresholds = {name: best_thresholds(found) for name, found in words[heldout].items()}
    results, gains = [], []
    for one in devs:
        draws = resampled(len(set(words[one]["surprise"].sentence.tolist())), seed=settings.seed)
        aucs = {name: resampled_auc(found, draws) for name, found in words[one].items()}
        rows_of_set = prevalence(words[one]["surprise"])
        rows_of_set += [judged(name, found, *thresholds[name], draws, aucs[name]) for name, found in words[one].items()]
        results += [{"set": one, **row} for row in rows_of_set]
        gains += [
            {"set": one, "than": than, **_with_interval("gain", aucs["classes"] - aucs[than])}
            for than in ("surprise", *settings.objectives)
            if "classes" in aucs and than != "classes"
        ]
    summary = {
        "seed": settings.seed,
        "sentences": {one: len(set(words[one]["surprise"].sentence.tolist())) for one in sets},
        "words": {one: len(words[one]["surprise"].bad) for one in sets},
        "bad": {one: float(words[one]["surprise"].bad.mean()) for one in sets},
        "thresholds": thresholds,
        "results": results,
        "auc_gains": gains,
        "seconds": read_seconds(out),
    }
    with new_file(path) as unfinished:
        unfinished.write_text(json.dumps(summary, indent=1) + "\n")


def _negated(reward: Suspicion, rows: Sequence[Encoded]) -> list[list[float]]:
    return [[-value for value in stream] for stream in reward(rows)]


def mcc(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    """Matthews' correlation of predicted and gold tags; 0 where one of them is always the same."""
    size = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.divide(tp * tn - fp * fn, size, out=np.zeros_like(size), where=size > 0)


def f1(tp: Floats, fp: Floats, fn: Floats) -> Floats:
    """F1 of BAD; 0 where there is none and none is predicted."""
    size = 2 * tp + fp + fn
    return np.divide(2 * tp, size, out=np.zeros_like(size), where=size > 0)


def best_thresholds(words: Words) -> tuple[float, float]:
    """Words that score at least this are called BAD: what gives the highest MCC, and what gives the highest F1."""
    values, group = np.unique(words.score, return_inverse=True)
    # Called BAD with each of the values as the threshold: this group and all above it.
    tp = np.bincount(group, words.bad)[::-1].cumsum()[::-1]
    fp = np.bincount(group, ~words.bad)[::-1].cumsum()[::-1]
    fn, tn = words.bad.sum() - tp, (~words.bad).sum() - fp
    return float(values[mcc(tp, fp, fn, tn).argmax()]), float(values[f1(tp, fp, fn).argmax()])


def prevalence(words: Words) -> list[dict[str, Any]]:
    """What is reached without looking at a word; the second in expectation."""
    p = float(words.bad.mean())
    return [
        {"scorer": "all BAD", "mcc": 0.0, "f1_bad": 2 * p / (1 + p), "auc": 0.5},
        {"scorer": "random at the base rate", "mcc": 0.0, "f1_bad": p, "auc": 0.5},
    ]


def judged(name: str, words: Words, for_mcc: float, for_f1: float, draws: Ints, aucs: Floats) -> dict[str, Any]:
    """MCC, F1 of BAD and AUC, with 95 % bootstrap intervals over sentences of the first and the last."""
    return {
        "scorer": name,
        **_with_interval("mcc", mcc(*confusion(words, for_mcc, draws))),
        "f1_bad": float(f1(*confusion(words, for_f1, draws[:1])[:3])[0]),
        **_with_interval("auc", aucs),
    }


def resampled(sentences: int, *, seed: int) -> Ints:
    """How often each sentence counts: once in row 0, and as often as it was drawn in the others."""
    draws = np.random.default_rng(seed).multinomial(sentences, [1 / sentences] * sentences, size=RESAMPLES)
    return np.concatenate([np.ones((1, sentences), np.int64), draws])


def confusion(words: Words, threshold: float, draws: Ints) -> tuple[Floats, Floats, Floats, Floats]:
    """True and false positives, false and true negatives, of each row of draws."""
    called, bad = words.score >= threshold, words.bad
    masks = (called & bad, called & ~bad, ~called & bad, ~called & ~bad)
    counts = (np.bincount(words.sentence, mask, minlength=draws.shape[1]) for mask in masks)
    tp, fp, fn, tn = (np.asarray(draws @ count, np.float64) for count in counts)
    return tp, fp, fn, tn


def resampled_auc(words: Words, draws: Ints) -> Floats:
    """P(a BAD word scores above an OK one), ties one half, for each row of draws."""
    values, group = np.unique(words.score, return_inverse=True)
    found = []
    for draw in draws:
        weight = draw[words.sentence]
        bad = np.bincount(group, weight * words.bad, minlength=len(values))
        ok = np.bincount(group, weight * ~words.bad, minlength=len(values))
        found.append(float(bad @ (ok.cumsum() - ok / 2)) / float(bad.sum() * ok.sum() or np.nan))
    return np.array(found)


def _with_interval(name: str, values: Floats) -> dict[str, float]:
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def _tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    for one in dict.fromkeys(row["set"] for row in summary["results"]):
        size = (
            f"{summary['sentences'][one]:,} sentences, {summary['words'][one]:,} words, {summary['bad'][one]:.1%} BAD"
        )
        title = f"\n[bold]{one.removeprefix('dev_')}[/bold]  {size}"
        table = Table(title=title, title_justify="left", title_style="", box=None, header_style="dim")
        for name, width in (("", 23), ("MCC", 20), ("F1 of BAD", 9), ("AUC", 20)):
            table.add_column(name, min_width=width, no_wrap=True)
        for row in summary["results"]:
            if row["set"] == one:
                table.add_row(row["scorer"], _shown(row, "mcc"), _number(row["f1_bad"]), _shown(row, "auc"))
        for row in summary["auc_gains"]:
            if row["set"] == one:
                table.add_row(f"classes less {row['than']}", "", "", _shown(row, "gain"), style="dim")
        yield table


def _shown(row: Mapping[str, Any], name: str) -> str:
    ends = [_number(row[key]) for key in (f"{name}_low", f"{name}_high") if key in row]
    return " ".join([_number(row[name]), *([f"({', '.join(ends)})"] if ends else [])])


def _number(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".")


if __name__ == "__main__":
    sys.exit(main())
