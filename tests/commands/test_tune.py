"""``errata tune ppo`` as somebody types it: every flag that says how it is paid, held-out win rates, a tracker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from errata.cli import main
from errata.data import write_rows
from errata.models import Sampling, TransformersGenerator, load_causal
from errata.reward import encoder_of
from errata.winrate import reward_judge, win_rate_over_start
from errata.winrate import training as training_module
from tuning.ppo_toy import ENCODER, lines_of, reward_model

FEW = ["--rollouts-per-step=8", "--minibatch-size=8", "--max-new-tokens=6"]
HELDOUT = tiny.prompts(10, seed=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune")
    tiny.llama(path / "start")
    for seed, name in enumerate(("reward", "judge")):
        reward_model(path / name, tiny.tokenizer(), seed=seed)
    reward_model(path / "whole", tiny.tokenizer(), kind="sequence")
    write_rows(path / "prompts.jsonl", tiny.prompts(12))
    write_rows(path / "heldout.jsonl", HELDOUT)
    return path


def ppo(folder: Path, out: Path, *flags: Any) -> int:
    named = {"--model": "start", "--reward": "reward/token", "--prompts": "prompts.jsonl"}
    given = [f"{flag}={folder / name}" for flag, name in named.items()]
    return main(["tune", "ppo", *given, f"--out={out}", *FEW, *map(str, flags)])


def card_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "errata.json").read_text())


JUDGED = ["--steps=4", "--evaluate-every=1", "--save-every=1", "--learning-rate=0.03", "--heldout={f}/heldout.jsonl"]


def judged(folder: Path, *more: str) -> list[str]:
    return [flag.format(f=folder) for flag in (*JUDGED, "--judge={f}/judge/token", *more)]


def test_the_policy_that_wins_most_often_is_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert ppo(folder, out, *judged(folder)) == 0
    card, lines = card_of(out), lines_of(out)
    rates = [line["win_rate"] for line in lines]
    assert len(rates) == 5, "the start, and after each step"
    assert rates[0] == 0.5, "the start beside itself"
    assert len(set(rates)) > 1
    assert all(line["win_rate_low"] <= line["win_rate"] <= line["win_rate_high"] for line in lines)
    assert (card["best_step"], card["best_win_rate"]) == (rates.index(max(rates)), max(rates))
    assert (card["judge"], card["heldout_prompts"]) == (str(folder / "judge" / "token"), 10)
    assert not any("judge" in words for words in card.get("warnings", []))
    told = capsys.readouterr().out
    assert "best_win_rate" in told
    assert "judge  " in told
    assert "win_rate" in (out / "report.html").read_text()
    # What was kept is what won, and no other.
    judge = folder / "judge" / "token"
    settings = Sampling(max_new_tokens=6, seed=0)
    evaluate = win_rate_over_start(folder / "start", HELDOUT, reward_judge(judge, encoder_of(judge)), ENCODER, settings)
    for kept, step in ((out / "best", card["best_step"]), (out, 4)):
        found = evaluate(TransformersGenerator(load_causal(kept), ENCODER), 0)
        assert found["win_rate"] == rates[step], kept
        assert found["heldout_judge"] == pytest.approx(lines[step]["heldout_judge"], rel=1e-5)
    # Taken up again at a moment when the best had been found.
    whole, contest, calls = tmp_path / "again", training_module.contest, []

    def dies(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return contest(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "contest", dies)
        assert ppo(folder, whole, *judged(folder)) == 130
    assert not whole.exists()
    assert ppo(folder, whole, *judged(folder)) == 0
    for kept in ("", "best"):
        assert tiny.difference(whole / kept, out / kept) == 0
    assert lines_of(whole) == lines
    assert {**card_of(whole), "seconds": 0} == {**card, "seconds": 0}


def test_a_judge_that_is_also_the_teacher_is_warned_of(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = judged(folder, "--steps=1", "--judge={f}/reward/token", "--heldout={f}/prompts.jsonl")
    assert ppo(folder, tmp_path / "out", *flags) == 0
    told, warnings = capsys.readouterr().out, card_of(tmp_path / "out")["warnings"]
    for words in ("is a reward model that the policy learned from", "12 of the held-out prompts are also learned from"):
        assert words in told
        assert any(words in warning for warning in warnings)
    assert "learned from" in (tmp_path / "out" / "report.html").read_text()


def test_another_judge_is_another_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ppo(folder, tmp_path / "out", *judged(folder, "--steps=1")) == 0
    assert ppo(folder, tmp_path / "out", *judged(folder, "--steps=1")) == 0
    assert ppo(folder, tmp_path / "out", *judged(folder, "--steps=1", "--judge={f}/whole/sequence")) == 1
    assert "made by another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--heldout={f}/heldout.jsonl", "--evaluate-every=1"], "give both"),
        (["--judge={f}/judge/token", "--evaluate-every=1"], "give both"),
        (["--heldout={f}/heldout.jsonl", "--judge={f}/judge/token"], "--evaluate-every steps"),
        (["--heldout={f}/heldout.jsonl", "--judge={f}/start", "--evaluate-every=1"], "is no reward model"),
    ],
)
def test_what_a_held_out_win_rate_needs(
    flags: list[str], said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ppo(folder, tmp_path / "out", *(flag.format(f=folder) for flag in flags)) == 1
    assert said in capsys.readouterr().err
