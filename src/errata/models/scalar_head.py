"""One number from a hidden state: token-level reward model, sequence-level reward model, critic.

All three are transformers classes with one label. Where transformers has such a class for an architecture it is that
one, so what errata saves, plain transformers loads; elsewhere (OPT, OLMo, Granite, Gemma 3 for tokens, …) it is put
together from the architecture's own backbone and transformers' generic head, and errata loads it. Rewards are read at
column t, *after* token t; values at column t-1, *before* it: a critic read at column t has seen the action that
it is the baseline of, and biases the gradient silently.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from errata.models.batch import TokenBatch
from errata.models.load import HEADS, Attention, Precision, without_dropout
from errata.pretrained import find_model
from errata.pretrained.load import load_config, load_pretrained

__all__ = ["load_sequence_reward_model", "load_token_reward_model", "sequence_rewards", "token_rewards", "token_values"]


def load_token_reward_model(
    folder: Path | str, *, precision: Precision = "saved", attention: Attention = "auto"
) -> Any:
    """A scalar for every token (also the critic): a token-classification model with one label, no dropout.

    Loaded from a causal language model it keeps the backbone and gets a new head of zeros. ``precision`` and
    ``attention`` are those of ``load_causal``.

    Raises:
        ValueError: the folder holds no causal language model, and nothing that was made of one.
    """
    return _load(AutoModelForTokenClassification, folder, precision, attention)


def load_sequence_reward_model(
    folder: Path | str, *, pad_id: int, end_id: int, precision: Precision = "saved", attention: Attention = "auto"
) -> Any:
    """A scalar for a whole response: a sequence-classification model with one label, no dropout.

    Raises:
        ValueError: the folder holds no causal language model, and nothing that was made of one.
    """
    model = _load(AutoModelForSequenceClassification, folder, precision, attention)
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
    # Padding on the right is after all that is read.
    output = model(input_ids=batch.ids_BT, use_cache=False)
    logits: Tensor = output.logits.squeeze(-1).float()
    return logits


def _class_of(auto_class: Any, config: Any, folder: Path | str) -> Any:
    """The architecture's own class, or one of its backbone and transformers' generic head."""
    if type(config) in auto_class._model_mapping:
        return auto_class
    if type(config) not in AutoModelForCausalLM._model_mapping or type(config) not in AutoModel._model_mapping:
        raise ValueError(
            f"transformers has no causal language model for {config.model_type!r} ({folder}): a reward model or critic "
            "reads a response from left to right; train it on a model that does, with the same tokenizer"
        )
    if config.get_text_config() is not config:
        raise ValueError(f"{folder} reads more than text ({config.model_type!r}); save its language model by itself")
    # Two seconds to import, for the few that need it.
    from transformers.modeling_layers import GenericForSequenceClassification, GenericForTokenClassification

    by_token = auto_class is AutoModelForTokenClassification
    generic: Any = GenericForTokenClassification if by_token else GenericForSequenceClassification
    backbone: Any = AutoModel._model_mapping[type(config)]
    # The architecture's base, from which all its models inherit: initialisation, kinds of attention, names of weights.
    base: Any = next(kind for kind in backbone.__mro__ if kind.__name__.endswith("PreTrainedModel"))

    class BackboneWithHead(generic, base):  # type: ignore[misc]
        base_model_prefix = base.base_model_prefix

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            # What the output layer of the language model reads is as wide as its embeddings (in OPT not hidden_size).
            width = getattr(self, self.base_model_prefix).get_input_embeddings().embedding_dim
            self.score: nn.Linear = nn.Linear(width, 1, bias=by_token)

    BackboneWithHead.__name__ = f"{backbone.__name__}With{generic.__name__.removeprefix('GenericFor')}Head"
    return BackboneWithHead


def _load(auto_class: Any, folder: Path | str, precision: Precision, attention: Attention) -> Any:
    found = find_model(folder)
    config = load_config(found, num_labels=1)
    kind = _class_of(auto_class, config, folder)
    made = " ".join(config.architectures or [])
    # Where the folder is such a model already, its head is not made anew.
    whole = auto_class.__name__.removeprefix("AutoModelFor") in made
    model, fresh = load_pretrained(
        kind,
        found.pinned,
        what=f"{config.model_type} backbone with a head",
        precision=precision,
        attention=attention,
        new=() if whole else HEADS,
        config=config,
        **({"trust_remote_code": False} if kind is auto_class else {}),
    )
    for key in fresh:
        # A head of zeros: rewards and values start at 0 instead of at noise, and every run starts alike.
        nn.init.zeros_(model.get_parameter(key))
    return without_dropout(model)
