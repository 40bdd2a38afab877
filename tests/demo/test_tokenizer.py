from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from errata.demo.language import word_types
from errata.demo.tokenizer import build_tokenizer
from errata.demo.world import DefectRates, make_prompts, write_response, write_with

TOKENIZER = build_tokenizer()


def length(text: str) -> int:
    return len(TOKENIZER(text)["input_ids"])


@given(st.text())
def test_decoding_gives_back_every_text(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.sampled_from(word_types()), max_size=20).map(" ".join))
def test_offsets_cover_the_text(text: str) -> None:
    offsets = TOKENIZER(text, return_offsets_mapping=True)["offset_mapping"]
    assert "".join(text[start:stop] for start, stop in offsets) == text


def test_every_word_of_the_world_is_one_token() -> None:
    for word in word_types():
        if word.isalpha():
            assert length(f" {word}") == 1, word
    rng = Random(0)
    for row in make_prompts(100, rng):
        letter = write_with(row.prompt, (), rng)
        for text in (row.prompt, letter):
            pieces = [TOKENIZER.decode([token]).strip() for token in TOKENIZER.encode(text)]
            assert set(pieces) <= set(word_types())


def test_control_tokens_are_distinct_and_never_added() -> None:
    assert (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)
    assert TOKENIZER.encode("") == []
    assert TOKENIZER.encode("Dear Anna,") == TOKENIZER.encode("Dear Anna,", add_special_tokens=False)
    assert TOKENIZER.chat_template is None
    assert TOKENIZER.is_fast


def test_the_vocabulary_is_small() -> None:
    assert len(TOKENIZER) <= 600
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(len(TOKENIZER)))


def test_lengths_suit_a_tiny_model() -> None:
    rng = Random(1)
    clean, defective = [], []
    for row in make_prompts(500, rng):
        prompt = length(row.prompt)
        assert 17 <= prompt <= 26
        response = length(write_with(row.prompt, (), rng))
        assert 25 <= response <= 45
        clean.append(prompt + response)
        defective.append(prompt + length(write_response(row.prompt, rng, defect_rates=DefectRates())))
    assert max(clean) <= 70
    assert sorted(defective)[475] <= 72
    assert max(defective) <= 90


def test_it_loads_back_as_it_was_saved(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()
    assert loaded.special_tokens_map == TOKENIZER.special_tokens_map
    text = "Dear Anna, 😀 Bye.\r\n\t  <s> é"
    assert loaded(text).data == TOKENIZER(text).data
    assert loaded.decode(loaded.encode(text)) == text


def test_another_process_builds_the_same_bytes() -> None:
    code = (
        "from errata.demo.tokenizer import build_tokenizer; print(ascii(build_tokenizer().backend_tokenizer.to_str()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ascii(TOKENIZER.backend_tokenizer.to_str())
