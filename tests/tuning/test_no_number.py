"""A number that is none ends a run at its step: with the likely cause, no model, and the checkpoints before it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from errata.cli import main
from errata.data import Encoder, write_rows
from errata.labels import label_all
from errata.models import Sampling, TransformersGenerator, check_finite, load_causal
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    load_scorer,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.training import fit, run_offline
from errata.tuning import (
    METHODS,
    DPOConfig,
    SFTConfig,
    Stream,
    demonstrations,
    train_dpo,
    train_ppo,
    train_sft,
)
from errata.tuning.sft import collate_demonstrations, sft_step_loss
from errata.tuning.streams import rewards_of
from errata.types import Correction, Encoded, Preference, Rollout
from errata.workflows.measure import token_logprobs_by_label
from tuning.ppo_toy import CONFIG, ENCODER, PROMPTS, pays_for_cats, reward_model

FEW: dict[str, Any] = {"epochs": 4, "batch_size": 4, "save_every": 1}
EDITS, LABELS = tiny.corrections(4), tiny.labels(4)
ROWS = {"demonstrations": tiny.demonstrations(4), "labels": LABELS, "pairs": EDITS}
OFFLINE: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    **{method.name: (partial(run_offline, method), ROWS[method.reads], method.config(**FEW)) for method in METHODS},
    "sequence": (train_sequence_reward, EDITS, RewardConfig(**FEW)),
    "token": (train_token_reward, LABELS, TokenRewardConfig(**FEW)),
    "eq3": (train_token_reward_bradley_terry, LABELS, RewardConfig(**FEW)),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"))


def with_one_weight(start: Path, folder: Path, value: float) -> Path:
    shutil.copytree(start, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def broken(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one NaN."""
    return with_one_weight(start, tmp_path_factory.mktemp("broken") / "model", math.nan)


