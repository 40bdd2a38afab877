"""Rows in and out of files: prompts, preferences and corrections, in the ecosystem's (TRL's) row formats.

Files are JSON lines (``.jsonl``, ``.jsonl.gz``), Parquet (``.parquet``, needs pyarrow) or, to read only, a table with a
header (``.csv``, ``.tsv``, plain text only; ``.xlsx``, needs openpyxl), JSON (``.json``) or a folder that
``Dataset.save_to_disk`` wrote. Rows are read and written one at a time, in memory that does not grow with them. A row
that cannot be used is never dropped in silence: it is an error, or it is set aside in a file of its own and counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Unpack

from tqdm import tqdm

from errata.data.columns import (
    WELL_KNOWN,
    EmptyTexts,
    Kind,
    Reading,
    check_columns,
    columns_of,
    renamed,
    with_messages,
)
from errata.data.fields import (
    EmptyTextError,
    Fields,
)
from errata.data.formats import Format, Recognised, is_response, recognise
from errata.data.parsing import NEEDED, TEXTS, check_not_empty, columns_in, names_in, plan_for
from errata.data.records import (
    Opened,
    Record,
    mapping_records,
    open_records,
    read_lines,
)
from errata.data.sniff import name_key
from errata.data.writing import FirstLines, line_file, row_fields, write_lines, write_rows, writing_rows
from errata.types import Correction, Demonstration, Preference, PromptRow

__all__ = [
    "corrections_from",
    "holds_responses",
    "iter_corrections",
    "iter_demonstrations",
    "iter_preferences",
    "iter_prompts",
    "read_corrections",
    "read_demonstrations",
    "read_lines",
    "read_preferences",
    "read_prompts",
    "recognise_file",
    "row_fields",
    "write_lines",
    "write_rows",
    "writing_rows",
]

_FIRST = 100
"""So many rows say what the columns of a file are."""


def iter_prompts(
    path: Path | str, *, set_aside: Path | str | None = None, **how: Unpack[Reading]
) -> Iterator[PromptRow]:
    """Yield prompts: ``prompt`` is a text or a list of messages with ``role`` and ``content``.

    ``id`` may be left out and is then ``row-<line number>``; fields that errata does not know travel in ``extra``. One
    row is held at a time, after the first hundred; the ids, which have to differ, are kept on disk. What was recognised
    of the file beyond its name (separator, encoding, other names of columns) is said on stderr.

    Args:
        path: the file; its suffix and its first rows say which format. What is not here and reads as ``owner/name``,
            ``owner/name@revision`` or ``owner/name:split`` is a data set of the Hugging Face Hub.
        set_aside: where unusable rows go, as JSON lines ``{line, error, raw}`` (an empty file if there are none). It is
            there once the last row was yielded.
        how: ``columns`` (errata's name of a column → its name in the file), ``encoding`` and ``delimiter``, where they
            cannot be recognised; ``form``, the published format of corrections; ``empty_texts="keep"`` keeps rows
            whose text is empty, which are else skipped and counted.

    Yields:
        The usable rows, in the order of the file. Without ``set_aside`` none after the first unusable one.

    Raises:
        ValueError: unknown format or broken file; two columns could be meant; at the end, an unusable row and no
            ``set_aside``, or no usable row.
    """
    return _read(path, "prompts", set_aside, how)


def iter_demonstrations(
    path: Path | str, *, set_aside: Path | str | None = None, **how: Unpack[Reading]
) -> Iterator[Demonstration]:
    """Yield answers: ``prompt`` and one of ``response``, ``completion``, or the better text of a pair; or ``messages``.

    Of ``messages``, as OpenAI's fine-tuning has them, the last one is the answer. Published formats of corrections are
    read, too. Arguments, ids, further fields and errors are those of ``iter_prompts``.
    """
    return _read(path, "demonstrations", set_aside, how)


def iter_preferences(
    path: Path | str, *, set_aside: Path | str | None = None, **how: Unpack[Reading]
) -> Iterator[Preference]:
    """Yield preferences: ``prompt``, ``chosen`` and ``rejected``; the answers are texts, or lists of one message.

    The other pairs of names and the published formats of corrections are read, too: the text after is chosen.
    Arguments, ids, further fields and errors are those of ``iter_prompts``.
    """
    return _read(path, "preferences", set_aside, how)


def iter_corrections(
    path: Path | str,
    *,
    set_aside: Path | str | None = None,
    rewrite: Callable[[str], str] | None = None,
    **how: Unpack[Reading],
) -> Iterator[Correction]:
    """Yield corrections: ``prompt`` (which may be empty), and the text before and after under a pair of names.

    The pairs are ``rejected, chosen``, ``original, edited`` and ``draft, sent``; texts are as in ``iter_preferences``.
    ``rejected_ids`` (or ``original_ids``) are the sampled ids of the former, where they are known; ``reason`` (a
    text or a list of texts) says why; ``rejected_weights`` and ``chosen_weights`` (or those names of another pair) are
    lists of ``[start, stop, weight]``. ``form`` is another published format; where it is not given and most of the
    first rows are none of errata's own, it is recognised as by ``recognise_file``, else by well-known names of columns.
    ``rewrite`` is given what is written to ``set_aside`` of a row, say to mask it. Arguments, ids, further fields and
    errors are else those of ``iter_prompts``.
    """
    return _read(path, "corrections", set_aside, how, rewrite)


def corrections_from(
    rows: Iterable[Mapping[str, Any]],
    *,
    form: Format | None = None,
    set_aside: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    empty_texts: EmptyTexts = "skip",
) -> Iterator[Correction]:
    """Yield the corrections of mappings that are not in a file; a ``datasets.Dataset`` gives such rows.

    >>> rows = [{"prompt": "Write to Anna.", "draft": "Dear Ana,", "sent": "Dear Anna,", "reason": "style"}]
    >>> [(row.id, row.original, row.edited, row.reasons) for row in corrections_from(rows)]
    [('row-1', 'Dear Ana,', 'Dear Anna,', ('style',))]

    Fields, arguments and errors are those of ``iter_corrections``; the number of a row stands for its line.
    """
    how = Reading(columns=columns, form=form, empty_texts=empty_texts)
    check_columns(columns or {})
    return _rows(Opened(mapping_records(rows)), "the rows", "corrections", set_aside, how)


def recognise_file(path: Path | str, *, first: int = 100, **how: Unpack[Reading]) -> Recognised:
    """The format of a file of corrections, judged by its first rows, and why.

    Raises:
        ValueError: as ``errata.data.formats.recognise``, or none of the first rows can be read.
    """
    opened = _open(path, how)
    loaded, refusal = _loaded(islice(opened.records, first))
    if not loaded:
        told = f" among its first {first}: {refusal}" if refusal else ""
        raise ValueError(f"{path} has no usable row{told}; give it at least one")
    try:
        columns = columns_in("corrections", loaded, opened, {**how, "form": None})
        return recognise([renamed(dict(fields), columns) for fields in loaded])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def holds_responses(path: Path | str, *, first: int = 100, **how: Unpack[Reading]) -> bool:
    """Whether a file's first rows are answers without a correction: ``prompt`` and ``response`` or ``completion``."""
    opened = _open(path, how)
    loaded, _ = _loaded(islice(opened.records, first))
    columns = columns_of("demonstrations", names_in(loaded, opened), how.get("columns") or {}, aliases=False)
    return sum(is_response(renamed(dict(fields), columns)) for fields in loaded) * 2 >= len(loaded) > 0


def read_prompts(path: Path | str, *, set_aside: Path | str | None = None, **how: Unpack[Reading]) -> list[PromptRow]:
    """The rows of ``iter_prompts``, all of them at once."""
    return list(iter_prompts(path, set_aside=set_aside, **how))


def read_demonstrations(
    path: Path | str, *, set_aside: Path | str | None = None, **how: Unpack[Reading]
) -> list[Demonstration]:
    """The rows of ``iter_demonstrations``, all of them at once."""
    return list(iter_demonstrations(path, set_aside=set_aside, **how))


def read_preferences(
    path: Path | str, *, set_aside: Path | str | None = None, **how: Unpack[Reading]
) -> list[Preference]:
    """The rows of ``iter_preferences``, all of them at once."""
    return list(iter_preferences(path, set_aside=set_aside, **how))


def read_corrections(
    path: Path | str, *, set_aside: Path | str | None = None, **how: Unpack[Reading]
) -> list[Correction]:
    """The rows of ``iter_corrections``, all of them at once."""
    return list(iter_corrections(path, set_aside=set_aside, **how))


# Reading: a file gives records, a record gives fields, fields give a row.


def _read(
    path: Path | str,
    kind: Kind,
    set_aside: Path | str | None,
    how: Reading,
    rewrite: Callable[[str], str] | None = None,
) -> Iterator[Any]:
    path, set_aside = Path(path), None if set_aside is None else Path(set_aside)
    if set_aside is not None and set_aside.resolve() == path.resolve():
        raise ValueError(f"{path} cannot take the rows set aside from itself; name another file")
    check_columns(how.get("columns") or {})
    return _rows(partial(_open, path, how), str(path), kind, set_aside, how, rewrite or str)


def _open(path: Path | str, how: Reading) -> Opened:
    known = {*WELL_KNOWN, *map(name_key, (how.get("columns") or {}).values())}
    return open_records(Path(path), encoding=how.get("encoding"), delimiter=how.get("delimiter"), known=known)


def _loaded(found: Iterable[Record]) -> tuple[list[Fields], str]:
    """The fields of records that can be read, and why the first of the others cannot."""
    loaded: list[Fields] = []
    refusal = ""
    for record in found:
        try:
            loaded.append(record.load())
        except (ValueError, RecursionError) as error:
            refusal = refusal or f"line {record.line}: {error}"
    return loaded, refusal


def _rows(
    opened: Opened | Callable[[], Opened],
    source: str,
    kind: Kind,
    set_aside: Path | str | None,
    how: Reading,
    rewrite: Callable[[str], str] = str,
) -> Iterator[Any]:
    """The rows that can be used; the others are written to ``set_aside`` and told of, or an error at the end."""
    opened = opened if isinstance(opened, Opened) else opened()
    first = list(islice(opened.records, _FIRST))
    try:
        plan = plan_for(kind, _loaded(first)[0], opened, how)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if said := "; ".join([*opened.taken, *plan.said]):
        # Not print: a progress bar may stand where this is to be said.
        tqdm.write(f"{source}: {said}", file=sys.stderr)
    counts = _Counts()
    keep, needed = how.get("empty_texts", "skip") == "keep", NEEDED[kind]
    cells = [name for name in TEXTS if name in {*opened.columns, *plan.columns}] if opened.columns else ()
    with FirstLines() as ids, nullcontext() if set_aside is None else line_file(Path(set_aside)) as write:
        for record in chain(first, opened.records):
            try:
                fields = record.load()
                if plan.columns:
                    fields = renamed(fields, plan.columns)
                for name in cells:
                    text = fields.get(name)
                    if text.__class__ is str and text.startswith("["):
                        fields = with_messages(fields, (name,))
                row = plan.parse(fields, record.line)
                if not keep:
                    counts.without_prompt += check_not_empty(row, needed)
                if (before := ids.put(row.id, record.line)) is not None:
                    raise ValueError(f"field 'id': {row.id!r} is the id of line {before} too; make ids differ")
            except (ValueError, RecursionError) as error:  # the latter of rows nested to the limit of Python
                counts.add(error, record.line, rewrite)
                if write is not None:
                    write({"line": record.line, "error": rewrite(str(error)), "raw": rewrite(record.raw())})
            else:
                counts.usable += 1
                # Without a place for bad rows the first one is an error; the rest of the file is only counted.
                if write is not None or not counts.unusable:
                    yield row
    counts.tell(source, kind, set_aside, plan.hint)


@dataclass(slots=True)
class _Counts:
    """What became of the rows of a file."""

    usable: int = 0
    unusable: int = 0
    empty: int = 0
    """Rows with an empty text."""
    without_prompt: int = 0
    """Usable rows whose prompt is empty."""
    first: str = ""
    """Why the first unusable row is one."""
    first_empty: str = ""

    def add(self, error: Exception, line: int, rewrite: Callable[[str], str]) -> None:
        why = f"line {line}: {rewrite(str(error))}"
        if isinstance(error, EmptyTextError):
            self.empty += 1
            self.first_empty = self.first_empty or why
        else:
            self.unusable += 1
            self.first = self.first or why

    def tell(self, source: str, kind: Kind, set_aside: Path | str | None, hint: str) -> None:
        """Say what was left out.

        Raises:
            ValueError: there is an unusable row and no place for it, or no usable row.
        """
        hint = f"; {hint}" if hint else ""
        if self.unusable and set_aside is None:
            aside = (
                f", or read it by `errata edits import --data {source} --out edits.jsonl`, which sets them aside"
                if kind == "corrections"
                else ", or set unusable rows aside (set_aside= in Python)"
            )
            raise ValueError(
                f"{source}, {self.first} ({self.unusable - 1} more unusable rows, {self.usable} usable ones; "
                f"mend the file{aside}{hint})"
            )
        total, left_out = self.usable + self.unusable + self.empty, self.unusable + self.empty
        what = f" ({self.empty} of them for an empty text)" if self.unusable and self.empty else ""
        first = self.first or self.first_empty
        where = "skipped" if set_aside is None else f"set aside in {set_aside}"
        if left_out:
            tqdm.write(f"{source}: {left_out} of {total} rows {where}{what}; the first, {first}", file=sys.stderr)
        if not self.usable:
            told = f" (the first, {first})" if first else ""
            raise ValueError(f"{source} has no usable row; give it at least one{told}{hint}")
        if self.without_prompt:
            tqdm.write(f"{source}: {self.without_prompt} of {self.usable} rows have an empty prompt", file=sys.stderr)


# What a row is made of.


# Writing.
