from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from errata.data import Encoder
from errata.models import Sampling, TransformersGenerator, load_causal, pad, to_lists, token_logprobs
from errata.reward import encode_rollout
from errata.types import PromptRow

module = sys.modules["errata.models.generation"]
PROMPTS = tiny.prompts(9, seed=1)


def generator(folder: Path, *, pad: str = "<pad>", **settings: Any) -> TransformersGenerator:
    return TransformersGenerator(load_causal(folder), tiny.encoder(pad=pad), **settings)


def greedy(model: Any, prompt_ids: tuple[int, ...], end: int, length: int) -> tuple[int, ...]:
    """The most probable token, again and again: one row, no padding, no cache."""
    ids = list(prompt_ids)
    while len(ids) < len(prompt_ids) + length and (len(ids) == len(prompt_ids) or ids[-1] != end):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(prompt_ids) :])


@pytest.mark.parametrize("pad", ["<pad>", "</s>"])
@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2], ids=lambda build: build.__name__)
@torch.no_grad()
def test_greedy_is_the_argmax_whatever_the_padding(build: Any, pad: str, tmp_path: Path) -> None:
    draw = generator(build(tmp_path, pad=pad), pad=pad)
    rollouts = draw(PROMPTS, Sampling(max_new_tokens=12, temperature=0))
    assert len({len(rollout.prompt_ids) for rollout in rollouts}) > 2, "rows are padded on the left"
    assert len({rollout.response_ids for rollout in rollouts}) > 2, "the model does not say the same to every prompt"
    for row, rollout in zip(PROMPTS, rollouts, strict=True):
        assert rollout.prompt_ids == draw.encoder.prompt_ids(row.prompt)
        assert rollout.response_ids == greedy(draw.model, rollout.prompt_ids, draw.encoder.end_id, 12)


def test_settings_that_came_with_the_model_change_nothing(tmp_path: Path) -> None:
    """Qwen ships a repetition penalty, Llama 2 a temperature, many a top-k: what PPO samples is the policy itself."""
    draw = generator(tiny.llama(tmp_path))
    samplings = [Sampling(max_new_tokens=12, temperature=t, seed=2) for t in (0, 1.0)]
    plain = [draw(PROMPTS, sampling) for sampling in samplings]
    shipped = draw.model.generation_config
    shipped.update(repetition_penalty=3.0, no_repeat_ngram_size=1, temperature=0.1, top_k=2, top_p=0.3, min_p=0.5)
    shipped.update(do_sample=True, typical_p=0.2, epsilon_cutoff=0.05, num_beams=2, min_new_tokens=4, max_length=3)
    shipped.update(suppress_tokens=[7, 8], bad_words_ids=[[9]], eos_token_id=[4, 5])
    assert [draw(PROMPTS, sampling) for sampling in samplings] == plain
    assert draw.model.generation_config is shipped, "and it is saved with the model as it came"


