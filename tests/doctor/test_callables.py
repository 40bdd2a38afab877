"""Losses, scorers and heads that are handed in: each silent failure is a few lines, and is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

import tiny
from errata import losses
from errata.doctor import Finding, check_end_read, check_loss, check_padding, check_reward_reload
from errata.models import load_sequence_reward_model, pad, save_model, sequence_rewards
from errata.types import Encoded

ROWS = [[1, 6, 8, 11, 2], [1, 7, 2], [1, 6, 9, 9, 12, 13, 2]]
Measure = Callable[[Tensor, Tensor], Tensor]


def names(found: list[Finding]) -> list[str]:
    return [one.name for one in found]


def summed(nll: Tensor, weight: Tensor) -> Tensor:
    return (nll * weight).sum() / nll.numel()


def by_count_of_weights(nll: Tensor, weight: Tensor) -> Tensor:
    return (nll * weight).sum() / (weight != 0).sum()


def swift(nll: Tensor, weight: Tensor) -> Tensor:
    return torch.where(weight > 0, nll * weight, 0).sum() / nll.numel()


def factory(nll: Tensor, weight: Tensor) -> Tensor:
    kept = torch.where(weight > 1e-6, weight, 0)
    return (nll * kept).sum() / kept.sum()


def by_sum(nll: Tensor, weight: Tensor) -> Tensor:
    return (nll * weight).sum() / weight.sum()


def unsigned(nll: Tensor, weight: Tensor) -> Tensor:
    return (nll * weight.abs()).sum()


def squared(nll: Tensor, weight: Tensor) -> Tensor:
    return (nll * (weight + weight.sign() * weight.abs().max() / 2)).sum()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (summed, []),
        (by_count_of_weights, []),
        (lambda nll, weight: losses.weighted_nll(-nll, weight, torch.ones_like(nll, dtype=torch.bool)).sum(), []),
        (swift, ["weights_masked"]),
        (factory, ["weights_masked", "divided_by_weights"]),
        (by_sum, ["divided_by_weights"]),
        (unsigned, ["sign_lost"]),
        (squared, ["weights_changed"]),
    ],
    ids=["sum", "count", "errata", "above zero", "above 1e-6", "weight sum", "unsigned", "shifted"],
)
def test_check_loss(loss: Measure, expected: list[str]) -> None:
    assert names(check_loss(loss)) == expected


def test_what_a_loss_masks_is_listed() -> None:
    assert "where the weight is -0.2, 1e-07, -0.5;" in str(check_loss(factory)[0])
    assert "where the weight is -0.2, -0.5;" in str(check_loss(swift)[0])


def rewards(ids: Tensor, mask: Tensor) -> Tensor:
    """A token reward model that knows nothing of padding: a number for every column, fixed by what came before it."""
    return torch.sin(ids.double().cumsum(1))


def over_padding(ids: Tensor, mask: Tensor) -> Tensor:
    """A trainer of whole responses that is given one reward for each token, and averages over all columns."""
    better, worse = rewards(ids, mask)[:2]
    return -torch.nn.functional.logsigmoid(better - worse).mean()


def over_tokens(ids: Tensor, mask: Tensor) -> Tensor:
    better, worse = ((rewards(ids, mask) * mask).sum(1) / mask.sum(1))[:2]
    return -torch.nn.functional.logsigmoid(better - worse)


def last_column(ids: Tensor, mask: Tensor) -> Tensor:
    return rewards(ids, mask)[:, -1]


def last_token(ids: Tensor, mask: Tensor) -> Tensor:
    return rewards(ids, mask).gather(1, mask.sum(1, keepdim=True) - 1).squeeze(1)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [(over_tokens, []), (last_token, []), (over_padding, ["padding_counts"]), (last_column, ["padding_counts"])],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_reward_that_averages_over_padding_is_found(measure: Measure, expected: list[str]) -> None:
    assert names(check_padding(measure, ROWS)) == expected


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """A classifier of whole responses with a head that is not zero, and pad == end."""
    folder = tiny.llama(tmp_path_factory.mktemp("start"), pad="</s>")
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    torch.manual_seed(0)
    nn.init.normal_(model.get_parameter("score.weight"))
    return model.eval()


def test_a_classifier_that_pools_the_token_before_the_end_is_found(trained: nn.Module) -> None:
    def stock(ids: Tensor, mask: Tensor) -> Tensor:
        scores: Tensor = trained(input_ids=ids, attention_mask=mask).logits.squeeze(1)
        return scores

    def ours(ids: Tensor, mask: Tensor) -> Tensor:
        rows = [
            Encoded(tuple(row[: int(size)]), 1, (), True) for row, size in zip(ids.tolist(), mask.sum(1), strict=True)
        ]
        return sequence_rewards(trained, pad(rows, pad_id=2))

    assert names(check_end_read(stock, ROWS)) == ["end_not_read"]
    assert check_end_read(ours, ROWS) == []


def test_a_head_of_zeros_cannot_be_told(trained: nn.Module) -> None:
    def zero(ids: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros(len(ids))

    assert names(check_end_read(zero, ROWS)) == ["scores_all_the_same"]


def test_a_head_that_was_lost_when_saving_is_found(trained: nn.Module, tmp_path: Path) -> None:
    def scores(model: nn.Module) -> Callable[[object], list[float]]:
        batch = pad([Encoded(tuple(row), 1, (), True) for row in ROWS], pad_id=0)
        with torch.no_grad():
            found: list[float] = sequence_rewards(model, batch).tolist()
        return lambda rows: found

    save_model(trained, tiny.tokenizer(), tmp_path / "whole")
    whole = load_sequence_reward_model(tmp_path / "whole", pad_id=0, end_id=2)
    # What an adapter without its head leaves behind: the same backbone, and a head of chance.
    fresh = load_sequence_reward_model(tmp_path / "whole", pad_id=0, end_id=2)
    nn.init.normal_(fresh.get_parameter("score.weight"))
    assert check_reward_reload(scores(trained), scores(whole), ROWS) == []
    assert names(check_reward_reload(scores(trained), scores(fresh), ROWS)) == ["head_lost"]
    by_keys = check_reward_reload(scores(trained), scores(whole), ROWS, missing_keys=["score.weight"])
    assert names(by_keys) == ["head_lost"]
    assert "the file lacks score.weight" in by_keys[0].what


def test_scores_of_zero_say_nothing_of_a_reload() -> None:
    found = check_reward_reload(lambda rows: [0.0] * 3, lambda rows: [0.0] * 3, ROWS)
    assert names(found) == ["scores_all_the_same"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], r"numbers of shape \(0,\) for 2 rows; give one number a row"),
        (1.0, r"numbers of shape \(\) for 2 rows"),
        ([1.0, 2.0, 3.0], r"numbers of shape \(3,\) for 2 rows"),
        ("scores", "gives 'scores', which is no list of numbers"),
        (["one", "two"], "which is no list of numbers"),
        (None, "gives None, which is no list of numbers"),
        ([1.0, float("nan")], "gives nan for row 2; look for NaN in the weights"),
    ],
)
def test_scores_that_are_none_are_an_error_and_no_finding(given: Any, said: str) -> None:
    rows = [[5, 6, 2], [7, 2]]
    with pytest.raises(ValueError, match=f"the model before it was saved .*{said}"):
        check_reward_reload(lambda rows: given, lambda rows: [1.0, 2.0], rows)
    with pytest.raises(ValueError, match="the model that was loaded "):
        check_reward_reload(lambda rows: [1.0, 2.0], lambda rows: given, rows)
    with pytest.raises(ValueError, match="the score gives"):
        check_end_read(lambda ids, mask: given, rows)
    if given != 1.0:  # one for all rows is a measure
        with pytest.raises(ValueError, match="the measure gives"):
            check_padding(lambda ids, mask: given, rows)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda nll, weight: 1.0, "the loss gives a float; give one number that has a gradient"),
        (lambda nll, weight: nll * weight, r"the loss gives a tensor of shape \(2, 4\)"),
        (lambda nll, weight: (nll * weight).sum().detach(), r"the loss gives a tensor of shape \(\)"),
        (lambda nll, weight: (nll * weight).sum() / 0, "the loss gives (-)?inf"),
    ],
)
def test_a_loss_that_is_none_is_an_error(loss: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_loss(loss)
