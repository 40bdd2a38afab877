"""Weights that are quantized already: answers as they are, and adapters beside them, but nothing else is trained."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from errata.models import load_causal, load_policy, pad, settle, token_logprobs
from errata.pretrained import find_model
from errata.reward import TokenRewardConfig, train_token_reward
from errata.tuning import FIGAConfig, PPOConfig, SFTConfig, train_figa, train_ppo, train_sft

ENCODER = tiny.encoder()
BATCH = pad(tiny.encoded(tiny.demonstrations(5, seed=3), ENCODER), pad_id=0)
ADAPTER = {"lora_rank": 2, "save": "adapter"}


def said_to_be(kind: str, folder: Path, **more: Any) -> Path:
    """A model whose config.json says that it is quantized: what is refused is refused by that."""
    tiny.llama(folder)
    tiny.edit_json(folder / "config.json", quantization_config={"quant_method": kind, **more})
    return folder


@pytest.mark.parametrize("kind", ["gptq", "awq", "compressed-tensors", "bitsandbytes", "fp8"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, r"are quantized \({kind}\) and cannot be trained; give --lora-rank 16 --save adapter"),
        ({"lora_rank": 2}, r"are quantized \({kind}\), and no adapter can be merged .*; give --save adapter"),
        ({**ADAPTER, "quantize": "4bit"}, "are quantized already; leave --quantize out"),
    ],
)
def test_what_cannot_be_done_is_refused_before_loading(
    settings: dict[str, Any], words: str, kind: str, tmp_path: Path
) -> None:
    model = said_to_be(kind, tmp_path / "m")
    assert find_model(model).quantization["quant_method"] == kind
    with pytest.raises(ValueError, match=words.format(kind=kind)):
        settle(SFTConfig(**settings), model)
    settle(SFTConfig(**ADAPTER), model)


def test_four_bits_need_a_gpu_and_rewards_all_of_them(tmp_path: Path) -> None:
    model = said_to_be("bitsandbytes", tmp_path / "m", load_in_4bit=True)
    with pytest.raises(ValueError, match="held in 4 bits: training on it needs a GPU"):
        settle(SFTConfig(**ADAPTER), model)
    with pytest.raises(ValueError, match="a reward model is not trained on quantized weights"):
        train_token_reward(model, tiny.labels(3), ENCODER, TokenRewardConfig(**ADAPTER), tmp_path / "out")
    model, reward = said_to_be("gptq", tmp_path / "n"), tmp_path / "reward"
    with pytest.raises(ValueError, match=r"the critic learns with all its weights, and those of .* are quantized"):
        train_ppo(model, reward, tiny.prompts(3), ENCODER, PPOConfig(**ADAPTER), tmp_path / "out")


@pytest.mark.skipif(importlib.util.find_spec("gptqmodel") is not None, reason="it is there")
def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    model = said_to_be("awq", tmp_path / "m", bits=4)
    with pytest.raises(ValueError, match=r"could be loaded from .*pip install gptqmodel"):
        load_causal(model)


# With libraries that compute on a CPU, where they are installed.


def quantized(kind: str, folder: Path) -> Path:
    base = tiny.llama(folder / "base", hidden_size=64, intermediate_size=128)
    if kind == "torchao":
        from transformers import TorchAoConfig

        how: Any = TorchAoConfig(pytest.importorskip("torchao.quantization").Int8WeightOnlyConfig())
    else:
        from transformers import BitsAndBytesConfig

        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
        how = BitsAndBytesConfig(load_in_8bit=True) if kind == "8 bits" else BitsAndBytesConfig(load_in_4bit=True)
    AutoModelForCausalLM.from_pretrained(base, quantization_config=how).save_pretrained(folder / kind)
    tiny.tokenizer().save_pretrained(folder / kind)
    return folder / kind


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("kind", ["torchao", "8 bits", "4 bits"])
def test_it_answers_and_carries_an_adapter(kind: str, tmp_path: Path) -> None:
    model = quantized(kind, tmp_path)
    with torch.no_grad():
        plain = token_logprobs(AutoModelForCausalLM.from_pretrained(model), BATCH)
        assert torch.equal(token_logprobs(load_causal(model), BATCH), plain)
    if kind == "4 bits":
        return
    config = FIGAConfig(lora_rank=4, save="adapter", epochs=8, batch_size=8, learning_rate=1e-2)
    train_figa(model, tiny.labels(8), ENCODER, config, tmp_path / "out", heldout=tiny.labels(4, seed=5))
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert lines[0]["eval_kl"] == 0 < lines[-1]["eval_kl"]
    with torch.no_grad():
        answers: Any = load_causal(tmp_path / "out")
        goes_on = load_policy(tmp_path / "out", SFTConfig(save="adapter"))
        assert torch.equal(token_logprobs(answers, BATCH), token_logprobs(goes_on, BATCH)), "an adapter stays one"
        assert (token_logprobs(answers, BATCH) - plain).abs().max() > 0.1
    assert not (tmp_path / "out" / "model.safetensors").exists()
    on = train_sft(
        tmp_path / "out", tiny.demonstrations(8), ENCODER, SFTConfig(save="adapter", epochs=1), tmp_path / "on"
    )
    assert on["goes_on_from"] == "out"
    shutil.rmtree(tmp_path / "out")