def test_the_seed_decides_and_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    draw = generator(tiny.llama(tmp_path))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = draw(PROMPTS, Sampling(max_new_tokens=8, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert draw(PROMPTS, Sampling(max_new_tokens=8, seed=3)) == first
    assert draw(PROMPTS, Sampling(max_new_tokens=8, seed=4)) != first


def test_padding_with_the_end_of_sequence_draws_the_same(tmp_path: Path) -> None:
    sampling = Sampling(max_new_tokens=10, samples=3)
    distinct, same = (generator(tiny.llama(tmp_path), pad=pad) for pad in ("<pad>", "</s>"))
    assert distinct.encoder.pad_id != same.encoder.pad_id == same.encoder.end_id
    rollouts = same(PROMPTS, sampling)
    assert rollouts == distinct(PROMPTS, sampling)
    assert len({len(rollout.response_ids) for rollout in rollouts}) > 2, "there was something to pad"


def test_a_response_ends_with_its_first_end_of_sequence_or_is_cut_off(tmp_path: Path) -> None:
    draw = generator(tiny.llama(tmp_path, pad="</s>"), pad="</s>")
    end = draw.encoder.end_id
    rollouts = draw(PROMPTS, Sampling(max_new_tokens=10, samples=8))
    assert {rollout.ended for rollout in rollouts} == {True, False}
    for rollout in rollouts:
        assert rollout.ended == (rollout.response_ids[-1] == end)
        assert end not in rollout.response_ids[:-1]
        assert len(rollout.response_ids) == 10 if not rollout.ended else len(rollout.response_ids) <= 10
        assert rollout.text == draw.encoder.decode(rollout.response_ids)
        assert "</s>" not in rollout.text


def test_samples_stand_next_to_each_other_also_across_batches(tmp_path: Path) -> None:
    draw = generator(tiny.llama(tmp_path), batch_size=4)
    rollouts = draw(PROMPTS, Sampling(max_new_tokens=6, samples=3))
    assert [rollout.id for rollout in rollouts] == [row.id for row in PROMPTS for _ in range(3)]
    assert [rollout.prompt for rollout in rollouts] == [row.prompt for row in PROMPTS for _ in range(3)]
    assert len({rollout.response_ids for rollout in rollouts[:3]}) > 1


def test_a_model_in_training_goes_back_to_it(tmp_path: Path) -> None:
    draw = generator(tiny.llama(tmp_path))
    draw.model.train()
    draw(PROMPTS[:1], Sampling(max_new_tokens=2))
    assert draw.model.training
    with pytest.raises(ValueError, match="conversation"):
        draw([PromptRow(id="x", prompt=[{"role": "system", "content": "a"}])], Sampling(max_new_tokens=2))
    assert draw.model.training


def test_a_low_temperature_sharpens(tmp_path: Path) -> None:
    draw = generator(tiny.llama(tmp_path))
    cold = draw(PROMPTS, Sampling(max_new_tokens=8, temperature=1e-3, seed=3))
    assert cold == draw(PROMPTS, Sampling(max_new_tokens=8, temperature=0))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@torch.no_grad()
def test_tokens_are_drawn_as_often_as_they_are_probable(temperature: float, tmp_path: Path) -> None:
    """From the whole distribution: a top-k or top-p would bias every ratio of PPO."""
    draw = generator(tiny.llama(tmp_path), batch_size=1000)
    rollouts = draw(PROMPTS[:1], Sampling(max_new_tokens=1, samples=4000, temperature=temperature))
    drawn = torch.tensor([rollout.response_ids[0] for rollout in rollouts])
    logits_V = draw.model(input_ids=torch.tensor([rollouts[0].prompt_ids])).logits[0, -1].double()
    p_V = (logits_V / temperature).softmax(-1)
    share_V = torch.bincount(drawn, minlength=len(p_V)) / len(drawn)
    assert bool(((share_V - p_V).abs() < 4.5 * (p_V * (1 - p_V) / len(drawn)).sqrt() + 1e-3).all())


def test_a_chat_template_s_end_ends_a_response_and_so_does_the_end_of_sequence(tmp_path: Path) -> None:
    """Gemma ends a turn with <end_of_turn> and a text with <eos>: whichever comes first, sampling stops."""
    tokenizer = tiny.tokenizer(pad="</s>")
    tokenizer.add_tokens(["<turn>"], special_tokens=True)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %} {{ m.content }} <turn>{% endfor %}"
    encoder = Encoder(tokenizer)
    turn, eos = encoder.end_ids
    assert (turn, eos) == (len(tokenizer) - 1, tokenizer.eos_token_id)
    model = load_causal(tiny.llama(tmp_path, pad="</s>", vocab_size=len(tokenizer)))
    rollouts = TransformersGenerator(model, encoder)(PROMPTS, Sampling(max_new_tokens=10, samples=16))
    assert {rollout.response_ids[-1] for rollout in rollouts if rollout.ended} == {turn, eos}
    assert {len(rollout.response_ids) for rollout in rollouts if not rollout.ended} == {10}
    for rollout in rollouts:
        assert not {turn, eos} & set(rollout.response_ids[:-1])
        assert rollout.ended == (rollout.response_ids[-1] in (turn, eos))
        assert "<turn>" not in rollout.text
        assert "</s>" not in rollout.text
        assert rollout.response_ids[: -1 if rollout.ended else None] == tuple(
            tokenizer.convert_tokens_to_ids(rollout.text.split())
        )


@pytest.mark.parametrize("temperature", [0, 1.0, 0.7])
@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2, tiny.opt], ids=lambda build: build.__name__)
def test_what_is_drawn_is_what_transformers_draws(build: Any, temperature: float, tmp_path: Path) -> None:
    """Also when rows that have ended are dropped, and their noise with them."""
    draw = generator(build(tmp_path))
    assert draw._has_own_loop
    sampling = Sampling(max_new_tokens=12, samples=4, temperature=temperature, seed=3)
    rollouts = draw(PROMPTS, sampling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersGenerator, "_has_own_loop", False)
        assert draw(PROMPTS, sampling) == rollouts
    if temperature:
        assert len({len(rollout.response_ids) for rollout in rollouts}) > 3, "there was something to drop"


def test_the_log_probabilities_are_those_of_the_tokens_and_ended_rows_cost_nothing(tmp_path: Path) -> None:
    draw = generator(tiny.llama(tmp_path))
    rows: list[int] = []
    draw.model.register_forward_pre_hook(lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    rollouts = draw(PROMPTS, Sampling(max_new_tokens=10, samples=3, temperature=0.8))
    assert sum(rows) == sum(len(rollout.response_ids) for rollout in rollouts)
    batch = pad([encode_rollout(rollout) for rollout in rollouts], pad_id=draw.encoder.pad_id)
    with torch.no_grad():
        again = to_lists(token_logprobs(draw.model, batch, temperature=0.8), batch)
    for rollout, expected in zip(rollouts, again, strict=True):
        assert rollout.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_noise_is_that_of_torch(dtype: torch.dtype) -> None:
    """Down to the state that it leaves behind."""
    torch.manual_seed(3)
    plain, state = torch.empty(5, 4001, dtype=dtype).exponential_(), torch.get_rng_state()
    torch.manual_seed(3)
    ours = module._exponential((5, 4001), plain)
    torch.testing.assert_close(ours, plain, rtol=0 if dtype == torch.float32 else 1e-15, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
