"""What a model writes and thinks on held-out rows: edit cost, length, repetition, log-probabilities, forgetting."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from errata.data import Encoder
from errata.edits import word_distance
from errata.edits.word_spans import split_words
from errata.models import Sampling, TransformersGenerator, check_ids, check_scores, pad, to_lists, token_logprobs
from errata.types import Correction, Encoded, Label, PromptRow, Rollout, TokenLabels
from errata.winrate import Interval, by_user, mean_interval, smallest_shown

__all__ = [
    "Comparison",
    "DraftFigures",
    "TokenLogprobs",
    "compare",
    "describe",
    "edit_costs",
    "repetition",
    "text_loss",
    "token_logprobs_by_label",
    "told_apart",
    "write_drafts",
]


Told = Callable[[int, int], object]
WORD = 1.0
"""The unit of an edit cost."""
_READ = 1 << 16  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftFigures:
    """What the drafts of one model are like, as means over rows."""

    rows: int
    edit_cost: Interval
    """Words to change until the draft is what was sent."""
    length: float
    """Tokens, the end included."""
    ended: float
    """Share of the drafts that end before the limit."""
    repetition: float
    """See ``repetition``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The drafts of two models to the same prompts, decoded alike."""

    rows: int
    users: int | None
    """How many users sent the rows, each of whom counts once in ``difference``; None where every row counts."""
    difference: Interval
    """New minus old edit cost, paired by row, in words: below 0 the new model leaves less to correct. With users the
    mean over users of their mean, with its interval over users (``mean_interval``)."""
    by_row: float
    """The same mean with every row counted once."""
    wins: float
    """Share of the rows on which the new draft has fewer words to change."""
    ties: float
    losses: float
    detectable: float | None
    """The smallest difference that so many rows or users would show in 80 of 100 cases, in words; None where they
    would show none."""
    by_user: float | None = None
    """The same mean with every user counted once; None where users are not told apart."""

    @property
    def fewer(self) -> bool:
        """Whether there is less to change for certain, and on average whichever way one counts, by rows or by users."""
        return self.difference.high < 0 and self.by_row < 0 and (self.by_user is None or self.by_user < 0)

    @property
    def independent(self) -> int:
        """How many differences decide: users, or rows where users are not told apart."""
        return self.rows if self.users is None else self.users


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprobs:
    """Mean log-probability of a token in nats, by what the edit says of it; None where there is no such token."""

    good: float | None
    """Inserted and substitute tokens of what was sent."""
    bad: float | None
    """Deleted and substituted tokens of the logged draft."""
    kept: float | None
    """Kept tokens of what was sent, its end included."""


def write_drafts(
    model: Any,
    rows: Sequence[Correction],
    encoder: Encoder,
    sampling: Sampling,
    *,
    batch_size: int,
    what: str = "",
    told: Told | None = None,
) -> list[Rollout]:
    """One answer of the model to each prompt. Equal rows and seeds draw with equal chance, whatever the model.

    Args:
        model: a causal language model.
        rows: whose prompts to answer.
        encoder: text to ids.
        sampling: how.
        batch_size: prompts that are answered together.
        what: is shown beside the progress bar.
        told: is told how much is done, and of how much.
    """
    generator = TransformersGenerator(model, encoder, batch_size)
    found: list[Rollout] = []
    # Prompts of about the same length are asked together: less padding.
    order = sorted(range(len(rows)), key=lambda k: len(encoder.prompt_ids(rows[k].prompt)))
    with tqdm(total=len(rows), desc=what, unit=" drafts", leave=False, delay=2, disable=None) as bar:
        for start in range(0, len(rows), batch_size):
            part = [rows[k] for k in order[start : start + batch_size]]
            asked = [PromptRow(id=row.id, prompt=row.prompt) for row in part]
            # Another seed for each batch, or all would draw alike.
            seed = (sampling.seed + 1_000_003 * start) % 2**31
            drawn = generator(
                asked,
                Sampling(max_new_tokens=sampling.max_new_tokens, temperature=sampling.temperature, seed=seed),
            )
            found += drawn
            bar.update(len(drawn))
            if told is not None:
                told(len(found), len(rows))
    return [draft for _, draft in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]


def edit_costs(answers: Sequence[Rollout], sent: Mapping[str, str]) -> list[int]:
    """``word_distance`` from each answer to what was sent for its id."""
    return [word_distance(answer.text, sent[answer.id]) for answer in answers]


def describe(answers: Sequence[Rollout], sent: Mapping[str, str]) -> DraftFigures:
    """What drafts are like, two or more of them; the interval is over rows."""
    return DraftFigures(
        rows=len(answers),
        edit_cost=mean_interval(edit_costs(answers, sent), least=WORD),
        length=float(np.mean([len(answer.response_ids) for answer in answers])),
        ended=float(np.mean([answer.ended for answer in answers])),
        repetition=float(np.mean([repetition(answer.text) for answer in answers])),
    )


def repetition(text: str, *, size: int = 4) -> float:
    """The share of a text's runs of ``size`` words that stood in it before; 0 for a text that is too short for two.

    >>> repetition("so it goes on so it goes on so it goes")
    0.5
    """
    words = split_words(text)
    runs = [tuple(words[k : k + size]) for k in range(len(words) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def compare(
    new: Sequence[float],
    old: Sequence[float],
    *,
    users: Sequence[Hashable | None] | None = None,
    count_users: bool = True,
    stake: float = 0.0,
) -> Comparison:
    """Edit costs of two models on the same rows in the same order, two or more of them.

    Rows of one user resemble each other, so of users in general only users are independent samples: each counts once,
    and a row whose user is None counts as one. Of these very users each row is a sample. A single user is as good as
    none: then every row counts, and nothing is said of other users.

    Args:
        new: one cost a row, in words.
        old: likewise.
        users: who sent each row; None: nobody knows.
        count_users: whether users count once; if not, every row counts, and the mean over users is given beside it.
        stake: how many words a row, or a user, could lose, though none may have (``upper_limit``).

    Raises:
        ValueError: fewer than two rows, or not one user a row.
    """
    difference = np.asarray(new, np.float64) - np.asarray(old, np.float64)
    told = told_apart(users)
    of_users = None if told is None else by_user(difference, told)
    values = of_users if of_users is not None and count_users else difference
    return Comparison(
        rows=len(difference),
        users=None if values is difference else len(values),
        difference=mean_interval(values, about=0.0, least=WORD, stake=stake),
        by_row=float(difference.mean()),
        by_user=None if of_users is None else float(of_users.mean()),
        wins=float((difference < 0).mean()),
        ties=float((difference == 0).mean()),
        losses=float((difference > 0).mean()),
        detectable=smallest_shown(values, least=WORD, stake=stake),
    )


def told_apart(users: Sequence[Hashable | None] | None) -> Sequence[Hashable | None] | None:
    """The users, where there are two of them or more; else None, and rows count."""
    return users if users is not None and len({user for user in users if user is not None}) > 1 else None


@torch.no_grad()
def token_logprobs_by_label(
    model: Any,
    labels: Sequence[TokenLabels],
    encoder: Encoder,
    *,
    batch_size: int,
    what: str = "",
    told: Told | None = None,
) -> TokenLogprobs:
    """The mean log-probability of good, bad and kept tokens, over all tokens of all rows."""
    sums: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    sides = [(row.edited, _EDITED) for row in labels] + [(row.original, _ORIGINAL) for row in labels]
    with tqdm(total=len(sides), desc=what, unit=" texts", leave=False, delay=2, disable=None) as bar:
        for start in range(0, len(sides), batch_size):
            part = sides[start : start + batch_size]
            for (side, names), values in zip(
                part, _scored(model, [side.encoded for side, _ in part], encoder), strict=True
            ):
                for label, value in zip(side.labels, values, strict=True):
                    if (name := names.get(label)) is not None:
                        sums[name] += value
                        counts[name] += 1
            bar.update(len(part))
            if told is not None:
                told(min(start + batch_size, len(sides)), len(sides))
    return TokenLogprobs(
        **{name: sums[name] / counts[name] if counts[name] else None for name in ("good", "bad", "kept")}
    )


_EDITED: Mapping[int, str] = {Label.INSERTED: "good", Label.SUBSTITUTED: "good", Label.KEPT: "kept"}
_ORIGINAL: Mapping[int, str] = {Label.DELETED: "bad", Label.SUBSTITUTED: "bad"}


@torch.no_grad()
def text_loss(
    model: Any,
    path: Path,
    encoder: Encoder,
    *,
    window: int = 512,
    max_tokens: int = 100_000,
    batch_size: int = 8,
    what: str = "",
    told: Told | None = None,
) -> tuple[float, int]:
    """The mean loss of a token on a plain text file, in nats, and how many tokens that is.

    The text is read piece by piece and cut into windows, each of which starts anew; the first token of a window is
    given, not predicted. Memory does not grow with the file.

    Args:
        model: a causal language model.
        path: UTF-8 text.
        encoder: whose tokenizer to use.
        window: tokens.
        max_tokens: so much of the beginning of the file is enough.
        batch_size: windows in one forward pass.
        what: is shown beside the progress bar.
        told: is told how much is done, and of how much.

    Raises:
        ValueError: no UTF-8, or less than two tokens.
    """
    total, count = 0.0, 0
    with tqdm(total=max_tokens, desc=what, unit=" tokens", leave=False, delay=2, disable=None) as bar:
        windows = _windows(path, encoder, window)
        while count < max_tokens and (part := list(islice(windows, batch_size))):
            for values in _scored(model, part, encoder):
                total -= sum(values)
                count += len(values)
            bar.update(count - bar.n)
            if told is not None:
                told(count, max(count, max_tokens))
    if not count:
        raise ValueError(f"{path} holds no text to measure the loss on; give some pages of general text")
    return total / count, count


def _windows(path: Path, encoder: Encoder, window: int) -> Iterator[Encoded]:
    ids: list[int] = []
    for text in _pieces(path):
        ids += encoder.text_ids(text)
        while len(ids) >= window:
            yield Encoded(tuple(ids[:window]), 1, (), ended=False)
            ids = ids[window:]
    if len(ids) > 1:
        yield Encoded(tuple(ids), 1, (), ended=False)


def _pieces(path: Path) -> Iterator[str]:
    """The text in pieces that end where a line does, or a word, or anywhere if neither comes for long."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            rest = ""
            while more := file.read(_READ):
                rest += more
                end = rest.rfind("\n") + 1 or rest.rfind(" ")
                if end <= 0:
                    end = len(rest)
                yield rest[:end]
                rest = rest[end:]
            if rest:
                yield rest
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _scored(model: Any, rows: Sequence[Encoded], encoder: Encoder) -> list[list[float]]:
    """The log-probability of each response token of each row."""
    device = next(model.parameters()).device
    model.eval()
    batch = pad(rows, pad_id=encoder.pad_id).to(device)
    check_ids(model, ((f"{number} of a batch", row) for number, row in enumerate(rows, start=1)))
    found = to_lists(token_logprobs(model, batch), batch)
    check_scores(found, model, "log-probability")
    return found
