from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from errata.data import Encoder
from errata.models import read_card
from errata.tuning import SFTConfig, demonstrations, train_sft
from errata.types import Demonstration
from tuning.likelihood import logprobs, total

ENCODER = tiny.encoder()
ROWS = tiny.demonstrations(24, seed=1)
CONFIG = SFTConfig(learning_rate=1e-2, epochs=4, batch_size=8, micro_batch_size=8)


def test_it_raises_the_likelihood_of_what_it_imitates(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    card = train_sft(start, ROWS, ENCODER, CONFIG, tmp_path / "out")
    encoded = [ENCODER.encode(row.prompt, row.response) for row in ROWS]
    tokens = sum(len(row.response_ids) for row in encoded)
    assert total(tmp_path / "out", encoded) / tokens > total(start, encoded) / tokens + 0.5
    assert (card["stage"], card["rows"], card["steps"]) == ("sft", 24, 12)
    assert read_card(tmp_path / "out") == card


def test_the_end_of_sequence_is_learned_and_the_prompt_is_not(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    rows = [Demonstration(id=str(k), prompt=f"{word} now", response="cat") for k, word in enumerate(tiny.CLEAN)]
    train_sft(start, rows, ENCODER, CONFIG, tmp_path / "out")
    encoded = [ENCODER.encode(row.prompt, row.response) for row in rows]
    before, after = logprobs(start, encoded), logprobs(tmp_path / "out", encoded)
    assert all(stream[-1] > -0.5 > earlier[-1] for stream, earlier in zip(after, before, strict=True))
    # "now" stood in every prompt: to the model it is a word like any other.
    prompts = [ENCODER.encode("say", "now", ended=False)]
    assert total(tmp_path / "out", prompts) < total(start, prompts) + 0.5


def test_the_loss_of_the_card_is_the_mean_over_tokens(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    card = train_sft(start, ROWS, ENCODER, SFTConfig(epochs=1, batch_size=24, micro_batch_size=5 + 1), tmp_path / "out")
    encoded = [ENCODER.encode(row.prompt, row.response) for row in ROWS]
    tokens = sum(len(row.response_ids) for row in encoded)
    assert card["count"] == tokens, "the end of sequence included"
    assert card["loss"] == pytest.approx(-total(start, encoded) / tokens, rel=1e-4)


def test_demonstrations_are_the_edited_texts() -> None:
    rows = tiny.corrections(5)
    assert [(row.id, row.prompt, row.response) for row in demonstrations(rows)] == [
        (row.id, row.prompt, row.edited) for row in rows
    ]


def test_a_row_that_is_too_long_is_named(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    rows = [
        Demonstration(id="short", prompt="say", response="cat"),
        Demonstration(id="x7", prompt="a b c", response="d"),
    ]
    with pytest.raises(ValueError, match=r"row 'x7': .* have 6 tokens and the limit is 5"):
        train_sft(start, rows, Encoder(tiny.tokenizer(), max_length=5), CONFIG, tmp_path / "out")
