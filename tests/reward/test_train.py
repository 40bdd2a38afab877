from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from errata.labels import label_all
from errata.models import load_token_reward_model, pad
from errata.reward import (
    RewardConfig,
    TokenRewardConfig,
    encode_pair,
    load_scorer,
    localisation,
    pair_accuracy,
    score_texts,
    token_means,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.reward import train as train_module
from errata.types import Correction, Label, Preference

ENCODER = tiny.encoder()
TRAIN, HELD_OUT = tiny.corrections(96, seed=1), tiny.corrections(40, seed=2)
UNCHANGED = [Correction(id=f"u{k}", prompt="say", original="red cat", edited="red cat") for k in range(3)]
LEARN: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 8, "batch_size": 16, "micro_batch_size": 16}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"), initializer_range=0.1)


def labelled(rows: list[Correction]) -> list[Any]:
    return list(label_all(rows, ENCODER))


def test_classes_find_the_word_that_is_always_deleted(start: Path, tmp_path: Path) -> None:
    config = TokenRewardConfig(**LEARN)
    card = train_token_reward(start, labelled([*TRAIN, *UNCHANGED]), ENCODER, config, tmp_path / "out")
    assert (card["rows"], card["excluded_without_gradient"]) == (96, 3)
    assert (card["stage"], card["kind"], card["objective"]) == ("reward", "token", "changed_token_classes")
    assert (card["tokenizer"], card["template"]) == (ENCODER.fingerprint, ENCODER.template)
    scorer = load_scorer(tmp_path / "out", ENCODER)
    found = localisation(scorer, labelled(HELD_OUT))
    assert found.bad_kept > 0.95
    better, worse = zip(*(encode_pair(row, ENCODER) for row in HELD_OUT), strict=True)
    assert pair_accuracy(score_texts(scorer, better), score_texts(scorer, worse)) > 0.95
    # Kept tokens stay near 0 and bad ones are negative: the level means something.
    rude = ENCODER.tokenizer.convert_tokens_to_ids("rude")
    for row, stream in zip(worse, scorer(worse), strict=True):
        for token, reward in zip(row.response_ids, stream, strict=True):
            assert reward < -1 if token == rude else abs(reward) < 0.9


def test_eq_3_ranks_and_localises(start: Path, tmp_path: Path) -> None:
    config = RewardConfig(**LEARN)
    card = train_token_reward_bradley_terry(start, labelled([*UNCHANGED, *TRAIN]), ENCODER, config, tmp_path / "out")
    assert (card["rows"], card["excluded_without_gradient"]) == (96, 3)
    assert card["objective"] == "token_bradley_terry"
    assert card["loss"] < 0.3
    scorer = load_scorer(tmp_path / "out", ENCODER)
    better, worse = zip(*(encode_pair(row, ENCODER) for row in HELD_OUT), strict=True)
    assert pair_accuracy(token_means(scorer, better), token_means(scorer, worse)) > 0.95
    assert localisation(scorer, labelled(HELD_OUT)).bad_kept > 0.8


def test_a_sequence_reward_model_ranks(start: Path, tmp_path: Path) -> None:
    same = Preference(id="s", prompt="say", chosen="cat", rejected="cat")
    rows = [same, *TRAIN[:48], *(_preference(row) for row in TRAIN[48:])]
    card = train_sequence_reward(start, rows, ENCODER, RewardConfig(**LEARN), tmp_path / "out")
    assert (card["rows"], card["excluded_without_gradient"]) == (96, 1)
    assert card["kind"] == "sequence"
    scorer = load_scorer(tmp_path / "out", ENCODER)
    better, worse = zip(*(encode_pair(row, ENCODER) for row in HELD_OUT), strict=True)
    assert pair_accuracy(score_texts(scorer, better), score_texts(scorer, worse)) > 0.9


def _preference(row: Correction) -> Preference:
    return Preference(id=row.id, prompt=row.prompt, chosen=row.edited, rejected=row.original)


