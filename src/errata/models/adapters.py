"""LoRA and QLoRA: two small matrices beside every frozen linear layer (Hu et al. 2021; Dettmers et al. 2023).

The adapter is put into the model in place. The model stays of its class, so whatever takes a causal language model
takes one with an adapter; with the adapter off it is the start again. A head that gives a number instead of words is
trained in full beside the adapter, and saved with it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from errata.models.load import HEADS, device, load_causal, read_tensors, without_dropout
from errata.pretrained.load import Origin, load_pretrained

__all__ = ["adapter_off", "add_adapter", "has_adapter", "load_adapter", "load_quantized", "merged", "save_adapter"]

Quantize = Literal["none", "4bit"]


def load_quantized(folder: Path | str) -> nn.Module:
    """A causal language model whose linear layers are held in 4 bits (NF4, doubly quantized; QLoRA), to be adapted.

    Raises:
        ValueError: bitsandbytes or a GPU is missing, or there is no such model.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("--quantize 4bit needs bitsandbytes; pip install 'errata[qlora]', or train without it")
    if device().type == "cpu":
        # There bitsandbytes packs weights for inference at the first evaluation, and later gradients are wrong.
        raise ValueError("--quantize 4bit needs a GPU; train on a CPU without it")
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model, _ = load_pretrained(
        AutoModelForCausalLM,
        folder,
        what="model in 4 bits",
        trust_remote_code=False,
        quantization_config=how,
        device_map={"": device()},
    )
    return without_dropout(model)


def add_adapter(model: Any, *, rank: int, alpha: int | None, seed: int) -> nn.Module:
    """Freeze ``model`` and put a LoRA adapter into it, in place: W + (α/r)·BA on all linear layers but the output's.

    The head of a reward model or critic is not frozen: it is a copy that is trained in full, in float32.

    B starts at 0, so that the model starts as it was; A is drawn from ``seed``. Nothing is dropped out.

    Args:
        model: a causal language model, or a backbone with a head of one number.
        rank: r, the rank of BA.
        alpha: α; 2r if None.
        seed: of A.

    Raises:
        ValueError: the rank is larger than any of these layers can use.
    """
    from peft import LoraConfig  # here and below: seconds to import, for who has an adapter
    from transformers.pytorch_utils import Conv1D

    heads = [name for name in HEADS if hasattr(model, name)]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        # GPT-2 stores its weights the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        exclude_modules=heads or None,
        modules_to_save=heads or None,
        task_type="TOKEN_CLS" if heads else "CAUSAL_LM",
    )
    largest = max(map(min, _linear_shapes(model, heads)), default=0)
    if rank > largest:
        raise ValueError(
            f"--lora-rank {rank} is more than any layer of this model can use: the largest useful one is {largest}; "
            "8 to 64 are usual, and 0 trains all weights"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_adapter(config)
    # Its sets of names would be written in another order by each process.
    for written in model.peft_config.values():
        for name, value in vars(written).items():
            if isinstance(value, set):
                setattr(written, name, sorted(value))
    for name in heads:
        getattr(model, name).register_forward_pre_hook(_in_its_type)
    return without_dropout(_in_float32(model))


def _linear_shapes(model: Any, heads: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Of the layers that get an adapter: all linear ones but the output's and the heads."""
    from transformers.pytorch_utils import Conv1D

    left_out = [model.get_output_embeddings(), *(getattr(model, name) for name in heads)]
    for module in model.modules():
        if isinstance(module, nn.Linear) and not any(module is one for one in left_out):
            yield module.in_features, module.out_features
        elif isinstance(module, Conv1D):
            yield module.nx, module.nf


def _in_float32(model: Any) -> Any:
    # A step of AdamW on an adapter in half precision is mostly rounded away.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _in_its_type(head: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    # The backbone may be in half precision.
    hidden, *rest = arguments
    return hidden.to(head.weight.dtype), *rest


def has_adapter(model: Any) -> bool:
    """Whether ``add_adapter`` was here."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """The model that the adapter was put into, as long as the block lasts."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


def save_adapter(model: Any, folder: Path, *, state_dict: Any = None) -> Path:
    """Write the adapter in peft's format; a base on the Hub is named with its commit. Returns ``folder``."""
    model.save_pretrained(folder, state_dict=state_dict)
    origin: Origin | None = getattr(model, "origin", None)
    if origin is not None and origin.repo is not None:  # not by its place in the cache of this machine
        path = folder / "adapter_config.json"
        base = {"base_model_name_or_path": origin.repo, "revision": origin.commit}
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **base}, indent=2) + "\n")
    return folder


def load_adapter(model: Any, folder: Path | str) -> None:
    """Take the values of a saved adapter over into that of ``model``, bit for bit.

    Raises:
        ValueError: the file is damaged, or does not hold what the adapter has.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    path = Path(folder) / "adapter_model.safetensors"
    saved = {key.removeprefix("base_model.model."): x for key, x in read_tensors(path).items()}
    state = get_peft_model_state_dict(model, save_embedding_layers=False)  # else it asks the Hub for the base
    wanted = {key.removeprefix("base_model.model."): x for key, x in state.items()}
    wrong = sorted(saved.keys() ^ wanted) or [key for key in wanted if saved[key].shape != wanted[key].shape]
    if wrong:
        raise ValueError(f"{path} is not of this adapter: {wrong[0]} is missing, too many or of another shape")
    set_peft_model_state_dict(model, saved)


def merged(start: Path | str, adapter: Path, load: Callable[..., nn.Module] = load_causal) -> nn.Module:
    """The model in ``start`` with W + (α/r)·BA for W, on the CPU, in float32 or wider: no adapter is left.

    ``load`` makes it of the folder. A head that was trained beside the adapter takes its place.
    One that was trained in 4 bits is merged into the weights as they were before. ``save_model`` rounds once, to the
    type that the start is stored in.
    """
    from peft import LoraConfig, LoraModel

    tuner = LoraModel(load(start, precision="master"), LoraConfig.from_pretrained(str(adapter)), "default")
    load_adapter(_in_float32(tuner.model), adapter)
    model: nn.Module = tuner.merge_and_unload(safe_merge=True)
    return model
