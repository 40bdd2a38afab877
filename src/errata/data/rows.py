"""Rows in and out of files: prompts, preferences and corrections, in the ecosystem's (TRL's) row formats.

Files are JSON lines (``.jsonl``, ``.jsonl.gz``), Parquet (``.parquet``, needs pyarrow) or, to read only, a table with a
header (``.csv``, ``.tsv``, plain text only; ``.xlsx``, needs openpyxl), JSON (``.json``) or a folder that
``Dataset.save_to_disk`` wrote. Rows are read and written one at a time, in memory that does not grow with them. A row
that cannot be used is never dropped in silence: it is an error, or it is set aside in a file of its own and counted.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Unpack

from tqdm import tqdm

from errata.data.columns import (
    TEXT_PAIRS,
    WELL_KNOWN,
    EmptyTexts,
    Kind,
    Reading,
    check_columns,
    columns_of,
    naming,
    renamed,
    with_messages,
)
from errata.data.fields import (
    ID_FIELDS,
    EmptyTextError,
    Fields,
    is_conversation,
    take_answer,
    take_conversation,
    take_id,
    take_ids,
    take_prompt,
)
from errata.data.formats import FORMATS, Format, Recognised, any_pair, is_own, is_response, pair_of, recognise
from errata.data.records import (
    Opened,
    Record,
    is_gzip,
    mapping_records,
    open_records,
    pyarrow_modules,
    read_lines,
)
from errata.data.sniff import name_key
from errata.runs import new_file
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

_ANSWERS = ("response", "completion", "chosen", "edited", "sent")
_GROUP_ROWS = 4096
_FIRST = 100
"""So many rows say what the columns of a file are."""
_TEXTS = ("prompt", "messages", "input", *(name for pair in TEXT_PAIRS for name in pair), "response", "completion")
"""Fields that may hold messages."""


_Written = TypeVar("_Written", bound=PromptRow | Demonstration | Preference | Correction)


def iter_prompts(path: Path, *, set_aside: Path | None = None, **how: Unpack[Reading]) -> Iterator[PromptRow]:
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
    path: Path, *, set_aside: Path | None = None, **how: Unpack[Reading]
) -> Iterator[Demonstration]:
    """Yield answers: ``prompt`` and one of ``response``, ``completion``, or the better text of a pair; or ``messages``.

    Of ``messages``, as OpenAI's fine-tuning has them, the last one is the answer. Published formats of corrections are
    read, too. Arguments, ids, further fields and errors are those of ``iter_prompts``.
    """
    return _read(path, "demonstrations", set_aside, how)


def iter_preferences(path: Path, *, set_aside: Path | None = None, **how: Unpack[Reading]) -> Iterator[Preference]:
    """Yield preferences: ``prompt``, ``chosen`` and ``rejected``; the answers are texts, or lists of one message.

    The other pairs of names and the published formats of corrections are read, too: the text after is chosen.
    Arguments, ids, further fields and errors are those of ``iter_prompts``.
    """
    return _read(path, "preferences", set_aside, how)


def iter_corrections(
    path: Path,
    *,
    set_aside: Path | None = None,
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
    set_aside: Path | None = None,
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


def recognise_file(path: Path, *, first: int = 100, **how: Unpack[Reading]) -> Recognised:
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
        columns = _columns("corrections", loaded, opened, {**how, "form": None})
        return recognise([renamed(dict(fields), columns) for fields in loaded])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def holds_responses(path: Path, *, first: int = 100, **how: Unpack[Reading]) -> bool:
    """Whether a file's first rows are answers without a correction: ``prompt`` and ``response`` or ``completion``."""
    opened = _open(path, how)
    loaded, _ = _loaded(islice(opened.records, first))
    columns = columns_of("demonstrations", _names(loaded, opened), how.get("columns") or {}, aliases=False)
    return sum(is_response(renamed(dict(fields), columns)) for fields in loaded) * 2 >= len(loaded) > 0


def read_prompts(path: Path, *, set_aside: Path | None = None, **how: Unpack[Reading]) -> list[PromptRow]:
    """The rows of ``iter_prompts``, all of them at once."""
    return list(iter_prompts(path, set_aside=set_aside, **how))


