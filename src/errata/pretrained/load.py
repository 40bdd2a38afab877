"""Loading with transformers: safetensors only, no remote code, and no number that the files do not hold."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from transformers import AutoConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from errata.pretrained.folder import ADAPTER_WEIGHTS, ModelFolder, StoredTensor, find_model, read_header
from errata.pretrained.kinds import Attention, Precision

__all__ = [
    "HEADS",
    "Origin",
    "check_attention",
    "load_config",
    "load_pretrained",
    "read_config",
    "stops_of",
]

_FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""The modules that they need."""

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
HEADS = ("score", "classifier")
"""What transformers calls the output layer of models that give a number instead of words."""
_OUTPUT_LAYERS = ("lm_head", "embed_out")  # of the language model that a reward model is made from
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a model was loaded from, noted for when it is saved: ``load_pretrained`` sets it as ``model.origin``."""

    reference: str
    """Of exactly this model: a Hub id with its commit."""
    repo: str | None
    """``owner/name`` on the Hub."""
    commit: str | None
    """Its commit."""
    config: str
    """config.json."""
    generation_config: str | None
    """generation_config.json, if there is one."""
    dtypes: Mapping[str, torch.dtype]
    """The type of each tensor of floating point numbers."""
    main_dtype: torch.dtype
    """The one that most of the numbers have."""


def read_config(model: ModelFolder) -> dict[str, Any]:
    """config.json.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = model.whole.path / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
            raise ValueError("it names no model_type")
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} has no config.json; {model.whole.remedy}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no model configuration ({error}); {model.whole.remedy}") from error
    return found


def load_config(model: ModelFolder, **settings: Any) -> Any:
    """config.json as transformers reads it.

    Raises:
        ValueError: there is none, or transformers cannot make anything of it.
    """
    read_config(model)
    try:
        return AutoConfig.from_pretrained(str(model.whole.path), trust_remote_code=False, **settings)
    except Exception as error:  # of transformers' configurations: no common class
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{model.whole.path / 'config.json'} is no model configuration ({reason}); {model.whole.remedy}"
        ) from error


def stops_of(model: ModelFolder) -> tuple[int, ...]:
    """The ids at which plain ``generate`` stops: ``eos_token_id`` of generation_config.json, or else of config.json.

    Raises:
        ValueError: a configuration is damaged.
    """
    path = _generation_config(model)
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else read_config(model)
        eos = found.get("eos_token_id")
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no generation configuration ({error}); {model.remedy}") from error
    return tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)


def _generation_config(model: ModelFolder) -> Path:
    """Of an adapter that ends differently from its base it lies beside the adapter."""
    own = model.path / "generation_config.json"
    return own if own.exists() else model.whole.path / own.name


def check_attention(attention: Attention) -> None:
    """Refuse an attention that cannot run here.

    Raises:
        ValueError: its package or a GPU is missing.
    """
    module = _FLASH.get(attention)
    if module is None:
        return
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"--attention {attention} needs the package {module}, which is not installed; pip install flash-attn, or "
            "give --attention sdpa"
        )
    if not torch.cuda.is_available():
        raise ValueError(f"--attention {attention} needs a GPU; give --attention sdpa")


def load_pretrained(
    kind: Any,
    reference: Path | str,
    *,
    what: str = "model",
    precision: Precision = "saved",
    attention: Attention = "auto",
    new: Sequence[str] = (),
    **settings: Any,
) -> tuple[Any, tuple[str, ...]]:
    """``kind.from_pretrained``, refusing what would leave a weight at random, out of the model, or not finite.

    An adapter is merged into its base in float32 or wider, and rounded once to the type that is asked for. Beside a
    base whose weights are quantized it stays an adapter.

    Args:
        kind: a class of transformers or an Auto class.
        reference: of the model, as ``find_model`` takes it.
        what: is expected, in words, for errors.
        precision: in which type.
        attention: by which implementation.
        new: modules by their first name (``score``) that the files need not hold.
        settings: further ones of ``from_pretrained``.

    Returns:
        The model, with an ``Origin`` as its ``origin``, and the names of its parameters that are new.

    Raises:
        ValueError: files are missing or damaged, hold another architecture or shape, or numbers that are not finite.
            The message names file and tensor.
    """
    check_attention(attention)
    model = find_model(reference, weights=True)
    if attention != "auto":
        settings["attn_implementation"] = attention
    if model.quantization:
        settings.setdefault("device_map", {"": PartialState().device})  # some kinds cannot be moved afterwards
    try:
        return _load(kind, model, precision, new, settings)
    except Exception as error:  # of transformers, its configs, quantizers and safetensors: no common class
        reason = " ".join(str(error).split())
        raise ValueError(f"no {what} could be loaded from {reference}: {reason}") from error


