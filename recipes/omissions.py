"""Does it help to blame the token after a gap? What an editor inserts leaves no bad token in the original.

With ``omissions = blame`` the token that follows the gap is bad, the end of the sequence included. Two questions, each
with everything else the same. On the demo's world: do policies that learned so leave fewer sentences out, and do reward
models see what is missing? On people's post-edits: do the marks fall where the gold gap tags are BAD, and does a reward
model find BAD gaps of unseen translations better?

    python recipes/omissions.py --data ../shared/data --out runs/omissions

Rows have ``gap_tags`` beside what ``post_edits.py`` reads: gap k lies before word k, the last one at the end. Rerun it
and only what is missing is made. What came out: docs/labels.md, Omissions.
"""

from __future__ import annotations

import random
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate, pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import post_edits
import tyro
from post_edits import DEV, TRAIN, Floats, Words, resampled, resampled_auc, surprise, words_of
from rich.console import Console
from rich.table import Table

from errata.data import Encoder, read_corrections
from errata.demo.editor import correct, edit_cost
from errata.demo.judge import DefectKind, judge
from errata.demo.recipe import DemoConfig
from errata.demo.stages import SeedRun
from errata.labels import LabelRules, count_labels, label_all, write_labels
from errata.models import load_causal, load_tokenizer
from errata.reward import (
    RewardFunction,
    TokenRewardConfig,
    best_of_n,
    encode_rollout,
    load_scorer,
    pair_accuracy,
    score_texts,
    train_token_reward,
)
from errata.runs import digest, read_json, write_json
from errata.runs.schedule import Stage, run_stages
from errata.tuning import SFTConfig, demonstrations, train_figa, train_sft
from errata.types import Correction, Encoded, Label, Rollout, Ties, TokenLabels
from errata.winrate import bootstrap_interval

__all__ = ["Settings", "main", "run"]

BLAME = LabelRules(omissions="blame")
LABELS = ("start", "blame", "elsewhere")
"""Omissions unmarked (the demo's own labels), blamed, and as many kept tokens blamed by lot."""


class Arm(NamedTuple):
    """FIGA from some labels, and which of the arms differs from it in the labels alone."""

    labels: str
    gate: float
    baseline: str


ARMS = {
    "figa": Arm("start", 0.6, "figa"),
    "figa_blame": Arm("blame", 0.6, "figa"),
    "figa_elsewhere": Arm("elsewhere", 0.6, "figa"),
    "figa_open": Arm("start", 4.0, "figa_open"),
    "figa_open_blame": Arm("blame", 4.0, "figa_open"),
}
"""A gate of .6 nats was the default when this was run; it passes few tokens after a gap, as many others could stand
there."""
REWARDS = ("token", "token_blame")
PAIR = "ro-en"
"""The reward models of the tags learn this pair, and are asked about it."""

