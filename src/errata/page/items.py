"""Into the database: responses to correct, from any file that ``errata edits import`` reads, or plain responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from errata.data import Reading, iter_corrections, iter_demonstrations, recognise_file
from errata.data.rows import holds_responses
from errata.page.export import NAMES
from errata.page.store import NewItem
from errata.types import Correction

__all__ = ["items_of"]

_REFERENCES = ("reference", "output", "preferred")
_OWN = NAMES | {"id", "prompt", "chosen", "rejected", "rejected_ids", "chosen_weights", "rejected_weights", "reason"}


def items_of(path: Path, *, set_aside: Path | None = None, **how: Unpack[Reading]) -> Iterator[NewItem]:
    """Yield the responses of a file: of corrections the text before, with the text after as the reference.

    Rows of ``prompt`` and ``response`` (or ``completion``) will do; a text under ``reference``, ``output`` or
    ``preferred`` is then shown beside it. Other fields travel to the export; one that has the name of a field that
    the page writes becomes ``source_<name>``.

    Raises:
        ValueError: as ``iter_corrections`` and ``recognise_file``, whose arguments ``how`` holds.
    """
    if how.get("form") is None and holds_responses(path, **how):
        for row in iter_demonstrations(path, set_aside=set_aside, **how):
            found = next((row.extra[name] for name in _REFERENCES if isinstance(row.extra.get(name), str)), None)
            yield NewItem(id=row.id, prompt=row.prompt, response=row.response, reference=found, extra=_extra(row.extra))
        return
    how["form"] = how.get("form") or recognise_file(path, **how).format
    for each in iter_corrections(path, set_aside=set_aside, **how):
        yield NewItem(
            id=each.id,
            prompt=each.prompt,
            response=each.original,
            reference=None if each.edited == each.original else each.edited,
            response_ids=each.original_ids,
            extra=_extra({**each.extra, **_reasons(each)}),
        )


def _reasons(row: Correction) -> dict[str, Any]:
    return {"reason": list(row.reasons)} if row.reasons else {}


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in sorted(fields.items(), key=lambda field: field[0] in _OWN):  # names that stay, first
        while name in _OWN or name in found:
            name = f"source_{name}"
        found[name] = value
    return found
