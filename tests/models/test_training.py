"""The one offline loop. Every loss here is unequal in length, so a mean of means would be seen."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tiny
from errata.labels import label
from errata.models import load_causal, load_policy, pad, read_card, save_model, token_logprobs
from errata.runs import RunFolder, fingerprint_of
from errata.training import OfflineConfig, StepLoss, fit
from errata.tuning import FIGAConfig, SFTConfig, train_figa, train_sft
from errata.types import Correction, Encoded, Label

ENCODER = tiny.encoder()
ROWS = tiny.encoded(tiny.demonstrations(19, seed=5), ENCODER)
CONFIG = OfflineConfig(learning_rate=3e-3, epochs=2, batch_size=8, micro_batch_size=4, save_every=2)


def nll(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = inputs["batch"]
    return -token_logprobs(model, batch).sum(), batch.response_mask_BT.sum()


def collate(rows: list[Encoded]) -> dict[str, Any]:
    return {"batch": pad(rows, pad_id=0)}


def train(
    start: Path, out: Path, config: OfflineConfig = CONFIG, *, loss: Any = nll, rows: Any = ROWS, evaluate: Any = None
) -> dict:
    card = {"stage": "toy", "fingerprint": fingerprint_of(config, [row.ids for row in rows])}
    return fit(
        load_policy(start, config),
        rows,
        collate=collate,
        loss=loss,
        config=config,
        tokenizer=ENCODER.tokenizer,
        out=out,
        card=card,
        evaluate=evaluate,
    )


class StoppedError(Exception):
    pass


def stopping_at(call: int) -> Any:
    """The loss of a run that dies at its ``call``-th micro-batch."""
    calls = 0

    def loss(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == call:
            raise StoppedError
        return nll(*arguments)

    return loss


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def whole(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted: 2 passes of 3 steps, of 8, 8 and 3 rows."""
    out = tmp_path_factory.mktemp("whole") / "whole"
    assert train(start, out)["steps"] == 6
    return out


def work_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.training")