Figures = dict[str, list[float]]
"""Name of a figure to its value on each prompt."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Omissions unmarked or blamed: policies and reward models on the demo's world, gap tags on post-edits."""

    data: Path = Path(__file__).resolve().parents[2] / "shared" / "data"
    """Folder of the MLQE-PE files; without them only the demo's world is asked."""
    out: Path = Path("runs/omissions")
    """Folder of the run; rerun the same command to resume one that was stopped."""
    seeds: int = 3
    """Repetitions on the demo's world; each draws everything anew."""
    prompts: int = 1200
    """Prompts whose rejected answers are corrected."""
    heldout: int = 400
    """Prompts to measure on."""
    start_responses: int = 4000
    """Flawed responses that each start model is trained on."""
    tag_seeds: int = 2
    """Repetitions on the post-edits; each draws rows, tokenizer and models anew."""
    train_rows: int = 3000
    """Post-edits to train on."""
    dev_rows: int = 1000
    """Post-edits of each language pair to measure on, at most."""
    vocabulary: int = 4000
    """Pieces of the tokenizers."""
    hidden_size: int = 64
    """Of the tiny Llama of the post-edits."""
    layers: int = 3
    """Of the same."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags and run; returns the exit code."""
    try:
        run(tyro.cli(Settings, args=argv))
    except ValueError as error:
        print(f"omissions: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings) -> dict[str, Any]:
    """Make what is missing; returns what ``summary.json`` holds.

    Raises:
        ValueError: the folder holds a run with other settings, or a file of the data is not what it should be.
    """
    out, console = settings.out, Console(width=150, highlight=False)
    sizes = {key: value for key, value in asdict(settings).items() if key not in ("data", "out", "seeds", "tag_seeds")}
    stages = [stage for seed in range(settings.seeds) for stage in demo_stages(settings, seed)]
    if absent := [name for name in (TRAIN, *DEV) if not (settings.data / name).exists()]:
        console.print(f"no gap tags: there is no {absent[0]} in {settings.data}; say where it is with --data")
    else:
        stages += [stage for seed in range(settings.tag_seeds) for stage in tag_stages(settings, seed)]
        sizes["data"] = {name: digest(settings.data / name) for name in (TRAIN, *DEV)}
    # In this process they run one after the other as listed, so that needs are there without being named.
    run_stages(stages, out=out, settings=sizes, workers=1, console=console)
    summary = summarise(out)
    write_json(out / "summary.json", summary)
    for table in tables(summary):
        console.print(table)
    return summary


# The demo's world.


def demo_stages(settings: Settings, seed: int) -> Iterator[Stage]:
    """The demo's own road to labels and the token reward model; FIGA and reward models from these and other labels."""
    config = DemoConfig(
        out=settings.out / "demo",
        prompts=settings.prompts,
        heldout=settings.heldout,
        start_responses=settings.start_responses,
        workers=1,
    )
    run = SeedRun(config, seed)
    yield from run.stages_for("reward/token", "winrate/responses/start.jsonl")
    for name in LABELS[1:]:
        yield Stage(run.folder / f"labels/{name}.jsonl", (), f"[{seed}] labels: {name}", partial(relabel, run))
    for arm in ARMS:
        yield Stage(run.folder / f"tuning/{arm}", (), f"[{seed}] {arm}", partial(tune, run))
        yield Stage(run.folder / f"winrate/responses/{arm}.jsonl", (), f"[{seed}] {arm} answers", run.respond)
    yield Stage(run.folder / "reward/token_blame", (), f"[{seed}] reward model token_blame", partial(reward, run))
    yield Stage(run.folder / "policies.json", (), f"[{seed}] policies", partial(judge_policies, run))
    yield Stage(run.folder / "rewards.json", (), f"[{seed}] reward models", partial(judge_rewards, run))


def relabel(run: SeedRun, path: Path) -> None:
    """The labels with blame, at its place or elsewhere."""
    rows, rng = list(label_all(run.edits(), run.encoder, BLAME)), run.rng(path.stem)
    if path.stem == "elsewhere":
        rows = [
            replace(row, original=replace(row.original, labels=elsewhere(row.original.labels, rng))) for row in rows
        ]
    write_labels(path, rows, run.encoder)


def elsewhere(labels: Sequence[int], rng: random.Random) -> tuple[int, ...]:
    """As many tokens are blamed, but kept ones drawn by lot: what any further push would do."""
    kept = [k for k, name in enumerate(labels) if name == Label.KEPT]
    blamed = set(rng.sample(kept, min(len(kept), list(labels).count(Label.OMISSION))))
    names = [Label.KEPT if name == Label.OMISSION else name for name in labels]
    return tuple(Label.OMISSION if k in blamed else name for k, name in enumerate(names))


def tune(run: SeedRun, path: Path) -> None:
    """FIGA as the demo runs it, but for the arm's labels and gate."""
    arm = ARMS[path.name]
    train_figa(
        run.folder / "data/start", run.labels(arm.labels), run.encoder, replace(run.recipe.figa, gate=arm.gate), path
    )


def reward(run: SeedRun, path: Path) -> None:
    """The demo's token reward model, from labels with blame."""
    train_token_reward(run.folder / "data/start", run.labels("blame"), run.encoder, run.recipe.token_reward, path)


def judge_policies(run: SeedRun, path: Path) -> None:
    """All arms, sampled and greedy, against the start decoded in the same way; and what each was taught."""
    found: dict[str, Any] = {
        "labels": {name: asdict(count_labels(run.labels(name))) for name in LABELS},
        "pushed": {str(arm.gate): pushed(run, arm.gate) for arm in ARMS.values()},
    }
    for decoding in ("greedy", "sampled"):
        start = run.responses("start", decoding)
        found[decoding] = {arm: figures(run.responses(arm, decoding), start) for arm in ("start", *ARMS)}
    write_json(path, found)


def pushed(run: SeedRun, gate: float) -> dict[str, float]:
    """Which share of the original's tokens the gate passes before the first step, by label."""
    labels = run.labels("blame")
    model = load_causal(run.folder / "data/start")
    found = np.concatenate(surprise(model, run.encoder.pad_id, [row.original.encoded for row in labels])) <= gate
    names = np.concatenate([row.original.labels for row in labels])
    bad = (names == Label.DELETED) | (names == Label.SUBSTITUTED)
    return {"bad": float(found[bad].mean()), "after a gap": float(found[names == Label.OMISSION].mean())}


def figures(rollouts: Sequence[Rollout], against: Sequence[Rollout]) -> Figures:
    """What is wrong with each response, and whether it has fewer defects than the other one (ties one half)."""
    found = [judge(row.prompt, row.text) for row in rollouts]
    others = [judge(row.prompt, row.text).count for row in against]
    return {
        "win": [(np.sign(o - one.count) + 1) / 2 for one, o in zip(found, others, strict=True)],
        "defects": [one.count for one in found],
        **{kind.value: [one.by_kind[kind] for one in found] for kind in DefectKind},
        # A closing defect is one too many, too, or a wrong one; an empty span is where there is none.
        "no closing": [sum(d.kind is DefectKind.CLOSING and d.start == d.stop for d in one.defects) for one in found],
        "edit cost": [edit_cost(row.prompt, row.text) for row in rollouts],
        "tokens": [len(row.response_ids) for row in rollouts],
    }


def judge_rewards(run: SeedRun, path: Path) -> None:
    """Both reward models on four samples of the start for each held-out prompt, the first of them corrected."""
    flat = run.sample("start", run.prompts("heldout"), "best of 4", samples=4)
    groups = [flat[k : k + 4] for k in range(0, len(flat), 4)]
    firsts, rng = [group[0] for group in groups], run.rng("omissions")
    rows = [corrected(row, rng) for row in firsts]
    rows = [row for row in rows if row.edited != row.original]
    labels, draws = list(label_all(rows, run.encoder, BLAME)), resampled(len(rows), seed=run.seed)
    scorers = {name: load_scorer(run.folder / "reward" / name, run.encoder) for name in REWARDS}
    aucs = {name: demo_aucs(scorer, labels, draws) for name, scorer in scorers.items()}
    encoded = [[encode_rollout(row) for row in group] for group in groups]
    chosen = {"first": firsts}
    for name, scorer in scorers.items():
        chosen[name] = [group[k] for group, k in zip(groups, best_of_n(scorer, encoded), strict=True)]
    write_json(
        path,
        {
            "auc": compared(aucs, *REWARDS),
            "pairs": {name: pairs(scorer, labels) for name, scorer in scorers.items()},
            "best of 4": {name: figures(some, firsts) for name, some in chosen.items()},
        },
    )


def corrected(row: Rollout, rng: random.Random) -> Correction:
    """A sample, and what an editor who overlooks nothing makes of it."""
    edited = correct(row.prompt, row.text, rng)
    return Correction(id=row.id, prompt=row.prompt, original=row.text, edited=edited, original_ids=row.response_ids)


def demo_aucs(reward: RewardFunction, labels: Sequence[TokenLabels], draws: post_edits.Ints) -> dict[str, Floats]:
    """AUC of −r, for each draw of responses; tokens after a gap are among neither the bad nor the kept tokens.

    Tokens after a gap open a sentence or end the text, which is easily seen without seeing what is missing. So they are
    compared with all kept tokens, with kept ones that open a sentence, and ends with ends.
    """
    streams = reward([row.original.encoded for row in labels])
    score = -np.concatenate(streams)
    names = np.concatenate([row.original.labels for row in labels])
    opens = np.concatenate([openings(row.original.text, row.original.encoded) for row in labels])
    end = np.concatenate([np.arange(len(stream)) == len(stream) - 1 for stream in streams])
    sentence = np.repeat(np.arange(len(streams)), [len(stream) for stream in streams])
    kept, gap = names == Label.KEPT, names == Label.OMISSION
    bad = (names == Label.DELETED) | (names == Label.SUBSTITUTED)

    def found(positive: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> Floats:
        return resampled_auc(Words(score[among], positive[among], sentence[among]), draws)

    return {
        "bad, kept": found(bad, bad | kept),
        "after a gap, kept": found(gap, gap | kept),
        "sentence after a gap, other sentences": found(gap, (gap | kept) & opens & ~end),
        "end after a gap, other ends": found(gap, (gap | kept) & end),
    }


def openings(text: str, encoded: Encoded) -> list[bool]:
    """Whether each token is the first of a sentence."""
    before = [text[: encoded.offsets[k][0]].rstrip() for k in range(len(encoded.response_ids))]
    return [not part or part[-1] in ".!?" for part in before]


def pairs(reward: RewardFunction, labels: Sequence[TokenLabels]) -> dict[str, float]:
    """How often the corrected text is ranked above the original: all rows, and those in which it only adds."""
    changed = (Label.DELETED, Label.SUBSTITUTED)
    adds = [row for row in labels if not any(name in changed for name in row.original.labels)]
    return {
        name: pair_accuracy(*(score_texts(reward, side) for side in sides))
        for name, sides in {
            "all": ([row.edited.encoded for row in labels], [row.original.encoded for row in labels]),
            "only insertions": ([row.edited.encoded for row in adds], [row.original.encoded for row in adds]),
        }.items()
        if sides[0]
    }


def compared(aucs: Mapping[str, Mapping[str, Floats]], without: str, blamed: str) -> dict[str, dict[str, Any]]:
    """Each AUC of each scorer, and what blame gains with a 95 % bootstrap interval over rows, drawn for both alike.

    What has no positive or no negative is left out.
    """
    return {
        what: {
            **{name: float(found[what][0]) for name, found in aucs.items()},
            "gain": float(aucs[blamed][what][0] - aucs[without][what][0]),
            "interval": np.nanquantile((aucs[blamed][what] - aucs[without][what])[1:], [0.025, 0.975]).tolist(),
        }
        for what, values in aucs[without].items()
        if np.isfinite(values[0])
    }


# Gap tags.


def tag_stages(settings: Settings, seed: int) -> Iterator[Stage]:
    """A tokenizer, a language model and two reward models, as in post_edits.py but of one pair and fewer rows."""
    folder = settings.out / f"tags/seed-{seed}"
    yield Stage(folder / "blank", (), f"[tags {seed}] a Llama that knows nothing", partial(blank, settings, seed))
    yield Stage(folder / "language", (), f"[tags {seed}] learns to translate", partial(language, settings, seed))
    for name in REWARDS:
        what = f"[tags {seed}] reward model {name}"
        yield Stage(folder / name, (), what, partial(tag_reward, settings, seed))
    yield Stage(folder / "rule.json", (), f"[tags {seed}] marks against tags", partial(judge_rule, settings))
    yield Stage(folder / "gaps.json", (), f"[tags {seed}] which gaps are BAD?", partial(judge_gaps, settings, seed))


def train_rows(settings: Settings, seed: int) -> list[Correction]:
    """Rows of the pair, in an order of the seed."""
    rows = [row for row in read_corrections(settings.data / TRAIN, empty_texts="keep") if row.extra["lang"] == PAIR]
    random.Random(seed).shuffle(rows)
    return rows[: settings.train_rows]


def dev_rows(settings: Settings) -> dict[str, list[Correction]]:
    """Rows to measure on, by language pair.

    Raises:
        ValueError: a row has not one tag for each word, and for each gap.
    """
    sets: dict[str, list[Correction]] = {}
    for name in DEV:
        for row in read_corrections(settings.data / name, empty_texts="keep"):
            words, extra = len(row.original.split(" ")), row.extra
            if len(extra["word_tags"]) != words or len(extra["gap_tags"]) != words + 1:
                raise ValueError(f"row {row.id!r} of {name} has {words} words and other tags; mend the file")
            sets.setdefault(extra["lang"], []).append(row)
    return {pair: rows[: settings.dev_rows] for pair, rows in sets.items()}


def blank(settings: Settings, seed: int, path: Path) -> None:
    """As in post_edits.py."""
    sizes = {key: getattr(settings, key) for key in ("vocabulary", "hidden_size", "layers")}
    post_edits.make_blank(post_edits.Settings(seed=seed, **sizes), train_rows(settings, seed), path)


def language(settings: Settings, seed: int, path: Path) -> None:
    """As in post_edits.py: two passes over the post-edited sentences."""
    encoder, rows = encoder_of(path), demonstrations(train_rows(settings, seed))
    config = SFTConfig(
        learning_rate=4e-3,
        epochs=2,
        batch_size=32,
        micro_batch_size=32,
        schedule="cosine",
        warmup_steps=20,
        seed=seed,
    )
    train_sft(path.with_name("blank"), rows, encoder, config, path)


def tag_reward(settings: Settings, seed: int, path: Path) -> None:
    """As in post_edits.py: two passes over the labelled pairs, with or without blame."""
    encoder = encoder_of(path)
    # Ties as in the tags that it will be held against.
    rules = LabelRules(ties=Ties.TAGGER, omissions="blame" if path.name == "token_blame" else "unmarked")
    labels = list(label_all(train_rows(settings, seed), encoder, rules))
    config = TokenRewardConfig(learning_rate=1e-3, epochs=2, batch_size=32, schedule="linear", seed=seed)
    train_token_reward(path.with_name("language"), labels, encoder, config, path)


def encoder_of(path: Path) -> Encoder:
    """Of the models that lie beside ``path``."""
    return Encoder(load_tokenizer(path.with_name("blank")))


def tokens_after_gaps(row: Correction, encoded: Encoded) -> list[int]:
    """For each gap the token that holds the first character behind it; the end of the sequence for the last gap.

    White space before a word belongs to the gap, as in the labels.
    """
    starts = list(accumulate((len(word) + 1 for word in row.original.split(" ")), initial=0))[:-1]
    stops = [stop for _, stop in encoded.offsets]
    return [*(bisect_right(stops, start) for start in starts), len(stops) - 1]


def lone(row: Correction) -> list[bool]:
    """For each gap, whether the words on both sides of it are OK: what is missing there is all that is wrong."""
    good = [True, *(tag == "OK" for tag in row.extra["word_tags"]), True]
    return [before and after for before, after in pairwise(good)]


def judge_rule(settings: Settings, path: Path) -> None:
    """The marks of the rule against the gold gaps of each pair, with either choice of ties."""
    encoder = encoder_of(path)
    found = {}
    for (pair, rows), ties in product(dev_rows(settings).items(), (Ties.TAGGER, Ties.DEPARTURE)):
        labels = list(label_all(rows, encoder, replace(BLAME, ties=ties)))
        after = [tokens_after_gaps(row, one.original.encoded) for row, one in zip(rows, labels, strict=True)]
        name = np.concatenate([np.array(one.original.labels)[at] for one, at in zip(labels, after, strict=True)])
        bad = np.concatenate([row.extra["gap_tags"] for row in rows]) == "BAD"
        alone = np.concatenate([lone(row) for row in rows])
        mark, changed = name == Label.OMISSION, (name == Label.DELETED) | (name == Label.SUBSTITUTED)
        marks = sum(one.original.labels.count(Label.OMISSION) for one in labels)
        found[f"{pair}, {ties}"] = {
            "gaps": len(bad),
            "BAD": int(bad.sum()),
            "marks": marks,
            "marks within a word": marks - int(mark.sum()),
            "precision": float((mark & bad).sum() / max(marks, 1)),
            "recall": float((mark & bad).sum() / max(bad.sum(), 1)),
            "f1": float(2 * (mark & bad).sum() / max(marks + bad.sum(), 1)),
            "BAD, both words OK": int((bad & alone).sum()),
            "recall where both words are OK": float((mark & bad & alone).sum() / max((bad & alone).sum(), 1)),
            "BAD and the token after it was bad anyway": float((bad & changed).sum() / max(bad.sum(), 1)),
            "BAD and the token after it stays kept": float((bad & ~mark & ~changed).sum() / max(bad.sum(), 1)),
        }
    write_json(path, found)


def judge_gaps(settings: Settings, seed: int, path: Path) -> None:
    """Which gaps and words of unseen translations are BAD, by reward and by the language model's surprise."""
    encoder = encoder_of(path)
    rows = dev_rows(settings)[PAIR]
    encoded = [encoder.encode(row.prompt, row.original) for row in rows]
    draws = resampled(len(rows), seed=seed)
    streams = {"surprise": surprise(load_causal(path.with_name("language")), encoder.pad_id, encoded)}
    for name in REWARDS:
        scorer = load_scorer(path.with_name(name), encoder)
        streams[name] = [[-value for value in stream] for stream in scorer(encoded)]
    aucs = {name: tag_aucs(rows, encoded, stream, draws) for name, stream in streams.items()}
    write_json(path, compared(aucs, *REWARDS))


def tag_aucs(
    rows: Sequence[Correction], encoded: Sequence[Encoded], streams: Sequence[Sequence[float]], draws: post_edits.Ints
) -> dict[str, Floats]:
    """AUC of BAD words, of BAD gaps, and of BAD gaps between words that are both OK; for each draw of sentences."""
    after = [tokens_after_gaps(row, one) for row, one in zip(rows, encoded, strict=True)]
    score = np.concatenate([np.array(stream)[at] for stream, at in zip(streams, after, strict=True)])
    bad = np.concatenate([row.extra["gap_tags"] for row in rows]) == "BAD"
    alone = np.concatenate([lone(row) for row in rows])
    sentence = np.repeat(np.arange(len(rows)), [len(at) for at in after])
    return {
        "words": resampled_auc(words_of(rows, encoded, streams), draws),
        "gaps": resampled_auc(Words(score, bad, sentence), draws),
        "gaps between OK words": resampled_auc(Words(score[alone], bad[alone], sentence[alone]), draws),
    }


# What came out.


def summarise(out: Path) -> dict[str, Any]:
    """All seeds together: means, and differences to what learned without blame."""
    policies = [read_json(path) for path in sorted(out.glob("demo/*/policies.json"))]
    rewards = [read_json(path) for path in sorted(out.glob("demo/*/rewards.json"))]
    rules = [read_json(path) for path in sorted(out.glob("tags/*/rule.json"))]
    baselines = {name: arm.baseline for name, arm in ARMS.items()}
    return {
        "labels": [one["labels"] for one in policies],
        "pushed": [one["pushed"] for one in policies],
        "greedy": differences([one["greedy"] for one in policies], baselines),
        "sampled": differences([one["sampled"] for one in policies], baselines),
        "best of 4": differences([one["best of 4"] for one in rewards], {"token_blame": "token"}),
        "pairs": [one["pairs"] for one in rewards],
        "auc": [one["auc"] for one in rewards],
        "rule": rules[0] if rules else {},
        "gaps": [read_json(path) for path in sorted(out.glob("tags/*/gaps.json"))],
    }


def differences(seeds: Sequence[Mapping[str, Figures]], baselines: Mapping[str, str]) -> list[dict[str, Any]]:
    """Mean of each figure; its mean difference from the arm's baseline on the same prompts, with a bootstrap interval.

    Prompts of all seeds are drawn together; the differences of the single seeds stand beside, as another training run
    varies in what other prompts do not show. What has no baseline (start, first) has no difference.
    """
    rows: list[dict[str, Any]] = []
    for figure in seeds[0][next(iter(baselines))] if seeds else ():
        for arm in seeds[0]:
            rows.append({"arm": arm, "figure": figure, "mean": float(np.mean([one[arm][figure] for one in seeds]))})
            if baselines.get(arm, arm) != arm:
                each = [np.subtract(one[arm][figure], one[baselines[arm]][figure]) for one in seeds]
                interval = bootstrap_interval(np.concatenate(each), seed=0)
                ends = [interval.low, interval.high]
                rows[-1] |= {"gain": interval.mean, "interval": ends, "seeds": [float(one.mean()) for one in each]}
    return rows


def tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """The summary, for people."""
    for part in ("greedy", "sampled", "best of 4"):
        table = Table("figure", "by", "mean", "less its baseline (95 %)", "by seed", title=part, box=None)
        for row in summary[part]:
            each = " ".join(f"{value:+.3f}" for value in row.get("seeds", []))
            table.add_row(row["figure"], row["arm"], f"{row['mean']:.3f}", _difference(row), each)
        yield table
    for part in ("auc", "gaps"):
        table = Table("seed", "AUC", "unmarked", "blame", "gain (95 %)", "surprise", title=part, box=None)
        for seed, found in enumerate(summary[part]):
            for what, row in found.items():
                values = [f"{row[name]:.3f}" for name in REWARDS]
                surprised = f"{row['surprise']:.3f}" if "surprise" in row else ""
                table.add_row(str(seed), what, *values, _difference(row), surprised)
        yield table
    table = Table("", *summary["rule"], title="marks against gold gaps", box=None)
    for what in next(iter(summary["rule"].values()), {}):
        table.add_row(what, *(f"{found[what]:.4g}" for found in summary["rule"].values()))
    yield table
    table = Table("seed", "pairs", *REWARDS, title="edited above original", box=None)
    for seed, found in enumerate(summary["pairs"]):
        for what in found[REWARDS[0]]:
            table.add_row(str(seed), what, *(f"{found[name][what]:.3f}" for name in REWARDS))
    yield table


def _difference(row: Mapping[str, Any]) -> str:
    return f"{row['gain']:+.3f} ({row['interval'][0]:+.3f} to {row['interval'][1]:+.3f})" if "gain" in row else ""


if __name__ == "__main__":
    sys.exit(main())
