"""Which rows are trained on and which judge: no user and no prompt is on both sides, and time runs forward."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from errata.types import Correction, Prompt

__all__ = ["USER_FIELDS", "Split", "SplitBy", "prompt_key", "split_rows"]

USER_FIELDS = ("user", "annotator", "author", "user id", "user name", "sent by", "edited by", "sender")
"""Names of the field that says who sent it, in the order in which they are looked for; case, spaces, ``_`` and ``-`` do
not count."""

SplitBy = Literal["auto", "users-and-time", "users", "time", "prompt"]

MOST_LOST = 0.15
"""``auto`` takes no rule that loses more of the rows than this, if a less strict one does not."""
_MOST_TRIED = 64  # numbers of held-out users
_SHARED_PROMPT = "their prompt is held out, too"


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Two sides of a log, and what became of the rest."""

    train: tuple[Correction, ...]
    heldout: tuple[Correction, ...]
    left_out: Mapping[str, int]
    """Rows on neither side, by the reason in words."""
    by: SplitBy
    rule: str
    """How it was done, in a sentence."""
    fallback: str
    """Why ``auto`` did not split by users and time, and what that gives up, in words; else empty."""
    train_users: int | None
    heldout_users: int | None
    cut: float | None
    """The time, in seconds since 1970, from which on rows are held out."""


def split_rows(
    rows: Sequence[Correction],
    *,
    share: float,
    users: Sequence[str | None] | None = None,
    times: Sequence[float | None] | None = None,
    by: SplitBy = "auto",
    fewest_users: int = 1,
) -> Split:
    """Split a log; the same rows are always split alike.

    - ``users-and-time``: users are ordered by the mean time of their rows. The k who came last are held out, and a cut
      in time is set: their rows from the cut on are held out, everybody else's before it are trained on, and what lies
      on the wrong side of the cut is left out. Of all k and cuts those are taken that make both sides, in the
      proportion of ``share``, as large as possible.
    - ``users``: users, in the order of a hash, are held out as long as their rows fit into the share.
    - ``time``: the newest rows are held out.
    - ``prompt``: prompts, in the order of a hash, are held out as long as their rows fit into the share.
    - ``auto``: the strictest of users-and-time, users, time and prompt that loses at most ``MOST_LOST`` of the rows
      and, by users, holds out ``fewest_users``.

    In every mode a row to train on is left out whose prompt (but for case and white space) is held out, too.

    Args:
        rows: with ids that differ.
        share: of the rows used, how many are held out.
        users: who sent each row; a row whose user is None is left out. None: nobody knows.
        times: when, in seconds; likewise.
        by: the rule.
        fewest_users: so many users have to be held out where ``auto`` splits by them: fewer could prove nothing.

    Raises:
        ValueError: the log has not what the rule needs, or a side is empty (says what to do).
    """
    if not 0 < share < 1:
        raise ValueError(f"the held-out share is {share}; give a number between 0 and 1, such as 0.2")
    if by == "auto":
        return _strictest(rows, share, users, times, fewest_users)
    if "users" in by and users is None:
        raise ValueError(f"the log names no user, and it is to be split by {by}; name the field with --user-field")
    if "time" in by and times is None:
        raise ValueError(f"the log has no times, and it is to be split by {by}; name the field with --time-field")
    keys = [prompt_key(row.prompt) for row in rows]
    who = list(users) if users is not None and "users" in by else keys
    when = list(times) if times is not None and "time" in by else [0.0] * len(rows)
    usable = [k for k in range(len(rows)) if who[k] is not None and when[k] is not None]
    if not usable:
        raise ValueError(_why_empty(by, len(rows), 0, 0, 0))
    left_out: Counter[str] = Counter()
    left_out["the log does not say who sent them" if "users" in by else ""] = sum(each is None for each in who)
    left_out["the log does not say when"] = sum(w is not None and t is None for w, t in zip(who, when, strict=True))
    groups, at = [who[k] for k in usable], np.array([when[k] for k in usable], np.float64)
    cut = None
    if by == "users-and-time":
        late, cut = _last_users(groups, at, share)
        held, trained = late & (at >= cut), ~late & (at < cut)
        left_out["sent by held-out users before the cut in time"] = int((late & ~held).sum())
        left_out["sent by other users after it"] = int((~late & ~trained).sum())
    elif by == "time":
        cut = _newest(at, share)
        held = at >= cut
        trained = ~held
    else:
        held = _fitting_groups(groups, share)
        trained = ~held
    heldout = [usable[k] for k in np.flatnonzero(held)]
    heldout_keys = {keys[k] for k in heldout}
    before = [usable[k] for k in np.flatnonzero(trained)]
    train = [k for k in before if keys[k] not in heldout_keys]
    left_out[_SHARED_PROMPT] = len(before) - len(train)
    if not train or not heldout:
        raise ValueError(_why_empty(by, len(rows), len(usable), len(set(groups)), len(before)))
    count = (lambda side: len({users[k] for k in side})) if users is not None else lambda side: None
    return Split(
        train=tuple(rows[k] for k in train),
        heldout=tuple(rows[k] for k in heldout),
        left_out={reason: number for reason, number in left_out.items() if number},
        by=by,
        rule=_RULES[by],
        fallback="",
        train_users=count(train),
        heldout_users=count(heldout),
        cut=cut,
    )


