"""Labels, training, sampling and scoring see the same ids for the same row, and say alike what length did to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import tiny
from data.chats import CHATML, chat
from errata.data import Encoder, LengthCounts
from errata.labels import label_all
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    encode_pair,
    encode_rollout,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.tuning import DPOConfig, FIGAConfig, PPOConfig, SFTConfig, train_dpo, train_figa, train_ppo, train_sft
from errata.tuning.sft import demonstrations
from errata.types import Correction, Encoded, PromptRow, Rollout

WHOLE = Encoder(chat(CHATML, bos=None))
SAMPLED = (*WHOLE.encode("", "badly").response_ids[:-1], WHOLE.tokenizer.eos_token_id)
HISTORY = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "bye"},
]
# Prompts of 19 tokens and more, sides of different lengths; the one that was sampled ended with the end of sequence.
ROWS = [
    Correction(id="short", prompt="hi", original="rude one", edited="one"),
    Correction(id="sampled", prompt="hi", original="badly", edited="so well", original_ids=SAMPLED),
    Correction(id="history", prompt=HISTORY, original="a rude goodbye", edited="a goodbye to you"),
    Correction(id="spelled", prompt="say <|im_end|>", original="no </s> rude", edited="<|im_end|>"),
]
LONG = [
    *ROWS[:2],
    # One side too long, the original by 3 and the edited text by 5; then a prompt that leaves no room.
    Correction(id="original", prompt="hi", original="x" * 32, edited="x"),
    Correction(id="edited", prompt="hi", original="y", edited="y" * 34),
    Correction(id="prompt", prompt="z" * 60, original="x", edited="y"),
]
LIMIT = WHOLE.encode("hi", "").prompt_length + 30
DROPPED = LengthCounts(rows_in=5, dropped_too_long=3)
TRUNCATED = LengthCounts(rows_in=5, dropped_too_long=1, truncated=2, tokens_cut=3 + 5)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"), vocab_size=len(WHOLE.tokenizer), max_position_embeddings=256)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rows that each trainer would have trained on."""
    rows: list[Any] = []

    def fit(model: Any, data: Any, *, card: Any, **_: Any) -> Any:
        rows.append(list(data))
        return card

    for name in ("errata.training.method", "errata.reward.train"):
        monkeypatch.setattr(sys.modules[name], "fit", fit)
    return rows


def long_rows(on_long: str) -> Encoder:
    return Encoder(WHOLE.tokenizer, max_length=LIMIT, on_long=on_long)


def prompts_of(rows: list[Correction]) -> list[PromptRow]:
    return [PromptRow(id=row.id, prompt=row.prompt) for row in rows]


def first_prompts(start: Path, rows: list[PromptRow], encoder: Encoder, out: Path) -> tuple[set[Any], dict[str, Any]]:
    """The prompts that one step of PPO samples for, as its reward function sees them, and the card."""
    met: set[Any] = set()

    def reward(batch: list[Encoded]) -> list[list[float]]:
        met.update(row.ids[: row.prompt_length] for row in batch)
        return [[0.0] * len(row.response_ids) for row in batch]

    config = PPOConfig(steps=1, rollouts_per_step=8, minibatch_size=8, max_new_tokens=2)
    return met, train_ppo(start, reward, rows, encoder, config, out)


def test_the_same_row_has_the_same_ids_everywhere(start: Path, seen: list[Any], tmp_path: Path) -> None:
    labels = list(label_all(ROWS, WHOLE))
    originals, edited = [row.original.encoded for row in labels], [row.edited.encoded for row in labels]
    assert originals[1].response_ids == SAMPLED
    assert [encode_pair(row, WHOLE) for row in ROWS] == list(zip(edited, originals, strict=True))
    train_sft(start, demonstrations(ROWS), WHOLE, SFTConfig(), tmp_path / "sft")
    assert seen.pop() == [(row, 1.0) for row in edited]
    train_dpo(start, ROWS, WHOLE, DPOConfig(), tmp_path / "dpo")
    assert [each.row for each in seen.pop()] == list(zip(edited, originals, strict=True))
    train_figa(start, labels, WHOLE, FIGAConfig(), tmp_path / "figa")
    assert [(row.edited, row.original) for row in seen.pop()] == list(zip(edited, originals, strict=True))
    train_sequence_reward(start, ROWS, WHOLE, RewardConfig(), tmp_path / "sequence")
    assert seen.pop() == list(zip(edited, originals, strict=True))
    train_token_reward(start, labels, WHOLE, TokenRewardConfig(), tmp_path / "token")
    assert [(row.edited.encoded, row.original.encoded) for row in seen.pop()] == list(
        zip(edited, originals, strict=True)
    )
    met, _ = first_prompts(start, prompts_of(ROWS), WHOLE, tmp_path / "ppo")
    assert met == {row.ids[: row.prompt_length] for row in edited}
    for row, one in zip(ROWS, originals, strict=True):
        ids = WHOLE.prompt_ids(row.prompt), one.response_ids
        rollout = Rollout(
            id="", prompt=row.prompt, prompt_ids=ids[0], response_ids=ids[1], text=row.original, ended=True
        )
        assert encode_rollout(rollout).ids == one.ids
        assert WHOLE.decode(one.response_ids) == row.original


