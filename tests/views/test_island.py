from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.views.island import DIGITS, pack, to_json


def unpack(head: dict[str, Any], text: str) -> list[float]:
    """As the script of the page does it, slowly."""
    values = []
    for start in range(0, len(text), head["width"]):
        index = 0
        for digit in text[start : start + head["width"]]:
            index = index * len(DIGITS) + DIGITS.index(digit)
        values.append(head["table"][index])
    return values


def test_by_hand() -> None:
    assert pack([[7, 7, 300], [], [300]]) == ({"table": [7, 300], "width": 1}, ["!!#", "", "#"])
    assert pack([[-0.5, 1.0]]) == ({"table": [-0.5, 1.0], "width": 1}, ["!#"])
    assert pack([]) == ({"table": [], "width": 1}, [])


@given(st.lists(st.lists(st.integers(-1, 200_000)), max_size=4), st.booleans())
def test_packed_streams_come_back(streams: list[list[float]], wide: bool) -> None:
    streams = [*streams, list(range(len(DIGITS) * (1 + wide)))]
    head, texts = pack(streams)
    assert head["width"] >= 1 + wide
    assert [unpack(head, text) for text in texts] == streams


def test_no_digit_needs_an_escape() -> None:
    assert to_json(DIGITS) == f'"{DIGITS}"'
    assert len(set(DIGITS)) == len(DIGITS) > 85


@given(st.text() | st.text("<>/!-&\u2028\u2029\ud83d\ude00\x00\x7fscript"))
def test_json_comes_back_and_html_sees_nothing(text: str) -> None:
    written = str(to_json({"a": text}))
    assert json.loads(written.encode("utf-8"))["a"] == json.loads(json.dumps(text))
    assert not set("<>&\u2028\u2029\x00") & set(written)


def test_no_number_that_json_has_not() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json([float("nan")])
