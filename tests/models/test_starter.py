"""The starter, a real instruction-tuned model: what errata does with the toy, it does with that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from errata.data import Encoder
from errata.data.encoding import load_encoder
from errata.labels import label_all
from errata.models import Sampling, TransformersGenerator, load_causal, pad, read_card, token_logprobs
from errata.tuning import FIGAConfig, train_figa
from errata.types import Correction, PromptRow
from scripts import load

pytestmark = pytest.mark.slow

PROMPTS = [
    "Write a short reply to a customer whose parcel arrived three days late.",
    "Answer a customer who was charged twice in two sentences.",
    "Thank a customer for a friendly letter.",
]


@pytest.fixture(scope="module")
def starter() -> Path:
    recipe = load("recipes", "starter")
    try:
        return recipe.build(Path(__file__).resolve().parents[2] / "models" / "starter")
    except recipe.NoStarter as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def encoder(starter: Path) -> Encoder:
    return load_encoder(starter)


@pytest.fixture(scope="module")
def drafts(starter: Path, encoder: Encoder) -> list[str]:
    rows = [PromptRow(id=str(k), prompt=prompt) for k, prompt in enumerate(PROMPTS)]
    drawn = TransformersGenerator(load_causal(starter), encoder)(rows, Sampling(max_new_tokens=24, temperature=0.0))
    return [one.text for one in drawn]


def test_prompts_are_its_chat_template(encoder: Encoder) -> None:
    text = encoder.tokenizer.decode(encoder.prompt_ids(PROMPTS[0]))
    # A system prompt of its own is part of it; the turn of the assistant is open.
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith(f"<|im_start|>user\n{PROMPTS[0]}<|im_end|>\n<|im_start|>assistant\n")
    # Its end pads, too: the end is supervised by place, never by id.
    assert encoder.end_id == encoder.pad_id == 2


def test_greedy_drafts_are_english(drafts: list[str]) -> None:
    assert drafts[0].startswith("I'm sorry for the inconvenience")
    assert all(len(draft.split()) > 8 for draft in drafts)


def test_two_steps_of_an_adapter_are_saved_and_read_back(
    starter: Path, encoder: Encoder, drafts: list[str], tmp_path: Path
) -> None:
    rows = [
        Correction(id=str(k), prompt=prompt, original=draft, edited=draft.replace("I'm", "I am") + " Kind regards")
        for k, (prompt, draft) in enumerate(zip(PROMPTS, drafts, strict=True))
    ]
    labels = list(label_all(rows, encoder))
    config = FIGAConfig(lora_rank=4, learning_rate=2e-4, batch_size=2, micro_batch_size=1, epochs=1.0)
    train_figa(starter, labels, encoder, config, tmp_path / "tuned")
    record = read_card(tmp_path / "tuned")
    assert record["steps"] == 2
    batch = pad([label.edited.encoded for label in labels], pad_id=encoder.pad_id)
    with torch.no_grad():
        before = token_logprobs(load_causal(starter).eval(), batch)
        after = token_logprobs(load_causal(tmp_path / "tuned").eval(), batch)
        again = token_logprobs(load_causal(tmp_path / "tuned").eval(), batch)
    assert torch.equal(after, again)
    assert (after - before).abs().max() > 1e-3
    # What was learned is what people wrote.
    assert after.sum() > before.sum()
