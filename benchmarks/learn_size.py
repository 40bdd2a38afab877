"""How often does `errata learn` promote a model that is no better, and how often one that is? By simulation.

Three tests of "the mean difference is below 0", one-sided at 2.5 %: the interval that decides (`mean_interval`),
Student's t, and the percentile bootstrap, which decided before. Differences whose true mean is 0 are drawn again and
again; a test keeps its word if it finds a fall in 2.5 of 100 samples or fewer. Then edit points, which decide without
an editor, with what is at stake at them and without. Prints the tables of docs/learn.md.

    python benchmarks/learn_size.py --samples 10000
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.special import stdtrit

from errata.winrate import upper_limit

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How often each test is wrong, and how often it is right."""

    samples: int = 10_000
    """Of each cell: at 10,000 a rate of 2.5 % has a standard error of 0.16 points."""
    rows: tuple[int, ...] = (20, 50, 100, 200, 500)
    users: tuple[int, ...] = (3, 6, 12, 20, 50)
    resamples: int = 1000
    """Of the bootstrap."""
    seed: int = 0


def log_normal(sigma: float) -> Draw:
    """Losses with a long tail, gains without one; mean 0, variance 1."""
    mean, deviation = math.exp(sigma**2 / 2), math.sqrt((math.exp(sigma**2) - 1) * math.exp(sigma**2))
    return lambda rng, shape: (rng.lognormal(0, sigma, shape) - mean) / deviation


def tied(share: float, draw: Draw) -> Draw:
    return lambda rng, shape: np.where(rng.random(shape) < share, 0.0, draw(rng, shape))


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.normal(size=shape)


