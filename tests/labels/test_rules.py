"""Each rule of how an edit becomes labels, on tokenizers of every family."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edits.tokenizers import (
    byte_level,
    every_tokenizer,
    metaspace,
    pairs,
    unigram,
    word_level,
    word_piece,
)
from errata.data import Encoder
from errata.edits import diff
from errata.labels import LabelRules, changed, label, label_all
from errata.types import Correction, Label, LabeledTokens, Op, Ties, Unit

K, N, D, S, M, X = Label  # N for new: INSERTED; M for missing: OMISSION; X: IGNORED
BLAME = LabelRules(omissions="blame")


def correction(original: str, edited: str, prompt: Any = "Ask", **more: Any) -> Correction:
    return Correction(id="r", prompt=prompt, original=original, edited=edited, **more)


def marked(side: LabeledTokens, *names: Label) -> list[str]:
    """The texts of the tokens that have one of the labels; <end> for the end of sequence."""
    spans = zip(side.encoded.offsets, side.labels, strict=True)
    return [side.text[start:stop] if start < stop else "<end>" for (start, stop), name in spans if name in names]


# Units.


def test_a_changed_word_marks_all_its_pieces_and_nothing_else() -> None:
    for make in (byte_level, metaspace, unigram):
        row = label(correction("The mango sat on it.", "The papaya sat on it."), Encoder(make()))
        assert "".join(marked(row.original, S)).strip() == "mango"
        assert len(marked(row.original, S)) > 1
        assert "".join(marked(row.edited, S)).strip() == "papaya"
        assert not marked(row.edited, N, D)


def test_word_level_has_one_token_a_word() -> None:
    row = label(correction("The cat sat at nine.", "The cat sat at ten!"), Encoder(word_level()))
    assert marked(row.original, S) == ["nine", "."]
    assert marked(row.edited, S) == ["ten", "!"]


def test_word_pieces_stand_for_characters_that_were_put_in_lower_case() -> None:
    row = label(correction("The CAT sat", "The mat sat"), Encoder(word_piece()))
    assert marked(row.original, S) == ["CAT"]
    assert marked(row.edited, S) == ["mat"]


def test_a_phrase_takes_the_kept_word_between_along() -> None:
    pair = correction("It opens at nine on it. The cat sat", "It closes at ten on it. The mat sat")
    by_word, by_phrase = (label(pair, Encoder(metaspace()), LabelRules(unit=unit)) for unit in ("word", "phrase"))
    assert "".join(marked(by_word.original, S)) == " opens nine cat"
    assert "".join(marked(by_phrase.original, S)) == " opens at nine cat"
    assert "".join(marked(by_phrase.edited, S)).strip() == "closes at ten mat"


@pytest.mark.parametrize(
    ("original", "edited", "changes"),
    [
        ("a b c d", "a x c y", [("b c d", "x c y")]),
        ("a b c d e", "a x c d y", [("b", "x"), ("e", "y")]),  # two kept words between
        ("a b c d", "a c", [(" b c d", " c")]),
        ("a c", "a b c d", [(" c", " b c d")]),
        ("a b", "a x y b z", [(" b", " x y b z")]),
        ("b. d", "x. y", [("b", "x"), ("d", "y")]),  # a sentence ends between
        ("b\nc d", "x\nc y", [("b", "x"), ("d", "y")]),  # a line ends between
        ("b  c", "b c", [("  ", " ")]),
        ("b  c d", "b c x", [("  ", " "), ("d", "x")]),  # changed white space joins nothing
        ("b c  d e", "x c d y", [("b", "x"), ("  ", " "), ("e", "y")]),
    ],
)
def test_phrases_by_the_rule(original: str, edited: str, changes: list[tuple[str, str]]) -> None:
    found = [(e.original.text, e.edited.text) for e in diff(original, edited, "phrase") if e.op is not Op.KEEP]
    assert found == changes


@given(pair=pairs())
def test_phrases_hold_every_changed_word(pair: tuple[str, str]) -> None:
    phrases = diff(*pair, "phrase")
    assert "".join(e.original.text for e in phrases) == pair[0]
    assert "".join(e.edited.text for e in phrases) == pair[1]
    assert all(e.original.text == e.edited.text for e in phrases if e.op is Op.KEEP)
    inside = {k for e in phrases if e.op is not Op.KEEP for k in range(e.original.start, e.original.stop)}
    assert inside >= {k for e in diff(*pair) if e.op is not Op.KEEP for k in range(e.original.start, e.original.stop)}


# Ties.


@pytest.mark.parametrize("ties", list(Ties))
def test_which_of_two_equal_sentences_goes(ties: Ties) -> None:
    pair = correction("The cat sat. The cat sat. It ate.", "The cat sat. It ate.")
    row = label(pair, Encoder(word_level()), LabelRules(ties=ties))
    at = [k for k, name in enumerate(row.original.labels) if name == D]
    assert at == ([0, 1, 2, 3] if ties is Ties.TAGGER else [4, 5, 6, 7])
    assert label(pair, Encoder(word_level())).original.labels[4] == D  # departure is what labels do unless told


# Tokenizers whose tokens do not say what was edited.


def test_texts_that_read_the_same_to_the_tokenizer_are_an_error() -> None:
    for original, edited in (("The cat", "the CAT"), ("The cat 😀", "The cat 😁"), ("the zebra", "the zebroid")):
        with pytest.raises(ValueError, match=r"row 'r': the texts differ and their tokens do not: this tokenizer norm"):
            label(correction(original, edited), Encoder(word_piece()))
    with pytest.raises(ValueError, match=r"row 'r': the texts differ and their tokens do not"):
        label(correction("The zebra", "The lion"), Encoder(word_level()))


def test_characters_that_no_token_stands_for_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"row 'r': no token stands for ' \\x00 ': the tokenizer normalises the text"):
        label(correction("The \x00 cat", "The mat"), Encoder(word_piece()))


def test_white_space_that_the_tokenizer_does_not_see_is_no_change() -> None:
    row = label(correction("The  cat", "The cat"), Encoder(word_piece()))
    assert not any(changed(row.original.labels) + changed(row.edited.labels))


def test_one_bad_row_does_not_spoil_its_neighbours() -> None:
    rows = [
        Correction(id="a", prompt="Ask", original="The cat", edited="The mat"),
        Correction(id="b", prompt="Ask", original="The cat", edited="the CAT"),
        Correction(id="c", prompt="Ask", original="The \ud800", edited="the CAT"),
        Correction(id="d", prompt="Ask", original="The mat", edited="The cat sat"),
    ]
    refused: list[str] = []
    encoder = Encoder(word_piece())
    found = list(label_all(rows, encoder, on_error=lambda row, error: refused.append(f"{row.id}: {error}")))
    assert [row.id for row in found] == ["a", "d"]
    assert found == [label(rows[0], encoder), label(rows[3], encoder)]
    assert [one[:20] for one in refused] == ["b: the texts differ a"[:20], "c: a text holds half"]
    with pytest.raises(ValueError, match=r"row 'b': the texts differ"):
        list(label_all(rows, encoder))


def test_bytes_of_neighbouring_unknown_characters_are_told_apart() -> None:
    row = label(correction("xÇéx", "xÇñx"), Encoder(unigram()), LabelRules(unit="char"))
    assert marked(row.original, S) == ["é", "é"]
    assert marked(row.edited, S) == ["ñ", "ñ"]
    assert {text for text in marked(row.original, K) if text.strip()} == {"x", "Ç", "<end>"}


# Omissions.


@pytest.mark.parametrize(
    ("original", "edited", "blamed"),
    [
        ("The cat sat", "The fat cat sat", [" cat"]),
        ("The cat sat", "The cat sat down.", ["<end>"]),
        ("The cat sat", "It: The cat sat", ["The"]),
        ("", "The cat", ["<end>"]),
        ("The cat sat", "A fat cat sat", []),  # "The" carries the blame already
        ("The cat sat", "The fat mat sat", []),
        ("The cat sat", "The cat", []),
        ("The cat sat", "The  cat sat", []),  # white space is no omission
        ("The cat. It sat.", "The cat. Eat at ten. It sat.", [" It"]),
        ("The cat sat on", "The fat cat sat at on", [" cat", " on"]),
        ("The\n\n cat", "The fat\n\n cat", ["cat"]),  # not the white space before it
    ],
)
@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_the_token_after_the_gap_is_blamed(make: Any, original: str, edited: str, blamed: list[str]) -> None:
    row = label(correction(original, edited), Encoder(make()), BLAME)
    found = [text.strip() for text in marked(row.original, M)]
    assert len(found) == len(blamed)
    # The first piece of the word.
    assert all(word.strip().startswith(text) and text for text, word in zip(found, blamed, strict=True))
    assert M not in row.edited.labels
    unmarked = label(correction(original, edited), Encoder(make()))
    assert M not in unmarked.original.labels
    assert [K if name == M else name for name in row.original.labels] == list(unmarked.original.labels)


def test_a_truncated_answer_has_no_end_to_blame() -> None:
    encoder = Encoder(byte_level())
    ids = encoder.encode("Ask", "The cat", ended=False).response_ids
    row = label(correction("The cat", "The cat sat", original_ids=ids), encoder, BLAME)
    assert list(row.original.labels) == [K] * len(ids)
    short = Encoder(byte_level(), max_length=len(encoder.prompt_ids("Ask")) + 1, on_long="truncate")
    assert M not in label(correction("The cat", "The cat sat"), short, BLAME).original.labels


def test_two_sides_that_were_cut_to_the_same_tokens_are_no_error() -> None:
    encoder = Encoder(byte_level(), max_length=6, on_long="truncate")
    head = len(encoder.prompt_ids("Ask"))
    ids = encoder.unlimited.encode("Ask", "The cat sat", ended=False).response_ids[: 6 - head]
    text = encoder.decode(ids)
    row = label(correction(text, f"{text}xyz is here", original_ids=ids), encoder)
    assert row.original.encoded.cut == 0 < row.edited.encoded.cut
    assert row.original.encoded.ids == row.edited.encoded.ids


def test_rules_are_checked() -> None:
    assert LabelRules(unit="char").unit is Unit.CHAR
    for name in ("unit", "ties", "omissions", "inventions", "reasoning"):
        with pytest.raises(ValueError, match=f"unknown {name} 'blamed'; use one of "):
            LabelRules(**{name: "blamed"})


def test_a_cut_row_is_no_hole_in_the_next_one() -> None:
    encoder = Encoder(byte_level(), max_length=8, on_long="truncate")
    rows = [correction("The cat sat on that mat", "The cat sat"), correction("The cat", "The mat")]
    assert list(label_all(rows, encoder)) == [label(row, encoder) for row in rows]


@every_tokenizer
@given(pair=pairs(), unit=st.sampled_from(list(Unit)))
def test_blame_only_turns_kept_into_omission(tokenizer_of: Any, pair: tuple[str, str], unit: Unit) -> None:
    encoder = Encoder(tokenizer_of())
    without = label(correction(*pair), encoder, LabelRules(unit=unit))
    blamed = label(correction(*pair), encoder, LabelRules(unit=unit, omissions="blame"))
    assert blamed.edited == without.edited
    assert [K if name == M else name for name in blamed.original.labels] == list(without.original.labels)
    by = Unit.WORD if unit is Unit.TOKEN else unit
    inserted = sum(e.op is Op.INSERT and bool(e.edited.text.strip()) for e in diff(*pair, by))
    assert blamed.original.labels.count(M) <= inserted


# What teaches nothing.


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ("<think>cat cat</think>", "think"),
        ("<thinking>\nat ten\n</thinking>", "thinking"),
        ('<tool_call>{"open": 9}</tool_call>', "tool call"),
        ("the cat</think>", "opened by the template"),
    ],
    ids=lambda text: text[:8],
)
def test_blocks_that_the_edit_left_alone_teach_nothing(block: str, name: str) -> None:
    pair = correction(f"{block} The cat sat", f"{block} The mat sat on it")
    row = label(pair, Encoder(byte_level()))
    for side in (row.original, row.edited):
        assert "".join(marked(side, X)).strip() == block
        assert side.labels[-1] == K
    assert "".join(marked(row.original, S, D)).strip() == "cat"
    assert "".join(marked(row.edited, N, S)) == " mat on it"
    learned = label(pair, Encoder(byte_level()), LabelRules(reasoning="learn"))
    assert X not in learned.original.labels


def test_reasoning_that_was_edited_is_labelled_like_any_text() -> None:
    row = label(correction("<think>cat</think> ten", "<think>mat</think> nine"), Encoder(byte_level()))
    assert X not in (*row.original.labels, *row.edited.labels)
    assert "".join(marked(row.original, S)) == "cat ten"


def test_several_blocks_and_one_that_never_closes() -> None:
    text = "<think>a</think> cat <tool_call>b</tool_call> sat <think>c"
    row = label(correction(text, text.replace("cat", "mat")), Encoder(byte_level()))
    assert "".join(marked(row.original, X)).replace(" ", "") == "<think>a</think><tool_call>b</tool_call><think>c"


def test_ids_aligned_with_ids_ignore_blocks_too() -> None:
    row = label(
        correction("<think>cat</think> ten", "<think>cat</think> nine"), Encoder(byte_level()), LabelRules(unit="token")
    )
    assert "".join(marked(row.original, X)) == "<think>cat</think>"
    assert marked(row.original, S, D)


def test_inventions_teach_nothing_by_option() -> None:
    pair = correction("It opens at ten.", "It opens at 9:41 for Ada, ten.", prompt="When does it open?")
    learned, ignored = (label(pair, Encoder(byte_level()), LabelRules(inventions=rule)) for rule in ("learn", "ignore"))
    assert X not in learned.edited.labels
    assert "".join(marked(ignored.edited, X)).replace(" ", "") == "941Ada"
    assert "".join(marked(ignored.edited, N, S)).replace(" ", "") == ":for,"
    assert ignored.original == learned.original
    known = correction("It opens at ten.", "It opens at 9:41 for Ada, ten.", prompt="Ada wants to come at 9:41")
    assert X not in label(known, Encoder(byte_level()), LabelRules(inventions="ignore")).edited.labels


@every_tokenizer
@given(pair=pairs())
def test_ignoring_changes_no_other_label(tokenizer_of: Any, pair: tuple[str, str]) -> None:
    original, edited = (f"<think>cat</think> {text}" for text in pair)
    encoder = Encoder(tokenizer_of())
    assume("</think>" not in "".join(pair))
    learned = label(correction(original, edited), encoder, LabelRules(reasoning="learn"))
    ignored = label(correction(original, edited), encoder)
    for before, after in ((learned.original, ignored.original), (learned.edited, ignored.edited)):
        assert all(b in (a, X) for a, b in zip(before.labels, after.labels, strict=True))
        assert X in after.labels
