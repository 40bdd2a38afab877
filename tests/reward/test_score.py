from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from errata.data import Encoder
from errata.models import (
    load_sequence_reward_model,
    load_token_reward_model,
    pad,
    save_model,
    sequence_rewards,
    token_rewards,
)
from errata.reward import (
    SequenceScorer,
    TokenScorer,
    encode_rollout,
    fit_scale,
    load_scorer,
    score_texts,
)
from errata.types import Rollout

ENCODER = tiny.encoder()
ROWS = tiny.encoded(tiny.demonstrations(13, seed=4), ENCODER)
CARD = {"stage": "reward", "tokenizer": ENCODER.fingerprint}
TOKEN = {**CARD, "kind": "token", "objective": "changed_token_classes"}
SEQUENCE = {**CARD, "kind": "sequence", "objective": "sequence_bradley_terry"}


def reward_model(folder: Path, card: dict[str, Any]) -> Path:
    start = tiny.llama(folder / "start")
    if card.get("kind") == "sequence":
        model = load_sequence_reward_model(start, pad_id=ENCODER.pad_id, end_id=ENCODER.end_id)
    else:
        model = load_token_reward_model(start)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight)
    save_model(model, ENCODER.tokenizer, folder / "reward", card=card)
    return folder / "reward"


def test_a_token_scorer_gives_one_reward_a_response_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load_scorer(reward_model(tmp_path, TOKEN), ENCODER)
    assert isinstance(scorer, TokenScorer)
    batch = pad(ROWS, pad_id=0)
    with torch.no_grad():
        reward_BT = token_rewards(scorer.model, batch)
    streams = scorer(ROWS)
    for b, row in enumerate(ROWS):
        assert streams[b] == pytest.approx(reward_BT[b, row.prompt_length : len(row.ids)].tolist(), rel=1e-4)
    monkeypatch.setattr("errata.reward.score.BATCH_SIZE", 4)
    for stream, before in zip(scorer(ROWS), streams, strict=True):
        assert stream == pytest.approx(before, rel=1e-4, abs=1e-5)


def test_a_sequence_scorer_pays_only_the_last_token(tmp_path: Path) -> None:
    scorer = load_scorer(reward_model(tmp_path, SEQUENCE), ENCODER)
    assert isinstance(scorer, SequenceScorer)
    with torch.no_grad():
        reward_B = sequence_rewards(scorer.model, pad(ROWS, pad_id=0)).tolist()
    shifted = replace(scorer, shift=0.5, scale=2.0)
    for one in (scorer, shifted):
        for row, stream, reward in zip(ROWS, one(ROWS), reward_B, strict=True):
            assert len(stream) == len(row.response_ids)
            assert not any(stream[:-1]), "also where a shift is taken off"
            assert stream[-1] == pytest.approx((reward - one.shift) / one.scale, rel=1e-4)
    assert score_texts(scorer, ROWS) == pytest.approx(reward_B, rel=1e-4)


@pytest.mark.parametrize(
    ("card", "free"),
    [(TOKEN, False), ({**TOKEN, "objective": "token_bradley_terry"}, True), (SEQUENCE, True)],
    ids=["classes", "Eq 3", "sequence"],
)
def test_a_scale_gives_unit_deviation_and_moves_the_level_only_where_it_is_free(
    card: dict[str, Any], free: bool, tmp_path: Path
) -> None:
    scorer = load_scorer(reward_model(tmp_path, card), ENCODER)
    fitted = fit_scale(scorer, ROWS)
    assert np.std(score_texts(fitted, ROWS)) == pytest.approx(1, rel=1e-6)
    raw, scaled = np.concatenate(scorer(ROWS)), np.concatenate(fitted(ROWS))
    if free:
        paid = scaled[scaled != 0]
        assert paid.mean() == pytest.approx(0, abs=1e-9)
        assert raw[raw != 0].mean() != pytest.approx(0, abs=0.05), "it was not so before"
    else:
        assert fitted.shift == 0
        assert np.array_equal(np.sign(raw), np.sign(scaled))
        assert scaled == pytest.approx(raw / fitted.scale)
    # The scale is of these rows and stays with others.
    assert fitted(ROWS[:2])[1] == pytest.approx(fitted(ROWS)[1], rel=1e-4)


def test_equal_rewards_cannot_be_scaled(tmp_path: Path) -> None:
    model = load_token_reward_model(tiny.llama(tmp_path))  # a head of zeros
    with pytest.raises(ValueError, match="gives every sample the same reward"):
        fit_scale(TokenScorer(model, ENCODER.pad_id, level_is_free=False), ROWS)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({}, "is no reward model of errata; train one with `errata reward train`"),
        ({"stage": "sft"}, "is no reward model of errata"),
        ({**TOKEN, "tokenizer": "abc"}, "was trained with another tokenizer or template .*abc"),
    ],
    ids=["no card", "a policy", "other tokenizer"],
)
def test_what_is_no_reward_model_of_these_ids_is_refused(card: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_scorer(reward_model(tmp_path, card), ENCODER)


def test_another_template_and_no_folder_are_refused(tmp_path: Path) -> None:
    other = Encoder(tiny.tokenizer(), template="{prompt} =>")
    with pytest.raises(ValueError, match="another tokenizer or template"):
        load_scorer(reward_model(tmp_path, TOKEN), other)
    with pytest.raises(ValueError, match="is no reward model of errata"):
        load_scorer(tmp_path / "nowhere", ENCODER)


def test_a_rollout_is_scored_by_the_ids_that_were_sampled() -> None:
    rollout = Rollout(id="a", prompt="say", prompt_ids=(1, 4), response_ids=(7, 0, 2), text="six <pad>", ended=True)
    row = encode_rollout(rollout)
    assert row.ids == (1, 4, 7, 0, 2)
    assert row.response_ids == rollout.response_ids
    assert (row.prompt_length, row.ended) == (2, True)