def outliers(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.normal(size=shape) * np.where(rng.random(shape) < 0.05, 10, 1)


def losses(share: float) -> Draw:
    """A few large losses, balanced by a small gain of all others."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        large = 0.5 / share
        return rng.normal(size=shape) + large * (rng.random(shape) < share) - 0.5

    return draw


NULLS: Mapping[str, Draw] = {
    "normal": normal,
    "log-normal, σ = 1": log_normal(1.0),
    "log-normal, σ = 1.5": log_normal(1.5),
    "log-normal, σ = 1.75": log_normal(1.75),
    "log-normal, σ = 2": log_normal(2.0),
    "−log-normal, σ = 1.5": lambda rng, shape: -log_normal(1.5)(rng, shape),
    "60 % ties, else normal": tied(0.6, normal),
    "90 % ties, else normal": tied(0.9, normal),
    "80 % ties, else log-normal, σ = 1": tied(0.8, log_normal(1.0)),
    "5 % outliers, σ = 10, both ways": outliers,
    "10 % losses of 5": losses(0.1),
    "5 % losses of 10": losses(0.05),
}


def ours(x: Floats) -> float:
    return float((upper_limit(x) < 0).mean())


def students_t(x: Floats) -> float:
    count = x.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):  # all ties
        t = x.mean(axis=1) / x.std(axis=1, ddof=1) * math.sqrt(count)
    return float((t < stdtrit(count - 1, 0.025)).mean())


def bootstrap(x: Floats, rng: np.random.Generator, resamples: int) -> float:
    """The upper end of the percentile bootstrap below 0; all samples share the resampling."""
    count = x.shape[1]
    weights = rng.multinomial(count, np.full(count, 1 / count), resamples).T / count
    ends = [np.quantile(part @ weights, 0.975, axis=1) for part in np.array_split(x, max(1, len(x) // 500))]
    return float((np.concatenate(ends) < 0).mean())


def in_three(x: Floats, settings: Settings, rng: np.random.Generator) -> str:
    rates = (ours(x), students_t(x), bootstrap(x[:4000], rng, settings.resamples))
    return " / ".join(f"{100 * rate:.1f}" for rate in rates)


def size_table(settings: Settings) -> Iterator[str]:
    yield "| true mean 0, rows | " + " | ".join(map(str, settings.rows)) + " |"
    yield "|---|" + "---:|" * len(settings.rows)
    rng = np.random.default_rng(settings.seed)
    for name, draw in NULLS.items():
        cells = [in_three(draw(rng, (settings.samples, count)), settings, rng) for count in settings.rows]
        yield f"| {name} | " + " | ".join(cells) + " |"


def user_table(settings: Settings) -> Iterator[str]:
    """Means of users, as ``compare`` takes them, beside the same interval over rows."""
    yield "| 500 rows, true mean 0, users | " + " | ".join(map(str, settings.users)) + " |"
    yield "|---|" + "---:|" * len(settings.users)
    rng = np.random.default_rng(settings.seed + 1)
    for name in ("normal", "log-normal, σ = 1", "log-normal, σ = 1.5"):
        for shape in ("as many each", "one sent half"):
            for shared in (0.0, 0.2, 0.5):
                cells = [" / ".join(cell(settings, rng, NULLS[name], users, shape, shared)) for users in settings.users]
                yield f"| {name}, {shape}, correlation {shared} | " + " | ".join(cells) + " |"


def cell(
    settings: Settings, rng: np.random.Generator, draw: Draw, users: int, shape: str, shared: float
) -> tuple[str, str]:
    of = senders(500, users, shape)
    belongs = (of[:, None] == np.arange(users)).astype(np.float64)
    size = min(settings.samples, 1000)  # at once
    by_users, by_rows, parts = 0.0, 0.0, settings.samples // size
    for _ in range(parts):
        own, common = draw(rng, (size, 500)), draw(rng, (size, users))
        x = math.sqrt(1 - shared) * own + math.sqrt(shared) * common[:, of]
        by_users += ours(x @ belongs / belongs.sum(axis=0)) / parts
        by_rows += ours(x) / parts
    return f"{100 * by_users:.1f}", f"{100 * by_rows:.1f}"


Points = Callable[[np.random.Generator, tuple[int, int]], tuple[Floats, Floats]]
"""Of each row, words that the new model misses less what the old one does, and those that the old one has right."""
Words = Callable[[np.random.Generator, tuple[int, ...]], Floats]
Chance = Callable[[Floats], Floats]
"""Of an edit of so many words."""


def single(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return np.ones(shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """3 words in the mean, 1 in the median, one in fifty above 12."""
    return np.minimum(np.ceil(rng.lognormal(0.5, 1.0, shape)), 60.0)


def rewrites(share: float, size: int) -> Words:
    """One or two words, but for a share of edits that write a sentence anew."""
    return lambda rng, shape: np.where(rng.random(shape) < share, size, rng.integers(1, 3, shape)).astype(np.float64)


def at_points(
    words: Words, won: Chance, lost: Chance, *, further: float = 1.5, most: int = 8, null: bool = True
) -> Points:
    """Each row has one edit, and ``further`` more in the mean; of what is not won the old one has 3 in 10 right.

    Where ``null``, the chance to lose is scaled until the mean difference is 0.
    """
    drawn = words(np.random.default_rng(99), (400_000,))
    scale = float((won(drawn) * drawn).mean() / (lost(drawn) * drawn).mean()) if null else 1.0
    assert (won(drawn) + scale * lost(drawn)).max() <= 1, "more is won than can be lost"

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        there = np.arange(most) < 1 + np.minimum(rng.poisson(further, shape), most - 1)[..., None]
        size = words(rng, there.shape) * there
        luck, known = rng.random(there.shape), rng.random(there.shape) < 0.3
        wins, loses = luck < won(size), luck > 1 - scale * lost(size)
        difference = np.where(wins, -size, np.where(loses, size, 0.0))
        return difference.sum(axis=-1), np.where(loses | (known & ~wins), size, 0.0).sum(axis=-1)

    return draw


def always(chance: float) -> Chance:
    return lambda size: np.full(size.shape, chance)


def up_to(words: int, chance: float) -> Chance:
    return lambda size: chance * (size <= words)


def above(words: int) -> Chance:
    return lambda size: 1.0 * (size > words)


POINT_NULLS: Mapping[str, Points] = {
    "1 edit of 1 word a row, 9 of 10 alike": at_points(single, always(0.05), always(0.05), further=0, most=1),
    "1 to 8 edits of 1 word, half alike": at_points(single, always(0.25), always(0.25)),
    "edits of 3 words, skewed, 7 of 10 alike": at_points(skewed, always(0.15), always(0.15)),
    "the same, short ones won, those above 4 words lost": at_points(skewed, up_to(2, 0.3), above(4)),
    "the same, short ones won, those above 8 words lost": at_points(skewed, up_to(2, 0.2), above(8)),
    "1 edit a row, the same": at_points(skewed, up_to(2, 0.2), above(8), further=0, most=1),
    "1 or 2 words, 1 in 10 of 15 words, those lost": at_points(rewrites(0.1, 15), up_to(2, 0.3), above(4), further=0.5),
    "1 or 2 words, 1 in 33 of 20 words, those lost": at_points(
        rewrites(0.03, 20), up_to(2, 0.2), above(4), further=0.5
    ),
    "1 edit a row, the same ": at_points(rewrites(0.03, 20), up_to(2, 0.2), above(4), further=0, most=1),
    "1 edit a row, 1 in 100 of 20 words": at_points(rewrites(0.01, 20), up_to(2, 0.1), above(4), further=0, most=1),
    "1 edit a row, 1 in 200 of 40 words": at_points(rewrites(0.005, 40), up_to(2, 0.1), above(4), further=0, most=1),
}
POINT_GAINS: Mapping[str, Points] = {
    "edits of 1 word: 4 in 10 won, 1 in 20 lost": at_points(single, always(0.4), always(0.05), null=False),
    "edits of 3 words, skewed: 4 in 10 won, 1 in 20 lost": at_points(skewed, always(0.4), always(0.05), null=False),
    "edits of 3 words, skewed: 2 in 10 won, 1 in 20 lost": at_points(skewed, always(0.2), always(0.05), null=False),
}


def point_rates(draw: Points, rng: np.random.Generator, samples: int, count: int) -> tuple[float, float]:
    """How often a fall is found with what is at stake, and by the same interval without."""
    found = np.zeros(2)
    parts = max(1, samples * count // 200_000)
    for _ in range(parts):
        size = samples // parts
        x, right = draw(rng, (size, count))
        # Of the same log: rows that choose, and rows that are trained on, four times as many as judge.
        _, others = draw(rng, (size, 4 * count + max(count // 2, 10)))
        stake = np.maximum(right.max(axis=1), others.max(axis=1))
        limits = upper_limit(x, least=1.0, stake=stake), upper_limit(x, least=1.0)
        found += [(limit < 0).mean() / parts for limit in limits]
    return float(found[0]), float(found[1])


def point_table(settings: Settings) -> Iterator[str]:
    """Edit points: words a row that people changed and a model would not."""
    yield "| edit points, rows | " + " | ".join(map(str, settings.rows)) + " |"
    yield "|---|" + "---:|" * len(settings.rows)
    rng = np.random.default_rng(settings.seed + 3)
    for title, draws in (("true mean 0", POINT_NULLS), ("a true fall", POINT_GAINS)):
        yield f"| **{title}** |" + " |" * len(settings.rows)
        for name, draw in draws.items():
            rates = (point_rates(draw, rng, settings.samples, count) for count in settings.rows)
            cells = [" / ".join(f"{100 * rate:.1f}" for rate in pair) for pair in rates]
            yield f"| {name.strip()} | " + " | ".join(cells) + " |"


def point_user_table(settings: Settings) -> Iterator[str]:
    """The same by users, 20 rows of each, of whom each is better or worse off: chances of their own."""
    yield "| edit points, 20 rows of each, users | " + " | ".join(map(str, settings.users)) + " |"
    yield "|---|" + "---:|" * len(settings.users)
    rng = np.random.default_rng(settings.seed + 4)
    for name, words in (("edits of 1 word", single), ("edits of 3 words, skewed", skewed)):
        for spread in (0.0, 1.0, 2.0):
            cells = [
                f"{100 * user_rate(words, rng, settings.samples // 10, users, spread):.1f}" for users in settings.users
            ]
            yield f"| {name}, spread {spread:g} | " + " | ".join(cells) + " |"


def user_rate(words: Words, rng: np.random.Generator, samples: int, users: int, spread: float) -> float:
    """A user's chance to win an edit is 0.15·e^z, to lose one 0.15·e^−z, at most 0.45; z is normal with this spread."""
    rows, most = 20, 6
    there = np.arange(most) < 1 + np.minimum(rng.poisson(1.5, (samples, users, rows)), most - 1)[..., None]
    size = words(rng, there.shape) * there
    tilt = rng.normal(0, spread, (samples, users, 1, 1))
    luck = rng.random(there.shape)
    wins, loses = luck < np.minimum(0.15 * np.exp(tilt), 0.45), luck > 1 - np.minimum(0.15 * np.exp(-tilt), 0.45)
    x = np.where(wins, -size, np.where(loses, size, 0.0)).sum(axis=-1).mean(axis=-1)
    known = (rng.random(there.shape) < 0.3) & ~wins
    stake = np.where(loses | known, size, 0.0).sum(axis=-1).mean(axis=-1).max(axis=-1)
    return float((upper_limit(x, least=1.0, stake=stake) < 0).mean())


def over_editing_table(settings: Settings) -> Iterator[str]:
    """Words that were left alone and a model would write otherwise, less what the old one does; ties at 0."""
    yield "| words left alone, true mean 0, rows | " + " | ".join(map(str, settings.rows)) + " |"
    yield "|---|" + "---:|" * len(settings.rows)
    rng = np.random.default_rng(settings.seed + 5)
    for name, rate, spread in (
        ("1 word in 100, as often each way", 0.01, 0.0),
        ("1 word in 20, as often each way", 0.05, 0.0),
        ("1 word in 20, rows differ much", 0.05, 1.5),
    ):
        cells = []
        for count in settings.rows:
            shape = (settings.samples, count)
            kept = rng.integers(5, 60, shape)
            own = np.minimum(rate * np.exp(rng.normal(0, spread, shape) - spread**2 / 2), 0.9)
            x = (rng.binomial(kept, own) - rng.binomial(kept, own)).astype(np.float64)
            cells.append(f"{100 * float((upper_limit(x, least=1.0) < 0).mean()):.1f}")
        yield f"| {name} | " + " | ".join(cells) + " |"


def same_users_table(settings: Settings) -> Iterator[str]:
    """Rows of the users that were trained on, who are no sample: of what they share the mean over all rows is 0."""
    yield "| 8 users who are on both sides, true mean of theirs 0, rows | " + " | ".join(map(str, settings.rows)) + " |"
    yield "|---|" + "---:|" * len(settings.rows)
    rng = np.random.default_rng(settings.seed + 3)
    for name in ("normal", "log-normal, σ = 1", "log-normal, σ = 1.5", "60 % ties, else normal"):
        for shape in ("as many each", "one sent half"):
            for shared in (0.2, 0.5):
                cells = [f"{100 * same_users(settings, rng, NULLS[name], n, shape, shared):.1f}" for n in settings.rows]
                yield f"| {name}, {shape}, correlation {shared} | " + " | ".join(cells) + " |"


def same_users(settings: Settings, rng: np.random.Generator, draw: Draw, rows: int, shape: str, shared: float) -> float:
    of = senders(rows, 8, shape)
    size, found = min(settings.samples, 1000), 0.0
    for _ in range(settings.samples // size):
        common = draw(rng, (size, 8))[:, of]
        common -= common.mean(axis=1, keepdims=True)
        found += ours(math.sqrt(1 - shared) * draw(rng, (size, rows)) + math.sqrt(shared) * common)
    return found / (settings.samples // size)


def senders(rows: int, users: int, shape: str) -> NDArray[np.int64]:
    """Who sent each row."""
    if shape == "one sent half":
        half = rows // 2
        return np.concatenate([np.zeros(half, np.int64), 1 + np.arange(rows - half) % (users - 1)])
    return np.arange(rows) % users


def power_table(settings: Settings) -> Iterator[str]:
    counts = [count for count in settings.rows if count <= 200]
    yield "| true fall, rows | " + " | ".join(map(str, counts)) + " |"
    yield "|---|" + "---:|" * len(counts)
    rng = np.random.default_rng(settings.seed + 2)
    for shift in (0.5, 1.0):
        for name in ("normal", "log-normal, σ = 1", "−log-normal, σ = 1.5", "60 % ties, else normal"):
            scale = math.sqrt(0.4) if "ties" in name else 1.0
            shape = settings.samples // 2
            cells = [in_three(NULLS[name](rng, (shape, n)) - shift * scale, settings, rng) for n in counts]
            yield f"| {shift} deviations, {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables."""
    settings = tyro.cli(Settings, description=__doc__)
    tables = (size_table, user_table, same_users_table, power_table, point_table, point_user_table, over_editing_table)
    for table in tables:
        for line in table(settings):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
