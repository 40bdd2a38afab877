"""Rollouts of a PPO run, coloured by any of their per-token numbers, and the curves of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from errata.views.curves import Curve, curves_svg
from errata.views.pages import render, visible
from errata.views.tokens import ColoredToken, shared_scale, tokens_to_html, tokens_to_terminal

__all__ = ["rollouts_page", "rollouts_to_terminal"]

_TEMPLATE = Path(__file__).parent / "rollouts.html.j2"
_CURVES = {
    "win_rate": "over the start, held out",
    "objective/scores": "reward",
    "objective/kl": "nats",
    "response/length": "tokens",
    "response/repetition": "share of triples",
    "response/ended": "share",
    "policy/entropy_avg": "nats a token",
    "policy/clipfrac_avg": "share of tokens",
    "val/explained_variance": "share",
    "loss/policy_avg": "loss",
    "loss/value_avg": "loss",
}

Row = Mapping[str, Any]


def _streams(row: Row) -> dict[str, list[float]]:
    """The numbers that a line of samples.jsonl has for every token."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, list) and name not in ("ids", "tokens", "prompt") and len(value) == len(row["ids"])
    }


def _tokens(row: Row, show: str) -> list[ColoredToken]:
    streams = _streams(row)
    if show not in streams:
        raise ValueError(f"no {show!r} in rollout {row.get('id')!r}; choose from {', '.join(sorted(streams))}")
    return [
        ColoredToken(
            # Byte-level tokenizers write a space as Ġ, sentencepiece as ▁.
            token.replace("Ġ", " ").replace("▁", " "),
            streams[show][k],
            detail={name: f"{values[k]:.3g}" for name, values in streams.items()},
        )
        for k, token in enumerate(row["tokens"])
    ]


def _coloured(rows: Sequence[Row], show: str) -> tuple[float, Iterator[tuple[Row, list[ColoredToken]]]]:
    tokens = [_tokens(row, show) for row in rows]
    return shared_scale(token.value for each in tokens for token in each), zip(rows, tokens, strict=True)


def rollouts_to_terminal(rows: Sequence[Row], *, show: str) -> Text:
    """The rollouts one under the other, coloured by ``show`` on one scale.

    Args:
        rows: lines of samples.jsonl.
        show: the name of one of their streams, such as ``advantages`` or ``rewards/kl``.

    Raises:
        ValueError: a rollout has no such stream (names those that it has).
    """
    scale, coloured = _coloured(rows, show)
    text = Text(f"{show}, full colour at ±{scale:.3g}\n")
    for row, tokens in coloured:
        text.append(f"\nstep {row['step']} · {visible(str(row['id']))}\n", "bold")
        text.append_text(tokens_to_terminal(tokens, scale=scale)).append("\n")
    return text


def rollouts_page(
    rows: Sequence[Row], *, title: str, show: str, lines: Sequence[Row] = (), warnings: Sequence[str] = ()
) -> str:
    """One self-contained page: what went wrong, curves, rollouts.

    Args:
        rows: lines of samples.jsonl.
        title: over the page.
        show: what colours the tokens, on one scale for all of them.
        lines: of metrics.jsonl; without them there are no curves.
        warnings: of the run.

    Raises:
        ValueError: a rollout has no such stream (names those that it has).
    """
    scale, coloured = _coloured(rows, show)
    known = [name for name in _CURVES if any(name in line for line in lines)]
    charts = [
        curves_svg(
            [Curve(name, *zip(*((line["step"], line[name]) for line in lines if name in line), strict=True))],
            title=name,
            x_label="step",
            y_label=_CURVES[name],
            width=360,
            height=220,
        )
        for name in known
    ]
    return render(
        _TEMPLATE,
        title=title,
        show=show,
        scale=scale,
        charts=charts,
        warnings=warnings,
        rows=[
            {
                "heading": f"step {row['step']} · {row['id']}",
                "prompt": row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"],
                "tokens": tokens_to_html(tokens, scale=scale),
            }
            for row, tokens in coloured
        ],
    )
