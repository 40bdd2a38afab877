"""A layout changes nothing but the work: every number is that of each sequence by itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen3Config,
)

from errata.models import (
    Layout,
    LayoutKind,
    Wanted,
    choose_layout,
    common_length,
    laid_out_last_scalars,
    laid_out_logprobs,
    laid_out_scalars,
    lay_out,
    without_dropout,
)
from errata.models.laid_out import _attention
from errata.models.tree import plant, window_of
from errata.types import Encoded

VOCABULARY = 40
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEAD = {"head_dim": 8}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.4}
ARCHITECTURES: dict[str, tuple[PretrainedConfig, str]] = {
    "llama": (LlamaConfig(**SIZES), "sdpa"),
    "llama eager": (LlamaConfig(**SIZES), "eager"),
    "qwen3": (Qwen3Config(**SIZES, **HEAD), "sdpa"),
    "qwen3 windows": (
        Qwen3Config(**SIZES, **HEAD, use_sliding_window=True, sliding_window=4, max_window_layers=1),
        "sdpa",
    ),
    "gpt2": (GPT2Config(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, **GPT2), "sdpa"),
    "gpt2 eager": (GPT2Config(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, **GPT2), "eager"),
    "mistral": (MistralConfig(**SIZES, sliding_window=4), "sdpa"),
    "gemma2": (Gemma2Config(**SIZES, **HEAD, sliding_window=4), "eager"),
}
"""Windows of 4 tokens: shorter than the rows below."""


def model_of(name: str, auto: Any = AutoModelForCausalLM, **settings: Any) -> Any:
    config, attention = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = auto.from_config(type(config)(**{**config.to_dict(), **settings}), attn_implementation=attention)
    return without_dropout(built).eval()


def kinds_of(name: str) -> list[LayoutKind]:
    """What a model can be given: the tree stands in for sdpa."""
    return [kind for kind in LayoutKind if kind is not LayoutKind.TREE or ARCHITECTURES[name][1] == "sdpa"]


def sequence(prompt: Sequence[int], response: Sequence[int]) -> Encoded:
    return Encoded((*prompt, *response), len(prompt), (), ended=False)


def pair(rng: random.Random, kind: str) -> list[Wanted]:
    """Two sides, of which one may be empty but for its end; each with some of its tokens read."""
    prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 8))]
    original = [rng.randrange(VOCABULARY) for _ in range(0 if kind == "from nothing" else rng.randint(1, 12))]
    at = rng.randint(0, len(original))
    new = [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 4))]
    edited = {
        "same": original,
        "insertion": original[:at] + new + original[at:],
        "deletion": original[:at] + original[at + 2 :],
        "substitution": original[:at] + new + original[at + 2 :],
        "from nothing": new,
    }[kind]
    share = rng.choice([0.0, 0.3, 1.0])
    sides = []
    for ids in (edited, original):
        ended = [*ids, *([2] if rng.random() < 0.8 or not ids else [])]
        sides.append(Wanted(sequence(prompt, ended), [rng.random() < share for _ in ended]))
    return sides


KINDS = ("same", "insertion", "deletion", "substitution", "from nothing")


def pairs(seed: int, *, least: int = 1) -> list[list[Wanted]]:
    rng = random.Random(seed)
    found = [pair(rng, kind) for kind in KINDS for _ in range(2)]
    rng.shuffle(found)
    assert sum(sum(side.marks) for row in found for side in row) >= least
    return found


def in_order(groups: Sequence[Sequence[Wanted]]) -> list[Wanted]:
    return [group[side] for side in range(len(groups[0])) for group in groups]


def one_by_one(model: Any, groups: Sequence[Sequence[Wanted]], shape: torch.Size) -> torch.Tensor:
    """The slow twin: each sequence alone, whole, every token predicted."""
    rows = []
    for encoded, marks in in_order(groups):
        logprob_TV = model(torch.tensor([encoded.ids])).logits[0].log_softmax(-1)
        row = [
            logprob_TV[t - 1, encoded.ids[t]] if mark else torch.zeros(())
            for t, mark in enumerate(marks, start=encoded.prompt_length)
        ]
        rows.append(torch.stack(row + [torch.zeros(())] * (shape[1] - len(row))))
    return torch.stack(rows)


def gradients(model: Any, value: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    weight = torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
    (value * weight).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logprobs_and_gradients_are_those_of_each_sequence_alone(name: str) -> None:
    model, groups = model_of(name), pairs(7, least=20)
    best = kinds_of(name)[0]
    assert choose_layout(model) == (best, best.value)
    for kind in kinds_of(name):
        layout = lay_out(groups, kind, pad_id=0)
        found = laid_out_logprobs(model, layout)
        expected = one_by_one(model, groups, found.shape)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        for ours, slow in zip(gradients(model, found), gradients(model, expected), strict=True):
            torch.testing.assert_close(ours, slow, rtol=1e-3, atol=1e-4 * float(slow.abs().max()) + 1e-7)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rewards_are_those_of_each_sequence_alone(name: str) -> None:
    tokens = model_of(name, AutoModelForTokenClassification, num_labels=1, id2label={0: "r"}, label2id={"r": 0})
    assert choose_layout(tokens)[0] is kinds_of(name)[0]
    groups = pairs(8, least=20)
    rows, slopes = in_order(groups), {}
    for kind in kinds_of(name):
        layout = lay_out(groups, kind, pad_id=0, predicted=False)
        found = laid_out_scalars(tokens, layout)
        slopes[kind] = gradients(tokens, found)
        for row, (encoded, marks) in zip(found, rows, strict=True):
            alone = tokens(torch.tensor([encoded.ids])).logits[0, encoded.prompt_length :, 0]
            expected = torch.where(torch.tensor(marks), alone, 0.0)
            torch.testing.assert_close(row[: len(marks)], expected, rtol=1e-4, atol=1e-5)
            assert row[len(marks) :].count_nonzero() == 0
    for kind in kinds_of(name):
        for ours, plain in zip(slopes[kind], slopes[LayoutKind.PLAIN], strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()) + 1e-7)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3 windows", "mistral"])
@pytest.mark.parametrize("pad", [None, 2])
def test_sequence_rewards_are_those_of_each_sequence_alone(name: str, pad: int | None) -> None:
    whole = model_of(
        name, AutoModelForSequenceClassification, num_labels=1, id2label={0: "r"}, label2id={"r": 0}, pad_token_id=pad
    )
    groups = [
        [Wanted(side.encoded, np.arange(len(side.marks)) == len(side.marks) - 1) for side in row] for row in pairs(9)
    ]
    for kind in kinds_of(name):
        found = laid_out_last_scalars(whole, lay_out(groups, kind, pad_id=0, predicted=False))
        assert whole.config.pad_token_id == pad
        whole.config.pad_token_id = None  # else the stock class reads before an end that is the pad id, too
        expected = [whole(torch.tensor([encoded.ids])).logits[0, 0] for encoded, _ in in_order(groups)]
        whole.config.pad_token_id = pad
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def seen_in(layout: Layout) -> torch.Tensor:
    """Which columns each column sees."""
    if layout.tree is None:
        return _attention(model_of("llama"), layout)[:, 0]  # type: ignore[no-any-return]
    sees_CC = torch.zeros(2 * (layout.ids_RC.shape[1],), dtype=torch.bool)
    for number, block in enumerate(layout.tree.blocks):
        causal, mask = layout.tree.how(number, None, torch.float32)
        columns = torch.cat([torch.arange(start, stop) for start, stop in block.seen])
        size = block.stop - block.start
        masked = torch.ones(size, len(columns)).tril().bool() if causal else torch.ones(size, len(columns)).bool()
        sees_CC[block.start : block.stop, columns] = masked if mask is None else mask == 0
    return sees_CC[None]


@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.sampled_from([LayoutKind.TREE, LayoutKind.SHARED]))
def test_what_is_read_has_seen_its_sequence_and_nothing_else(
    seed: int, predicted: bool, single: bool, kind: LayoutKind
) -> None:
    """No model: the mask and the positions alone say what a column has seen."""
    groups = [row[:1] for row in pairs(seed, least=0)] if single else pairs(seed, least=0)
    layout = lay_out(groups, kind, pad_id=0, predicted=predicted)
    sees_RCC = seen_in(layout)
    rows, width = layout.ids_RC.shape
    read = iter(zip(layout.read_N.tolist(), layout.target_N.tolist(), strict=True))
    last = 0
    for encoded, marks in in_order(groups):
        for t, mark in enumerate(marks, start=encoded.prompt_length):
            if not mark:
                continue
            column, target = next(read)
            row, column = divmod(column, width)
            seen = sees_RCC[row, column].nonzero().flatten()
            stop = t if predicted else t + 1
            assert layout.ids_RC[row, seen].tolist() == list(encoded.ids[:stop])
            assert layout.position_RC[row, seen].tolist() == list(range(stop))
            assert seen[-1] == column
            assert target == encoded.ids[t]
            last = max(last, stop)
    assert next(read, None) is None
    assert layout.wanted_SK.sum() == len(layout.read_N)
    if not len(layout.read_N):
        return
    # Nothing is computed that nobody reads: every column is seen by one that is read.
    used_RC = torch.zeros(rows * width, dtype=torch.bool)
    for column in layout.read_N.tolist():
        row = column // width
        used_RC[row * width : (row + 1) * width] |= sees_RCC[row, column % width]
    assert torch.equal(used_RC.view(rows, width), layout.group_RC >= 0)


def test_how_much_is_left() -> None:
    """A prompt of 5, a response of 4 + end, of which the third word is substituted; only that one and the end count."""
    edited, original = (sequence(range(5, 10), [11, 12, word, 14, 2]) for word in (13, 23))
    good, bad = Wanted(edited, [False, False, True, False, True]), Wanted(original, [False, False, True, False, False])
    assert common_length(edited, original) == 7
    plain, shared = (lay_out([[good, bad]], kind, pad_id=0) for kind in (LayoutKind.PLAIN, LayoutKind.SHARED))
    assert plain.ids_RC.shape == (2, 10)
    # Prompt and two words; then 13 and 14, which predict 14 and the end. The original's 23 is predicted and not given.
    assert shared.ids_RC.tolist() == [[5, 6, 7, 8, 9, 11, 12, 13, 14]]
    assert shared.branch_RC.tolist() == [[0] * 7 + [1] * 2]
    assert shared.read_N.tolist() == [6, 8, 6]
    assert shared.target_N.tolist() == [13, 2, 23]
    tree = lay_out([[good, bad], [good, bad]], LayoutKind.TREE, pad_id=0)
    assert tree.ids_RC.tolist() == shared.ids_RC.tolist(), "the second pair is there, too"
    assert tree.read_N.tolist() == [6, 8, 6, 8, 6, 6]
    rewards = lay_out([[good, bad]], LayoutKind.SHARED, pad_id=0, predicted=False)
    assert rewards.ids_RC.tolist() == [[5, 6, 7, 8, 9, 11, 12, 13, 14, 2, 23]]
    assert rewards.position_RC.tolist() == [[*range(7), 7, 8, 9, 7]]


def test_a_tree_holds_every_beginning_once() -> None:
    rows = [[1, 2, 3, 4], [1, 2, 5], [], [1, 2, 3, 6, 7], [8], [1, 2, 3, 4], [1, 2]]
    planted = plant([np.array(row, np.int64) for row in rows])
    assert planted.ids.tolist() == [1, 2, 3, 4, 6, 7, 5, 8]
    assert planted.positions.tolist() == [0, 1, 2, 3, 3, 4, 2, 0]
    assert planted.nodes.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    for row, columns in zip(rows, planted.columns, strict=True):
        assert planted.ids[columns].tolist() == row
        assert planted.positions[columns].tolist() == list(range(len(row)))
    assert [node.seen for node in planted.tree.nodes] == [
        ((0, 2),),
        ((0, 3),),
        ((0, 4),),
        ((0, 3), (4, 6)),
        ((0, 2), (6, 7)),
        ((7, 8),),
    ]


def test_a_window_is_that_of_the_layer() -> None:
    windows = ARCHITECTURES["qwen3 windows"][0]
    assert [window_of(windows, layer) for layer in (0, 1)] == [None, 4]
    assert window_of(ARCHITECTURES["mistral"][0], 0) == 4
    assert window_of(ARCHITECTURES["llama"][0], 0) is None


def test_a_layout_in_which_nothing_is_read() -> None:
    silent = [[Wanted(sequence([5, 6], [7, 2]), [False, False])]]
    model = model_of("llama")
    for kind in LayoutKind:
        found = laid_out_logprobs(model, lay_out(silent, kind, pad_id=0))
        assert found.tolist() == [[0.0, 0.0]]
        found.sum().backward()


def test_groups_are_packed_into_rows_no_longer_than_the_longest() -> None:
    rows = [[Wanted(sequence([5], [7] * size), [True] * size)] for size in (2, 9, 3, 4, 5)]
    layout = lay_out(rows, LayoutKind.SHARED, pad_id=39)
    sizes = [(layout.group_RC == k).sum().item() for k in range(5)]
    assert sizes == [2, 9, 3, 4, 5], "the prompt and all but the last"
    assert layout.ids_RC.shape == (3, 9)
    assert (layout.ids_RC == 39).sum() == (layout.group_RC == -1).sum() == 27 - 23


def test_weights_of_any_sign_and_size_survive_packing() -> None:
    rng = random.Random(1)
    groups = [[Wanted(side.encoded, [True] * len(side.marks)) for side in row] for row in pairs(2)]
    weights = [[rng.choice([-2.5, -1e-7, 1e-7, 0.0, 1e3, 3.0]) for _ in side.marks] for side in in_order(groups)]
    model = model_of("llama")
    found = {}
    for kind in LayoutKind:
        layout = lay_out(groups, kind, pad_id=0)
        weight_SK = layout.stream(weights)
        for row, values in zip(weight_SK, weights, strict=True):
            assert row[: len(values)].tolist() == torch.tensor(values).tolist()
            assert not row[len(values) :].any()
        found[kind] = (laid_out_logprobs(model, layout) * weight_SK).sum()
    for kind in LayoutKind:
        torch.testing.assert_close(found[kind], found[LayoutKind.PLAIN], rtol=1e-4, atol=1e-2)


def test_a_stream_that_was_cut_apart_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 0 has 2 response tokens and 1 values; make the stream again"):
        lay_out([[Wanted(sequence([5], [7, 2]), [True])]], LayoutKind.SHARED, pad_id=0)
    layout = lay_out([[Wanted(sequence([5], [7, 2]), [True, True])]], LayoutKind.SHARED, pad_id=0)
    for values in ([1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match=f"row 0 has 2 response tokens and {len(values)} values"):
            layout.stream([values])


def test_padding_of_any_id_changes_nothing() -> None:
    model, groups = model_of("qwen3"), pairs(4)
    for kind in LayoutKind:
        one, other = (laid_out_logprobs(model, lay_out(groups, kind, pad_id=pad)) for pad in (0, 33))
        torch.testing.assert_close(one, other)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
@pytest.mark.parametrize(("name", "kind"), [("llama", "tree"), ("llama", "shared"), ("gemma2", "shared")])
def test_with_checkpointed_gradients_and_in_bfloat16(name: str, kind: str) -> None:
    model, groups = model_of(name).train(), pairs(5, least=20)
    layout = lay_out(groups, LayoutKind(kind), pad_id=0)
    expected = gradients(model, laid_out_logprobs(model, layout))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for ours, whole in zip(gradients(model, laid_out_logprobs(model, layout)), expected, strict=True):
        torch.testing.assert_close(ours, whole)
    full = laid_out_logprobs(model, layout)
    with torch.autocast("cpu", torch.bfloat16):
        half = laid_out_logprobs(model, layout)
    assert half.dtype == torch.float32
    assert 0 < float((half - full).detach().abs().mean()) < 0.1


class TestChoice:
    def test_as_asked_for(self) -> None:
        assert choose_layout(model_of("llama"), "plain") == (LayoutKind.PLAIN, "plain, as asked for")

    @pytest.mark.parametrize(
        "config",
        [
            OPTConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                word_embed_proj_dim=16,
                ffn_dim=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=128,
            ),
            MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4),
        ],
        ids=["opt", "mamba"],
    )
    def test_other_architectures_are_exact_or_plain(
        self, config: PretrainedConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        torch.manual_seed(0)
        model = without_dropout(AutoModelForCausalLM.from_config(config)).eval()
        kind, said = choose_layout(model)
        groups = pairs(3, least=10)
        found = laid_out_logprobs(model, lay_out(groups, kind, pad_id=0))
        torch.testing.assert_close(found, one_by_one(model, groups, found.shape), rtol=1e-3, atol=1e-4)
        if kind is LayoutKind.PLAIN:
            assert said.startswith("plain: ")
            assert said.removeprefix("plain: ") in caplog.text

    @pytest.mark.parametrize("wrong", ["no positions", "no tree", "no window in a tree"])
    def test_a_tree_that_would_be_silently_wrong_is_noticed(self, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model = model_of("mistral" if "window" in wrong else "llama")
        right = sys.modules["errata.models.laid_out"]._inputs

        def inputs(model: Any, layout: Any) -> dict[str, Any]:
            given: dict[str, Any] = right(model, layout)
            if layout.kind is LayoutKind.TREE:
                given.pop({"no positions": "position_ids", "no tree": "tree"}.get(wrong, ""), None)
            return given

        monkeypatch.setattr("errata.models.laid_out._inputs", inputs)
        if "window" in wrong:
            monkeypatch.setattr("errata.models.tree.window_of", lambda *_: None)
        assert choose_layout(model)[0] is LayoutKind.SHARED
        assert model.config._attn_implementation == "sdpa", "as it was"

    def test_attention_that_a_tree_does_not_have(self) -> None:
        layout = lay_out(pairs(1), LayoutKind.TREE, pad_id=0)
        with pytest.raises(ValueError, match="its attention is 'eager', which takes no tree"):
            laid_out_logprobs(model_of("gemma2"), layout)

    @pytest.mark.parametrize("wrong", ["no positions", "no mask", "Boolean in eager", "no window", "window on columns"])
    def test_what_would_be_silently_wrong_is_noticed(self, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
        name = {"Boolean in eager": "llama eager", "no window": "gemma2", "window on columns": "mistral"}.get(wrong)
        model = model_of(name or "llama")
        right = sys.modules["errata.models.laid_out"]._inputs

        def inputs(model: Any, layout: Any) -> dict[str, Any]:
            if layout.kind is LayoutKind.TREE:
                raise ValueError("no tree")
            given: dict[str, Any] = right(model, layout)
            if layout.kind is LayoutKind.PLAIN:
                return given
            if wrong == "no positions":
                given["position_ids"] = torch.arange(layout.ids_RC.shape[1])[None].expand_as(layout.ids_RC)
            elif wrong == "no mask":
                given["attention_mask"] = (layout.group_RC >= 0).long()
            elif wrong == "Boolean in eager":
                given["attention_mask"] = given["attention_mask"] == 0
            elif wrong == "no window":
                given["attention_mask"] = given["attention_mask"]["full_attention"]
            else:
                columns = torch.arange(layout.ids_RC.shape[1])
                given["attention_mask"] &= columns[:, None] - columns < 4
            return given

        monkeypatch.setattr("errata.models.laid_out._inputs", inputs)
        kind, said = choose_layout(model)
        assert kind is LayoutKind.PLAIN
        assert "on noise the shared one is off by" in said

    def test_attention_that_takes_no_mask(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = model_of("llama")
        layout = lay_out(pairs(1), LayoutKind.SHARED, pad_id=0)
        right = model.config._attn_implementation
        monkeypatch.setattr(model.config, "_attn_implementation", "flash_attention_2")
        with pytest.raises(ValueError, match="its attention is 'flash_attention_2', which takes no mask"):
            _attention(model, layout)
        monkeypatch.setattr(model.config, "_attn_implementation", right)
        monkeypatch.setattr(model.config, "layer_types", ["linear_attention", "full_attention"], raising=False)
        kind, said = choose_layout(model)
        assert kind is LayoutKind.PLAIN
        assert "does not take the tree one: its layers are of the kinds full_attention, linear_attention" in said

    def test_a_head_of_zeros_is_judged_by_what_it_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = model_of("llama", AutoModelForTokenClassification, num_labels=1, id2label={0: "r"}, label2id={"r": 0})
        torch.nn.init.zeros_(model.score.weight)
        assert choose_layout(model)[0] is LayoutKind.TREE
        monkeypatch.setattr("errata.models.layout._as_tree", lambda *_, **__: [][0])
        assert choose_layout(model)[0] is LayoutKind.SHARED
        right = sys.modules["errata.models.laid_out"]._attention
        monkeypatch.setattr("errata.models.laid_out._attention", lambda m, layout: right(m, layout) | True)
        assert choose_layout(model)[0] is LayoutKind.PLAIN
