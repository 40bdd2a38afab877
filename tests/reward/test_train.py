from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from errata.labels import label_all
from errata.models import load_token_reward_model, pad
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    encode_pair,
    load_scorer,
    localisation,
    pair_accuracy,
    score_texts,
    token_means,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.reward import train as train_module
from errata.types import Correction, Label, Preference

ENCODER = tiny.encoder()
TRAIN, HELD_OUT = tiny.corrections(96, seed=1), tiny.corrections(40, seed=2)
UNCHANGED = [Correction(id=f"u{k}", prompt="say", original="red cat", edited="red cat") for k in range(3)]
LEARN: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 8, "batch_size": 16, "micro_batch_size": 16}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"), initializer_range=0.1)


def labelled(rows: list[Correction]) -> list[Any]:
    return list(label_all(rows, ENCODER))


def test_classes_find_the_word_that_is_always_deleted(start: Path, tmp_path: Path) -> None:
    config = TokenRewardConfig(**LEARN)
    card = train_token_reward(start, labelled([*TRAIN, *UNCHANGED]), ENCODER, config, tmp_path / "out")
    assert (card["rows"], card["excluded_without_gradient"]) == (96, 3)
    assert (card["stage"], card["kind"], card["objective"]) == ("reward", "token", "changed_token_classes")
    assert (card["tokenizer"], card["template"]) == (ENCODER.fingerprint, ENCODER.template)
    scorer = load_scorer(tmp_path / "out", ENCODER)
    found = localisation(scorer, labelled(HELD_OUT))
    assert found.bad_kept > 0.95
    better, worse = zip(*(encode_pair(row, ENCODER) for row in HELD_OUT), strict=True)
    assert pair_accuracy(score_texts(scorer, better), score_texts(scorer, worse)) > 0.95
    # Kept tokens stay near 0 and bad ones are negative: the level means something.
    rude = ENCODER.tokenizer.convert_tokens_to_ids("rude")
    for row, stream in zip(worse, scorer(worse), strict=True):
        for token, reward in zip(row.response_ids, stream, strict=True):
            assert reward < -1 if token == rude else abs(reward) < 0.9


def test_eq_3_ranks_and_localises(start: Path, tmp_path: Path) -> None:
    config = RewardConfig(**LEARN)
    card = train_token_reward_bradley_terry(start, labelled([*UNCHANGED, *TRAIN]), ENCODER, config, tmp_path / "out")
    assert (card["rows"], card["excluded_without_gradient"]) == (96, 3)
    assert card["objective"] == "token_bradley_terry"
    assert card["loss"] < 0.3
    scorer = load_scorer(tmp_path / "out", ENCODER)
    better, worse = zip(*(encode_pair(row, ENCODER) for row in HELD_OUT), strict=True)
    assert pair_accuracy(token_means(scorer, better), token_means(scorer, worse)) > 0.95
    assert localisation(scorer, labelled(HELD_OUT)).bad_kept > 0.8


def test_a_sequence_reward_model_ranks(start: Path, tmp_path: Path) -> None:
    same = Preference(id="s", prompt="say", chosen="cat", rejected="cat")
    rows = [same, *TRAIN[:48], *(_preference(row) for row in TRAIN[48:])]
    card = train_sequence_reward(start, rows, ENCODER, RewardConfig(**LEARN), tmp_path / "out")
    assert (card["rows"], card["excluded_without_gradient"]) == (96, 1)
    assert card["kind"] == "sequence"
    scorer = load_scorer(tmp_path / "out", ENCODER)
    better, worse = zip(*(encode_pair(row, ENCODER) for row in HELD_OUT), strict=True)
    assert pair_accuracy(score_texts(scorer, better), score_texts(scorer, worse)) > 0.9


def _preference(row: Correction) -> Preference:
    return Preference(id=row.id, prompt=row.prompt, chosen=row.edited, rejected=row.original)


def test_the_first_losses_are_those_of_rewards_of_zero(start: Path, tmp_path: Path) -> None:
    """log 2 for each pair, and log 2 for each changed token: κ·r² is nothing yet."""
    one: dict[str, Any] = {"epochs": 1, "batch_size": 8, "micro_batch_size": 4}
    labels = labelled(TRAIN[:8])
    log2 = pytest.approx(0.6931, abs=1e-4)
    eq3 = train_token_reward_bradley_terry(start, labels, ENCODER, RewardConfig(**one), tmp_path / "eq3")
    pair = train_sequence_reward(start, TRAIN[:8], ENCODER, RewardConfig(**one), tmp_path / "pair")
    classes = train_token_reward(start, labels, ENCODER, TokenRewardConfig(**one), tmp_path / "classes")
    assert eq3["loss"] == pair["loss"] == log2
    assert eq3["count"] == pair["count"] == 8, "pairs"
    assert classes["loss"] == log2
    assert classes["count"] == sum(row.original.split().count("rude") for row in TRAIN[:8]), "changed tokens"
    both = TokenRewardConfig(**one, sequence_coefficient=0.5)
    with_pairs = train_token_reward(start, labels, ENCODER, both, tmp_path / "both")
    assert with_pairs["loss"] == pytest.approx(0.6931 * (1 + 0.5 * 8 / classes["count"]), abs=1e-4)


