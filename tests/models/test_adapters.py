"""LoRA, against matrices multiplied by hand and against peft itself."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import tiny
from errata.models import (
    adapter_off,
    add_adapter,
    has_adapter,
    load_causal,
    load_policy,
    load_token_reward_model,
    merged,
    pad,
)
from errata.models import token_logprobs as logprobs
from errata.models.adapters import load_adapter, load_quantized
from errata.training import OfflineConfig
from errata.tuning import FIGAConfig, SFTConfig, train_figa, train_sft

ENCODER = tiny.encoder()
BATCH = pad(tiny.encoded(tiny.demonstrations(7, seed=3), ENCODER), pad_id=0)
MODELS = {"llama": tiny.llama, "tied": lambda folder: tiny.llama(folder, tie_word_embeddings=True), "gpt2": tiny.gpt2}


@pytest.fixture(scope="module", params=MODELS)
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS[request.param](tmp_path_factory.mktemp(request.param) / "start")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("llama"))


def adapted(start: Path, *, seed: int = 0, noise: bool = True) -> Any:
    """An adapter that does something: B is not 0."""
    model = add_adapter(load_causal(start), rank=3, alpha=None, seed=seed)
    if noise:
        generator = torch.Generator().manual_seed(1)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.data = torch.randn(value.shape, generator=generator) / 4
    return model


@torch.no_grad()
def test_it_starts_as_the_model_was_and_only_the_adapter_learns(start: Path) -> None:
    before = torch.get_rng_state()
    model = adapted(start, noise=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert has_adapter(model)
    assert not has_adapter(load_causal(start))
    assert torch.equal(logprobs(model, BATCH), logprobs(load_causal(start), BATCH))
    learns = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert {name.split(".")[-3] for name in learns} == {"lora_A", "lora_B"}
    assert {min(value.shape) for value in learns.values()} == {3}
    assert not any("lm_head" in name for name in learns)
    linear = 4 if hasattr(model, "transformer") else 7
    assert len(learns) == 2 * 2 * linear, "A and B on every linear layer of both blocks"
    assert not any(isinstance(module, torch.nn.Dropout) and module.p for module in model.modules())


def test_the_seed_draws_the_adapter(llama: Path) -> None:
    one, same, other = (dict(adapted(llama, seed=seed).named_parameters()) for seed in (0, 0, 1))
    drawn = [name for name in one if "lora_A" in name]
    assert all(torch.equal(one[name], same[name]) for name in drawn)
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


@torch.no_grad()
def test_merging_is_w_plus_twice_ba_and_ties_stay_tied(start: Path, tmp_path: Path) -> None:
    model = adapted(start)
    model.save_pretrained(tmp_path / "adapter")
    plain = merged(start, tmp_path / "adapter")
    assert not has_adapter(plain)
    expected, written = tiny.weights(start), load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, a in written.items():
        if "lora_A" in name:
            change = 2 * written[name.replace("lora_A", "lora_B")] @ a  # alpha is twice the rank
            key = name.removeprefix("base_model.model.").replace(".lora_A", "")
            expected[key] = expected[key] + (change.T if start.parent.name.startswith("gpt2") else change)
    found = plain.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logprobs(plain, BATCH), logprobs(model, BATCH), rtol=1e-4, atol=1e-5)
    assert (logprobs(plain, BATCH) - logprobs(load_causal(start), BATCH)).abs().max() > 0.1
    tied: Any = plain
    same = tied.get_input_embeddings().weight is tied.get_output_embeddings().weight
    assert same == tied.config.tie_word_embeddings


def test_the_file_of_settings_is_the_same_in_every_process(llama: Path, tmp_path: Path) -> None:
    """Names in a set have another order in each process: in this one and in another."""
    code = (
        "import sys; from errata.models import add_adapter, load_causal; "
        "model = add_adapter(load_causal(sys.argv[1]), rank=2, alpha=None, seed=0); model.save_pretrained(sys.argv[2])"
    )
    other_seed = {**tiny.environment(), "PYTHONHASHSEED": "1"}
    subprocess.run(
        [sys.executable, "-c", code, str(llama), str(tmp_path / "2")], env=other_seed, check=True, timeout=120
    )
    add_adapter(load_causal(llama), rank=2, alpha=None, seed=0).save_pretrained(tmp_path / "1")
    one, other = ((tmp_path / seed / "adapter_config.json").read_bytes() for seed in ("1", "2"))
    assert one == other
    names = json.loads(one)["target_modules"]
    assert names == sorted(names)
    assert len(names) == 2 * 7


@pytest.mark.parametrize("load", [load_causal, load_token_reward_model])
def test_a_rank_that_no_layer_can_use(load: Any, llama: Path) -> None:
    """Its layers are 16 to 16 and 16 to 32: more than 16 is nothing but memory."""
    with pytest.raises(ValueError, match="--lora-rank 17 is more than any layer of this model can use: the largest"):
        add_adapter(load(llama), rank=17, alpha=None, seed=0)
    add_adapter(load(llama), rank=16, alpha=None, seed=0)


@torch.no_grad()
def test_the_adapter_off_is_the_start_and_on_again_afterwards(start: Path) -> None:
    model = adapted(start)
    on = logprobs(model, BATCH)
    with adapter_off(model):
        assert torch.equal(logprobs(model, BATCH), logprobs(load_causal(start), BATCH))
    assert torch.equal(logprobs(model, BATCH), on)
    with pytest.raises(KeyboardInterrupt), adapter_off(model):
        raise KeyboardInterrupt
    assert torch.equal(logprobs(model, BATCH), on)


@torch.no_grad()
def test_a_saved_adapter_is_taken_over_bit_for_bit(start: Path, tmp_path: Path) -> None:
    model, other = adapted(start), adapted(start, seed=5, noise=False)
    model.save_pretrained(tmp_path)
    load_adapter(other, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft, of newer transformers
def test_what_is_saved_is_read_by_plain_transformers_and_by_peft(start: Path, tmp_path: Path) -> None:
    config = FIGAConfig(lora_rank=2, lora_alpha=8, learning_rate=1e-2, epochs=2, batch_size=8)
    train_figa(start, tiny.labels(12), ENCODER, config, tmp_path / "out")
    assert tiny.difference(start, tmp_path / "out") > 5e-3
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), tmp_path / "out" / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(logprobs(plain.eval(), BATCH), logprobs(peft.eval(), BATCH), rtol=1e-4, atol=1e-5)
        assert (logprobs(plain, BATCH) - logprobs(load_causal(start), BATCH)).abs().max() > 0.05
    noted = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (noted["r"], noted["lora_alpha"], noted["lora_dropout"]) == (2, 8, 0.0)
    kept, trained = tiny.weights(start), tiny.weights(tmp_path / "out")
    frozen = [name for name in kept if "norm" in name or "embed" in name or "ln_" in name or "wte" in name]
    assert frozen
    assert all(torch.equal(kept[name], trained[name]) for name in frozen)


def test_a_model_in_half_precision_stays_in_it(llama: Path, tmp_path: Path) -> None:
    model: Any = load_causal(llama)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    ENCODER.tokenizer.save_pretrained(tmp_path / "half")
    learns = load_policy(tmp_path / "half", OfflineConfig(lora_rank=2))
    assert {value.dtype for value in learns.parameters() if value.requires_grad} == {torch.float32}
    config = SFTConfig(lora_rank=2, learning_rate=1e-2, epochs=2, batch_size=8)
    train_sft(tmp_path / "half", tiny.demonstrations(9), ENCODER, config, tmp_path / "out")
    assert {value.dtype for value in tiny.weights(tmp_path / "out").values()} == {torch.bfloat16}
    assert tiny.difference(tmp_path / "half", tmp_path / "out") > 1e-3


def test_settings_that_do_not_go_together(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--lora-rank -1 is out of range"):
        load_policy(llama, OfflineConfig(lora_rank=-1))
    with pytest.raises(ValueError, match="give --lora-rank to train an adapter"):
        load_policy(llama, OfflineConfig(quantize="4bit"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes; pip install 'errata\[qlora\]'"):
        load_policy(llama, OfflineConfig(quantize="4bit", lora_rank=2))


def test_four_bits_need_a_gpu_and_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="needs a GPU"):
        load_quantized(tmp_path / "nothing")
    monkeypatch.setattr("errata.models.adapters.device", lambda: torch.device("cuda"))
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_quantized(tmp_path / "nothing")
