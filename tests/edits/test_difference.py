from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from errata.edits import apply, diff, word_distance
from errata.edits.word_spans import split_words
from errata.types import Edit, Op, Span, Unit

from .table import distance_by_table
from .tokenizers import byte_level, every_tokenizer, metaspace, pairs, texts

KEEP, INSERT, DELETE, SUBSTITUTE = Op


def brief(edits: list[Edit]) -> list[tuple[str, str, str]]:
    return [(edit.op.value[0], edit.original.text, edit.edited.text) for edit in edits]


def check_edits(original: str, edited: str, edits: list[Edit]) -> None:
    """What every diff promises, whatever its unit."""
    assert apply(original, edits) == edited
    for side, text in (("original", original), ("edited", edited)):
        spans: list[Span] = [getattr(edit, side) for edit in edits]
        assert [span.start for span in spans] == [0, *(span.stop for span in spans)][: len(spans)]
        assert not spans or spans[-1].stop == len(text)
        assert all(text[span.start : span.stop] == span.text for span in spans)
    assert not any(first.op is second.op is KEEP for first, second in pairwise(edits))
    for edit in edits:
        before, after = edit.original.text, edit.edited.text
        assert {KEEP: before == after, INSERT: not before, DELETE: not after, SUBSTITUTE: True}[edit.op]


def word_edits(edits: list[Edit]) -> int:
    """The changed edits that are more than white space."""
    return sum(edit.op is not KEEP and bool((edit.original.text + edit.edited.text).strip()) for edit in edits)


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        ("", "", []),
        ("same  text\r\n", "same  text\r\n", [("k", "same  text\r\n", "same  text\r\n")]),
        ("", "new text", [("i", "", "new"), ("i", "", " text")]),
        ("old text ", "", [("d", "old", ""), ("d", " text", ""), ("d", " ", "")]),
        (
            "It opens at nine.",
            "It opens at ten.",
            [("k", "It opens at ", "It opens at "), ("s", "nine", "ten"), ("k", ".", ".")],
        ),
        ("a bad cat sat", "a cat sat", [("k", "a", "a"), ("d", " bad", ""), ("k", " cat sat", " cat sat")]),
        ("The cat", "cat", [("d", "The", ""), ("d", " ", ""), ("k", "cat", "cat")]),
        ("one two", "one\ttwo", [("k", "one", "one"), ("s", " ", "\t"), ("k", "two", "two")]),
        ("one two", "onetwo", [("d", "one", ""), ("d", " ", ""), ("s", "two", "onetwo")]),
        ("one. two", "one.two", [("k", "one.", "one."), ("d", " ", ""), ("k", "two", "two")]),
        ("one two", "one\nthree", [("k", "one", "one"), ("s", " ", "\n"), ("s", "two", "three")]),
        ("one", "one \r\n", [("k", "one", "one"), ("i", "", " \r\n")]),
        (" ", "\t\t", [("s", " ", "\t\t")]),
        ("hi 👩‍🚀", "hi 👩", [("k", "hi ", "hi "), ("s", "👩‍🚀", "👩")]),
        ("cafe\u0301", "cafe", [("s", "cafe\u0301", "cafe")]),
        ("שלום, עולם", "שלום עולם", [("k", "שלום", "שלום"), ("d", ",", ""), ("k", " עולם", " עולם")]),
        ("a\x00b", "a\x00cc", [("k", "a\x00", "a\x00"), ("s", "b", "cc")]),
    ],
)
def test_words_golden(original: str, edited: str, expected: list[tuple[str, str, str]]) -> None:
    edits = diff(original, edited)
    check_edits(original, edited, edits)
    assert brief(edits) == expected


def test_characters_golden() -> None:
    assert brief(diff("kitten\n", "sitting\n", "char")) == [
        ("s", "k", "s"),
        ("k", "itt", "itt"),
        ("s", "e", "i"),
        ("k", "n", "n"),
        ("i", "", "g"),
        ("k", "\n", "\n"),
    ]
    assert brief(diff("e\u0301!", "e!", Unit.CHAR)) == [("k", "e", "e"), ("d", "\u0301", ""), ("k", "!", "!")]


def test_tokens_golden() -> None:
    edits = diff("The cat 😀 sat.", "The cat 😁 sat on.", "token", byte_level())
    assert [(edit.op.value[0], edit.original, edit.edited) for edit in edits] == [
        ("k", Span(0, 8, "The cat ", 0, 3), Span(0, 8, "The cat ", 0, 3)),
        ("s", Span(8, 9, "😀", 3, 7), Span(8, 9, "😁", 3, 7)),
        ("k", Span(9, 13, " sat", 7, 8), Span(9, 13, " sat", 7, 8)),
        ("i", Span(13, 13, "", 8, 8), Span(13, 16, " on", 8, 9)),
        ("k", Span(13, 14, ".", 8, 9), Span(16, 17, ".", 9, 10)),
    ]


def test_pieces_of_one_character_are_changed_together() -> None:
    edits = diff("The cat 👩 sat", "cat sat 👩‍🚀", "token", metaspace())
    assert apply("The cat 👩 sat", edits) == "cat sat 👩‍🚀"
    assert brief(diff("cat", "cat😀", "token", byte_level())) == [("k", "cat", "cat"), ("i", "", "😀")]
    assert brief(diff("😀cat", "cat", "token", byte_level())) == [("d", "😀", ""), ("k", "cat", "cat")]


