from __future__ import annotations

import math

import torch

from errata.losses import dpo

from .pairs import f64


def test_golden() -> None:
    chosen_B, rejected_B = f64([-3.0, -9.0]), f64([-15.0, -8.0])
    ref_chosen_B, ref_rejected_B = f64([-7.0, -4.0]), f64([-9.0, -8.0])
    loss_B = dpo(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, beta=0.5)  # β · (4 + 6), β · (−5 − 0)
    expected_B = f64([math.log(1 + math.exp(-5)), math.log(1 + math.exp(2.5))])
    torch.testing.assert_close(loss_B, expected_B, rtol=1e-9, atol=0)


def test_gradient_is_that_of_the_paper() -> None:
    # Rafailov et al. 2023, section 4: −β σ(r̂_l − r̂_w) on log π(y_w), the opposite on log π(y_l); r̂ = β log π/π_ref.
    logprobs = [f64([x]).requires_grad_() for x in (-3.0, -5.0)]
    dpo(*logprobs, f64([-4.0]), f64([-4.0]), beta=0.1).sum().backward()
    expected = 0.1 / (1 + math.exp(0.2))
    torch.testing.assert_close([x.grad.item() for x in logprobs], [-expected, expected], rtol=1e-9, atol=0)
