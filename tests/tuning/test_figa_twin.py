"""FIGA as a whole beside a slow twin: loops over single tokens, a forward pass for each, from the formula (PAPERS B3).

The twin knows no batch, no padding and no mask. Both run one model in float64; errata rounds logits and weights to
float32 on the way, which is why they agree to 1e-6 and not further.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import tiny
from errata.data import Encoder
from errata.labels import LabelRules, label_all
from errata.models import LayoutKind, load_causal
from errata.training import StepLoss
from errata.tuning import FIGAConfig, WeightedPair, weigh
from errata.tuning.figa import PAPER, collate_weighted, figa_step_loss
from errata.types import Correction, Label, LabeledTokens, TokenLabels, WeightSpan

pytestmark = pytest.mark.slow

CLOSE = 1e-6
"""Of the value and of every entry of the gradient; of the largest entry of a parameter's, where that is more than 1."""
WHOLE = tiny.encoder()
SHORT = Encoder(tiny.tokenizer(), max_length=8, on_long="truncate")

# How a micro-batch of pairs becomes a sum and a count.

Layout = Callable[[nn.Module, Sequence[WeightedPair], FIGAConfig], StepLoss]


def plain(model: nn.Module, pairs: Sequence[WeightedPair], config: FIGAConfig) -> StepLoss:
    """Both sides in one rectangle, edited texts first."""
    return step_loss(model, pairs, config, LayoutKind.PLAIN)


def shared(model: nn.Module, pairs: Sequence[WeightedPair], config: FIGAConfig) -> StepLoss:
    """What the sides share once, only what is read, packed."""
    return step_loss(model, pairs, config, LayoutKind.SHARED)


def tree(model: nn.Module, pairs: Sequence[WeightedPair], config: FIGAConfig) -> StepLoss:
    """What any of the sides begin with alike once, only what is read."""
    return step_loss(model, pairs, config, LayoutKind.TREE)


def step_loss(model: nn.Module, pairs: Sequence[WeightedPair], config: FIGAConfig, kind: LayoutKind) -> StepLoss:
    batch = collate_weighted(pairs, encoder=WHOLE, kind=kind)
    return figa_step_loss(model, batch, low=config.gate_low, high=config.gate)


LAYOUTS: list[Layout] = [plain, shared, tree]

# Rows.


def pair_of_texts(kind: str, rng: random.Random) -> tuple[str, str]:
    words, more = tiny.sentence(rng), tiny.sentence(rng, 3)
    place = rng.randint(0, len(words))
    longer = [*words[:place], *more, *words[place:]]
    both = {
        "mixed": (words, [*("now" if rng.random() < 0.4 else word for word in words), *more]),
        "insertion": (words, longer),
        "deletion": (longer, words),
        "unchanged": (words, words),
        "empty original": ([], words),
        "empty edited": (words, []),
        "both empty": ([], []),
    }[kind]
    original, edited = map(" ".join, both)
    return original, edited


KINDS = ["mixed", "insertion", "deletion", "unchanged", "empty original", "empty edited", "both empty"]


def spans(text: str, rng: random.Random, weights: Sequence[float]) -> tuple[WeightSpan, ...]:
    """Some words of a text, and its end, each with a weight."""
    found, start = list[WeightSpan](), 0
    for word in text.split():
        if rng.random() < 0.7:
            found.append((start, start + len(word), rng.choice(weights)))
        start += len(word) + 1
    return (*found, (len(text), len(text), rng.choice(weights)))


def rows(seed: int, *, kinds: Sequence[str] = KINDS, copies: int = 2) -> list[TokenLabels]:
    """Pairs of each kind: whole, cut off by length, sampled without an end, and with weights of their own."""
    rng = random.Random(seed)
    corrections = [
        Correction(id=f"{kind} {k}", prompt=" ".join(tiny.sentence(rng, 4)), original=texts[0], edited=texts[1])
        for kind in kinds
        for k in range(copies)
        for texts in [pair_of_texts(kind, rng)]
    ]
    sampled = [
        replace(row, id=f"{row.id}, cut off", original_ids=WHOLE.encode("", row.original, ended=False).response_ids)
        for row in corrections
    ]
    own = [
        replace(
            row,
            id=f"{row.id}, weighed",
            original_weights=spans(row.original, rng, [0.0, 1e-7, 0.5, 3.0]) if k % 2 else None,
            edited_weights=spans(row.edited, rng, [-0.5, 1e-7, 0.0, 1.0, 3.0]),
        )
        for k, row in enumerate(corrections)
    ]
    labeled = [
        *label_all(corrections, WHOLE),
        *label_all(corrections, SHORT, LabelRules(omissions="blame")),
        *label_all(sampled, WHOLE),
        *label_all(own, WHOLE),
        *label_all(own, SHORT),
    ]
    rng.shuffle(labeled)
    return labeled


