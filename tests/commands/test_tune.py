"""``errata tune ppo`` as somebody types it: every flag that says how it is paid, held-out win rates, a tracker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from errata.cli import main
from errata.data import write_rows
from errata.models import Sampling, TransformersGenerator, load_causal
from errata.reward import encoder_of, load_scorer
from errata.tuning.collapse import Sign
from errata.types import Correction
from errata.winrate import HumanJudge, reward_judge, win_rate_over_start
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


class Run:
    """What a run of one step has left, all rollouts among it."""

    def __init__(self, out: Path) -> None:
        self.out, self.card = out, card_of(out)
        self.lines, self.samples = lines_of(out), lines_of(out, "samples")

    def stream(self, name: str) -> list[list[float]]:
        return [row[f"rewards/{name}"] for row in self.samples]

    def flat(self, name: str) -> list[float]:
        return [reward for row in self.stream(name) for reward in row]


ALL = ["--steps=1", "--samples-per-step=8"]


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("plain") / "out"
    assert ppo(folder, out, *ALL) == 0
    return Run(out)


def pays_twice(run: Run, plain: Run) -> bool:
    return run.flat("reward") == pytest.approx([2 * reward for reward in plain.flat("reward")], abs=1e-5)


def pays_no_more_than(run: Run, plain: Run) -> bool:
    clipped = [min(max(reward, -0.1), 0.1) for reward in plain.flat("reward")]
    return run.flat("reward") == pytest.approx(clipped, abs=1e-5) != plain.flat("reward")


def pays_nothing_on_average(run: Run, plain: Run) -> bool:
    return abs(sum(run.flat("reward"))) < 1e-3 < abs(sum(plain.flat("reward")))


def pays_nothing_above_zero(run: Run, plain: Run) -> bool:
    return min(run.flat("reward")) < 0 == max(run.flat("reward"))


def pays_at_the_end(run: Run, plain: Run) -> bool:
    last = [row[-1] for row in run.stream("terminal")]
    assert plain.samples[0].keys() < run.samples[0].keys() >= {"values/dense", "values/terminal"}
    return sum(map(abs, run.flat("terminal"))) == pytest.approx(sum(map(abs, last))) != 0


def pays_at_the_end_no_more_than(run: Run, plain: Run) -> bool:
    return max(abs(row[-1]) for row in run.stream("terminal")) == pytest.approx(0.1 * 3)


def pays_at_the_end_nothing_on_average(run: Run, plain: Run) -> bool:
    return sum(run.flat("terminal")) == pytest.approx(0, abs=1e-3)


def takes_off(run: Run, plain: Run) -> bool:
    cut_off = [[0.0] * (len(row["ids"]) - 1) + [-2.0 * (not row["ended"])] for row in run.samples]
    assert any(any(row) for row in cut_off)
    return run.stream("missing_eos") == cut_off and set(run.flat("length")) == {-0.5}


def learns_the_same(run: Run, plain: Run) -> bool:
    return tiny.difference(run.out, plain.out) < 1e-5


def has_an_adapter(run: Run, plain: Run) -> bool:
    return (run.out / "adapter" / "adapter_config.json").exists() and run.card["config"]["lora_alpha"] == 6


def stopped(run: Run, plain: Run) -> bool:
    return len(run.lines) == 2 and run.card["warnings"] == ["step 1: it collapses"]


def has_the_papers_settings(run: Run, plain: Run) -> bool:
    wanted = {"discount": 1.0, "gae_lambda": 1.0, "kl_coefficient": 0.5, "value_coefficient": 0.1}
    wanted |= {"reward_scaling": "batch", "rollouts_per_step": 8}
    return {name: run.card["config"][name] for name in wanted} == wanted


def has_no_discount(run: Run, plain: Run) -> bool:
    return (run.card["config"]["discount"], plain.card["config"]["discount"]) == (1.0, 0.5)


def stops_its_passes(run: Run, plain: Run) -> bool:
    return run.lines[-1]["policy/stopped_by_target_kl"] == 1 and plain.lines[-1]["policy/stopped_by_target_kl"] == 0


TERMINAL = "--terminal-reward={f}/whole/sequence"


@pytest.mark.parametrize(
    ("flags", "holds"),
    [
        (["--reward-coefficient=2"], pays_twice),
        (["--reward-clip=0.1"], pays_no_more_than),
        (["--reward-centred=True"], pays_nothing_on_average),
        (["--reward-centred", "--reward-penalties-only"], pays_nothing_above_zero),
        ([TERMINAL, "--terminal-weight=0.5"], pays_at_the_end),
        ([TERMINAL, "--terminal-clip=0.1", "--terminal-coefficient=3"], pays_at_the_end_no_more_than),
        ([TERMINAL, "--terminal-centred=True"], pays_at_the_end_nothing_on_average),
        (["--length-penalty=0.5", "--missing-eos-penalty=2"], takes_off),
        (["--micro-batch-size=3"], learns_the_same),
        (["--gradient-checkpointing=True", "--micro-batch-size=4"], learns_the_same),
        (["--lora-rank=2", "--lora-alpha=6"], has_an_adapter),
        (["--steps=3", "--stop-on-collapse=True"], stopped),
        (["--preset=paper", "--kl-coefficient=0.5"], has_the_papers_settings),
        (["--preset=sequence"], has_no_discount),
        (["--target-kl=1e-9", "--learning-rate=0.01", "--kl-estimator=k3"], stops_its_passes),
    ],
    ids=lambda value: getattr(value, "__name__", None) or "",
)
def test_flags_do_what_they_say(
    flags: list[str],
    holds: Callable[[Run, Run], bool],
    folder: Path,
    plain: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if holds is stopped:
        signs = [Sign("collapse", "it collapses")]
        monkeypatch.setattr("errata.tuning.collapse.signs_of_collapse", lambda lines: signs * (len(lines) > 1))
    assert ppo(folder, tmp_path / "out", *ALL, *(flag.format(f=folder) for flag in flags)) == 0
    assert holds(Run(tmp_path / "out"), plain)


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


def test_an_evaluation_without_a_valid_verdict_is_no_win_rate(folder: Path) -> None:
    mute = HumanJudge({("", row.id): [] for row in HELDOUT}, name="nobody")
    evaluate = win_rate_over_start(folder / "start", HELDOUT, mute, ENCODER, Sampling(max_new_tokens=6, seed=0))
    with pytest.raises(ValueError, match=r"step 3: 0 valid verdicts on 10 held-out prompts are no win rate"):
        evaluate(TransformersGenerator(load_causal(folder / "start"), ENCODER), 3)


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


@pytest.mark.parametrize("method", ["ppo", "sft"])
def test_a_tracker_is_sent_what_is_written_down(method: str, folder: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    out = tmp_path / "out"
    if method == "ppo":
        assert ppo(folder, out, "--steps=2", "--tracker=tensorboard") == 0
        (events,) = {path.parent for path in out.rglob("events.out.tfevents.*") if path.parent.name == "errata"}
        tag, name = "objective/kl", "objective/kl"
    else:
        write_rows(tmp_path / "rows.jsonl", tiny.demonstrations(8))
        given = [f"--model={folder / 'start'}", f"--data={tmp_path / 'rows.jsonl'}", f"--out={out}"]
        given += ["--heldout", str(folder / "edits.jsonl"), "--evaluate-every=1"]
        write_rows(folder / "edits.jsonl", tiny.corrections(4))
        assert main(["tune", "sft", *given, "--epochs=1", "--batch-size=4", "--tracker=tensorboard"]) == 0
        (events,) = {path.parent for path in (out / "runs").rglob("events.out.tfevents.*")}
        tag, name = "eval/loss", "eval_loss"
    found = reader.EventAccumulator(str(events))
    found.Reload()
    sent = {event.step: event.value for event in found.Scalars(tag)}
    written = {line["step"]: line[name] for line in lines_of(out) if name in line}
    assert len(written) > 1
    assert sent == pytest.approx(written, rel=1e-5, abs=1e-6)


def test_a_tracker_that_is_not_there_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ppo(folder, tmp_path / "out", "--tracker=trackio") == 1
    assert "--tracker trackio is not installed; pip install trackio" in capsys.readouterr().err


def test_blame_for_omissions_from_edits_to_ppo(folder: Path, tmp_path: Path) -> None:
    """The editor only ever adds: without blame nothing in what was written is bad, with it what came too early is."""
    edits = [
        Correction(id=str(k), prompt=row.prompt, original=row.prompt, edited=f"{row.prompt} rude")
        for k, row in enumerate(tiny.prompts(16, seed=3))
    ]
    write_rows(tmp_path / "edits.jsonl", edits)
    given = ["reward", "train", f"--model={folder / 'start'}", f"--data={tmp_path / 'edits.jsonl'}"]
    paid = {}
    for how in ("unmarked", "blame"):
        out = tmp_path / how
        flags = ["--learning-rate=0.01", "--epochs=6", "--batch-size=8", f"--omissions={how}", f"--out={out}"]
        assert main([*given, *flags]) == 0
        rows = [ENCODER.encode(row.prompt, row.original) for row in edits]
        ends = [stream[-1] for stream in load_scorer(out, ENCODER)(rows)]
        paid[how] = sum(ends) / len(ends)
    assert paid["blame"] < -0.5 < paid["unmarked"] - 0.3
    assert ppo(folder, tmp_path / "ppo", *ALL, f"--reward={tmp_path / 'blame'}") == 0
    ended = [row for row in lines_of(tmp_path / "ppo", "samples") if row["ended"]]
    assert all(any(row["rewards/reward"]) for row in ended)


def test_the_papers_preset_labels_ids_and_takes_labels_that_are_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edits, labels = tmp_path / "edits.jsonl", tmp_path / "labels.jsonl"
    write_rows(edits, tiny.corrections(4))
    rules = ["--unit=token", "--ties=released"]
    assert main(["labels", f"--edits={edits}", f"--model={folder / 'start'}", f"--out={labels}", *rules]) == 0
    given = ["tune", "figa", f"--model={folder / 'start'}", "--preset=paper", "--epochs=1", "--batch-size=4"]
    assert main([*given, f"--edits={edits}", f"--out={tmp_path / 'edits'}"]) == 0
    assert main([*given, f"--labels={labels}", f"--out={tmp_path / 'labels'}"]) == 0
    assert tiny.difference(tmp_path / "edits", tmp_path / "labels") == 0
    assert main([*given, f"--labels={labels}", f"--out={tmp_path / 'other'}", "--unit=word"]) == 1
    assert "--unit, --ties" in capsys.readouterr().err
