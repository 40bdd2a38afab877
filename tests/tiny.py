"""Tiny models, a tokenizer of whole words and toy rows: built in code, seeded, saved as a user's model would be."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from errata.data import Encoder
from errata.labels import label_all
from errata.types import Correction, Demonstration, Encoded, LabeledTokens, PromptRow, TokenLabels

WORDS = ["say", "tell", "one", "two", "six", "red", "blue", "cat", "dog", "sits", "runs", "here", "now", "rude"]
CLEAN = WORDS[2:-1]


def tokenizer(*, pad: str = "<pad>") -> PreTrainedTokenizerBase:
    """One token a word, ``<s>`` first; ``pad="</s>"`` makes the trap of pad == end of sequence."""
    pieces = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    backend = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad
    )


def encoder(*, pad: str = "<pad>") -> Encoder:
    return Encoder(tokenizer(pad=pad))


def llama(folder: Path, *, seed: int = 0, pad: str = "<pad>", **settings: Any) -> Path:
    """Two layers, sharp enough for its words to have quite different probabilities."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return save(folder, LlamaConfig(**{**sizes, "initializer_range": 0.3, **_common(pad), **settings}), seed, pad)


def gpt2(folder: Path, *, seed: int = 0, pad: str = "</s>", **settings: Any) -> Path:
    """With GPT-2's own dropouts (.1) and, as in GPT-2, pad == end of sequence."""
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
    return save(folder, GPT2Config(**{**sizes, **_common(pad), **settings}), seed, pad)


def opt(folder: Path) -> Path:
    """A model for which transformers has no token-classification class."""
    sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32, "num_hidden_layers": 1}
    return save(folder, OPTConfig(**sizes, num_attention_heads=2, **_common("<pad>")), 0, "<pad>")


def save(folder: Path, config: PretrainedConfig, seed: int, pad: str) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer(pad=pad).save_pretrained(folder)
    return folder


def stored_as(
    source: Path, folder: Path, dtype: torch.dtype, *, but: dict[str, torch.dtype] | None = None, **config: Any
) -> Path:
    """The model in ``source`` with its weights in another type, those of some names in one of their own."""
    shutil.copytree(source, folder)
    held = {
        name: x.to(next((other for part, other in (but or {}).items() if part in name), dtype))
        for name, x in weights(source).items()
    }
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", dtype=str(dtype).removeprefix("torch."), **config)
    return folder


def edit_json(path: Path, **settings: Any) -> None:
    """Set keys of a configuration; None takes one out."""
    found = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}, indent=2) + "\n")


def _common(pad: str) -> dict[str, Any]:
    built = tokenizer(pad=pad)
    ids = {"bos_token_id": built.bos_token_id, "eos_token_id": built.eos_token_id, "pad_token_id": built.pad_token_id}
    return {"vocab_size": len(built), "max_position_embeddings": 64, **ids}


def environment() -> dict[str, str]:
    """What a process of its own needs to import this module; one thread as here, for another number sums otherwise."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run wrote."""
    return load_file(folder / "model.safetensors")


def difference(one: Path, other: Path) -> float:
    """The largest difference between two folders' weights."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def sentence(rng: random.Random, longest: int = 6) -> list[str]:
    return rng.choices(CLEAN, k=rng.randint(1, longest))


def prompts(count: int, *, seed: int = 0) -> list[PromptRow]:
    rng = random.Random(seed)
    return [PromptRow(id=f"p{k}", prompt=" ".join(["say", *sentence(rng)])) for k in range(count)]


def demonstrations(count: int, *, seed: int = 0) -> list[Demonstration]:
    """Rows of different lengths, prompt and response."""
    rng = random.Random(seed)
    return [
        Demonstration(id=f"d{k}", prompt=" ".join(sentence(rng)), response=" ".join(sentence(rng)))
        for k in range(count)
    ]


def corrections(count: int, *, seed: int = 0) -> list[Correction]:
    """The editor deletes "rude" wherever it stands, and nothing else; the sides differ in length."""
    rng = random.Random(seed)
    rows = []
    for k in range(count):
        clean = sentence(rng)
        original = list(clean)
        for _ in range(rng.randint(1, 2)):
            original.insert(rng.randint(0, len(original)), "rude")
        rows.append(
            Correction(id=f"c{k}", prompt=" ".join(sentence(rng)), original=" ".join(original), edited=" ".join(clean))
        )
    return rows


def labels(count: int, *, seed: int = 0, pad: str = "<pad>") -> list[TokenLabels]:
    return list(label_all(corrections(count, seed=seed), encoder(pad=pad)))


def with_own_weights(rows: Sequence[TokenLabels], *, seed: int = 0) -> list[TokenLabels]:
    """Of any sign and size: every token of either side has one, 0 among them; on the original's they are sizes."""
    rng = random.Random(seed)

    def weighed(side: LabeledTokens, weights: Sequence[float]) -> LabeledTokens:
        return replace(side, weights=tuple(rng.choices(weights, k=len(side.labels))))

    return [
        replace(
            row,
            original=weighed(row.original, [0.0, 1e-7, 0.5, 1e3]),
            edited=weighed(row.edited, [-1e3, -0.5, -1e-7, 0.0, 1e-7, 1.0, 1e3]),
        )
        for row in rows
    ]


def encoded(rows: Sequence[Demonstration], built: Encoder) -> list[Encoded]:
    """Every third row is cut off before its end of sequence."""
    return [built.encode(row.prompt, row.response, ended=k % 3 != 2) for k, row in enumerate(rows)]
