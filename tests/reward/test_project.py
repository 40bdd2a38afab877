from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from edits.tokenizers import byte_level, metaspace
from errata.data import Encoder, OnLong
from errata.reward import ProjectedReward, project_rewards
from errata.types import Encoded

Offsets = list[tuple[int, int]]


def cut(length: int, places: set[int], *, ended: bool) -> Offsets:
    """A text of so many characters in pieces, and its end of sequence."""
    ends = sorted({0, length, *(place for place in places if place < length)})
    return [*pairwise(ends), *([(length, length)] if ended else [])]


places = st.sets(st.integers(1, 11))


@st.composite
def cuts(draw: Any) -> tuple[list[float], Offsets, Offsets]:
    length = draw(st.integers(1, 12))
    source, target = (cut(length, draw(places), ended=draw(st.booleans())) for _ in range(2))
    numbers = st.floats(-5, 5, allow_subnormal=False)
    return draw(st.lists(numbers, min_size=len(source), max_size=len(source))), source, target


@given(cuts())
def test_the_sum_is_conserved_and_each_character_pays_its_own_token(case: tuple[list[float], Offsets, Offsets]) -> None:
    rewards, source, target = case
    paid = project_rewards(rewards, source, target)
    assert sum(paid) == pytest.approx(sum(rewards), abs=1e-9)
    slow = [0.0] * len(target)
    for reward, (start, stop) in zip(rewards, source, strict=True):
        if start == stop:
            slow[-1] += reward
        for character in range(start, stop):
            (owner,) = [k for k, (a, b) in enumerate(target) if a <= character < b]
            slow[owner] += reward / (stop - start)
    assert paid == pytest.approx(slow, abs=1e-9)


@given(cuts())
def test_on_itself_nothing_moves(case: tuple[list[float], Offsets, Offsets]) -> None:
    rewards, source, _ = case
    assert project_rewards(rewards, source, source) == pytest.approx(rewards)


def test_by_hand() -> None:
    # Bytes of one character; a character that no token stands for; a gap at the end.
    assert project_rewards([1.0, 2.0, 4.0], [(0, 1), (0, 1), (1, 3)], [(0, 1), (0, 1), (2, 3)]) == [3.0, 0.0, 4.0]
    assert project_rewards([6.0], [(0, 3)], [(0, 1), (1, 2)]) == [2.0, 4.0]
    assert project_rewards([1.0, 5.0], [(0, 2), (2, 2)], [(0, 2)]) == [6.0], "cut off: the end pays the last token"
    assert project_rewards([5.0], [(0, 0)], [(0, 0)]) == [5.0], "an empty response"
    assert project_rewards([], [], []) == []


def test_what_cannot_be_paid_is_an_error() -> None:
    with pytest.raises(ValueError, match="no token to pay them to"):
        project_rewards([1.0], [(0, 0)], [])
    with pytest.raises(ValueError, match="2 source tokens have 1 rewards"):
        project_rewards([1.0], [(0, 1), (1, 2)], [(0, 2)])


@dataclass
class PaysCharacters:
    """A reward model with ids of its own: a token is worth its characters, the end of sequence .5."""

    encoder: Encoder

    def __call__(self, rows: list[Encoded]) -> list[list[float]]:
        assert all(row.ids[: row.prompt_length] == self.encoder.prompt_ids("eat it") for row in rows)
        return [[float(stop - start) or 0.5 for start, stop in row.offsets] for row in rows]


TEXTS = ["The cat sat on the mat.", "Don't eat that mat; it opens!", "café \U0001f431 cat"]


@pytest.mark.parametrize("swap", [False, True])
def test_two_tokenizers(swap: bool) -> None:
    made = [Encoder(byte_level()), Encoder(metaspace())]
    theirs, ours = reversed(made) if swap else made
    reward = ProjectedReward(
        reward=PaysCharacters(theirs), reward_encoder=theirs, policy_encoder=ours, prompts=["eat", "eat it"]
    )
    rows = [ours.encode("eat it", text, ended=k != 1) for k, text in enumerate(TEXTS)]
    bare = [replace(row, offsets=()) for row in rows]
    for found in (reward(rows), reward(bare)):
        for text, row, stream in zip(TEXTS, rows, found, strict=True):
            assert len(stream) == len(row.response_ids)
            (direct,) = PaysCharacters(theirs)([theirs.encode("eat it", text, ended=row.ended)])
            assert sum(stream) == pytest.approx(sum(direct)), "several bytes of one character are paid for each"
            ends = [stop for _, stop in row.offsets]
            if text.isascii():
                # One point a character, wherever the two tokenizers cut.
                width = np.diff([0, *ends]) + 0.5 * (np.arange(len(ends)) == len(ends) - 1) * row.ended
                assert stream == pytest.approx(width.tolist())
    assert theirs.encode("eat it", TEXTS[0]).ids != rows[0].ids


@pytest.mark.parametrize("ended", [True, False])
def test_a_control_token_that_was_sampled_stands_for_no_text(ended: bool) -> None:
    """And is paid nothing, wherever it stands; the reward model reads the text without it."""
    ours = Encoder(byte_level())
    row = ours.encode("eat it", "The cat", ended=ended)
    begin, body = ours.tokenizer.convert_tokens_to_ids("<s>"), ours.body_ids(row.response_ids)
    silent = [begin, *body[:1], begin, begin, *body[1:], begin, *row.response_ids[len(body) :]]
    reward = ProjectedReward(reward=PaysCharacters(ours), reward_encoder=ours, policy_encoder=ours, prompts=["eat it"])
    sampled = Encoded((*row.ids[: row.prompt_length], *silent), row.prompt_length, (), ended)
    plain, found = reward([row, sampled])
    assert plain == [float(stop - start) or 0.5 for start, stop in row.offsets]
    assert [paid for token, paid in zip(silent, found, strict=True) if token != begin] == plain
    assert sum(found) == sum(plain)
    alone = Encoded((*row.ids[: row.prompt_length], begin), row.prompt_length, (), ended=False)
    assert reward([alone]) == [[0.0]]


def test_a_limit_of_the_policys_encoder_cuts_no_sampled_row() -> None:
    ours = Encoder(byte_level())
    short = Encoder(byte_level(), max_length=len(ours.prompt_ids("eat it")) + 2, on_long=OnLong.TRUNCATE)
    theirs = Encoder(metaspace())
    row = ours.encode("eat it", TEXTS[0])
    reward = ProjectedReward(
        reward=PaysCharacters(theirs), reward_encoder=theirs, policy_encoder=short, prompts=["eat it"]
    )
    (stream,) = reward([replace(row, offsets=())])
    assert len(stream) == len(row.response_ids)
    assert sum(stream) == len(TEXTS[0]) + 0.5


def test_unknown_prompts_and_other_functions() -> None:
    encoder = Encoder(byte_level())
    reward = ProjectedReward(
        reward=PaysCharacters(encoder), reward_encoder=encoder, policy_encoder=encoder, prompts=["eat it"]
    )
    with pytest.raises(ValueError, match="not among the prompts"):
        reward([encoder.encode("the mat", "cat")])
    with pytest.raises(ValueError, match="only the rewards of a reward model"):
        reward.fitted([encoder.encode("eat it", "cat")])
    assert tiny.encoder().fingerprint != encoder.fingerprint
