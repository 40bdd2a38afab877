"""Edits that nobody made: each kind is found alone, folded in both texts, counted, and takes no content along."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.edits import FOLDINGS, MechanicalOf, Normalizer, apply, diff, edit_ratio, kinds_of, normalize, statistics
from errata.types import Correction

PIECES = [
    *[
        "a",
        "B c",
        "é",
        "e",
        "\u0301",
        "ß",
        "می",
        "क",
        "ก",
        "漢",
        "😀",
        "👩",
        "💻",
        "❤",
        "1",
        "\u20e3",
        "&",
        "amp;",
        "#38;",
    ],
    *[
        "\r\n",
        "\n",
        "\r",
        "\u2028",
        "\x0b",
        "\u200b",
        "\u200c",
        "\u200d",
        "\u2060",
        "\ufeff",
        "\u00ad",
        "\ufe0f",
        "\ufe0e",
    ],
    *[
        "\u00a0",
        "\u202f",
        "\t",
        " ",
        "  ",
        "“",
        "’",
        "'",
        '"',
        "–",
        "—",
        "-",
        "…",
        "...",
        "&amp;",
        "&lt;",
        "br",
        "<br>",
        "<BR />",
    ],
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
KINDS = st.sets(st.sampled_from(list(FOLDINGS))).map(tuple)
PLAIN = st.text("abc XYZ.,-'\"0<>&;\n", max_size=30).map(lambda text: " ".join(text.split(" ")).strip())


def correction(original: str, edited: str, **more: object) -> Correction:
    return Correction(id="a", prompt="p\r\n", original=original, edited=edited, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FOLDINGS)
def test_each_kind_folds_its_example_and_is_found_alone(kind: str) -> None:
    draft, sent = FOLDINGS[kind].example
    assert draft != sent
    assert normalize(draft, sent, [kind]) == (draft, draft)
    assert normalize(sent, draft, [kind]) == (draft, draft)
    tally = MechanicalOf()
    tally.add(draft, sent)
    found = tally.result()
    assert (found.only, found.only_rows) == ({kind: 1}, 1)
    assert found.characters[kind] == found.changed_characters > 0
    # Nothing else is needed, and no other kind undoes it.
    assert normalize(draft, sent, [other for other in FOLDINGS if other != kind])[1] != draft or kind == "edges"


@given(TEXTS, TEXTS, KINDS)
def test_folding_again_changes_nothing_and_sides_are_alike(a: str, b: str, kinds: tuple[str, ...]) -> None:
    once = normalize(a, b, kinds)
    assert normalize(*once, kinds) == once
    assert normalize(b, a, kinds) == once[::-1]
    assert normalize(a, a, kinds) == (normalize(a, a, kinds)[0],) * 2
    assert apply(once[0], diff(*once)) == once[1]


@given(TEXTS, TEXTS)
def test_equal_after_folding_is_counted_as_that_kind(a: str, b: str) -> None:
    tally = MechanicalOf()
    tally.add(a, b)
    found = tally.result()
    alone = [kind for kind in FOLDINGS if len(set(normalize(a, b, [kind]))) == 1] if a != b else []
    assert bool(alone) == bool(found.only.keys() - {"several"})
    assert found.only.keys() <= {*alone, "several"}
    assert found.only_rows <= found.touched_rows <= found.changed_rows == int(a != b)
    assert all(0 < count <= found.changed_characters for count in found.characters.values())


@given(PLAIN, PLAIN)
def test_text_without_any_of_it_stays_to_the_byte(a: str, b: str) -> None:
    a, b = (" ".join(text.replace("&", "+").replace("<", "(").split(" ")) for text in (a, b))
    a, b = ("\n".join(" ".join(line.split()) for line in text.split("\n")).strip() for text in (a, b))
    assert normalize(a, b) == (a, b)


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d💻 and 🏳\ufe0f\u200d🌈",  # a woman at a computer, a flag of rainbow
        "❤\ufe0f\u200d🔥 1\ufe0f\u20e3",
        "می\u200cخواهم",  # Persian: "I want" is another word without the non-joiner
        "क\u094d\u200dष and क\u094d\u200cष",  # Hindi: half letters
        "ශ\u0dca\u200dරී",  # Sinhala
        "ខ្ញុំ\u200bទៅ",  # Khmer marks words by U+200B
        "葛\U000e0100城",  # an ideographic variation selector picks the glyph
        "\u200fשלום (a)",  # right-to-left marks order text
    ],
)
def test_joiners_and_selectors_that_mean_something_stay(text: str) -> None:
    assert normalize(text, text) == (text, text)
    assert normalize(text, f"{text} and more") == (text, f"{text} and more")
    assert normalize(text, f"\ufeff{text}\r\nit\u200bs\u200d here")[1] == f"{text}\nits here"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("entities", "Write &lt;b&gt; for bold"),
        ("br", "HTML breaks a line with <br>"),
        ("quotes", "Er sagte „Hallo“"),
        ("dashes", "Paris – Rome"),
        ("ellipsis", "Well…"),
        ("spaces", "Bonjour\u00a0!"),
        ("blanks", "a\tb"),
        ("trailing", "a line break of Markdown  \nand on"),
        ("variation-selectors", "I ❤\ufe0f it"),
    ],
)
def test_what_both_texts_have_is_meant(kind: str, content: str) -> None:
    assert FOLDINGS[kind].careful
    assert normalize(content, f"{content}, too") == (content, f"{content}, too")
    folded = FOLDINGS[kind].fold(content)
    assert normalize(folded, content, [kind]) == (folded, folded)


def test_what_has_no_semicolon_is_no_entity() -> None:
    text = "see http://x.org/?a=1&copy=2&lt=3 & R&D; &unknown;"
    assert normalize(text, f"{text} now") == (text, f"{text} now")


def test_several_kinds_at_once_are_counted_as_several() -> None:
    tally = MechanicalOf()
    tally.add("It's\nhere", "It’s\r\nhere")
    tally.add("It's nine.\n", "It's ten.\r\n")
    tally.add("same", "same")
    found = tally.result()
    assert (found.rows, found.only) == ({"newlines": 2, "quotes": 1}, {"several": 1})
    assert (found.all_rows, found.changed_rows, found.touched_rows, found.only_rows) == (3, 2, 2, 1)
    # it's/it’s 1, \n/\r\n 1; then "nine" to "ten" costs 3, and 1 for the line end.
    assert (found.changed_characters, found.characters) == (6, {"newlines": 2, "quotes": 1})
    said = "\n".join(found.lines())
    assert "2 of 2 changed rows hold edits that programs make and nobody meant, 1 of them (50.0%) nothing else" in said
    assert "newlines: in 2 rows, 0 of them nothing else; 2 of 6 changed characters (33.3%)" in said
    assert "--normalize newlines,quotes" in said
    assert MechanicalOf().result().lines() == []


def test_an_edit_that_no_word_shows_is_still_an_edit() -> None:
    """Line ends: 0.00 and "unchanged" would hide them. Composed letters are another word."""
    crlf = correction("one\ntwo", "one\r\ntwo")
    found = statistics([crlf])
    assert (found.unchanged, found.kinds["white_space"]) == (0, 1)
    assert "1 changed in white space only" in str(found)
    assert "no row changes a word" in str(found)
    assert "0.00" not in str(found)
    assert found.mechanical.only == {"newlines": 1}
    assert edit_ratio("café", unicodedata.normalize("NFD", "café")) == 1
    assert statistics([correction("café", "cafe\u0301")]).mechanical.only == {"nfc": 1}
    for sign in ("\u200b", "\u200d", "\ufeff", "\u00ad", "\ufe0f"):
        assert edit_ratio("one two", f"one{sign} two") > 0


def test_the_normalizer_keeps_the_prompt_and_drops_what_no_longer_fits() -> None:
    normalizer = Normalizer(kinds_of("newlines,quotes"))
    row = correction(
        "a\r\nb", "a\nb’", original_ids=(1, 2), original_weights=((0, 1, 1.0),), edited_weights=((0, 1, 1.0),)
    )
    found = normalizer(row)
    assert (found.prompt, found.original, found.edited) == ("p\r\n", "a\nb", "a\nb'")
    assert (found.original_ids, found.original_weights, found.edited_weights) == (None, None, None)
    kept = correction("a\nb", "a\r\nb", original_ids=(1, 2), original_weights=((0, 1, 1.0),))
    assert (normalizer(kept).original_ids, normalizer(kept).original_weights) == ((1, 2), ((0, 1, 1.0),))
    untouched = correction("a", "b")
    assert normalizer(untouched) is untouched
    said = str(normalizer)
    assert "folded 3 rows on both sides (newlines: 1 draft, 2 edited texts, quotes: 0 drafts, 1 edited text)" in said
    assert "2 rows became unchanged" in said
    assert "1 row lost the sampled ids" in said
    assert "2 texts lost the weights" in said
    counts = normalizer.as_dict()
    assert (counts["rows"], counts["originals"], counts["edited"]) == (3, {"newlines": 1}, {"newlines": 2, "quotes": 1})


def test_names_of_kinds() -> None:
    assert kinds_of("all") == tuple(FOLDINGS)
    assert kinds_of("none") == ()
    assert kinds_of(" Quotes,newlines,quotes") == ("newlines", "quotes")
    with pytest.raises(ValueError, match="'newline' is no kind of change; did you mean newlines"):
        kinds_of("nfc,newline")
    for wrong in ("", "all,nfc", "none,nfc"):
        with pytest.raises(ValueError, match="give all, none, or some of newlines"):
            kinds_of(wrong)


def test_time_is_in_proportion_to_the_text() -> None:
    runs = [sign * 200_000 for sign in (" ", "\t", "\u200d", "&", "<br", "\ufe0f", "\u00a0")]
    start = time.monotonic()
    normalize("a" + "b".join(runs) + "c", "".join(runs))
    assert time.monotonic() - start < 5