# The twin.


def edited_weight(side: LabeledTokens, t: int, config: FIGAConfig) -> float:
    if side.weights is not None:
        return side.weights[t]
    label = side.labels[t]
    if side.encoded.ended and t == len(side.labels) - 1:
        return config.good_weight if config.end_weight is None else config.end_weight
    if label == Label.INSERTED:
        return config.good_weight if config.inserted_weight is None else config.inserted_weight
    if label == Label.SUBSTITUTED:
        return config.good_weight
    assert label == Label.KEPT
    return config.kept_weight


def original_weight(side: LabeledTokens, t: int, config: FIGAConfig) -> float:
    if side.weights is not None:
        return side.weights[t]
    if side.labels[t] == Label.DELETED:
        return config.bad_weight if config.deleted_weight is None else config.deleted_weight
    if side.labels[t] in (Label.SUBSTITUTED, Label.OMISSION):
        return config.bad_weight
    assert side.labels[t] == Label.KEPT
    return 0.0


def cross_entropy(model: nn.Module, side: LabeledTokens, t: int) -> Tensor:
    """CE of response token t: the model reads what stands before it, and nothing else."""
    place = side.encoded.prompt_length + t
    logits_V = model(input_ids=torch.tensor([side.encoded.ids[:place]])).logits[0, -1]
    assert logits_V.dtype == torch.float64
    return torch.logsumexp(logits_V, 0) - logits_V[side.encoded.ids[place]]


