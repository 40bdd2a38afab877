from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from errata.reward import encode_pair
from errata.tuning import DPOConfig, train_dpo
from errata.types import Correction, Preference
from tuning.likelihood import logprobs

ENCODER = tiny.encoder()
ROWS = tiny.corrections(16, seed=3)
CONFIG = DPOConfig(learning_rate=3e-3, epochs=3, batch_size=8, micro_batch_size=4)


def margins(folder: Path) -> list[float]:
    """log π(better) − log π(worse) of each row."""
    better, worse = zip(*(encode_pair(row, ENCODER) for row in ROWS), strict=True)
    return [sum(b) - sum(w) for b, w in zip(logprobs(folder, better), logprobs(folder, worse), strict=True)]


@pytest.mark.parametrize("micro", [16, 4, 1])
def test_the_first_loss_is_log_2_whatever_the_micro_batches(micro: int, tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    config = replace(CONFIG, epochs=1, batch_size=16, micro_batch_size=micro, beta=5.0)
    card = train_dpo(start, ROWS, ENCODER, config, tmp_path / "out")
    assert card["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert card["count"] == 16, "pairs"


def test_it_moves_the_margin_and_the_reference_stays(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    card = train_dpo(start, ROWS, ENCODER, replace(CONFIG, batch_size=16, beta=0.5), tmp_path / "out")
    before, after = margins(start), margins(tmp_path / "out")
    assert sum(after) > sum(before) + 16
    # The card's loss is that of the policy before the last step, against the start and nothing later.
    one = train_dpo(start, ROWS, ENCODER, replace(CONFIG, batch_size=16, beta=0.5, epochs=2), tmp_path / "one")
    assert one["steps"] + 1 == card["steps"]
    moved = [0.5 * (a - b) for a, b in zip(margins(tmp_path / "one"), before, strict=True)]
    expected = sum(math.log1p(math.exp(-x)) for x in moved) / len(moved)
    assert card["loss"] == pytest.approx(expected, rel=1e-3)


def test_preferences_and_corrections_are_the_same_pairs(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    preferences = [Preference(id=row.id, prompt=row.prompt, chosen=row.edited, rejected=row.original) for row in ROWS]
    train_dpo(start, ROWS, ENCODER, CONFIG, tmp_path / "corrections")
    train_dpo(start, preferences, ENCODER, CONFIG, tmp_path / "preferences")
    assert tiny.difference(tmp_path / "corrections", tmp_path / "preferences") == 0
    assert tiny.difference(tmp_path / "corrections", start) > 1e-3


def test_equal_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    same = Correction(id="s", prompt="say", original="cat", edited="cat")
    card = train_dpo(start, [same, *ROWS, same], ENCODER, CONFIG, tmp_path / "out")
    assert (card["rows"], card["excluded_without_gradient"]) == (16, 2)
    train_dpo(start, ROWS, ENCODER, CONFIG, tmp_path / "without")
    assert tiny.difference(tmp_path / "out", tmp_path / "without") == 0
    with pytest.raises(ValueError, match="no row is left"):
        train_dpo(start, [same], ENCODER, CONFIG, tmp_path / "none")
