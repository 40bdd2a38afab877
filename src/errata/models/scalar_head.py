"""One number from a hidden state: token-level reward model, sequence-level reward model, critic.

All three are stock transformers classes with one label, so what errata saves, plain transformers loads. Rewards are
read at column t, *after* token t; values at column t-1, *before* it: a critic read at column t has seen the action that
it is the baseline of, and biases the gradient silently.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.utils import logging as transformers_logging

from errata.models.batch import TokenBatch
from errata.models.load import HEADS, check_folder, without_dropout

__all__ = ["load_sequence_reward_model", "load_token_reward_model", "sequence_rewards", "token_rewards", "token_values"]


def load_token_reward_model(folder: Path | str) -> Any:
    """A scalar for every token (also the critic): ``AutoModelForTokenClassification`` with one label, no dropout.

    Loaded from a causal language model it keeps the backbone and gets a new head of zeros.

    Raises:
        ValueError: transformers has no token-classification class for this type of model.
    """
    return _load(AutoModelForTokenClassification, folder, "token-classification")


def load_sequence_reward_model(folder: Path | str, *, pad_id: int, end_id: int) -> Any:
    """A scalar for a whole response: ``AutoModelForSequenceClassification`` with one label, no dropout.

    Raises:
        ValueError: transformers has no sequence-classification class for this type of model.
    """
    model = _load(AutoModelForSequenceClassification, folder, "sequence-classification")
    # Plain transformers finds the last token by comparing with the pad id; with pad == EOS it would pool the token
    # before EOS, so leave it unset there: transformers then refuses a batch, which is better than a wrong score.
    model.config.pad_token_id = pad_id if pad_id != end_id else None
    return model


def token_rewards(model: nn.Module, batch: TokenBatch) -> Float[Tensor, "B T"]:
    """r_φ(x, [y]_t) for every response token, read at its own column; 0 outside the response (Xu et al., §3)."""
    return torch.where(batch.response_mask_BT, _scalars(model, batch), 0.0)


def token_values(model: nn.Module, batch: TokenBatch) -> tuple[Float[Tensor, "B T"], Float[Tensor, " B"]]:
    """V(s_t) before token t is emitted, read one column earlier, and V of the state after the last token.

    Returns:
        Values for the response tokens (0 outside), and the bootstrap value of a response that was cut off.
    """
    scalars_BT = _scalars(model, batch)
    before_BT = torch.cat([scalars_BT.new_zeros(scalars_BT.shape[0], 1), scalars_BT[:, :-1]], dim=1)
    after_B = scalars_BT.gather(1, _last_column(batch)[:, None]).squeeze(1)
    return torch.where(batch.response_mask_BT, before_BT, 0.0), after_B


def sequence_rewards(model: nn.Module, batch: TokenBatch) -> Float[Tensor, " B"]:
    """R(x, y), read at the last token of each row, whatever its id."""
    # The stock class finds the last token as the last id that is not the pad id. So fill the padding with an id that
    # ends no row of this batch: right also where pad == EOS, and still one plain forward, as DDP and FSDP need it.
    last_ids = set(batch.ids_BT.gather(1, _last_column(batch)[:, None]).flatten().tolist())
    config: Any = getattr(model, "module", model).config
    filler = next((token for token in range(config.vocab_size) if token not in last_ids), None)
    assert filler is not None, "the rows of this batch end in every id there is; score fewer at a time"
    usual, config.pad_token_id = config.pad_token_id, filler
    try:
        output = model(
            input_ids=torch.where(batch.attention_mask_BT, batch.ids_BT, filler),
            attention_mask=batch.attention_mask_BT.long(),
        )
    finally:
        config.pad_token_id = usual
    rewards: Tensor = output.logits.squeeze(-1).float()
    return rewards


def _last_column(batch: TokenBatch) -> Tensor:
    return batch.attention_mask_BT.sum(1) - 1


def _scalars(model: nn.Module, batch: TokenBatch) -> Tensor:
    output = model(input_ids=batch.ids_BT, attention_mask=batch.attention_mask_BT.long())
    logits: Tensor = output.logits.squeeze(-1).float()
    return logits


def _load(auto_class: Any, folder: Path | str, kind: str) -> Any:
    check_folder(folder)
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    if type(config) not in auto_class._model_mapping:
        raise ValueError(
            f"transformers has no {kind} class for {config.model_type!r} ({folder}). Train the reward model or critic "
            "on a backbone that has one and shares the tokenizer (Llama, Mistral, Qwen 2/3, GPT-2, Gemma 1/2, Phi, …)"
        )
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(
        logging.ERROR
    )  # its report of a missing head is what we came for; anything else raises below
    try:
        model, info = auto_class.from_pretrained(
            str(folder), num_labels=1, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
    missing = sorted(info["missing_keys"])
    if not all(key.split(".")[0] in HEADS for key in missing) or info["mismatched_keys"]:
        raise ValueError(f"{folder} does not fill a {config.model_type} backbone: missing {missing}; save it again")
    for key in missing:
        # A head of zeros: rewards and values start at 0 instead of at noise, and every run starts alike.
        nn.init.zeros_(model.get_parameter(key))
    return without_dropout(model)
