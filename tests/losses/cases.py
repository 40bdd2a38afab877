"""Each loss beside its slow twin: loops over ragged lists of float64 scalars, without masks, from the formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from errata import losses

from .pairs import Pairs, Side

Ragged = list[list[Tensor]]
ZERO = torch.zeros((), dtype=torch.float64)


def total(xs: list[Tensor]) -> Tensor:
    return sum(xs, start=ZERO)


def mean(xs: list[Tensor]) -> Tensor:
    return total(xs) / len(xs) if xs else ZERO


def nls(x: Tensor) -> Tensor:
    """Negative log of the logistic function."""
    return -torch.log(1 / (1 + torch.exp(-x)))


def each(function: Callable[..., Tensor], *streams: Ragged) -> Ragged:
    return [[function(*xs) for xs in zip(*row, strict=True)] for row in zip(*streams, strict=True)]


def only(side: Side, name: str, flag: str) -> Ragged:
    """The values of those tokens whose ``flag`` is set."""
    return [
        [x for x, keep in zip(xs, row[flag], strict=True) if keep]
        for xs, row in zip(side.twin(name), side.rows, strict=True)
    ]


@dataclass
class Case:
    """``ours`` and ``slow`` give the same outputs, one for each letter of ``axes``: e(dited), o(riginal) or B."""

    name: str
    axes: str
    ours: Callable[[Pairs], tuple[Tensor, ...]]
    slow: Callable[[Pairs], tuple[Ragged | list[Tensor], ...]]

    def __str__(self) -> str:
        return self.name


def figa_ours(p: Pairs) -> tuple[Tensor, ...]:
    e, o = p.edited, p.original
    gate = losses.gate_below(o["logprob"], threshold=0.6)
    terms = losses.figa(e["logprob"], e["weight"], e.mask, o["logprob"], o["weight"], o.mask, gate)
    return terms.edited_loss_BT, terms.original_loss_BU, terms.counts_BT.double(), terms.counts_BU.double()


def figa_slow(p: Pairs) -> tuple[Ragged, ...]:
    e, o = p.edited, p.original
    gates = [[float(-x <= 0.6) for x in row["logprob"]] for row in o.rows]
    betas = [[w * g for w, g in zip(row["weight"], gate, strict=True)] for row, gate in zip(o.rows, gates, strict=True)]
    return (
        [
            [-w * x for w, x in zip(r["weight"], xs, strict=True)]
            for r, xs in zip(e.rows, e.twin("logprob"), strict=True)
        ],
        [[b * x for b, x in zip(bs, xs, strict=True)] for bs, xs in zip(betas, o.twin("logprob"), strict=True)],
        [[torch.tensor(float(w != 0)) for w in row["weight"]] for row in e.rows],
        [[torch.tensor(float(b != 0)) for b in row] for row in betas],
    )


def figa_loss_slow(p: Pairs) -> tuple[list[Tensor], ...]:
    edited, original, counts_edited, counts_original = figa_slow(p)
    n = sum(float(c) for row in counts_edited + counts_original for c in row)
    loss = total([x for row in edited + original for x in row])
    return ([loss / n if n else loss],)


def figa_loss_ours(p: Pairs) -> tuple[Tensor, ...]:
    e, o = p.edited, p.original
    gate = losses.gate_below(o["logprob"], threshold=0.6)
    terms = losses.figa(e["logprob"], e["weight"], e.mask, o["logprob"], o["weight"], o.mask, gate)
    return (losses.figa_loss(terms)[None],)


def classes_slow(side: Side) -> Ragged:
    def one(reward: Tensor, label: float) -> Tensor:
        if label == 0:
            return 0.1 * reward * reward
        return nls(reward) if label > 0 else nls(-reward)

    return [
        [one(r, label) for r, label in zip(rs, row["label"], strict=True)]
        for rs, row in zip(side.twin("reward"), side.rows, strict=True)
    ]


def soft_ours(side: Side) -> Tensor:
    return losses.soft_token_classes(side["reward"], (side.labels("label") + 1) / 2, side.mask)


def soft_slow(side: Side) -> Ragged:
    def one(reward: Tensor, label: float) -> Tensor:
        good = 1 / (1 + torch.exp(-reward))
        target = {1: 1.0, 0: 0.5, -1: 0.0}[int(label)]
        return -(target * torch.log(good) + (1 - target) * torch.log(1 - good))

    return [
        [one(r, label) for r, label in zip(rs, row["label"], strict=True)]
        for rs, row in zip(side.twin("reward"), side.rows, strict=True)
    ]


def classes_ours(side: Side) -> Tensor:
    return losses.changed_token_classes(side["reward"], side.labels("label"), side.mask, kept_coefficient=0.1)


def dpo_ours(p: Pairs) -> tuple[Tensor, ...]:
    sums = [
        losses.sequence_sum(side[name], side.mask)
        for name in ("logprob", "ref_logprob")
        for side in (p.edited, p.original)
    ]
    return (losses.dpo(*sums, beta=0.3),)


def dpo_slow(p: Pairs) -> tuple[list[Tensor], ...]:
    out = []
    for b in range(len(p.ended)):
        chosen = total(p.edited.twin("logprob")[b]) - total(p.edited.twin("ref_logprob")[b])
        rejected = total(p.original.twin("logprob")[b]) - total(p.original.twin("ref_logprob")[b])
        out.append(nls(0.3 * (chosen - rejected)))
    return (out,)


def gae_ours(p: Pairs, side: Side) -> tuple[Tensor, ...]:
    return losses.gae(side["reward"], side["value"], side.mask, p.ended_B, p.bootstrap_B, discount=0.9, gae_lambda=0.7)


def gae_slow(p: Pairs, side: Side) -> tuple[Ragged, Ragged]:
    """A_t = Σ_l (γλ)^l δ_{t+l}, each sum written out: no recursion."""
    advantages: Ragged = []
    returns: Ragged = []
    for row, ended, bootstrap in zip(side.rows, p.ended, p.bootstrap, strict=True):
        values = [*row["value"], 0.0 if ended else bootstrap]
        deltas = [r + 0.9 * values[t + 1] - values[t] for t, r in enumerate(row["reward"])]
        sums = [sum((0.9 * 0.7) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))]
        advantages.append([torch.tensor(a, dtype=torch.float64) for a in sums])
        returns.append([torch.tensor(a + v, dtype=torch.float64) for a, v in zip(sums, values, strict=False)])
    return advantages, returns


def surrogate_slow(side: Side) -> Ragged:
    def one(logprob: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        ratio = torch.exp(logprob) / torch.exp(old)
        clipped = min(max(ratio, ZERO + 0.8), ZERO + 1.2)
        return -min(ratio * advantage, clipped * advantage)

    return each(one, side.twin("logprob"), side.twin("old_logprob"), side.twin("advantage"))


def value_slow(side: Side) -> Ragged:
    def one(value: Tensor, old: Tensor, target: Tensor) -> Tensor:
        near = old + min(max(value - old, ZERO - 0.2), ZERO + 0.2)
        return 0.5 * max((value - target) ** 2, (near - target) ** 2)

    return each(one, side.twin("value"), side.twin("old_value"), side.twin("return"))


def weighted_slow(side: Side) -> Ragged:
    return [
        [-w * x for w, x in zip(row["signed_weight"], xs, strict=True)]
        for row, xs in zip(side.rows, side.twin("logprob"), strict=True)
    ]


def both_sides(name: str, ours: Callable[[Side], Tensor], slow: Callable[[Side], Ragged]) -> Case:
    """A loss of one text, taken of each."""
    return Case(name, "eo", lambda p: (ours(p.edited), ours(p.original)), lambda p: (slow(p.edited), slow(p.original)))


def of_pair(
    name: str,
    ours: Callable[..., Tensor],
    masks: Callable[[Side], Tensor],
    fold: Callable[[list[Tensor]], Tensor],
    flag: str,
) -> Case:
    """Bradley-Terry on a fold of the rewards of the tokens chosen by ``masks`` (padded) and ``flag`` (ragged)."""

    def slow(p: Pairs) -> tuple[list[Tensor], ...]:
        sides = [
            [fold(row) for row in (only(side, "reward", flag) if flag else side.twin("reward"))]
            for side in (p.edited, p.original)
        ]
        return ([nls(e - o) for e, o in zip(*sides, strict=True)],)

    return Case(
        name,
        "B",
        lambda p: (ours(p.edited["reward"], masks(p.edited), p.original["reward"], masks(p.original)),),
        slow,
    )


def kl(name: str, ours: Callable[..., Tensor], slow: Callable[[Tensor], Tensor]) -> Case:
    return both_sides(
        name,
        lambda s: ours(s["logprob"], s["ref_logprob"], s.mask),
        lambda s: each(lambda x, ref: slow(x - ref), s.twin("logprob"), s.twin("ref_logprob")),
    )


CASES = [
    both_sides("weighted_nll", lambda s: losses.weighted_nll(s["logprob"], s["signed_weight"], s.mask), weighted_slow),
    Case("figa", "eoeo", figa_ours, figa_slow),
    of_pair("token_bradley_terry", losses.token_bradley_terry, lambda s: s.mask, mean, ""),
    of_pair(
        "changed_token_bradley_terry_mean",
        losses.changed_token_bradley_terry_mean,
        lambda s: s.where("changed"),
        mean,
        "changed",
    ),
    of_pair(
        "changed_token_bradley_terry_sum",
        losses.changed_token_bradley_terry_sum,
        lambda s: s.where("changed"),
        total,
        "changed",
    ),
    both_sides("changed_token_classes", classes_ours, classes_slow),
    both_sides("soft_token_classes", soft_ours, soft_slow),
    Case("dpo", "B", dpo_ours, dpo_slow),
    kl("kl_k1", losses.kl_k1, lambda d: d),
    kl("kl_k2", losses.kl_k2, lambda d: d * d / 2),
    kl("kl_k3", losses.kl_k3, lambda d: torch.exp(-d) - 1 + d),
    both_sides(
        "kl_penalty",
        lambda s: losses.kl_penalty(s["old_logprob"], s["ref_logprob"], s.mask, kl_coefficient=0.3),
        lambda s: each(lambda old, ref: -0.3 * (old - ref), s.twin("old_logprob"), s.twin("ref_logprob")),
    ),
    Case("gae of edited", "ee", lambda p: gae_ours(p, p.edited), lambda p: gae_slow(p, p.edited)),
    Case("gae of original", "oo", lambda p: gae_ours(p, p.original), lambda p: gae_slow(p, p.original)),
    both_sides(
        "clipped_surrogate",
        lambda s: losses.clipped_surrogate(s["logprob"], s["old_logprob"], s["advantage"], s.mask, clip_range=0.2),
        surrogate_slow,
    ),
    both_sides(
        "clipped_value_loss",
        lambda s: losses.clipped_value_loss(s["value"], s["old_value"], s["return"], s.mask, clip_range=0.2),
        value_slow,
    ),
    both_sides(
        "whiten",
        lambda s: losses.whiten(s["reward"], s.mask, mean=0.3, variance=4.0, eps=0.0),
        lambda s: each(lambda x: (x - 0.3) / 2, s.twin("reward")),
    ),
    both_sides(
        "whiten_keeping_mean",
        lambda s: losses.whiten_keeping_mean(s["reward"], s.mask, mean=0.3, variance=4.0, eps=0.0),
        lambda s: each(lambda x: (x - 0.3) / 2 + 0.3, s.twin("reward")),
    ),
    both_sides(
        "rescale",
        lambda s: losses.rescale(s["reward"], s.mask, variance=4.0, eps=0.0),
        lambda s: each(lambda x: x / 2, s.twin("reward")),
    ),
    Case(
        "sequence_sum",
        "BB",
        lambda p: tuple(losses.sequence_sum(s["reward"], s.mask) for s in (p.edited, p.original)),
        lambda p: tuple([total(row) for row in s.twin("reward")] for s in (p.edited, p.original)),
    ),
    Case(
        "sequence_mean",
        "BB",
        lambda p: tuple(losses.sequence_mean(s["reward"], s.mask) for s in (p.edited, p.original)),
        lambda p: tuple([mean(row) for row in s.twin("reward")] for s in (p.edited, p.original)),
    ),
]
"""Losses whose rows do not know of each other."""

REDUCTIONS = [
    Case(
        "token_sum",
        "B",
        lambda p: (losses.token_sum(p.edited["reward"], p.edited.mask)[None],),
        lambda p: ([total([x for row in p.edited.twin("reward") for x in row])],),
    ),
    Case(
        "token_mean",
        "B",
        lambda p: (losses.token_mean(p.original["reward"], p.original.mask, num_tokens=100)[None],),
        lambda p: ([total([x for row in p.original.twin("reward") for x in row]) / 100],),
    ),
    Case("figa_loss", "B", figa_loss_ours, figa_loss_slow),
]
"""Losses of the batch as a whole."""
