"""The page of labelled pairs in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from errata.types import TokenLabels
from errata.views import Show, ViewRow, edits_page
from errata.views.pages import stand_in

from .rows import PAIR, many, pair, side

pytestmark = pytest.mark.browser

HOSTILE = (
    "<script>hurt = 1</script></script><!--<script></style><img src=x onerror='hurt=2'>\"' onmouseover=hurt=3 "
    "\u202eevil\u202c\u2028\u2029\x00\x07\r\ud83d{{ 7*7 }}]]>&lt;&amp; javascript:hurt=4"
)
LONG = ["An", "answer", "that", "the", "editor", "mostly", "kept", ",", "and", "made", "better", "where", "wrong", "."]
SHOWN = ".words .tok:not(.ghost *)"


def wordy() -> TokenLabels:
    """Gaps and substitutes of quite other widths, over several lines, and a line break on one side."""
    original, edited = [], []
    for index in range(60):
        word = f" {LONG[index % len(LONG)]}"
        if index == 20:
            edited.append(("\n", 1))
        if index % 7 == 3:
            original.append((word, 2))
        elif index % 7 == 5:
            original.append((word, 3))
            edited.append((f" {index}{index}{index}-other-way", 3))
        elif index % 11 == 9:
            edited.append((f" put{index}in", 1))
        else:
            original.append((word, 0))
            edited.append((word, 0))
    first, second = (list(zip(*both, strict=True)) for both in (original, edited))
    return pair("wordy", side(first[0], [*first[1], 0]), side(second[0], [*second[1], 0]))


def halves(text: str) -> list[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)]


def hostile() -> ViewRow:
    original, edited = halves(HOSTILE), [*halves(HOSTILE), HOSTILE]
    return ViewRow(
        labels=pair(
            HOSTILE,
            side(original, [2] * len(original), ended=False),
            side(edited, [1, 5, 3] + [0] * (len(edited) - 2)),
        ),
        reasons=(HOSTILE,),
    )


class Seen:
    """A page, and what went wrong on it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text))
        page.goto(url, wait_until="load")
        page.wait_for_selector(SHOWN)

    def tokens(self, article: int, words: int) -> list[list[int]]:
        """The texts of the drawn tokens as UTF-16 units, which unlike text may hold half of a surrogate pair."""
        return self.page.evaluate(  # type: ignore[no-any-return]
            """([article, words]) => [...document.querySelectorAll('article')[article].querySelectorAll('.words')[words]
                .querySelectorAll('.col > :first-child .tok')].map(
                    (tok) => [...Array(tok.token.text.length).keys()].map((k) => tok.token.text.charCodeAt(k)))""",
            [article, words],
        )


