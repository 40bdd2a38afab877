"""Every way to train, on fixed rows: run by ``torchrun`` in two processes, and imported by the test for one.

torchrun --nproc_per_node 2 every_method.py START OUT [sharded]
"""

from __future__ import annotations

import gc
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, DistributedType

import errata.tuning.figa as figa_module
import errata.tuning.ppo as ppo_module
import errata.tuning.ppo.update as ppo_update
import errata.tuning.sft as sft_module
import tiny
from errata.data import Encoder
from errata.models import Sampling
from errata.reward import RewardConfig, TokenRewardConfig, train_sequence_reward, train_token_reward
from errata.runs.leaving import leave
from errata.training import run_offline
from errata.tuning import (
    DPOConfig,
    FIGAConfig,
    PPOConfig,
    SFTConfig,
    Stream,
    train_dpo,
    train_figa,
    train_ppo,
    train_sft,
)
from errata.types import Encoded, PromptRow, Rollout
from tuning.ppo_toy import TERMINAL
from tuning.toy_method import TOY, ToyConfig

STEP: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 8, "save_every": 2}
PPO = PPOConfig(
    steps=3,
    rollouts_per_step=8,
    minibatch_size=8,  # one minibatch, so that its order does not matter
    learning_rate=1e-3,
    value_learning_rate=1e-3,
    max_new_tokens=6,
)


class StoppedError(Exception):
    pass


def pays_for_cats(encoder: Encoder) -> Any:
    """Two rewards a token, one of them for a word that the greedy start says here and there."""
    cat = encoder.tokenizer.convert_tokens_to_ids("cat")

    def reward(rows: Sequence[Encoded]) -> list[list[float]]:
        return [[float(token == cat) - 0.1 * (token % 3) for token in row.response_ids] for row in rows]

    reward.identity = "cats"  # type: ignore[attr-defined]
    return reward


