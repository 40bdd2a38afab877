"""The verb ``winrate``: which of two answers more prompts better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.shared import EncodingFlags, report
from errata.data import read_corrections, read_demonstrations, read_prompts
from errata.edits import word_distance
from errata.models import Sampling, TransformersGenerator, device, load_causal
from errata.reward import load_scorer, score_texts
from errata.types import Demonstration
from errata.winrate import bootstrap_interval, verdicts_from_scores

__all__ = ["WinRate"]


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
        report(found, self.out, verdicts={verdict.id: verdict.score for verdict in verdicts})

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
