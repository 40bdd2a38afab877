"""How a model that learns is held, adapted, computed and saved: what every verb that trains has in common.

``settle`` makes of the settings and the model what will be done, before anything is loaded: training goes on with an
adapter that is given as the model, a learning rate that nobody named follows from what is trained, and what does not go
together is an error.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from errata.models.load import SaveDtype, device
from errata.pretrained import ModelFolder, find_model
from errata.pretrained.adapter import read_lora_config
from errata.pretrained.kinds import Attention, Dtype, Precision
from errata.pretrained.load import check_attention
from errata.ranges import Range, Ranged, Rank, Seed, Size, refuse

__all__ = ["LORA_FACTOR", "ModelConfig", "Quantize", "Save", "precision_of", "settle"]

LORA_FACTOR = 20.0
"""The learning rate that an adapter takes by default, over that of all weights: 2e-4 over 1e-5."""
OWN_TARGETS = "those of the adapter"
"""What ``lora_targets`` says where training goes on with an adapter."""

Quantize = Literal["none", "4bit"]
Save = Literal["both", "merged", "adapter"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Ranged):
    """The settings of a model that learns."""

    FULL_RATE = 1e-5  # of all weights; no field
    quantize = "none"

    learning_rate: Annotated[float, Range(above=0)] | Literal["auto"] = "auto"
    """Peak learning rate of AdamW. auto: 1e-5 where all weights are trained, 2e-4 for an adapter (--lora-rank), which
    wants more."""
    lora_rank: Rank = 0
    """Train an adapter of this rank beside the frozen weights (LoRA): 8 to 64 are usual. 0 trains all weights; or,
    where --model is an adapter itself, goes on with it."""
    lora_alpha: Size | None = None
    """Scale of the adapter: it is added times alpha/rank. Twice the rank, if not given."""
    lora_targets: str = "all-linear"
    """Which layers get the adapter: all-linear (but the output layer), names with commas between (q_proj,v_proj), or a
    regular expression of whole names (.*layers\\.(20|21)\\..*)."""
    lora_layers: Annotated[int, Range(low=0)] = 0
    """Adapt the uppermost so many layers only; what the layers below give is then computed once; 0 adapts all."""
    lora_dropout: Annotated[float, Range(low=0, below=1, usual="0 or 0.05 are usual")] = 0.0
    """Share of the adapter's inputs that are dropped out in training, which makes it harder to learn few rows by heart.
    The two sides of a pair are then computed each by itself (--layout plain), since each has noise of its own."""
    lora_rslora: bool = False
    """Scale by alpha/√rank (rsLoRA): a large rank, above 32, then learns as fast as a small one."""
    lora_dora: bool = False
    """Learn the size of each weight row apart from its direction (DoRA): a little better at small ranks, slower."""
    attention: Attention = "auto"
    """Implementation of attention: auto leaves it to transformers (sdpa where the model has it). flash_attention_2 and
    3 need their package, a GPU and --dtype bfloat16, and take no shared layout."""
    dtype: Dtype = "auto"
    """What is computed in. auto: as the weights are held, float32 where they learn, else the type that they are stored
    in. bfloat16: half the memory of activations, and faster on a GPU; weights that learn stay float32. float32: the
    frozen weights beside an adapter, too."""
    bf16: bool = False
    """The old name of --dtype bfloat16."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    save: Save = "both"
    """Of an adapter. merged: a whole model that plain transformers loads. adapter: only the adapter in peft's format, a
    few hundredths of the size, which errata, peft and vLLM load beside its base. both: merged, `adapter/` in it."""
    save_dtype: SaveDtype = "auto"
    """Type of the weights that are written. What learns is trained in float32; auto rounds it once, at the end, to the
    type that each weight had in --model."""

    seed: Seed = 0
    """Seeds what is drawn at random."""

    def __post_init__(self) -> None:
        """Raise ValueError for a number out of its range, or settings that contradict each other."""
        super().__post_init__()
        if self.bf16:
            if self.dtype == "float32":
                refuse("--bf16 is --dtype bfloat16, and --dtype float32 is given, too; leave one of them out")
            _LOG.warning("--bf16 is the old name of --dtype bfloat16; write that")
            object.__setattr__(self, "dtype", "bfloat16")
            object.__setattr__(self, "bf16", False)
        if self.lora_layers and self.lora_targets != "all-linear":
            refuse("--lora-layers and --lora-targets both say where the adapter goes; give one of them")
        try:
            re.compile(self.lora_targets)
        except re.error as error:
            refuse(
                f"--lora-targets {self.lora_targets} is no regular expression ({error}); give all-linear, names with "
                "commas between, or an expression of whole names"
            )

    @property
    def rate(self) -> float:
        """The learning rate as a number."""
        if self.learning_rate != "auto":
            return self.learning_rate
        return self.FULL_RATE * (LORA_FACTOR if self.lora_rank else 1)

    @property
    def targets(self) -> str | list[str]:
        """``lora_targets`` as peft takes them."""
        names = re.fullmatch(r"[\w.-]+(,[\w.-]+)*", self.lora_targets) and self.lora_targets != "all-linear"
        return self.lora_targets.split(",") if names else self.lora_targets


