"""The verbs ``reward …``: train, use and measure reward models."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.hub import HubFlags
from errata.commands.shared import (
    RESUMES_TRAINING,
    EncodingFlags,
    Source,
    check_labels_stand,
    console,
    report,
    set_aside,
    tell,
)
from errata.data import (
    Encoder,
    LengthCounts,
    encode_rows,
    read_corrections,
    read_demonstrations,
    read_preferences,
)
from errata.labels import LabelRules, label_all, read_labels
from errata.reward import (
    RewardConfig,
    Scorer,
    TokenRewardConfig,
    TokenScorer,
    encode_pair,
    load_scorer,
    readings,
    report_edits,
    report_preferences,
    report_samples,
    report_word_tags,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.runs import new_file, write_json
from errata.types import Correction, Encoded, Preference

__all__ = ["RewardEval", "RewardScore", "RewardTrain"]


@dataclass(frozen=True, kw_only=True)
class RewardTrain:
    """Train a reward model: one reward a token from edits, or one a response from preferences or edits.

    The token-level objective `classes` finds the tokens that an editor would change, `soft` is TLCR's form of it; `eq3`
    is the paper's Eq 3, `changed_mean` and `changed_sum` are the same on changed tokens alone.
    """

    stopped = RESUMES_TRAINING

    model: Path
    """The model to start from, whose backbone gets a head of one number: a local folder, a GGUF file, or owner/name or
    owner/name@revision of the Hugging Face Hub; or a reward adapter, with which training goes on."""
    data: Path
    """Corrections (token and sequence) or preferences (sequence): a file, or a data set of the Hub: owner/name,
    owner/name@revision, with :split where it has several."""
    out: Path
    """Folder of the reward model; plain transformers loads it where it has a class for the architecture."""
    preferences: Path | None = None
    """Preferences without an edit, to be learned from beside --data."""
    heldout: Path | None = None
    """Rows like those of --data to look at during training and never to learn from; see --patience."""
    kind: Literal["token", "sequence"] = "token"
    """What one reward is given for."""
    objective: Literal["classes", "soft", "eq3", "changed_mean", "changed_sum"] = "classes"
    """Of a token-level model."""
    rules: Flat[LabelRules] = LabelRules()
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[TokenRewardConfig] = TokenRewardConfig()
    hub: Flat[HubFlags] = HubFlags()

    def run(self) -> None:
        self.hub.check()
        encoder = self.encoding.encoder(self.model)
        aside, how = set_aside(self.out), self.source.how
        pairs = read_preferences(self.preferences, set_aside=aside, **how) if self.preferences else []
        if self.kind == "sequence":
            rows = [*read_preferences(self.data, set_aside=aside, **how), *pairs]
            held = read_preferences(self.heldout, **how) if self.heldout else []
            settings = _as(RewardConfig, self.settings)
            card = train_sequence_reward(self.model, rows, encoder, settings, self.out, heldout=held)
        else:
            edits = read_corrections(self.data, set_aside=aside, **how)
            counts = LengthCounts()
            labels = list(label_all(edits, encoder, self.rules, counts=counts))
            counts.check()
            held_counts, heldout = LengthCounts(), read_corrections(self.heldout, **how) if self.heldout else []
            seen = list(label_all(heldout, encoder, self.rules, counts=held_counts))
            if held_counts.dropped_too_long or held_counts.truncated:
                console.print(f"held out: {held_counts}", highlight=False)
            more: dict[str, Any] = {
                "preferences": pairs,
                "heldout": seen,
                "counts": counts,
                "objective": self.objective,
            }
            if self.objective in ("classes", "soft"):
                card = train_token_reward(self.model, labels, encoder, self.settings, self.out, **more)
            else:
                settings = _as(RewardConfig, self.settings)
                card = train_token_reward_bradley_terry(self.model, labels, encoder, settings, self.out, **more)
        tell(card, self.out)
        self.hub.push(self.out)


@dataclass(frozen=True, kw_only=True)
class RewardScore:
    """Responses → rewards: for each row the sum, and one number for every token with its text."""

    reward: Path
    """A folder of `errata reward train`."""
    data: Path
    """Rows with prompt and response."""
    out: Path
    """JSON lines: id, reward, tokens, token_rewards."""
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.reward)
        rows = read_demonstrations(self.data, set_aside=set_aside(self.out), **self.source.how)
        counts = LengthCounts()
        found = list(encode_rows(rows, lambda row: (encoder.encode(row.prompt, row.response),), counts))
        streams = load_scorer(self.reward, encoder)([one for _, (one,) in found])
        with new_file(self.out) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            for (row, (one,)), stream in zip(found, streams, strict=True):
                tokens = [row.response[start:stop] for start, stop in one.offsets]
                line = {"id": row.id, "reward": sum(stream), "tokens": tokens, "token_rewards": stream}
                file.write(json.dumps(line) + "\n")
        report(dataclasses.asdict(counts), None)
        console.print(f"{len(found)} responses scored → {self.out}", highlight=False)


@dataclass(frozen=True, kw_only=True)
class RewardEval:
    """Is the reward model right? Does it find the bad tokens, and what could PPO exploit? Each figure with its reading.

    Give it rows that it was not trained on, at least one file.
    """

    reward: Path
    """A folder of `errata reward train`."""
    data: Path | None = None
    """Corrections; rows with `word_tags` (OK or BAD for each word of the original) are held against those, too."""
    labels: Path | None = None
    """A file of `errata labels` in place of corrections, made with the reward model's tokenizer."""
    preferences: Path | None = None
    """Preferences."""
    fresh: Path | None = None
    """Corrections of fresh samples of the policy that is to be tuned."""
    samples: Path | None = None
    """Responses with a gold score, several for each prompt: best of n."""
    gold_field: str = "score"
    """The field of --samples that holds the gold score."""
    subset_field: str | None = None
    """The field of --data and --preferences by which accuracy is given in parts."""
    out: Path | None = None
    """Write the numbers here as JSON, too."""
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()

    def run(self) -> None:
        if not (self.data or self.labels or self.preferences or self.fresh or self.samples):
            raise ValueError("nothing to measure on; give --data, --labels, --preferences, --fresh or --samples")
        if self.data and self.labels:
            raise ValueError("--labels takes the place of --data; give one of them")
        if self.labels:
            check_labels_stand(LabelRules(), self.encoding)
        encoder = self.encoding.encoder(self.reward)
        scorer = load_scorer(self.reward, encoder)
        by_token = isinstance(scorer, TokenScorer)
        counts, found = LengthCounts(), dict[str, Any]()
        if self.data:
            rows = read_corrections(self.data, **self.source.how)
            labels = list(label_all(rows, encoder, counts=counts))
            counts.check()
            groups = {row.id: self._subset(row) for row in rows} if self.subset_field else None
            found |= report_edits(scorer, labels, groups=groups, tokens=by_token)
            found |= report_word_tags(scorer, rows, labels) if by_token else {}
        if self.labels:
            found |= report_edits(scorer, read_labels(self.labels, encoder), tokens=by_token)
        if self.fresh:
            labels = list(label_all(read_corrections(self.fresh, **self.source.how), encoder, counts=counts))
            fresh = report_edits(scorer, labels, tokens=by_token)
            wanted = ("auc_bad_kept", "length_correlation", "repetition_correlation")
            found |= {f"fresh_{name}": fresh[name] for name in wanted if name in fresh}
        if self.preferences:
            read = read_preferences(self.preferences, **self.source.how)
            pairs = list(encode_rows(read, partial(encode_pair, encoder=encoder), counts))
            named = [self._subset(row) for row, _ in pairs] if self.subset_field else None
            found |= report_preferences(scorer, [pair for _, pair in pairs], named)
        if self.samples:
            found |= self._best_of_n(scorer, encoder, counts)
        found |= {} if self.encoding.max_length is None else dataclasses.asdict(counts)
        for name, value, reading in readings(found):
            console.print(f"{name:28} {value:10} {reading}".rstrip(), highlight=False, markup=False, soft_wrap=True)
        if self.out is not None:
            write_json(self.out, {name: None if value != value else value for name, value in found.items()})

    def _subset(self, row: Correction | Preference) -> str:
        assert self.subset_field is not None
        if self.subset_field not in row.extra:
            raise ValueError(f"row {row.id!r} has no field {self.subset_field!r}; name another with --subset-field")
        return str(row.extra[self.subset_field])

    def _best_of_n(self, scorer: Scorer, encoder: Encoder, counts: LengthCounts) -> dict[str, Any]:
        assert self.samples is not None
        groups: dict[str, list[tuple[Encoded, float]]] = {}
        rows = read_demonstrations(self.samples, **self.source.how)
        for row, (one,) in encode_rows(rows, lambda row: (encoder.encode(row.prompt, row.response),), counts):
            gold = row.extra.get(self.gold_field)
            if not isinstance(gold, int | float):
                raise ValueError(f"row {row.id!r} has no number in {self.gold_field!r}; name its field: --gold-field")
            groups.setdefault(json.dumps(row.prompt), []).append((one, float(gold)))
        return report_samples(
            scorer,
            [[one for one, _ in group] for group in groups.values()],
            [[gold for _, gold in group] for group in groups.values()],
        )


def _as(kind: type[Any], settings: Any) -> Any:
    """The fields of ``settings`` that a more general class of settings has, too."""
    return kind(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)})