def test_a_kept_token_that_reads_differently() -> None:
    # "▁cat" has no space to stand for at the start of a text.
    edits = diff("The cat", "cat", "token", metaspace())
    assert brief(edits) == [("d", "The", ""), ("d", " ", ""), ("k", "cat", "cat")]
    assert [(edit.original.token_start, edit.original.token_stop) for edit in edits] == [(0, 1), (1, 1), (1, 2)]
    assert [(edit.edited.token_start, edit.edited.token_stop) for edit in edits] == [(0, 0), (0, 0), (0, 1)]


def test_control_tokens_in_a_text_are_text() -> None:
    for tokenizer in (byte_level(), metaspace()):
        (edit,) = diff("", "</s>", "token", tokenizer)[-1:]
        assert edit.edited.text == ">"


@given(pairs())
@example(("\ud83d a", "a \ude00"))
def test_word_diff(pair: tuple[str, str]) -> None:
    edits = diff(*pair)
    check_edits(*pair, edits)
    assert all(edit.original.text or edit.edited.text for edit in edits)
    assert word_edits(edits) == word_distance(*pair) == distance_by_table(*map(split_words, pair))


@given(texts, texts)
@example("a\ud83d", "\ude00a\ud83d")
def test_character_diff(original: str, edited: str) -> None:
    edits = diff(original, edited, "char")
    check_edits(original, edited, edits)
    assert sum(edit.op is not KEEP for edit in edits) == distance_by_table(original, edited)


@every_tokenizer
@given(pair=st.one_of(pairs(), st.tuples(texts, texts)))
def test_token_diff(tokenizer_of: Any, pair: tuple[str, str]) -> None:
    tokenizer = tokenizer_of()
    edits = diff(*pair, "token", tokenizer)
    check_edits(*pair, edits)
    ids = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in pair]
    for side, tokens in zip(("original", "edited"), ids, strict=True):
        spans: list[Span] = [getattr(edit, side) for edit in edits]
        assert [span.token_start for span in spans] == [0, *(span.token_stop for span in spans)][: len(spans)]
        assert (spans[-1].token_stop if spans else 0) == len(tokens)
    for edit in edits:
        before, after = (
            tokens[span.token_start : span.token_stop]
            for span, tokens in zip((edit.original, edit.edited), ids, strict=True)
        )
        assert edit.original.text or edit.edited.text
        if edit.op is KEEP:
            assert before == after


def test_random_word_lists_agree_with_the_table() -> None:
    rng = random.Random(7)
    for _ in range(300):
        first, second = (rng.choices(["a", "b", "c", "dd", "ee"], k=rng.randrange(10)) for _ in range(2))
        assert word_edits(diff(" ".join(first), " ".join(second))) == distance_by_table(first, second)


@pytest.mark.parametrize("unit", Unit)
def test_the_same_every_time(unit: Unit) -> None:
    original, edited = "a b a b a c", "b a b c a b a"
    assert len({str(diff(original, edited, unit, byte_level())) for _ in range(5)}) == 1


def test_unusable_arguments() -> None:
    with pytest.raises(ValueError, match=r"unknown unit 'letter'; use one of word, phrase, char, token"):
        diff("a", "b", "letter")
    with pytest.raises(ValueError, match=r"needs a tokenizer"):
        diff("a", "b", "token")
    with pytest.raises(ValueError, match=r"surrogate pair"):
        diff("a", "\ud83d", "token", byte_level())


def test_tokenizer_that_loses_text() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "cat": 1}, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace("!", "")
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert apply("a cat ", diff("a cat ", "b  cat\n", "token", tokenizer)) == "b  cat\n"
    for text in ("the !cat", "the cat!"):
        with pytest.raises(ValueError, match=r"leaves some out.*unit 'word'"):
            diff("cat", text, "token", tokenizer)


def test_a_normalised_space_is_one_edit_with_its_token() -> None:
    backend = Tokenizer(models.BPE({"<unk>": 0, " ": 1, "a": 2, "b": 3}, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Replace("\xa0", " ")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    edits = diff("a b", "a\xa0bb", "token", tokenizer)
    assert edits[1] == Edit(SUBSTITUTE, Span(1, 2, " ", 1, 2), Span(1, 2, "\xa0", 1, 2))


def test_unknown_tokens_that_read_differently_are_not_kept() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "cat": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert brief(diff("red cat", "blue cat", "token", tokenizer)) == [("s", "red", "blue"), ("k", " cat", " cat")]


def test_slow_tokenizer() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match=r"Slow gives no character offsets.*fast tokenizer"):
        diff("a", "b", "token", Slow())  # type: ignore[arg-type]


def test_apply_to_another_text() -> None:
    edits = diff("one two three", "one 2 three")
    with pytest.raises(ValueError, match=r"edit 1 expects 'two' at 4:7, .* 'six' at 4; apply edits to the text"):
        apply("one six three", edits)
    with pytest.raises(ValueError, match=r"edit 2 expects ' three' at 7:13, .* ' tree' at 7"):
        apply("one two tree", edits)
    with pytest.raises(ValueError, match=r"end at character 13 of 14"):
        apply("one two three!", edits)
    with pytest.raises(ValueError, match=r"edit 1 expects ' three' at 7:13, .* at 4"):
        apply("one two three", [edits[0], edits[2]])
    with pytest.raises(ValueError, match=r"edit 0 expects"):
        apply("xone two three", edits)
    with pytest.raises(ValueError, match=r"edit 0 expects 'o' at 1:2, .* 'o' at 0"):
        apply("oo", [Edit(KEEP, Span(1, 2, "o"), Span(0, 1, "o"))])


def test_apply_refuses_a_keep_that_changes() -> None:
    (edit,) = diff("one", "two")
    with pytest.raises(ValueError, match=r"edit 0 keeps 'one' as 'two'; make it a substitution"):
        apply("one", [replace(edit, op=KEEP)])
