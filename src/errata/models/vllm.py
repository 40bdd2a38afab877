"""vLLM behind the ``Generator`` protocol, where it is installed; errata does not install it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errata.data.encoding import Encoder
from errata.models.generation import Sampling, rollout_of
from errata.pretrained import find_model
from errata.pretrained.adapter import read_lora_config
from errata.pretrained.kinds import Dtype
from errata.types import PromptRow, Rollout

__all__ = ["VLLMGenerator", "load_vllm"]


@dataclass(frozen=True, slots=True)
class VLLMGenerator:
    """``vllm.LLM.generate`` on the ids that errata encodes: the prompts are those of training, token by token."""

    llm: Any
    encoder: Encoder
    adapter: Path | None = None
    """Folder of a LoRA adapter that answers on top of the model."""

    def __call__(self, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Rollout]:
        """Draw the responses. Every prompt has a seed of its own, so that equal prompts differ."""
        from vllm import SamplingParams

        more: dict[str, Any] = {}
        if self.adapter is not None:
            from vllm.lora.request import LoRARequest

            more["lora_request"] = LoRARequest("adapter", 1, str(self.adapter))
        ids = [self.encoder.prompt_ids(row.prompt) for row in prompts]
        settings = [
            SamplingParams(
                n=sampling.samples,
                temperature=sampling.temperature,
                top_p=1.0,
                top_k=-1,
                max_tokens=sampling.max_new_tokens,
                seed=random.Random(f"{sampling.seed}/{place}").getrandbits(31),
                stop_token_ids=list(self.encoder.end_ids),
                detokenize=False,
            )
            for place in range(len(prompts))
        ]
        answered = self.llm.generate([{"prompt_token_ids": list(one)} for one in ids], settings, use_tqdm=False, **more)
        return [
            rollout_of(row, one, _with_end(drawn, self.encoder.end_ids), self.encoder)
            for row, one, answer in zip(prompts, ids, answered, strict=True)
            for drawn in answer.outputs
        ]


def load_vllm(folder: Path | str, encoder: Encoder, *, dtype: Dtype = "auto") -> VLLMGenerator:
    """The model in ``folder``, decoding as errata says and not as the model's own generation settings do.

    An adapter is served beside its base, not merged with it.

    Raises:
        ValueError: vLLM is not installed; there is no model.
    """
    found = find_model(folder, weights=True)
    try:
        from vllm import LLM
    except ImportError as error:
        raise ValueError("vLLM is not installed; install it (pip install vllm), or leave --backend out") from error
    more: dict[str, Any] = {}
    if found.base is not None:
        more = {"enable_lora": True, "max_lora_rank": read_lora_config(found.path).r}
    llm = LLM(
        model=str(found.whole.path),
        tokenizer=str(found.tokenizer_path),
        trust_remote_code=False,
        generation_config="vllm",
        dtype=dtype,
        **more,
    )
    return VLLMGenerator(llm, encoder, found.path if found.base is not None else None)


def _with_end(drawn: Any, end_ids: Sequence[int]) -> list[int]:
    """The ids with the end that stopped them, which not every version of vLLM leaves in its place."""
    ids = list(drawn.token_ids)
    if drawn.finish_reason == "stop" and not set(ids) & set(end_ids):
        ids.append(drawn.stop_reason if drawn.stop_reason in end_ids else end_ids[0])
    return ids