def test_the_first_losses_are_those_of_rewards_of_zero(start: Path, tmp_path: Path) -> None:
    """log 2 for each pair, and log 2 for each changed token: κ·r² is nothing yet."""
    one: dict[str, Any] = {"epochs": 1, "batch_size": 8, "micro_batch_size": 4}
    labels = labelled(TRAIN[:8])
    log2 = pytest.approx(0.6931, abs=1e-4)
    eq3 = train_token_reward_bradley_terry(start, labels, ENCODER, RewardConfig(**one), tmp_path / "eq3")
    pair = train_sequence_reward(start, TRAIN[:8], ENCODER, RewardConfig(**one), tmp_path / "pair")
    classes = train_token_reward(start, labels, ENCODER, TokenRewardConfig(**one), tmp_path / "classes")
    assert eq3["loss"] == pair["loss"] == log2
    assert eq3["count"] == pair["count"] == 8, "pairs"
    assert classes["loss"] == log2
    assert classes["count"] == sum(row.original.split().count("rude") for row in TRAIN[:8]), "changed tokens"
    both = TokenRewardConfig(**one, sequence_coefficient=0.5)
    with_pairs = train_token_reward(start, labels, ENCODER, both, tmp_path / "both")
    assert with_pairs["loss"] == pytest.approx(0.6931 * (1 + 0.5 * 8 / classes["count"]), abs=1e-4)


def test_the_kept_coefficient_holds_kept_tokens_down(start: Path, tmp_path: Path) -> None:
    kept = {}
    for coefficient in (0.0, 3.0):
        config = TokenRewardConfig(**{**LEARN, "epochs": 3}, kept_coefficient=coefficient)
        train_token_reward(start, labelled(TRAIN), ENCODER, config, tmp_path / str(coefficient))
        streams = load_scorer(tmp_path / str(coefficient), ENCODER)([row.edited.encoded for row in labelled(HELD_OUT)])
        kept[coefficient] = sum(abs(value) for stream in streams for value in stream)
    assert kept[3.0] < 0.5 * kept[0.0]


