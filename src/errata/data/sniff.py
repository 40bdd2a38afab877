"""What a file of text says of itself in its first bytes: compression, encoding, separator, header."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, TextIO, cast

__all__ = [
    "Dialect",
    "csv_dialect",
    "decoded",
    "encoding_of",
    "known_delimiter",
    "known_encoding",
    "name_key",
    "open_bytes",
    "open_text",
    "read_head",
    "reading_bytes",
    "shown_delimiter",
]

_HEAD = 1 << 17
_SEPARATORS = (",", ";", "\t", "|")
_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_SAMPLE_ROWS = 50

# By its first bytes; UTF-32 first, whose mark begins like that of UTF-16. "utf-16" takes its mark off.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_WESTERN = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüŒœŠšŽž"
_SIGNS = "€‚„…†‘’“”•–—™¡¢£¥§©ª«¬®°±²³´µ¶·º»¼½¾¿×÷\xa0\xad"
# What no Western text has: a capital after a small letter, three accents in a row, a sign inside of a word.
_NOT_WESTERN = re.compile(
    rf"[^\x00-\x7f{_WESTERN}{_SIGNS}]|[a-z][À-ÞŠŽŒ]|[{_WESTERN}]{{3}}|[A-Za-z][€†•™¡¢£¥§©«¬®°±²³µ¶»¼½¾¿×÷][a-z]"
)


class Dialect(NamedTuple):
    """How a table of text is written."""

    delimiter: str
    skip_spaces: bool
    """Whether a space stands after each separator, which belongs to no cell."""
    header_line: int
    """The line of the header: 2 where `sep=;` or an empty line comes first."""
    header: list[str]
    """Its cells as they stand; empty for an empty file."""


def name_key(name: str) -> str:
    """What two spellings of a column's name share.

    >>> name_key(" Model Output "), name_key("model-output")
    ('model_output', 'model_output')
    """
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def known_delimiter(text: str) -> str:
    r"""A separator as it is typed: one character, or `tab`.

    Raises:
        ValueError: it is longer.
    """
    found = _SPELLED.get(text.lower(), text)
    if len(found) != 1 or found in '"\r\n':
        raise ValueError(f"--delimiter {text!r} is not one character; give , or ; or | or tab")
    return found


def shown_delimiter(delimiter: str) -> str:
    """A separator in words."""
    return "tab" if delimiter == "\t" else repr(delimiter)


def known_encoding(name: str) -> str:
    """The name of an encoding, if Python knows it.

    Raises:
        ValueError: it does not.
    """
    try:
        found = codecs.lookup(name).name
        b"".decode(found)
    except LookupError as error:
        raise ValueError(f"--encoding {name}: no encoding of that name; give utf-8, utf-16, cp1252, …") from error
    return "utf-8-sig" if found == "utf-8" else found


@contextmanager
def reading_bytes(path: Path) -> Iterator[None]:
    """Name the file where its compression is broken.

    Raises:
        ValueError: the gzip stream is damaged, or is none.
    """
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); fetch or write it again") from error


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file; those of a gzip file, whatever its name, are unpacked."""
    with path.open("rb") as file:
        packed = path.suffix == ".gz" or file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def open_text(path: Path, encoding: str, *, newline: str) -> TextIO:
    """The text of a file; in a UTF-8 file, a byte that is none becomes half of a surrogate pair."""
    errors = "strict" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    return TextIOWrapper(cast(IO[bytes], open_bytes(path)), encoding=encoding, errors=errors, newline=newline)


def read_head(path: Path) -> tuple[bytes, bool]:
    """The first bytes, and whether they are all.

    Raises:
        ValueError: as ``reading_bytes``.
    """
    with reading_bytes(path), open_bytes(path) as file:
        head = file.read(_HEAD)
        return head, len(head) < _HEAD or not file.read(1)


def encoding_of(head: bytes) -> str:
    """The encoding of a text by its first bytes: UTF-8, UTF-16 or UTF-32 by mark or zeros, or Western (cp1252).

    UTF-8 is also what is neither: then rows that cannot be decoded are named one by one.

    >>> [encoding_of("é, ü".encode(name)) for name in ("utf-8", "utf-16", "utf-16-le", "cp1252")]
    ['utf-8-sig', 'utf-16', 'utf-16-le', 'cp1252']
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    zeros = [head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1)]
    if max(zeros) > 0.4 and min(zeros) < 0.1:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        if not _MULTIBYTE.search(head) and _is_western(head):
            return "cp1252"
    return "utf-8-sig"


def decoded(head: bytes, encoding: str) -> str:
    """The first bytes as text; a character that they cut in two is left out.

    Raises:
        ValueError: they are not of this encoding.
    """
    errors = "strict" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    return codecs.getincrementaldecoder(encoding)(errors).decode(head)


def _is_western(head: bytes) -> bool:
    try:
        text = head.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return not _NOT_WESTERN.search(text)


def csv_dialect(text: str, whole: bool, *, usual: str, known: Collection[str], delimiter: str | None) -> Dialect:
    """How a table is written, by its first rows.

    Args:
        text: the beginning of the file.
        whole: whether that is all of it.
        usual: the separator that goes with its name.
        known: names of columns that speak for a separator, as ``name_key`` gives them.
        delimiter: the separator, where it is said.

    Raises:
        ValueError: two separators are as likely.
        csv.Error: the header is not CSV.
    """
    lines, skipped = list(StringIO(text, newline="")), 0
    while lines and not lines[0].strip(",;\t| \r\n"):
        lines, skipped = lines[1:], skipped + 1
    named = re.fullmatch(r"sep=(.)\r?\n?", lines[0], re.IGNORECASE) if lines else None
    if named:
        lines, skipped = lines[1:], skipped + 1
        delimiter = delimiter or named[1]
    found = {each: _sample(lines, each, whole) for each in ([delimiter] if delimiter else _SEPARATORS)}
    wide = {each: rows for each, rows in found.items() if rows and len(rows[0]) > 1}
    scores = {each: (sum(name_key(name) in known for name in rows[0]), _steady(rows)) for each, rows in wide.items()}
    best = [each for each, score in scores.items() if score == max(scores.values())]
    if len(best) > 1:
        ways = "; ".join(f"{shown_delimiter(each)} gives {', '.join(map(repr, wide[each][0]))}" for each in best)
        raise ValueError(f"two separators are as likely ({ways}); say which with --delimiter")
    chosen = best[0] if best else delimiter or usual
    # Once more, to be told of what is not CSV in the header.
    header = next(csv.reader(lines, delimiter=chosen, strict=True), [])
    return Dialect(chosen, _spaced(found.get(chosen, [])), 1 + skipped, header)


def _sample(lines: Sequence[str], delimiter: str, whole: bool) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            rows += [row] if row else []
            if len(rows) > _SAMPLE_ROWS:
                break
    except csv.Error:
        pass
    # The last row may be cut off.
    return rows if whole or len(rows) == 1 else rows[:-1]


def _steady(rows: Sequence[Sequence[str]]) -> float:
    """The share of the rows that are as wide as the header."""
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows)


def _spaced(rows: Sequence[Sequence[str]]) -> bool:
    cells = [cell for row in rows for cell in row[1:]]
    return bool(cells) and len(rows) > 1 and all(cell.startswith(" ") for cell in cells)
