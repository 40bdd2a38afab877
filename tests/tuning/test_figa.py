from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from errata.labels import label
from errata.tuning import FIGAConfig, train_figa, weigh
from errata.tuning.figa import PAPER
from errata.types import Correction, Label
from tuning.likelihood import logprobs, of_labels

ENCODER = tiny.encoder()
ROW = Correction(id="a", prompt="say", original="rude red dog sits", edited="red cat sits here now")
"""Deleted, kept, substituted, kept, end; kept, substituted, kept, inserted twice, end."""


def test_the_papers_weights() -> None:
    pair = weigh(label(ROW, ENCODER), FIGAConfig(**PAPER))
    assert pair.edited_weights == (0.0, 1.0, 0.0, 1.0, 1.0, 1.0), "substitute, inserted and the end; kept ones 0"
    assert pair.original_weights == (0.5, 0.0, 0.5, 0.0, 0.0), "deleted and substituted; the end never"
    assert PAPER["gate"] == 0.6
    assert pair.edited.ended
    assert pair.original.ended


def test_every_weight_is_its_own() -> None:
    config = FIGAConfig(good_weight=3.0, kept_weight=0.25, bad_weight=7.0)
    pair = weigh(label(ROW, ENCODER), config)
    assert pair.edited_weights == (0.25, 3.0, 0.25, 3.0, 3.0, 3.0)
    assert pair.original_weights == (7.0, 0.0, 7.0, 0.0, 0.0)


def test_a_response_that_was_cut_off_has_no_end_to_weigh() -> None:
    ids = ENCODER.encode(ROW.prompt, ROW.original, ended=False).response_ids
    cut = label(replace(ROW, original_ids=ids), ENCODER)
    assert weigh(cut, FIGAConfig(**PAPER)).original_weights == (0.5, 0.0, 0.5, 0.0)
    edited = replace(cut.edited, encoded=replace(cut.edited.encoded, ids=cut.edited.encoded.ids[:-1], ended=False))
    edited = replace(edited, labels=edited.labels[:-1])
    assert weigh(replace(cut, edited=edited), FIGAConfig(**PAPER)).edited_weights == (0.0, 1.0, 0.0, 1.0, 1.0)


def test_a_pure_deletion_has_only_the_end_to_imitate() -> None:
    row = label(Correction(id="d", prompt="say", original="rude cat", edited="cat"), ENCODER)
    assert weigh(row, FIGAConfig(**PAPER)).edited_weights == (0.0, 1.0)
    assert weigh(row, FIGAConfig(**PAPER)).has_gradient


def test_inserted_tokens_rise_and_confident_struck_out_ones_fall(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    rows = [label(replace(ROW, id=str(k), prompt=word), ENCODER) for k, word in enumerate(tiny.CLEAN)]
    config = FIGAConfig(learning_rate=3e-3, epochs=6, batch_size=11, micro_batch_size=11, bad_weight=0.5)
    sides = {"good": (Label.INSERTED,), "bad": (Label.DELETED,), "kept": (Label.KEPT,)}

    def moved(name: str, config: FIGAConfig) -> dict[str, float]:
        train_figa(start, rows, ENCODER, config, tmp_path / name)
        return {
            key: sum(of_labels(tmp_path / name, rows, *names)) - sum(of_labels(start, rows, *names))
            for key, names in sides.items()
        }

    opened = moved("opened", replace(config, gate=1e9))
    closed = moved("closed", replace(config, gate=0.0))
    assert opened["good"] > 5
    assert opened["bad"] < -5
    assert closed["bad"] > opened["bad"] + 5, "the gate decides what is pushed down"
    held = moved("held", replace(config, gate=1e9, kept_weight=2.0))
    free = moved("free", replace(config, gate=1e9, kept_weight=0.0))
    assert held["kept"] > free["kept"] + 5, "the kept weight holds the model to what people left alone"


def test_the_gate_lets_only_confident_tokens_through(tmp_path: Path) -> None:
    """N counts the edited side's weights and the struck-out tokens whose cross-entropy is at most the gate."""
    start = tiny.llama(tmp_path / "start")
    rows = tiny.labels(12)
    bad = [-value for value in of_labels(start, rows, Label.DELETED, Label.SUBSTITUTED)]
    weighed = sum(sum(weight != 0 for weight in weigh(row, FIGAConfig(**PAPER)).edited_weights) for row in rows)
    for gate in (0.0, 2.5, 1e9):
        config = FIGAConfig(**{**PAPER, "gate": gate, "epochs": 1, "batch_size": 12}, micro_batch_size=3)
        card = train_figa(start, rows, ENCODER, config, tmp_path / str(gate))
        assert card["count"] == weighed + sum(value <= gate for value in bad)
    assert 0 < sum(value <= 2.5 for value in bad) < len(bad)


def test_the_loss_is_the_papers(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    rows = tiny.labels(8)
    config = FIGAConfig(epochs=1, batch_size=8, micro_batch_size=2, kept_weight=0.25, bad_weight=0.5, gate=2.5)
    card = train_figa(start, rows, ENCODER, config, tmp_path / "out")
    total, count = 0.0, 0
    pairs = [weigh(row, config) for row in rows]
    edited, original = (logprobs(start, [getattr(pair, side) for pair in pairs]) for side in ("edited", "original"))
    for pair, edited_T, original_U in zip(pairs, edited, original, strict=True):
        for weight, value in zip(pair.edited_weights, edited_T, strict=True):
            total, count = total + weight * -value, count + (weight != 0)
        for weight, value in zip(pair.original_weights, original_U, strict=True):
            if weight and -value <= 2.5:
                total, count = total - weight * -value, count + 1
    assert card["count"] == count
    assert card["loss"] == pytest.approx(total / count, rel=1e-4)


def test_rows_without_a_weight_are_left_out_and_counted(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    same = label(Correction(id="s", prompt="say", original="cat", edited="cat"), ENCODER)
    # Without a weight on good tokens the end of sequence has none either, and an unchanged row says nothing.
    config = FIGAConfig(good_weight=0.0, kept_weight=0.0, gate=1e9, epochs=1, batch_size=2, micro_batch_size=2)
    card = train_figa(start, [same, *tiny.labels(3)], ENCODER, config, tmp_path / "out")
    assert (card["rows"], card["excluded_without_gradient"]) == (3, 1)
    with pytest.raises(ValueError, match="no row is left"):
        train_figa(start, [same, same], ENCODER, config, tmp_path / "none")
    # By default its end of sequence is imitated.
    assert weigh(same, FIGAConfig(**PAPER)).has_gradient
