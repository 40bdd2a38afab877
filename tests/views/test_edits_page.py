from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

import errata.views
from errata.types import Label, TokenLabels
from errata.views import Show, ViewRow, edits_page, labels_to_terminal, legend_to_terminal, view_scale

from .rows import PAIR, many, pair, side
from .test_island import unpack

ROW = ViewRow(
    labels=PAIR,
    reasons=("wrong", "<b>"),
    weights=([0, 0, -0.5, -0.5, -0.25, 0, 0], [0.5, 0.5, 1, 0.5, 0.5, 1, 1, 1]),
    rewards=(None, [0.1, 0, -2.34567, 0, 0, 0, 0, 0]),
)
SET_APART = pair(
    "odd",
    side(["Hm", ".", " It", " costs", "é", ""], [5, 5, 0, 4, 0, 0, 0]),
    side(["Hm", ".", " It", " now", " costs", "é"], [5, 5, 0, 1, 0, 0, 0]),
)


def shown(pair: TokenLabels, width: int = 90, **more: object) -> str:
    """What a terminal without colours shows."""
    out = StringIO()
    Console(file=out, width=width).print(labels_to_terminal(pair, **more))  # type: ignore[arg-type]
    return out.getvalue()


def data(html: str) -> dict:  # type: ignore[type-arg]
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def test_the_page_holds_each_stream() -> None:
    page = data(edits_page([ViewRow(labels=SET_APART), ROW], title="t"))
    row = page["rows"][1]
    assert row["id"] == "row <7>"
    assert row["reasons"] == ["wrong", "<b>"]
    assert row["counts"] == "1 deleted, 2 inserted, 2 substituted by 1, 4 kept"
    assert [one["text"] for one in row["sides"]] == [
        "It costs nine stupid coins now",
        "It costs seven coins now. Thanks",
    ]
    assert [one["ended"] for one in row["sides"]] == [False, True]
    streams = {kind: [unpack(page["tables"][kind], one) for one in row["streams"][kind]] for kind in row["streams"]}
    assert streams["lengths"] == [[2, 6, 3, 2, 7, 6, 4], [2, 6, 6, 6, 4, 1, 7, 0]]
    assert streams["labels"] == [[0, 0, 3, 3, 2, 0, 0], [0, 0, 3, 0, 0, 1, 1, 0]]
    assert streams["ids"][0] == [102, 103, 104, 105, 106, 107, 108]
    assert streams["weights"] == [list(ROW.weights[0]), list(ROW.weights[1])]  # type: ignore[arg-type]
    assert streams["rewards"] == [[], [0.1, 0, -2.35, 0, 0, 0, 0, 0]]
    assert (row["weights"], row["rewards"]) == ([True, True], [False, True])
    assert streams["columns"] == [[1, 1, 2, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 1, 1, 1, 1, 1]]
    assert page["tints"] == [[0, 0, -1, -1, 0, 0], [0, 1, 0, 1, 0, 0]]
    odd = [unpack(page["tables"]["lengths"], one) for one in page["rows"][0]["streams"]["lengths"]]
    assert odd == [[2, 1, 3, 6, 1, -1, 0], [2, 1, 3, 4, 6, 1, 0]]


def test_lengths_are_those_of_javascript() -> None:
    page = data(edits_page([ViewRow(labels=pair("x", side(["a😀", "", "b"], [0, 0, 0, 0]), PAIR.edited))], title="t"))
    assert unpack(page["tables"]["lengths"], page["rows"][0]["streams"]["lengths"][0]) == [3, -1, 1, 0]


@pytest.mark.parametrize(
    ("show", "words"),
    [
        (Show.LABELS, "colour is the label: − taken away, + put in; none at 0, full at ±1"),
        (Show.WEIGHTS, "colour is the weight in the loss: − unlearned, + imitated; none at 0, full at ±1, the largest"),
        (Show.REWARDS, "colour is the reward: − bad, + good; none at 0, full at ±2.35, the largest shown"),
    ],
)
def test_the_legend_states_the_scale(show: Show, words: str) -> None:
    html = edits_page([ViewRow(labels=SET_APART), ROW], title="t", show=show)
    scale = view_scale([ViewRow(labels=SET_APART), ROW], show)
    assert words in html
    assert data(html)["scale"] == pytest.approx(scale, rel=0.01)
    assert words in legend_to_terminal(show, scale).plain


def test_what_nobody_handed_in_is_not_shown() -> None:
    with pytest.raises(ValueError, match="no row has rewards to show"):
        edits_page([ViewRow(labels=PAIR)], title="t", show=Show.REWARDS)


def test_the_terminal_shows_the_same() -> None:
    text = shown(replace(PAIR, id="[red]\x1b"), reasons=("wrong",))
    assert "[red]␛ · wrong" in text
    assert "It·costs⟦·nine⁻⟧·stupid⁻·coins·now" in text
    assert "It·costs⟦·seven⁺⟧·coins·now.·Thanks⁺⟨end⟩" in text
    assert "1 deleted, 2 inserted, 2 substituted by 1, 4 kept" in text
    assert text.index("stupid") < text.index("Thanks")


def test_the_terminal_has_words_for_what_is_set_apart() -> None:
    text = shown(SET_APART)
    assert "⟪ignored: Hm.⟫·It‸·costsé⟨1/2⟩⟨2/2⟩⟨end⟩" in text
    assert "⟪ignored: Hm.⟫·It·now⁺·costsé⟨end⟩" in text
    assert "1 after an omission, 2 and 2 ignored" in text
    legend = legend_to_terminal().plain
    assert all(sign in legend for sign in ("⟦substituted⟧", "‸", "⟪ignored", "⏎", "1/4", "−⁻", "+⁺"))


