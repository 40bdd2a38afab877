"""Everything that is measured of a reward model on labelled files, as one mapping, with a reading of each figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from errata.labels import changed, has_change
from errata.reward.evaluate import auc, best_of_n, pair_accuracy
from errata.reward.score import RewardFunction
from errata.reward.train import Pair
from errata.types import Correction, Encoded, Label, TokenLabels

__all__ = [
    "READINGS",
    "calibration_error",
    "rank_correlation",
    "readings",
    "repetition",
    "report_edits",
    "report_preferences",
    "report_samples",
    "report_word_tags",
    "word_lows",
]

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[Any]
SIZES = ((1, 2), (3, 5), (6, 10), (11, None))
"""Changed tokens of a pair, both sides together, from … to."""

READINGS: Mapping[str, str] = {
    "rows": "edits that changed a token",
    "unchanged": "edits that changed none; nothing is measured on them",
    "pair_accuracy": "share of edits whose edited text has the higher sum of rewards; .5 is chance",
    "pair_accuracy_by_mean": "the same by the mean reward a token, which does not pay length",
    "auc_bad_kept": "kept tokens of the original above its deleted and substituted ones; .5 is chance",
    "auc_bad_good": "inserted and substitute tokens above deleted and substituted ones",
    "auc_good_kept": "inserted and substitute tokens of the edited text above its kept ones",
    "auc_deleted": "kept tokens above deleted ones",
    "auc_substituted": "kept tokens above substituted ones",
    "auc_inserted": "inserted tokens above kept ones",
    "kept_deviation": "spread of the rewards of kept tokens; it should be small against that of changed ones",
    "changed_deviation": "spread of the rewards of changed tokens",
    "calibration_error": "how far σ(difference of sums) is from the share of pairs it ranks right; 0 is calibrated",
    "token_calibration_error": "how far σ(reward) of changed tokens is from the share of good ones; 0 is calibrated",
    "length_correlation": "rank correlation of the sum with length over the originals; far from 0, PPO will exploit it",
    "repetition_correlation": "the same with the share of repeated triples of tokens; above 0, PPO will repeat itself",
    "fresh_auc_bad_kept": "auc_bad_kept on fresh samples of the policy: predicts the policy better than accuracy does",
    "preference_accuracy": "share of preferences whose chosen text has the higher sum of rewards",
    "words_without_reward": "tagged words that are not measured: they were cut off",
    "auc_words": "words tagged OK above words tagged BAD, a word being as good as its worst token",
    "best_of_n": "mean gold score of the sample that the reward model picks of each prompt's",
    "random_of_n": "mean gold score of all samples: what picking blindly gives",
    "oracle_of_n": "mean gold score of each prompt's best sample: the ceiling",
}
"""What a figure says, by its name."""


def readings(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, value and reading of each figure, those by group one a line."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            for group, part in value.items():
                shown = ", ".join(f"{key} {_shown(number)}" for key, number in part.items())
                yield f"{name} {group}", shown, ""
        else:
            yield name, _shown(value), READINGS.get(name, "")


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def calibration_error(probability: Numbers, outcome: Numbers, bins: int = 10) -> float:
    """Σ_b (n_b/N)·|mean probability − share that came true| over equal bins of probability; NaN of nothing.

    >>> calibration_error([0.9, 0.9, 0.2], [1.0, 0.0, 0.0])  # (2/3)·|.9 − .5| + (1/3)·|.2 − 0|
    0.333...
    """
    p, came_true = np.asarray(probability, float), np.asarray(outcome, float)
    if not len(p):
        return float("nan")
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=p - came_true, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def rank_correlation(x: Numbers, y: Numbers) -> float:
    """Spearman's ρ, ties by their mean rank; NaN where one side is always the same.

    >>> rank_correlation([1, 2, 3, 4], [1, 4, 9, 16])
    1.0
    """
    from scipy.stats import rankdata

    a, b = (ranks - ranks.mean() for ranks in (rankdata(x), rankdata(y)))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else float("nan")


def repetition(ids: Sequence[int], n: int = 3) -> float:
    """1 − different n-grams / n-grams; 0 where there are none.

    >>> repetition([1, 2, 3, 1, 2, 3])  # 123, 231, 312, 123
    0.25
    """
    grams = list(zip(*(ids[k:] for k in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class _Side(NamedTuple):
    """Rewards and labels of all tokens of one side of the edits, one after the other."""

    rewards: Floats
    labels: npt.NDArray[np.int64]

    def of(self, *labels: Label) -> Floats:
        return self.rewards[np.isin(self.labels, labels)]


def report_edits(
    reward: RewardFunction,
    labels: Sequence[TokenLabels],
    *,
    groups: Mapping[str, str] | None = None,
    tokens: bool = True,
) -> dict[str, Any]:
    """Accuracy, localisation, calibration and leaks on held-out edits; edits that changed nothing are only counted.

    Args:
        reward: any reward function on the ids of these labels.
        labels: the edits.
        groups: the name of the subset of each row, by its id; accuracy is given by subset.
        tokens: whether single tokens have rewards of their own; if not, all figures on tokens are left out.

    Raises:
        ValueError: no edit changed anything.
    """
    rows = [row for row in labels if has_change(row)]
    if not rows:
        raise ValueError("no held-out edit changed a token; there is nothing to measure on")
    worse = reward([row.original.encoded for row in rows])
    better = reward([row.edited.encoded for row in rows])
    gains = np.array([sum(b) - sum(w) for b, w in zip(better, worse, strict=True)])
    means = [[float(np.mean(stream)) if stream else 0.0 for stream in side] for side in (better, worse)]
    sizes = [sum(changed(row.original.labels)) + sum(changed(row.edited.labels)) for row in rows]
    found: dict[str, Any] = {
        "rows": len(rows),
        "unchanged": len(labels) - len(rows),
        "pair_accuracy": _accuracy(gains),
        "pair_accuracy_by_mean": pair_accuracy(*means),
        "calibration_error": calibration_error(expit(np.abs(gains)), (gains > 0) + 0.5 * (gains == 0)),
        **_leaks([row.original.encoded for row in rows], worse),
    }
    if tokens:
        found |= _tokens(
            *(
                _Side(np.concatenate(streams), np.concatenate([np.array(getattr(row, side).labels) for row in rows]))
                for side, streams in (("original", worse), ("edited", better))
            )
        )
    names = [f"{low} to {high}" if high else f"{low} or more" for low, high in SIZES]
    by_size = [next(k for k, (_, high) in enumerate(SIZES) if high is None or size <= high) for size in sizes]
    found["by changed tokens"] = _by_group(gains, [names[k] for k in by_size], names)
    if groups is not None:
        found["by subset"] = _by_group(gains, [groups[row.id] for row in rows])
    return found


def report_preferences(
    reward: RewardFunction, pairs: Sequence[Pair], groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """Accuracy on preferences, the better side first in each pair, and by subset.

    Raises:
        ValueError: there is no pair.
    """
    if not pairs:
        raise ValueError("no preference to measure accuracy on")
    better, worse = (reward(list(side)) for side in zip(*pairs, strict=True))
    gains = np.array([sum(b) - sum(w) for b, w in zip(better, worse, strict=True)])
    found: dict[str, Any] = {"preferences": len(pairs), "preference_accuracy": _accuracy(gains)}
    return found if groups is None else {**found, "preferences by subset": _by_group(gains, groups)}


def report_samples(
    reward: RewardFunction, groups: Sequence[Sequence[Encoded]], gold: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Best of n: the gold score of what the reward picks of each prompt's samples, beside chance and the ceiling.

    Raises:
        ValueError: there is no sample.
    """
    if not groups:
        raise ValueError("no sample to choose from")
    picked = best_of_n(reward, groups)
    return {
        "prompts": len(groups),
        "best_of_n": float(np.mean([scores[k] for scores, k in zip(gold, picked, strict=True)])),
        "random_of_n": float(np.mean([np.mean(scores) for scores in gold])),
        "oracle_of_n": float(np.mean([max(scores) for scores in gold])),
    }