Open = Callable[..., Seen]


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[Open]:
    contexts = []

    def open_page(rows: list[ViewRow], width: int = 1280, **more: Any) -> Seen:
        options = {key: more.pop(key) for key in ("bypass_csp", "java_script_enabled") if key in more}
        path = tmp_path / "page.html"
        path.write_text(edits_page(rows, **{"title": "t", **more}), encoding="utf-8")
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        return Seen(context.new_page(), path.as_uri())

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("bypass_csp", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_hostile_text_is_text(opened: Open, width: int, bypass_csp: bool) -> None:
    """Nothing runs, nothing is fetched, nothing runs over the side; even without the page's content policy."""
    row = hostile()
    seen = opened([row, ViewRow(labels=PAIR)], width, title=HOSTILE, bypass_csp=bypass_csp)
    page = seen.page
    page.locator(SHOWN).nth(2).hover()
    assert page.evaluate("typeof hurt") == "undefined"
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("document.querySelectorAll('img, [onerror], [onmouseover], a, style + style').length") == 0
    assert seen.requests == [seen.url]
    assert seen.errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for index, one in enumerate((row.labels.original, row.labels.edited)):
        units = one.text.encode("utf-16-le", "surrogatepass")
        assert list(chain(*seen.tokens(0, index))) == [
            a + 256 * b for a, b in zip(units[::2], units[1::2], strict=True)
        ]
    shown = page.locator("article").first.inner_text()
    assert "<script>hurt" in shown.replace("\u00a0", " ")
    assert not set("\u202e\u2028\x00\x07") & set(shown)
    assert "⟨U+202E⟩" in shown


def test_the_policy_lets_no_other_script_run(opened: Open, tmp_path: Path) -> None:
    """The second wall: were something not escaped, it would still not run."""
    seen = opened([ViewRow(labels=PAIR)])
    path = tmp_path / "page.html"
    html = path.read_text().replace("</main>", "<script>hurt = 1</script><img src=x onerror='hurt=2'></main>")
    path.write_text(html)
    seen.page.goto(path.as_uri())
    assert seen.page.evaluate("typeof hurt") == "undefined"
    assert seen.page.locator(SHOWN).count() == 15


def test_signs_are_those_of_python(opened: Open) -> None:
    chars = [
        "\n",
        "\t",
        "\x00",
        "\x1b",
        "\x7f",
        "\x85",
        "\u00a0",
        "\u200b",
        "\u200d",
        "\ue000",
        "é",
        "東",
        "\u2028",
        "x",
    ]
    seen = opened([ViewRow(labels=pair("x", side(chars, [0] * 15), side(["y"], [0, 0])))])
    words = seen.page.locator(".words").first
    shown = words.locator(".tok:not(.ghost *)").evaluate_all("drawn => drawn.map((one) => one.textContent)")
    assert shown == [*(stand_in(char) or char for char in chars), "⟨end⟩"]


@pytest.mark.parametrize("show", [Show.LABELS, Show.REWARDS])
def test_what_stands_opposite_stands_at_one_height(opened: Open, show: Show) -> None:
    labels = wordy()
    # Marks on one side only take no room.
    rewards = ([0.0] * len(labels.original.labels), [(-1.0) ** k for k in range(len(labels.edited.labels))])
    seen = opened([ViewRow(labels=labels, rewards=rewards)], show=show)
    boxes = seen.page.evaluate(
        """() => [...document.querySelectorAll('.words')].map((words) => { const at = words.getBoundingClientRect();
            return [...words.querySelectorAll('.col')].map((box) => { const r = box.getBoundingClientRect();
                return [r.left - at.left, r.top, r.width, r.height]; }); })"""
    )
    assert len(boxes[0]) == len(boxes[1]) > 50
    assert len({round(top) for _, top, _, _ in boxes[0]}) > 4  # lines
    for original, edited in zip(*boxes, strict=True):
        assert original == pytest.approx(edited, abs=0.6)
    gaps = seen.page.evaluate("[...document.querySelectorAll('.gap')].map(g => g.getBoundingClientRect().width)")
    assert len(gaps) > 8
    assert min(gaps) > 8  # as wide as what it faces, a full stop at least


def test_narrow_pages_put_one_below_the_other(opened: Open) -> None:
    seen = opened([ViewRow(labels=wordy())], 400)
    first, second = (seen.page.locator(".words").nth(index).bounding_box() for index in (0, 1))
    assert second["y"] >= first["y"] + first["height"]
    assert second["x"] == first["x"]
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_word_longer_than_the_line_wraps(opened: Open) -> None:
    endless = pair("endless", side(["w" * 900, "ord"], [2, 2, 0]), side(["a", "ش" * 500, " b"], [1, 1, 1, 0]))
    seen = opened([ViewRow(labels=endless)], 400)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert seen.page.locator(".words").first.bounding_box()["height"] > 500


def test_hover_focus_and_click_tell_of_a_token(opened: Open) -> None:
    row = ViewRow(
        labels=PAIR, weights=([0, 0, -0.5, -0.5, -0.25, 0, 0], [0.5] * 8), rewards=(None, [0, 0, 1.25, 0, 0, 0, 0, 0])
    )
    seen = opened([row], show=Show.WEIGHTS)
    page, card = seen.page, seen.page.locator("#card")
    substitute = page.locator(".words >> nth=1").locator(".tok:not(.ghost *)", has_text="seven")
    assert card.is_hidden()
    substitute.hover()
    text = card.inner_text()
    assert text.split("id")[0].split() == ["text", "“", "seven”"]
    for fact in ("“ seven”", "104 (token 2 of the edited)", "substituted", "+0.5", "+1.25"):
        assert fact in text
    page.mouse.move(5, 5)
    assert card.is_hidden()

    substitute.click()
    page.mouse.move(5, 5)
    assert "104" in card.inner_text()
    page.keyboard.press("ArrowUp")
    assert "104 (token 2 of the original)" in card.inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    for fact in ("106", "deleted", "−0.25", "not given"):
        assert fact in card.inner_text()
    assert page.locator(".facing").count() == 2
    page.keyboard.press("Escape")
    assert card.is_hidden()

    page.reload()
    page.locator("select").focus()
    page.keyboard.press("Tab")
    assert "102 (token 0 of the original)" in card.inner_text()
    page.keyboard.press("End")
    assert "108" in card.inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert "end of sequence" in card.inner_text()


def test_each_label_has_its_look(opened: Open) -> None:
    odd = pair(
        "odd",
        side(["Hm", ".", " It", " costs", "é", ""], [5, 5, 0, 4, 2, 2, 0]),
        side(["Hm", ".", " It", " now", " costs"], [5, 5, 0, 1, 0, 0]),
    )
    cut = replace(odd, original=replace(odd.original, text=odd.original.text + " more"))
    seen = opened([ViewRow(labels=cut)])
    looks = seen.page.evaluate(
        """() => [...document.querySelectorAll('.words')].map((words) => [...words.querySelectorAll(
            '.col > :first-child .tok')].map((t) => [t.textContent, getComputedStyle(t, '::before').content,
            getComputedStyle(t, '::after').content, getComputedStyle(t).backgroundImage.split('(')[0],
            getComputedStyle(t).textDecorationStyle]))"""
    )
    hatch, none = "repeating-linear-gradient", "none"
    assert looks[0] == [
        ["Hm", none, none, hatch, "solid"],
        [".", none, none, hatch, "solid"],
        [" It", none, none, none, "solid"],
        [" costs", '"‸"', none, none, "solid"],
        ["é1/2", none, none, none, "dashed"],
        ["2/2", none, '"−"', none, "dashed"],
        ["⟨end⟩", none, none, none, "solid"],
        [" more", none, none, hatch, "solid"],
    ]
    assert looks[1][3] == [" now", none, '"+"', none, "solid"]
    seen.page.locator(".words .tok:not(.ghost *)", has_text="2/2").hover()
    assert "byte 2 of 2 of é" in seen.page.locator("#card").inner_text()


def test_rows_are_drawn_when_they_come_into_view_and_all_for_print(opened: Open) -> None:
    seen = opened(many(60, 64))
    drawn = "document.querySelectorAll('article').length + ' ' + document.querySelectorAll('article:has(.tok)').length"
    articles, early = map(int, seen.page.evaluate(drawn).split())
    assert articles == 60
    assert 2 < early < 40
    seen.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert seen.page.evaluate(drawn) == "60 60"


def test_the_filter_counts_what_it_leaves(opened: Open) -> None:
    rows = [ViewRow(labels=PAIR, reasons=("unsafe",)), hostile(), ViewRow(labels=wordy())]
    seen = opened(rows)
    shown = seen.page.locator("output")
    seen.page.fill("input", "UNSAFE")
    assert shown.inner_text() == "1 of 3 pairs"
    assert seen.page.locator("article:visible").count() == 1
    seen.page.fill("input", "")
    seen.page.select_option("select", "5")
    assert shown.inner_text() == "1 of 3 pairs"
    seen.page.select_option("select", "none")
    assert shown.inner_text() == "0 of 3 pairs"


def test_without_script_the_page_says_so(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(edits_page([ViewRow(labels=PAIR)], title="t"), encoding="utf-8")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert "drawn by a script of its own" in page.locator("noscript").inner_text()
    context.close()