C = TypeVar("C", bound=ModelConfig)
_OF_ADAPTERS = ("lora_alpha", "lora_targets", "lora_layers", "lora_dropout", "lora_rslora", "lora_dora")


def settle(config: C, model: Path | str) -> tuple[C, dict[str, Any]]:
    """What the settings come to for this model; nothing of it is loaded. Settled ones settle to themselves.

    Returns:
        The settings with a learning rate that is a number and, where the model is an adapter, its rank and kind; and
        what to note of both in the card.

    Raises:
        ValueError: they do not go together, or not with this model; there is no such model.
    """
    found = find_model(model)
    check_attention(config.attention)
    if config.attention.startswith("flash") and config.dtype != "bfloat16":
        raise ValueError(f"--attention {config.attention} computes in half precision; give --dtype bfloat16")
    noted: dict[str, Any] = {}
    if found.base is not None:
        config = _going_on(config, found)
        noted["goes_on_from"] = found.name
    if config.lora_rank:
        _check_adapter(config, found)
    else:
        _check_full(config, found)
    what = "an adapter" if config.lora_rank else "all weights"
    noted["learning_rate"] = config.rate
    noted["learning_rate_is"] = f"the default for {what}" if config.learning_rate == "auto" else "as given"
    return replace(config, learning_rate=config.rate), noted


def _check_full(config: ModelConfig, found: ModelFolder) -> None:
    given = [name for name in _OF_ADAPTERS if getattr(config, name) != _usual(name)]
    if given or config.save == "adapter":
        named = f"--{given[0].replace('_', '-')}" if given else "--save adapter"
        raise ValueError(f"{named} is of an adapter, and all weights are trained; give --lora-rank 16, or leave it out")
    if config.quantize != "none":
        raise ValueError(f"weights in {config.quantize} stay as they are; give --lora-rank to train an adapter on them")
    if found.quantization:
        raise ValueError(
            f"the weights of {found.reference} are quantized ({found.quantization['quant_method']}) and cannot be "
            "trained; give --lora-rank 16 --save adapter to train an adapter beside them, or a --model that is not "
            "quantized"
        )


def _check_adapter(config: ModelConfig, found: ModelFolder) -> None:
    how = found.quantization
    if not how:
        return
    if config.quantize != "none":
        raise ValueError(f"the weights of {found.reference} are quantized already; leave --quantize out")
    if config.save != "adapter":
        raise ValueError(
            f"the weights of {found.reference} are quantized ({how['quant_method']}), and no adapter can be merged "
            "into them without loss; give --save adapter"
        )
    if how["quant_method"] == "bitsandbytes" and how.get("load_in_4bit") and device().type == "cpu":
        # There it packs weights for inference at the first evaluation, and later gradients are wrong.
        raise ValueError(f"{found.reference} is held in 4 bits: training on it needs a GPU; give another --model here")


def _going_on(config: C, found: ModelFolder) -> C:
    """The settings with the adapter's own, which none that is given may contradict."""
    lora = read_lora_config(found.path)
    own = {
        "lora_rank": lora.r,
        "lora_alpha": int(lora.lora_alpha) if lora.lora_alpha == lora.lora_alpha // 1 else None,
        "lora_targets": OWN_TARGETS,
        "lora_layers": 0,
        "lora_rslora": lora.use_rslora,
        "lora_dora": lora.use_dora,
    }
    for name, value in own.items():
        if getattr(config, name) not in (_usual(name), value):
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(config, name)}: {found.reference} is an adapter ({value}), and "
                f"training goes on with it as it is; leave that out, or give its base {found.whole.reference} as "
                "--model for a new adapter"
            )
    return replace(config, **own)


def _usual(name: str) -> Any:
    return ModelConfig.__dataclass_fields__[name].default


def precision_of(config: ModelConfig) -> Precision:
    """The type to load a model in: weights that learn are float32, for in bfloat16 most steps are rounded away; those
    that an adapter leaves frozen stay as they are, unless all is to be computed in float32.
    """  # noqa: D205
    return "saved" if config.lora_rank and config.dtype != "float32" else "master"
