"""PPO with a reward model that has a tokenizer of its own: projected, and said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import errata.tuning.ppo as module
import tiny
from edits.tokenizers import byte_level
from errata.cli import main
from errata.data import Encoder, write_rows
from errata.reward import ProjectedReward, encode_rollout
from errata.tuning import Stream, train_ppo
from tuning.ppo_toy import CONFIG, PROMPTS, lines_of, llama, reward_model

TEMPLATE = "Q: {prompt}\n"


@pytest.mark.parametrize(
    ("ours", "theirs", "kind"),
    [
        (tiny.tokenizer, byte_level, "token"),
        (byte_level, tiny.tokenizer, "token"),
        (tiny.tokenizer, byte_level, "sequence"),
    ],
    ids=["words by bytes", "bytes by words", "whole responses"],
)
def test_the_sum_is_that_of_the_reward_model_on_its_own_tokens(
    ours: Any, theirs: Any, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = Encoder(ours())
    start, folder = (
        llama(tmp_path / "start", ours()),
        reward_model(tmp_path / "reward", theirs(), kind=kind, template=TEMPLATE),
    )
    config = replace(CONFIG, steps=2, samples_per_step=16, save_every=1)
    streams = [Stream(name="other", reward=folder)]
    run = module.Run(start, streams, PROMPTS, encoder, config, critic=None)
    reward = run.rewards[0]
    assert isinstance(reward, ProjectedReward)
    assert reward.reward.scale != 1, "scaled on samples of the start"
    assert "other: " in capsys.readouterr().err
    rollouts = run.sample(PROMPTS, seed=3)
    scored, differ = reward([encode_rollout(rollout) for rollout in rollouts]), 0
    for rollout, stream in zip(rollouts, scored, strict=True):
        assert len(stream) == len(rollout.response_ids)
        if encoder.reserved.isdisjoint(encoder.body_ids(rollout.response_ids)):
            own = reward.reward_encoder.encode(rollout.prompt, rollout.text, ended=rollout.ended)
            assert own.ids[: own.prompt_length] == reward.reward_encoder.prompt_ids(rollout.prompt)
            (direct,) = reward.reward([own])
            assert sum(stream) == pytest.approx(sum(direct), abs=1e-5)
            differ += len(direct) != len(stream)
    assert differ, "the two cut differently"
    card = train_ppo(start, streams, PROMPTS, encoder, config, tmp_path / "out")
    assert card["projected_rewards"] == "other"
    assert any(any(row["rewards/other"]) for row in lines_of(tmp_path / "out", "samples"))
    assert tiny.difference(start, tmp_path / "out") > 1e-4


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, folder = tiny.llama(tmp_path / "start"), reward_model(tmp_path / "reward", byte_level())
    write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    arguments = ["--model", start, "--reward", folder, "--prompts", tmp_path / "prompts.jsonl", "--out", tmp_path / "o"]
    few = ["--steps=1", "--rollouts-per-step=8", "--minibatch-size=8", "--max-new-tokens=6"]
    assert main(["tune", "ppo", *map(str, arguments), *few]) == 0
    told = capsys.readouterr()
    assert "projected through the characters" in told.err
    assert "projected_rewards            reward" in told.out
    assert json.loads((tmp_path / "o" / "errata.json").read_text())["projected_rewards"] == "reward"
