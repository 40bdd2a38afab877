"""Sampling, behind one interface: anything that turns prompts into rollouts (vLLM, a server) can stand in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig

from errata.data.encoding import Encoder
from errata.types import PromptRow, Rollout

__all__ = ["Generator", "Sampling", "TransformersGenerator", "rollout_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How to draw responses."""

    max_new_tokens: int = 128
    """Longest response, in tokens; one that gets there without an end counts as truncated."""
    temperature: float = 1.0
    """0 is greedy decoding; otherwise plain ancestral sampling from the tempered distribution, no top-k, no top-p."""
    samples: int = 1
    """Responses for each prompt, next to each other in the result."""
    seed: int = 0


class Generator(Protocol):
    """Turns prompts into rollouts, in order, ``sampling.samples`` for each."""

    def __call__(self, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Rollout]:
        """Draw the responses."""
        ...


@dataclass(frozen=True, slots=True)
class TransformersGenerator:
    """``model.generate`` in batches, left-padded; the same seed gives the same rollouts on the same device."""

    model: Any
    encoder: Encoder
    batch_size: int = 256

    @torch.no_grad()
    def __call__(self, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Rollout]:
        """Draw the responses. The global random state is left as it was."""
        rows = [(row, self.encoder.prompt_ids(row.prompt)) for row in prompts for _ in range(sampling.samples)]
        was_training, shipped = self.model.training, self.model.generation_config
        self.model.eval()
        # What is sampled is the policy itself: a repetition penalty that was shipped with the model would bias PPO.
        self.model.generation_config = GenerationConfig()
        device = next(self.model.parameters()).device
        rollouts: list[Rollout] = []
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(sampling.seed)
                for start in range(0, len(rows), self.batch_size):
                    rollouts += self._batch(rows[start : start + self.batch_size], sampling, device)
        finally:
            self.model.train(was_training)
            self.model.generation_config = shipped
        return rollouts

    def _batch(
        self, rows: Sequence[tuple[PromptRow, tuple[int, ...]]], sampling: Sampling, device: torch.device
    ) -> list[Rollout]:
        width = max(len(ids) for _, ids in rows)
        lengths = torch.tensor([len(ids) for _, ids in rows])
        mask = torch.arange(width) >= width - lengths[:, None]
        prompt = torch.full(mask.shape, self.encoder.pad_id)
        prompt[mask] = torch.tensor([token for _, ids in rows for token in ids])
        greedy = sampling.temperature == 0
        drawn = self.model.generate(
            input_ids=prompt.to(device),
            attention_mask=mask.long().to(device),
            max_new_tokens=sampling.max_new_tokens,
            do_sample=not greedy,
            temperature=None if greedy else sampling.temperature,
            top_k=None if greedy else 0,
            top_p=None if greedy else 1.0,
            eos_token_id=list(self.encoder.end_ids),
            pad_token_id=self.encoder.pad_id,
        )
        return [
            rollout_of(row, ids, response, self.encoder)
            for (row, ids), response in zip(rows, drawn[:, width:].tolist(), strict=True)
        ]


def rollout_of(row: PromptRow, prompt_ids: tuple[int, ...], drawn: Sequence[int], encoder: Encoder) -> Rollout:
    """What was drawn for a prompt, up to and with its first end; what follows is padding, whatever its id."""
    ends = [place for place, token in enumerate(drawn) if token in encoder.end_ids]
    response = drawn[: ends[0] + 1] if ends else drawn
    return Rollout(
        id=row.id,
        prompt=row.prompt,
        prompt_ids=prompt_ids,
        response_ids=tuple(response),
        text=encoder.decode(response),
        ended=bool(ends),
    )