def _strictest(
    rows: Sequence[Correction],
    share: float,
    users: Sequence[str | None] | None,
    times: Sequence[float | None] | None,
    fewest_users: int,
) -> Split:
    """The first rule by which enough rows are left; of the others, why not."""
    short = {"users": _short_of("user", users), "time": _short_of("time", times)}
    why = list(filter(None, short.values()))
    for by in _STRICTEST_FIRST:
        if any(short.get(need) for need in by.split("-and-")):
            continue
        name = by.replace("-", " ")
        try:
            found = split_rows(rows, share=share, users=users, times=times, by=by)
        except ValueError:
            if by == _STRICTEST_FIRST[-1]:
                raise
            why.append(f"by {name} one side would be empty")
            continue
        lost = sum(found.left_out.values())
        if by != _STRICTEST_FIRST[-1] and lost > MOST_LOST * len(rows):
            of = f"{lost:,} of {len(rows):,} rows ({100 * lost / len(rows):.0f} %)"
            why.append(f"by {name} {of} would be lost, and at most {100 * MOST_LOST:.0f} % may be")
        elif "users" in by and (found.heldout_users or 0) < fewest_users:
            why.append(f"by {name} only {found.heldout_users} users would be held out, and {fewest_users} are needed")
        else:
            gives_up = _GIVES_UP[by]
            return replace(found, fallback=f"{'; '.join(why)}; {gives_up}" if gives_up else "")
    raise AssertionError  # the last rule returns or raises


_STRICTEST_FIRST: Sequence[SplitBy] = ("users-and-time", "users", "time", "prompt")
_GIVES_UP: Mapping[str, str] = {
    "users-and-time": "",
    "users": "so nothing shows whether the gain lasts over time",
    "time": "so nothing shows whether users gain whose texts were not trained on",
    "prompt": "so nothing shows whether other users gain, or whether it lasts over time",
}
_RULES: Mapping[str, str] = {
    "users-and-time": "The users who came last are held out with their rows from a cut in time on; rows of all others "
    "from before it are trained on. No user and no prompt is on both sides.",
    "users": "Whole users, chosen by a hash of their name, are held out. No user and no prompt is on both sides.",
    "time": "The newest rows are held out. No prompt is on both sides; a user may be.",
    "prompt": "Prompts, chosen by a hash, are held out with all their rows. No prompt is on both sides; a user may be.",
}


