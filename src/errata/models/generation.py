"""Sampling, behind one interface: anything that turns prompts into rollouts (vLLM, a server) can stand in."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from errata.data.encoding import Encoder
from errata.models.cache import cache_for, those_that_stay
from errata.models.finite import check_ids, check_scores
from errata.models.logprobs import at_least_float32
from errata.ranges import Range, Ranged, Seed, Size
from errata.types import Encoded, PromptRow, Rollout

__all__ = ["Generator", "Sampling", "TransformersGenerator", "rollout_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling(Ranged):
    """How to draw responses."""

    max_new_tokens: Size = 128
    """Longest response, in tokens; one that gets there without an end counts as truncated."""
    temperature: Annotated[float, Range(low=0, high=100)] = 1.0
    """0 is greedy decoding; otherwise plain ancestral sampling from the tempered distribution, no top-k, no top-p."""
    samples: Size = 1
    """Responses for each prompt, next to each other in the result."""
    seed: Seed = 0


class Generator(Protocol):
    """Turns prompts into rollouts, in order, ``sampling.samples`` for each."""

    def __call__(self, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Rollout]:
        """Draw the responses."""
        ...


@dataclass(frozen=True, slots=True)
class TransformersGenerator:
    """The draws of ``model.generate``, in batches, left-padded; the same seed gives the same rollouts on a device."""

    model: Any
    encoder: Encoder
    batch_size: int = 256

    @torch.no_grad()
    def __call__(self, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Rollout]:
        """Draw the responses. The global random state is left as it was.

        Raises:
            ValueError: a prompt holds an id that the model does not know, or its probabilities are no numbers.
        """
        rows = [(row, self.encoder.prompt_ids(row.prompt)) for row in prompts for _ in range(sampling.samples)]
        check_ids(self.model, ((row.id, Encoded(ids, len(ids), (), ended=False)) for row, ids in rows))
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
        prompt, mask = prompt.to(device), mask.to(device)
        if not self._has_own_loop:
            drawn = self._generate(prompt, mask, sampling)[:, width:].tolist()
            return [
                rollout_of(row, ids, response, self.encoder) for (row, ids), response in zip(rows, drawn, strict=True)
            ]
        ids_BT, logprob_BT = self._draw(prompt, mask, sampling)
        check_scores(logprob_BT.tolist(), self.model, "probabilities")
        return [
            rollout_of(row, ids, response, self.encoder, logprobs)
            for (row, ids), response, logprobs in zip(rows, ids_BT.tolist(), logprob_BT.tolist(), strict=True)
        ]

    def _generate(self, prompt: Tensor, mask: Tensor, sampling: Sampling) -> Tensor:
        """The loop of transformers, for models with a state of their own in place of a cache."""
        greedy = sampling.temperature == 0
        lost = _LostRows()
        drawn: Tensor = self.model.generate(
            input_ids=prompt,
            attention_mask=mask.long(),
            max_new_tokens=sampling.max_new_tokens,
            do_sample=not greedy,
            temperature=None if greedy else sampling.temperature,
            top_k=None if greedy else 0,
            top_p=None if greedy else 1.0,
            eos_token_id=list(self.encoder.end_ids),
            pad_token_id=self.encoder.pad_id,
            logits_processor=LogitsProcessorList([lost]),
        )
        check_scores([] if lost.rows is None else lost.rows.tolist(), self.model, "probabilities")
        return drawn

    def _draw(self, prompt: Tensor, mask: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """Sampled ids and their log-probabilities, (B, tokens), padded with zeros; rows that have ended are dropped.

        The chance of a row does not depend on which others have ended: noise is drawn for all of them, and these are
        the draws of ``torch.multinomial``, and so of ``model.generate``.
        """
        ends = torch.tensor(self.encoder.end_ids, device=prompt.device)
        out = torch.zeros(len(prompt), sampling.max_new_tokens, dtype=torch.long, device=prompt.device)
        logprobs = torch.zeros(out.shape, device=prompt.device)
        alive = torch.arange(len(prompt), device=prompt.device)
        cache = cache_for(self.model)
        ids, position = prompt, (mask.long().cumsum(-1) - 1).clamp(min=0)
        # A mask that hides nothing costs time at every step.
        padded, takes = not bool(mask.all()), self._takes
        for step in range(sampling.max_new_tokens):
            output = self.model(
                input_ids=ids,
                attention_mask=mask.long() if padded else None,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                **({"logits_to_keep": 1} if "logits_to_keep" in takes else {}),
            )
            logits = at_least_float32(output.logits[:, -1])
            if sampling.temperature == 0:
                drawn = logits.argmax(-1)
            else:
                logits = logits / sampling.temperature if sampling.temperature != 1 else logits
                probs = logits.softmax(-1)
                noise = _exponential((len(prompt), probs.shape[-1]), probs)
                drawn = (probs / (noise if len(alive) == len(prompt) else noise[alive])).argmax(-1)
            out[alive, step] = drawn
            logprobs[alive, step] = (logits.gather(1, drawn[:, None])[:, 0] - logits.logsumexp(-1)).to(logprobs)
            stays = ~torch.isin(drawn, ends)
            if not bool(stays.all()):
                rows = those_that_stay(stays)
                if not len(rows):
                    break
                alive, mask, drawn, position = alive[rows], mask[rows], drawn[rows], position[rows]
                cache.batch_select_indices(rows)
            ids, position = drawn[:, None], position[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return out, logprobs

    @property
    def _takes(self) -> set[str]:
        return set(inspect.signature(self.model.forward).parameters)

    @property
    def _has_own_loop(self) -> bool:
        layers = set(getattr(self.model.config, "layer_types", None) or ())
        plain = layers <= {"full_attention", "sliding_attention"} and not getattr(self.model, "_is_stateful", False)
        return plain and {"position_ids", "past_key_values"} <= self._takes


class _LostRows(LogitsProcessor):
    """Watches the logits of transformers' loop; what is NaN is drawn as if it were 0, and told afterwards."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        sums = scores.logsumexp(-1, keepdim=True)
        self.rows = sums if self.rows is None else self.rows + sums
        return torch.where(sums.isfinite(), scores, 0.0)


def _exponential(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """The numbers of ``Tensor.exponential_``, which on a CPU calls the logarithm for one of them at a time."""
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=like.dtype, device=like.device).exponential_()
    return torch.empty(shape, dtype=torch.float64).uniform_().neg_().log1p_().neg_().to(like.dtype)


def rollout_of(
    row: PromptRow,
    prompt_ids: tuple[int, ...],
    drawn: Sequence[int],
    encoder: Encoder,
    logprobs: Sequence[float] | None = None,
) -> Rollout:
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
        logprobs=None if logprobs is None else tuple(logprobs[: len(response)]),
    )
