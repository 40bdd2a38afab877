r"""Line breaks: a browser's text field turns every one into ``\n``; here they become again what they were."""

from __future__ import annotations

import re
from collections import Counter

from errata.edits.align import align
from errata.types import Label

__all__ = ["breaks_of", "plain", "restore"]

_BREAK = re.compile(r"\r\n|\r|\n")
_NAMES = {"\r\n": "crlf", "\r": "cr", "\n": "lf"}


def breaks_of(text: str) -> str:
    r"""Which line breaks a text has: ``lf``, ``crlf``, ``cr`` or ``mixed``; ``lf`` if it has none.

    >>> breaks_of("a\r\nb"), breaks_of("a\r\nb\n"), breaks_of("a")
    ('crlf', 'mixed', 'lf')
    """
    found = set(_BREAK.findall(text))
    return "mixed" if len(found) > 1 else _NAMES[found.pop()] if found else "lf"


def plain(text: str) -> str:
    r"""The text as a browser's text field holds it: every line break is ``\n``."""
    return _BREAK.sub("\n", text)


def restore(original: str, typed: str) -> str:
    r"""Give ``typed`` the line breaks of ``original``: a line keeps its own, a new one has the commonest.

    A text that has a ``\r`` came from no text field, and stays as it is. The rest can be undone:
    ``plain(restore(original, typed)) == plain(typed)``, and ``restore(original, plain(original)) == original``.

    >>> restore("one\r\ntwo\r\n", "one\ntwo and a half\nthree\n")
    'one\r\ntwo and a half\r\nthree\r\n'
    """
    if "\r" in typed or "\r" not in original:
        return typed
    ends = _BREAK.findall(original)
    common = Counter(ends).most_common(1)[0][0]
    lines = typed.split("\n")
    of_original, of_typed = align(_BREAK.split(original), lines)
    kept = iter([end for label, end in zip(of_original, [*ends, common], strict=True) if label != Label.DELETED])
    restored = [common if label == Label.INSERTED else next(kept) for label in of_typed]
    return "".join(line + end for line, end in zip(lines, restored, strict=True))[: -len(restored[-1])]
