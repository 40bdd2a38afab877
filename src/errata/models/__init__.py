"""Models: thin wrappers over Hugging Face. The shift, layouts, scalar heads, sampling, the offline training loop."""

from errata.models.actor import Actor
from errata.models.adapters import adapter_off, add_adapter, has_adapter, merged, off_is_start, save_adapter
from errata.models.batch import TokenBatch, pad, pad_stream, to_lists
from errata.models.critic import critic_values, load_critic
from errata.models.divergence import token_kl
from errata.models.finite import NotFinite, check_finite, check_ids, check_scores, norm_of, not_finite
from errata.models.generation import Generator, Sampling, TransformersGenerator
from errata.models.layout import (
    Layout,
    LayoutKind,
    Wanted,
    choose_layout,
    common_length,
    laid_out_last_scalars,
    laid_out_logprobs,
    laid_out_scalars,
    lay_out,
)
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
from errata.models.scalar_head import (
    load_sequence_reward_model,
    load_token_reward_model,
    sequence_rewards,
    token_rewards,
    token_values,
)
from errata.models.settings import ModelConfig, precision_of, settle
from errata.models.training import (
    OfflineConfig,
    Share,
    StepLoss,
    Tracker,
    evaluation_of,
    fit,
    load_policy,
    loss_shares,
)
from errata.models.vllm import VLLMGenerator, load_vllm

__all__ = [
    "Actor",
    "Attention",
    "Generator",
    "Layout",
    "LayoutKind",
    "ModelConfig",
    "NotFinite",
    "OfflineConfig",
    "Precision",
    "Sampling",
    "SaveDtype",
    "Share",
    "StepLoss",
    "TokenBatch",
    "Tracker",
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
    "evaluation_of",
    "fit",
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
    "loss_shares",
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
    "without_dropout",
]