def run(start: Path, out: Path, *, micro: int, stop_at: int | None = None) -> dict[str, dict[str, Any]]:
    """All of them, in micro-batches of ``micro`` rows; ``stop_at`` kills one run and takes it up again."""
    encoder = Encoder(tiny.tokenizer())
    step = {**STEP, "micro_batch_size": micro}
    whole, ragged = tiny.demonstrations(16, seed=2), tiny.demonstrations(21, seed=3)
    labels, pairs = tiny.labels(16, seed=4), tiny.corrections(16, seed=5)
    cards = {
        "sft": train_sft(start, whole, encoder, SFTConfig(**step), out / "sft"),
        "sft_ragged": train_sft(start, ragged, encoder, SFTConfig(**step), out / "sft_ragged"),
        "sft_few": train_sft(start, ragged[:1], encoder, SFTConfig(**step), out / "sft_few"),
        "figa": train_figa(start, labels, encoder, FIGAConfig(**step, gate=3.0), out / "figa"),
        "figa_ragged": train_figa(start, labels[:13], encoder, FIGAConfig(**step, gate=3.0), out / "figa_ragged"),
        "figa_weights": train_figa(
            start, tiny.with_own_weights(labels[:13]), encoder, FIGAConfig(**step, gate=3.0), out / "figa_weights"
        ),
        "figa_lora": train_figa(
            start,
            labels[:13],
            encoder,
            FIGAConfig(**{**step, "epochs": 2}, gate=3.0, lora_rank=2, evaluate_every=1, patience=9),
            out / "figa_lora",
            heldout=tiny.labels(5, seed=9),
        ),
        "toy": run_offline(TOY, start, labels[:13], encoder, ToyConfig(**step), out / "toy"),
        "dpo": train_dpo(start, pairs, encoder, DPOConfig(**step), out / "dpo"),
        "token_reward": train_token_reward(start, labels, encoder, TokenRewardConfig(**step), out / "token_reward"),
        "token_reward_lora": train_token_reward(
            start, labels, encoder, TokenRewardConfig(**{**step, "epochs": 2}, lora_rank=2), out / "token_reward_lora"
        ),
        "sequence_reward": train_sequence_reward(
            start, pairs[:11], encoder, RewardConfig(**step), out / "sequence_reward"
        ),
    }
    with patched(ppo_module.Run, "sample", sample_one_by_one):
        cards["ppo"] = train_ppo(start, pays_for_cats(encoder), tiny.prompts(11), encoder, PPO, out / "ppo")
        several = replace(PPO, micro_batch_size=max(micro // 2, 1), missing_eos_penalty=0.5, target_kl=10.0)
        streams = [
            Stream(name="cats", reward=pays_for_cats(encoder), centred=True, clip=0.5),
            TERMINAL,
        ]
        for name, rank in (("ppo_streams", 0), ("ppo_lora", 2)):
            config = replace(several, lora_rank=rank, tracker="none" if rank else "tensorboard")
            cards[name] = train_ppo(start, streams, tiny.prompts(11), encoder, config, out / name)
    resumed = SFTConfig(**{**step, "epochs": 2}, seed=1)
    if stop_at is not None:
        with (
            pytest.raises(StoppedError),
            patched(sft_module, "sft_step_loss", stopping_at(stop_at, sft_module.sft_step_loss)),
        ):
            train_sft(start, ragged, encoder, resumed, out / "sft_resumed")
    cards["sft_resumed"] = train_sft(start, ragged, encoder, resumed, out / "sft_resumed")
    return cards


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        yield


def sample_one_by_one(run: Any, prompts: Sequence[PromptRow], *, seed: int) -> list[Rollout]:
    """In ``ppo`` each process draws from a seed of its own; here it is each prompt, wherever it is drawn."""
    del seed
    sampling = [Sampling(max_new_tokens=PPO.max_new_tokens, seed=zlib.crc32(row.id.encode())) for row in prompts]
    return [run.generator([row], one)[0] for row, one in zip(prompts, sampling, strict=True)]


def stopping_at(call: int, loss: Any) -> Any:
    """The loss of a run that dies at its ``call``-th micro-batch."""
    calls = 0

    def stopping(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise StoppedError
        return loss(*arguments, **settings)

    return stopping


def run_sharded(start: Path, out: Path, *, micro: int, stop_at: int | None = None) -> dict[str, dict[str, Any]]:
    """What FSDP has to do as one process: all weights and an adapter, the best step, a run that was killed."""
    encoder, labels, held = Encoder(tiny.tokenizer()), tiny.labels(13, seed=4), tiny.labels(5, seed=9)
    step = {**STEP, "micro_batch_size": micro, "epochs": 2, "save_every": 1, "learning_rate": 1e-2}
    loss, sharded = figa_module.figa_step_loss, set()

    def noted(model: Any, *arguments: Any, **settings: Any) -> Any:
        sharded.add(any(type(parameter).__name__ == "DTensor" for parameter in model.parameters()))
        return loss(model, *arguments, **settings)

    cards = {}
    for name, rank in (("all", 0), ("lora", 2)):
        config = FIGAConfig(**step, gate=3.0, lora_rank=rank, evaluate_every=2, patience=9)
        if stop_at is not None:
            with pytest.raises(StoppedError), patched(figa_module, "figa_step_loss", stopping_at(stop_at, loss)):
                train_figa(start, labels, encoder, config, out / name, heldout=held)
        with patched(figa_module, "figa_step_loss", noted):
            cards[name] = train_figa(start, labels, encoder, config, out / name, heldout=held)
        cards[name]["sharded"] = sorted(sharded)
    return cards


def run_sharded_ppo(start: Path, out: Path, *, micro: int, stop_at: int | None = None) -> dict[str, dict[str, Any]]:
    """What PPO has to do as one process: all weights and an adapter, the best step, a run that was killed."""
    encoder = Encoder(tiny.tokenizer())
    loss, sharded, cat = ppo_module.policy_and_value_loss, set(), encoder.tokenizer.convert_tokens_to_ids("cat")

    def noted(actor: Any, critic: Any, *arguments: Any, **settings: Any) -> Any:
        for model in (actor, critic):
            sharded.add(any(type(parameter).__name__ == "DTensor" for parameter in model.parameters()))
        return loss(actor, critic, *arguments, **settings)

    def evaluate(generator: Any, step: int, *, stop_at: int | None = None) -> dict[str, float]:
        if step == stop_at:
            raise StoppedError
        rollouts = generator(tiny.prompts(8), Sampling(max_new_tokens=6, temperature=0))
        return {"cats": float(sum(rollout.response_ids.count(cat) for rollout in rollouts))}

    stops: Any = partial(evaluate, stop_at=stop_at)
    evaluate.identity = stops.identity = "cats"  # type: ignore[attr-defined]
    cards = {}
    with patched(ppo_module.Run, "sample", sample_one_by_one), patched(ppo_update, "policy_and_value_loss", noted):
        for name, rank in (("all", 0), ("lora", 2)):
            config = replace(PPO, micro_batch_size=micro, save_every=1, evaluate_every=1, best_by="cats")
            config = replace(config, lora_rank=rank, learning_rate=1e-2, value_learning_rate=1e-2)
            streams = [Stream(name="cats", reward=pays_for_cats(encoder)), TERMINAL]
            arguments: list[Any] = [start, streams, tiny.prompts(11), encoder, config, out / name]
            if stop_at is not None:
                with pytest.raises(StoppedError):
                    train_ppo(*arguments, evaluate=stops)
            cards[name] = {**train_ppo(*arguments, evaluate=evaluate), "sharded": sorted(sharded)}
    return cards


def let_fsdp_run_on_cpus() -> None:
    """accelerate shards on accelerators only, though gloo can: it would take the same run for DDP without a word."""
    init = AcceleratorState.__init__

    def sharded(self: Any, *arguments: Any, fsdp_plugin: Any = None, **settings: Any) -> None:
        init(self, *arguments, fsdp_plugin=fsdp_plugin, **settings)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
        if self.__dict__.get("fsdp_plugin") is not None:
            self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = sharded


if __name__ == "__main__":
    torch.set_num_threads(1)
    # As the tests do themselves: every training ends in a collection of garbage, which looked at all that is imported.
    gc.collect()
    gc.freeze()
    start, out, sharded = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] == ["sharded"]
    if sharded:
        let_fsdp_run_on_cpus()
        found = {
            "figa": run_sharded(start, out / "figa", micro=2, stop_at=12),
            "ppo": run_sharded_ppo(start, out / "ppo", micro=2, stop_at=2),
        }
    else:
        found = run(start, out, micro=2, stop_at=9)
    world = torch.distributed.get_world_size()
    if torch.distributed.get_rank() == 0:
        (out / "cards.json").write_text(json.dumps({"world": world, "cards": found}))
    leave(0)
