"""Rows of ids as rectangles, padded on the right. Masks come from lengths, never from ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from errata.types import Encoded

__all__ = ["TokenBatch", "pad", "pad_stream", "to_lists"]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Sequences of prompt and response, padded on the right to the longest."""

    ids_BT: Int[Tensor, "B T"]
    attention_mask_BT: Bool[Tensor, "B T"]
    """True on real tokens."""
    response_mask_BT: Bool[Tensor, "B T"]
    """True on the tokens of the response, its end of sequence included."""

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        return TokenBatch(self.ids_BT.to(device), self.attention_mask_BT.to(device), self.response_mask_BT.to(device))

    def __getitem__(self, rows: slice | Tensor) -> TokenBatch:
        """Some of the rows, at the same width."""
        return TokenBatch(self.ids_BT[rows], self.attention_mask_BT[rows], self.response_mask_BT[rows])

    def narrowed(self, rows: Tensor) -> TokenBatch:
        """Some of the rows, as wide as the longest of them."""
        columns = slice(int(self.attention_mask_BT[rows].sum(1).max()))
        return TokenBatch(
            self.ids_BT[rows, columns], self.attention_mask_BT[rows, columns], self.response_mask_BT[rows, columns]
        )

    def alike(self, size: int) -> Sequence[Int[Tensor, " R"]]:
        """The numbers of the rows, at most ``size`` at a time, those of about the same length together."""
        parts: Sequence[Tensor] = self.attention_mask_BT.sum(1).argsort(stable=True).split(size)
        return parts


def pad(rows: Sequence[Encoded], *, pad_id: int) -> TokenBatch:
    """Put rows into one rectangle as wide as the longest of them."""
    lengths = torch.tensor([len(row.ids) for row in rows])
    prompts = torch.tensor([row.prompt_length for row in rows])
    columns = torch.arange(int(lengths.max()))
    attention_mask = columns < lengths[:, None]
    ids = torch.full(attention_mask.shape, pad_id)
    ids[attention_mask] = torch.tensor([token for row in rows for token in row.ids])
    return TokenBatch(ids, attention_mask, attention_mask & (columns >= prompts[:, None]))


def pad_stream(streams: Sequence[Sequence[float]], batch: TokenBatch) -> Float[Tensor, "B T"]:
    """Lay one value for each response token under the columns of ``batch``; 0 elsewhere.

    Raises:
        ValueError: a stream is not as long as its response; a stream cut apart from its ids would supervise the wrong
            tokens.
    """
    expected = batch.response_mask_BT.sum(1).tolist()
    for row, (stream, length) in enumerate(zip(streams, expected, strict=True)):
        if len(stream) != length:
            raise ValueError(f"row {row} has {length} response tokens and {len(stream)} values; make the stream again")
    out = torch.zeros(batch.ids_BT.shape)
    out[batch.response_mask_BT.cpu()] = torch.tensor([float(v) for stream in streams for v in stream])
    return out.to(batch.ids_BT.device)


def to_lists(stream_BT: Float[Tensor, "B T"], batch: TokenBatch) -> list[list[float]]:
    """The inverse of ``pad_stream``: the values of the response tokens, row by row."""
    values = stream_BT[batch.response_mask_BT].tolist()
    lengths = batch.response_mask_BT.sum(1).tolist()
    starts = [sum(lengths[:k]) for k in range(len(lengths))]
    return [values[start : start + length] for start, length in zip(starts, lengths, strict=True)]
