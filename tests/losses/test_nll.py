from __future__ import annotations

import torch

from errata.losses import weighted_nll

from .pairs import f64


def test_golden_with_negative_tiny_and_large_weights() -> None:
    logprob_BT = f64([[-1.0, -2.0, -3.0, -4.0]])
    weight_BT = f64([[-0.5, 1e-9, 100.0, 1.0]])
    loss_BT = weighted_nll(logprob_BT, weight_BT, torch.tensor([[True, True, True, False]]))
    torch.testing.assert_close(loss_BT, f64([[-0.5, 2e-9, 300.0, 0.0]]), rtol=1e-12, atol=0)


def test_a_negative_weight_pushes_down() -> None:
    logprob_BT = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    weighted_nll(logprob_BT, torch.tensor([[1.0, -2.0]]), torch.tensor([[True, True]])).sum().backward()
    assert logprob_BT.grad is not None
    assert logprob_BT.grad.tolist() == [[-1.0, 2.0]]


def test_weight_zero_is_as_masked_even_where_the_model_says_impossible() -> None:
    logprob_BT = torch.tensor([[-1.0, -torch.inf]], requires_grad=True)
    weight_BT = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss_BT = weighted_nll(logprob_BT, weight_BT, torch.tensor([[True, True]]))
    assert loss_BT.tolist() == [[1.0, 0.0]]
    loss_BT.sum().backward()
    assert logprob_BT.grad is not None
    assert logprob_BT.grad.tolist() == [[-1.0, 0.0]]
    assert weight_BT.grad is None
