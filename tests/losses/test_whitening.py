from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from errata.losses import Moments, moments, rescale, whiten, whiten_keeping_mean

from .pairs import GARBAGE, f64, pairs

X_BT = f64([[1.0, 3.0, 5.0, 90.0]])
MASK_BT = torch.tensor([[True, True, True, False]])


def test_golden() -> None:
    found = moments(X_BT, MASK_BT)
    assert [x.item() for x in found] == [3.0, 9.0, 35.0]
    assert found.mean.item() == 3.0
    torch.testing.assert_close(found.variance.item(), 8 / 3, rtol=1e-12, atol=0)
    assert whiten(X_BT, MASK_BT, mean=3.0, variance=3.0, eps=1.0).tolist() == [[-1.0, 0.0, 1.0, 0.0]]
    assert whiten_keeping_mean(X_BT, MASK_BT, mean=3, variance=3, eps=1.0).tolist() == [[2.0, 3.0, 4.0, 0.0]]
    assert rescale(X_BT, MASK_BT, variance=3.0, eps=1.0).tolist() == [[0.5, 1.5, 2.5, 0.0]]


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_two_processes_together_are_the_whole(seed: int) -> None:
    p = pairs(seed, garbage=GARBAGE)  # two processes: the edited side and the original side, of different shapes
    values = f64([x for side in (p.edited, p.original) for row in side.rows for x in row["reward"]])
    ours, theirs = (moments(side["reward"], side.mask) for side in (p.edited, p.original))
    both = Moments(*(torch.stack(ours) + torch.stack(theirs)))
    torch.testing.assert_close(both.mean, values.mean(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(both.variance, values.var(correction=0), rtol=1e-9, atol=1e-12)
    whole = torch.cat(
        [
            whiten(side["reward"], side.mask, mean=both.mean, variance=both.variance)[side.mask]
            for side in (p.edited, p.original)
        ]
    )
    torch.testing.assert_close(whole.mean().item(), 0.0, rtol=0, atol=1e-9)
    torch.testing.assert_close(whole.var(correction=0).item(), 1.0, rtol=1e-6, atol=0)


def test_float32_far_from_zero_keeps_its_variance() -> None:
    x_BT = torch.tensor([[1e4, 1e4 + 1, 1e4 + 2]])
    assert moments(x_BT, torch.ones(1, 3, dtype=torch.bool)).variance.item() == pytest.approx(2 / 3, rel=1e-6)


def test_no_token_and_one_token_stay_finite() -> None:
    nothing = moments(X_BT, torch.zeros_like(MASK_BT))
    assert [nothing.mean.item(), nothing.variance.item()] == [0.0, 0.0]
    one_BT = torch.tensor([[False, True, False, False]])
    one = moments(X_BT, one_BT)
    assert whiten(X_BT, one_BT, mean=one.mean, variance=one.variance).tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_rescale_keeps_signs_and_whitening_about_the_mean_does_not() -> None:
    x_BT, mask_BT = torch.tensor([[0.1, 8.0]]), torch.tensor([[True, True]])
    assert (rescale(x_BT, mask_BT, variance=0.01) > 0).all()
    assert not (whiten_keeping_mean(x_BT, mask_BT, mean=4.0, variance=0.01) > 0).all()


def test_moments_carry_no_gradient() -> None:
    assert not any(x.requires_grad for x in moments(X_BT.clone().requires_grad_(), MASK_BT))
