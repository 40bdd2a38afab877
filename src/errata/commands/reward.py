"""The verbs ``reward …``: train, use and measure reward models."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.shared import EncodingFlags, console, report, set_aside, tell
from errata.data import (
    LengthCounts,
    encode_rows,
    new_file,
    read_corrections,
    read_demonstrations,
    read_preferences,
)
from errata.labels import LabelRules, changed, label_all
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
from errata.types import TokenLabels

__all__ = ["RewardEval", "RewardScore", "RewardTrain"]


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
    rules: Flat[LabelRules] = LabelRules()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[TokenRewardConfig] = TokenRewardConfig()

    def run(self) -> None:
        encoder = self.encoding.encoder(self.model)
        if self.kind == "sequence":
            rows = read_preferences(self.data, set_aside=set_aside(self.out))
            card = train_sequence_reward(self.model, rows, encoder, _as(RewardConfig, self.settings), self.out)
        else:
            edits = read_corrections(self.data, set_aside=set_aside(self.out))
            counts = LengthCounts()
            labels = list(label_all(edits, encoder, self.rules, counts=counts))
            counts.check()
            if self.objective == "eq3":
                settings = _as(RewardConfig, self.settings)
                card = train_token_reward_bradley_terry(self.model, labels, encoder, settings, self.out, counts=counts)
            else:
                card = train_token_reward(self.model, labels, encoder, self.settings, self.out, counts=counts)
        tell(card, self.out)


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
        rows = read_demonstrations(self.data, set_aside=set_aside(self.out))
        counts = LengthCounts()
        found = list(encode_rows(rows, lambda row: (encoder.encode(row.prompt, row.response),), counts))
        streams = load_scorer(self.reward, encoder)([one for _, (one,) in found])
        with new_file(self.out) as partial, partial.open("w", encoding="utf-8") as file:
            for (row, (one,)), stream in zip(found, streams, strict=True):
                tokens = [row.response[start:stop] for start, stop in one.offsets]
                line = {"id": row.id, "reward": sum(stream), "tokens": tokens, "token_rewards": stream}
                file.write(json.dumps(line) + "\n")
        report(dataclasses.asdict(counts), None)
        console.print(f"{len(found)} responses scored → {self.out}", highlight=False)


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
        counts = LengthCounts()
        rows = list(label_all(read_corrections(self.data), encoder, counts=counts))
        counts.check()
        labels = [row for row in rows if has_change(row)]
        found: dict[str, Any] = {
            "rows": len(labels),
            "unchanged": len(rows) - len(labels),
            **({} if self.encoding.max_length is None else dataclasses.asdict(counts)),
            "pair_accuracy": pair_accuracy(
                score_texts(scorer, [row.edited.encoded for row in labels]),
                score_texts(scorer, [row.original.encoded for row in labels]),
            ),
        }
        found |= {f"auc_{key}": value for key, value in localisation(scorer, labels)._asdict().items()}
        report(found, self.out)


def _as(kind: type[Any], settings: Any) -> Any:
    """The fields of ``settings`` that a more general class of settings has, too."""
    return kind(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)})


def has_change(row: TokenLabels) -> bool:
    return any(changed(row.original.labels)) or any(changed(row.edited.labels))
