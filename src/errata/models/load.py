"""Loading and saving Hugging Face models: safetensors only, no remote code, no dropout where it would add noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.state import PartialState
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from errata.data.encoding import load_tokenizer
from errata.pretrained import ADAPTER_WEIGHTS, find_model, identity, is_hub_id
from errata.pretrained.adapter import read_tensors
from errata.pretrained.kinds import Attention, Precision
from errata.pretrained.load import HEADS, Origin, load_pretrained
from errata.runs import CARD, new_folder, read_record, sums_of, write_sums

__all__ = [
    "HEADS",
    "Attention",
    "Precision",
    "SaveDtype",
    "device",
    "dtypes_in_words",
    "identity",
    "load_causal",
    "load_tokenizer",
    "read_card",
    "read_tensors",
    "reference_of",
    "save_model",
    "without_dropout",
]

SaveDtype = Literal["auto", "float32", "bfloat16", "float16"]
"""``auto``: each tensor as it was stored in the model that training started from."""
# What a head of one number changes in config.json.
_OF_HEADS = ("architectures", "id2label", "label2id", "pad_token_id")


def load_causal(folder: Path | str, *, precision: Precision = "saved", attention: Attention = "auto") -> nn.Module:
    """A causal language model without dropout.

    Args:
        folder: whatever ``find_model`` takes: a folder, an adapter's, a name of the Hub, a GGUF file.
        precision: ``saved``, to run it: the type that most of its weights are stored in, or a wider one that its
            config.json names. ``master``, to train it: float32. ``bfloat16``. float64 stays float64 in all of them.
        attention: by which implementation.

    Raises:
        ValueError: there is none, or its files are damaged or do not fit each other (``errata.pretrained``).
    """
    model, _ = load_pretrained(
        AutoModelForCausalLM,
        folder,
        what="causal language model",
        precision=precision,
        attention=attention,
        trust_remote_code=False,
    )
    return without_dropout(model)


def device() -> torch.device:
    """Where this process computes: its own accelerator under a launcher, else the first one, else the CPU."""
    found = PartialState().device
    assert found is not None
    return found


def without_dropout(model: nn.Module) -> nn.Module:
    """Set every dropout to 0, in place: noise in a log-ratio, a reward or a value is taken for signal."""
    for name, value in vars(getattr(model, "config", object())).items() if hasattr(model, "config") else ():
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float):
            setattr(model.config, name, 0.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            # Attention classes copy the number at construction and call the functional form.
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    card: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    folders: Mapping[str, Path] | None = None,
    adapter: Path | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    dtype: SaveDtype = "auto",
    ends: Sequence[int] = (),
) -> dict[str, Any]:
    """Write model, tokenizer and what was done to them (``errata.json``) in one step; plain transformers loads it.

    The configurations of a model that errata loaded are written as they came, but for what is meant to be another: an
    end that was trained, the type, the kind of model.

    Args:
        model: a Hugging Face model.
        tokenizer: its own.
        folder: to be written.
        card: the record, ``errata.json``; it gets ``saved_dtype``, and ``warnings`` more.
        files: texts to write beside, by name.
        folders: are copied there, by name.
        adapter: a saved adapter that is written in the place of the model.
        state_dict: the weights of a model whose own are elsewhere.
        dtype: of the weights. ``auto``: that of each tensor in the files which the model was loaded from, and of what
            is new the one that most of them have; a model that was not loaded keeps its own.
        ends: ids that end a response as it was trained: they are added to ``eos_token_id`` of both configurations.

    Returns:
        The record as written.
    """
    origin: Origin | None = getattr(model, "origin", None)
    written = dict(card or {})
    if adapter is not None:
        weights, fits = read_tensors(adapter / ADAPTER_WEIGHTS), True
    else:
        weights, fits = _cast(dict(model.state_dict() if state_dict is None else state_dict), origin, dtype)
    if not fits:
        dtype = "float32"
        note = "weights are too large for float16: they are saved in float32"
        written["warnings"] = [*written.get("warnings", ()), note]
    written["saved_dtype"] = dtypes_in_words(weights)
    with new_folder(folder) as partial:
        if adapter is not None:
            shutil.copytree(adapter, partial, dirs_exist_ok=True)
            if origin is not None and origin.generation_config is not None and not _has_head(model):
                (partial / "generation_config.json").write_text(origin.generation_config, encoding="utf-8")
        else:
            model.save_pretrained(partial, state_dict=weights)
        if adapter is None and origin is not None:
            _restore(partial, origin, None if dtype == "auto" else dtype, heads=_has_head(model))
        _add_ends(partial, ends)
        tokenizer.save_pretrained(partial)
        (partial / CARD).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        for name, text in (files or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
        for name, source in (folders or {}).items():
            shutil.copytree(source, partial / name)
        # All but what people write on: the model card.
        write_sums(partial, sums_of(partial, [path for path in partial.iterdir() if path.name != "README.md"]))
    return written


def _has_head(model: Any) -> bool:
    return any(hasattr(model, name) for name in HEADS)


def reference_of(model: Any) -> str:
    """What loads the model again as it was loaded: of one from the Hub with its commit."""
    origin: Origin | None = getattr(model, "origin", None)
    return str(model.name_or_path) if origin is None else origin.reference


def dtypes_in_words(weights: Mapping[str, Tensor]) -> str:
    """The types of the floating point numbers, by name.

    >>> dtypes_in_words({"a": torch.zeros(2), "b": torch.zeros(1, dtype=torch.bfloat16)})
    'bfloat16, float32'
    """
    return ", ".join(sorted({str(x.dtype).removeprefix("torch.") for x in weights.values() if x.is_floating_point()}))


def _cast(weights: dict[str, Tensor], origin: Origin | None, dtype: SaveDtype) -> tuple[dict[str, Tensor], bool]:
    """The weights as they are to be written; or in float32, where numbers would become infinite."""
    if origin is None and dtype == "auto":
        return weights, True
    done: dict[tuple[Any, ...], Tensor] = {}  # tied weights stay one tensor
    found = {}
    for name, x in weights.items():
        to = getattr(torch, dtype) if dtype != "auto" or origin is None else origin.dtypes.get(name, origin.main_dtype)
        if not x.is_floating_point() or x.dtype == to:
            found[name] = x
            continue
        key = (x.data_ptr(), x.shape, x.stride(), to)
        if key not in done:
            done[key] = x.to(to)
            if to == torch.float16 and not bool(done[key].isfinite().all()) and bool(x.isfinite().all()):
                return {each: y.float() if y.is_floating_point() else y for each, y in weights.items()}, False
        found[name] = done[key]
    return found, True


def _restore(folder: Path, origin: Origin, dtype: str | None, *, heads: bool) -> None:
    """Put the configurations that the model came with in the place of those that transformers wrote."""
    saved, came = json.loads((folder / "config.json").read_text(encoding="utf-8")), json.loads(origin.config)
    if saved.get("model_type") != came.get("model_type"):  # a part of what came
        came, config = {}, {**saved, "dtype": str(origin.main_dtype).removeprefix("torch.")}
    else:
        config = dict(came)
    if came and (heads or saved["architectures"] != came.get("architectures")):
        for key in _OF_HEADS if heads else _OF_HEADS[:1]:
            config |= {key: saved[key]} if key in saved else {}
            if key not in saved:
                config.pop(key, None)
    if dtype is not None:
        config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype
    _write(folder / "config.json", origin.config, came, config)
    if origin.generation_config is not None and not heads:
        (folder / "generation_config.json").write_text(origin.generation_config, encoding="utf-8")


def _add_ends(folder: Path, ends: Sequence[int]) -> None:
    """Add ids to what ends a response; nothing that stands there is taken away."""
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        if ends and path.exists():
            text = path.read_text(encoding="utf-8")
            came = json.loads(text)
            eos = came.get("eos_token_id")
            there = [] if eos is None else eos if isinstance(eos, list) else [eos]
            together = [*there, *(end for end in dict.fromkeys(ends) if end not in there)]
            eos = eos if together == there else together[0] if len(together) == 1 else together
            _write(path, text, came, {**came, "eos_token_id": eos})


def _write(path: Path, text: str, came: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """A configuration: byte for byte as it came, if it is the same."""
    same = came == config
    path.write_text(text if same else json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: Path | str) -> dict[str, Any]:
    """What ``save_model`` noted beside the model; empty for a model that errata did not make.

    Raises:
        ValueError: the record is damaged, or a Hub id cannot be found.
    """
    path = (find_model(folder).path if is_hub_id(folder) else Path(folder)) / CARD
    return read_record(path) if path.exists() else {}
