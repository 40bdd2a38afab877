from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from errata.models import pad, pad_stream, to_lists
from errata.types import Encoded


@st.composite
def rows_and_streams(draw: st.DrawFn) -> tuple[list[Encoded], list[list[float]]]:
    rows, streams = [], []
    for _ in range(draw(st.integers(1, 4))):
        prompt, response = draw(st.integers(1, 4)), draw(st.integers(0, 5))
        ids = draw(st.lists(st.integers(0, 9), min_size=prompt + response, max_size=prompt + response))
        rows.append(Encoded(tuple(ids), prompt, (), False))
        numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
        streams.append(draw(st.lists(numbers, min_size=response, max_size=response)))
    return rows, streams


@given(rows_and_streams())
def test_streams_come_back_whatever_their_sign_and_size(case: tuple[list[Encoded], list[list[float]]]) -> None:
    rows, streams = case
    batch = pad(rows, pad_id=3)
    stream_BT = pad_stream(streams, batch)
    assert to_lists(stream_BT, batch) == streams
    assert torch.equal(stream_BT[~batch.response_mask_BT], torch.zeros(int((~batch.response_mask_BT).sum())))


def test_negative_large_and_tiny_weights_survive() -> None:
    batch = pad([Encoded((1, 2, 3, 4), 1, (), False), Encoded((5, 6), 1, (), False)], pad_id=0)
    stream_BT = pad_stream([[-0.5, 1e30, -1e-30], [-7.0]], batch)
    assert stream_BT.tolist() == [[0.0, -0.5, pytest.approx(1e30), pytest.approx(-1e-30)], [0.0, -7.0, 0.0, 0.0]]


@given(rows_and_streams(), st.integers(0, 10))
def test_masks_come_from_lengths_and_never_from_ids(case: tuple[list[Encoded], list[list[float]]], pad_id: int) -> None:
    rows, _ = case
    batch = pad(rows, pad_id=pad_id)  # most pad ids stand in rows, too
    for b, row in enumerate(rows):
        length = len(row.ids)
        assert batch.ids_BT[b].tolist() == [*row.ids, *[pad_id] * (batch.ids_BT.shape[1] - length)]
        assert batch.attention_mask_BT[b].nonzero().flatten().tolist() == list(range(length))
        assert batch.response_mask_BT[b].nonzero().flatten().tolist() == list(range(row.prompt_length, length))
    assert batch.ids_BT.shape[1] == max(len(row.ids) for row in rows)


@pytest.mark.parametrize("stream", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], []], ids=["short", "long", "none"])
def test_a_stream_of_another_length_is_an_error_that_names_the_row(stream: list[float]) -> None:
    rows = [Encoded((1, 2), 1, (), False), Encoded((1, 2, 3, 4), 1, (), False)]
    with pytest.raises(ValueError, match=f"row 1 has 3 response tokens and {len(stream)} values"):
        pad_stream([[1.0], stream], pad(rows, pad_id=0))


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_streams_than_rows_is_an_error(count: int) -> None:
    batch = pad([Encoded((1, 2), 1, (), False)] * 2, pad_id=0)
    with pytest.raises(ValueError, match="zip"):
        pad_stream([[1.0]] * count, batch)


def test_some_rows_of_a_batch_keep_their_masks() -> None:
    rows = [Encoded((1, 2, 3), 1, (), False), Encoded((4, 5), 1, (), False), Encoded((6, 7, 8, 9), 2, (), False)]
    batch = pad(rows, pad_id=0)
    part = batch[torch.tensor([2, 0])]
    assert part.ids_BT.tolist() == [[6, 7, 8, 9], [1, 2, 3, 0]]
    assert part.response_mask_BT.tolist() == [[False, False, True, True], [False, True, True, False]]
    assert batch[1:2].attention_mask_BT.tolist() == [[True, True, False, False]]


@given(rows_and_streams(), st.integers(1, 5))
def test_rows_of_like_length_together_are_all_rows(case: tuple[list[Encoded], list[list[float]]], size: int) -> None:
    rows, _ = case
    batch = pad(rows, pad_id=3)
    parts = batch.alike(size)
    assert sorted(torch.cat(list(parts)).tolist()) == list(range(len(rows)))
    assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    lengths = [len(rows[k].ids) for part in parts for k in part.tolist()]
    assert lengths == sorted(lengths)
    for part in parts:
        alone = pad([rows[k] for k in part.tolist()], pad_id=3)
        narrowed = batch.narrowed(part)
        assert torch.equal(narrowed.ids_BT, alone.ids_BT)
        assert torch.equal(narrowed.attention_mask_BT, alone.attention_mask_BT)
        assert torch.equal(narrowed.response_mask_BT, alone.response_mask_BT)
