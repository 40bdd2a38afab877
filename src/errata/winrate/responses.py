"""Answers to be judged: a model's, to a file of prompts, by chunks, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from errata.data import write_rows
from errata.runs import HOW_TO_NAME, digest, fingerprint_of, named, read_record, write_json, writes_out, writing
from errata.runs.disk import sync_entry
from errata.types import Demonstration, PromptRow, Rollout
from errata.winrate.alpaca import write_outputs

if TYPE_CHECKING:
    from errata.models import Generator, Sampling

__all__ = ["Form", "generate"]

Form = Literal["rows", "alpaca_eval"]
_ANSWERS = ("response", "completion", "rejected", "chosen", "original", "edited", "draft", "sent", "reason")
"""Fields of a row that hold or describe another answer than the one that is made here."""


@writes_out
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
    whole chunk, to the same bytes as one that was never stopped: every chunk has a seed of its own. Chunks in which a
    line is damaged, doubled or another prompt's are made again, with all that follow. How the answers were made stands
    in ``<out>.settings.json``, with their digest.

    Args:
        generator: Anything that turns prompts into rollouts; ``settings`` say what it is, or its ``identity``.
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
        ValueError: ``out`` is there and was made in another way, or not by this function, or was changed since; the
            answers so far were made in another way.
        InUse: another process writes ``out``.
    """
    identities, unnamed = named({} if settings else {"generator": generator})
    made = {
        **settings,
        "name": name,
        "form": form,
        "chunk": chunk,
        **asdict(sampling),
        "prompts": fingerprint_of([[row.id, row.prompt, dict(row.extra)] for row in prompts]),
        **({"generator": identities} if identities else {}),
    }
    made = json.loads(json.dumps(made))
    card, partial = out.with_name(f"{out.name}.settings.json"), out.with_name(f".{out.name}.partial.jsonl")
    for there in (out, partial):
        if unnamed and there.exists():
            raise ValueError(
                f"{there} is there, and nobody can tell whether this generator made it; {HOW_TO_NAME}, "
                "say in settings what it is, or name another file"
            )
    due = [(row.id, sample) for row in prompts for sample in range(sampling.samples)]
    if out.exists():
        before = read_record(card) if card.exists() else None
        _check_same(before, made, out)
        expected = (before or {}).get("sha256")
        if expected is not None and digest(out) != expected:
            raise ValueError(
                f"{out} is not what was written there: it was cut or changed since; delete it and rerun the same "
                "command, or name another file"
            )
        partial.unlink(missing_ok=True)
        return len(due)
    done = _resume(partial, made, due, chunk * sampling.samples)
    with writing(partial), partial.open("a", encoding="utf-8") as file:
        starts = range(done // sampling.samples, len(prompts), chunk)
        for start in tqdm(starts, desc=f"{name} answers", unit="chunk", disable=None):
            seed = random.Random(f"{sampling.seed}/{start}").getrandbits(31)
            rows = prompts[start : start + chunk]
            rollouts = generator(rows, replace(sampling, seed=seed))
            if len(rollouts) != len(rows) * sampling.samples:
                raise ValueError(
                    f"the generator gave {len(rollouts)} answers to {len(rows)} prompts; each needs {sampling.samples}"
                )
            file.write("".join(json.dumps(line) + "\n" for line in _lines(rows, rollouts, sampling.samples)))
            file.flush()
            os.fsync(file.fileno())
    lines = [json.loads(line) for line in partial.read_bytes().splitlines()[1:]]
    assert [_place(line) for line in lines] == due
    rows_of = {row.id: row for row in prompts}
    whole = out.with_name(f".whole.{out.name}")  # the same suffix
    if form == "alpaca_eval":
        write_outputs(whole, [(rows_of[line["prompt_id"]].prompt, line["response"]) for line in lines], generator=name)
    else:
        write_rows(whole, (_row(line, rows_of[line["prompt_id"]], name, sampling.samples) for line in lines))
    # The file comes after the note of how it was made: alone it would be nobody's.
    write_json(card, {**made, "sha256": digest(whole)})
    os.replace(whole, out)
    sync_entry(out.parent)
    partial.unlink()
    return done


def _place(line: Any) -> tuple[Any, Any]:
    return (line["prompt_id"], line["sample"])


def _check_same(before: Mapping[str, Any] | None, made: Mapping[str, Any], file: Path) -> None:
    if before is None:
        raise ValueError(f"{file} is there and says nowhere how it was made; name another file, or move it away")
    noted = {key: value for key, value in before.items() if key != "sha256"}
    other = [key for key in {**made, **noted} if noted.get(key) != made.get(key)]
    if other:
        told = "; ".join(f"{key} was {noted.get(key)!r}, is {made.get(key)!r}" for key in other[:3])
        raise ValueError(f"{file} was made with other settings ({told}); name another file, or remove it")


def _resume(partial: Path, made: Mapping[str, Any], due: Sequence[tuple[str, int]], of_chunk: int) -> int:
    """Cut the file of answers so far back to whole chunks of what is due; how many answers that leaves."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    lines = partial.read_bytes().splitlines(keepends=True) if partial.exists() else []
    if not lines or not lines[0].endswith(b"\n"):
        partial.write_text(json.dumps(made) + "\n", encoding="utf-8")
        return 0
    try:
        head = dict(json.loads(lines[0]))
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{partial}, line 1 is damaged ({error}); delete it, and all is answered anew") from error
    _check_same(head, made, partial)
    answers = [line for line in lines[1:] if line.endswith(b"\n")]  # what a kill cut off is no answer
    fitting = next((k for k, line in enumerate(answers) if k >= len(due) or not _fits(line, due[k])), len(answers))
    if fitting < len(answers):
        tqdm.write(
            f"{partial}, line {fitting + 2} is damaged, doubled or of another prompt; what follows is made again",
            file=sys.stderr,
        )
    whole = fitting if fitting == len(due) else fitting // of_chunk * of_chunk
    os.truncate(partial, sum(map(len, lines[: 1 + whole])))
    return whole


def _fits(line: bytes, due: tuple[str, int]) -> bool:
    try:
        found = json.loads(line)
        # Of an older version a line says nothing of itself.
        if found.get("sum", _sum(found)) != _sum(found):
            return False
        return _place(found) == due and isinstance(found["response"], str) and {"tokens", "ended"} <= found.keys()
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return False


def _lines(rows: Sequence[PromptRow], rollouts: Sequence[Rollout], samples: int) -> Iterator[dict[str, Any]]:
    for index, rollout in enumerate(rollouts):
        line = {
            "prompt_id": rows[index // samples].id,
            "sample": index % samples,
            "response": rollout.text,
            "tokens": len(rollout.response_ids),
            "ended": rollout.ended,
        }
        yield {**line, "sum": _sum(line)}


def _sum(line: Mapping[str, Any]) -> str:
    """What tells a line from one that was damaged."""
    told = json.dumps({key: value for key, value in line.items() if key != "sum"}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


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
