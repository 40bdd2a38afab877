from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import errata.tuning.ppo as module
import tiny
from errata.models import Sampling, TransformersGenerator, load_causal, read_card, token_logprobs, token_values
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    encode_rollout,
    score_texts,
    train_sequence_reward,
    train_token_reward,
)
from errata.tuning import PPOConfig, RewardScaling, Stream, train_ppo
from errata.types import Encoded
from tuning.ppo_toy import CAT, CONFIG, ENCODER, PROMPTS, lines_of, pays_for_cats


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def rewards(start: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rewards")
    common: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 2, "batch_size": 8, "micro_batch_size": 8}
    train_token_reward(start, tiny.labels(16), ENCODER, TokenRewardConfig(**common), folder / "token")
    train_sequence_reward(start, tiny.corrections(16), ENCODER, RewardConfig(**common), folder / "sequence")
    return {name: folder / name for name in ("token", "sequence")}


def run_of(start: Path, config: PPOConfig = CONFIG, reward: Any = pays_for_cats) -> Any:
    return module.Run(start, [Stream(name="reward", reward=reward)], PROMPTS, ENCODER, config, critic=None)


def share_of_cats(folder: Path) -> float:
    generator = TransformersGenerator(load_causal(folder), ENCODER)
    rollouts = generator(PROMPTS, Sampling(max_new_tokens=8, samples=8, seed=99))
    tokens = [token for rollout in rollouts for token in rollout.response_ids]
    return tokens.count(CAT) / len(tokens)


def test_a_paid_word_is_said_more_often(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=12, rollouts_per_step=32, minibatch_size=32, learning_rate=1e-2, kl_coefficient=0.01)
    train_ppo(start, pays_for_cats, PROMPTS, ENCODER, config, tmp_path / "out")
    before, after = share_of_cats(start), share_of_cats(tmp_path / "out")
    assert before < 0.2
    assert after > 0.5
    rows = lines_of(tmp_path / "out")
    assert rows[-1]["objective/scores"] > rows[1]["objective/scores"] + 1
    assert rows[-1]["objective/kl"] > 1


def test_the_kl_penalty_ties_the_policy_to_its_start(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=8, learning_rate=1e-2)
    kl = {}
    for coefficient in (0.0, 3.0):
        card = train_ppo(
            start,
            pays_for_cats,
            PROMPTS,
            ENCODER,
            replace(config, kl_coefficient=coefficient),
            tmp_path / str(coefficient),
        )
        kl[coefficient] = card["objective/kl"]
    assert kl[3.0] < 0.5 * kl[0.0]


