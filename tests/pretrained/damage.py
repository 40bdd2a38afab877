"""Ways in which a model folder is broken, and what an error about it must name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

import tiny

LAYER = "model.layers.1.mlp.up_proj.weight"


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = tiny.weights(folder)
        change(found)
        save_file(found, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def _index(folder: Path, *, lost: bool = True) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = dict.fromkeys(("a", "b"), "model-00001-of-00002.safetensors")
    names |= {"c": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def _garbled_index(folder: Path) -> None:
    _index(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": [1')


def _nan(found: dict[str, torch.Tensor]) -> None:
    found[LAYER][3, 2] = torch.nan


def _infinite(found: dict[str, torch.Tensor]) -> None:
    found["model.norm.weight"][1] = -torch.inf


def _config(**settings: object) -> Callable[[Path], None]:
    return lambda folder: tiny.edit_json(folder / "config.json", **settings)


WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (_bytes("model.safetensors", lambda data: data[:-100]), r"model\.safetensors is no whole safetensors file"),
    "cut in the header": (_bytes("model.safetensors", lambda data: data[:60]), r"model\.safetensors is no whole"),
    "empty": (_bytes("model.safetensors", lambda _: b""), r"model\.safetensors is no whole safetensors file"),
    "garbled": (_bytes("model.safetensors", lambda data: b"\xff" * len(data)), r"model\.safetensors is no whole"),
    "not there": (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\.safetensors"),
    "missing shard": (_index, r"index\.json names model-00002-of-00002\.safetensors, which is not there"),
    "garbled index": (_garbled_index, r"index\.json is no index of safetensors files"),
    "missing tensor": (_weights(lambda found: found.pop(LAYER)), rf"model\.safetensors is missing {LAYER}"),
    "missing output layer": (_weights(lambda found: found.pop("lm_head.weight")), r"missing lm_head\.weight"),
    "another shape": (
        _weights(lambda found: found.update({LAYER: torch.zeros(5, 7)})),
        rf"model\.safetensors holds {LAYER} of shape \(5, 7\), where config\.json wants \(32, 16\)",
    ),
    "NaN": (_weights(_nan), rf"model\.safetensors holds NaN or infinity in {LAYER}"),
    "infinity": (_weights(_infinite), r"holds NaN or infinity in model\.norm\.weight"),
    "more layers than config.json": (
        _config(num_hidden_layers=1),
        r"holds model\.layers\.1.*config\.json is of another",
    ),
    "fewer layers than config.json": (_config(num_hidden_layers=3), r"is missing model\.layers\.2"),
    "another architecture": (
        _config(model_type="qwen2", num_hidden_layers=2),
        r"missing model\.layers\.0\.self_attn.*bias",
    ),
}
"""How the weights of a tiny Llama are broken; of several faults the first is told."""

CONFIG: dict[str, tuple[Callable[[Path], None], str]] = {
    "config.json cut": (_bytes("config.json", lambda data: data[:40]), r"config\.json is no model configuration"),
    "config.json empty": (_bytes("config.json", lambda _: b""), r"config\.json is no model configuration"),
    "config.json a list": (_bytes("config.json", lambda _: b"[1, 2]"), r"config\.json is no model configuration"),
    "config.json of no model": (_config(model_type=None), r"config\.json is no model configuration .*model_type"),
    "config.json of wrong types": (_config(hidden_size="wide"), r"config\.json"),
    "config.json of a model from the future": (_config(model_type="llama_9"), r"llama_9"),
    "config.json not there": (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
}

TOKENIZER: dict[str, tuple[Callable[[Path], None], str]] = {
    "tokenizer.json cut": (_bytes("tokenizer.json", lambda data: data[:90]), r"tokenizer\.json is damaged"),
    "tokenizer.json empty": (_bytes("tokenizer.json", lambda _: b""), r"tokenizer\.json is damaged"),
    "tokenizer.json of something": (_bytes("tokenizer.json", lambda _: b'{"a": 1}'), r"tokenizer\.json"),
    "tokenizer_config.json cut": (_bytes("tokenizer_config.json", lambda data: data[:9]), r"tokenizer_config\.json is"),
    "another vocabulary": (
        _config(vocab_size=12),
        r"tokenizer\.json writes ids up to 17, and the model of config\.json has 12: it is another model's tokenizer",
    ),
}
