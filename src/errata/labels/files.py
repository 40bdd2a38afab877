"""Labels on file: JSON lines that name their schema and their tokenizer, so that they never meet the wrong one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from errata.data.encoding import Encoder
from errata.data.rows import read_lines, write_lines
from errata.labels.weights import check_weights
from errata.types import Encoded, Label, LabeledTokens, TokenLabels

__all__ = ["SCHEMA", "read_labels", "write_labels"]

_ORIGINAL = frozenset(Label) - {Label.INSERTED}
_EDITED = frozenset(Label) - {Label.DELETED, Label.OMISSION}

SCHEMA = 2
"""The version of the rows below; a reader refuses every other one."""


def write_labels(path: Path, labels: Iterable[TokenLabels], encoder: Encoder) -> None:
    """Write labels as ``.jsonl`` or ``.jsonl.gz``, wholly or not at all.

    A row is ``{id, schema, tokenizer, original, edited, reasons}`` and a side ``{text, ids, prompt_length, offsets,
    labels, ended, cut}``: ids of prompt and response, offsets and labels of the response tokens, end of sequence
    included. ``cut`` (tokens lost for length), ``reasons`` and ``weights`` (somebody's own, one a response token) stand
    where there are any.

    Args:
        path: where to.
        labels: what ``label`` gave.
        encoder: the encoder that ``label`` was given; the rows carry its fingerprint.
    """
    head = {"schema": SCHEMA, "tokenizer": encoder.fingerprint}
    write_lines(path, ({"id": row.id, **head, **_fields(row)} for row in labels))


def read_labels(path: Path, encoder: Encoder) -> list[TokenLabels]:
    """Read what ``write_labels`` wrote.

    Raises:
        ValueError: a row of another schema or another tokenizer than ``encoder``'s, or a damaged one; weights that are
            not one for each response token, not finite, or below zero on the original side.
    """
    rows: list[TokenLabels] = []
    seen = set[str]()
    for line, data in read_lines(path):
        try:
            row = _row(json.loads(data), encoder)
            if row.id in seen:
                raise ValueError(f"row {row.id!r} comes twice; the file is damaged: label again")
        except (KeyError, TypeError, ValueError) as error:
            reason = str(error)
            if isinstance(error, KeyError):
                reason = f"no field {error}; label again"
            elif isinstance(error, json.JSONDecodeError):
                reason = f"not whole ({error.msg} at character {error.pos}); the file is damaged: label again"
            raise ValueError(f"{path}, line {line}: {reason}") from error
        seen.add(row.id)
        rows.append(row)
    return rows


def _fields(row: TokenLabels) -> dict[str, Any]:
    reasons = {"reasons": row.reasons} if row.reasons else {}
    return {"original": _side(row.original), "edited": _side(row.edited), **reasons}


def _side(side: LabeledTokens) -> dict[str, Any]:
    cut = {"cut": side.encoded.cut} if side.encoded.cut else {}
    weights = {} if side.weights is None else {"weights": side.weights}
    return {
        "text": side.text,
        "ids": side.encoded.ids,
        "prompt_length": side.encoded.prompt_length,
        "offsets": side.encoded.offsets,
        "labels": side.labels,
        "ended": side.encoded.ended,
        **cut,
        **weights,
    }


def _row(row: dict[str, Any], encoder: Encoder) -> TokenLabels:
    fingerprint, size = encoder.fingerprint, len(encoder.tokenizer)
    name = f"row {row['id']!r}"
    if row["schema"] != SCHEMA:
        raise ValueError(f"{name} has schema {row['schema']!r} and this errata reads {SCHEMA}; label again with it")
    if row["tokenizer"] != fingerprint:
        raise ValueError(
            f"{name} was labelled with tokenizer and template {row['tokenizer']}, and these are {fingerprint}; "
            "label again with this tokenizer"
        )
    return TokenLabels(
        id=row["id"],
        original=_labeled(row["original"], _ORIGINAL, size, f"{name}, original"),
        edited=_labeled(row["edited"], _EDITED, size, f"{name}, edited"),
        reasons=tuple(row.get("reasons", ())),
    )


def _labeled(side: dict[str, Any], known: frozenset[int], size: int, name: str) -> LabeledTokens:
    encoded = Encoded(
        tuple(side["ids"]),
        side["prompt_length"],
        tuple((start, stop) for start, stop in side["offsets"]),
        side["ended"],
        side.get("cut", 0),
    )
    labels = tuple(side["labels"])
    tokens = len(encoded.response_ids)
    if not tokens == len(encoded.offsets) == len(labels) or not set(labels) <= known:
        raise ValueError(
            f"{name}: {len(labels)} labels and {len(encoded.offsets)} offsets for {tokens} response tokens, "
            f"labels {sorted(set(labels))}; the file is damaged: label again"
        )
    if not all(0 <= token < size for token in encoded.ids):
        raise ValueError(f"{name}: ids from {min(encoded.ids)} to {max(encoded.ids)} and {size} tokens; label again")
    return LabeledTokens(encoded, labels, side["text"], _weights(side.get("weights"), tokens, known, name))


def _weights(given: Any, tokens: int, known: frozenset[int], name: str) -> tuple[float, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != tokens:
        found = f"{len(given)} weights" if isinstance(given, list) else f"{given!r} as weights"
        raise ValueError(f"{name}: {found} for {tokens} response tokens; give a list of one for each, the end's too")
    try:
        check_weights(given, original=known is _ORIGINAL)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return tuple(map(float, given))
