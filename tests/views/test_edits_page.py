from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from errata.types import Encoded, Label, LabeledTokens, TokenLabels
from errata.views import edits_page, labels_to_terminal


def side(text: str, labels: list[int], *, ended: bool = True) -> LabeledTokens:
    offsets = tuple((match.start(), match.end()) for match in re.finditer(r"\S+", text))
    if ended:
        offsets += ((len(text), len(text)),)
    ids = tuple(range(100, 102 + len(offsets)))
    return LabeledTokens(Encoded(ids=ids, prompt_length=2, offsets=offsets, ended=ended), tuple(labels), text)


PAIR = TokenLabels(
    id="row <7>",
    original=side("It costs nine stupid coins", [0, 0, 3, 2, 0], ended=False),
    edited=side("It costs seven coins . Thanks", [0, 0, 3, 0, 1, 1, 1]),
)


def titles(html: str, name: str) -> list[str]:
    return re.findall(rf'<span class="tok {name}[^"]*"[^>]*title="([^"]*)"', html)


def test_labels_become_signs() -> None:
    html = edits_page([PAIR], title="t")
    assert titles(html, "neg marked") == [
        "-1 · label: substituted · token: 2 · id: 104",
        "-1 · label: deleted · token: 3 · id: 105",
    ]
    assert titles(html, "pos marked") == [
        "+1 · label: substituted · token: 2 · id: 104",
        "+1 · label: inserted · token: 4 · id: 106",
        "+1 · label: inserted · token: 5 · id: 107",
        "+1 · label: inserted · token: 6 · id: 108 · text: end of sequence",
    ]
    assert html.count('marked outlined"') == 2
    assert "1 deleted, 3 inserted, 1 substituted by 1, 3 kept" in html
    assert "row &lt;7&gt;" in html


def test_the_terminal_shows_the_same() -> None:
    out = StringIO()
    Console(file=out, width=90).print(labels_to_terminal(replace(PAIR, id="[red]\x1b")))
    shown = out.getvalue()
    assert "[red]␛" in shown
    assert "It·costs⟦·nine⁻⟧·stupid⁻·coins" in shown
    assert "It·costs⟦·seven⁺⟧·coins·.⁺·Thanks⁺∅⁺" in shown
    assert "1 deleted, 3 inserted" in shown


def test_the_page_is_alone_in_the_world() -> None:
    html = edits_page([PAIR], title="<i>\u202e")
    assert "<title>&lt;i&gt;⟨U+202E⟩</title>" in html
    assert not re.search(r"https?://|url\(|@import|<script|<link|<img|src=", html)
    assert "There is nothing to show" in edits_page([], title="t")


def test_bytes_of_one_character_say_so() -> None:
    encoded = Encoded(ids=(1, 5, 6, 7), prompt_length=1, offsets=((0, 1), (0, 1), (1, 2)), ended=False)
    html = edits_page([replace(PAIR, original=LabeledTokens(encoded, (2, 2, 0), "🔬a"))], title="t")
    assert html.count("no character of its own") == 1


@pytest.mark.parametrize("wrong", [Label.INSERTED, 9])
def test_a_label_of_the_other_side_is_refused(wrong: int) -> None:
    bad = replace(PAIR, original=replace(PAIR.original, labels=(0, 0, 0, 0, wrong)))
    for show in (lambda: edits_page([bad], title="t"), lambda: labels_to_terminal(bad)):
        with pytest.raises(
            ValueError, match=rf"pair 'row <7>', original side, has the label {int(wrong)}.* at token 4"
        ):
            show()


def test_one_label_for_each_token() -> None:
    bad = replace(PAIR, edited=replace(PAIR.edited, labels=(0, 0)))
    with pytest.raises(ValueError, match="edited side, has 2 labels for 7 tokens"):
        edits_page([bad], title="t")
