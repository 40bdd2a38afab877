"""AlpacaEval's files: model outputs and annotations, read and written as its own tools do.

An output is ``{instruction, output, generator}``; an annotation has ``output_1`` of ``generator_1`` (the reference) and
``output_2`` of ``generator_2``, and a ``preference`` from 1 (the first is better) to 2 (the second is). Both files are
JSON arrays. Ours and the official package agree on win rate and standard error of the same annotations; where a
preference is missing, both leave the pair out of the rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from errata.data.records import records
from errata.runs import write_json
from errata.types import Demonstration, Prompt
from errata.winrate.judges import JudgeIdentity, Pair, Ruling, prompt_text

__all__ = ["Annotations", "is_outputs", "read_annotations", "read_outputs", "write_annotations", "write_outputs"]


class Annotations(NamedTuple):
    """What a file of annotations says: the pairs and rulings of each arm (``generator_2``), and who judged."""

    paired: dict[str, list[Pair]]
    rulings: dict[str, list[Ruling]]
    judge: JudgeIdentity
    baseline: str


def is_outputs(path: Path) -> bool:
    """Whether a file holds AlpacaEval's model outputs, by the fields of its first row."""
    if path.suffix != ".json":
        return False
    return all({"instruction", "output"} <= record.load().keys() for record in islice(records(path), 1))


def read_outputs(path: Path) -> list[Demonstration]:
    """The outputs of one model; ids are ``row-<number>``, an ``input`` follows its instruction.

    Raises:
        ValueError: A row lacks ``instruction`` or ``output`` (says which).
    """
    rows = []
    for record in records(path):
        fields = record.load()
        instruction, output = (_text(path, record.line, fields, name) for name in ("instruction", "output"))
        rows.append(
            Demonstration(id=f"row-{record.line}", prompt=_asked(instruction, fields), response=output, extra=fields)
        )
    return rows


def write_outputs(path: Path, rows: Sequence[tuple[Prompt, str]], *, generator: str) -> None:
    """Write (prompt, answer) as the outputs of ``generator``."""
    found = [{"instruction": prompt_text(p), "output": output, "generator": generator} for p, output in rows]
    write_json(path, found)


def read_annotations(path: Path) -> Annotations:
    """The pairs and verdicts of a file of annotations, by arm.

    Raises:
        ValueError: A row lacks a text; the file has several references, or several annotators.
    """
    paired: dict[str, list[Pair]] = {}
    rulings: dict[str, list[Ruling]] = {}
    references: dict[str, None] = {}
    annotators: dict[str, None] = {}
    for record in records(path):
        fields = record.load()
        instruction, first, second = (
            _text(path, record.line, fields, name) for name in ("instruction", "output_1", "output_2")
        )
        arm = str(fields.get("generator_2", "candidate"))
        references[str(fields.get("generator_1", "baseline"))] = None
        annotators[str(fields.get("annotator", path))] = None
        pairs = paired.setdefault(arm, [])
        pairs.append(
            Pair(
                id=f"row-{len(pairs) + 1}",
                prompt=_asked(instruction, fields),
                candidate=second,
                baseline=first,
                arm=arm,
            )
        )
        rulings.setdefault(arm, []).append(_ruling(fields.get("preference")))
    if len(references) != 1 or len(annotators) != 1:
        raise ValueError(
            f"{path} has the references {', '.join(references)} and the annotators {', '.join(annotators)}; give a "
            "file with one of each"
        )
    asked = {arm: [pair.prompt for pair in pairs] for arm, pairs in paired.items()}
    if len({json.dumps(prompts) for prompts in asked.values()}) != 1:
        raise ValueError(f"{path}: the models {', '.join(asked)} have not the same instructions in the same order")
    return Annotations(paired, rulings, JudgeIdentity(kind="annotations", name=next(iter(annotators))), *references)


def write_annotations(
    path: Path,
    paired: Mapping[str, Sequence[Pair]],
    rulings: Mapping[str, Sequence[Ruling]],
    *,
    annotator: str,
    baseline: str,
) -> None:
    """Write every ruling as an annotation; the preference of an invalid one is null."""
    write_json(
        path,
        [
            {
                "instruction": prompt_text(pair.prompt),
                "output_1": pair.baseline,
                "generator_1": baseline,
                "output_2": pair.candidate,
                "generator_2": arm,
                "annotator": annotator,
                "preference": 1 + ruling.score if ruling.valid else None,
            }
            for arm, pairs in paired.items()
            for pair, ruling in zip(pairs, rulings[arm], strict=True)
        ],
    )


def _ruling(preference: Any) -> Ruling:
    if not isinstance(preference, int | float) or (preference != 0 and not 1 <= preference <= 2):  # NaN included
        return Ruling(score=0.5, valid=False)
    return Ruling(score=preference - 1.0 if preference else 0.5)  # 0 was once the sign of a draw


def _asked(instruction: str, fields: Mapping[str, Any]) -> str:
    return f"{instruction}\n\n{fields['input']}" if fields.get("input") else instruction


def _text(path: Path, line: int, fields: dict[str, Any], name: str) -> str:
    value = fields.pop(name, None)
    if not isinstance(value, str):
        raise ValueError(f"{path}, row {line}: field {name!r} is {value!r}, where a text is due; mend the file")
    return value
