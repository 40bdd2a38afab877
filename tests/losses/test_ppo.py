from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from errata.losses import (
    clipped_surrogate,
    clipped_value_loss,
    gae,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalty,
)

from .pairs import GARBAGE, Pairs, Side, f64, pairs

seeds = st.integers(0, 10**6)
YES = torch.tensor([[True]])


def advantages(p: Pairs, side: Side, discount: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    return gae(
        side["reward"], side["value"], side.mask, p.ended_B, p.bootstrap_B, discount=discount, gae_lambda=gae_lambda
    )


def test_kl_golden() -> None:
    logprob_BT, ref_logprob_BT = f64([[-1.0]]), f64([[-1.5]])
    assert kl_k1(logprob_BT, ref_logprob_BT, YES).item() == 0.5
    assert kl_k2(logprob_BT, ref_logprob_BT, YES).item() == 0.125
    torch.testing.assert_close(kl_k3(logprob_BT, ref_logprob_BT, YES).item(), math.exp(-0.5) - 0.5, rtol=1e-12, atol=0)


def test_k1_and_k3_are_unbiased_and_k2_is_close() -> None:
    # Expectations over a distribution of three tokens, summed exactly.
    p, q = f64([0.5, 0.3, 0.2]), f64([0.4, 0.4, 0.2])
    logprob_BT, ref_logprob_BT, mask_BT = p.log()[None], q.log()[None], torch.ones(1, 3, dtype=torch.bool)
    divergence = float((p * (p / q).log()).sum())
    means = [float((p * k(logprob_BT, ref_logprob_BT, mask_BT)[0]).sum()) for k in (kl_k1, kl_k3, kl_k2)]
    torch.testing.assert_close(means[:2], 2 * [divergence], rtol=1e-12, atol=0)
    assert means[2] == pytest.approx(divergence, rel=0.1)


def test_kl_penalty_golden() -> None:
    mask_BT = torch.tensor([[False, True, True]])
    old_BT, ref_BT = f64([[-1.0, -1.0, -3.0]]), f64([[-9.0, -2.0, -1.0]])
    penalty_BT = kl_penalty(old_BT, ref_BT, mask_BT, kl_coefficient=0.25)
    assert penalty_BT.tolist() == [[0.0, -0.25, 0.5]]
    assert kl_penalty(old_BT, ref_BT, mask_BT, kl_coefficient=0.25, estimator=kl_k2).tolist() == [[0.0, -0.125, -0.5]]


@pytest.mark.parametrize(("ended", "last"), [(True, 0.0), (False, 8.0)])
def test_gae_golden(ended: bool, last: float) -> None:
    # γ = λ = ½, so γλ = ¼; the response has two tokens, between a prompt of one and padding of one.
    reward_BT = f64([[99.0, 1.0, 2.0, 99.0]])
    value_BT = f64([[99.0, 3.0, 4.0, 99.0]])
    mask_BT = torch.tensor([[False, True, True, False]])
    advantage_BT, return_BT = gae(
        reward_BT,
        value_BT,
        mask_BT,
        torch.tensor([ended]),
        f64([8.0]),
        discount=0.5,
        gae_lambda=0.5,
    )
    second = 2.0 + last / 2 - 4.0
    first = 1.0 + 4.0 / 2 - 3.0 + second / 4
    assert advantage_BT.tolist() == [[0.0, first, second, 0.0]]
    assert return_BT.tolist() == [[0.0, first + 3.0, second + 4.0, 0.0]]


@settings(max_examples=20)
@given(seed=seeds, discount=st.sampled_from([1.0, 0.9]))
def test_gae_with_lambda_one_returns_the_reward_to_go(seed: int, discount: float) -> None:
    p = pairs(seed)
    for side in (p.edited, p.original):
        _, return_BT = advantages(p, side, discount, 1.0)
        for b, returns in enumerate(side.ragged(return_BT)):
            to_go = 0.0 if p.ended[b] else p.bootstrap[b]
            for t in reversed(range(len(returns))):
                to_go = side.rows[b]["reward"][t] + discount * to_go
                assert returns[t].item() == pytest.approx(to_go, rel=1e-9, abs=1e-9)


@settings(max_examples=20)
@given(seed=seeds)
def test_gae_with_lambda_zero_is_the_one_step_error(seed: int) -> None:
    p = pairs(seed)
    for side in (p.edited, p.original):
        advantage_BT, _ = advantages(p, side, 0.9, 0.0)
        for b, found in enumerate(side.ragged(advantage_BT)):
            values = [*side.rows[b]["value"], 0.0 if p.ended[b] else p.bootstrap[b]]
            for t, reward in enumerate(side.rows[b]["reward"]):
                assert found[t].item() == pytest.approx(reward + 0.9 * values[t + 1] - values[t], rel=1e-9, abs=1e-9)


@settings(max_examples=20)
@given(seed=seeds, shift=st.integers(0, 5), padding=st.integers(0, 5))
def test_gae_does_not_see_where_the_response_stands(seed: int, shift: int, padding: int) -> None:
    p = pairs(seed)
    side = p.edited
    moved = Side(side.rows, [start + shift for start in side.starts], side.width + shift + padding, GARBAGE)
    for here, there in zip(advantages(p, side, 0.9, 0.7), advantages(p, moved, 0.9, 0.7), strict=True):
        for row, moved_row in zip(side.ragged(here), moved.ragged(there), strict=True):
            assert [x.item() for x in row] == [x.item() for x in moved_row]


def test_gae_ignores_the_bootstrap_of_a_response_that_ended() -> None:
    p = pairs(1)
    p.ended = [True] * len(p.ended)
    clean = advantages(p, p.edited, 0.9, 0.7)
    p.bootstrap = [math.nan] * len(p.bootstrap)
    assert all(torch.equal(x, y) for x, y in zip(clean, advantages(p, p.edited, 0.9, 0.7), strict=True))


def test_gae_carries_no_gradient() -> None:
    p = pairs(2)
    assert not any(x.requires_grad for x in advantages(p, p.edited, 1.0, 0.95))


@pytest.mark.parametrize("hole", [[True, False, True, True], [True, False, True, False]])
def test_gae_refuses_a_hole_in_the_response(hole: list[bool]) -> None:
    mask_BT = torch.tensor([[False, True, True, False], hole])
    zeros_BT, zeros_B = torch.zeros(2, 4), torch.zeros(2)
    with pytest.raises(ValueError, match=r"mask_BT\[1\] has 2 runs"):
        gae(zeros_BT, zeros_BT, mask_BT, torch.tensor([True, True]), zeros_B, discount=1.0, gae_lambda=1.0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.5, 2.0, -2.4, 0.0),  # gained enough
        (1.1, 2.0, -2.2, -2.2),
        (0.5, 2.0, -1.0, -1.0),  # lost probability of a good token: not clipped
        (0.5, -2.0, 1.6, 0.0),  # pushed down enough
        (1.5, -2.0, 3.0, 3.0),  # a bad token gained: not clipped
    ],
)
def test_clipped_surrogate_golden(ratio: float, advantage: float, loss: float, slope: float) -> None:
    logprob_BT = f64([[0.25 * ratio]]).log().requires_grad_()
    old_logprob_BT = f64([[0.25]]).log()
    found = clipped_surrogate(logprob_BT, old_logprob_BT, f64([[advantage]]), YES, clip_range=0.2)
    found.backward()
    assert logprob_BT.grad is not None
    torch.testing.assert_close([found.item(), logprob_BT.grad.item()], [loss, slope], rtol=1e-9, atol=1e-12)