def _short_of(what: str, values: Sequence[str | float | None] | None) -> str:
    """Why nothing can be split by these users or times; empty if it can."""
    if values is None:
        return f"no field of the log says {'who sent a row' if what == 'user' else 'when'}"
    different = set(values) - {None}
    if len(different) > 1:
        return ""
    return f"all rows that name a {what} name the same one" if different else f"no row names a {what}"


def prompt_key(prompt: Prompt) -> str:
    r"""What two prompts share that are one but for case, white space and compatible characters.

    >>> prompt_key(" Write to\nANNA") == prompt_key("write to Anna ")
    True
    """
    text = prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _hash(value: object) -> str:
    return hashlib.sha256(str(value).encode("utf-8", "surrogatepass")).hexdigest()


def _last_users(users: Sequence[Hashable], at: NDArray[np.float64], share: float) -> tuple[NDArray[np.bool_], float]:
    """The mask of the rows of held-out users, and the cut in time."""
    distinct, of = np.unique(np.array([str(user) for user in users]), return_inverse=True)
    mean = np.bincount(of, weights=at) / np.bincount(of)
    order = sorted(range(len(distinct)), key=lambda k: (-mean[k], _hash(distinct[k])))
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    cuts = np.unique(at)
    best, late, cut = 0.0, np.zeros(len(at), bool), float(cuts[0])
    for number in np.unique(np.linspace(1, len(distinct) - 1, _MOST_TRIED).astype(int)) if len(distinct) > 1 else ():
        chosen = rank[of] < number
        heldout = chosen.sum() - np.searchsorted(np.sort(at[chosen]), cuts)
        trained = np.searchsorted(np.sort(at[~chosen]), cuts)
        # The size of the largest split in the right proportion that these rows hold.
        size = np.minimum(heldout / share, trained / (1 - share))
        place = int(size.argmax())
        if size[place] > best:
            best, late, cut = float(size[place]), chosen, float(cuts[place])
    return late, cut


def _newest(at: NDArray[np.float64], share: float) -> float:
    # Rows of one moment stay together.
    return float(np.sort(at)[-max(1, round(share * len(at)))])


def _fitting_groups(groups: Sequence[Hashable], share: float) -> NDArray[np.bool_]:
    """The mask of whole groups, in the order of a hash, that fit into the share; the smallest one if none does."""
    sizes, room, chosen = Counter(groups), share * len(groups), set[Hashable]()
    for group in sorted(sizes, key=_hash):
        if sizes[group] <= room:
            chosen.add(group)
            room -= sizes[group]
    if not chosen and sizes:
        chosen.add(min(sizes, key=lambda group: (sizes[group], _hash(group))))
    return np.array([group in chosen for group in groups], bool)


def _why_empty(by: SplitBy, rows: int, usable: int, groups: int, before: int) -> str:
    said = f"{rows} rows cannot be split by {by}: "
    if not usable:
        needed = {"users-and-time": "both a user and a time", "users": "a user", "time": "a time"}.get(by, "a prompt")
        flags = [flag for what, flag in (("users", "--user-field"), ("time", "--time-field")) if what in by]
        return (
            f"{said}no row has what is needed, {needed}; name the field that has it with {' and '.join(flags)}, or "
            "give another --split-by"
        )
    if before:
        return (
            f"{said}every row to train on has a prompt that is held out, too; give each row the prompt that its draft "
            "was really written for, with all that the model was given"
        )
    if by == "time":
        return f"{said}they all have one time; give --split-by users or prompt"
    if groups < 2:
        if "users" in by:
            return f"{said}they all have one user; give --split-by time or prompt"
        return (
            f"{said}they all have one prompt; give more rows with other prompts, name the field that holds the prompts "
            "with --columns prompt=FIELD, or give --split-by users or time, where the log says who sent a row or when"
        )
    return f"{said}no cut in time leaves rows on both sides; give --split-by users or time"
