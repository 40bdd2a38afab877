"""What PPOTrainer of TRL 1.12.0, the last release with one, computes in one step: makes trl_ppo.safetensors.

Run it where trl==1.12.0 is installed; errata is not needed:

    python make_trl_ppo.py trl_ppo.safetensors

A tiny Llama samples full-length responses (no token stops them), a reward model pays at the last token. At the backward
pass of the second epoch, where the ratio is no longer 1, all local variables of ``train`` are there to be taken.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

WANTED = (
    *("scores", "logprobs", "ref_logprobs", "values", "rewards", "advantages", "returns"),
    *("mb_logprobs", "mb_advantage", "mb_values", "mb_return", "new_logprobs", "vpred"),
    *("pg_loss", "vf_loss", "loss"),
)
SETTINGS = {"gamma": 0.9, "lam": 0.8, "kl_coef": 0.1, "cliprange": 0.05, "cliprange_value": 0.05, "vf_coef": 0.3}


def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "</s>", *(f"w{k}" for k in range(30))]
    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", padding_side="left")


def build(kind: type, seed: int, **settings: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        **settings,
    )
    model = kind(config)
    if isinstance(model, LlamaForCausalLM):
        # Neither end nor padding is ever drawn.
        model.lm_head.weight.data[:2] = 0
        model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([0, 1]), -1e4))
    return model


def main(path: Path) -> None:
    policy, reference = build(LlamaForCausalLM, 0), build(LlamaForCausalLM, 1)
    reward, value = (build(LlamaForSequenceClassification, seed, num_labels=1) for seed in (2, 3))
    tok = tokenizer()
    rows = [{"input_ids": [2 + (3 * k + j) % 30 for j in range(5)]} for k in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder,
                per_device_train_batch_size=8,
                gradient_accumulation_steps=1,
                num_mini_batches=1,
                num_ppo_epochs=2,
                total_episodes=8,
                response_length=7,
                local_rollout_forward_batch_size=8,
                learning_rate=3e-2,
                temperature=1.0,
                whiten_rewards=False,
                num_sample_generations=0,
                report_to=[],
                seed=0,
                use_cpu=True,
                bf16=False,
                **SETTINGS,
            ),
            processing_class=tok,
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_list(rows),
        )
        seen: dict[str, torch.Tensor] = {}
        backward = trainer.accelerator.backward

        def noting(loss: torch.Tensor, **settings: object) -> None:
            found = sys._getframe(1).f_locals
            seen.update({name: found[name].detach().clone().contiguous() for name in WANTED})
            backward(loss, **settings)

        trainer.accelerator.backward = noting
        trainer.train()
    seen |= {name: torch.tensor(number, dtype=torch.float64) for name, number in SETTINGS.items()}
    save_file(seen, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