def _load(
    kind: Any, model: ModelFolder, precision: Precision, new: Sequence[str], settings: Mapping[str, Any]
) -> tuple[Any, tuple[str, ...]]:
    load_config(model)  # whose errors name the file
    config, tensors = read_config(model), model.tensors
    dtypes = {name: _DTYPES[one.dtype] for name, one in tensors.items() if one.dtype in _DTYPES}
    sizes = Counter[torch.dtype]()
    for name, stored in dtypes.items():
        sizes[stored] += prod(tensors[name].shape)
    main = sizes.most_common(1)[0][0] if sizes else torch.float32
    dtype: Any = _dtype(config, main, dtypes, precision)
    merges = model.base is not None and not model.quantization
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)  # its report of what is missing; anything serious raises below
    try:
        loaded, info = kind.from_pretrained(
            str(model.whole.path),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # and named below
            dtype=_dtype(config, main, dtypes, "master") if merges else dtype,
            **settings,
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
    fresh = _check_names(loaded, info, model.whole, tensors, new)
    _check_finite(loaded, tensors, model.whole, fresh)
    if model.base is not None:
        from errata.pretrained.adapter import merge_adapter, put_in

        held = set(read_header(model.path / ADAPTER_WEIGHTS, model.remedy))
        fresh = tuple(name for name in fresh if f"base_model.model.{name}" not in held)
        loaded = merge_adapter(loaded, model.path) if merges else put_in(loaded, model.path)
        if merges:
            for parameter in loaded.parameters():  # and no buffer, such as the angles of positions
                parameter.data = parameter.data.to(dtype)
            loaded.config.dtype = dtype
    generation = _generation_config(model)
    if model.base is not None and generation.parent == model.path and loaded.can_generate():
        loaded.generation_config = GenerationConfig.from_pretrained(str(model.path))
    loaded.origin = Origin(
        reference=model.pinned,
        repo=model.repo,
        commit=model.commit,
        config=(model.whole.path / "config.json").read_text(encoding="utf-8"),
        generation_config=generation.read_text(encoding="utf-8") if generation.exists() else None,
        dtypes=dtypes,
        main_dtype=main,
    )
    return loaded, fresh


def _dtype(
    config: Mapping[str, Any], main: torch.dtype, dtypes: Mapping[str, torch.dtype], precision: Precision
) -> torch.dtype | str:
    if config.get("quantization_config"):
        return "auto"
    wide = torch.float64 if torch.float64 in dtypes.values() else None
    if precision != "saved":
        return wide or (torch.float32 if precision == "master" else torch.bfloat16)
    named = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), main)
    return wide or (torch.promote_types(named, main) if isinstance(named, torch.dtype) else main)


def _check_names(
    loaded: Any, info: Mapping[str, Any], model: ModelFolder, tensors: Mapping[str, StoredTensor], new: Sequence[str]
) -> tuple[str, ...]:
    if wrong := sorted(info["mismatched_keys"]):
        name, stored, expected = wrong[0]
        raise ValueError(
            f"{_file(name, tensors, model)} holds {name} of shape {tuple(stored)}, where config.json wants "
            f"{tuple(expected)}{_more(wrong)}; {model.remedy}"
        )
    missing = sorted(info["missing_keys"])
    fresh = tuple(name for name in missing if name.split(".")[0] in new)
    if lost := [name for name in missing if name not in fresh]:
        raise ValueError(
            f"{_files(model)} is missing {lost[0]}{_more(lost)}, which {type(loaded).__name__} needs and would draw "
            f"at random; {model.remedy}, or correct config.json"
        )
    unexpected = sorted(info["unexpected_keys"])
    prefix, parts = f"{loaded.base_model_prefix}.", dict(loaded.base_model.named_children())
    if foreign := [name for name in unexpected if name.removeprefix(prefix).split(".")[0] in parts]:
        raise ValueError(
            f"{_file(foreign[0], tensors, model)} holds {foreign[0]}{_more(foreign)}, for which the "
            f"{loaded.config.model_type} model of config.json has no place: config.json is of another model; "
            f"{model.remedy}"
        )
    heads = [name for name in unexpected if name.split(".")[0] in HEADS]
    if heads and not any(hasattr(loaded, name) for name in HEADS):
        raise ValueError(
            f"{_file(heads[0], tensors, model)} holds {heads[0]}: it is a model that gives numbers, such as a reward "
            "model; give a language model"
        )
    if unused := [name for name in unexpected if name.split(".")[0] not in (*HEADS, *_OUTPUT_LAYERS)]:
        _LOG.warning("%s: %s%s is not used", model.reference, unused[0], _more(unused))
    return fresh


def _check_finite(loaded: Any, tensors: Mapping[str, StoredTensor], model: ModelFolder, fresh: Sequence[str]) -> None:
    for name, value in loaded.state_dict().items():
        # New ones are whatever they are: who asked for them sets them. Of quantized ones torch knows no such question.
        plain = type(value) in (torch.Tensor, torch.nn.Parameter)
        if plain and value.is_floating_point() and name not in fresh and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{_file(name, tensors, model)} holds NaN or infinity in {name}; {model.remedy}")


def _file(name: str, tensors: Mapping[str, StoredTensor], model: ModelFolder) -> str:
    return str(tensors[name].file) if name in tensors else _files(model)


def _files(model: ModelFolder) -> str:
    files = model.weight_files
    return str(files[0]) if len(files) == 1 else f"{model.path / 'model.safetensors.index.json'}"


def _more(names: Sequence[Any]) -> str:
    return f" (and {len(names) - 1} more such)" if len(names) > 1 else ""
