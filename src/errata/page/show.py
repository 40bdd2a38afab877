"""What the page is sent to draw: the edits as the labels will see them, the meter, the guideline as a harmless tree."""

from __future__ import annotations

from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from errata.edits import diff, words
from errata.types import Edit, Op, Ties

__all__ = ["edits_to_show", "markdown_tree", "meter", "spans"]

LIVE = 2_500_000_000
"""The most pairs of characters that are compared while somebody types; longer texts are saved all the same."""

_TAGS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "em", "strong", "hr", "br", "a"}
_TAGS_OF_LEAVES = {"code_inline": "code", "code_block": "pre", "fence": "pre"}


def edits_to_show(original: str, edited: str) -> list[Edit] | None:
    """The edits of the words as ``errata labels`` takes them by default; None of texts too long to compare at once."""
    return None if len(original) * len(edited) > LIVE else diff(original, edited, ties=Ties.DEPARTURE)


def spans(edits: list[Edit]) -> list[dict[str, Any]]:
    """The edits as ``errata edits diff --out`` writes them: op and character spans (code points) of both sides."""
    return [
        {
            "op": edit.op.value,
            "original": [edit.original.start, edit.original.stop],
            "edited": [edit.edited.start, edit.edited.stop],
        }
        for edit in edits
    ]


def meter(edits: list[Edit]) -> dict[str, Any]:
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
