"""A tiny GGUF file, as llama.cpp's converters write a Llama with a tokenizer of bytes."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

SIZE, WIDE, LAYERS = 16, 32, 2
TOKENS = ["<pad>", "<s>", "</s>", *sorted(ByteLevel.alphabet()), "ca", "cat"]


def write_gguf(path: Path, *, seed: int = 0) -> Path:
    """Float32 weights; ``cat`` is a token, all else is bytes."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(SIZE // 2)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
    writer.add_token_merges(["c a", "ca t"])
    for name, number in (("pad", 0), ("bos", 1), ("eos", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    shapes = {"token_embd": (len(TOKENS), SIZE), "output_norm": (SIZE,), "output": (len(TOKENS), SIZE)}
    for layer in range(LAYERS):
        of = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (SIZE, SIZE))
        of |= {"ffn_gate": (WIDE, SIZE), "ffn_up": (WIDE, SIZE), "ffn_down": (SIZE, WIDE)}
        of |= {"attn_norm": (SIZE,), "ffn_norm": (SIZE,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of.items()}
    for name, shape in shapes.items():
        drawn = np.ones(shape) if "norm" in name else rng.normal(0, 0.3, shape)
        writer.add_tensor(f"{name}.weight", drawn.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