def test_every_step_draws_anew_and_the_same_step_the_same(start: Path) -> None:
    streams = [Stream(name="reward", reward=pays_for_cats)]
    run = module.Run(start, streams, PROMPTS[:1], ENCODER, CONFIG, critic=None)
    first, again, second = (module.collect(run, step)[0].batch.ids_BT.tolist() for step in (0, 0, 1))
    assert first == again
    assert first != second


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_on_policy_the_ratio_is_one_and_the_kl_zero(temperature: float, start: Path) -> None:
    run = run_of(start, replace(CONFIG, temperature=temperature))
    experience, metrics, _ = module.collect(run, 0)
    assert metrics["objective/kl"] == pytest.approx(0, abs=1e-5)
    mask_BT = experience.batch.response_mask_BT
    again_BT = token_logprobs(run.policy, experience.batch, temperature=temperature)
    ratio_BT = (again_BT - experience.old_logprob_BT)[mask_BT].exp()
    torch.testing.assert_close(ratio_BT, torch.ones_like(ratio_BT))
    assert torch.equal(experience.old_logprob_BT, experience.ref_logprob_BT)
    value_BT, _ = token_values(run.critic, experience.batch)
    torch.testing.assert_close(value_BT[None], experience.old_value_HBT)
    advantage = experience.advantage_BT[mask_BT]
    assert advantage.mean().item() == pytest.approx(0, abs=1e-4)
    assert advantage.std(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_the_first_policy_gradient_is_that_of_reinforce(start: Path) -> None:
    run = run_of(start)
    experience, *_ = module.collect(run, 0)
    mask_BT = experience.batch.response_mask_BT
    count = int(mask_BT.sum())
    policy_loss, *_ = module.policy_and_value_loss(run.actor, run.critic, experience, CONFIG, num_tokens=count)
    gradients = torch.autograd.grad(policy_loss, list(run.policy.parameters()))
    plain = -(token_logprobs(run.policy, experience.batch) * experience.advantage_BT).sum() / count
    for one, other in zip(gradients, torch.autograd.grad(plain, list(run.policy.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_first_minibatch_is_not_read_twice(start: Path) -> None:
    """If it is the whole round: the pass that gave the old log-probabilities is the one that is learned from."""
    config = replace(CONFIG, minibatch_size=16, optimisation_epochs=2)
    learned = {}
    for micro_batch in (64, 16, 15):
        run = run_of(start, replace(config, micro_batch_size=micro_batch))
        passes: list[bool] = []
        run.actor.register_forward_hook(lambda *_, passes=passes: passes.append(torch.is_grad_enabled()))
        run.round(0)
        assert passes.count(True) == (2 if micro_batch > 15 else 4), "with gradient: once an epoch, or its parts"
        assert passes.count(False) == (0 if micro_batch > 15 else 2), "without"
        learned[micro_batch] = torch.cat([x.detach().flatten() for x in run.actor.parameters()])
        learned[-micro_batch] = torch.cat([x.detach().flatten() for x in run.critic.parameters()])
    assert torch.equal(learned[64], learned[16])
    # The first steps of AdamW are of the size of the learning rate, whatever that of the gradient.
    for sign in (1, -1):
        torch.testing.assert_close(learned[64 * sign], learned[15 * sign], rtol=0, atol=1e-4)


def test_what_a_cpu_computes_in_parts_is_not_read_twice_either(start: Path) -> None:
    config = replace(CONFIG, minibatch_size=16, optimisation_epochs=2)
    learned = []
    for rows_at_once in (16, 5):
        run = run_of(start, config)
        experience, *_ = module.collect(run_of(start, config), 0)
        run.tokens_at_once = rows_at_once * experience.batch.ids_BT.shape[1]
        passes: list[bool] = []
        run.actor.register_forward_hook(lambda *_, passes=passes: passes.append(torch.is_grad_enabled()))
        found, _ = run.round(0)
        assert passes == [True] * (2 if rows_at_once == 16 else 8)
        assert found["val/ratio"] == pytest.approx(1.0, abs=0.05)
        learned.append(torch.cat([x.detach().flatten() for x in (*run.actor.parameters(), *run.critic.parameters())]))
    torch.testing.assert_close(*learned, rtol=0, atol=1e-4)


def test_parts_are_of_like_rows_and_as_wide_as_their_longest(start: Path) -> None:
    run = run_of(start)
    experience, *_ = module.collect(run, 0)
    parts = list(experience.split(5))
    lengths = [part.batch.attention_mask_BT.sum(1) for part in parts]
    assert [len(each) for each in lengths] == [5, 5, 5, 1]
    assert torch.equal(torch.cat(lengths), experience.batch.attention_mask_BT.sum(1).sort().values)
    assert [part.batch.ids_BT.shape[1] for part in parts] == [int(each.max()) for each in lengths]
    assert len({part.batch.ids_BT.shape[1] for part in parts}) > 1
    for name in ("old_logprob_BT", "advantage_BT", "return_HBT"):
        whole = getattr(experience, name)[..., experience.batch.response_mask_BT].sum()
        found = sum(getattr(part, name)[..., part.batch.response_mask_BT].sum() for part in parts)
        torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


def test_minibatches_share_one_count(start: Path) -> None:
    """The losses of two halves over the count of the whole add up to the loss of the whole."""
    run = run_of(start)
    experience, *_ = module.collect(run, 0)
    count = int(experience.batch.response_mask_BT.sum())

    def losses_of(rows: Any) -> torch.Tensor:
        part = experience[torch.tensor(list(rows))]
        return torch.stack(module.policy_and_value_loss(run.actor, run.critic, part, CONFIG, num_tokens=count)[:2])

    torch.testing.assert_close(losses_of(range(5)) + losses_of(range(5, 16)), losses_of(range(16)))


def test_a_critic_learns_the_return(start: Path, tmp_path: Path) -> None:
    """Every token pays 1 and the future nothing, so every value is 1: ½ (0 − 1)² to begin with."""
    config = replace(
        CONFIG, steps=10, learning_rate=0.0, value_learning_rate=1e-2, value_clip_range=100.0, discount=0.0
    )
    train_ppo(
        start, lambda rows: [[1.0] * len(row.response_ids) for row in rows], PROMPTS, ENCODER, config, tmp_path / "out"
    )
    rows = lines_of(tmp_path / "out")
    assert tiny.difference(start, tmp_path / "out") == 0, "the policy stands still"
    assert rows[1]["value/sum"] == 0, "a head of zeros"
    assert 0.2 < rows[1]["loss/value_avg"] <= 0.5
    assert rows[-1]["loss/value_avg"] < 0.05
    assert rows[-1]["value/sum"] == pytest.approx(rows[-1]["response/length"], rel=0.2), "one for every token"


class StoppedError(Exception):
    pass


def evaluating(*, stop_at: int | None = None) -> Callable[[TransformersGenerator, int], dict[str, float]]:
    def evaluate(generator: TransformersGenerator, step: int) -> dict[str, float]:
        if step == stop_at:
            raise StoppedError
        rollouts = generator(PROMPTS, Sampling(max_new_tokens=8, seed=step))
        return {"cats": float(sum(rollout.response_ids.count(CAT) for rollout in rollouts))}

    evaluate.identity = "cats"  # type: ignore[attr-defined]
    return evaluate


@pytest.mark.parametrize("scaling", list(RewardScaling))
@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_a_run_that_died_goes_on_as_if_it_had_not(
    kind: str, scaling: RewardScaling, start: Path, rewards: dict[str, Path], tmp_path: Path
) -> None:
    config = replace(CONFIG, steps=5, evaluate_every=1, reward_scaling=scaling)
    arguments: list[Any] = [start, rewards[kind], PROMPTS, ENCODER, config]
    whole = train_ppo(*arguments, tmp_path / "whole", evaluate=evaluating())
    with pytest.raises(StoppedError):
        train_ppo(*arguments, tmp_path / "out", evaluate=evaluating(stop_at=3))
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.training" / "step-2").exists()
    steps: list[int] = []

    def noted(generator: TransformersGenerator, step: int) -> dict[str, float]:
        steps.append(step)
        return evaluating()(generator, step)

    noted.identity = "cats"  # type: ignore[attr-defined]
    card = train_ppo(*arguments, tmp_path / "out", evaluate=noted)
    assert steps == [3, 4, 5], "it went on after step 2"
    assert tiny.difference(tmp_path / "out", tmp_path / "whole") == 0
    assert lines_of(tmp_path / "out") == lines_of(tmp_path / "whole")
    assert {**card, "seconds": 0} == {**whole, "seconds": 0}
    assert not (tmp_path / ".out.training").exists()
    assert {path.suffix for path in (tmp_path / "out").iterdir()} <= {"", ".json", ".jsonl", ".safetensors"}


def test_a_checkpoint_of_other_settings_is_not_used(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, evaluate_every=1)
    with pytest.raises(StoppedError):
        train_ppo(start, pays_for_cats, PROMPTS, ENCODER, config, tmp_path / "out", evaluate=evaluating(stop_at=3))
    other = replace(config, learning_rate=1e-4, evaluate_every=0)
    train_ppo(start, pays_for_cats, PROMPTS, ENCODER, other, tmp_path / "out")
    train_ppo(start, pays_for_cats, PROMPTS, ENCODER, other, tmp_path / "fresh")
    assert tiny.difference(tmp_path / "out", tmp_path / "fresh") == 0


def test_metrics_have_a_row_a_step_and_step_0_before_any(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=5, evaluate_every=2)
    card = train_ppo(start, pays_for_cats, PROMPTS, ENCODER, config, tmp_path / "out", evaluate=evaluating())
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds), "they add up"
    assert seconds[0] == 0
    rows = lines_of(tmp_path / "out")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["step"] for row in rows if "cats" in row] == [0, 2, 4, 5], "every second and the last"
    known = {"objective/kl", "objective/entropy", "objective/scores", "objective/rlhf_reward", "policy/approxkl_avg"}
    known |= {"objective/non_score_reward", "policy/clipfrac_avg", "policy/entropy_avg", "loss/policy_avg"}
    known |= {"loss/value_avg", "val/clipfrac_avg", "val/ratio", "val/ratio_var", "val/num_eos_tokens", "lr", "episode"}
    assert all(set(row) >= known for row in rows[1:]), "the names that users of PPO know"
    assert all(set(row) - {"cats"} == set(rows[1]) - {"cats"} for row in rows[1:])
    assert set(rows[0]) == {"step", "cats"}
    assert all(1 <= row["response/length"] <= 8 and 0 <= row["response/ended"] <= 1 for row in rows[1:])
    assert rows[1]["objective/kl"] == pytest.approx(0, abs=1e-5)
    assert card["objective/kl"] == rows[-1]["objective/kl"]
    assert card["stage"] == "ppo"


def test_a_reward_model_is_scaled_on_samples_of_the_start(start: Path, rewards: dict[str, Path]) -> None:
    run = run_of(start, reward=rewards["token"])
    scorer = run.rewards[0]
    assert scorer.scale != 1
    samples = run.sample(random.Random(CONFIG.seed).sample(PROMPTS, len(PROMPTS)), seed=CONFIG.seed)
    assert np.std(score_texts(scorer, [encode_rollout(rollout) for rollout in samples])) == pytest.approx(1)
    again = run_of(start, reward=rewards["token"]).rewards[0]
    assert (again.shift, again.scale) == (scorer.shift, scorer.scale), "the same in every process and after a restart"
    unscaled = run_of(start, replace(CONFIG, reward_scaling=RewardScaling.BATCH), rewards["token"])
    assert unscaled.rewards[0].scale == 1


def test_the_seed_decides(start: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train_ppo(start, pays_for_cats, PROMPTS, ENCODER, replace(CONFIG, seed=seed), tmp_path / name)
    assert tiny.difference(tmp_path / "one", tmp_path / "same") == 0
    assert tiny.difference(tmp_path / "one", tmp_path / "other") > 1e-5


def test_every_prompt_has_its_turn_in_every_pass() -> None:
    config = replace(CONFIG, rollouts_per_step=5)
    taken = [k for step in range(12) for k in module.prompts_of_step(12, step, config)]
    for first in range(0, 60, 12):
        assert sorted(taken[first : first + 12]) == list(range(12))
    assert taken[:12] != taken[12:24], "in another order"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollouts_per_step": 12, "minibatch_size": 8}, "12 rollouts a step, minibatches of 8 .* must divide"),
        ({"rollouts_per_step": 4, "minibatch_size": 8}, "must divide"),
        ({"temperature": 0.0}, "--temperature 0 is out of range: give a number above 0"),
    ],
)
def test_settings_that_cannot_work_are_errors(
    settings: dict[str, Any], message: str, start: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train_ppo(start, pays_for_cats, PROMPTS, ENCODER, replace(CONFIG, **settings), tmp_path / "out")


def test_what_ppo_needs_is_asked_for(start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no prompt"):
        train_ppo(start, pays_for_cats, [], ENCODER, CONFIG, tmp_path / "out")
    with pytest.raises(ValueError, match="is no reward model"):
        train_ppo(start, start, PROMPTS, ENCODER, CONFIG, tmp_path / "out")
    with pytest.raises(ValueError, match=r"gives row .* 1 rewards for 8 response tokens; give one list for each row"):
        train_ppo(start, lambda rows: [[1.0] for _ in rows], PROMPTS, ENCODER, CONFIG, tmp_path / "out")


def test_a_finished_run_is_reused_and_never_overwritten(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1)
    card = train_ppo(start, pays_for_cats, PROMPTS, ENCODER, config, tmp_path / "out")

    def never(rows: Sequence[Encoded]) -> list[list[float]]:
        raise AssertionError

    never.identity = "one for each cat"  # type: ignore[attr-defined]
    assert train_ppo(start, never, PROMPTS, ENCODER, config, tmp_path / "out") == read_card(tmp_path / "out")
    assert card["objective/kl"] == read_card(tmp_path / "out")["objective/kl"]
    with pytest.raises(ValueError, match="made by another run"):
        train_ppo(start, pays_for_cats, PROMPTS[:-1], ENCODER, config, tmp_path / "out")


def paying(value: float, identity: str | None = None) -> Any:
    def reward(rows: Sequence[Encoded]) -> list[list[float]]:
        return [[value] * len(row.response_ids) for row in rows]

    if identity is not None:
        reward.identity = identity  # type: ignore[attr-defined]
    return reward


def test_another_function_is_another_run(start: Path, tmp_path: Path) -> None:
    """+1 a token, then −5 into the same folder: the record of the first is not the second's."""
    config, out = replace(CONFIG, steps=1), tmp_path / "out"
    train_ppo(start, paying(1.0, "one, 1"), PROMPTS, ENCODER, config, out)
    assert train_ppo(start, paying(1.0, "one, 1"), PROMPTS, ENCODER, config, out)["objective/scores"] > 0
    with pytest.raises(ValueError, match="made by another run"):
        train_ppo(start, paying(-5.0, "minus five"), PROMPTS, ENCODER, config, out)
    told = "the stream 'reward', which is a function without an identity; give it an attribute `identity`"
    with pytest.raises(ValueError, match=told):
        train_ppo(start, paying(-5.0), PROMPTS, ENCODER, config, out)
    looks, silent = replace(config, evaluate_every=1), lambda *_: {"x": 1.0}
    with pytest.raises(ValueError, match="this evaluation, which is a function without an identity"):
        train_ppo(start, paying(1.0, "one, 1"), PROMPTS, ENCODER, looks, out, evaluate=silent)


def test_a_function_without_an_identity_trains_and_does_not_resume(start: Path, tmp_path: Path) -> None:
    def dies(rows: Sequence[Encoded]) -> list[list[float]]:
        if (tmp_path / ".out.training" / "step-2").exists():
            raise StoppedError
        return paying(1.0)(rows)

    with pytest.raises(StoppedError):
        train_ppo(start, dies, PROMPTS, ENCODER, CONFIG, tmp_path / "out")
    with pytest.raises(ValueError, match=rf"{tmp_path}/.out.training is there, and nobody can tell .* delete"):
        train_ppo(start, paying(-5.0), PROMPTS, ENCODER, CONFIG, tmp_path / "out")
    assert (tmp_path / ".out.training" / "step-2").exists(), "it may be what somebody waits for"
    train_ppo(start, paying(-5.0), PROMPTS, ENCODER, replace(CONFIG, steps=1), tmp_path / "other")


def test_pad_as_end_of_sequence_learns_the_same(start: Path, tmp_path: Path) -> None:
    for pad in ("<pad>", "</s>"):
        train_ppo(start, pays_for_cats, PROMPTS, tiny.encoder(pad=pad), CONFIG, tmp_path / pad.strip("</>"))
    assert tiny.difference(tmp_path / "pad", tmp_path / "s") < 1e-5
