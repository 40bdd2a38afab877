"""What lower layers give is kept and changes nothing: every number and gradient is that of the whole model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

import tiny
from errata.models import LayoutKind, add_adapter, has_adapter, laid_out_logprobs, laid_out_scalars, lay_out, read_card
from errata.models.laid_out import keep_lower_layers
from errata.models.lower import first_learning, kept_of, prefix_keys
from errata.models.tree import plant
from errata.tuning import FIGAConfig, SFTConfig, train_figa, train_sft
from models.test_layout import model_of, pairs

FEW = 10**6


def adapted(name: str, auto: Any = AutoModelForCausalLM, *, layers: int = 2, **settings: Any) -> Any:
    """Four layers, of which the uppermost have an adapter."""
    more = {"n_layer": 4} if "gpt2" in name else {"num_hidden_layers": 4, "layer_types": None}
    model = add_adapter(model_of(name, auto, **more, **settings), rank=2, alpha=None, seed=0, layers=layers)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    return model.train()


def gradients(model: Any, value: Tensor) -> list[Tensor]:
    weight = torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
    return list(torch.autograd.grad((value * weight).sum(), [p for p in model.parameters() if p.requires_grad]))


def counted(model: Any) -> list[int]:
    """Grows whenever the lowest layer computes."""
    calls: list[int] = []
    first = next(module for name, module in model.named_modules() if name.endswith(".0.mlp"))
    first.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "qwen3"])
def test_values_and_gradients_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    model = adapted(name)
    assert first_learning(model) == 2
    batches = [lay_out(pairs(seed, least=20), LayoutKind.TREE, pad_id=0) for seed in (7, 8)]
    # Some rows of both: other columns, the same beginnings.
    mixed = lay_out([*pairs(7)[:5], *pairs(8)[5:]], LayoutKind.TREE, pad_id=0)
    whole = [laid_out_logprobs(model, batch) for batch in (*batches, mixed)]
    slopes = [gradients(model, value) for value in whole]
    calls = counted(model)
    with keep_lower_layers(model, tmp_path, FEW):
        calls.clear()
        for turn in range(2):
            for batch, expected, slope in zip(batches, whole, slopes, strict=False):
                found = laid_out_logprobs(model, batch)
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
                for ours, other in zip(gradients(model, found), slope, strict=True):
                    torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)
            assert len(calls) == 2, f"turn {turn}"
        found = laid_out_logprobs(model, mixed)
        assert len(calls) == 2
        torch.testing.assert_close(found, whole[2], rtol=1e-5, atol=1e-5)
        for ours, other in zip(gradients(model, found), slopes[2], strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)
        sides = [side.encoded.ids for seed in (7, 8) for row in pairs(seed) for side in row]
        tokens = {ids[: t + 1] for ids in sides for t in range(len(ids))}
        assert len(kept_of(model).places) <= len(tokens), "a beginning is kept once"  # type: ignore[union-attr]
    assert kept_of(model) is None
    assert not list(tmp_path.iterdir()), "the file has vanished"
    laid_out_logprobs(model, mixed)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_head_that_is_trained_beside_the_adapter(name: str, tmp_path: Path) -> None:
    model = adapted(name, AutoModelForTokenClassification, num_labels=1, id2label={0: "r"}, label2id={"r": 0})
    batch = lay_out(pairs(7, least=20), LayoutKind.TREE, pad_id=0, predicted=False)
    expected = laid_out_scalars(model, batch)
    with keep_lower_layers(model, tmp_path, FEW):
        for _ in range(2):
            torch.testing.assert_close(laid_out_scalars(model, batch), expected, rtol=1e-5, atol=1e-5)
        assert kept_of(model).places  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", ["no room", "half a row", "disk full"])
def test_what_there_is_no_room_for_is_computed_anew(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = adapted("llama")
    batch = lay_out(pairs(7, least=20), LayoutKind.TREE, pad_id=0)
    expected, calls = laid_out_logprobs(model, batch), counted(model)
    with keep_lower_layers(model, tmp_path, 64 * 10 + 3 if fault == "no room" else FEW):
        kept = kept_of(model)
        assert kept is not None
        kept.full = False  # the trial may have filled it
        if fault != "no room":
            kept.file = Broken(kept.file, fault)
        caplog.clear()
        calls.clear()
        for _ in range(3):
            assert torch.equal(laid_out_logprobs(model, batch), expected)
        assert len(calls) == 3
        assert len(kept.places) == {"no room": 10, "half a row": 1, "disk full": 0}[fault]
        assert len(caplog.records) == 1
        assert "computed anew for the others, slower with the same result" in caplog.text
        assert ("No space" in caplog.text) == (fault == "disk full")


class Broken:
    def __init__(self, file: Any, fault: str) -> None:
        self.file, self.fault = file, fault

    def write(self, data: bytes) -> int:
        if self.fault == "disk full":
            raise OSError(28, "No space left on device")
        return int(self.file.write(data[: 64 + 32]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_upper_layers_that_need_more_of_the_lower_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = adapted("llama")
    noted: list[Tensor] = []
    model.model.layers[0].mlp.register_forward_hook(lambda _, __, out: noted.append(out))
    model.model.layers[3].register_forward_hook(lambda _, __, out: out + (noted.pop() if noted else 0.0))
    batch = lay_out(pairs(7, least=20), LayoutKind.TREE, pad_id=0)
    expected = laid_out_logprobs(model, batch)
    with keep_lower_layers(model, tmp_path, FEW):
        assert "not kept: with it the model gives other numbers" in caplog.text
        for _ in range(2):
            torch.testing.assert_close(laid_out_logprobs(model, batch), expected)


def test_nothing_is_kept_where_all_layers_learn(tmp_path: Path) -> None:
    for model in (model_of("llama"), adapted("llama", layers=0)):
        with keep_lower_layers(model, tmp_path, FEW):
            assert kept_of(model) is None


def test_a_name_is_that_of_a_beginning() -> None:
    rng = random.Random(0)
    rows = [[rng.randrange(3) for _ in range(rng.randint(0, 9))] for _ in range(30)]

    def names(sequences: Sequence[Sequence[int]]) -> dict[tuple[int, ...], bytes]:
        planted = plant([np.array(row, np.int64) for row in sequences])
        keys = prefix_keys(planted.ids.tolist(), planted.tree)
        columns = zip(sequences, planted.columns, strict=True)
        return {tuple(row[: t + 1]): keys[c] for row, places in columns for t, c in enumerate(places)}

    every = names(rows)
    assert len(set(every.values())) == len(every)
    some = names(rows[10:15])
    assert some == {row: every[row] for row in some}


STEP: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 3, "batch_size": 8, "micro_batch_size": 4, "lora_rank": 2}


@pytest.mark.parametrize("method", ["figa", "sft"])
def test_a_run_that_keeps_is_one_that_does_not(method: str, tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start", num_hidden_layers=3)
    rows: Any = tiny.labels(16, seed=4) if method == "figa" else tiny.demonstrations(16, seed=2)
    config = (FIGAConfig if method == "figa" else SFTConfig)(**STEP, lora_layers=1)
    train: Any = train_figa if method == "figa" else train_sft
    for name, gigabytes in (("kept", 8.0), ("anew", 0.0)):
        train(start, rows, tiny.encoder(), replace(config, lora_keep_gb=gigabytes), tmp_path / name)
    assert read_card(tmp_path / "kept")["loss"] == pytest.approx(read_card(tmp_path / "anew")["loss"], rel=1e-4)
    kept, anew, before = (tiny.weights(tmp_path / name) for name in ("kept", "anew", "start"))
    changed = {name for name in kept if not torch.equal(kept[name], before[name])}
    assert {name.split(".")[2] for name in changed} == {"2"}
    for name in kept:
        torch.testing.assert_close(kept[name], anew[name], rtol=1e-3, atol=1e-4)


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    start, rows, encoder = tiny.llama(tmp_path / "start"), tiny.demonstrations(8), tiny.encoder()
    with pytest.raises(ValueError, match="--lora-layers 3 is more than the 2 layers of this model; 0 adapts all"):
        train_sft(start, rows, encoder, SFTConfig(**STEP, lora_layers=3), tmp_path / "out")
    with pytest.raises(
        ValueError, match="--lora-layers is of an adapter, and all weights are trained; give --lora-rank"
    ):
        train_sft(start, rows, encoder, SFTConfig(**{**STEP, "lora_rank": 0}, lora_layers=1), tmp_path / "out")
    both = add_adapter(model_of("llama"), rank=2, alpha=None, seed=0, layers=2)
    assert has_adapter(both)
    assert first_learning(both) == 0