@settings(max_examples=20)
@given(seed=seeds)
def test_on_policy_the_surrogate_has_the_gradient_of_reinforce(seed: int) -> None:
    side = pairs(seed, garbage=GARBAGE).edited
    logprob_BT, advantage_BT = side["logprob"], side["advantage"].detach()
    clipped_surrogate(logprob_BT, logprob_BT.detach(), advantage_BT, side.mask, clip_range=0.2).sum().backward()
    assert logprob_BT.grad is not None
    torch.testing.assert_close(logprob_BT.grad, torch.where(side.mask, -advantage_BT, 0), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        (1.0, 3.0, 3.92, 0.0),  # came nearer than the clip grants: (0.2 − 3)²/2
        (1.0, -1.0, 2.0, 2.0),  # went the wrong way: (1 + 1)²/2
        (0.1, 3.0, 4.205, -2.9),
        (-1.0, -3.0, 3.92, 0.0),
    ],
)
def test_clipped_value_loss_golden(value: float, target: float, loss: float, slope: float) -> None:
    value_BT = f64([[value]]).requires_grad_()
    old_value_BT, return_BT = torch.zeros(1, 1).double(), f64([[target]])
    found = clipped_value_loss(value_BT, old_value_BT, return_BT, YES, clip_range=0.2)
    found.backward()
    assert value_BT.grad is not None
    torch.testing.assert_close([found.item(), value_BT.grad.item()], [loss, slope], rtol=1e-9, atol=1e-12)
