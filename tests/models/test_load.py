from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer, LlamaConfig

import tiny
from errata.models import (
    identity,
    load_causal,
    load_sequence_reward_model,
    load_token_reward_model,
    load_tokenizer,
    read_card,
    save_model,
    without_dropout,
)

IDS = torch.tensor([[1, 5, 6, 7, 2]])
SAFE = {".json", ".safetensors", ".jinja", ".txt"}


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)
@torch.no_grad()
def test_what_errata_saves_plain_transformers_loads(build: Any, tmp_path: Path) -> None:
    model = load_causal(build(tmp_path / "start"))
    save_model(model, tiny.tokenizer(), tmp_path / "out", card={"stage": "sft", "note": "é"}, files={"a.txt": "b"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("cat dog")["input_ids"] == [11, 12]
    assert read_card(tmp_path / "out") == {"stage": "sft", "note": "é", "saved_dtype": "float32"}
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    assert {path.suffix for path in files} <= SAFE
    assert [path.name for path in files if path.suffix == ".safetensors"] == ["model.safetensors"]
    assert (tmp_path / "out" / "a.txt").read_text() == "b"


@pytest.mark.parametrize(
    "load",
    [load_causal, load_token_reward_model, lambda folder: load_sequence_reward_model(folder, pad_id=0, end_id=2)],
    ids=["causal", "token", "sequence"],
)
@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)
def test_no_dropout_is_left(load: Any, build: Any, tmp_path: Path) -> None:
    settings = {"attention_dropout": 0.5} if build is tiny.llama else {"attn_pdrop": 0.5, "resid_pdrop": 0.5}
    plain = AutoModelForTokenClassification.from_pretrained(build(tmp_path, **settings), num_labels=1).train()
    assert not torch.equal(plain(IDS).logits, plain(IDS).logits), "transformers' own dropout would be seen here"
    model = load(tmp_path).train()
    for name, parameter in model.named_parameters():
        if name.split(".")[0] in ("score", "classifier"):
            torch.nn.init.ones_(parameter)
    first = model(IDS).logits
    assert all(torch.equal(model(IDS).logits, first) for _ in range(3))
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))


def test_without_dropout_takes_any_module() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5)).train()
    assert without_dropout(module) is module
    assert module[1].p == 0


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no causal language model could be loaded from {tmp_path}"):
        load_causal(tmp_path)
    with pytest.raises(ValueError, match=f"no tokenizer could be loaded from {tmp_path}"):
        load_tokenizer(tmp_path)
    assert read_card(tmp_path) == {}


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = load_causal(tiny.llama(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert isinstance(model.config, LlamaConfig)
    with pytest.raises(ValueError, match="no causal language model"):
        load_causal(tmp_path)


def test_identity_tells_models_apart(tmp_path: Path) -> None:
    one, other = tiny.llama(tmp_path / "one"), tiny.llama(tmp_path / "other", seed=1)
    assert identity(one) == identity(str(one))
    assert identity(one) != identity(other)
    before = identity(one)
    (one / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes() + b" ")
    assert identity(one) != before, "other weights under the same name"
    before = identity(one)
    (one / "errata.json").write_text(json.dumps({"fingerprint": "abc"}))
    assert identity(one) == before, "how it was made is no part of what it is"
