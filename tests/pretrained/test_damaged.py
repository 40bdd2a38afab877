"""A model is loaded whole or not at all, and the error names file and tensor."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from errata.data.encoding import load_encoder
from errata.models import (
    add_adapter,
    load_causal,
    load_critic,
    load_sequence_reward_model,
    load_token_reward_model,
    save_model,
)
from errata.models.adapters import load_adapter
from pretrained.damage import CONFIG, TOKENIZER, WEIGHTS

Damage = tuple[Callable[[Path], None], str]

LOADERS: dict[str, Callable[[Path], Any]] = {
    "causal": load_causal,
    "to be trained": lambda folder: load_causal(folder, precision="master"),
    "token": load_token_reward_model,
    "sequence": lambda folder: load_sequence_reward_model(folder, pad_id=0, end_id=2),
    "critic": lambda folder: load_critic(folder, heads=2),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("damage") / "llama")


def broken(llama: Path, folder: Path, damage: Damage) -> tuple[Path, str]:
    shutil.copytree(llama, folder)
    damage[0](folder)
    return folder, damage[1]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("damage", [*WEIGHTS, *CONFIG])
def test_every_loader_refuses(damage: str, loader: str, llama: Path, tmp_path: Path) -> None:
    if damage == "missing output layer" and loader not in ("causal", "to be trained"):
        pytest.skip("which a model of numbers does not have")
    folder, words = broken(llama, tmp_path / "m", {**WEIGHTS, **CONFIG}[damage])
    with pytest.raises(ValueError, match=words) as caught:
        LOADERS[loader](folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("damage", TOKENIZER)
def test_a_tokenizer_that_is_not_the_model_s_is_refused(damage: str, llama: Path, tmp_path: Path) -> None:
    folder, words = broken(llama, tmp_path / "m", TOKENIZER[damage])
    with pytest.raises(ValueError, match=words) as caught:
        load_encoder(folder)
    assert str(folder) in str(caught.value)


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, tie_word_embeddings=True)
    assert "lm_head.weight" not in tiny.weights(folder)
    model: Any = load_causal(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_shards_are_read(llama: Path, tmp_path: Path) -> None:
    model: Any = load_causal(llama)
    model.save_pretrained(tmp_path, max_shard_size=8000)
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert all(torch.equal(a, b) for a, b in zip(load_causal(tmp_path).parameters(), model.parameters(), strict=True))
    shard = sorted(tmp_path.glob("model-*"))[1]
    whole = load_file(shard)
    name = sorted(whole)[0]
    whole[name].view(-1)[0] = torch.nan
    save_file(whole, shard, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{shard.name} holds NaN or infinity in {name}"):
        load_causal(tmp_path)


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)
@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_a_new_head_may_be_missing_and_a_trained_one_not(kind: str, build: Any, tmp_path: Path) -> None:
    load = LOADERS[kind]
    model = load(build(tmp_path / "start"))
    save_model(model, tiny.tokenizer(), tmp_path / "reward", card={})
    assert all(
        torch.equal(a, b) for a, b in zip(load(tmp_path / "reward").parameters(), model.parameters(), strict=True)
    )
    found = tiny.weights(tmp_path / "reward")
    (head, *_) = [name for name in found if name.split(".")[0] in ("score", "classifier")]
    del found[head]
    save_file(found, tmp_path / "reward" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"is missing {head}"):
        load(tmp_path / "reward")


def test_a_reward_model_is_no_language_model(tmp_path: Path) -> None:
    model = load_token_reward_model(tiny.llama(tmp_path / "start", tie_word_embeddings=True))
    save_model(model, tiny.tokenizer(), tmp_path / "reward", card={})
    with pytest.raises(ValueError, match=r"holds score\.\w+: it is a model that gives numbers, such as a reward model"):
        load_causal(tmp_path / "reward")


def test_what_is_not_used_is_told(llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(llama, tmp_path / "m")
    found = {**tiny.weights(llama), "mtp.fc.weight": torch.zeros(2, 2)}
    save_file(found, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING, logger="errata"):
        load_causal(tmp_path / "m")
    assert "mtp.fc.weight is not used" in caplog.text


def test_an_adapter_beside_a_model_is_neither(llama: Path, tmp_path: Path) -> None:
    """transformers would take one of them without a word."""
    model: Any = add_adapter(load_causal(llama), rank=2, alpha=None, seed=0)
    shutil.copytree(llama, tmp_path / "both")
    model.save_pretrained(tmp_path / "both")
    with pytest.raises(ValueError, match=r"holds a model .* and an adapter"):
        load_causal(tmp_path / "both")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.pop(sorted(found)[0]), "is missing, too many or of another shape"),
        (lambda found: found.update({"x": torch.zeros(1)}), "x is missing, too many or of another shape"),
        (lambda found: found.update({sorted(found)[0]: torch.zeros(1, 1)}), "of another shape"),
        (lambda found: found[sorted(found)[0]].fill_(torch.nan), "holds NaN or infinity"),
        (None, "is no whole safetensors file"),
    ],
)
def test_an_adapter_is_taken_over_whole_or_not_at_all(change: Any, words: str, llama: Path, tmp_path: Path) -> None:
    model: Any = add_adapter(load_causal(llama), rank=2, alpha=None, seed=0)
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    found = load_file(path)
    if change is None:
        path.write_bytes(path.read_bytes()[:-20])
    else:
        change(found)
        save_file(found, path)
    with pytest.raises(ValueError, match=words) as caught:
        load_adapter(model, tmp_path)
    assert str(path) in str(caught.value)