def test_the_terminal_shows_other_values_too() -> None:
    text = shown(PAIR, values=([1.0, -1.0, 0, 0, 0, 0, 0], None), scale=2.0)
    assert "It⁺·costs⁻⟦·nine⟧·stupid·coins" in text
    assert "It·costs⟦·seven⟧·coins·now.·Thanks" in text


def test_text_after_the_last_token_is_told_apart() -> None:
    cut = replace(PAIR, original=replace(PAIR.original, text=PAIR.original.text + " and more"))
    assert "·now⟪no·token:" not in shown(cut)
    assert "·now⟪no token: ·and·more⟫" in shown(cut)


def test_long_rows_wrap() -> None:
    row = many(1, 200)[0]
    text = shown(row.labels, width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
    flat = "".join(line[10:].strip() for line in text.splitlines()[1:-1])
    assert Text(flat).plain.count("⟦") == sum(
        one == Label.SUBSTITUTED for one in (*row.labels.original.labels, *row.labels.edited.labels)
    )


def test_the_page_is_alone_in_the_world_but_for_its_own_script() -> None:
    html = edits_page([ROW], title="<i>\u202e")
    assert "<title>&lt;i&gt;⟨U+202E⟩</title>" in html
    assert not re.search(r"https?://|url\(|@import|<link|<img|src=", html)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL)
    assert [attributes for attributes, _ in scripts] == [' type="application/json" id="data"', ""]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert policy[1].replace("&#39;", "'") == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert "There is nothing to show" in edits_page([], title="t")


def test_the_script_makes_no_html() -> None:
    script = (Path(errata.views.__file__).parent / "edits.js").read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function\(|fetch|XMLHttp", script
    )


def test_five_hundred_rows_are_under_five_megabytes() -> None:
    rows = many(500, 256)
    assert all(min(len(row.labels.original.labels), len(row.labels.edited.labels)) >= 256 for row in rows)
    started = time.perf_counter()
    size = len(edits_page(rows, title="t", show=Show.REWARDS).encode())
    print(f"{size / 1e6:.2f} MB, {time.perf_counter() - started:.1f} s")
    assert size < 5e6


def luminance(rgb: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (one / 255 for one in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_every_colour() -> None:
    """At least 4.5:1 in light and dark, at full colour too."""
    folder = Path(errata.views.__file__).parent
    schemes: list[dict[str, str]] = [{}, {}]
    for name in ("page.css", "edits.html.j2"):
        text = (folder / name).read_text()
        for scheme, block in zip(schemes, re.findall(r":root \{([^}]*)\}", text)[:2], strict=True):
            scheme.update(re.findall(r"--([a-z]+): ([^;]+);", block))

    def rgb(value: str) -> tuple[float, ...]:
        if value.startswith("#"):
            digits = value[1:] if len(value) == 7 else "".join(2 * digit for digit in value[1:])
            return tuple(int(digits[start : start + 2], 16) for start in (0, 2, 4))
        return tuple(map(float, value.split()))

    def mixed(top: tuple[float, ...], below: tuple[float, ...], share: float) -> tuple[float, ...]:
        return tuple(share * a + (1 - share) * b for a, b in zip(top, below, strict=True))

    for scheme in ({**schemes[0]}, {**schemes[0], **schemes[1]}):
        color = {name: rgb(value) for name, value in scheme.items() if value[0] == "#" or value.count(" ") == 2}
        full = float(scheme["full"])
        for text, ground in [
            ("ink", color["paper"]),
            ("soft", color["paper"]),
            ("muted", color["hatch"]),
            ("muted", color["card"]),
            ("ink", mixed(color["pos"], color["paper"], full)),
            ("ink", mixed(color["neg"], color["paper"], full)),
        ]:
            light, dark = sorted((luminance(color[text]), luminance(ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground, scheme["paper"])


@pytest.mark.parametrize("wrong", [Label.INSERTED, 9])
def test_a_label_of_the_other_side_is_refused(wrong: int) -> None:
    bad = replace(PAIR, original=replace(PAIR.original, labels=(0, 0, 0, 0, wrong, 0, 0)))
    for show in (lambda: edits_page([ViewRow(labels=bad)], title="t"), lambda: labels_to_terminal(bad)):
        with pytest.raises(
            ValueError, match=rf"pair 'row <7>', original side, has the label {int(wrong)}.* at token 4"
        ):
            show()


def test_an_omission_is_no_label_of_the_edited_side() -> None:
    bad = replace(PAIR, edited=replace(PAIR.edited, labels=(4, 0, 0, 0, 0, 0, 0, 0)))
    with pytest.raises(ValueError, match=r"edited side, has the label 4 at token 0; this side knows 0 .kept., 1"):
        labels_to_terminal(bad)


def test_one_label_and_one_value_for_each_token() -> None:
    bad = replace(PAIR, edited=replace(PAIR.edited, labels=(0, 0)))
    with pytest.raises(ValueError, match="edited side, has 2 labels for 8 tokens"):
        edits_page([ViewRow(labels=bad)], title="t")
    with pytest.raises(ValueError, match="edited side, weights: 7 values for 8 tokens"):
        edits_page([replace(ROW, weights=(None, ROW.weights[0]))], title="t")
    with pytest.raises(ValueError, match="original side, rewards: the value of token 1 is nan"):
        edits_page([replace(ROW, rewards=([0, float("nan"), 0, 0, 0, 0, 0], None))], title="t")
    with pytest.raises(ValueError, match="original side, 8 values for 7 tokens"):
        labels_to_terminal(PAIR, values=(ROW.weights[1], None))