def twin(model: nn.Module, labels: Sequence[TokenLabels], config: FIGAConfig) -> tuple[Tensor, int, list[float]]:
    """The loss of a whole step, its N, and the cross-entropies of the bad tokens, in nats.

    L = [ Σ_t w_t CE_t(ỹ) − Σ_{t: low ≤ CE_t(ŷ) ≤ gate} β_t CE_t(ŷ) ] / N
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    bad = []
    for row in labels:
        for t in range(len(row.edited.labels)):
            weight = edited_weight(row.edited, t, config)
            if weight != 0:
                total, count = total + weight * cross_entropy(model, row.edited, t), count + 1
        for t in range(len(row.original.labels)):
            weight = original_weight(row.original, t, config)
            if weight != 0:
                ce = cross_entropy(model, row.original, t)
                bad.append(ce.item())
                if config.gate_low <= ce.item() <= config.gate:
                    total, count = total - weight * ce, count + 1
    return total / max(count, 1), count, bad


# The comparison.


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    # Sharp enough to be sure of some tokens, as the paper's gate asks.
    folder = getattr(tiny, request.param)(tmp_path_factory.mktemp(request.param), initializer_range=0.9)
    return load_causal(folder).double().eval()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def by_errata(
    model: nn.Module, layout: Layout, labels: Sequence[TokenLabels], config: FIGAConfig, micro: int
) -> tuple[float, int, dict[str, Tensor]]:
    """A step as ``fit`` makes it: the sums of its micro-batches go backward, and all is divided by N at the end."""
    pairs = [weigh(row, config) for row in labels]
    value, count = 0.0, 0
    for first in range(0, len(pairs), micro):
        total, tokens, _ = layout(model, pairs[first : first + micro], config)
        total.backward()
        value, count = value + total.item(), count + int(tokens)
    n = max(count, 1)
    return value / n, count, {name: gradient / n for name, gradient in gradients(model).items()}


@cache
def by_twin(
    model: nn.Module, labels: tuple[TokenLabels, ...], config: FIGAConfig
) -> tuple[float, int, dict[str, Tensor], list[float]]:
    """Once for all layouts: the twin knows none."""
    loss, count, bad = twin(model, labels, config)
    if count:
        loss.backward()
    return loss.item(), count, gradients(model), bad


def assert_agree(
    model: nn.Module, layout: Layout, labels: Sequence[TokenLabels], config: FIGAConfig, *, micros: Sequence[int]
) -> tuple[int, list[float]]:
    value, count, gradient, bad = by_twin(model, tuple(labels), config)
    # At the gate itself the last digit would decide, which is not what is asked here.
    assert all(abs(ce - end) > 1e-5 for ce in bad for end in (config.gate_low, config.gate))
    for micro in micros:
        ours, tokens, our_gradient = by_errata(model, layout, labels, config, micro)
        assert tokens == count, micro
        assert abs(ours - value) < CLOSE, micro
        for name, found in our_gradient.items():
            expected = gradient.get(name, torch.zeros_like(found))
            size = max(1.0, float(expected.abs().max()))
            assert float((found - expected).abs().max()) < CLOSE * size, (name, micro)
    return count, bad


WAYS = {
    "paper": FIGAConfig(**PAPER),
    "kept, gate 2.5": FIGAConfig(kept_weight=0.5, bad_weight=0.5, gate=2.5),
    "band": FIGAConfig(kept_weight=0.0, bad_weight=0.5, gate_low=1.5, gate=3.5),
    "kept, band": FIGAConfig(kept_weight=0.5, bad_weight=0.2, gate_low=1.5, gate=3.5),
    "no gate, a weight for each": FIGAConfig(
        **{"kept_weight": 0.25, "bad_weight": 0.7, "gate": math.inf},
        **{"inserted_weight": 1.5, "deleted_weight": 0.3, "end_weight": 2.5},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", WAYS)
def test_value_and_gradient_are_the_formulas(layout: Layout, way: str, model: nn.Module) -> None:
    """A random step of all kinds of rows, in one micro-batch and in several, the last of them short."""
    labels = rows(seed=11, copies=1) + rows(seed=13, copies=1)
    _, bad = assert_agree(model, layout, labels, WAYS[way], micros=[len(labels), 9])
    passed = sum(WAYS[way].gate_low <= ce <= WAYS[way].gate for ce in bad)
    assert passed > 0, "something is pushed down"
    assert passed < len(bad) or math.isinf(WAYS[way].gate)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_row_by_itself(layout: Layout, kind: str, model: nn.Module) -> None:
    for way in ("paper", "kept, band"):
        assert_agree(model, layout, rows(seed=3, kinds=[kind], copies=1), WAYS[way], micros=[2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_in_which_no_token_counts(layout: Layout, model: nn.Module) -> None:
    """Its loss and its gradient are 0, and no NaN: unchanged rows that were cut off, and a gate that is shut."""
    labels = [row for row in rows(seed=4) if not row.edited.weights and not row.edited.encoded.ended]
    count, _ = assert_agree(
        model, layout, labels, FIGAConfig(good_weight=0.0, kept_weight=0.0, gate=0.0), micros=[2, len(labels)]
    )
    assert count == 0


@pytest.mark.parametrize("size", [-1.0, 1e-7, 1e3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_weight_pulls_as_hard_as_it_says_whatever_its_sign_and_size(
    layout: Layout, size: float, model: nn.Module
) -> None:
    pairs = [weigh(row, WAYS["kept, gate 2.5"]) for row in rows(seed=5, copies=1)]
    pairs = [replace(pair, original_weights=(0.0,) * len(pair.original_weights)) for pair in pairs]
    times = [replace(pair, edited_weights=tuple(size * weight for weight in pair.edited_weights)) for pair in pairs]
    (once, tokens, _), (scaled, same_tokens, _) = (layout(model, each, WAYS["paper"]) for each in (pairs, times))
    assert tokens == same_tokens
    assert scaled.item() == pytest.approx(size * once.item(), rel=CLOSE)
    gradient = []
    for loss in (once, scaled):
        loss.backward()
        gradient.append(gradients(model))
    for name, expected in gradient[0].items():
        torch.testing.assert_close(gradient[1][name] / size, expected, rtol=CLOSE, atol=CLOSE * expected.abs().max())


def test_the_rows_are_what_they_should_be() -> None:
    labels = rows(seed=0)
    sides = [side for row in labels for side in (row.original, row.edited)]
    assert {name for side in sides for name in side.labels} == {
        *(Label.KEPT, Label.INSERTED, Label.DELETED, Label.SUBSTITUTED, Label.OMISSION)
    }
    assert {side.encoded.ended for side in sides} == {True, False}
    assert any(side.encoded.cut for side in sides)
    assert any(not side.encoded.response_ids for side in sides), "an answer of no token at all"
    assert len({len(side.encoded.ids) for side in sides}) > 4
    own = [weight for side in sides for weight in side.weights or ()]
    assert {-0.5, 0.0, 1e-7, 3.0} < set(own)
    assert any((row.original.weights is None) != (row.edited.weights is None) for row in labels)