def test_the_kept_coefficient_holds_kept_tokens_down(start: Path, tmp_path: Path) -> None:
    kept = {}
    for coefficient in (0.0, 3.0):
        config = TokenRewardConfig(**{**LEARN, "epochs": 3}, kept_coefficient=coefficient)
        train_token_reward(start, labelled(TRAIN), ENCODER, config, tmp_path / str(coefficient))
        streams = load_scorer(tmp_path / str(coefficient), ENCODER)([row.edited.encoded for row in labelled(HELD_OUT)])
        kept[coefficient] = sum(abs(value) for stream in streams for value in stream)
    assert kept[3.0] < 0.5 * kept[0.0]


@pytest.mark.parametrize("train", [train_token_reward, train_token_reward_bradley_terry])
def test_only_unchanged_rows_are_an_error(train: Any, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row is left"):
        train(start, labelled(UNCHANGED), ENCODER, TokenRewardConfig(), tmp_path / "out")
    with pytest.raises(ValueError, match="no row is left"):
        train_sequence_reward(start, UNCHANGED, ENCODER, RewardConfig(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sampled_ids_are_kept_and_a_bad_row_is_named() -> None:
    ids = (*ENCODER.encode("say", "rude cat").response_ids[:-1],)
    row = Correction(id="a", prompt="say", original="rude cat", edited="cat", original_ids=ids)
    better, worse = encode_pair(row, ENCODER)
    assert worse.response_ids == ids
    assert not worse.ended, "it was cut off"
    assert better.ended
    both = Preference(id="p", prompt="say", chosen="cat", rejected="rude cat", rejected_ids=ids)
    assert encode_pair(both, ENCODER) == (better, worse)
    swapped = Preference(id="p", prompt="say", chosen="rude cat", rejected="cat", chosen_ids=ids)
    assert encode_pair(swapped, ENCODER) == (worse, better)
    with pytest.raises(ValueError, match="the sampled ids do not decode"):
        encode_pair(replace(row, original="cat"), ENCODER)


def test_what_is_written_is_reused(start: Path, tmp_path: Path) -> None:
    config = RewardConfig(epochs=1, batch_size=8, micro_batch_size=8)
    card = train_sequence_reward(start, TRAIN[:8], ENCODER, config, tmp_path / "out")
    assert train_sequence_reward(start, TRAIN[:8], ENCODER, config, tmp_path / "out") == card
    with pytest.raises(ValueError, match="made by another run"):
        train_token_reward(start, labelled(TRAIN[:8]), ENCODER, TokenRewardConfig(), tmp_path / "out")


def test_signs_reach_the_side_they_belong_to(start: Path, tmp_path: Path) -> None:
    """One step on one insertion: the edited side's token goes up; on one deletion: the original's goes down."""
    config = TokenRewardConfig(learning_rate=1e-2, epochs=1, batch_size=1, micro_batch_size=1)
    for name, original, edited in (("up", "cat", "now cat"), ("down", "now cat", "cat")):
        rows = labelled([Correction(id=name, prompt="say", original=original, edited=edited)])
        train_token_reward(start, rows, ENCODER, config, tmp_path / name)
        batch = pad([ENCODER.encode("say", "now cat")], pad_id=0)
        with torch.no_grad():
            reward = load_token_reward_model(tmp_path / name)(input_ids=batch.ids_BT).logits[0, 2, 0]
        assert (reward > 1e-4) if name == "up" else (reward < -1e-4)


def test_ignored_tokens_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither kept nor changed: whatever their reward, each loss is the same, and they have no gradient."""
    (row,) = labelled([Correction(id="a", prompt="say", original="now cat", edited="cat red dog")])
    edited = replace(row.edited, labels=(0, int(Label.IGNORED), *row.edited.labels[2:]))
    inputs = train_module.collate_labels([replace(row, edited=edited)], encoder=ENCODER)
    ignored, wanted_SK = 1, inputs["layout"].wanted_SK
    assert not wanted_SK[0, ignored]
    assert wanted_SK.sum() == len(row.edited.labels) + len(row.original.labels) - 1
    monkeypatch.setattr(
        train_module, "laid_out_scalars", lambda rewards_SK, layout: torch.where(layout.wanted_SK, rewards_SK, 0)
    )
    config = TokenRewardConfig(sequence_coefficient=1.0)
    for loss in (train_module._bradley_terry_loss, partial(train_module._class_loss, config=config)):
        found = []
        for at in (0.5, 30.0):
            rewards_BT = torch.linspace(-1, 1, inputs["sign_SK"].numel()).view_as(inputs["sign_SK"]).clone()
            rewards_BT[0, ignored] = at
            total, count = loss(rewards_BT.requires_grad_(), inputs)
            total.backward()
            found.append((total.item(), int(count)))
            assert rewards_BT.grad[0, ignored] == 0
            assert rewards_BT.grad[0, ignored + 1] != 0
        assert found[0] == found[1]
