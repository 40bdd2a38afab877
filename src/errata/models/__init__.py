"""Models: thin wrappers over Hugging Face. The shift, layouts, scalar heads, sampling."""

from importlib import import_module
from typing import Any

from errata.models.actor import Actor
from errata.models.adapters import adapter_off, add_adapter, has_adapter, merged, off_is_start, save_adapter
from errata.models.batch import TokenBatch, pad, pad_stream, to_lists
from errata.models.critic import critic_values, load_critic
from errata.models.divergence import token_kl
from errata.models.finite import NotFinite, check_finite, check_ids, check_scores, norm_of, not_finite
from errata.models.generation import Generator, Sampling, TransformersGenerator
from errata.models.laid_out import choose_layout, laid_out_last_scalars, laid_out_logprobs, laid_out_scalars
from errata.models.layout import Layout, LayoutKind, Wanted, common_length, lay_out, tree_size
from errata.models.load import (
    Attention,
    Precision,
    SaveDtype,
    device,
    identity,
    load_causal,
    load_tokenizer,
    read_card,
    save_model,
    without_dropout,
)
from errata.models.logprobs import greedy_choices, token_entropy, token_logprobs
from errata.models.policy import load_policy
from errata.models.scalar_head import (
    load_sequence_reward_model,
    load_token_reward_model,
    sequence_rewards,
    token_rewards,
    token_values,
)
from errata.models.settings import ModelConfig, Save, precision_of, settle
from errata.models.vllm import VLLMGenerator, load_vllm

__all__ = [
    "Actor",
    "Attention",
    "Generator",
    "Layout",
    "LayoutKind",
    "ModelConfig",
    "NotFinite",
    "Precision",
    "Sampling",
    "Save",
    "SaveDtype",
    "TokenBatch",
    "TransformersGenerator",
    "VLLMGenerator",
    "Wanted",
    "adapter_off",
    "add_adapter",
    "check_finite",
    "check_ids",
    "check_scores",
    "choose_layout",
    "common_length",
    "critic_values",
    "device",
    "greedy_choices",
    "has_adapter",
    "identity",
    "laid_out_last_scalars",
    "laid_out_logprobs",
    "laid_out_scalars",
    "lay_out",
    "load_causal",
    "load_critic",
    "load_policy",
    "load_sequence_reward_model",
    "load_token_reward_model",
    "load_tokenizer",
    "load_vllm",
    "merged",
    "norm_of",
    "not_finite",
    "off_is_start",
    "pad",
    "pad_stream",
    "precision_of",
    "read_card",
    "save_adapter",
    "save_model",
    "sequence_rewards",
    "settle",
    "to_lists",
    "token_entropy",
    "token_kl",
    "token_logprobs",
    "token_rewards",
    "token_values",
    "tree_size",
    "without_dropout",
]

_MOVED = {
    *("NOBODY", "OfflineConfig", "Share", "StepLoss", "Tracker", "Watch", "evaluation_of", "fit", "loss_shares"),
}
"""What trains lies in ``errata.training``, and was here until 0.1."""


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        return getattr(import_module("errata.training"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
