"""The second stage: which rows are trained on, which choose, and which judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from errata.data import read_corrections, write_rows
from errata.edits import word_distance
from errata.runs import new_folder, write_json
from errata.types import Correction
from errata.winrate import FEWEST, smallest_shown
from errata.workflows.learning.context import Run, edited, first_by_lot
from errata.workflows.measure import WORD
from errata.workflows.split import Split, SplitBy, split_rows


def split(run: Run, path: Path) -> None:
    """Rows to train on, to choose by, and to judge by; accepted drafts apart."""
    rows, counts = read_corrections(run.out / "log" / "rows.jsonl", empty_texts="keep"), run.counts("log")
    if rows and not any(map(edited, rows)):
        raise ValueError(
            f"all {len(rows):,} drafts of {run.log} were sent unchanged, so nothing says what people want otherwise; "
            "wait until some were edited, or look whether the column of sent texts is the right one (--columns)"
        )
    outer = _split_rows(run, rows, counts, run.config.heldout_share, run.details.split_by)
    train, selection = list(outer.train), list[Correction]()
    inner: Split | None = None
    inner = _inner_split(run, train, counts)
    if inner is not None:
        train, selection = list(inner.train), list(inner.heldout)
    left_out: Counter[str] = Counter()
    sides = {
        "train": [row for row in train if edited(row)],
        "train_accepted": [row for row in train if not edited(row)],
        "selection": _drafted(run, [row for row in selection if edited(row)], left_out),
        "heldout": _drafted(run, [row for row in outer.heldout if edited(row)], left_out),
        "heldout_accepted": _drafted(run, [row for row in outer.heldout if not edited(row)], left_out),
    }
    run.say(f"split by {outer.by}: {outer.rule}")
    if outer.fallback:
        run.say(f"not by users and time: {outer.fallback}")
    if inner is None:
        run.say(
            f"fewer than {_fewest_to_choose(run)} edited rows would be left to choose the checkpoint by "
            "(--selection-share): they are trained on, and the last state of one method is judged"
        )
    else:
        run.say(f"the rows that choose the checkpoint and the method are split off by {inner.by}")
    _check_sizes(run, sides, outer, left_out)
    with new_folder(path) as folder:
        for name, part in sides.items():
            write_rows(folder / f"{name}.jsonl", part)
        card = {
            **{name: len(part) for name, part in sides.items()},
            "rule": outer.rule,
            "by": outer.by,
            "fallback": outer.fallback,
            "selection_rule": inner and inner.rule,
            "selection_left_out": dict(inner.left_out) if inner else {},
            "left_out": dict(outer.left_out),
            "not_drafted": dict(left_out),
            "train_users": outer.train_users,
            "heldout_users": outer.heldout_users,
            "cut": outer.cut,
        }
        write_json(folder / "counts.json", card)


def _split_rows(run: Run, rows: Sequence[Correction], counts: Mapping[str, Any], share: float, by: SplitBy) -> Split:
    """``split_rows`` of this log."""
    users = [row.extra.get("user") for row in rows] if counts["user_field"] else None
    times = [row.extra.get("time") for row in rows] if counts["time_field"] else None
    fewest = FEWEST if run.details.judge_by != "rows" else 1
    return split_rows(rows, share=share, users=users, times=times, by=by, fewest_users=fewest)


def _inner_split(run: Run, train: Sequence[Correction], counts: Mapping[str, Any]) -> Split | None:
    """The rows that choose the checkpoint and the method, by the first rule that leaves enough; None if none does.

    Whole users where that is possible; a cut in time besides would cost too much.
    """
    rules: list[SplitBy] = ["prompt"]
    rules[:0] = ["time"] if counts["time_field"] else []
    rules[:0] = ["users"] if counts["user_field"] else []
    for by in rules:
        try:
            found = _split_rows(run, train, counts, run.details.selection_share, by)
        except ValueError:  # one user, one time, one prompt
            continue
        if sum(map(edited, found.heldout)) >= _fewest_to_choose(run):
            return found
    return None


def _fewest_to_choose(run: Run) -> int:
    """Edited rows without which no choice is made."""
    return min(run.details.min_rows, 10)


def _drafted(run: Run, rows: Sequence[Correction], left_out: Counter[str]) -> list[Correction]:
    """The rows for which a draft can and shall be written. Raises ValueError where no prompt can be encoded at all."""
    positions = run.encoder.max_length
    fitting, refused = [], list[ValueError]()
    for row in rows:
        try:
            length = len(run.encoder.prompt_ids(row.prompt))
        except ValueError as error:
            refused.append(error)
            continue
        fitting += [row] if positions is None or length + run.config.max_new_tokens <= positions else []
    if rows and len(refused) == len(rows):
        raise ValueError(f"no prompt can be given to --model: {refused[0]}")
    kept = first_by_lot(fitting, run.details.heldout_rows)
    left_out["the prompt is too long for --model, or cannot be encoded"] += len(refused)
    left_out["the prompt leaves no room for --max-new-tokens"] += len(rows) - len(fitting) - len(refused)
    left_out["more than --heldout-rows"] += len(fitting) - len(kept)
    for reason in [reason for reason, count in left_out.items() if not count]:
        del left_out[reason]
    return kept


def _check_sizes(
    run: Run, sides: Mapping[str, Sequence[Correction]], outer: Split, not_drafted: Mapping[str, int]
) -> None:
    """Raise ValueError where too little is left to learn from or to judge by."""
    fewest = run.details.min_rows
    reasons = [*outer.left_out.items(), *not_drafted.items()]
    left_out = "; ".join(f"{count} left out: {reason}" for reason, count in reasons)
    what = f"{left_out}. {outer.rule}" if left_out else outer.rule
    for name, verb, flag in (
        ("train", "are left to train on", "lower --heldout-share"),
        ("heldout", "are held out", "raise --heldout-share"),
    ):
        count = len(sides[name])
        if count < fewest:
            raise ValueError(
                f"{count} edited rows {verb}, and {fewest} are needed ({what}){_detectable(run, sides, name)}; "
                f"add rows, {flag}, or give --split-by users, time or prompt"
            )

    users = run.users(sides["heldout"]) if run.by_users(outer.by) else None
    if users is not None and len(set(users) - {None}) > 1 and len(_independent(users)) < FEWEST:
        raise ValueError(
            f"the held-out rows are of {len(_independent(users))} users, and {FEWEST} are needed: fewer cannot "
            "prove anything of other users; raise --heldout-share, give --split-by time or prompt, or --judge-by "
            "rows, which says nothing of other users"
        )


def _detectable(run: Run, sides: Mapping[str, Sequence[Correction]], name: str) -> str:
    """What so few rows could show, guessed from how much the edit costs of the log vary."""
    costs = [word_distance(row.original, row.edited) for part in ("train", name) for row in sides[part]]
    count = len(sides[name])
    if name != "heldout" or count < 2 or len(costs) < 2:
        return ""
    size = smallest_shown(costs, least=WORD, count=count)
    what = "no difference" if size is None else f"only a difference of about {size:.1f} words a draft"
    return f"; with {count} rows {what} can be told from noise"


def _independent(users: Sequence[str | None]) -> list[object]:
    """One for each user, and one for each row whose user is not known."""
    return [*{user for user in users if user is not None}, *(None for user in users if user is None)]
