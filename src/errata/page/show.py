"""What the page is sent to draw: the edits as the labels will see them, the meter, the guideline as a harmless tree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from rapidfuzz.distance import Postfix, Prefix

from errata.edits import diff, words
from errata.types import Edit, Op, Span, Ties

__all__ = ["edits_from", "edits_to_show", "ends_of", "markdown_tree", "meter", "spans"]

PAIRS = 400_000_000
"""The most pairs of words, between what both texts begin and end with, that are compared while somebody types: about a
second. Longer texts are saved all the same."""
LENGTH = 1_000_000
"""The most characters of both texts together."""

_TAGS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "em", "strong", "hr", "br", "a"}
_TAGS_OF_LEAVES = {"code_inline": "code", "code_block": "pre", "fence": "pre"}


def edits_to_show(original: str, edited: str) -> list[Edit] | None:
    """The edits of the words as ``errata labels`` takes them by default; None of texts too long to compare at once."""
    if len(original) + len(edited) > LENGTH or _pairs(original, edited) > PAIRS:
        return None
    return diff(original, edited, ties=Ties.DEPARTURE)


def _pairs(original: str, edited: str) -> int:
    if (characters := len(original) * len(edited)) <= PAIRS:
        return characters
    begin = int(Prefix.similarity(original, edited))
    end = int(Postfix.similarity(original[begin:], edited[begin:]))
    first, second = (len(words(text[begin : len(text) - end])) for text in (original, edited))
    return first * second


Ends = list[tuple[str, int, int]]
"""Edits by their ends alone, as they are kept: op, and up to where it covers either text (code points)."""


def ends_of(edits: Sequence[Edit]) -> Ends:
    """What ``edits_from`` makes the edits of again, so that no text is compared twice."""
    return [(edit.op.value, edit.original.stop, edit.edited.stop) for edit in edits]


def edits_from(ends: Ends, original: str, edited: str) -> list[Edit]:
    """The edits of ``ends_of``, made for these texts.

    >>> edits = edits_to_show("one two", "one three")
    >>> edits_from(ends_of(edits), "one two", "one three") == edits
    True
    """
    return [
        Edit(Op(op), Span(a, a_end, original[a:a_end]), Span(b, b_end, edited[b:b_end]))
        for (_, a, b), (op, a_end, b_end) in pairwise([("", 0, 0), *ends])
    ]


def spans(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """The edits as ``errata edits diff --out`` writes them: op and character spans (code points) of both sides."""
    return [
        {
            "op": edit.op.value,
            "original": [edit.original.start, edit.original.stop],
            "edited": [edit.edited.start, edit.edited.stop],
        }
        for edit in edits
    ]


def meter(edits: Sequence[Edit]) -> dict[str, Any]:
    """How much is changed: words added and removed, and the share of the words, as ``errata.edits.edit_ratio``."""
    kept = changed = added = removed = 0
    for edit in edits:
        before, after = len(words(edit.original.text)), len(words(edit.edited.text))
        if edit.op is Op.KEEP:
            kept += before
        else:
            added, removed, changed = added + after, removed + before, changed + max(before, after)
    return {"added": added, "removed": removed, "share": changed / max(kept + removed, kept + added, 1)}


def markdown_tree(text: str) -> list[Any]:
    """A Markdown text as nested ``[tag, attributes, children]`` of a few harmless tags; all else is text.

    HTML is off, images are their alternative text, and a link goes to http, https or mailto only. The page makes
    elements of it one by one, so that no HTML is ever parsed.

    >>> markdown_tree("Be **brief**. <b>x</b> ![logo](http://x/y.png)")
    [['p', {}, ['Be ', ['strong', {}, ['brief']], '. <b>x</b> ', 'logo']]]
    """
    parser = MarkdownIt("commonmark", {"html": False})
    return [each for node in SyntaxTreeNode(parser.parse(text)).children for each in _nodes(node)]


def _nodes(node: SyntaxTreeNode) -> list[Any]:
    if node.type in ("text", "image"):
        return [node.content]
    if node.type == "softbreak":
        return ["\n"]
    if node.type in _TAGS_OF_LEAVES:
        return [[_TAGS_OF_LEAVES[node.type], {}, [node.content]]]
    children = [each for child in node.children for each in _nodes(child)]
    if node.tag not in _TAGS or node.type == "inline":
        return children
    href = str(node.attrs.get("href", ""))
    if node.tag == "a" and not href.startswith(("http://", "https://", "mailto:")):
        return children
    return [[node.tag, {"href": href} if node.tag == "a" else {}, children]]
