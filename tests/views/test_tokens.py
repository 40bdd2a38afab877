from __future__ import annotations

import re
from html.parser import HTMLParser
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from errata.views import ColoredToken, color_tokens, shared_scale, tokens_to_html, tokens_to_terminal, visible

HOSTILE = "<script>alert('x')</script></style>\"' onmouseover=\"a() &lt; \u202eevil\u202c\x00\x1b[31m\ud800\u200b"


class Reader(HTMLParser):
    """The elements of a page as a browser would see them, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(str(html))
    reader.close()
    return reader


def tok(html: str) -> list[dict[str, str | None]]:
    return [attrs for _, attrs in read(html).elements if "tok" in (attrs.get("class") or "").split()]


def plain(*tokens: ColoredToken, scale: float = 1.0) -> str:
    """What a terminal without colours and attributes shows."""
    out = StringIO()
    Console(file=out, width=500).print(tokens_to_terminal(tokens, scale=scale))
    return out.getvalue().rstrip("\n")


def test_hostile_text_stays_text() -> None:
    html = tokens_to_html([ColoredToken(HOSTILE, 1.0, detail={HOSTILE: HOSTILE})], scale=1.0)
    page = read(html)
    assert {tag for tag, _ in page.elements} == {"span"}
    assert {name for _, attrs in page.elements for name in attrs} <= {"class", "style", "title", "dir"}
    assert page.text.startswith("<script>alert('x')</script></style>\"' onmouseover=\"a() &lt; ")
    html.encode("utf-8")  # A lone surrogate could not be written.


@pytest.mark.parametrize(
    "char", ["\u202e", "\u2066", "\x00", "\x1b", "\x7f", "\x85", "\ud800", "\u200b", "\u2028", "\ue000"]
)
def test_what_cannot_be_seen_is_shown_and_is_gone(char: str) -> None:
    token = ColoredToken(f"a{char}b", 0.5, detail={"k": char})
    for shown in (tokens_to_html([token], scale=1.0), plain(token), visible(f"a{char}b")):
        assert char not in shown
        assert f"U+{ord(char):04X}" in shown or chr(0x2400 + ord(char) % 0x7F) in shown or "␡" in shown


def test_white_space_shows() -> None:
    token = ColoredToken(" a\tb\nc\u00a0", 0.0)
    assert plain(token) == "·a⇥b⏎\nc⟨U+00A0⟩"
    page = read(tokens_to_html([token], scale=1.0))
    assert page.text == " a⇥b⏎\nc⟨U+00A0⟩"
    assert sum(attrs.get("class") == "ws" for _, attrs in page.elements) == 1
    assert visible("a \n\tb") == "a ⏎\n⇥b"


def test_scripts_that_need_their_joiners_are_left_whole() -> None:
    assert visible("👩\u200d🔬 می\u200cخواهم e\u0301") == "👩\u200d🔬 می\u200cخواهم e\u0301"


def test_the_sign_shows_without_colour() -> None:
    up, down = (tok(tokens_to_html([ColoredToken("x", value)], scale=1.0))[0] for value in (0.4, -0.4))
    assert up["class"] == "tok pos marked"
    assert down["class"] == "tok neg marked"
    assert (up["title"], down["title"]) == ("+0.4", "-0.4")
    assert (plain(ColoredToken("x", 0.4)), plain(ColoredToken("x", -0.4))) == ("x⁺", "x⁻")
    assert (plain(ColoredToken("x", -0.2)), plain(ColoredToken("x", 0.19))) == ("x⁻", "x")
    faint = tokens_to_terminal([ColoredToken("a", 0.1), ColoredToken("b", -0.1), ColoredToken("c", 0.0)], scale=1.0)
    assert [bool(span.style.underline) for span in faint.spans] == [False, True]  # type: ignore[union-attr]


def test_the_style_sheet_tells_the_signs_apart_by_more_than_hue() -> None:
    from pathlib import Path

    import errata.views

    css = (Path(errata.views.__file__).parent / "page.css").read_text()
    assert re.search(r"\.tok\.neg \{[^}]*underline dashed", css)
    assert not re.search(r"\.tok\.pos \{[^}]*dashed", css)
    assert re.search(r'\.tok\.marked\.pos::after \{ content: "\+"', css)
    assert re.search(r'\.tok\.marked\.neg::after \{ content: "−"', css)


def test_one_scale_is_the_callers() -> None:
    tokens = [ColoredToken("a", 0.5), ColoredToken("b", -2.0), ColoredToken("c", 9.0)]
    assert [t["style"] for t in tok(tokens_to_html(tokens, scale=4.0))] == ["--a:0.12", "--a:0.50", "--a:1.00"]
    assert tok(tokens_to_html(tokens[:1], scale=4.0))[0]["style"] == "--a:0.12"
    assert shared_scale([0.5, -2.0, 1.0]) == 2.0
    assert shared_scale([0.0]) == shared_scale([]) == 1.0


def test_blue_is_good_and_grows_with_the_value() -> None:
    def color(value: float) -> tuple[int, int, int]:
        style = tokens_to_terminal([ColoredToken("x", value)], scale=1.0).spans[0].style
        triplet = style.bgcolor.get_truecolor()  # type: ignore[union-attr]
        return triplet.red, triplet.green, triplet.blue

    weak, strong, bad = color(0.3), color(1.0), color(-1.0)
    assert strong[2] > strong[0] and bad[0] > bad[2]  # noqa: PT018
    assert strong[0] < weak[0]


def test_outlined_tokens_have_a_frame() -> None:
    token = ColoredToken("x", -0.5, outlined=True)
    assert "outlined" in (tok(tokens_to_html([token], scale=1.0))[0]["class"] or "")
    assert plain(token) == "⟦x⁻⟧"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    tokens = [ColoredToken("a", 0.0), ColoredToken("b", value)]
    for show in (tokens_to_html, tokens_to_terminal):
        with pytest.raises(ValueError, match=r"token 1 .'b'. has the value"):
            show(tokens, scale=1.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        tokens_to_html([ColoredToken("a", 0.0)], scale=scale)


def test_color_tokens_keeps_the_gaps_and_knows_bytes_of_one_character() -> None:
    text = "a  é🔬 end."
    offsets = [(0, 1), (3, 4), (4, 5), (4, 5), (6, 9), (10, 10)]
    tokens = color_tokens(text, offsets, [1, 2, 3, 4, 5, 6])
    assert [t.text for t in tokens] == ["a", "  é", "🔬", "", " end", "."]
    assert [t.value for t in tokens] == [1, 2, 3, 4, 5, 6]
    assert [t.text for t in color_tokens(text, offsets[:4], [0] * 4)] == ["a", "  é", "🔬", "", " end."]
    assert plain(ColoredToken("", 0.0)) == "∅"


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=8))
def test_tokens_joined_are_the_text(text: str, cuts: list[tuple[int, int]]) -> None:
    offsets = sorted((min(start, len(text)), min(start + width, len(text))) for start, width in cuts)
    tokens = color_tokens(text, offsets, [0.0] * len(offsets))
    assert "".join(token.text for token in tokens) == text
    assert len(tokens) in {len(offsets), len(offsets) + 1}


def test_color_tokens_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="1 values for 2 tokens"):
        color_tokens("ab", [(0, 1), (1, 2)], [0.0])
    with pytest.raises(ValueError, match="1 outlined for 2 tokens"):
        color_tokens("ab", [(0, 1), (1, 2)], [0.0, 0.0], outlined=[True])
    with pytest.raises(ValueError, match=r"token 1 has the offsets \(1, 3\)"):
        color_tokens("ab", [(0, 1), (1, 3)], [0.0, 0.0])


def test_neighbours_of_one_value_are_one_piece_in_the_terminal() -> None:
    texts = [
        ("st", -1, True),
        ("ate", -1, True),
        (" of", -1, False),
        (" the", 0, False),
        (" a", 0, False),
        ("\n", 1, False),
        ("b", 1, False),
    ]
    tokens = [ColoredToken(text, float(value), outlined) for text, value, outlined in texts]
    line = tokens_to_terminal(tokens, scale=1.0)
    assert line.plain == "⟦state⁻⟧·of⁻·the·a⏎⁺\nb⁺"
    # No tint runs over the line break.
    at = line.plain.index("\n")
    assert not any(span.start <= at < span.end and span.style.bgcolor for span in line.spans)
