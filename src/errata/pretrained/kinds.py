"""In which type a model is loaded, and by which implementation of attention; torch is not needed to name them."""

from __future__ import annotations

from typing import Literal

__all__ = ["Attention", "Dtype", "Precision"]

Precision = Literal["saved", "master", "bfloat16"]
"""``saved``: the type that most of the weights are stored in, or a wider one that config.json names; ``master``: at
least float32, for weights that learn; ``bfloat16``: that. float64 stays float64 in all of them."""
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"]
"""Which implementation of attention transformers uses; ``auto`` leaves it to transformers."""
Dtype = Literal["auto", "float32", "bfloat16"]
"""What is computed in; ``auto``: the type that the weights are held in."""
