"""A GGUF file (llama.cpp's) as an ordinary Hugging Face folder: weights dequantized to float32, once.

transformers reads the file; what it returns cannot be saved or trained as it is ("quantized with gguf"), so the weights
move into a fresh model of the same config.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from errata.runs import new_folder

__all__ = ["convert_gguf"]


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file to ``folder``, in one step; plain transformers loads it.

    Args:
        file: the GGUF file.
        folder: a new folder: float32 safetensors, tokenizer with its chat template, and a generation config whose
            beginning, end and padding are the tokenizer's.

    Raises:
        ValueError: the ``gguf`` package is missing, or the file is no GGUF that transformers can read.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(f"{file} is a GGUF file; run `pip install 'errata[gguf]'` to read it")
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except Exception as error:  # of a file that is cut off it is anything
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} could not be read as a GGUF file: {reason}; download it again") from error
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    config = AutoConfig.for_model(**settings)
    config.dtype = "float32"
    # The weights come from the file; drawing 135 million at random first would take longer than reading them.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    missing, unexpected = model.load_state_dict(read.state_dict(), assign=True, strict=False)
    model.tie_weights()
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    if (lost := set(missing) - tied) or unexpected:
        names = ", ".join(sorted([*lost, *unexpected])[:3])
        raise ValueError(f"{file}: its tensors are not those of {config.model_type} ({names}); use another conversion")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**ends, pad_token_id=tokenizer.pad_token_id)
    with new_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