def word_lows(text: str, offsets: Sequence[tuple[int, int]], rewards: Sequence[float]) -> Floats:
    """The lowest reward among each word's tokens, words being split on single spaces; blank tokens are of no word.

    A word without a token, such as one behind the cut of a truncated response, has ∞.

    >>> word_lows("red cat", [(0, 1), (1, 3), (3, 7), (7, 7)], [2.0, -1.0, 0.5, -9.0]).tolist()
    [-1.0, 0.5]
    """
    word_of = np.cumsum([character == " " for character in text])
    lows = np.full(text.count(" ") + 1, np.inf)
    for (start, stop), value in zip(offsets, rewards, strict=True):
        if shown := text[start:stop].rstrip():
            word = word_of[start + len(shown) - 1]
            lows[word] = min(lows[word], value)
    return lows


def report_word_tags(
    reward: RewardFunction, rows: Sequence[Correction], labels: Sequence[TokenLabels]
) -> dict[str, Any]:
    """AUC of words against gold tags, ``word_tags`` in a row: OK or BAD for each word of the original.

    Raises:
        ValueError: a row has not one tag for each word.
    """
    tagged = {row.id: row for row in rows if "word_tags" in row.extra}
    seen = [row for row in labels if row.id in tagged]
    lows: dict[bool, list[Floats]] = defaultdict(list)
    for one, stream in zip(seen, reward([row.original.encoded for row in seen]), strict=True):
        bad = np.array([tag == "BAD" for tag in tagged[one.id].extra["word_tags"]], bool)
        found = word_lows(one.original.text, one.original.encoded.offsets, stream)
        if len(found) != len(bad):
            raise ValueError(f"row {one.id!r} has {len(found)} words and {len(bad)} word_tags; mend the file")
        for side in (True, False):
            lows[side].append(found[bad == side])
    if not seen:
        return {}
    every = [np.concatenate(lows[side]) for side in (True, False)]
    bad_words, good_words = (words[words < np.inf] for words in every)
    return {
        "words": len(bad_words) + len(good_words),
        "bad_words": len(bad_words),
        "words_without_reward": sum(map(len, every)) - len(bad_words) - len(good_words),
        "auc_words": auc(good_words.tolist(), bad_words.tolist()),
    }