def read_demonstrations(path: Path, *, set_aside: Path | None = None, **how: Unpack[Reading]) -> list[Demonstration]:
    """The rows of ``iter_demonstrations``, all of them at once."""
    return list(iter_demonstrations(path, set_aside=set_aside, **how))


def read_preferences(path: Path, *, set_aside: Path | None = None, **how: Unpack[Reading]) -> list[Preference]:
    """The rows of ``iter_preferences``, all of them at once."""
    return list(iter_preferences(path, set_aside=set_aside, **how))


def read_corrections(path: Path, *, set_aside: Path | None = None, **how: Unpack[Reading]) -> list[Correction]:
    """The rows of ``iter_corrections``, all of them at once."""
    return list(iter_corrections(path, set_aside=set_aside, **how))


def write_rows(path: Path, rows: Iterable[PromptRow | Demonstration | Preference | Correction]) -> None:
    """Write rows, wholly or not at all; the readers give back equal rows. A correction becomes a TRL preference row.

    Rows are taken one at a time; Parquet has the types of its first rows.

    Raises:
        ValueError: a format that cannot be written; an id that comes twice; text or an extra field that the file cannot
            hold as it is.
    """
    deque(writing_rows(path, rows), maxlen=0)


def writing_rows(path: Path, rows: Iterable[_Written]) -> Iterator[_Written]:
    """Yield the rows while writing them: for who counts what is written. Whoever stops early has written nothing.

    Raises:
        ValueError: as ``write_rows``.
    """
    if path.suffix == ".parquet":
        yield from _writing_parquet(path, rows)
    else:
        with _line_file(path) as write, _FirstLines() as ids:
            for row in rows:
                write(_distinct(row_fields(row), ids))
                yield row


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as ``.jsonl`` or ``.jsonl.gz``, wholly or not at all; the same objects, the same bytes.

    Raises:
        ValueError: another suffix; a row that JSON in UTF-8 cannot hold.
    """
    with _line_file(path) as write:
        for row in rows:
            write(row)


@contextmanager
def _line_file(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield what writes one line; the file is there once the block has ended without an error."""
    compressed = is_gzip(path)
    with new_file(path) as unfinished, unfinished.open("wb") as raw:
        # No name and no time in the header of a gzip file.
        file = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compressed else raw
        with file:

            def write(row: Mapping[str, Any]) -> None:
                try:
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                except (TypeError, ValueError, RecursionError) as error:
                    raise ValueError(f"{path}: row {row.get('id')!r} cannot be written as JSON: {error}") from error

            yield write


class _FirstLines:
    """The line of each id seen so far, in a database on disk that goes with this object: ids may be millions."""

    def __enter__(self) -> _FirstLines:
        # "" is SQLite's name for a private file without a name, kept in memory as long as it is small.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE first (id BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def put(self, identity: str, line: int) -> int | None:
        """Note an id; the line that had it before, or None if it is new."""
        key = identity.encode("utf-8", "surrogatepass")
        if self._database.execute("INSERT OR IGNORE INTO first VALUES (?, ?)", (key, line)).rowcount:
            return None
        ((before,),) = self._database.execute("SELECT line FROM first WHERE id = ?", (key,))
        return int(before)


# Reading: a file gives records, a record gives fields, fields give a row.


def _read(
    path: Path,
    kind: Kind,
    set_aside: Path | None,
    how: Reading,
    rewrite: Callable[[str], str] | None = None,
) -> Iterator[Any]:
    if set_aside is not None and set_aside.resolve() == path.resolve():
        raise ValueError(f"{path} cannot take the rows set aside from itself; name another file")
    check_columns(how.get("columns") or {})
    return _rows(partial(_open, path, how), str(path), kind, set_aside, how, rewrite or str)


def _open(path: Path, how: Reading) -> Opened:
    known = {*WELL_KNOWN, *map(name_key, (how.get("columns") or {}).values())}
    return open_records(path, encoding=how.get("encoding"), delimiter=how.get("delimiter"), known=known)


class _Plan(NamedTuple):
    """How the rows of a file are made of its records."""

    parse: Callable[[Fields, int], Any]
    columns: Mapping[str, str]
    said: tuple[str, ...]
    """What was recognised, in words."""
    hint: str
    """What to type, if no row can be used."""


