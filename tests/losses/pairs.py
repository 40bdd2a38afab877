"""Random pairs in two forms: ragged lists of scalars for the slow twins, padded tensors with garbage for the losses."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

NAN, INF = float("nan"), float("inf")
GARBAGE = (NAN, INF, -INF, 1e30, -7.0)
KINDS = ("mixed", "deletion", "insertion", "empty edit")

Row = dict[str, list[float]]
"""One text: stream name → one value a token."""


def f64(values: object) -> Tensor:
    """Not ``torch.tensor(…).double()``, which has rounded to float32 first."""
    return torch.tensor(values, dtype=torch.float64)


@dataclass
class Side:
    """One side of a batch of pairs; ``T`` or ``U`` is its own."""

    rows: list[Row]
    starts: list[int]
    """Where each response begins: the prompt's length."""
    width: int
    garbage: Iterable[float] = (0.0,)
    """What fills prompt and padding, in turn."""
    leaves: dict[str, Tensor] = field(default_factory=dict)
    twins: dict[str, list[list[Tensor]]] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        return [len(row["logprob"]) for row in self.rows]

    @property
    def mask(self) -> Tensor:
        mask = torch.zeros(len(self.rows), self.width, dtype=torch.bool)
        for b, (start, length) in enumerate(zip(self.starts, self.lengths, strict=True)):
            mask[b, start : start + length] = True
        return mask

    def __getitem__(self, name: str) -> Tensor:
        """The padded stream, a float64 leaf that keeps its gradient."""
        if name not in self.leaves:
            filler = itertools.cycle(self.garbage)
            padded = [[next(filler) for _ in range(self.width)] for _ in self.rows]
            for b, start in enumerate(self.starts):
                padded[b][start : start + self.lengths[b]] = self.rows[b][name]
            self.leaves[name] = torch.tensor(padded, dtype=torch.float64, requires_grad=True)
        return self.leaves[name]

    def where(self, name: str) -> Tensor:
        """A padded stream of 0 and 1 as a mask: False outside the response."""
        mask = torch.zeros_like(self.mask)
        for b, start in enumerate(self.starts):
            mask[b, start : start + self.lengths[b]] = torch.tensor(self.rows[b][name], dtype=torch.float64) > 0
        return mask

    def labels(self, name: str) -> Tensor:
        """A padded stream of integers, garbage outside the response included."""
        labels = torch.full(self.mask.shape, 7)
        for b, start in enumerate(self.starts):
            labels[b, start : start + self.lengths[b]] = torch.tensor(self.rows[b][name]).long()
        return labels

    def twin(self, name: str) -> list[list[Tensor]]:
        """The same stream as ragged lists of scalar leaves."""
        if name not in self.twins:
            self.twins[name] = [
                [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in row[name]] for row in self.rows
            ]
        return self.twins[name]

    def ragged(self, x_BT: Tensor) -> list[list[Tensor]]:
        """The response's values of a padded tensor."""
        return [list(x_BT[b, s : s + n]) for b, (s, n) in enumerate(zip(self.starts, self.lengths, strict=True))]


@dataclass
class Pairs:
    edited: Side
    original: Side
    ended: list[bool]
    bootstrap: list[float]

    @property
    def ended_B(self) -> Tensor:
        return torch.tensor(self.ended)

    @property
    def bootstrap_B(self) -> Tensor:
        return torch.tensor(self.bootstrap, dtype=torch.float64)


def text(rng: random.Random, length: int, *, changes: bool, weight: float, label: int) -> Row:
    changed = [float(changes and rng.random() < 0.5) for _ in range(length)]
    if changes and length:
        changed[rng.randrange(length)] = 1.0
    logprob = [rng.uniform(-2.0, -0.01) for _ in range(length)]
    value = [rng.gauss(0, 1) for _ in range(length)]
    return {
        "logprob": logprob,
        "old_logprob": [x + rng.gauss(0, 0.4) for x in logprob],
        "ref_logprob": [x + rng.gauss(0, 0.6) for x in logprob],
        "reward": [rng.gauss(0, 2) for _ in range(length)],
        "value": value,
        "old_value": [x + rng.gauss(0, 0.4) for x in value],
        "return": [x + rng.gauss(0, 1) for x in value],
        "advantage": [rng.gauss(0, 1) for _ in range(length)],
        "changed": changed,
        "weight": [weight * c * rng.uniform(0.5, 1.5) for c in changed],
        "signed_weight": [rng.choice([-0.5, 0.0, 1e-8, 1.0, 3.0]) for _ in range(length)],
        "label": [label * c for c in changed],
    }


def side(rng: random.Random, rows: list[Row], garbage: Iterable[float]) -> Side:
    starts = [rng.randrange(4) for _ in rows]
    longest = max(start + len(row["logprob"]) for start, row in zip(starts, rows, strict=True))
    return Side(rows, starts, longest + rng.randrange(3), garbage)


def pairs(seed: int, *, kinds: Sequence[str] = KINDS, garbage: Iterable[float] = (0.0,)) -> Pairs:
    """One pair of each kind and one with nothing in its original; the two sides are never equally long."""
    rng = random.Random(seed)
    edited, original = [], []
    for kind in kinds:
        length = rng.randrange(3, 7)
        longer = length + rng.randrange(1, 3)
        # A deletion makes the edited text the shorter one; an edit that changed nothing may still have lost its EOS.
        edited_length, original_length = (length, longer) if kind == "deletion" else (longer, length)
        edited.append(text(rng, edited_length, changes=kind in ("mixed", "insertion"), weight=1.0, label=1))
        original.append(text(rng, original_length, changes=kind in ("mixed", "deletion"), weight=0.5, label=-1))
    edited.append(text(rng, 2, changes=True, weight=1.0, label=1))
    original.append(text(rng, 0, changes=False, weight=0.5, label=-1))
    both = Pairs(
        side(rng, edited, garbage),
        side(rng, original, garbage),
        ended=[rng.random() < 0.5 for _ in edited],
        bootstrap=[rng.gauss(0, 1) for _ in edited],
    )
    if both.edited.width == both.original.width:
        both.original.width += 1
    return both
