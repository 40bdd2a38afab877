"""What is found on held-out rows, against sums over single rows that were never in a batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from errata.labels import label
from errata.models import add_adapter, load_causal, pad, token_logprobs
from errata.training import OfflineConfig
from errata.training.heldout import HeldOut
from errata.tuning import DPOConfig, FIGAConfig, SFTConfig, demonstrations, train_dpo, train_figa, train_sft, weigh
from errata.types import Correction, Label, TokenLabels

ENCODER = tiny.encoder()
MORE = [
    Correction(id="a", prompt="say", original="rude red dog sits", edited="red cat sits here now"),
    Correction(id="b", prompt="tell one two", original="six cat", edited="six cat"),
]
ROWS = [*tiny.labels(5, seed=7), *(label(row, ENCODER) for row in MORE)]
STEP: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 1, "batch_size": 8, "micro_batch_size": 4}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"))


@torch.no_grad()
def by_hand(model: Any, start: Any, rows: list[TokenLabels]) -> dict[str, float]:
    """One row at a time, with float64 softmaxes of plain logits."""
    found: dict[str, list[float]] = {"good": [], "kept": [], "bad": [], "kl": []}
    for row in rows:
        for side, kinds in (
            (row.edited, {"good": {Label.INSERTED, Label.SUBSTITUTED}, "kept": {Label.KEPT}}),
            (row.original, {"bad": {Label.DELETED, Label.SUBSTITUTED}}),
        ):
            ids = torch.tensor([side.encoded.ids])
            now, before = (one(ids).logits[0].double().log_softmax(-1) for one in (model, start))
            for k, name in enumerate(side.labels):
                column = side.encoded.prompt_length + k
                for kind, labels in kinds.items():
                    if name in labels:
                        found[kind].append(float(now[column - 1, ids[0, column]]))
                if side is row.edited:
                    terms = now[column - 1].exp() * (now[column - 1] - before[column - 1])
                    found["kl"].append(float(terms.sum()))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    return {"kl": means.pop("kl"), **{f"logprob_{name}": value for name, value in means.items()}}


def changed(model: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    for value in model.parameters():
        if value.requires_grad:
            value.data += torch.randn(value.shape, generator=generator) / 20
    return model


@pytest.mark.parametrize("adapter", [False, True], ids=["all", "lora"])
@pytest.mark.parametrize("budget", [1, 2**28])
def test_every_figure_is_that_of_single_rows(
    adapter: bool, budget: int, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("errata.models.divergence.LOGITS_AT_ONCE", budget)
    model: Any = load_causal(start)
    model = changed(add_adapter(model, rank=2, alpha=None, seed=0) if adapter else model).train()
    held_out = HeldOut(ROWS, start, ENCODER, OfflineConfig(micro_batch_size=3))

    def half(model: Any, inputs: Any) -> Any:
        return torch.tensor(3.0), torch.tensor(2 * len(inputs))

    found = held_out.evaluation(list(range(7)), list, half)(model)
    expected = by_hand(model, load_causal(start), ROWS)
    assert found.keys() == {"loss", *expected}
    assert found["loss"] == pytest.approx(3 * 3 / 14)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    assert found["kl"] > 0.01
    assert model.training
    assert (held_out.start is None) == adapter, "an adapter needs no second model"


def test_the_start_is_at_no_distance_from_itself_and_what_is_not_there_has_no_mean(start: Path) -> None:
    rows = [row for row in ROWS if not any(Label.INSERTED in side.labels for side in (row.edited,))][-1:]
    held_out = HeldOut(rows, start, ENCODER, OfflineConfig())
    found = held_out.evaluation([], list, lambda model, inputs: None)(load_causal(start))  # type: ignore[arg-type,return-value]
    assert found["kl"] == 0
    assert found.keys() == {"kl", "logprob_kept"}
    with pytest.raises(ValueError, match="no held-out row"):
        HeldOut([], start, ENCODER, OfflineConfig())


def test_an_impossible_token_is_no_distance(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from errata.models import divergence

    logits_of = divergence._logits

    def without(model: Any, batch: Any, temperature: float) -> Any:
        logits = logits_of(model, batch, temperature)
        logits[..., -1] = float("-inf")
        return logits

    monkeypatch.setattr(divergence, "_logits", without)
    batch = pad([row.edited.encoded for row in ROWS], pad_id=0)
    found = divergence.token_kl(changed(load_causal(start)), load_causal(start), batch)
    assert bool(torch.isfinite(found).all())
    assert (found[batch.response_mask_BT] > 0).all()
    assert (found[~batch.response_mask_BT] == 0).all()


def figa_by_hand(model: Any, config: FIGAConfig) -> float:
    total = count = 0.0
    for row in ROWS:
        pair = weigh(row, config)
        with torch.no_grad():
            edited, original = (
                token_logprobs(model, pad([side], pad_id=0))[0].tolist()[side.prompt_length :]
                for side in (pair.edited, pair.original)
            )
        for logprob, weight in zip(edited, pair.edited_weights, strict=True):
            total, count = total - weight * logprob, count + (weight != 0)
        for logprob, weight in zip(original, pair.original_weights, strict=True):
            through = weight != 0 and -logprob <= config.gate
            total, count = total + through * weight * logprob, count + through
    return total / count


def test_each_method_reports_its_own_loss_and_learns_nothing_from_what_is_held_out(start: Path, tmp_path: Path) -> None:
    rows, labels = tiny.corrections(16, seed=4), tiny.labels(16, seed=4)
    runs: dict[str, Any] = {
        "sft": lambda out, **held: train_sft(start, demonstrations(rows), ENCODER, SFTConfig(**STEP), out, **held),
        "figa": lambda out, **held: train_figa(start, labels, ENCODER, FIGAConfig(**STEP, gate=3.0), out, **held),
        "dpo": lambda out, **held: train_dpo(start, rows, ENCODER, DPOConfig(**STEP), out, **held),
    }
    before, beta = load_causal(start), DPOConfig().beta
    for name, run in runs.items():
        plain = run(tmp_path / f"{name}_plain")
        card = run(tmp_path / name, heldout=ROWS)
        assert tiny.difference(tmp_path / f"{name}_plain", tmp_path / name) == 0
        assert not any(key.startswith("eval_") for key in plain)
        assert card["fingerprint"] != plain["fingerprint"], "held-out rows may decide when a run stops"
        assert (card["heldout_rows"], card["heldout_labels"]["edited_inserted"]) == (7, 2)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        seen = [line for line in lines if "eval_loss" in line]
        assert [line["step"] for line in seen] == [0, 2]
        after = load_causal(tmp_path / name)
        for line, model in zip(seen, (before, after), strict=True):
            for key, value in by_hand(model, before, ROWS).items():
                assert line[f"eval_{key}"] == pytest.approx(value, rel=1e-4, abs=1e-6), (name, key)
            if name == "sft":
                names = [name for row in ROWS for name in row.edited.labels]
                kept = names.count(Label.KEPT) / len(names)
                mean = kept * line["eval_logprob_kept"] + (1 - kept) * line["eval_logprob_good"]
                assert line["eval_loss"] == pytest.approx(-mean, rel=1e-5)
            elif name == "figa":
                assert line["eval_loss"] == pytest.approx(figa_by_hand(model, FIGAConfig(gate=3.0)), rel=1e-4)
                assert 0 <= line["eval_bad_through_gate"] <= 1
            else:
                margins = []
                for row in ROWS:
                    sides = [pad([side.encoded], pad_id=0) for side in (row.edited, row.original)]
                    with torch.no_grad():
                        now, then = ([float(token_logprobs(m, s).sum()) for s in sides] for m in (model, before))
                    margins.append(beta * ((now[0] - then[0]) - (now[1] - then[1])))
                expected = -torch.nn.functional.logsigmoid(torch.tensor(margins)).mean()
                assert line["eval_loss"] == pytest.approx(float(expected), rel=1e-4)
        assert {key: card[key] for key in seen[1] if key != "step"} == {
            key: value for key, value in seen[1].items() if key != "step"
        }


def test_bfloat16_is_looked_at_in_bfloat16_on_both_sides(start: Path, tmp_path: Path) -> None:
    for rank in (0, 2):
        config = FIGAConfig(**STEP, bf16=True, lora_rank=rank)
        train_figa(start, tiny.labels(8), ENCODER, config, tmp_path / str(rank), heldout=ROWS)
        first = json.loads((tmp_path / str(rank) / "metrics.jsonl").read_text().splitlines()[0])
        assert first["step"] == 0
        assert first["eval_kl"] == 0
        whole = by_hand(load_causal(start), load_causal(start), ROWS)
        assert first["eval_logprob_kept"] == pytest.approx(whole["logprob_kept"], rel=0.02)
        assert first["eval_logprob_kept"] != whole["logprob_kept"]


def test_bad_tokens_through_the_gate_are_a_share_of_those_with_a_weight(start: Path, tmp_path: Path) -> None:
    """Of the whole step, whatever the micro-batches; the model before the step decides."""
    labels, config = tiny.labels(8, seed=1), FIGAConfig(**{**STEP, "learning_rate": 1e-12}, gate=3.0)
    with torch.no_grad():
        values = [
            value
            for row in labels
            for value, name in zip(
                token_logprobs(load_causal(start), pad([row.original.encoded], pad_id=0))[
                    0, row.original.encoded.prompt_length :
                ].tolist(),
                row.original.labels,
                strict=True,
            )
            if name == Label.DELETED
        ]
    expected = sum(-value <= 3.0 for value in values) / len(values)
    assert 0 < expected < 1
    for micro in (8, 1):
        card = train_figa(start, labels, ENCODER, replace(config, micro_batch_size=micro), tmp_path / str(micro))
        assert card["bad_through_gate"] == pytest.approx(expected)
        assert "warnings" not in card
    card = train_figa(start, labels, ENCODER, replace(config, gate=0.0), tmp_path / "shut")
    assert card["bad_through_gate"] == 0
    assert card["warnings"][0].startswith("no bad token came through the gate in any step: the negative term never")