def _plan(kind: Kind, sample: Sequence[Fields], opened: Opened, how: Reading) -> _Plan:
    """Choose by the first rows: errata's own names, a published format, or other well-known names of columns.

    Raises:
        ValueError: two formats fit, or two columns could be meant.
    """
    form, columns = how.get("form"), _columns(kind, sample, opened, how)
    rows = [renamed(dict(fields), columns) for fields in sample]
    said, hint = [f"column {theirs!r} is {ours!r}" for ours, theirs in columns.items() if ours != theirs], ""
    if how.get("columns") and not columns.keys() >= (how.get("columns") or {}).keys():
        said.append("--columns is not applied: its columns are not there, and errata's own names are")
    if form is not None and not any(map(form.fits, rows)) and _most(rows, _OWN[kind]):
        # As with --columns: a second file of the same verb.
        form, said = None, [*said, "--from is not applied: its rows have errata's own names"]
    if form is None and not _most(rows, _OWN[kind]):
        form = _format_of(rows)
        said += [] if form is None else [form.title]
        if opened.columns and form is None:
            hint = naming(kind, opened.columns)
    if opened.columns and any(with_messages(dict(row), _TEXTS) != row for row in _parsable(rows)):
        said.append("messages as JSON are read as messages")
    return _Plan(_parser(kind, form), columns, tuple(said), hint)


def _columns(kind: Kind, sample: Sequence[Fields], opened: Opened, how: Reading) -> dict[str, str]:
    """Errata's name of a column → its name in the file, where that is another."""
    names, given, form = _names(sample, opened), how.get("columns") or {}, how.get("form")
    missing = [f"{ours}={theirs}" for ours, theirs in given.items() if sample and not _has(sample, theirs)]
    if missing and len(missing) == len(given) and _most(sample, _OWN[kind]):
        # A second file of the same verb, such as the held-out rows, may have errata's own names.
        given, missing = {}, []
    if missing:
        raise ValueError(f"--columns {missing[0]}: no row has that column; {naming(kind, names)}")
    columns = columns_of(kind, names, given, aliases=False)
    rows = [renamed(dict(fields), columns) for fields in sample]
    if _most(rows, _OWN[kind]):
        return columns
    # Of errata's own formats one that is not whole may have its other half under another name.
    found = form or _format_of(rows)
    if found is not None and not _is_pair_format(found):
        return columns
    try:
        return columns_of(kind, names, given, aliases=True)
    except ValueError:
        if form is None:
            raise
        # Whoever named the format is told what its rows lack.
        return columns


def _has(sample: Sequence[Fields], theirs: str) -> bool:
    return any(renamed(dict(fields), {"": theirs}).get("") is not None for fields in sample)


def _format_of(rows: Sequence[Fields]) -> Format | None:
    """The published format of most of the rows; two that fit are an error."""
    fitting = [form for form in FORMATS.values() if _most(rows, form.fits)]
    return recognise(rows).format if fitting else None


def _is_pair_format(form: Format) -> bool:
    return form in [FORMATS[name] for name in ("preference", "original-edited", "draft-sent")]


def _most(rows: Sequence[Fields], fits: Callable[[Fields], bool]) -> bool:
    return sum(map(fits, rows)) * 2 >= len(rows) > 0


def _names(sample: Sequence[Fields], opened: Opened) -> list[str]:
    """The columns of a table, or the fields that at least half of the rows have."""
    if opened.columns or not sample:
        return list(opened.columns)
    count = Counter(name for fields in sample for name, value in fields.items() if value is not None)
    return [name for name in count if count[name] * 2 >= len(sample)]


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


def _parsable(rows: Iterable[Fields]) -> Iterator[Fields]:
    for row in rows:
        with suppress(ValueError):
            with_messages(dict(row), _TEXTS)
            yield row


