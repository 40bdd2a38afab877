"""Tokenizers built in code, of the families that models use, and texts that are hard on them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

SHARED = Path(__file__).parents[3] / "shared" / "data"
SENTENCES = ["The cat sat on the mat.", "It opens at nine, and the cat opens it at ten!", "Don't sit on that mat; eat."]
CONTROL = ["<unk>", "<s>", "</s>"]


@cache
def byte_level() -> PreTrainedTokenizerBase:
    """As in GPT-2, Llama 3 and Qwen: bytes, a space belongs to the word after it, each emoji is four pieces."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=CONTROL, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


@cache
def metaspace() -> PreTrainedTokenizerBase:
    """As in SentencePiece (Llama 2, Gemma): a space is put before the text, unknown characters fall back to bytes."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=80, special_tokens=CONTROL, show_progress=False)
    )
    state = json.loads(trained.to_str())["model"]
    vocabulary = [*state["vocab"], *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(vocabulary)},
            merges=[tuple(merge) for merge in state["merges"]],
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def unigram() -> PreTrainedTokenizerBase:
    """As in T5 and XLM-R, with bytes to fall back to: pieces by likelihood, a space is put before the text."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=CONTROL, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(SENTENCES * 4, trainer)
    pieces = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"] if piece[0] not in CONTROL[1:]]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def word_piece() -> PreTrainedTokenizerBase:
    """As in BERT: lower case, accents and control characters dropped, words that it does not know are <unk>."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=60, special_tokens=CONTROL, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def word_level() -> PreTrainedTokenizerBase:
    """One token a word or punctuation mark, as in the demo; words that it does not know are <unk>."""
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=CONTROL, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def stories() -> PreTrainedTokenizerBase:
    """The tokenizer of a real model."""
    folder = SHARED / "stories260K"
    if not folder.exists():
        pytest.skip(f"{folder} is missing")
    return AutoTokenizer.from_pretrained(folder)


# Those that can write any text; word_piece and word_level cannot.
every_tokenizer = pytest.mark.parametrize(
    "tokenizer_of", [byte_level, metaspace, unigram, stories], ids=lambda make: make.__name__
)

FRAGMENTS = [
    *("The", "cat", "mat", "Don't", "day-long", "ten", ".", ",", "</s>", "<s>", "_", "3", "x"),
    *(" ", "  ", "\t", "\n", "\r\n", "\x00", "\x1c", "\u3000", "\xa0"),
    *(
        "é",
        "e\u0301",
        "\u0301",
        "😀",
        "😁",
        "👩‍🚀",
        "👩",
        "🇩🇪",
        "🏳️‍🌈",
        "\u200d",
        "\u200b",
        "▁",
        "ﬁ",
        "ß",
        "\ufffd",
        "\ufeff",
    ),
    *("שלום", "مرحبا", "\u200f", "می‌خواهم", "日本", "ที่นี่", "한국"),
]

texts = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """A text, and what became of it: most fragments kept, so that keeps, gaps and shared bytes all occur."""
    before = draw(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=12))
    after = list(before)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(after)))
        after[place : place + draw(st.integers(0, 2))] = draw(st.lists(st.sampled_from(FRAGMENTS), max_size=2))
    return "".join(before), "".join(after)
