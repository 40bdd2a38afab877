"""The first stage: the log as it is stored, folded and masked, with who and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from errata.data import Reading, iter_corrections, recognise_file, write_rows
from errata.data.rows import read_lines
from errata.edits import MechanicalOf, Normalizer, kinds_of
from errata.runs import write_json
from errata.types import Correction
from errata.workflows.learning.context import Run, edited
from errata.workflows.privacy import Masker, mask_correction, mask_texts
from errata.workflows.split import USER_FIELDS
from errata.workflows.times import TIME_FIELDS, Times, matching_fields, read_times


def read_log(run: Run, path: Path) -> None:
    """The rows as they are stored: folded, masked, with user and time, without other fields; the counts last."""
    how: Reading = {**run.how, "form": run.how.get("form") or recognise_file(run.log, **run.how).format}
    mask = (lambda text: mask_texts([text])[0][0]) if run.config.mask_private else None
    bad = path.with_name("bad_rows.jsonl")
    read = iter_corrections(run.log, set_aside=bad, rewrite=mask, **how)
    normalizer, mechanical = Normalizer(kinds_of(run.details.normalize)), MechanicalOf()
    rows = list(map(normalizer, tqdm(read, desc="rows", leave=False, delay=2, disable=None)))
    for row in rows:
        mechanical.add(row.original, row.edited)
    users = _fields(run, rows, run.details.user_field, USER_FIELDS, "user")
    user = users[0] if users else None
    time, times = _time_column(run, rows)
    if normalizer.rows:
        run.say(str(normalizer))
    for line in mechanical.result().lines():
        run.say(line)
    if len(users) > 1:
        run.say(f"{user!r} says who sent a row; --user-field takes another ({', '.join(users[1:])})")
    seconds = {} if times is None else dict(zip((row.id for row in rows), times.seconds, strict=True))
    stored = _Stored(mask=run.config.mask_private, user_field=user, seconds=seconds)
    shown = tqdm(rows, desc="masking", leave=False, delay=2, disable=None)
    write_rows(path.with_name("rows.jsonl"), map(stored, shown))
    counts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "rows": len(rows),
        "bad_rows": sum(1 for _ in read_lines(bad)),
        "unchanged": sum(not edited(row) for row in rows),
        "masked": dict(stored.masked),
        "rows_masked": stored.rows_masked,
        "sampled_ids_dropped": stored.ids_dropped,
        "own_weights_dropped": stored.weights_dropped,
        "user_field": user,
        "time_field": time,
        "times": times and times.as_dict(),
        "normalized": normalizer.as_dict(),
        "mechanical": mechanical.result().as_dict(),
        "fields_left_out": sorted({name for row in rows for name in row.extra} - {user, time}),
    }
    write_json(path, counts)


def _fields(run: Run, rows: Sequence[Correction], asked: str | None, usual: Sequence[str], what: str) -> list[str]:
    """The fields that may say who or when, the first of them the best; one at most where one is asked for.

    Raises:
        ValueError: the one asked for is in no row.
    """
    there = list({name: None for row in rows for name in row.extra})
    if asked == "none":
        return []
    if asked is None:
        return matching_fields(there, usual)
    found = [asked] if asked in there else matching_fields(there, [asked])
    if not found:
        raise ValueError(f"--{what}-field {asked}: no row has it; the further fields are {', '.join(there) or 'none'}")
    return found[:1]


def _time_column(run: Run, rows: Sequence[Correction]) -> tuple[str | None, Times | None]:
    """The first field that says when and can be read, and its times; both None where no field is named like one.

    Raises:
        ValueError: no such field can be read in one format, or none has a value; says what to type.
    """
    names = _fields(run, rows, run.details.time_field, TIME_FIELDS, "time")
    ids, refused = [row.id for row in rows], dict[str, str]()
    for name in names:
        values = [row.extra.get(name) for row in rows]
        try:
            times = read_times(values, rows=ids, form=run.details.time_format, what=f"field {name!r}")
            if not times.read:
                raise ValueError(f"field {name!r} has a time in no row; name another with --time-field, or none")
        except ValueError as error:
            refused[name] = str(error)
            continue
        run.say(f"{name!r}: {times}")
        for other in (other for other in names if other != name):
            passed_over = f" (it was passed over: {refused[other]})" if other in refused else ""
            run.say(f"{other!r} may say when, too; --time-field {other!r} takes it{passed_over}")
        return name, times
    if refused:
        raise ValueError(next(iter(refused.values())))
    if run.details.time_format is not None:
        raise ValueError(
            f"--time-format {run.details.time_format} has no field to read; name it with --time-field, or leave "
            "--time-format out"
        )
    return None, None


@dataclass(slots=True)
class _Stored:
    """Makes of a row of the log the row that is stored."""

    mask: bool
    user_field: str | None
    seconds: Mapping[str, float | None]
    """When each row was sent, by its id."""
    masked: Counter[str] = field(default_factory=Counter)
    rows_masked: int = 0
    ids_dropped: int = 0
    weights_dropped: int = 0
    """Sides whose own weights stood on a text that was masked; the edit's rule weighs them."""
    ids_masked: int = 0
    users: dict[str, str] = field(default_factory=dict)

    def __call__(self, row: Correction) -> Correction:
        extra: dict[str, Any] = {}
        user = row.extra.get(self.user_field) if self.user_field else None
        if user not in (None, ""):
            # A name is private, too; that two rows have the same one is all that is needed.
            extra["user"] = self.users.setdefault(str(user), f"user-{len(self.users) + 1}") if self.mask else str(user)
        if (seconds := self.seconds.get(row.id)) is not None:
            extra["time"] = seconds
        stored = replace(row, extra=extra)
        if self.mask:
            stored, counts = mask_correction(stored)
            self.masked.update(counts)
            self.rows_masked += bool(counts)
            self.ids_dropped += row.original_ids is not None and stored.original_ids is None
            self.weights_dropped += row.original_weights is not None and stored.original_weights is None
            self.weights_dropped += row.edited_weights is not None and stored.edited_weights is None
            if Masker()(row.id) != row.id:
                self.ids_masked += 1
                stored = replace(stored, id=f"masked-id-{self.ids_masked}")
        return stored