def _rows(
    opened: Opened | Callable[[], Opened],
    source: str,
    kind: Kind,
    set_aside: Path | None,
    how: Reading,
    rewrite: Callable[[str], str] = str,
) -> Iterator[Any]:
    """The rows that can be used; the others are written to ``set_aside`` and told of, or an error at the end."""
    opened = opened if isinstance(opened, Opened) else opened()
    first = list(islice(opened.records, _FIRST))
    try:
        plan = _plan(kind, _loaded(first)[0], opened, how)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if said := "; ".join([*opened.taken, *plan.said]):
        # Not print: a progress bar may stand where this is to be said.
        tqdm.write(f"{source}: {said}", file=sys.stderr)
    counts = _Counts()
    keep, needed = how.get("empty_texts", "skip") == "keep", _NEEDED[kind]
    cells = [name for name in _TEXTS if name in {*opened.columns, *plan.columns}] if opened.columns else ()
    with _FirstLines() as ids, nullcontext() if set_aside is None else _line_file(set_aside) as write:
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
                    counts.without_prompt += _check_not_empty(row, needed)
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

    def tell(self, source: str, kind: Kind, set_aside: Path | None, hint: str) -> None:
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


def _check_not_empty(row: Any, texts: Sequence[tuple[str, str]]) -> bool:
    """Refuse a row without a text to learn from; whether its prompt is empty, which may be.

    Raises:
        EmptyTextError: a text is empty, or white space alone: nobody wrote it, and it is no wish for silence.
    """
    for name, what in texts:
        text = getattr(row, name)
        # A prompt may be messages. As is_empty, without a call for each text of each row.
        if not text or (text.__class__ is str and text.isspace()):
            raise EmptyTextError(f"the text {what} is empty; write it, or keep such rows with --empty-texts keep")
    prompt = row.prompt
    return not prompt or (prompt.__class__ is str and prompt.isspace())


_NEEDED: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    "prompts": (("prompt", "of the prompt"),),
    "demonstrations": (("response", "of the answer"),),
    "preferences": (("rejected", "that was rejected"), ("chosen", "that was chosen")),
    "corrections": (
        ("original", "before the edit (draft, original, rejected)"),
        ("edited", "after the edit (sent, edited, chosen)"),
    ),
}
"""The texts that a row needs, and what they are."""


# What a row is made of.


def _parser(kind: Kind, form: Format | None) -> Callable[[Fields, int], Any]:
    if form is None or form is FORMATS["preference"]:
        return {
            "prompts": _prompt_row,
            "demonstrations": _demonstration,
            "preferences": _preference,
            "corrections": any_pair if form is None else form.parse,
        }[kind]
    parse = form.parse
    if kind == "corrections":
        return parse
    made = {"prompts": _prompt_of, "demonstrations": _demonstration_of, "preferences": _preference_of}[kind]
    return lambda fields, line: made(parse(fields, line))


def _prompt_of(row: Correction) -> PromptRow:
    return PromptRow(id=row.id, prompt=row.prompt, extra=row.extra)


def _demonstration_of(row: Correction) -> Demonstration:
    return Demonstration(id=row.id, prompt=row.prompt, response=row.edited, extra=row.extra)


def _preference_of(row: Correction) -> Preference:
    extra = {**row.extra, "reason": list(row.reasons)} if row.reasons else row.extra
    return Preference(
        id=row.id,
        prompt=row.prompt,
        chosen=row.edited,
        rejected=row.original,
        rejected_ids=row.original_ids,
        extra=extra,
    )


def _prompt_row(fields: Fields, line: int) -> PromptRow:
    return PromptRow(id=take_id(fields, line), prompt=take_prompt(fields), extra=fields)


def _demonstration(fields: Fields, line: int) -> Demonstration:
    name = next((name for name in _ANSWERS if fields.get(name) is not None), _ANSWERS[0])
    if _is_chat(fields):
        *prompt, answer = take_conversation(fields, "messages")
        fields |= {"prompt": prompt, name: [answer]}
    return Demonstration(
        id=take_id(fields, line), prompt=take_prompt(fields), response=take_answer(fields, name), extra=fields
    )


def _is_chat(fields: Mapping[str, Any]) -> bool:
    """Whether a row is a conversation whose last message is the answer."""
    named = [name for name in ("prompt", *_ANSWERS) if fields.get(name) is not None]
    return not named and is_conversation(fields.get("messages")) and len(fields["messages"]) > 1


