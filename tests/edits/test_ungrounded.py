from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from errata.edits import FACTS, Kind, diff, unknowable, words
from errata.edits.ungrounded import unknown_words
from errata.types import Correction, Edit, Op, Prompt, Span, Unit

from .tokenizers import pairs, texts

ALL = tuple(Kind)


def found(original: str, edited: str, prompt: Prompt = "", kinds: tuple[Kind, ...] = FACTS) -> list[tuple[str, str]]:
    row = Correction(id="x", prompt=prompt, original=original, edited=edited)
    return [(kind.value, span.text) for kind, span in unknown_words(row, diff(original, edited), kinds)]


def flagged(original: str, edited: str, prompt: Prompt = "") -> list[str]:
    return [text for _, text in found(original, edited, prompt)]


def test_kinds() -> None:
    after = "We open at 9 in Berlin. Ask McCoy or @adele, see https://a.example/x?y=1, and GPT agrees happily."
    assert found("We open.", after) == [
        ("number", "9"),
        ("name", "Berlin"),
        ("name", "McCoy"),
        *(("link", word) for word in ("@", "adele", "https", ":", "/", "/", "a", ".", "example", "/", "x", "?", "y")),
        *(("link", word) for word in ("=", "1")),
        ("name", "GPT"),
    ]
    assert found("We open.", after, kinds=(Kind.NUMBER,)) == [("number", "9")]
    assert found("We open.", after, kinds=(Kind.CONTENT,)) == [("content", "agrees"), ("content", "happily")]


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        ("It costs 1000 euros.", "It costs 1,000 euros.", []),
        ("It costs 1 000 000 euros.", "It costs 1,000,000 euros.", []),
        ("It costs 1,000 euros.", "It costs just 1000 euros now.", []),
        ("It costs 1,000 euros.", "It costs 2,000 euros.", ["2"]),
        ("It costs 1,000 euros.", "It costs 500 euros.", ["500"]),
        ("It costs 3,50 euros.", "It costs all of 3.5 euros.", []),
        ("It costs 3.5 euros.", "It costs 3.6 euros.", ["6"]),
        ("It costs 12500.75 euros.", "It costs 12,500.750 euros now.", []),
        ("It costs 12500.75 euros.", "It costs 12,500.5 euros.", ["12", ",", "500", "5"]),
        ("We open at nine.", "We open at 9.", []),
        ("The ninth day.", "Day 9 of it.", []),
        ("Louis XIV reigned.", "Louis the 14th reigned.", []),
        ("The tenth.", "The tenth, at 9.", ["9"]),
        ("On 07 May.", "On May 7 then.", []),
        ("On 7 May.", "On May 17 then.", ["17"]),
        ("Until 16.30.", "Until 16:30 then.", []),
        ("٣ books", "just 3 books", []),
        ("a b", "1. a\n2. b", []),  # the markers of a list
        ("a b", "a 1.5 b", ["1", ".", "5"]),
        ("It grew in 2019 300 fold", "It grew in 2019, 300 fold, 2019300", ["2019300"]),
        ("We open.", "We open at seven.", []),  # a number word: a known miss
        (f"a {'7' * 5000}", f"b {'7' * 5000} c {'8' * 5000}", ["8" * 5000]),  # more digits than int() takes
    ],
)
def test_numbers(original: str, edited: str, expected: list[str]) -> None:
    assert flagged(original, edited) == expected


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        ("He met the king.", "He met King George.", ["George"]),
        ("He came.", "He came. Then he left.", []),  # opens a sentence
        ("He came.", "He came. London was cold.", []),  # a known miss
        ("He came.", "He saw London. London was cold.", ["London", "London"]),
        ("He came.", 'He said: "Nobody knows." (Perhaps.) <br />Wonderful.', []),
        ("He came.", "He met Dr. Jekyll and J. Bond.", ["Jekyll", "Bond"]),
        ("* a", "* a\n* Apples are red", []),
        ("He came.", "Yesterday I came, and I'm here, I've said.", []),
        ("Londra e mare.", "I like London.", []),  # four letters shared
        ("Romania", "the Romanian side", []),
        ("România", "in Romania's south", []),
        ("near Tskinvali", "near Tskhinvali", []),  # a spelling put right
        ("near Tskinvali", "near Moscow", ["Moscow"]),
        ("the world health organization", "the WHO", []),
        ("It answers questions.", "It does question answering (QA).", []),
        ("the people", "The People's Republic of China (PRC) it is", ["Republic", "China"]),
        ("It works.", "It works, said UNESCO and NATO.", ["UNESCO", "NATO"]),
        ("It works.", "It works, and it is WONDERFUL.", []),  # shouting
        ("It is AI-powered.", "It is AI-driven.", []),
        ("It is good.", "It is X-driven and GPT-driven.", ["GPT-driven"]),
        ("say it", "state-of-the-art Zola", ["Zola"]),
        ("好", "东京很大", []),  # scripts without capitals: a known miss
    ],
)
def test_names(original: str, edited: str, expected: list[str]) -> None:
    assert flagged(original, edited) == expected


