"""How often does the interval of a win rate hold the true rate? Exactly, over every outcome with its chance.

Prints the tables of docs/winrate.md: coverage of `rate_interval` and, beside it, of the percentile bootstrap, by the
number of prompts, the true rate and the share of ties.

    python benchmarks/coverage.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tyro
from scipy.stats import multinomial

from errata.winrate import Interval, bootstrap_interval, rate_interval

Make = Callable[[list[float]], Interval]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Coverage of 95 % intervals."""

    prompts: tuple[int, ...] = (5, 10, 20, 50, 200)
    rates: tuple[float, ...] = (0.5, 0.8, 0.9, 0.98, 1.0)
    ties: tuple[float, ...] = (0.0, 0.3)
    """Shares of ties; less where the rate leaves no room for so many."""


def coverage(count: int, rate: float, ties: float, makes: dict[str, Make]) -> dict[str, float]:
    """The chance that each interval holds the rate; outcomes with a chance below 1e-9 are left out."""
    ties = min(ties, 2 * min(rate, 1 - rate))
    wins, tied = (each.ravel() for each in np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij"))
    wins, tied = wins[wins + tied <= count], tied[wins + tied <= count]
    outcomes = np.stack([wins, tied, count - wins - tied], axis=1)
    chances = multinomial.pmf(outcomes, count, [rate - ties / 2, ties, 1 - rate - ties / 2])
    found = dict.fromkeys(makes, 0.0)
    for (won, drew, lost), chance in zip(outcomes[chances > 1e-9].tolist(), chances[chances > 1e-9], strict=True):
        for name, make in makes.items():
            one = make([1.0] * won + [0.5] * drew + [0.0] * lost)
            found[name] += chance * (one.low <= rate + 1e-12 and rate - 1e-12 <= one.high)
    return found


def table(settings: Settings) -> Iterator[str]:
    yield "| prompts | ties | " + " | ".join(f"rate {rate}" for rate in settings.rates) + " |"
    yield "|---:|---:|" + "---:|" * len(settings.rates)
    makes: dict[str, Make] = {
        "ours": rate_interval,
        "bootstrap": lambda values: bootstrap_interval(values, seed=0, resamples=500),
    }
    for count in settings.prompts:
        for ties in settings.ties:
            rows = [coverage(count, rate, ties, makes) for rate in settings.rates]
            cells = [f"{one['ours']:.3f} / {one['bootstrap']:.3f}" for one in rows]
            yield f"| {count} | {ties} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    for line in table(tyro.cli(Settings, description=__doc__)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
