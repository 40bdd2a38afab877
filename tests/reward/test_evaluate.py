from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from errata.labels import label
from errata.reward import auc, best_of_n, localisation, pair_accuracy, token_means
from errata.types import Correction, Encoded

ENCODER = tiny.encoder()
numbers = st.lists(st.integers(-3, 3), min_size=1, max_size=8)  # few values, hence many ties


def row(*ids: int, prompt: int = 1) -> Encoded:
    return Encoded((9,) * prompt + ids, prompt, (), False)


def pays_its_id(rows: Sequence[Encoded]) -> list[list[float]]:
    return [[float(token) for token in row.response_ids] for row in rows]


def test_pair_accuracy_counts_a_tie_one_half() -> None:
    assert pair_accuracy([2.0, 1.0, 0.0, 5.0], [1.0, 1.0, 3.0, -5.0]) == (1 + 0.5 + 0 + 1) / 4
    assert pair_accuracy([1.0], [1.0]) == 0.5
    with pytest.raises(ValueError, match="no pair"):
        pair_accuracy([], [])


def test_pairs_of_different_number_are_an_error() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        pair_accuracy([1.0, 2.0], [1.0, 2.0, 3.0])


def test_auc_by_hand() -> None:
    # 3 beats 1 and 2; 2 beats 1 and ties with 2.
    assert auc([3.0, 2.0], [1.0, 2.0, 4.0]) == (2 + 1.5) / 6
    assert auc([1.0], [0.0]) == 1
    assert auc([0.0, 0.0], [1.0]) == 0
    assert auc([1.0, 1.0], [1.0]) == 0.5


@given(numbers, numbers)
def test_auc_is_the_share_of_pairs_in_order(positive: list[int], negative: list[int]) -> None:
    slow = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative) / (len(positive) * len(negative))
    assert auc(positive, negative) == pytest.approx(slow)
    assert auc(negative, positive) == pytest.approx(1 - slow)


def test_auc_of_nothing_is_no_number() -> None:
    assert math.isnan(auc([], [1.0]))
    assert math.isnan(auc([1.0], []))


def test_best_of_n_takes_the_highest_sum_and_the_first_of_equals() -> None:
    groups = [[row(1, 1), row(4), row(2, 2)], [row(0)], [row(3), row(1, 2, prompt=3)]]
    # Sums 2, 4, 4; 0; 3, 3.
    assert best_of_n(pays_its_id, groups) == [1, 0, 0]
    assert best_of_n(pays_its_id, [[row(1), row(2), row(3)]]) == [2]


def test_token_means_are_those_of_the_response() -> None:
    assert token_means(pays_its_id, [row(1, 2, 6, prompt=4), row(5), row()]) == [3.0, 5.0, 0.0]


def test_localisation_sets_bad_tokens_against_kept_and_good_ones() -> None:
    rows = [
        Correction(id="a", prompt="say", original="rude cat", edited="cat"),
        Correction(id="b", prompt="say", original="red dog sits here", edited="red cat sits here now"),
    ]
    labels = [label(one, ENCODER) for one in rows]
    rude, dog, cat, now = ENCODER.tokenizer.convert_tokens_to_ids(["rude", "dog", "cat", "now"])

    def reward(table: dict[int, float]) -> object:
        return lambda rows: [[table.get(token, 0.0) for token in one.response_ids] for one in rows]

    # Bad: rude, dog. Kept in the originals: cat, end, red, sits, here, end. Good: cat, now.
    assert localisation(reward({rude: -1, dog: -1}), labels) == (1.0, 1.0)
    assert localisation(reward({}), labels) == (0.5, 0.5)
    found = localisation(reward({rude: -1, now: -2}), labels)
    assert found.bad_kept == (6 + 6 / 2) / 12
    assert found.bad_good == (1 + 0 + 0.5 + 0) / 4, "cat above rude and beside dog, now under both"
    assert localisation(reward({cat: -1}), labels).bad_kept == (0 + 5 / 2 * 2) / 12
