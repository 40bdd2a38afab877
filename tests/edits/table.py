"""The slow twin."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def distance_by_table(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Levenshtein, written from the recurrence."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first) + 1):
        for j in range(len(second) + 1):
            if i == 0 or j == 0:
                table[i][j] = i + j
            else:
                changed = table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
                table[i][j] = min(changed, table[i - 1][j] + 1, table[i][j - 1] + 1)
    return table[-1][-1]