def _preference(fields: Fields, line: int) -> Preference:
    rejected, chosen = pair_of(fields)
    return Preference(
        id=take_id(fields, line),
        prompt=take_prompt(fields),
        chosen=take_answer(fields, chosen),
        rejected=take_answer(fields, rejected),
        chosen_ids=take_ids(fields, ("chosen_ids",)),
        rejected_ids=take_ids(fields, ID_FIELDS),
        extra=fields,
    )


_OWN: Mapping[Kind, Callable[[Fields], bool]] = {
    "prompts": lambda fields: fields.get("prompt") is not None,
    "demonstrations": lambda fields: (
        (fields.get("prompt") is not None and any(fields.get(name) is not None for name in _ANSWERS))
        or _is_chat(fields)
    ),
    "preferences": is_own,
    "corrections": is_own,
}
"""Whether a row is one of errata's own."""


# Writing.


def row_fields(row: PromptRow | Demonstration | Preference | Correction) -> Fields:
    """What a row becomes on file.

    Raises:
        ValueError: an extra field has the name of one of errata's own.
    """
    prompt = row.prompt if isinstance(row.prompt, str) else [dict(message) for message in row.prompt]
    fields: Fields = {"id": row.id, "prompt": prompt}
    own = set()
    if isinstance(row, Preference):
        fields |= _answers(prompt, rejected=row.rejected, chosen=row.chosen)
        for name, ids in (("rejected_ids", row.rejected_ids), ("chosen_ids", row.chosen_ids)):
            if ids is not None:
                fields[name] = list(ids)
    elif isinstance(row, Demonstration):
        fields |= {"response": row.response}
    elif isinstance(row, Correction):
        fields |= _answers(prompt, rejected=row.original, chosen=row.edited)
        weights = {"rejected_weights": row.original_weights, "chosen_weights": row.edited_weights}
        own |= {"reason", *weights}
        if row.original_ids is not None:
            fields["rejected_ids"] = list(row.original_ids)
        fields |= {name: [list(span) for span in spans] for name, spans in weights.items() if spans is not None}
        if row.reasons:
            fields["reason"] = list(row.reasons)
    if clash := (fields.keys() | own) & row.extra.keys():
        raise ValueError(f"row {row.id!r}: the extra fields {sorted(clash)} are names of errata's own; rename them")
    return {**fields, **row.extra}


def _answers(prompt: str | list[dict[str, str]], **texts: str) -> Fields:
    """The answers in the form of their prompt: trainers of preferences take texts or messages, never a mixture."""
    if isinstance(prompt, str):
        return texts
    return {name: [{"role": "assistant", "content": text}] for name, text in texts.items()}


def _distinct(fields: Fields, ids: _FirstLines) -> Fields:
    if ids.put(fields["id"], 0) is not None:
        raise ValueError(f"two rows have the id {fields['id']!r}; make ids differ")
    return fields


def _writing_parquet(path: Path, rows: Iterable[_Written]) -> Iterator[_Written]:
    _, parquet = pyarrow_modules()
    remaining, writer = iter(rows), None
    with new_file(path) as unfinished, _FirstLines() as ids, ExitStack() as opened:
        # No row at all makes a table without columns.
        while (group := list(islice(remaining, _GROUP_ROWS))) or writer is None:
            fields = [_distinct(row_fields(row), ids) for row in group]
            with _one_type_each(path):
                table = _table(fields, None if writer is None else writer.schema)
                writer = writer or opened.enter_context(parquet.ParquetWriter(unfinished, table.schema))
                writer.write_table(table)
            yield from group


def _table(rows: list[Fields], schema: Any) -> Any:
    """One group of rows as a table that says just what they say; the first group settles the types of all."""
    pyarrow, _ = pyarrow_modules()
    names = list(dict.fromkeys(name for row in rows for name in row)) if schema is None else schema.names
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names}, schema=schema)
    for row, held in zip(rows, table.to_pylist(), strict=True):
        for name, value in row.items():
            if held.get(name) != value:
                raise ValueError(f"field {name!r} of row {row['id']!r} would become {held.get(name)!r}")
    return table


@contextmanager
def _one_type_each(path: Path) -> Iterator[None]:
    pyarrow, _ = pyarrow_modules()
    try:
        yield
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: Parquet wants one type for each field ({error}); write .jsonl") from error