def test_it_is_the_plain_loop(start: Path, tmp_path: Path) -> None:
    """One epoch by hand: the same order, N over the whole step, the last step ragged, clipping after the division."""
    config = replace(CONFIG, epochs=1, seed=4, max_grad_norm=0.5, weight_decay=0.1, micro_batch_size=2)
    card = train(start, tmp_path / "out", config)
    model = load_causal(start).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=3e-3,
    )
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(4)).tolist()
    norms = []
    for first in range(0, len(ROWS), 8):
        batch = pad([ROWS[k] for k in order[first : first + 8]], pad_id=0)
        loss = -token_logprobs(model, batch).sum() / batch.response_mask_BT.sum()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        optimizer.step()
        optimizer.zero_grad()
    assert min(norms) > 0.5, "every step was clipped"
    assert card["steps"] == 3
    assert card["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert card["count"] == sum(len(ROWS[k].response_ids) for k in order[16:])
    assert card["grad_norm"] == pytest.approx(norms[-1], rel=1e-4)
    for name, value in tiny.weights(tmp_path / "out").items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_every_pass_takes_every_row_once_in_another_order(start: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def noted(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = inputs["batch"]
        seen.extend(tuple(ids[mask].tolist()) for ids, mask in zip(batch.ids_BT, batch.attention_mask_BT, strict=True))
        return nll(model, inputs)

    train(start, tmp_path / "out", loss=noted)
    first, second = seen[: len(ROWS)], seen[len(ROWS) : 2 * len(ROWS)]  # then a look at the result
    assert sorted(first) == sorted(second) == sorted(row.ids for row in ROWS)
    assert first != second


def test_clipping_can_be_left_out(start: Path, tmp_path: Path) -> None:
    clipped, free = (
        train(start, tmp_path / str(norm), replace(CONFIG, epochs=1, max_grad_norm=norm)) for norm in (1e-4, 0.0)
    )
    assert free["steps"] == clipped["steps"]
    assert free["grad_norm"] > 0.01
    assert tiny.difference(tmp_path / "0.0", tmp_path / "0.0001") > 1e-4


def test_micro_batches_add_up_for_sft(start: Path, tmp_path: Path) -> None:
    rows = tiny.demonstrations(19, seed=5)
    cards = {}
    for micro in (8, 2, 1):
        config = SFTConfig(learning_rate=3e-3, epochs=2, batch_size=8, micro_batch_size=micro)
        cards[micro] = train_sft(start, rows, ENCODER, config, tmp_path / str(micro))
    assert tiny.difference(start, tmp_path / "8") > 5e-3
    for micro in (2, 1):
        assert tiny.difference(tmp_path / "8", tmp_path / str(micro)) < 1e-5
        assert {cards[micro][key] for key in ("steps", "count")} == {cards[8][key] for key in ("steps", "count")}
        assert cards[micro]["loss"] == pytest.approx(cards[8]["loss"], rel=1e-5)


def test_micro_batches_add_up_for_figa_whose_count_is_known_only_afterwards(start: Path, tmp_path: Path) -> None:
    rows = tiny.labels(22)
    cards = {}
    for micro in (16, 4, 1):
        # At 3 nats the gate lets about half of the removed tokens through.
        config = FIGAConfig(learning_rate=1e-3, epochs=1, batch_size=16, micro_batch_size=micro, gate=3.0)
        cards[micro] = train_figa(start, rows, ENCODER, config, tmp_path / str(micro))
    closed, opened = (
        train_figa(start, rows, ENCODER, replace(config, gate=gate), tmp_path / str(gate)) for gate in (0.0, 1e9)
    )
    assert closed["count"] < cards[16]["count"] < opened["count"]
    for micro in (4, 1):
        assert tiny.difference(tmp_path / "16", tmp_path / str(micro)) < 1e-5
        assert cards[micro]["count"] == cards[16]["count"]
        assert cards[micro]["loss"] == pytest.approx(cards[16]["loss"], rel=1e-4)


@pytest.mark.parametrize("call", [5, 8, 10], ids=["first pass", "second pass", "last step"])
def test_a_run_that_died_goes_on_bit_for_bit(call: int, start: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        train(start, out, loss=stopping_at(call))
    assert not out.exists()
    assert any(work_of(out).glob("checkpoint-*/complete"))
    calls = 0

    def counted(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        return nll(model, inputs)

    card = train(start, out, loss=counted)
    assert 0 < calls < 10, "it did not begin again"
    assert tiny.difference(out, whole) == 0
    assert card == read_card(whole)
    assert not work_of(out).exists()


def test_a_run_that_died_after_its_last_checkpoint_writes_the_same_card(
    start: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: Any, **__: Any) -> None:
        raise StoppedError

    out = tmp_path / "out"
    monkeypatch.setattr("errata.training.loop.save_model", dying)
    with pytest.raises(StoppedError):
        train(start, out)
    monkeypatch.undo()
    assert train(start, out) == read_card(whole)
    assert tiny.difference(out, whole) == 0


def test_a_checkpoint_that_was_cut_off_is_ignored(start: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        train(start, out, loss=stopping_at(9))
    last = work_of(out) / "checkpoint-4"
    assert (work_of(out) / "checkpoint-2" / "complete").exists()
    (last / "complete").unlink()
    (last / "model.safetensors").write_bytes(b"half")
    train(start, out)
    assert tiny.difference(out, whole) == 0


def test_checkpoints_of_other_settings_are_not_used(start: Path, tmp_path: Path) -> None:
    other = replace(CONFIG, learning_rate=1e-3)
    train(start, tmp_path / "fresh", other)
    with pytest.raises(StoppedError):
        train(start, tmp_path / "out", loss=stopping_at(9))
    train(start, tmp_path / "out", other)
    assert tiny.difference(tmp_path / "out", tmp_path / "fresh") == 0


KILLED = """
import os, signal, sys
from pathlib import Path
import tiny
from models import test_training as t

calls = 0
def loss(model, inputs):
    global calls
    calls += 1
    if calls == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.nll(model, inputs)

t.train(Path(sys.argv[1]), Path(sys.argv[2]), loss=loss)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_for_bit(start: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(start), str(out)],
        env=tiny.environment(),
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    assert (work_of(out) / "checkpoint-4" / "complete").exists()
    assert train(start, out) == read_card(whole)
    assert tiny.difference(out, whole) == 0


LORA = replace(CONFIG, lora_rank=2, learning_rate=1e-2)


@pytest.mark.parametrize("call", [5, 9], ids=["first pass", "second pass"])
def test_an_adapter_that_died_goes_on_bit_for_bit_from_a_checkpoint_of_its_own_size(
    call: int, start: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    card = train(start, whole, LORA)
    with pytest.raises(StoppedError):
        train(start, out, LORA, loss=stopping_at(call))
    (last,) = {path.parent for path in work_of(out).glob("checkpoint-*/complete")} - {
        work_of(out) / f"checkpoint-{step}" for step in ((2,) if call == 9 else ())
    }
    assert (last / "adapter_model.safetensors").exists()
    assert not (last / "model.safetensors").exists()
    assert train(start, out, LORA) == card
    assert tiny.difference(out, whole) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert sorted((out / "adapter" / name).read_bytes()) == sorted((whole / "adapter" / name).read_bytes())
    assert tiny.difference(start, out) > 5e-3


def test_micro_batches_of_an_adapter_add_up(start: Path, tmp_path: Path) -> None:
    for micro in (8, 1):
        train(start, tmp_path / str(micro), replace(LORA, micro_batch_size=micro))
    assert tiny.difference(tmp_path / "8", tmp_path / "1") < 1e-5


@pytest.mark.parametrize("config", [CONFIG, LORA], ids=["all", "lora"])
def test_activations_computed_again_change_nothing(config: OfflineConfig, start: Path, tmp_path: Path) -> None:
    cards = [
        train(start, tmp_path / str(again), replace(config, gradient_checkpointing=again)) for again in (False, True)
    ]
    assert tiny.difference(tmp_path / "False", tmp_path / "True") < 1e-6
    assert cards[1]["loss"] == pytest.approx(cards[0]["loss"], rel=1e-6)


@pytest.mark.parametrize("config", [CONFIG, LORA], ids=["all", "lora"])
def test_bfloat16_computes_roughly_and_keeps_its_weights_whole(
    config: OfflineConfig, start: Path, tmp_path: Path
) -> None:
    whole, half = (train(start, tmp_path / str(bf16), replace(config, bf16=bf16)) for bf16 in (False, True))
    assert half["loss"] == pytest.approx(whole["loss"], rel=0.02)
    assert half["loss"] != whole["loss"]
    assert {value.dtype for value in tiny.weights(tmp_path / "True").values()} == {torch.float32}
    assert 0 < tiny.difference(tmp_path / "False", tmp_path / "True") < tiny.difference(start, tmp_path / "False") / 2


def lines_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def saying(*losses: float, kept: Sequence[float] = ()) -> Any:
    """Evaluations that find what they are told to find, and remember the weights that they saw."""
    seen: list[torch.Tensor] = []

    def evaluate(model: Any) -> dict[str, float]:
        seen.append(model.get_input_embeddings().weight.detach().clone())
        found = {"loss": losses[len(seen) - 1]}
        return {**found, "logprob_kept": kept[len(seen) - 1]} if kept else found

    evaluate.seen = seen  # type: ignore[attr-defined]
    return evaluate


EVALUATED = replace(CONFIG, evaluate_every=1)


def test_there_is_a_line_for_every_step_and_every_evaluation(start: Path, whole: Path, tmp_path: Path) -> None:
    told = saying(5.0, 4.0, 3.0, 2.0)
    card = train(start, tmp_path / "out", replace(CONFIG, evaluate_every=2, warmup_steps=4), evaluate=told)
    lines = lines_of(tmp_path / "out" / "metrics.jsonl")
    assert [(line["step"], "eval_loss" in line) for line in lines] == [
        *((0, True), (1, False), (2, False), (2, True), (3, False), (4, False), (4, True), (5, False), (6, False)),
        (6, True),
    ]
    assert [line["eval_loss"] for line in lines if "eval_loss" in line] == [5, 4, 3, 2]
    steps = [line for line in lines if "loss" in line]
    assert [line["learning_rate"] for line in steps] == pytest.approx([0, 7.5e-4, 1.5e-3, 2.25e-3, 3e-3, 3e-3])
    assert [line["epoch"] for line in steps] == pytest.approx([0.4, 0.8, 1, 1.4, 1.8, 2])
    assert {key: card[key] for key in ("loss", "count", "grad_norm")} == {
        key: steps[-1][key] for key in ("loss", "count", "grad_norm")
    }
    assert sum(line["count"] for line in steps) == 2 * sum(len(row.response_ids) for row in ROWS)
    assert (card["eval_loss"], "best_step" in card, "warnings" in card) == (2.0, False, False)
    plain = lines_of(whole / "metrics.jsonl")
    assert [line["step"] for line in plain] == [1, 2, 3, 4, 5, 6]
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(0)).tolist()
    first = pad([ROWS[k] for k in order[:8]], pad_id=0)
    loss = -token_logprobs(load_causal(start), first).sum() / first.response_mask_BT.sum()
    assert plain[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert plain[0]["loss"] == steps[0]["loss"]


def test_looking_at_held_out_rows_changes_nothing(start: Path, whole: Path, tmp_path: Path) -> None:
    train(start, tmp_path / "out", EVALUATED, evaluate=saying(*range(7)))
    assert tiny.difference(tmp_path / "out", whole) == 0


@pytest.mark.parametrize("config", [EVALUATED, replace(LORA, evaluate_every=1)], ids=["all", "lora"])
def test_patience_stops_and_saves_the_best(config: OfflineConfig, start: Path, tmp_path: Path, capsys: Any) -> None:
    whole = train(start, tmp_path / "whole", replace(config, epochs=0.5, evaluate_every=0))
    assert whole["steps"] == 2
    told = saying(4.0, 5.0, 3.0, 3.5, 3.0, 1.0, 0.0)
    card = train(start, tmp_path / "out", replace(config, patience=2, save_every=100), evaluate=told)
    assert (card["steps"], card["best_step"], card["eval_loss"]) == (4, 2, 3.0)
    assert tiny.difference(tmp_path / "out", tmp_path / "whole") == 0
    sentence = "stopped at step 4: the held-out loss was lowest at step 2, 2 evaluations before"
    assert card["warnings"] == [sentence]
    assert capsys.readouterr().err.count(sentence) == 1
    readme = (tmp_path / "out" / "README.md").read_text()
    assert sentence in readme
    assert re.search(r"\| 0 \| 4 \|\n\| 2 \| 3 \|\n\n", readme), "held-out loss before and after"


def test_patience_without_a_stop_saves_the_best_of_all(start: Path, tmp_path: Path) -> None:
    for best in (1, 3, 6):
        losses = [1.0 + abs(step - best) for step in range(7)]
        config = replace(EVALUATED, patience=9)
        card = train(start, tmp_path / str(best), config, evaluate=(told := saying(*losses)))
        assert (card["steps"], card["best_step"], card["eval_loss"]) == (6, best, 1.0)
        saved = load_causal(tmp_path / str(best))
        assert torch.equal(saved.get_input_embeddings().weight, told.seen[best])


@pytest.mark.parametrize("call", [4, 7, 0], ids=["before the best", "after the best", "before it was saved"])
def test_a_run_that_died_before_it_stopped_stops_as_it_would_have(
    call: int, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(EVALUATED, patience=2, save_every=1)
    losses = [4.0, 5.0, 3.0, 3.5, 3.25, 1.0, 0.0]

    def by_step(model: Any) -> dict[str, float]:
        """Finds the same at the same weights, in whichever run."""
        weight = model.get_input_embeddings().weight
        return {"loss": losses[next(k for k, one in enumerate(known.seen) if torch.equal(one, weight))]}

    train(start, tmp_path / "known", EVALUATED, evaluate=(known := saying(*range(7))))
    card = train(start, tmp_path / "whole", config, evaluate=by_step)
    assert (card["steps"], card["best_step"]) == (4, 2)
    if not call:
        monkeypatch.setattr("errata.training.loop._save", stopping_at(1))
    with pytest.raises(StoppedError):
        train(start, tmp_path / "out", config, evaluate=by_step, loss=stopping_at(call))
    monkeypatch.undo()
    with (work_of(tmp_path / "out") / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # cut off, as a kill may leave it
    assert train(start, tmp_path / "out", config, evaluate=by_step) == card
    assert tiny.difference(tmp_path / "out", tmp_path / "whole") == 0
    for name in ("metrics.jsonl", "README.md"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_kept_tokens_that_fall_are_told_and_on_request_end_the_run(start: Path, tmp_path: Path, capsys: Any) -> None:
    kept = [-1.0, -1.09, -1.11, -1.5, -1.6, -1.2, -1.0]
    card = train(start, tmp_path / "told", EVALUATED, evaluate=saying(*range(7, 0, -1), kept=kept))
    assert card["steps"] == 6
    (sentence,) = card["warnings"]
    assert sentence.startswith(
        "at step 2 kept tokens of the held-out rows are 0.11 nats a token less likely than at the start "
        "(perplexity × 1.12)"
    )
    assert capsys.readouterr().err.count(sentence) == 1
    config = replace(EVALUATED, stop_when_kept_falls=0.5)
    card = train(start, tmp_path / "stopped", config, evaluate=saying(*range(7, 0, -1), kept=kept))
    assert card["steps"] == 4
    assert card["warnings"] == [
        "stopped at step 4: kept tokens of the held-out rows are 0.6 nats a token less likely than at the start, and "
        "0.5 were allowed",
        sentence,
    ]


def test_a_run_that_never_got_better_is_told(start: Path, tmp_path: Path, capsys: Any) -> None:
    """And which one, where several are trained after one another."""
    card = train(start, tmp_path / "out", EVALUATED, evaluate=saying(1.0, *[1.0] * 6))
    assert card["warnings"] == ["the held-out loss was never lower than at the start"]
    assert f"{card['stage']}: the held-out loss was never lower" in capsys.readouterr().err


def test_shares_are_those_of_the_whole_step(start: Path, tmp_path: Path) -> None:
    def loss(model: Any, inputs: dict[str, Any]) -> Any:
        total, count = nll(model, inputs)
        ids = inputs["batch"].ids_BT
        shares = {"sevens": ((ids == 7).sum(), (ids > 3).sum()), "nothing": (count * 0, count * 0)}
        return StepLoss(total, count, shares)

    for micro in (8, 1):
        train(start, tmp_path / str(micro), replace(CONFIG, micro_batch_size=micro), loss=loss)
        order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(0)).tolist()
        for step, line in enumerate(lines_of(tmp_path / str(micro) / "metrics.jsonl")[:3]):
            ids = [token for k in order[8 * step : 8 * step + 8] for token in ROWS[k].ids]
            assert line["sevens"] == pytest.approx(ids.count(7) / sum(token > 3 for token in ids))
            assert "nothing" not in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluate_every": 2}, "give --heldout where a policy is tuned"),
        ({"patience": 2}, "give --heldout where a policy is tuned"),
        ({"stop_when_kept_falls": 0.5}, "give --heldout where a policy is tuned"),
        ({"tracker": "wandb"}, "--tracker wandb is not installed; pip install wandb"),
    ],
)
def test_what_cannot_work_is_told_before_training(
    settings: dict[str, Any], message: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message):
        train(start, tmp_path / "out", replace(CONFIG, **settings))
    with pytest.raises(ValueError, match="give --evaluate-every"):
        train(start, tmp_path / "out", replace(CONFIG, patience=1), evaluate=saying(1.0))
    assert not work_of(tmp_path / "out").exists()


def test_the_model_card_is_one_of_the_hub_and_holds_no_foreign_markup(tmp_path: Path) -> None:
    odd = tiny.llama(tmp_path / "a <b>x: [l](y) | `c`")
    rows = tiny.labels(9)
    config = FIGAConfig(epochs=1, batch_size=4, micro_batch_size=4, lora_rank=2)
    train_figa(odd, rows, ENCODER, config, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "base_model": odd.name,
        "library_name": "transformers",
        "tags": ["errata", "figa", "lora"],
    }
    assert "<b>" not in body
    assert "[l](" not in body
    assert "from a &lt;b&gt;x: \\[l\\]\\(y\\) \\| \\`c\\`\n" in body
    assert str(tmp_path) not in text
    deleted = sum(row.original.labels.count(Label.DELETED) for row in rows)
    assert f"| original\\_deleted | {deleted} |" in body
    assert "| rows | 9 |" in body
    assert "| steps | 3 |" in body
    assert "| lora\\_rank | 2 |" in body
    assert "AutoModelForCausalLM.from_pretrained" in body


def test_a_finished_run_is_reused_and_never_overwritten(start: Path, tmp_path: Path) -> None:
    rows, config, out = tiny.demonstrations(9), SFTConfig(epochs=1, batch_size=4), tmp_path / "out"
    card = train_sft(start, rows, ENCODER, config, out)
    written = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert train_sft(start, rows, ENCODER, config, out) == card == read_card(out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == written
    others: list[tuple[Any, Any, Any]] = [
        (start, rows, replace(config, learning_rate=1e-4)),
        (start, rows[:-1], config),
        (tiny.llama(tmp_path / "other", seed=1), rows, config),
    ]
    for model, data, settings in others:
        with pytest.raises(ValueError, match="made by another run or other settings; delete it or name another"):
            train_sft(model, data, ENCODER, settings, out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == written


def test_a_model_that_errata_did_not_make_is_not_overwritten(start: Path, tmp_path: Path) -> None:
    assert not RunFolder(tmp_path / "nothing", "abc").is_finished()
    with pytest.raises(ValueError, match="made by another run"):
        RunFolder(start, "abc").is_finished()
    save_model(load_causal(start), ENCODER.tokenizer, tmp_path / "mine", card={"fingerprint": "abc"})
    assert RunFolder(tmp_path / "mine", "abc").is_finished()


def test_what_is_left_is_the_model_and_its_card(whole: Path, start: Path) -> None:
    assert {path.suffix for path in whole.iterdir()} <= {"", ".json", ".jsonl", ".md", ".safetensors"}
    assert not work_of(whole).exists()
    card = json.loads((whole / "errata.json").read_text())
    measured = {"stage", "fingerprint", "steps", "empty_steps", "loss", "count", "grad_norm"}
    assert set(card) == {*measured, "trained_dtype", "saved_dtype"}
    assert card["empty_steps"] == 0
    assert tiny.difference(whole, start) > 5e-3


def test_no_row_and_no_gradient_are_errors(start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row is left to train on"):
        train(start, tmp_path / "out", rows=[])

    def nothing(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        total, count = nll(model, inputs)
        return total * 0, count * 0

    with pytest.raises(ValueError, match="no token was counted in any step"):
        train(start, tmp_path / "out", loss=nothing)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="no row is left"):
        train_sft(start, [], ENCODER, SFTConfig(), tmp_path / "out")


def test_a_step_without_a_counted_token_changes_nothing_and_is_counted(start: Path, tmp_path: Path) -> None:
    def first_only(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        total, count = nll(model, inputs)
        counts = bool((inputs["batch"].ids_BT == ENCODER.end_id).any())
        return total * counts, count * counts

    rows = [row for row in ROWS if row.ended][:2] + [row for row in ROWS if not row.ended][:2]
    config = replace(CONFIG, epochs=1, batch_size=1, micro_batch_size=1)
    card = train(start, tmp_path / "out", config, loss=first_only, rows=rows)
    assert (card["steps"], card["empty_steps"]) == (4, 2)
    assert all(bool(torch.isfinite(value).all()) for value in tiny.weights(tmp_path / "out").values())


@pytest.mark.parametrize(("batch", "micro"), [(8, 3), (7, 2)])
def test_a_batch_of_no_whole_micro_batches_is_an_error(batch: int, micro: int, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"batch size {batch} does not divide .* micro-batches of {micro}"):
        train(start, tmp_path / "out", replace(CONFIG, batch_size=batch, micro_batch_size=micro))


def test_a_micro_batch_may_be_larger_than_the_batch(start: Path, whole: Path, tmp_path: Path) -> None:
    train(start, tmp_path / "out", replace(CONFIG, micro_batch_size=64))
    assert tiny.difference(tmp_path / "out", whole) < 1e-5


def test_the_seed_decides_the_order(start: Path, whole: Path, tmp_path: Path) -> None:
    train(start, tmp_path / "same")
    train(start, tmp_path / "other", replace(CONFIG, seed=1))
    assert tiny.difference(tmp_path / "same", whole) == 0
    assert tiny.difference(tmp_path / "other", whole) > 1e-4


def test_the_schedule_reaches_the_optimizer(start: Path, whole: Path, tmp_path: Path) -> None:
    for name, settings in {"warm": {"warmup_steps": 100}, "linear": {"schedule": "linear"}}.items():
        train(start, tmp_path / name, replace(CONFIG, **settings))
        assert tiny.difference(tmp_path / name, start) < tiny.difference(whole, start)


def test_rows_are_not_cut_apart_from_their_weights(start: Path, tmp_path: Path) -> None:
    row = label(Correction(id="x", prompt="say", original="rude cat", edited="cat"), ENCODER)
    damaged = replace(row, original=replace(row.original, labels=row.original.labels[:-1]))
    with pytest.raises(ValueError, match="has 3 response tokens and 2 values"):
        train_figa(start, [damaged], ENCODER, FIGAConfig(epochs=1), tmp_path / "out")


def test_that_checkpoints_are_ordered_by_number_is_no_news() -> None:
    importlib.import_module("errata.training.hf_trainer")
    logger = logging.getLogger("transformers.trainer_utils")
    said = "mtime may not be reliable on this filesystem, falling back to numerical ordering"
    assert said in inspect.getsource(importlib.import_module("transformers.trainer_utils")), "look what it says now"
    assert not logger.filter(logging.makeLogRecord({"msg": said}))
    assert logger.filter(logging.makeLogRecord({"msg": "something else"}))
