"""The tokenizer of the embedded world: one token for each of its words, and bytes for everything else."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from errata.demo.language import CARD_LINES, Topic, opening_words, word_types

__all__ = ["build_tokenizer"]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose pieces are the words of the world with the space before them.

    Nothing is trained: a word that is in the vocabulary is its own token, and any other text falls back to bytes, so
    that decoding gives back every text exactly. The words that open a letter or a card are there without the space
    too. ``<pad>``, ``<s>`` and ``</s>`` are ids 0, 1 and 2; calling the tokenizer adds none of them.
    """
    # The alphabet comes in no particular order; sorted, it is the same in every process.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    starts = sorted({*opening_words(), CARD_LINES[Topic.NAME].words[0]})
    words = [f"Ġ{word}" for word in word_types() if word.isalpha()]
    pieces = dict.fromkeys(["<pad>", "<s>", "</s>", *alphabet, *starts, *words])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        clean_up_tokenization_spaces=False,
    )
