"""The cache with room beside transformers' own, whatever is added and dropped."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, Qwen2Config
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from errata.models.cache import RoomyLayer, cache_for, those_that_stay

SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 11}


class OfConfig:
    def __init__(self, config):
        self.config = config


@given(
    st.lists(st.one_of(st.integers(1, 5), st.lists(st.booleans(), min_size=6, max_size=6)), min_size=1, max_size=12),
    st.integers(0, 2**16),
)
def test_holds_what_transformers_layer_holds(actions, seed):
    random = torch.Generator().manual_seed(seed)
    ours, theirs, rows = RoomyLayer(), DynamicLayer(), 6
    for action in [2, *actions]:
        if isinstance(action, int):
            keys, values = torch.randn(2, rows, 2, action, 3, generator=random)
            for got, wanted in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
                assert torch.equal(got, wanted)
        else:
            kept = those_that_stay(torch.tensor(action[:rows]))
            if not len(kept):
                continue
            rows = len(kept)
            for layer in (ours, theirs):
                layer.batch_select_indices(kept)
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
        assert ours.get_seq_length() == theirs.get_seq_length()


@given(st.lists(st.booleans(), max_size=20))
def test_those_that_stay_are_all_of_them_and_few_move(stays):
    rows = those_that_stay(torch.tensor(stays, dtype=torch.bool)).tolist()
    assert sorted(rows) == [k for k, stay in enumerate(stays) if stay]
    assert sum(k != row for k, row in enumerate(rows)) <= stays.count(False)


def test_room_is_taken_seldom():
    layer, rooms = RoomyLayer(), set()
    for _ in range(200):
        layer.update(torch.zeros(3, 1, 1, 2), torch.zeros(3, 1, 1, 2))
        rooms.add(layer.room[0].data_ptr())
    assert len(rooms) <= 8  # twice as much each time


def test_a_layer_with_a_window_stays_as_it_is():
    plain = cache_for(OfConfig(LlamaConfig(**SIZES)))
    window = cache_for(
        OfConfig(
            Qwen2Config(
                **SIZES, use_sliding_window=True, sliding_window=4, layer_types=["full_attention", "sliding_attention"]
            )
        )
    )
    assert [type(layer) for layer in plain.layers] == [RoomyLayer, RoomyLayer]
    assert [type(layer) for layer in window.layers] == [RoomyLayer, DynamicSlidingWindowLayer]
