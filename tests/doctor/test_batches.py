"""Each way in which a pipeline loses weights without a word is found, and a sound one has no finding."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from doctor import collators
from errata.doctor import Method, check_batch, examine, features_of, streams_of
from errata.doctor.streams import Feature, own_batch
from errata.labels import label_all
from errata.tuning import FIGAConfig
from errata.types import Correction, TokenLabels

ENCODER = tiny.encoder()
ROWS = [
    Correction(id="a", prompt="say one two", original="rude one cat", edited="one dog sits here"),
    Correction(id="b", prompt="tell", original="two rude red cat runs", edited="two cat"),
    Correction(id="same", prompt="say six", original="six six", edited="six six"),
]
CONFIG = FIGAConfig(bad_weight=0.5)
METHODS: tuple[Method, ...] = ("figa", "sft", "dpo", "reward")


def labels() -> list[TokenLabels]:
    return list(label_all(ROWS, ENCODER))


def features(method: Method = "figa") -> list[Feature]:
    each = [features_of(row, streams_of(row, method, CONFIG)) for row in labels()]
    return [one[side] for side in range(len(each[0])) for one in each]


def wrong(collate: Callable[[list[Feature]], Any], rows: list[Feature] | None = None) -> dict[str, dict[str, str]]:
    rows = features() if rows is None else rows
    return check_batch(rows, collate(rows), bos_id=collators.BOS).wrong


@pytest.mark.parametrize("collate", [collators.right, collators.left, collators.packed], ids=lambda one: one.__name__)
def test_a_sound_collator_has_no_finding(collate: Callable[[list[Feature]], Any]) -> None:
    report = check_batch(features(), collate(features()), bos_id=collators.BOS)
    assert report.wrong == {}
    # 4 + 1, 2 + 1 and 2 + 1 tokens of the edited texts; all of the original a, "rude red runs" of b.
    assert report.figures["weighted_tokens_before"] == report.figures["weighted_tokens_after"] == 11 + 3 + 3
    assert report.figures["weight_sum_before"] == pytest.approx(report.figures["weight_sum_after"])


@pytest.mark.parametrize(
    ("collate", "expected"),
    [
        (collators.drops_weights, {"weights_dropped": {"a", "b", "same"}}),
        (collators.packs_without_weights, {"weights_dropped": {"a", "b", "same"}}),
        (collators.cuts_all_but_weights, {"weights_cut_apart": {"a", "b", "same"}, "cut_silently": {"a", "b"}}),
        (collators.masks_below_zero, {"nothing_trained": {"a", "b"}}),
        (collators.masks_answers, {"nothing_trained": {"a", "b", "same"}}),
        (collators.masks_end, {"end_not_trained": {"a", "b", "same"}}),
        (collators.attends_by_id, {"not_attended": {"a", "b", "same"}}),
        (collators.trains_padding, {"padding_trained": {"b", "same", "a"}}),
        (collators.attends_padding, {"padding_attended": {"a", "b", "same"}}),
        (collators.doubles_bos, {"double_bos": {"a", "b", "same"}}),
        (collators.cuts, {"cut_silently": {"a", "b"}}),
        (collators.cuts_beginning, {"cut_silently": {"a", "b"}}),
        (collators.loses_a_row, {"row_lost": {"a"}}),
        (collators.doubles_weights, {"weights_changed": {"a", "b", "same"}}),
        (collators.packs_without_boundaries, {"packed_without_boundaries": {"a"}}),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_each_silent_failure_is_found(collate: Callable[[list[Feature]], Any], expected: dict[str, set[str]]) -> None:
    found = {name: set(rows) for name, rows in wrong(collate).items()}
    for name, rows in expected.items():
        assert found.pop(name) <= rows, name
    assert not found


def test_training_on_the_prompt_is_found() -> None:
    rows = features("sft")
    assert set(wrong(collators.trains_prompt, rows)) == {"prompt_trained"}


def test_a_masked_negative_term_is_named_as_such() -> None:
    # A row of both signs: the mask of weights above zero leaves half of it.
    rows = [{**features()[0], "weights": [0.0] * 4 + [1.0, -0.5, 0.0, -0.25, 1.0]}]
    assert wrong(collators.masks_below_zero, rows) == {
        "weights_masked": {"a": "2 tokens of weight -0.5 (all of them below zero)"}
    }


def test_weights_that_moved_are_found() -> None:
    found = wrong(collators.shifts_weights)
    assert found["weights_changed"]
    assert "end_not_trained" not in found  # γ came to stand on it


def test_ids_that_were_tokenised_again_are_found() -> None:
    rows = [{**features()[0], "input_ids": [1, 4, 6, 7, 41, 12, 13, 14, 2]}]
    report = check_batch(
        rows, collators.replaces_ids(rows), decode=lambda ids: " ".join("41" if x == 40 else str(x) for x in ids)
    )
    # Most of it is there, so without the text it looks cut.
    assert set(check_batch(rows, collators.replaces_ids(rows)).wrong) & {"cut_silently", "row_lost"}
    assert set(report.wrong) == {"tokenised_again"}


def test_the_same_ids_with_other_weights_are_told_apart() -> None:
    # The row "same" stands twice, weighed as edited text and not at all as original.
    rows = features()
    assert rows[2]["input_ids"] == rows[5]["input_ids"]
    assert rows[2]["weights"] != rows[5]["weights"]
    shuffled = rows[:]
    random.Random(0).shuffle(shuffled)
    assert check_batch(rows, collators.packed(shuffled)).wrong == {}


@pytest.mark.parametrize("method", METHODS)
def test_the_trainers_own_collators_keep_every_weight(method: Method) -> None:
    rows = features(method)
    assert check_batch(rows, own_batch(labels(), method, ENCODER, CONFIG), bos_id=collators.BOS).wrong == {}
    assert any(weight for one in rows for weight in one["weights"])


def test_a_mask_of_pairs_keeps_packed_rows_apart() -> None:
    batch = collators.packs_without_boundaries(features())
    columns = batch["input_ids"].shape[1]
    assert check_batch(features(), {**batch, "attention_mask": torch.ones(1, 1, columns, columns)}).wrong == {}


def test_weights_in_bfloat16_and_under_another_name_are_the_same() -> None:
    batch = collators.right(features())
    renamed = {**collators.without("weights", batch), "loss_scale": batch["weights"].bfloat16()}
    assert check_batch(features(), renamed, weights="loss_scale").wrong == {}
    assert set(check_batch(features(), renamed).wrong) == {"weights_dropped"}


def test_lists_and_one_flat_line_are_batches_too() -> None:
    rows = features()
    assert check_batch(rows, {name: [one[name] for one in rows] for name in collators.NAMES}).wrong == {}
    flat = {name: [x for one in rows for x in one[name]] for name in collators.NAMES}
    assert set(check_batch(rows, flat).wrong) == {"packed_without_boundaries"}


def test_a_batch_of_other_names_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"no input_ids but \['ids'\]; rename"):
        check_batch(features(), {"ids": []})


@given(st.data())
def test_any_order_and_packing_is_sound_and_any_changed_weight_is_not(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    number = st.sampled_from([-0.5, 0.0, 0.25, 1.0])
    rows: list[Feature] = []
    for k in range(count):
        prompt, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
        ids = data.draw(st.lists(st.integers(5, 8), min_size=prompt + size, max_size=prompt + size))
        weights = [0.0] * prompt + data.draw(st.lists(number, min_size=size, max_size=size))
        mask = [0] * prompt + [1] * size
        seen = [token if one else -100 for token, one in zip(ids, mask, strict=True)]
        one = {"id": str(k), "input_ids": [100 + k, *ids], "attention_mask": [1] * (len(ids) + 1)}
        rows.append({**one, "labels": [-100, *seen], "completion_mask": [0, *mask], "weights": [0.0, *weights]})
    collate = data.draw(st.sampled_from([collators.right, collators.left, collators.packed]))
    given_rows = data.draw(st.permutations(rows))
    batch = collate(given_rows)
    assert check_batch(rows, batch).wrong == {}
    columns = [(row, column) for row, column in (batch["weights"] != 0).nonzero().tolist()]
    if columns:
        row, column = data.draw(st.sampled_from(columns))
        batch["weights"][row, column] *= data.draw(st.sampled_from([0.0, -1.0, 1.5]))
        assert check_batch(rows, batch).wrong


@pytest.mark.parametrize("method", METHODS)
def test_examine_finds_it_in_a_users_collator(method: Method) -> None:
    sound = examine(ROWS, ENCODER, method=method, config=CONFIG, collate=collators.right)
    broken = examine(ROWS, ENCODER, method=method, config=CONFIG, collate=collators.masks_answers, batch_size=2)
    assert sound.safe
    assert "nothing_trained" in broken.names()
    assert not broken.safe
