"""Whoever looks on while a model trains is told each step, chooses the checkpoint, and tells one run from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from errata.labels import label_all
from errata.training import OfflineConfig, Watch
from errata.tuning import FIGAConfig, SFTConfig, demonstrations, train_figa, train_sft

STEP: dict[str, Any] = {"epochs": 2, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-3}


@pytest.mark.parametrize("method", ["figa", "sft"])
def test_the_lowest_loss_of_its_figures_chooses_what_is_saved(method: str, tmp_path: Path) -> None:
    rows, encoder, start = tiny.corrections(16), tiny.encoder(), tiny.llama(tmp_path / "start")
    losses, steps = iter([5.0, 4.0, 1.0, 2.0, 3.0]), list[tuple[int, int]]()

    def train(out: str, watch: Watch, **more: Any) -> dict[str, Any]:
        settings = {**STEP, "evaluate_every": 2, "patience": 9, "lora_rank": 2, **more}
        if method == "figa":
            labels, config = label_all(rows, encoder), FIGAConfig(**settings)
            return train_figa(start, labels, encoder, config, tmp_path / out, watch=watch)
        return train_sft(start, demonstrations(rows), encoder, SFTConfig(**settings), tmp_path / out, watch=watch)

    watch = Watch(
        figures=lambda model: {"loss": next(losses)}, identity="one", step=lambda step, of: steps.append((step, of))
    )
    card = train("out", watch)
    assert (card["best_step"], card["steps"], card["eval_loss"]) == (4, 8, 1.0)
    assert steps == [(k, 8) for k in range(1, 9)]
    assert train("out", watch) == card  # nothing is trained again
    with pytest.raises(ValueError, match="was made by another run or other settings"):
        train("out", Watch(figures=watch.figures, identity="two"))


def test_figures_need_an_identity() -> None:
    with pytest.raises(ValueError, match="need an identity"):
        Watch(figures=lambda model: {"loss": 0.0})
    assert OfflineConfig().patience == 0
