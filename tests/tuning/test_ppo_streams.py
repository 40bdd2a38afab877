"""PPO on several streams, with little memory, killed at any moment, and stopped when it goes wrong."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils.dataclasses import DistributedType

import errata.tuning.ppo as module
import tiny
from errata import losses
from errata.models import TransformersGenerator, critic_values, load_causal, token_logprobs
from errata.tuning import PPOConfig, Stream, train_ppo
from tuning import ppo_toy
from tuning.ppo_toy import CAT, DENSE, ENCODER, PROMPTS, TERMINAL, lines_of

CONFIG = replace(ppo_toy.CONFIG, steps=3, max_new_tokens=6, save_every=1)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"))


def run_of(start: Path, config: PPOConfig, *streams: Stream) -> Any:
    return module.Run(start, streams or (DENSE,), PROMPTS, ENCODER, config, critic=None)


def test_advantages_are_mixed_and_not_rewards(start: Path) -> None:
    """Each stream with its own γ and values, whitened, then added up with its weight and whitened again."""
    config = replace(
        CONFIG, discount=0.3, terminal_discount=0.9, terminal_weight=2.0, missing_eos_penalty=0.5, length_penalty=0.01
    )
    run = run_of(start, config, DENSE, TERMINAL)
    with torch.no_grad():
        run.critic.score.weight.normal_(generator=torch.Generator().manual_seed(0))
    found, metrics, samples = module.collect(run, 0)
    mask_BT = found.batch.response_mask_BT
    rows = len(mask_BT)
    mixed_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    sums = torch.tensor([sum(row["rewards/words"]) for row in run_samples(run)])
    assert sums.mean().item() == pytest.approx(0, abs=1e-5), "centred over responses"
    for head, (names, gamma, weight) in enumerate(
        [(("cats", "kl", "length"), 0.3, 1.0), (("words", "missing_eos"), 0.9, 2.0)]
    ):
        advantages = []
        for b, row in enumerate(run_samples(run)):
            rewards = [math.fsum(each) for each in zip(*(row[f"rewards/{name}"] for name in names), strict=True)]
            values = found.old_value_HBT[head, b][mask_BT[b]].tolist()
            bootstrap = 0.0 if row["ended"] else bootstraps(run, found)[head][b]
            advantage, after, out = 0.0, bootstrap, []
            for reward, value in zip(reversed(rewards), reversed(values), strict=True):
                advantage = reward + gamma * after - value + gamma * config.gae_lambda * advantage
                after = value
                out.append(advantage)
            advantages.append(out[::-1])
        flat = torch.tensor([x for row in advantages for x in row], dtype=torch.float64)
        mixed_BT[mask_BT] += weight * (flat - flat.mean()) / flat.std(correction=0)
    flat = mixed_BT[mask_BT]
    flat = (flat - flat.mean()) / flat.std(correction=0)
    torch.testing.assert_close(found.advantage_BT[mask_BT].double(), flat, rtol=1e-3, atol=1e-3)
    assert rows == len(samples) * 4
    assert {"objective/scores_cats", "objective/scores_words"} < metrics.keys()


def run_samples(run: Any) -> list[dict[str, Any]]:
    """All rollouts of the round as they are noted."""
    config, run.config = run.config, replace(run.config, samples_per_step=99)
    try:
        return module.collect(run, 0)[2]  # type: ignore[no-any-return]
    finally:
        run.config = config


def bootstraps(run: Any, found: Any) -> list[list[float]]:
    return critic_values(run.critic, found.batch)[1].tolist()  # type: ignore[no-any-return]


def test_micro_batches_are_the_minibatch(start: Path, tmp_path: Path) -> None:
    streams = [DENSE, TERMINAL]
    for size in (16, 3):
        train_ppo(start, streams, PROMPTS, ENCODER, replace(CONFIG, micro_batch_size=size), tmp_path / str(size))
    assert tiny.difference(tmp_path / "16", tmp_path / "3") < 1e-5
    assert tiny.difference(tmp_path / "16", start) > 1e-3
    for one, other in zip(lines_of(tmp_path / "16"), lines_of(tmp_path / "3"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_checkpointed_activations_give_the_same(start: Path, tmp_path: Path) -> None:
    for on in (False, True):
        train_ppo(start, DENSE.reward, PROMPTS, ENCODER, replace(CONFIG, gradient_checkpointing=on), tmp_path / str(on))
    assert tiny.difference(tmp_path / "True", tmp_path / "False") < 1e-6


def test_bfloat16_learns_in_the_same_direction(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1, bf16=True)
    card = train_ppo(start, DENSE.reward, PROMPTS, ENCODER, config, tmp_path / "out")
    assert card["objective/kl"] == pytest.approx(0, abs=0.2)
    assert card["val/ratio"] == pytest.approx(1, abs=0.1)
    assert tiny.difference(tmp_path / "out", start) > 1e-4


def test_with_an_adapter_the_reference_is_the_policy_without_it(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, lora_rank=4, learning_rate=1e-2)
    run = run_of(start, config)
    assert run.reference is None
    assert run.reference_actor is None
    first, metrics, _ = module.collect(run, 0)
    assert metrics["objective/kl"] == 0
    module.learn(run, first, 0)
    second, metrics, _ = module.collect(run, 1)
    assert metrics["objective/kl"] != 0
    with torch.no_grad():
        plain_BT = token_logprobs(load_causal(start), second.batch)
    torch.testing.assert_close(second.ref_logprob_BT, plain_BT)
    card = train_ppo(start, DENSE.reward, PROMPTS, ENCODER, config, tmp_path / "out")
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").exists()
    assert tiny.weights(tmp_path / "out").keys() == tiny.weights(start).keys(), "merged"
    assert tiny.difference(tmp_path / "out", start) > 1e-3
    assert card["objective/kl"] != 0


def test_a_target_kl_ends_the_round(start: Path) -> None:
    config = replace(CONFIG, optimisation_epochs=4, learning_rate=1e-2, target_kl=1e-3)
    run = run_of(start, config)
    experience, *_ = module.collect(run, 0)
    steps = [0]
    step = run.policy_optimizer.step
    run.policy_optimizer.step = lambda: (steps.__setitem__(0, steps[0] + 1), step())
    found = module.learn(run, experience, 0)
    assert found["policy/stopped_by_target_kl"] == 1
    assert 1 <= steps[0] < 8, "the first step is always on the sampling policy"
    with torch.no_grad():
        now_BT, _ = run.actor(experience.batch, 1.0)
    mask_BT = experience.batch.response_mask_BT
    assert losses.kl_k2(now_BT, experience.old_logprob_BT, mask_BT).sum() / mask_BT.sum() > 1e-4, "it had moved"
    assert all(parameter.grad is None for parameter in run.policy.parameters())


def test_the_learning_rate_is_that_of_the_step(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=4, schedule="linear", warmup_steps=1)
    train_ppo(start, DENSE.reward, PROMPTS, ENCODER, config, tmp_path / "out")
    rates = [row["lr"] / config.learning_rate for row in lines_of(tmp_path / "out")[1:]]
    assert rates == pytest.approx([0.5, 0.75, 0.5, 0.25])


def test_the_best_policy_is_kept_beside_the_last(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=4, save_every=3, evaluate_every=1, best_by="wins")
    wins = [0.0, 0.2, 0.9, 0.9, 0.1]
    seen: dict[int, torch.Tensor] = {}

    def evaluate(generator: TransformersGenerator, step: int) -> dict[str, float]:
        seen[step] = generator.model.lm_head.weight.detach().clone()
        return {"wins": wins[step]}

    card = train_ppo(start, DENSE.reward, PROMPTS, ENCODER, config, tmp_path / "out", evaluate=evaluate)
    assert card["best_step"] == 2
    for folder, step in ((tmp_path / "out" / "best", 2), (tmp_path / "out", 4)):
        assert torch.equal(load_causal(folder).lm_head.weight, seen[step]), step
    other = replace(config, best_by="losses")
    with pytest.raises(ValueError, match=r"--best-by losses: the evaluation measures wins"):
        train_ppo(start, DENSE.reward, PROMPTS, ENCODER, other, tmp_path / "other", evaluate=evaluate)
    with pytest.raises(ValueError, match="give --evaluate-every"):
        train_ppo(start, DENSE.reward, PROMPTS, ENCODER, replace(other, evaluate_every=0), tmp_path / "another")


def test_a_collapse_is_told_and_ends_the_run_where_that_was_asked_for(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=16, learning_rate=0.1, kl_coefficient=0.0, samples_per_step=0)
    rows = {}
    for stop in (False, True):
        card = train_ppo(
            start, DENSE.reward, PROMPTS, ENCODER, replace(config, stop_on_collapse=stop), tmp_path / str(stop)
        )
        rows[stop] = lines_of(tmp_path / str(stop))
        assert any("step " in words for words in card["warnings"])
    assert len(rows[True]) < len(rows[False]) == 17
    assert rows[True] == rows[False][: len(rows[True])]


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_ways_to_share_weights_that_ppo_does_not_know_are_refused(
    kind: DistributedType, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", kind)
    monkeypatch.setattr(Accelerator, "is_fsdp2", False)
    with pytest.raises(ValueError, match=f"not {kind.value}; set FSDP_VERSION=2"):
        run_of(start, CONFIG)


def test_samples_hold_a_number_for_every_token(start: Path, tmp_path: Path) -> None:
    train_ppo(start, [DENSE, TERMINAL], PROMPTS, ENCODER, replace(CONFIG, samples_per_step=2), tmp_path / "out")
    rows = lines_of(tmp_path / "out", "samples")
    assert [row["step"] for row in rows] == [1, 1, 2, 2, 3, 3]
    streams = {"rewards/cats", "rewards/words", "rewards/kl", "advantages", "values/dense", "values/terminal"}
    for row in rows:
        assert streams | {"logprobs", "ref_logprobs"} < row.keys()
        assert row["tokens"] == ENCODER.tokenizer.convert_ids_to_tokens(row["ids"])
        assert all(len(row[name]) == len(row["ids"]) for name in streams)
        assert row["rewards/cats"] == [float(token == CAT) for token in row["ids"]]


def six_steps(start: Path, out: Path) -> None:
    train_ppo(start, [DENSE, TERMINAL], PROMPTS, ENCODER, replace(CONFIG, steps=6, save_every=2), out)


KILLED = """
import sys, torch
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from tuning.test_ppo_streams import six_steps
torch.set_num_threads(1)
six_steps(Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_a_run_that_was_killed_at_any_moment_ends_bit_for_bit_alike(start: Path, tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = [sys.executable, "-c", KILLED, tests, str(start), str(out)]
    environment = {**tiny.environment(), "OMP_NUM_THREADS": "1"}
    six_steps(start, whole)
    metrics = tmp_path / ".out.training" / "metrics.jsonl"
    for lines in (2, 5):
        killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while killed.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < lines):
            time.sleep(0.01)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    assert not out.exists()
    six_steps(start, out)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert lines_of(out) == lines_of(whole)
    assert lines_of(out, "samples") == lines_of(whole, "samples")
