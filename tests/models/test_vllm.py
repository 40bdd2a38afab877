"""The adapter against a small stand-in for vLLM's documented interface; vLLM itself needs a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

import tiny
from errata.models import Sampling, load_vllm


class FakeLLM:
    """Answers with the last id of the prompt, n times, and stops in the ways that vLLM does."""

    def __init__(self, **settings) -> None:
        self.settings = settings

    def generate(self, prompts, params, use_tqdm):
        assert not use_tqdm
        self.seen = [(prompt["prompt_token_ids"], one) for prompt, one in zip(prompts, params, strict=True)]
        return [SimpleNamespace(outputs=[self.output(*each, k) for k in range(each[1].n)]) for each in self.seen]

    def output(self, ids, params, k):
        end = params.stop_token_ids[0]
        said = ids[-1]
        return [
            SimpleNamespace(token_ids=(said, end), finish_reason="stop", stop_reason=end),
            SimpleNamespace(token_ids=[said], finish_reason="stop", stop_reason=None),
            SimpleNamespace(token_ids=[said, said], finish_reason="length", stop_reason=None),
        ][k]


@pytest.fixture
def vllm(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = FakeLLM, lambda **settings: SimpleNamespace(**settings)
    monkeypatch.setitem(sys.modules, "vllm", module)


def test_the_ids_of_training_go_in_and_rollouts_come_out(vllm, tmp_path) -> None:
    encoder = tiny.encoder()
    generator = load_vllm(tiny.llama(tmp_path / "model"), encoder)
    assert generator.llm.settings["generation_config"] == "vllm"
    prompts = tiny.prompts(3)
    rollouts = generator(prompts, Sampling(max_new_tokens=7, temperature=0.5, samples=3, seed=1))
    assert [ids for ids, _ in generator.llm.seen] == [list(encoder.prompt_ids(row.prompt)) for row in prompts]
    assert [one.id for one in rollouts] == ["p0", "p0", "p0", "p1", "p1", "p1", "p2", "p2", "p2"]
    said = rollouts[0].prompt_ids[-1]
    assert [one.response_ids for one in rollouts[:3]] == [(said, encoder.end_id), (said, encoder.end_id), (said, said)]
    assert [one.ended for one in rollouts[:3]] == [True, True, False]
    assert rollouts[2].text == encoder.decode([said, said])
    params = [one for _, one in generator.llm.seen]
    assert (params[0].n, params[0].temperature, params[0].max_tokens, params[0].top_p, params[0].top_k) == (
        3,
        0.5,
        7,
        1,
        -1,
    )
    assert params[0].stop_token_ids == list(encoder.end_ids)
    assert len({one.seed for one in params}) == 3
    generator(prompts, Sampling(seed=2))
    assert not {one.seed for one in params} & {one.seed for _, one in generator.llm.seen}


def test_without_vllm(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match="vLLM is not installed"):
        load_vllm(tiny.llama(tmp_path / "model"), tiny.encoder())
