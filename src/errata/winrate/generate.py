"""Answers to be judged: a model's, to a file of prompts, by chunks, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from errata.data import write_rows
from errata.data.files import read_json, write_json
from errata.types import Demonstration, PromptRow, Rollout
from errata.winrate.alpaca import write_outputs

if TYPE_CHECKING:
    from errata.models import Generator, Sampling

__all__ = ["Form", "generate"]

Form = Literal["rows", "alpaca_eval"]
_ANSWERS = ("response", "completion", "rejected", "chosen", "original", "edited", "draft", "sent", "reason")
"""Fields of a row that hold or describe another answer than the one that is made here."""


def generate(
    generator: Generator,
    prompts: Sequence[PromptRow],
    sampling: Sampling,
    out: Path,
    *,
    name: str,
    settings: Mapping[str, Any],
    form: Form = "rows",
    chunk: int = 64,
) -> int:
    """Answer the prompts and write the answers to ``out``, which is there only when all are.

    Meanwhile they are in ``.<out>.partial.jsonl``, chunk by chunk; a run with the same settings goes on behind the last
    whole chunk, to the same bytes as one that was never stopped: every chunk has a seed of its own. How they were made
    stands in ``<out>.settings.json``.

    Args:
        generator: Anything that turns prompts into rollouts.
        prompts: What to answer; their further fields travel into the rows.
        sampling: How to draw; with ``samples`` above 1 ids are ``<id>#<number>``, and ``prompt_id`` is the prompt's.
        out: The file: ``.jsonl`` (or what else ``write_rows`` knows), or ``.json`` for ``alpaca_eval``.
        name: Of the model, as the field ``generator`` has it.
        settings: What else the answers depend on: the model's identity, the encoding, the backend.
        form: errata's rows, or AlpacaEval's model outputs.
        chunk: How many prompts are answered at once.

    Returns:
        How many answers of an earlier run were taken over.

    Raises:
        ValueError: ``out`` is there and was made in another way, or not by this function; the answers so far were.
    """
    from errata.models import fingerprint_of  # and torch, which the rest of this room does without

    made = {
        **settings,
        "name": name,
        "form": form,
        "chunk": chunk,
        **asdict(sampling),
        "prompts": fingerprint_of([[row.id, row.prompt, dict(row.extra)] for row in prompts]),
    }
    made = json.loads(json.dumps(made))
    card, partial = out.with_name(f"{out.name}.settings.json"), out.with_name(f".{out.name}.partial.jsonl")
    total = len(prompts) * sampling.samples
    if out.exists():
        _check_same(read_json(card) if card.exists() else None, made, out)
        return total
    done = _resume(partial, made, chunk * sampling.samples)
    with partial.open("a", encoding="utf-8") as file:
        starts = range(done // sampling.samples, len(prompts), chunk)
        for start in tqdm(starts, desc=f"{name} answers", unit="chunk", disable=None):
            seed = random.Random(f"{sampling.seed}/{start}").getrandbits(31)
            rows = prompts[start : start + chunk]
            rollouts = generator(rows, replace(sampling, seed=seed))
            file.write("".join(json.dumps(line) + "\n" for line in _lines(rows, rollouts, sampling.samples)))
            file.flush()
            os.fsync(file.fileno())
    lines = [json.loads(line) for line in partial.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(lines) == total, f"{len(lines)} answers where {total} are due"
    write_json(card, made)
    rows_of = {row.id: row for row in prompts}
    if form == "alpaca_eval":
        write_outputs(out, [(rows_of[line["prompt_id"]].prompt, line["response"]) for line in lines], generator=name)
    else:
        write_rows(out, (_row(line, rows_of[line["prompt_id"]], name, sampling.samples) for line in lines))
    partial.unlink()
    return done


def _check_same(before: Mapping[str, Any] | None, made: Mapping[str, Any], file: Path) -> None:
    if before is None:
        raise ValueError(f"{file} is there and says nowhere how it was made; name another file, or move it away")
    other = [key for key in made if before.get(key) != made[key]]
    if other:
        told = "; ".join(f"{key} was {before.get(key)!r}, is {made[key]!r}" for key in other[:3])
        raise ValueError(f"{file} was made with other settings ({told}); name another file, or remove it")


def _resume(partial: Path, made: Mapping[str, Any], of_chunk: int) -> int:
    """Cut the file of answers so far back to whole chunks; how many answers that leaves."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    lines = partial.read_bytes().splitlines(keepends=True) if partial.exists() else []
    if not lines or not lines[0].endswith(b"\n"):
        partial.write_text(json.dumps(made) + "\n", encoding="utf-8")
        return 0
    _check_same(json.loads(lines[0]), made, partial)
    whole = sum(line.endswith(b"\n") for line in lines[1:]) // of_chunk * of_chunk
    os.truncate(partial, sum(map(len, lines[: 1 + whole])))
    return whole


def _lines(rows: Sequence[PromptRow], rollouts: Sequence[Rollout], samples: int) -> Iterator[dict[str, Any]]:
    for index, rollout in enumerate(rollouts):
        yield {
            "prompt_id": rows[index // samples].id,
            "sample": index % samples,
            "response": rollout.text,
            "tokens": len(rollout.response_ids),
            "ended": rollout.ended,
        }


def _row(line: Mapping[str, Any], prompt: PromptRow, name: str, samples: int) -> Demonstration:
    kept = {
        key: value
        for key, value in prompt.extra.items()
        if key not in _ANSWERS and not key.endswith(("_ids", "_weights"))
    }
    extra = {**kept, "generator": name, "tokens": line["tokens"], "ended": line["ended"]}
    id = prompt.id
    if samples > 1:
        id, extra["prompt_id"] = f"{prompt.id}#{line['sample']}", prompt.id
    return Demonstration(id=id, prompt=prompt.prompt, response=line["response"], extra=extra)
