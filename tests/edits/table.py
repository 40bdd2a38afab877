"""The slow twin."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def table(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[list[int]]:
    """The Levenshtein distances of all beginnings of the one and of the other, written from the recurrence."""
    cost = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first) + 1):
        for j in range(len(second) + 1):
            if i == 0 or j == 0:
                cost[i][j] = i + j
            else:
                changed = cost[i - 1][j - 1] + (first[i - 1] != second[j - 1])
                cost[i][j] = min(changed, cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    return cost


def distance_by_table(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The Levenshtein distance."""
    return table(first, second)[-1][-1]
