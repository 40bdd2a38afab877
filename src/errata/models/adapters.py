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
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from errata.models.load import HEADS, device, load_causal, without_dropout
from errata.models.lora import fuse
from errata.models.lower import layers_of
from errata.pretrained.adapter import in_float32, load_adapter, merge_adapter, put_in
from errata.pretrained.kinds import Attention
from errata.pretrained.load import Origin, load_pretrained

__all__ = [
    "adapter_off",
    "add_adapter",
    "continue_adapter",
    "has_adapter",
    "load_adapter",
    "load_quantized",
    "merged",
    "off_is_start",
    "save_adapter",
]


def load_quantized(folder: Path | str, *, attention: Attention = "auto") -> nn.Module:
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
        attention=attention,
        trust_remote_code=False,
        quantization_config=how,
        device_map={"": device()},
    )
    return without_dropout(model)


def add_adapter(
    model: Any,
    *,
    rank: int,
    alpha: int | None,
    seed: int,
    targets: str | list[str] = "all-linear",
    dropout: float = 0.0,
    rslora: bool = False,
    dora: bool = False,
    layers: int = 0,
) -> nn.Module:
    """Freeze ``model`` and put a LoRA adapter into it, in place: W + (α/r)·BA on all linear layers but the output's.

    The head of a reward model or critic is not frozen: it is a copy that is trained in full, in float32.

    B starts at 0, so that the model starts as it was; A is drawn from ``seed``.

    Args:
        model: a causal language model, or a backbone with a head of one number.
        rank: r, the rank of BA.
        alpha: α; 2r if None.
        seed: of A.
        targets: other layers, by names or by a regular expression of whole names.
        dropout: share of the adapter's inputs that is dropped out in training.
        rslora: scale by α/√r instead.
        dora: learn the norm of each row of W beside.
        layers: how many layers of the model, from the uppermost down, get it on all of theirs; 0: as ``targets`` says.

    Raises:
        ValueError: the rank is larger than any of these layers can use, or there are no such layers.
    """
    from peft import LoraConfig  # here and below: seconds to import, for who has an adapter
    from transformers.pytorch_utils import Conv1D

    heads = [name for name in HEADS if hasattr(model, name)]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=_upper(model, layers) if layers else targets,
        # GPT-2 stores its weights the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        exclude_modules=heads or None,
        modules_to_save=heads or None,
        task_type="TOKEN_CLS" if heads else "CAUSAL_LM",
        use_rslora=rslora,
        use_dora=dora,
    )
    shapes = dict(_linear_shapes(model, heads))
    largest = max(map(min, shapes.values()), default=0)
    if rank > largest > 0:  # quantized layers may be of a kind that does not say
        raise ValueError(
            f"--lora-rank {rank} is more than any layer of this model can use: the largest useful one is {largest}; "
            "8 to 64 are usual, and 0 trains all weights"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model.add_adapter(config)
        except ValueError as error:
            names = ", ".join(sorted({name.rpartition(".")[2] for name in shapes}))
            raise ValueError(
                f"--lora-targets {targets if isinstance(targets, str) else ','.join(targets)}: no adapter can be put "
                f"there ({' '.join(str(error).split())[:200]}); the linear layers of this model are called {names}"
            ) from error
    # Its sets of names would be written in another order by each process.
    for written in model.peft_config.values():
        for name, value in vars(written).items():
            if isinstance(value, set):
                setattr(written, name, sorted(value))
    _ready(model)
    return model  # type: ignore[no-any-return]


def continue_adapter(model: Any, folder: Path, *, dropout: float = 0.0) -> nn.Module:
    """Freeze ``model`` and put a saved adapter into it, in place, to be trained further: rank and layers are its own.

    With it off, the model is not what training starts from (see ``off_is_start``).

    Raises:
        ValueError: the adapter is damaged, or of another model.
    """
    put_in(model, folder, learns=True, dropout=dropout)
    model.adapter_goes_on = True
    _ready(model)
    return model  # type: ignore[no-any-return]


def _ready(model: Any) -> None:
    for head in (getattr(model, name) for name in HEADS if hasattr(model, name)):
        head.register_forward_pre_hook(_in_its_type)
    fuse(model)
    in_float32(model).eval()  # what is new in it is in training mode, and drops out


def _upper(model: Any, layers: int) -> list[str]:
    """The linear layers in the uppermost ``layers`` layers."""
    from transformers.pytorch_utils import Conv1D

    found = layers_of(model)
    count = len(found[1]) if found else 0
    if found is None or layers > count:
        raise ValueError(f"--lora-layers {layers} is more than the {count} layers of this model; 0 adapts all of them")
    above = [f"{found[0]}.{k}." for k in range(count - layers, count)]
    linear = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    return [name for name in linear if any(name.startswith(one) for one in above)]


def _linear_shapes(model: Any, heads: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Of the layers that get an adapter: all linear ones but the output's and the heads."""
    from transformers.pytorch_utils import Conv1D

    left_out = [model.get_output_embeddings(), *(getattr(model, name) for name in heads)]
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not any(module is one for one in left_out):
            yield name, (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            yield name, (module.nx, module.nf)


def _in_its_type(head: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    # The backbone may be in half precision.
    hidden, *rest = arguments
    return hidden.to(head.weight.dtype), *rest


def has_adapter(model: Any) -> bool:
    """Whether ``add_adapter`` was here."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def off_is_start(model: Any) -> bool:
    """Whether with the adapter off it is what training starts from: not where training goes on with an adapter."""
    return has_adapter(model) and not getattr(model, "adapter_goes_on", False)


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


def merged(start: Path | str, adapter: Path, load: Callable[..., nn.Module] = load_causal) -> nn.Module:
    """The model in ``start`` with W + (α/r)·BA for W, on the CPU, in float32 or wider: no adapter is left.

    ``load`` makes it of the folder. A head that was trained beside the adapter takes its place.
    One that was trained in 4 bits is merged into the weights as they were before. ``save_model`` rounds once, to the
    type that the start is stored in.
    """
    model: nn.Module = merge_adapter(load(start, precision="master"), adapter)
    return model
