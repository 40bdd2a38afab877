"""What holds of every loss: it equals its slow twin, masked slots never matter, micro-batches add up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from errata import losses

from .cases import CASES, REDUCTIONS, Case
from .pairs import GARBAGE, KINDS, Pairs, Side, pairs

seeds = st.integers(0, 10**6)
fillers = st.lists(st.sampled_from(GARBAGE), min_size=1, max_size=5)
every_case = pytest.mark.parametrize("case", CASES + REDUCTIONS, ids=str)


def cotangents() -> Iterator[float]:
    """A different factor for each output, so that no two gradients can be swapped unseen."""
    return (math.cos(k) + 1.5 for k in range(10**6))


def flat(case: Case, p: Pairs, outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What the outputs say of real tokens and sequences, row by row."""
    sides = {"e": p.edited, "o": p.original}
    return [
        x
        for axis, out in zip(case.axes, outputs, strict=True)
        for row in ([list(out)] if axis == "B" else sides[axis].ragged(out))
        for x in row
    ]


def flat_twin(case: Case, p: Pairs) -> list[Tensor]:
    return [
        x
        for axis, out in zip(case.axes, case.slow(p), strict=True)
        for row in ([out] if axis == "B" else out)
        for x in row
    ]


def send_back(values: list[Tensor]) -> None:
    loss = sum(c * x for c, x in zip(cotangents(), values, strict=False))
    if isinstance(loss, Tensor) and loss.requires_grad:
        loss.backward()


def gradient(side: Side) -> dict[str, Tensor]:
    return {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in side.leaves.items()}


def run(case: Case, p: Pairs) -> tuple[tuple[Tensor, ...], list[dict[str, Tensor]]]:
    """Outputs, and the gradients of both sides' streams."""
    outputs = case.ours(p)
    send_back(flat(case, p, outputs))
    return tuple(x.detach() for x in outputs), [gradient(p.edited), gradient(p.original)]


@every_case
@pytest.mark.parametrize("kinds", [KINDS, *[(kind,) for kind in KINDS]], ids=lambda kinds: "+".join(kinds))
def test_value_and_gradient_equal_the_slow_twin(case: Case, kinds: tuple[str, ...]) -> None:
    for seed in range(3):
        p = pairs(seed, kinds=kinds, garbage=GARBAGE)
        outputs, gradients = run(case, p)
        twins = flat_twin(case, p)
        send_back(twins)
        torch.testing.assert_close(
            torch.stack(flat(case, p, outputs)).double(), torch.stack(twins).detach().double(), rtol=1e-9, atol=1e-12
        )
        for side, grads in zip((p.edited, p.original), gradients, strict=True):
            for name, grad in grads.items():
                expected = torch.zeros_like(grad)
                for b, start in enumerate(side.starts):
                    for t, x in enumerate(side.twin(name)[b]):
                        expected[b, start + t] = 0 if x.grad is None else x.grad
                torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@every_case
@settings(max_examples=10)
@given(seed=seeds, garbage=fillers)
def test_masked_content_changes_neither_value_nor_gradient(case: Case, seed: int, garbage: list[float]) -> None:
    outputs, gradients = run(case, pairs(seed, garbage=garbage))
    clean_outputs, clean_gradients = run(case, pairs(seed))
    for dirty, clean in zip(outputs, clean_outputs, strict=True):
        assert torch.equal(dirty, clean)
    for dirty_side, clean_side in zip(gradients, clean_gradients, strict=True):
        for name, dirty in dirty_side.items():
            assert torch.equal(dirty, clean_side[name]), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_are_zero_outside_the_mask(case: Case) -> None:
    p = pairs(3, garbage=GARBAGE)
    sides = {"e": p.edited, "o": p.original}
    for axis, out in zip(case.axes, case.ours(p), strict=True):
        if axis != "B":
            assert torch.equal(out[~sides[axis].mask], torch.zeros(int((~sides[axis].mask).sum())).double())


def part(p: Pairs, rows: slice) -> Pairs:
    def cut(side: Side) -> Side:
        kept, starts = side.rows[rows], side.starts[rows]
        width = max(s + len(row["logprob"]) for s, row in zip(starts, kept, strict=True))
        return Side(kept, starts, width, side.garbage)

    return Pairs(cut(p.edited), cut(p.original), p.ended[rows], p.bootstrap[rows])


@pytest.mark.parametrize("case", [case for case in CASES + REDUCTIONS if case.name != "figa_loss"], ids=str)
@settings(max_examples=10)
@given(seed=seeds, cut=st.integers(1, len(KINDS)))
def test_sums_of_micro_batches_add_up(case: Case, seed: int, cut: int) -> None:
    def total(p: Pairs) -> Tensor:
        return torch.stack([x.sum() for x in case.ours(p)])

    p = pairs(seed)
    micro_batches = [part(p, slice(None, cut)), part(p, slice(cut, None))]
    torch.testing.assert_close(sum(map(total, micro_batches)), total(p), rtol=1e-12, atol=1e-12)


def test_every_function_has_a_case() -> None:
    pure_pairs = {"sequence_bradley_terry", "gate_below", "gate_band", "moments"}  # golden values in their own files
    named = {case.name.split()[0] for case in CASES + REDUCTIONS}
    functions = {name for name in losses.__all__ if not isinstance(getattr(losses, name), type)}
    assert functions - named == pure_pairs