@pytest.mark.parametrize(("on_long", "expected"), [("drop", DROPPED), ("truncate", TRUNCATED)])
def test_every_card_counts_what_length_did(on_long: str, expected: LengthCounts, start, seen, tmp_path: Path) -> None:
    encoder = long_rows(on_long)
    cards = {
        "dpo": train_dpo(start, LONG, encoder, DPOConfig(), tmp_path / "dpo"),
        "sequence": train_sequence_reward(start, LONG, encoder, RewardConfig(), tmp_path / "sequence"),
    }
    for name, card in cards.items():
        assert {key: card[key] for key in ("rows_in", "dropped_too_long", "truncated", "tokens_cut")} == {
            "rows_in": 5,
            "dropped_too_long": expected.dropped_too_long,
            "truncated": expected.truncated,
            "tokens_cut": expected.tokens_cut,
        }, name
        assert card["rows"] == 5 - expected.dropped_too_long
    lengths = [tuple(len(side.response_ids) for side in row) for row in seen.pop()]
    assert lengths == [(4, 9), (8, 6), *([(2, 30), (30, 2)] if on_long == "truncate" else [])], "each side by itself"


def test_the_counts_of_sft_and_ppo_are_those_of_their_side(start: Path, seen: list[Any], tmp_path: Path) -> None:
    rows = demonstrations(LONG)
    card = train_sft(start, rows, long_rows("drop"), SFTConfig(), tmp_path / "dropped")
    assert (card["rows"], card["rows_in"], card["dropped_too_long"], card["truncated"]) == (3, 5, 2, 0)
    card = train_sft(start, rows, long_rows("truncate"), SFTConfig(), tmp_path / "truncated")
    assert (card["rows"], card["dropped_too_long"], card["truncated"], card["tokens_cut"]) == (4, 1, 1, 5)
    assert [row.ended for row, _ in seen.pop()] == [True, True, True, False], "nothing teaches the cut one to end there"
    for on_long in ("drop", "truncate"):
        met, card = first_prompts(start, prompts_of(LONG), long_rows(on_long), tmp_path / f"ppo_{on_long}")
        assert (card["prompts"], card["rows_in"], card["dropped_too_long"], card["truncated"]) == (4, 5, 1, 0)
        assert met == {WHOLE.prompt_ids("hi")}


@pytest.mark.parametrize("train", [train_figa, train_token_reward, train_token_reward_bradley_terry])
def test_training_on_labels_shows_the_counts_of_labelling(train: Any, start, seen, tmp_path: Path) -> None:
    config = FIGAConfig() if train is train_figa else TokenRewardConfig()
    labels = list(label_all(LONG[:-1], long_rows("truncate")))
    card = train(start, labels, WHOLE, config, tmp_path / "own")
    assert (card["rows_in"], card["dropped_too_long"], card["truncated"], card["tokens_cut"]) == (4, 0, 2, 8)
    card = train(start, labels, WHOLE, config, tmp_path / "given", counts=TRUNCATED)
    assert (card["rows_in"], card["dropped_too_long"], card["truncated"], card["tokens_cut"]) == (5, 1, 2, 8)


def test_a_long_row_is_an_error_that_names_it_and_nothing_left_is_one(start: Path, seen, tmp_path: Path) -> None:
    prompts = prompts_of(LONG)
    with pytest.raises(ValueError, match=r"row 'original': prompt and response have .* raise the limit \(max_length\)"):
        train_dpo(start, LONG, long_rows("error"), DPOConfig(), tmp_path / "out")
    with pytest.raises(ValueError, match="row 'edited': prompt and response have"):
        train_sft(start, demonstrations(LONG), long_rows("error"), SFTConfig(), tmp_path / "out")
    with pytest.raises(ValueError, match="row 'prompt': the prompt has"):
        first_prompts(start, prompts, long_rows("error"), tmp_path / "out")
    for on_long in ("drop", "truncate"):
        with pytest.raises(ValueError, match="every row was dropped"):
            first_prompts(start, prompts[-1:], long_rows(on_long), tmp_path / "out")
        with pytest.raises(ValueError, match="every row was dropped"):
            train_sequence_reward(start, LONG[-1:], long_rows(on_long), RewardConfig(), tmp_path / "out")
    assert not seen
