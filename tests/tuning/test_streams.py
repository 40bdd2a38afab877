from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from errata.losses import moments
from errata.tuning.streams import Head, Stream, check_streams, group, last_token, paid, summed
from errata.types import Encoded

MASK_BT = torch.tensor([[False, True, True, True, False], [False, False, True, False, False]])
REWARD_BT = torch.tensor([[9.0, 1.0, 2.0, 6.0, 9.0], [9.0, 9.0, 3.0, 9.0, 9.0]])


def nothing(rows: Sequence[Encoded]) -> list[list[float]]:
    raise AssertionError


def stream(**settings: Any) -> Stream:
    return Stream(**{"name": "one", "reward": nothing, **settings})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[0, 1, 2, 6, 0], [0, 0, 3, 0, 0]]),
        ({"coefficient": -2.0}, [[0, -2, -4, -12, 0], [0, 0, -6, 0, 0]]),
        ({"clip": 2.0, "coefficient": 10.0}, [[0, 10, 20, 20, 0], [0, 0, 20, 0, 0]]),
        ({"centred": True}, [[0, -2, -1, 3, 0], [0, 0, 0, 0, 0]]),
        ({"centred": True, "clip": 1.5}, [[0, -1.5, -1, 1.5, 0], [0, 0, 0, 0, 0]]),
        ({"penalties_only": True}, [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]),
        ({"centred": True, "penalties_only": True, "coefficient": 2.0}, [[0, -4, -2, 0, 0], [0, 0, 0, 0, 0]]),
        ({"clip": 0.5, "penalties_only": True, "centred": True}, [[0, -0.5, -0.5, 0, 0], [0, 0, 0, 0, 0]]),
    ],
)
def test_what_a_stream_pays(settings: dict[str, Any], expected: list[list[float]]) -> None:
    assert paid(stream(**settings), REWARD_BT, MASK_BT, moments).tolist() == expected


def test_a_terminal_stream_is_centred_over_responses() -> None:
    """Rewards of 4 and 2 at the last tokens: 3 is taken off there, and nowhere else."""
    reward_BT = torch.tensor([[0.0, 0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 2.0, 0.0, 0.0]])
    found_BT = paid(stream(centred=True, terminal=True), reward_BT, MASK_BT, moments)
    assert found_BT.tolist() == [[0, 0, 0, 1, 0], [0, 0, -1, 0, 0]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_an_error(bad: float) -> None:
    reward_BT = REWARD_BT.clone()
    reward_BT[0, 0] = bad  # outside the mask it is nobody's
    assert paid(stream(), reward_BT, MASK_BT, moments).isfinite().all()
    reward_BT[1, 2] = bad
    with pytest.raises(ValueError, match="stream 'one' gives response 1 of this round"):
        paid(stream(), reward_BT, MASK_BT, moments)


def test_the_last_token_is_where_the_mask_ends() -> None:
    mask_BT = torch.tensor([[True, True], [True, False], [False, False]])
    assert last_token(mask_BT).tolist() == [[False, True], [True, False], [False, False]]


def test_heads_come_as_the_streams_need_them() -> None:
    settings = {"discount": 0.5, "terminal_discount": 0.9, "terminal_weight": 2.0}
    dense, terminal = stream(), stream(name="two", terminal=True)
    assert group([dense], **settings) == [Head("dense", 0.5, 1.0)]
    assert group([terminal], **settings) == [Head("terminal", 0.9, 2.0)]
    assert group([terminal, dense], **settings) == [Head("dense", 0.5, 1.0), Head("terminal", 0.9, 2.0)]


def test_penalties_a_token_go_to_the_first_head_and_that_of_the_end_to_the_last() -> None:
    heads = [Head("dense", 0.5, 1.0), Head("terminal", 1.0, 1.0)]
    streams = [stream(), stream(name="two", terminal=True)]
    pays = {name: torch.full((1, 1), 2.0**k) for k, name in enumerate(["one", "two", "kl", "length", "missing_eos"])}
    assert [rewards_BT.item() for rewards_BT in summed(heads, streams, pays)] == [1 + 4 + 8, 2 + 16]
    assert summed(heads[:1], streams[:1], {k: pays[k] for k in ("one", "kl", "missing_eos")})[0].item() == 1 + 4 + 16


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a", "kl"]])
def test_streams_have_names_of_their_own(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"no stream|a name of its own"):
        check_streams([stream(name=name) for name in names])