def _tokens(original: _Side, edited: _Side) -> dict[str, float]:
    kept = original.of(Label.KEPT)
    bad = original.of(Label.DELETED, Label.SUBSTITUTED, Label.OMISSION)
    good, kept_there = edited.of(Label.INSERTED, Label.SUBSTITUTED), edited.of(Label.KEPT)
    both = np.concatenate([good, bad])
    aucs = {
        "auc_bad_kept": (kept, bad),
        "auc_bad_good": (good, bad),
        "auc_good_kept": (good, kept_there),
        "auc_deleted": (kept, original.of(Label.DELETED)),
        "auc_substituted": (kept, original.of(Label.SUBSTITUTED)),
        "auc_inserted": (edited.of(Label.INSERTED), kept_there),
    }
    return {
        **{name: auc(high.tolist(), low.tolist()) for name, (high, low) in aucs.items()},
        "kept_deviation": float(np.std(np.concatenate([kept, kept_there]))) if len(kept) + len(kept_there) else 0.0,
        "changed_deviation": float(np.std(both)),
        "token_calibration_error": calibration_error(expit(both), np.arange(len(both)) < len(good)),
    }


def _leaks(rows: Sequence[Encoded], streams: Sequence[Sequence[float]]) -> dict[str, float]:
    sums = [float(sum(stream)) for stream in streams]
    return {
        "length_correlation": rank_correlation(sums, [len(row.response_ids) for row in rows]),
        "repetition_correlation": rank_correlation(sums, [repetition(row.response_ids) for row in rows]),
    }


def _accuracy(gains: Floats) -> float:
    return pair_accuracy(gains.tolist(), [0.0] * len(gains))


def _by_group(
    gains: Floats, groups: Sequence[str], order: Sequence[str] | None = None
) -> dict[str, dict[str, float | int]]:
    named = np.array(groups)
    parts = {name: gains[named == name] for name in (order or sorted(set(groups)))}
    return {name: {"pairs": len(part), "accuracy": _accuracy(part)} for name, part in parts.items() if len(part)}
