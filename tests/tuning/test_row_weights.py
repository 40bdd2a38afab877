"""Rows that weigh less than others: what the first step's loss is, against sums over tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from errata.models import load_causal, pad, token_logprobs
from errata.tuning import FIGAConfig, SFTConfig, train_figa, train_sft
from errata.types import Encoded

WEIGHTS = {"d1": 0.25, "d4": 0.0, "c1": 0.25, "c4": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("model"))


def surprise(model: Path, row: Encoded) -> float:
    """Σ_t −log π(y_t) of one response."""
    with torch.no_grad():
        return -float(token_logprobs(load_causal(model), pad([row], pad_id=0)).sum())


def test_sft_multiplies_the_loss_of_a_row_and_not_its_count(model: Path, tmp_path: Path) -> None:
    rows, encoder = tiny.demonstrations(6), tiny.encoder()
    config = SFTConfig(epochs=1, batch_size=6)
    encoded = [encoder.encode(row.prompt, row.response) for row in rows]
    total = sum(WEIGHTS.get(row.id, 1.0) * surprise(model, one) for row, one in zip(rows, encoded, strict=True))
    card = train_sft(model, rows, encoder, config, tmp_path / "weighted", row_weights=WEIGHTS)
    assert card["loss"] == pytest.approx(total / sum(len(one.response_ids) for one in encoded), rel=1e-5)
    plain, ones = (
        train_sft(model, rows, encoder, config, tmp_path / str(k), row_weights=w) for k, w in enumerate([None, {}])
    )
    assert plain["loss"] == ones["loss"] != card["loss"]
    assert plain["fingerprint"] == ones["fingerprint"] != card["fingerprint"]


def test_figa_multiplies_all_weights_of_a_row(model: Path, tmp_path: Path) -> None:
    """With weight 1 on all tokens of the edited text and no unlearning, FIGA is SFT; a row of weight 0 is left out."""
    labels, encoder = tiny.labels(6), tiny.encoder()
    config = FIGAConfig(epochs=1, batch_size=6, kept_weight=1, bad_weight=0)
    card = train_figa(model, labels, encoder, config, tmp_path / "figa", row_weights=WEIGHTS)
    kept = [row for row in labels if row.id != "c4"]
    total = sum(WEIGHTS.get(row.id, 1.0) * surprise(model, row.edited.encoded) for row in kept)
    assert card["loss"] == pytest.approx(total / sum(len(row.edited.labels) for row in kept), rel=1e-5)
    assert card["excluded_without_gradient"] == 1