@pytest.mark.parametrize("train", [train_token_reward, train_token_reward_bradley_terry])
def test_only_unchanged_rows_are_an_error(train: Any, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row is left"):
        train(start, labelled(UNCHANGED), ENCODER, TokenRewardConfig(), tmp_path / "out")
    with pytest.raises(ValueError, match="no row is left"):
        train_sequence_reward(start, UNCHANGED, ENCODER, RewardConfig(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sampled_ids_are_kept_and_a_bad_row_is_named() -> None:
    ids = (*ENCODER.encode("say", "rude cat").response_ids[:-1],)
    row = Correction(id="a", prompt="say", original="rude cat", edited="cat", original_ids=ids)
    better, worse = encode_pair(row, ENCODER)
    assert worse.response_ids == ids
    assert not worse.ended, "it was cut off"
    assert better.ended
    both = Preference(id="p", prompt="say", chosen="cat", rejected="rude cat", rejected_ids=ids)
    assert encode_pair(both, ENCODER) == (better, worse)
    swapped = Preference(id="p", prompt="say", chosen="rude cat", rejected="cat", chosen_ids=ids)
    assert encode_pair(swapped, ENCODER) == (worse, better)
    with pytest.raises(ValueError, match="the sampled ids do not decode"):
        encode_pair(replace(row, original="cat"), ENCODER)


def test_what_is_written_is_reused(start: Path, tmp_path: Path) -> None:
    config = RewardConfig(epochs=1, batch_size=8, micro_batch_size=8)
    card = train_sequence_reward(start, TRAIN[:8], ENCODER, config, tmp_path / "out")
    assert train_sequence_reward(start, TRAIN[:8], ENCODER, config, tmp_path / "out") == card
    with pytest.raises(ValueError, match="made by another run"):
        train_token_reward(start, labelled(TRAIN[:8]), ENCODER, TokenRewardConfig(), tmp_path / "out")


def test_signs_reach_the_side_they_belong_to(start: Path, tmp_path: Path) -> None:
    """One step on one insertion: the edited side's token goes up; on one deletion: the original's goes down."""
    config = TokenRewardConfig(learning_rate=1e-2, epochs=1, batch_size=1, micro_batch_size=1)
    for name, original, edited in (("up", "cat", "now cat"), ("down", "now cat", "cat")):
        rows = labelled([Correction(id=name, prompt="say", original=original, edited=edited)])
        train_token_reward(start, rows, ENCODER, config, tmp_path / name)
        batch = pad([ENCODER.encode("say", "now cat")], pad_id=0)
        with torch.no_grad():
            reward = load_token_reward_model(tmp_path / name)(input_ids=batch.ids_BT).logits[0, 2, 0]
        assert (reward > 1e-4) if name == "up" else (reward < -1e-4)


def test_ignored_tokens_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither kept nor changed: whatever their reward, each loss is the same, and they have no gradient."""
    (row,) = labelled([Correction(id="a", prompt="say", original="now cat", edited="cat red dog")])
    edited = replace(row.edited, labels=(0, int(Label.IGNORED), *row.edited.labels[2:]))
    inputs = train_module.collate_labels([replace(row, edited=edited)], encoder=ENCODER)
    ignored, wanted_SK = 1, inputs["layout"].wanted_SK
    assert not wanted_SK[0, ignored]
    assert wanted_SK.sum() == len(row.edited.labels) + len(row.original.labels) - 1
    monkeypatch.setattr(
        train_module, "laid_out_scalars", lambda rewards_SK, layout: torch.where(layout.wanted_SK, rewards_SK, 0)
    )
    config = TokenRewardConfig(sequence_coefficient=1.0)
    for loss in (train_module._bradley_terry_loss, partial(train_module._class_loss, config=config)):
        found = []
        for at in (0.5, 30.0):
            rewards_BT = torch.linspace(-1, 1, inputs["sign_SK"].numel()).view_as(inputs["sign_SK"]).clone()
            rewards_BT[0, ignored] = at
            total, count, _ = loss(rewards_BT.requires_grad_(), inputs)
            total.backward()
            found.append((total.item(), int(count)))
            assert rewards_BT.grad[0, ignored] == 0
            assert rewards_BT.grad[0, ignored + 1] != 0
        assert found[0] == found[1]


@pytest.mark.slow
def test_lora_trains_the_head_in_full_and_another_process_scores_the_same(start: Path, tmp_path: Path) -> None:
    config = TokenRewardConfig(**{**LEARN, "epochs": 4}, lora_rank=2)
    train_token_reward(start, labelled(TRAIN), ENCODER, config, tmp_path / "out")
    rows = [row.original.encoded for row in labelled(HELD_OUT[:5])]
    scorer = load_scorer(tmp_path / "out", ENCODER)
    assert localisation(scorer, labelled(HELD_OUT)).bad_kept > 0.9, "the head has learned, too"
    script = (
        "import json, sys, tiny, torch; from errata.reward import load_scorer; torch.set_num_threads(1); "
        "rows = [tiny.Encoded(*row) for row in json.load(sys.stdin)]; "
        "print(json.dumps(load_scorer(sys.argv[1], tiny.encoder())(rows)))"
    )
    data = json.dumps([(row.ids, row.prompt_length, row.offsets, row.ended) for row in rows])
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        input=data,
        env=tiny.environment(),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == scorer(rows)
    adapter = load_file(tmp_path / "out/adapter/adapter_model.safetensors")
    heads = {key.rpartition("model.")[2]: value for key, value in adapter.items() if "lora" not in key}
    assert set(heads) == {"score.weight", "score.bias"}
    saved = tiny.weights(tmp_path / "out")
    assert all(torch.equal(saved[key], value) for key, value in heads.items())
    # What was frozen is W + (α/r)·BA.
    name = "model.layers.1.mlp.up_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    expected = tiny.weights(start)[f"{name}.weight"] + 2 * b @ a
    torch.testing.assert_close(saved[f"{name}.weight"], expected)
    assert torch.equal(saved["model.norm.weight"], tiny.weights(start)["model.norm.weight"])


def test_micro_batches_hold_rows_of_one_length_and_add_up_to_the_step(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a step sorted, from step to step in the seeded order; the same weights as in one micro-batch."""
    collate, seen = train_module.collate_labels, list[list[int]]()

    def noted(rows: Any, **how: Any) -> Any:
        seen.append([train_module._length(row) for row in rows])
        return collate(rows, **how)

    monkeypatch.setattr(train_module, "collate_labels", noted)
    for micro in (8, 2):
        seen.clear()
        config = TokenRewardConfig(learning_rate=1e-3, epochs=1, batch_size=8, micro_batch_size=micro)
        train_token_reward(start, labelled(TRAIN[:24]), ENCODER, config, tmp_path / str(micro))
    steps = [[length for part in seen[k : k + 4] for length in part] for k in range(0, 12, 4)]
    assert [len(part) for part in seen] == [2] * 13  # the last looks at the result
    assert all(step == sorted(step) and len(set(step)) > 2 for step in steps)
    assert [*chain(*steps)] != sorted([*chain(*steps)])
    assert tiny.difference(tmp_path / "8", tmp_path / "2") < 1e-5
    name = "model.layers.0.mlp.up_proj.weight"
    assert (tiny.weights(tmp_path / "8")[name] - tiny.weights(start)[name]).abs().max() > 1e-4


EVERYTHING: dict[str, Any] = {
    "learning_rate": 1e-2,
    "epochs": 2,
    "batch_size": 8,
    "micro_batch_size": 2,
    "lora_rank": 2,
    "bf16": True,
    "gradient_checkpointing": True,
    "save_every": 2,
    "evaluate_every": 2,
    "patience": 4,
}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft, of newer transformers
@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_everything_at_once_survives_being_killed(
    kind: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA, bfloat16, accumulation, checkpointing, held-out accuracy: cut off after step 3, the same weights result."""
    rows, seen = TRAIN[:16], HELD_OUT[:8]

    def train(out: Path) -> dict[str, Any]:
        if kind == "sequence":
            return train_sequence_reward(start, rows, ENCODER, RewardConfig(**EVERYTHING), out, heldout=seen)
        config = TokenRewardConfig(**EVERYTHING, sequence_coefficient=0.5)
        return train_token_reward(start, labelled(rows), ENCODER, config, out, heldout=labelled(seen))

    whole = train(tmp_path / "whole")
    assert whole["heldout_rows"] == 8
    assert 0 <= whole["eval_accuracy"] <= 1
    real, calls = train_module.laid_out_scalars, []
    ends = train_module.laid_out_last_scalars

    def dies(model: Any, layout: Any, read: Any) -> Any:
        calls.append(model.training)
        if sum(calls) == 14:
            raise KeyboardInterrupt
        return read(model, layout)

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "laid_out_scalars", partial(dies, read=real))
        patched.setattr(train_module, "laid_out_last_scalars", partial(dies, read=ends))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed")
    assert (tmp_path / ".killed.training/checkpoint-2").exists()
    train(tmp_path / "killed")
    assert tiny.difference(tmp_path / "whole", tmp_path / "killed") == 0


def test_the_most_accurate_step_is_kept(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loss and the accuracy disagree, accuracy decides."""
    said = iter([(0.5, 0.5), (0.9, 0.8), (0.7, 0.4), (0.7, 0.3), (0.7, 0.2)])
    monkeypatch.setattr(
        train_module, "evaluation_of", lambda *_: lambda _: dict(zip(("accuracy", "loss"), next(said), strict=True))
    )
    config = TokenRewardConfig(epochs=4, batch_size=8, micro_batch_size=8, evaluate_every=1, patience=2)
    card = train_token_reward(
        start, labelled(TRAIN[:8]), ENCODER, config, tmp_path / "out", heldout=labelled(HELD_OUT[:2])
    )
    assert (card["best_step"], card["eval_accuracy"]) == (1, 0.9)
    assert "the held-out accuracy was highest at step 1" in card["warnings"][0]


@pytest.mark.parametrize(
    ("objective", "train"),
    [
        ("soft", train_token_reward),
        ("changed_mean", train_token_reward_bradley_terry),
        ("changed_sum", train_token_reward_bradley_terry),
    ],
)
def test_other_objectives_rank_and_localise(objective: str, train: Any, start: Path, tmp_path: Path) -> None:
    card = train(start, labelled(TRAIN), ENCODER, TokenRewardConfig(**LEARN), tmp_path / "out", objective=objective)
    names = {
        "soft": "soft_token_classes",
        "changed_mean": "changed_token_bradley_terry_mean",
        "changed_sum": "changed_token_bradley_terry_sum",
    }
    assert card["objective"] == names[objective]
    scorer = load_scorer(tmp_path / "out", ENCODER)
    assert scorer.level_is_free == (objective == "changed_mean")
    assert localisation(scorer, labelled(HELD_OUT)).bad_kept > 0.95


def test_preferences_teach_beside_edits(start: Path, tmp_path: Path) -> None:
    """No edit shows that blue is bad; a preference does. With them: the sum ranks what edits alone leave open."""
    preferences = [
        Preference(id=str(k), prompt=row.prompt, chosen=row.edited, rejected=row.edited + " blue" * (1 + k % 3))
        for k, row in enumerate(row for row in TRAIN if "blue" not in row.edited)
    ]
    config = TokenRewardConfig(**LEARN, sequence_coefficient=1.0)
    edits = labelled(TRAIN)
    for name, given in (("without", []), ("with", preferences)):
        card = train_token_reward(start, edits, ENCODER, config, tmp_path / name, preferences=given)
        assert card["preferences"] == len(given)
        scorer = load_scorer(tmp_path / name, ENCODER)
        better, worse = (
            score_texts(scorer, [ENCODER.encode(row.prompt, text) for row in HELD_OUT])
            for text in ("red cat sits", "red cat sits blue")
        )
        if name == "with":
            assert pair_accuracy(better, worse) > 0.95
            assert localisation(scorer, labelled(HELD_OUT)).bad_kept > 0.9
        else:
            assert pair_accuracy(better, worse) < 0.95
    eq3 = train_token_reward_bradley_terry(
        start, edits[:4], ENCODER, RewardConfig(**LEARN), tmp_path / "eq3", preferences=preferences[:3]
    )
    assert eq3["count"] == 4 + 3


def test_a_preference_has_no_classes() -> None:
    """Neither the classes nor the pull on kept tokens touch it; it counts as one item."""
    pair = encode_pair(Preference(id="p", prompt="say", chosen="cat", rejected="red dog"), ENCODER)
    inputs = train_module.collate_labels([pair, *labelled(TRAIN[:1])], encoder=ENCODER)
    assert inputs["edited_B"].tolist() == [False, True]
    assert inputs["sign_SK"][0].count_nonzero() == inputs["sign_SK"][2].count_nonzero() == 0
    assert inputs["sign_SK"].count_nonzero() == TRAIN[0].original.split().count("rude")
    assert inputs["layout"].wanted_SK[[0, 2]].sum() == len(pair[0].response_ids) + len(pair[1].response_ids)


def test_the_loss_of_edits_and_preferences_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = encode_pair(Preference(id="p", prompt="say", chosen="cat", rejected="red dog"), ENCODER)
    edit = labelled([Correction(id="a", prompt="say", original="now cat", edited="cat")])
    inputs = train_module.collate_labels([pair, *edit], encoder=ENCODER)
    # cat, end and cat, end; red, dog, end and now, cat, end: sums 3 and 1, 3 and −.5.
    rewards_SK = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 0.0], [4.0, 3.0, -4.0], [-2.0, 1.0, 0.5]])
    monkeypatch.setattr(train_module, "laid_out_scalars", lambda model, layout: rewards_SK)

    def nls(x: float) -> float:
        return math.log(1 + math.exp(-x))

    between = 0.5 * (nls(3 - 3) + nls(1 - -0.5))
    kept = 0.1 * (1 + 0 + 1 + 0.25)
    soft = sum((nls(r) + nls(-r)) / 2 for r in (1, 0, 1, 0.5))
    for objective, pulled in (("classes", kept), ("soft", soft)):
        config = TokenRewardConfig(sequence_coefficient=0.5)
        total, count, shares = train_module._class_loss(None, inputs, config=config, objective=objective)
        assert total.item() == pytest.approx(nls(2) + pulled + between, rel=1e-5), objective
        assert count == 1 + 1, "a changed token and a pair"
        assert [float(part) for part in shares["accuracy"]] == [1.5, 2], "the edit is right, the preference a tie"
    total, count, shares = train_module._bradley_terry_loss(None, inputs)
    assert total.item() == pytest.approx(nls(3 / 2 - 3 / 3) + nls(1 / 2 - -0.5 / 3), rel=1e-5)
    assert count == 2
    assert [float(part) for part in shares["accuracy"]] == [2, 2], "by means"


def test_settings_of_a_reward_model_that_do_not_go_together(start: Path, tmp_path: Path) -> None:
    row = Preference(id="p", prompt="say", chosen="cat", rejected="red dog")
    labels, out = labelled(TRAIN[:2]), tmp_path / "out"
    with pytest.raises(ValueError, match="give it a weight with --sequence-coefficient"):
        train_token_reward(start, labels, ENCODER, TokenRewardConfig(), out, preferences=[row])
    with pytest.raises(ValueError, match="it is not known which tokens"):
        train_token_reward_bradley_terry(
            start, labels, ENCODER, RewardConfig(), out, objective="changed_sum", preferences=[row]
        )
    for settings, message in (
        ({"quantize": "4bit", "lora_rank": 2}, "not trained in 4 bits"),
        ({"stop_when_kept_falls": 0.1}, "a reward model has none"),
        ({"lora_rank": -1}, "--lora-rank -1 is out of range"),
        ({"patience": 2, "evaluate_every": 2}, "give --heldout"),
    ):
        with pytest.raises(ValueError, match=message):
            train_token_reward(start, labels, ENCODER, TokenRewardConfig(**settings), out)
