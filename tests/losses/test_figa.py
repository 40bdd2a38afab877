from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from errata.losses import FigaTerms, figa, figa_loss, gate_band, gate_below

from .pairs import f64

# Prompt, kept, inserted, EOS | prompt, kept, deleted (sure), deleted (unsure), EOS of the original
EDITED = f64([[-9.0, -0.1, -2.0, -1.0]]), torch.tensor([[False, True, True, True]])
ORIGINAL = f64([[-9.0, -0.1, -0.4, -3.0, -0.2]]), torch.tensor([[False, True, True, True, True]])
BETA_BU = f64([[0.0, 0.0, 0.5, 0.5, 0.0]])


def example(*, kept_weight: float = 0.0, threshold: float = 0.6) -> FigaTerms:
    weight_BT = f64([[0.0, kept_weight, 1.0, 1.0]])
    gate_BU = gate_below(ORIGINAL[0], threshold=threshold)
    return figa(EDITED[0], weight_BT, EDITED[1], ORIGINAL[0], BETA_BU, ORIGINAL[1], gate_BU)


def test_golden() -> None:
    terms = example()
    torch.testing.assert_close(terms.edited_loss_BT, f64([[0.0, 0.0, 2.0, 1.0]]))
    torch.testing.assert_close(terms.original_loss_BU, f64([[0.0, 0.0, -0.2, 0.0, 0.0]]))
    assert terms.counts_BT.tolist() == [[False, False, True, True]]
    assert terms.counts_BU.tolist() == [[False, False, True, False, False]]
    assert terms.num_tokens.item() == 3
    torch.testing.assert_close(figa_loss(terms).item(), 2.8 / 3, rtol=1e-12, atol=0)


def test_num_tokens_counts_survivors_only_and_jumps_with_the_kept_weight() -> None:
    assert example(threshold=0.3).num_tokens.item() == 2
    assert example(threshold=5.0).num_tokens.item() == 4
    assert example(kept_weight=1e-6).num_tokens.item() == 4


def test_without_a_token_that_counts_the_loss_is_an_exact_differentiable_zero() -> None:
    edited_BT = EDITED[0].clone().requires_grad_()
    original_BU = ORIGINAL[0].clone().requires_grad_()
    gate_BU = gate_below(original_BU, threshold=0.0)
    terms = figa(edited_BT, torch.zeros_like(edited_BT), EDITED[1], original_BU, BETA_BU, ORIGINAL[1], gate_BU)
    loss = figa_loss(terms)
    assert loss.item() == 0
    assert terms.num_tokens.item() == 0
    loss.backward()
    for grad in (edited_BT.grad, original_BU.grad):
        assert grad is not None
        assert not grad.any()


def test_the_step_is_the_sum_of_totals_over_the_sum_of_counts() -> None:
    micro_batches = [example(), example(kept_weight=0.5), example(threshold=5.0)]
    whole = FigaTerms(*(torch.cat(parts) for parts in zip(*micro_batches, strict=True)))
    expected = sum(terms.total for terms in micro_batches) / sum(terms.num_tokens for terms in micro_batches)
    torch.testing.assert_close(figa_loss(whole), expected, rtol=1e-12, atol=0)


def test_gradient_pulls_the_insertion_up_and_pushes_the_deletion_down() -> None:
    edited_BT, original_BU = EDITED[0].clone().requires_grad_(), ORIGINAL[0].clone().requires_grad_()
    weight_BT = f64([[0.0, 0.0, 1.0, 1.0]])
    gate_BU = gate_below(original_BU, threshold=0.6)
    figa(edited_BT, weight_BT, EDITED[1], original_BU, BETA_BU, ORIGINAL[1], gate_BU).total.backward()
    assert edited_BT.grad is not None
    assert edited_BT.grad.tolist() == [[0.0, 0.0, -1.0, -1.0]]
    assert original_BU.grad is not None
    assert original_BU.grad.tolist() == [[0.0, 0.0, 0.5, 0.0, 0.0]]


def test_a_pure_deletion_keeps_the_end_of_sequence() -> None:
    weight_BT = f64([[0.0, 0.0, 0.0, 1.0]])
    gate_BU = gate_below(ORIGINAL[0], threshold=0.6)
    terms = figa(EDITED[0], weight_BT, EDITED[1], ORIGINAL[0], BETA_BU, ORIGINAL[1], gate_BU)
    torch.testing.assert_close(figa_loss(terms).item(), (1.0 - 0.2) / 2)


def test_a_signed_weight_on_the_original_side_is_an_error() -> None:
    gate_BU = gate_below(ORIGINAL[0], threshold=0.0)
    with pytest.raises(ValueError, match=r"original_weight_BU\[0, 2\] is -0.5.*magnitudes"):
        figa(EDITED[0], EDITED[0], EDITED[1], ORIGINAL[0], -BETA_BU, ORIGINAL[1], gate_BU)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_gates_include_their_boundaries(dtype: torch.dtype) -> None:
    logprob_BU = torch.tensor([[-0.59, -0.6, -0.61, -0.99, -1.0, -1.01, torch.nan]], dtype=dtype)
    assert gate_below(logprob_BU, threshold=0.6).tolist() == [[True, True] + 5 * [False]]
    band = [[False, True, True, True, True, False, False]]
    assert gate_band(logprob_BU, low=0.6, high=1.0).tolist() == band


@pytest.mark.parametrize("gate", [lambda x: gate_below(x, threshold=1.0), lambda x: gate_band(x, low=0.0, high=1.0)])
def test_gates_carry_no_gradient(gate: Callable[[Tensor], Tensor]) -> None:
    gate_BU = gate(torch.tensor([[-0.5]], requires_grad=True))
    assert gate_BU.dtype == torch.bool
    assert not gate_BU.requires_grad