@pytest.mark.parametrize(
    ("original", "edited", "expected"),
    [
        ("Write to me.", "Write to ada@example.org.", ["ada", "@", "example", ".", "org"]),
        ("See www.a.org.", "Have a look at www.a.org!", []),
        ("See https://a.org/x.", "See https://a.org/y.", ["y"]),
        ("Open it.", "Open /etc/hosts now, and/or he/she.", ["/", "etc", "/", "hosts"]),
        ("Look.", "Look at github.com.", ["github", ".", "com"]),
        ("a<b>", "a<br />b</b></i>", []),
    ],
)
def test_links(original: str, edited: str, expected: list[str]) -> None:
    assert flagged(original, edited) == expected


def test_all_messages_of_the_prompt_are_known() -> None:
    prompt = [
        {"role": "system", "content": "You work for Zalando."},
        {"role": "user", "content": "Is it 12 euros?"},
        {"role": "assistant", "content": "Ask Ada."},
        {"role": "user", "content": "Well?"},
    ]
    after = "At Zalando, Ada says 12 or 13, and Bob agrees."
    assert flagged("Yes.", after, prompt) == ["13", "Bob"]
    assert flagged("Yes.", after, prompt[:1]) == ["Ada", "12", "13", "Bob"]


def test_only_what_the_edit_writes() -> None:
    assert flagged("Ask Ada at 9, Berlin.", "Ask Ada at 9.") == []
    assert flagged("Ask Ada at 9.", "Ask Ada at 9.") == []
    assert flagged("Ask  Ada at 9.", "Ask Ada at 9.") == []


def test_characters_grow_to_words() -> None:
    row = Correction(id="x", prompt="", original="Room 12.", edited="Room 127, Bonn.")
    edits = diff(row.original, row.edited, Unit.CHAR)
    assert [span.text for span in unknowable(row, edits)] == ["127", "Bonn"]
    whole = [Edit(Op.SUBSTITUTE, Span(0, 8, row.original), Span(0, 15, row.edited))]  # as a phrase
    assert [span.text for span in unknowable(row, whole)] == ["127", "Bonn"]


@given(pairs(), texts, st.sampled_from([Unit.WORD, Unit.CHAR]))
def test_spans_are_written_words_in_order(pair: tuple[str, str], prompt: str, unit: Unit) -> None:
    original, edited = pair
    row = Correction(id="x", prompt=prompt, original=original, edited=edited)
    edits = diff(original, edited, unit)
    spans = unknowable(row, edits, ALL)
    places = [(span.start, span.stop) for span in spans]
    assert places == sorted(set(places))
    written = [edit.edited for edit in edits if edit.op in (Op.INSERT, Op.SUBSTITUTE)]
    for span in spans:
        assert edited[span.start : span.stop] == span.text
        assert any(part.start < span.stop and span.start < part.stop for part in written)
    if unit is Unit.WORD:
        assert set(places) <= set(words(edited))


@given(pairs(), texts)
@example(("TheTheThe", "TheThe日本catThe"), "")
def test_what_stands_in_the_prompt_is_known(pair: tuple[str, str], more: str) -> None:
    original, edited = pair
    edits = diff(original, edited)
    row = Correction(id="x", prompt=f"{more}\n{edited}", original=original, edited=edited)
    assert unknowable(row, edits, ALL) == []


@given(pairs())
def test_more_known_means_less_flagged(pair: tuple[str, str]) -> None:
    original, edited = pair
    edits = diff(original, edited)
    less, more = (
        {
            (span.start, span.stop)
            for span in unknowable(Correction(id="x", prompt=p, original=original, edited=edited), edits, ALL)
        }
        for p in ("", "The cat 3 日本")
    )
    assert more <= less


def test_many_numbers_take_no_quadratic_time() -> None:
    def seconds(lines: int) -> float:
        text = "".join(f"{k} {k + 7} {k * 3}\n" for k in range(lines))
        row = Correction(id="r", prompt=text, original="The", edited=text.replace("7", "8"))
        started = time.process_time()
        unknowable(row, diff(row.original, row.edited))
        return time.process_time() - started

    assert seconds(400) < 1.5
