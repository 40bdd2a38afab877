"""Figures by hand, and the means of log-probabilities against a slow twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from errata.models import Sampling, load_causal
from errata.types import Correction, Label, PromptRow, Rollout
from errata.winrate import mean_interval
from errata.workflows import (
    compare,
    describe,
    edit_costs,
    repetition,
    text_loss,
    token_logprobs_by_label,
    write_drafts,
)

measure = import_module("errata.workflows.measure")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    return load_causal(tiny.llama(tmp_path_factory.mktemp("model"))).eval()


def answer(id: str, text: str, *, ended: bool = True) -> Rollout:
    ids = (*range(len(text.split())), *([99] if ended else []))
    return Rollout(id=id, prompt="", prompt_ids=(), response_ids=ids, text=text, ended=ended)


def test_repetition_counts_runs_of_four_words_that_stood_before() -> None:
    assert repetition("a b c") == 0
    assert repetition("a b c d") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("no no no no no no") == pytest.approx(2 / 3)
    assert repetition("a b a b", size=2) == pytest.approx(1 / 3)


def test_drafts_are_described() -> None:
    drafts = [answer("a", "one two"), answer("b", "one two three four one two three four", ended=False)]
    sent = {"a": "one two", "b": "one"}
    assert edit_costs(drafts, sent) == [0, 7]
    found = describe(drafts, sent)
    assert (found.rows, found.edit_cost.mean, found.length, found.ended) == (2, 3.5, 5.5, 0.5)
    assert found.repetition == pytest.approx(0.1)


def test_a_comparison_is_paired() -> None:
    new, old = [1, 5, 3, 9], [2, 5, 5, 8]
    found = compare(new, old)
    assert (found.difference.mean, found.wins, found.ties, found.losses) == (-0.5, 0.5, 0.25, 0.25)
    differences = np.subtract(new, old)
    assert (found.rows, found.users, found.independent, found.by_row) == (4, None, 4, differences.mean())
    assert found.difference == mean_interval(differences, about=0.0, least=1.0)
    assert found.difference.low <= -0.5 <= found.difference.high
    assert found.detectable is None, "four rows show nothing"
    # Rows that agree are evidence, and no certainty: the next one may not.
    few, many = (compare([10] * count, [11] * count) for count in (3, 30))
    assert few.difference.low < -1 < 0 < few.difference.high
    assert -1.2 < many.difference.low < -1 < many.difference.high < 0
    assert 0 < many.detectable < 1
    same = compare([3] * 30, [3] * 30)
    assert same.difference.low < 0 == same.difference.mean < same.difference.high


def test_a_user_counts_once_and_one_user_is_as_good_as_none() -> None:
    """One user sent half of the rows and gains; nobody else does."""
    new, old = [1] * 10 + [3] * 10, [4] * 10 + [3] * 10
    users = ["a"] * 10 + [f"u{k}" for k in range(9)] + [None]
    found = compare(new, old, users=users)
    assert (found.rows, found.users, found.independent) == (20, 11, 11)
    assert (found.by_row, found.difference.mean) == (-1.5, pytest.approx(-3 / 11))
    assert found.difference.high > 0 > compare(new, old).difference.high
    assert compare(new, old, users=["a"] * 19 + [None]) == compare(new, old, users=None) == compare(new, old)
    # Of these very users every row is a sample, and the mean over users stands beside it.
    rows_count, alone = compare(new, old, users=users, count_users=False), compare(new, old)
    assert rows_count == replace(alone, by_user=pytest.approx(-3 / 11))
    assert (alone.by_user, alone.fewer, rows_count.fewer, found.fewer) == (None, True, True, False)
    heavy = compare([1] * 15 + [9] * 5, [6] * 15 + [4] * 5, users=["a"] * 15 + list("bcdef"), count_users=False)
    assert heavy.by_row < 0 < heavy.by_user
    assert not replace(heavy, difference=alone.difference).fewer
    with pytest.raises(ValueError, match="20 differences and 2 users"):
        compare(new, old, users=["a", "b"])


def rows(count: int) -> list[Correction]:
    return tiny.corrections(count)


def test_prompts_of_one_length_are_asked_together_and_drafts_come_in_the_order_of_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    def draw(self: Any, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Rollout]:
        asked.append([one.id for one in prompts])
        return [answer(one.id, str(one.prompt)) for one in prompts]

    monkeypatch.setattr(measure.TransformersGenerator, "__call__", draw)
    given = [replace(row, prompt="red cat " * size) for row, size in zip(rows(5), (9, 1, 5, 1, 7), strict=True)]
    found = write_drafts(torch.nn.Linear(1, 1), given, tiny.encoder(), Sampling(), batch_size=2)
    assert [one.id for one in found] == [row.id for row in given]
    assert asked == [[given[k].id for k in part] for part in ((1, 3), (2, 4), (0,))]


def test_drafts_do_not_depend_on_who_draws_but_on_the_seed(model: torch.nn.Module) -> None:
    def drawn(seed: int, temperature: float, batch_size: int = 4) -> list[str]:
        sampling = Sampling(max_new_tokens=6, temperature=temperature, seed=seed)
        found = write_drafts(model, rows(10), tiny.encoder(), sampling, batch_size=batch_size)
        assert [one.id for one in found] == [row.id for row in rows(10)]
        return [one.text for one in found]

    assert drawn(0, 1.0) == drawn(0, 1.0) != drawn(1, 1.0)
    assert drawn(0, 0.0) == drawn(1, 0.0, batch_size=10)
    # Every batch has chance of its own: one question asked again and again is answered differently.
    same = [Correction(id=str(k), prompt="say one", original="", edited="") for k in range(8)]
    found = write_drafts(model, same, tiny.encoder(), Sampling(max_new_tokens=6, seed=0), batch_size=1)
    assert len({one.text for one in found}) > 4


def test_log_probabilities_by_label_equal_a_slow_twin(model: torch.nn.Module) -> None:
    labels, encoder = tiny.labels(7), tiny.encoder()
    values: dict[str, list[float]] = {"good": [], "bad": [], "kept": []}
    for row in labels:
        for side, names in (
            (row.edited, {Label.INSERTED: "good", Label.SUBSTITUTED: "good", Label.KEPT: "kept"}),
            (row.original, {Label.DELETED: "bad", Label.SUBSTITUTED: "bad"}),
        ):
            ids = torch.tensor([side.encoded.ids])
            logprobs = model(ids).logits.detach().log_softmax(-1)
            for k, label in enumerate(side.labels):
                place = side.encoded.prompt_length + k
                if Label(label) in names:
                    values[names[Label(label)]].append(float(logprobs[0, place - 1, ids[0, place]]))
    found = token_logprobs_by_label(model, labels, encoder, batch_size=3)
    assert found.good is None
    assert not values["good"]
    assert found.bad == pytest.approx(np.mean(values["bad"]), rel=1e-4)
    assert found.kept == pytest.approx(np.mean(values["kept"]), rel=1e-4)


def test_the_loss_on_a_text_is_that_of_its_windows(model: torch.nn.Module, tmp_path: Path) -> None:
    words = (tiny.CLEAN * 3)[:25]
    path = tmp_path / "general.txt"
    path.write_text(" ".join(words))
    encoder = tiny.encoder()
    ids = torch.tensor(encoder.text_ids(" ".join(words)))
    losses = []
    for start in (0, 10, 20):
        part = ids[start : start + 10]
        logprobs = model(part[None]).logits[0, :-1].detach().log_softmax(-1)
        losses += [-float(logprobs[k, token]) for k, token in enumerate(part[1:].tolist())]
    loss, count = text_loss(model, path, encoder, window=10, batch_size=2)
    assert count == len(losses) == 22
    assert loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert text_loss(model, path, encoder, window=10, batch_size=1, max_tokens=5)[1] == 9


def test_a_text_is_read_piece_by_piece_and_wholly(model: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "general.txt"
    path.write_text("red cat\n" * 20_000)  # more than two pieces
    assert (
        text_loss(model, path, tiny.encoder(), window=64, batch_size=64, max_tokens=10**9)[1] == 40_000 - 40_000 // 64
    )
    path.write_text("red " + "x" * 200_000)  # no line and no word ends
    assert text_loss(model, path, tiny.encoder())[1] >= 1


@pytest.mark.parametrize(("content", "said"), [(b"", "no text"), (b"red", "no text"), (b"red \xff cat", "not UTF-8")])
def test_a_text_that_says_nothing_is_an_error(
    model: torch.nn.Module, tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "general.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        text_loss(model, path, tiny.encoder())
