from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.labels import token_weights
from errata.labels.weights import check_weights
from errata.types import Label

K, N, D, S, M, X = Label  # N for new: INSERTED; M for missing: OMISSION; X: IGNORED


def test_figa_by_hand() -> None:
    edited = token_weights(
        (K, N, S, K, K), kept=0.1, inserted=1.0, deleted=9.0, substituted=0.8, omission=7, end=0.7, ended=True
    )
    assert edited == (0.1, 1.0, 0.8, 0.1, 0.7)
    original = token_weights(
        (D, K, S), kept=0.0, inserted=9.0, deleted=-0.5, substituted=0.25, omission=7, end=0.0, ended=False
    )
    assert original == (-0.5, 0.0, 0.25)


def test_end_by_its_label() -> None:
    assert token_weights((N, K), kept=2, inserted=3, deleted=0, substituted=0, omission=7, end=None, ended=True) == (
        3.0,
        2.0,
    )


def test_an_end_that_is_blamed_for_an_omission_is_no_kept_end() -> None:
    weights = token_weights((X, M), kept=2, inserted=3, deleted=0, substituted=0, omission=-0.5, end=0.0, ended=True)
    assert weights == (0.0, -0.5)


def test_empty_response() -> None:
    assert token_weights((), kept=1, inserted=1, deleted=1, substituted=1, omission=7, end=5, ended=False) == ()


@given(st.lists(st.sampled_from(Label), max_size=9), st.booleans())
def test_one_weight_for_each_token(labels: list[Label], ended: bool) -> None:
    weights = token_weights([*labels, K], kept=1, inserted=2, deleted=3, substituted=4, omission=7, end=5, ended=ended)
    assert weights == (*({K: 1, N: 2, D: 3, S: 4, M: 7, X: 0}[name] for name in labels), 5 if ended else 1)


@pytest.mark.parametrize("wrong", [-1, 6])
def test_unknown_label(wrong: int) -> None:
    with pytest.raises(ValueError, match=r"run from 0 to 5"):
        token_weights((0, wrong), kept=1, inserted=1, deleted=1, substituted=1, omission=7, end=None, ended=True)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1.1e6, 1e39, 10**400, True, "1", None])
@pytest.mark.parametrize("original", [False, True])
def test_a_weight_is_a_finite_number(wrong: object, original: bool) -> None:
    with pytest.raises(ValueError, match=r"weight .* is no number of at most 1,000,000 in size; give one"):
        check_weights([1.0, wrong], original=original)


def test_weights_have_any_sign_and_size_and_the_originals_are_sizes() -> None:
    check_weights([-1e3, -1e-7, 0, 1e-7, 1e3, 1e6], original=False)
    check_weights([0.0, -0.0, 1e-7, 1e3], original=True)
    with pytest.raises(ValueError, match=r"weight -1e-07 is below zero: on the original side .* without its sign"):
        check_weights([1.0, -1e-7], original=True)
