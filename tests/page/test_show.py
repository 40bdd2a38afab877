"""What the page is sent: edits, meter, and a guideline that can do no harm."""

import json

import pytest

from errata.edits import diff, edit_ratio
from errata.labels import LabelRules
from errata.page import show
from errata.page.show import edits_from, edits_to_show, ends_of, markdown_tree, meter, spans


@pytest.mark.parametrize(
    ("original", "edited"),
    [("go go stop", "go stop"), ("The red lamp.", "The blue lamp comes soon."), ("", "x"), ("a  b", "a b"), ("", "")],
)
def test_the_edits_are_those_of_the_labels_and_the_meter_is_the_edit_ratio(original, edited):
    edits = edits_to_show(original, edited)
    rules = LabelRules()
    assert edits == diff(original, edited, rules.unit, ties=rules.ties)
    assert meter(edits)["share"] == pytest.approx(edit_ratio(original, edited))


def test_meter_counts_words():
    assert meter(edits_to_show("a b c d", "a x c d e f")) == {"added": 3, "removed": 1, "share": 3 / 6}


def test_spans_are_code_points():
    assert spans(edits_to_show("😀 a", "😀 b"))[-1] == {"op": "substitute", "original": [2, 3], "edited": [2, 3]}


def test_edits_are_kept_by_their_ends_alone():
    for original, edited in (("😀 a b", "😀 b"), ("", ""), ("", "x"), ("go go stop", "go stop\n")):
        edits = edits_to_show(original, edited)
        kept = json.loads(json.dumps(ends_of(edits)))
        assert edits_from(kept, original, edited) == edits


def test_long_texts_are_not_compared_while_somebody_types(monkeypatch):
    monkeypatch.setattr(show, "PAIRS", 10)
    assert edits_to_show("a a a a", "b b b") is None
    assert edits_to_show("a a a", "b b b") is not None
    assert edits_to_show("a a a a b c", "a a a a x c") is not None  # only where they differ
    monkeypatch.setattr(show, "LENGTH", 20)
    assert edits_to_show("a" * 10, "a" * 10) is not None
    assert edits_to_show("a" * 10, "a" * 11) is None


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>x</script>",
        "<img src=x onerror=x>",
        "![x](http://evil/x.png)",
        "[x](javascript:alert(1))",
        "[x](data:text/html,x)",
        "[x](vbscript:x)",
        "[x](/api/overview)",
        "[x](ftp://evil/x)",
        "[x](data:image/png;base64,x)",
        "<http://a.b/'onmouseover='x>",
        "[x]( JavaScript:x )",
        "<iframe src=//evil></iframe>\n\n<style>*{}</style>",
    ],
)
def test_a_guideline_is_harmless(hostile):
    def walk(nodes):
        for node in nodes:
            if not isinstance(node, str):
                tag, attributes, children = node
                assert tag in {"p", "a"}
                assert set(attributes) <= {"href"}
                assert attributes.get("href", "http://").startswith("http://")
                walk(children)

    tree = markdown_tree(hostile)
    walk(tree)
    assert "javascript:" not in str(tree[0][1])


def test_a_guideline_is_rendered():
    text = '# Title\n\n- one\n- `two`\n\n```\ncode <b>\n```\n\nline\nnext [site](https://a.b "t") *x*'
    assert markdown_tree(text) == [
        ["h1", {}, ["Title"]],
        ["ul", {}, [["li", {}, [["p", {}, ["one"]]]], ["li", {}, [["p", {}, [["code", {}, ["two"]]]]]]]],
        ["pre", {}, ["code <b>\n"]],
        [
            "p",
            {},
            ["line", "\n", "next ", ["a", {"href": "https://a.b"}, ["site"]], " ", ["em", {}, ["x"]]],
        ],
    ]