@pytest.fixture(scope="module")
def overflowing(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one weight so large that what is computed with it is no number."""
    return with_one_weight(start, tmp_path_factory.mktemp("overflowing") / "model", 3e38)


def with_nan(folder: Path) -> Any:
    """The model in ``folder`` with one NaN, put there after it was loaded and checked."""
    model: Any = load_causal(folder)
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = math.nan
    return model


@pytest.mark.parametrize("method", OFFLINE)
def test_a_learning_rate_that_is_far_too_high(method: str, start: Path, tmp_path: Path) -> None:
    """The first step breaks the weights, and a rerun comes to the same end."""
    train, rows, config = OFFLINE[method]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"step 1: no finite number .*; lower --learning-rate, which is 1e\+30"):
            train(start, rows, ENCODER, replace(config, learning_rate=1e30), tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert (tmp_path / ".out.training" / "fingerprint").exists()


def test_the_last_good_checkpoint_stays_and_other_settings_start_anew(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The third step is lost: its rows come with a loss that is none."""
    rows, out, calls = tiny.demonstrations(4), tmp_path / "out", []

    def loss(model: Any, inputs: Any) -> Any:
        calls.append(inputs)
        total, count, shares = sft_step_loss(model, inputs)
        return total * (math.inf if len(calls) == 3 else 1), count, shares

    def run(**settings: Any) -> Any:
        config = SFTConfig(**{**FEW, **settings})
        weighted = [(ENCODER.encode(row.prompt, row.response), 1.0) for row in rows]
        collate = partial(collate_demonstrations, encoder=ENCODER)
        card = {"fingerprint": str(config)}
        return fit(
            load_causal(start), weighted, collate=collate, loss=loss, config=config, tokenizer=ENCODER.tokenizer,
            out=out, card=card,
        )  # fmt: skip

    with pytest.raises(ValueError, match=r"step 3: no finite number any more \(loss inf, grad_norm nan\); lower"):
        run()
    work = tmp_path / ".out.training"
    assert (work / "checkpoint-2" / "complete").exists()
    assert [json.loads(line)["step"] for line in (work / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert not out.exists()
    assert run(learning_rate=1e-4)["steps"] == 4
    assert f"{work} holds a run with other settings or data that did not end" in capsys.readouterr().err


@pytest.mark.parametrize("method", OFFLINE)
def test_a_start_that_is_broken(method: str, broken: Path, overflowing: Path, tmp_path: Path) -> None:
    train, rows, config = OFFLINE[method]
    with pytest.raises(ValueError, match=r"model.safetensors holds NaN or infinity in .*down_proj.weight"):
        train(broken, rows, ENCODER, config, tmp_path / "out")
    with pytest.raises(ValueError, match=r"step [01]: no finite .*nothing was learned before, so it is the data or"):
        train(overflowing, rows, ENCODER, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_weight_that_broke_in_memory_is_named(start: Path) -> None:
    with pytest.raises(ValueError, match=r"step 1: .*the start model's weight .*down_proj.weight holds NaN"):
        check_finite({"loss": math.nan}, 1, with_nan(start), remedy="lower it", trained=False)


def test_held_out_rows_show_it_before_the_first_step(overflowing: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step 0: no finite number .*\(eval_loss (nan|inf).*nothing was learned"):
        train_sft(overflowing, tiny.demonstrations(4), ENCODER, SFTConfig(**FEW), tmp_path / "out", heldout=LABELS)


def test_the_last_step_is_looked_at_too(start: Path, tmp_path: Path) -> None:
    """Its weights are large and finite, and only a loss shows that nothing is left of the model."""
    config = SFTConfig(epochs=1, batch_size=4, learning_rate=1e17)
    with pytest.raises(ValueError, match=r"step 1: no finite number any more \(loss after it (nan|inf)\); lower"):
        train_sft(start, tiny.demonstrations(4), ENCODER, config, tmp_path / "out")


def test_the_command_says_so(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "rows.jsonl", tiny.demonstrations(4))
    given = [f"--model={start}", f"--data={tmp_path / 'rows.jsonl'}", f"--out={tmp_path / 'out'}", "--batch-size=4"]
    assert main(["tune", "sft", *given, "--learning-rate=1e30"]) == 1
    assert "errata: step 1: no finite number any more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weight", [math.nan, math.inf, -0.5, 1e20, "1", None])
@pytest.mark.parametrize("method", ["sft", "figa"])
def test_a_weight_of_a_row_is_refused_before_training(method: str, weight: Any, start: Path, tmp_path: Path) -> None:
    train, rows, config = OFFLINE[method]
    with pytest.raises(ValueError, match=rf"row_weights: the weight .* of row '{rows[1].id}' is no number from 0"):
        train(start, rows, ENCODER, config, tmp_path / "out", row_weights={rows[1].id: weight})
    assert not list(tmp_path.iterdir())


def test_a_weight_in_a_file_is_refused_before_training(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "r7", "prompt": "say", "rejected": "one rude", "chosen": "one", "chosen_weights": [[0, 3, 1e20]]}
    (tmp_path / "edits.jsonl").write_text(json.dumps(row) + "\n")
    given = [f"--model={start}", f"--edits={tmp_path / 'edits.jsonl'}", f"--out={tmp_path / 'out'}"]
    assert main(["tune", "figa", *given]) == 1
    assert "row 'r7': edited weights: weight 1e+20 is no number of at most 1,000,000" in capsys.readouterr().err


# PPO.


def of(value: Any) -> Callable[[Sequence[Encoded]], Any]:
    return lambda rows: [[value] * len(row.response_ids) for row in rows]


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (of(math.nan), r"the stream 'reward' gives response 0 of this round \(row 'p\d+'\) a reward that is NaN"),
        (of(math.inf), "a reward that is NaN or infinite"),
        (of(1e38), r"a reward 1e\+38, larger than 1,000,000; fix the function"),
        (of("one"), r"gives row 'p\d+' the reward 'one'; give one list for each row, with one float"),
        (of(None), r"gives row 'p\d+' the reward None"),
        (lambda rows: [], "the stream 'reward' gives rewards of 0 rows for 16 rows; give one list for each row"),
        (lambda rows: None, "gives a NoneType for 16 rows"),
        (lambda rows: 1.0, "gives a float for 16 rows"),
        (lambda rows: "rewards", "gives a str for 16 rows"),
        (lambda rows: [1.0] * len(rows), r"gives row 'p\d+' a float for \d response tokens"),
        (lambda rows: [[1.0]] * len(rows), r"gives row 'p\d+' 1 rewards for \d response tokens"),
        (lambda rows: ["rewards"] * len(rows), r"gives row 'p\d+' a str for \d response tokens"),
    ],
)
def test_rewards_that_are_none(reward: Any, said: str, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        train_ppo(start, reward, PROMPTS, ENCODER, CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arrays_and_tensors_are_rewards_too() -> None:
    rollouts = [
        Rollout(id=str(k), prompt="", prompt_ids=(1,), response_ids=(2,) * k, text="", ended=False) for k in (1, 2)
    ]
    stream = Stream(name="words", reward=pays_for_cats)
    for made in (np.array, torch.tensor, tuple):
        given: list[Any] = [made([1.0]), made([0.5, 2])]
        assert rewards_of(stream, given, rollouts) == [[1.0], [0.5, 2.0]]


@pytest.mark.parametrize("rate", ["learning_rate", "value_learning_rate"])
def test_ppo_with_a_learning_rate_that_is_far_too_high(rate: str, start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, minibatch_size=16, optimisation_epochs=1, **{rate: 1e30})
    with pytest.raises(ValueError, match=r"step 1: no finite .*\(norm of the weights of the .*lower --learn"):
        train_ppo(start, pays_for_cats, PROMPTS, ENCODER, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ppo_looks_at_its_last_step_too(start: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, minibatch_size=16, optimisation_epochs=1, steps=1, learning_rate=1e17)
    with pytest.raises(ValueError, match=r"step 1: no finite number any more \(log-probability after it"):
        train_ppo(start, pays_for_cats, PROMPTS, ENCODER, config, tmp_path / "out")


def test_ppo_keeps_the_last_good_checkpoint(start: Path, tmp_path: Path) -> None:
    rounds: list[int] = []

    def reward(rows: Sequence[Encoded]) -> list[list[float]]:
        rounds.append(len(rows))
        return of(math.nan if len(rounds) == 4 else 1.0)(rows)

    with pytest.raises(ValueError, match="NaN or infinite"):
        train_ppo(start, reward, PROMPTS, ENCODER, CONFIG, tmp_path / "out")
    assert [path.name for path in (tmp_path / ".out.training").glob("step-*")] == ["step-2"]


@pytest.mark.parametrize("critic", [False, True])
def test_ppo_from_a_start_that_is_broken(
    critic: bool, start: Path, broken: Path, overflowing: Path, tmp_path: Path
) -> None:
    for bad, said in ((broken, r"holds NaN or infinity in .*down_proj.weight"), (overflowing, "no finite")):
        with pytest.raises(ValueError, match=said):
            train_ppo(start if critic else bad, pays_for_cats, PROMPTS, ENCODER, CONFIG, tmp_path / "out", critic=bad)


# What a model says without being trained.


@pytest.mark.parametrize("own_loop", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_broken_model_answers_nothing(
    own_loop: bool, temperature: float, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TransformersGenerator, "_has_own_loop", own_loop)
    generator = TransformersGenerator(with_nan(start), ENCODER)
    with pytest.raises(ValueError, match=r"no finite probabilities for row 1: its weight .*down_proj.weight holds NaN"):
        generator(PROMPTS[:2], Sampling(max_new_tokens=3, temperature=temperature))


def test_a_broken_model_is_not_measured(start: Path) -> None:
    with pytest.raises(ValueError, match="no finite log-probability for row 1: its weight"):
        token_logprobs_by_label(with_nan(start), LABELS, ENCODER, batch_size=2)


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_a_broken_reward_model_scores_nothing(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = reward_model(tmp_path, tiny.tokenizer(), kind=kind)
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][0] = 3e38  # a number, but not what is computed with it
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    rows = tiny.demonstrations(3)
    with pytest.raises(ValueError, match=r"no finite reward for row 1, though all its weights are numbers"):
        load_scorer(folder, ENCODER)([ENCODER.encode(row.prompt, row.response) for row in rows])
    write_rows(tmp_path / "rows.jsonl", rows)
    given = [f"--reward={folder}", f"--data={tmp_path / 'rows.jsonl'}", f"--out={tmp_path / 'out.jsonl'}"]
    assert main(["reward", "score", *given]) == 1
    assert "no finite reward" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


# Ids that the model does not know.


def larger_tokenizer() -> Encoder:
    made = tiny.tokenizer()
    made.add_tokens(["purple"])
    return Encoder(made)


@pytest.mark.parametrize("method", [*OFFLINE, "ppo"])
def test_a_tokenizer_that_is_larger_than_the_model(method: str, start: Path, tmp_path: Path) -> None:
    encoder, rows = larger_tokenizer(), [replace(EDITS[0], id="r3", prompt="purple say"), *EDITS]
    if method == "ppo":
        prompts = [replace(PROMPTS[0], id="r3", prompt="purple say"), *PROMPTS]
        train = partial(train_ppo, start, pays_for_cats, prompts, encoder, CONFIG, tmp_path / "out")
    else:
        function, _, config = OFFLINE[method]
        train = partial(function, start, rows_for(method, rows, encoder), encoder, config, tmp_path / "out")
    with pytest.raises(ValueError, match="row 'r3' holds the id 18, and the model has embeddings for 18 ids; give the"):
        train()
    generator = TransformersGenerator(load_causal(start), encoder)
    with pytest.raises(ValueError, match="row 'p0' holds the id 18"):
        generator([replace(PROMPTS[0], prompt="purple")], Sampling(max_new_tokens=1))


def rows_for(method: str, rows: Sequence[Correction], encoder: Encoder) -> Iterable[Any]:
    """An iterator over what a method takes."""
    reads = {each.name: each.reads for each in METHODS} | {"sequence": "pairs"}
    if reads.get(method) == "demonstrations":
        return iter(demonstrations(rows))
    return iter(rows) if reads.get(method) == "pairs" else label_all(rows, encoder)


@pytest.mark.parametrize("side", ["chosen_ids", "rejected_ids"])
def test_sampled_ids_that_no_tokenizer_has(side: str, start: Path, tmp_path: Path) -> None:
    ids = (6 if side == "chosen_ids" else 7, 99, 2)  # a tokenizer leaves out what it does not know
    row = replace(Preference(id="r5", prompt="say", chosen="one", rejected="two"), **{side: ids})
    for train, config in ((train_dpo, DPOConfig(**FEW)), (train_sequence_reward, RewardConfig(**FEW))):
        with pytest.raises(ValueError, match=r"row 'r5' holds the id 99, and the model has"):
            train(start, [row], ENCODER, config, tmp_path / "out")


# What a function takes.


@pytest.mark.parametrize("method", [*OFFLINE, "ppo"])
def test_any_iterable_of_rows_will_do_and_a_text_for_out(method: str, start: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    if method == "ppo":
        config = replace(CONFIG, steps=1)
        card = train_ppo(start, pays_for_cats, iter(PROMPTS), ENCODER, config, out)
        assert card["prompts"] == card["rows_in"] == len(PROMPTS)
        return
    train, _, config = OFFLINE[method]
    heldout = () if method in ("sequence", "dpo") else rows_for("figa", EDITS, ENCODER)
    more: dict[str, Any] = {"heldout": heldout} if heldout else {}
    card = train(start, rows_for(method, EDITS, ENCODER), ENCODER, replace(config, epochs=1), out, **more)
    assert card["rows_in"] == card["rows"] == len(EDITS)
    assert card.get("heldout_rows", len(EDITS) if not heldout else 0) in (len(EDITS), 0)


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("figa", EDITS, r"labels: row 1 is a Correction and no TokenLabels; label corrections first: label_all\("),
        ("token", EDITS, "labels: row 1 is a Correction and no TokenLabels"),
        ("eq3", EDITS, "labels: row 1 is a Correction and no TokenLabels"),
        ("sft", EDITS, r"rows: row 1 is a Correction and no Demonstration; .* demonstrations\(corrections\)"),
        ("dpo", LABELS, "rows: row 1 is a TokenLabels and no Preference or Correction; read them with"),
        ("sequence", [{"prompt": "say"}], "rows: row 1 is a dict and no Preference or Correction"),
        ("figa", "edits.jsonl", "labels is a str, and should be rows of TokenLabels"),
        ("sft", None, "rows is a NoneType, and should be rows of Demonstration"),
        ("dpo", Path("edits.jsonl"), "rows is a PosixPath"),
    ],
)
def test_rows_of_another_kind(method: str, given: Any, said: str, start: Path, tmp_path: Path) -> None:
    train, _, config = OFFLINE[method]
    with pytest.raises(TypeError, match=said):
        train(start, given, ENCODER, config, tmp_path / "out")


def test_rows_of_another_kind_elsewhere(start: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TypeError, match=r"heldout: row 1 is a Correction .* label_all\("):
        train_sft(start, tiny.demonstrations(2), ENCODER, SFTConfig(), out, heldout=EDITS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prompts: row 1 is a str and no PromptRow; read them with read_prompts"):
        train_ppo(start, pays_for_cats, ["say"], ENCODER, CONFIG, out)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="reward: row 1 is a str and no Stream; give a folder, a function or streams"):
        train_ppo(start, ["reward"], PROMPTS, ENCODER, CONFIG, out)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="preferences: row 1 is a Correction and no Preference"):
        train_token_reward(start, LABELS, ENCODER, TokenRewardConfig(), out, preferences=EDITS)  # type: ignore[arg-type]
