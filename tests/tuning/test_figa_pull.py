"""The pull of kept tokens to the start model, beside a slow twin: λ Σ_{t kept} ½ (log π_t − log π_start,t)², in N."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from errata.data.rows import read_lines
from errata.models import LayoutKind, load_causal, token_logprobs
from errata.models import pad as padded
from errata.training.reference import collate_referenced, with_reference
from errata.tuning import FIGAConfig, train_figa, weigh
from errata.tuning.figa import FIGA, collate_weighted, figa_step_loss
from errata.types import Label
from tuning.test_figa_twin import CLOSE, WHOLE, cross_entropy, edited_weight, gradients, rows, twin

PULLED = FIGAConfig(kept_weight=0.5, bad_weight=0.2, pull_weight=0.7)
ONLY = FIGAConfig(good_weight=0.0, kept_weight=0.0, bad_weight=0.0, pull_weight=2.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, nn.Module]:
    """The start, and the model some way from it."""
    start = load_causal(tiny.llama(tmp_path_factory.mktemp("llama"), initializer_range=0.9)).double().eval()
    moved = copy.deepcopy(start)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return start, moved


def slow(start: nn.Module, model: nn.Module, labels: Any, config: FIGAConfig) -> tuple[Tensor, int]:
    """By the formula, one token at a time."""
    loss, count, _ = twin(model, labels, config)
    total = loss * max(count, 1)
    for row in labels:
        for t, label in enumerate(row.edited.labels):
            end = row.edited.encoded.ended and t == len(row.edited.labels) - 1
            if row.edited.weights is None and label == Label.KEPT and not end:
                with torch.no_grad():
                    before = -cross_entropy(start, row.edited, t)
                total = total + config.pull_weight * 0.5 * (-cross_entropy(model, row.edited, t) - before) ** 2
                count += edited_weight(row.edited, t, config) == 0
    return total / max(count, 1), count


def by_errata(start: nn.Module, model: nn.Module, labels: Any, config: FIGAConfig, kind: LayoutKind, micro: int) -> Any:
    collate = partial(collate_weighted, encoder=WHOLE, kind=kind)
    pairs = [weigh(row, config) for row in labels]
    reference = FIGA.reference(config)
    referenced = with_reference(start, pairs, collate, replace(config, micro_batch_size=3), reference)
    value, count = 0.0, 0
    for first in range(0, len(pairs), micro):
        batch = collate_referenced(referenced[first : first + micro], collate, reference)
        total, tokens, _ = figa_step_loss(model, batch, low=config.gate_low, high=config.gate)
        if total.requires_grad:
            total.backward()
        value, count = value + total.item(), count + int(tokens)
    n = max(count, 1)
    return value / n, count, {name: grad / n for name, grad in gradients(model).items()}


@pytest.mark.parametrize("kind", LayoutKind)
@pytest.mark.parametrize("config", [PULLED, ONLY], ids=["with weights", "alone"])
def test_value_and_gradient_are_the_formulas(config: FIGAConfig, kind: LayoutKind, models: Any) -> None:
    labels = rows(seed=11, copies=1)
    expected, count = slow(*models, labels, config)
    expected.backward()
    gradient = gradients(models[1])
    for micro in (len(labels), 5):
        value, tokens, found = by_errata(*models, labels, config, kind, micro)
        assert tokens == count > 0
        assert value == pytest.approx(expected.item(), abs=CLOSE)
        for name, grad in found.items():
            size = max(1.0, float(gradient[name].abs().max()))
            assert float((grad - gradient[name]).abs().max()) < CLOSE * size, name


def test_at_the_start_it_pulls_nowhere(models: Any) -> None:
    """Its value and its gradient are 0; it grows with the square of the way."""
    start, moved = models
    labels = [row for row in rows(seed=3, copies=1) if not row.edited.weights and not row.original.weights]
    value, _, gradient = by_errata(start, start, labels, ONLY, LayoutKind.TREE, 7)
    assert abs(value) < 1e-10  # the layouts of the two passes differ, and float32 streams between
    assert all(float(grad.abs().max()) < 1e-5 for grad in gradient.values())
    once, _, _ = by_errata(start, moved, labels, ONLY, LayoutKind.TREE, 7)
    twice, _, _ = by_errata(start, moved, labels, replace(ONLY, pull_weight=4.0), LayoutKind.TREE, 7)
    assert once > 1e-3
    assert twice == pytest.approx(2 * once)


def test_golden() -> None:
    """ "a b" kept, with log π 0.5 nats lower and 1 nat higher than at the start: ½·(0.25 + 1) · λ."""
    from errata import losses

    drift_BT = losses.kl_k2(
        torch.tensor([[-2.5, -1.0, -7.0]]), torch.tensor([[-2.0, -2.0, -1.0]]), torch.tensor([[True, True, False]])
    )
    assert drift_BT.tolist() == [[0.125, 0.5, 0.0]]


def test_what_is_pulled_and_what_is_not() -> None:
    """Kept tokens of the edited text but its end; never those of a side with weights of its own."""
    for row in rows(seed=0):
        pair = weigh(row, PULLED)
        if row.edited.weights:
            assert pair.edited_pulls == ()
            continue
        kept = [label == Label.KEPT for label in row.edited.labels]
        if row.edited.encoded.ended:
            kept[-1] = False
        assert [pull == PULLED.pull_weight for pull in pair.edited_pulls] == kept
    assert all(weigh(row, FIGAConfig()).edited_pulls == () for row in rows(seed=0))
    assert weigh(rows(seed=0, kinds=["unchanged"])[0], ONLY).has_gradient


def test_a_pulled_model_stays_nearer(tmp_path: Path) -> None:
    """On what people left alone; the edits are learned nearly as well."""
    start, labels = tiny.llama(tmp_path / "start"), tiny.labels(16)
    settings: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 6, "batch_size": 8, "kept_weight": 0.0}
    for name, pull in (("free", 0.0), ("pulled", 3.0)):
        config = FIGAConfig(**settings, pull_weight=pull)
        card = train_figa(start, labels, tiny.encoder(), config, tmp_path / name)
        lines = [line for _, line in read_lines(tmp_path / name / "metrics.jsonl")]
        assert any(b"kept_drift" in line for line in lines) == bool(pull)
        assert ("kept_drift" in card) == bool(pull)

    def kept(folder: Path) -> Tensor:
        batch = padded([row.edited.encoded for row in labels], pad_id=tiny.encoder().pad_id)
        found = token_logprobs(load_causal(folder).eval(), batch).detach()
        streams = []
        for b, row in enumerate(labels):
            first = row.edited.encoded.prompt_length
            streams += [found[b, first + t] for t, x in enumerate(row.edited.labels[:-1]) if x == Label.KEPT]
        return torch.stack(streams)

    before, free, pulled = (kept(folder) for folder in (start, tmp_path / "free", tmp_path / "pulled"))
    assert float((pulled - before).square().mean()) < 0.3 * float((free - before).square().mean())
