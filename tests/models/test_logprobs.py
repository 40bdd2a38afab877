from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from errata.models import TokenBatch, load_causal, pad, token_entropy, token_logprobs
from errata.types import Encoded

ROWS = tiny.encoded(tiny.demonstrations(7, seed=3), tiny.encoder())
ROWS += [Encoded(ROWS[0].ids[: ROWS[0].prompt_length], ROWS[0].prompt_length, (), False)]  # nothing was answered

every_model = pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)


def one_by_one(model: Any, row: Encoded) -> tuple[list[float], list[float]]:
    """Log-probability and entropy of every response token, from a forward pass without padding."""
    logits_TV = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    logprobs, entropies = [], []
    for t in range(row.prompt_length, len(row.ids)):
        logprob_V = logits_TV[t - 1].log_softmax(-1)
        logprobs.append(float(logprob_V[row.ids[t]]))
        entropies.append(float(-sum(p.exp() * p for p in logprob_V)))
    return logprobs, entropies


@every_model
@torch.no_grad()
def test_they_are_those_of_a_plain_loop(build: Any, tmp_path: Path) -> None:
    model = load_causal(build(tmp_path))
    batch = pad(ROWS, pad_id=0)
    logprob_BT, entropy_BT = token_logprobs(model, batch), token_entropy(model, batch)
    assert len({row.prompt_length for row in ROWS}) > 2
    for b, row in enumerate(ROWS):
        expected = one_by_one(model, row)
        for stream_BT, values in zip((logprob_BT, entropy_BT), expected, strict=True):
            assert stream_BT[b, row.prompt_length : len(row.ids)].tolist() == pytest.approx(values, rel=1e-4, abs=1e-5)
            assert stream_BT[b, : row.prompt_length].count_nonzero() == 0
            assert stream_BT[b, len(row.ids) :].count_nonzero() == 0
    assert logprob_BT.std() > 0.3, "a uniform model would pass with any shift"


@every_model
def test_padding_matters_neither_to_value_nor_gradient(build: Any, tmp_path: Path) -> None:
    model = load_causal(build(tmp_path))
    found = []
    for pad_id in (0, 2, 9):
        model.zero_grad()
        logprob_BT = token_logprobs(model, pad(ROWS, pad_id=pad_id))
        logprob_BT.sum().backward()
        found.append((logprob_BT.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    for logprob_BT, gradients in found[1:]:
        assert torch.equal(logprob_BT, found[0][0])
        for one, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(one, other)


@torch.no_grad()
def test_wider_padding_and_other_rows_change_nothing(tmp_path: Path) -> None:
    model = load_causal(tiny.llama(tmp_path))
    batch = pad(ROWS, pad_id=0)
    wide = TokenBatch(
        torch.nn.functional.pad(batch.ids_BT, (0, 5), value=4),
        torch.nn.functional.pad(batch.attention_mask_BT, (0, 5)),
        torch.nn.functional.pad(batch.response_mask_BT, (0, 5)),
    )
    width = batch.ids_BT.shape[1]
    torch.testing.assert_close(token_logprobs(model, wide)[:, :width], token_logprobs(model, batch))
    some = batch[torch.tensor([4, 1])]
    torch.testing.assert_close(token_logprobs(model, some), token_logprobs(model, batch)[[4, 1]])
