from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from edits.tokenizers import byte_level, metaspace
from errata.data import Encoder
from errata.labels import SCHEMA, label_all, read_labels, write_labels
from errata.types import Correction, TokenLabels

PAIRS = [("The bad cat\r\n", "The cat"), ("", "new 😀\u2028\x85\x00"), ("שלום", "שלום e\u0301\t"), ("same", "same")]


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(byte_level())


@pytest.fixture
def labels(encoder: Encoder) -> list[TokenLabels]:
    rows = [Correction(id=f"r{k}", prompt="é?", original=a, edited=b) for k, (a, b) in enumerate(PAIRS)]
    return list(label_all(rows, encoder))


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz"])
def test_round_trip(tmp_path: Path, encoder: Encoder, labels: list[TokenLabels], name: str) -> None:
    write_labels(tmp_path / name, iter(labels), encoder)
    assert read_labels(tmp_path / name, encoder) == labels
    before = (tmp_path / name).read_bytes()
    write_labels(tmp_path / name, labels, encoder)
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_few_rows_have_is_kept(tmp_path: Path, encoder: Encoder) -> None:
    short = Encoder(encoder.tokenizer, max_length=8, on_long="truncate")
    row = Correction(id="r", prompt="é?", original="The bad cat sat", edited="The cat", reasons=("wrong", "own tag"))
    labels = list(label_all([row], short))
    assert labels[0].original.encoded.cut > 0
    assert labels[0].reasons == ("wrong", "own tag")
    write_labels(tmp_path / "labels.jsonl", labels, short)
    assert read_labels(tmp_path / "labels.jsonl", short) == labels


def test_weights_of_ones_own(tmp_path: Path, encoder: Encoder, labels: list[TokenLabels]) -> None:
    """As ``label`` wrote them, and as somebody adds them to the file; rows without any are as they were."""
    path = tmp_path / "labels.jsonl"
    write_labels(path, labels, encoder)
    before = path.read_bytes().splitlines()
    tokens = len(labels[2].edited.labels)
    spoil(path, lambda row: row["edited"].update(weights=[-1e3, 1e-7, *[0] * (tokens - 3), 0.1]))
    found = read_labels(path, encoder)
    assert found[2].edited.weights == (-1e3, 1e-7, *[0.0] * (tokens - 3), 0.1)
    assert [row.edited.weights for row in found if row is not found[2]] == [None] * 3
    assert {row.original.weights for row in found} == {None}
    write_labels(path, found, encoder)
    assert read_labels(path, encoder) == found
    assert [k for k, line in enumerate(path.read_bytes().splitlines()) if line != before[k]] == [2]


def test_what_a_row_holds(tmp_path: Path, encoder: Encoder, labels: list[TokenLabels]) -> None:
    write_labels(tmp_path / "labels.jsonl", labels, encoder)
    row = json.loads((tmp_path / "labels.jsonl").read_bytes().split(b"\n")[0])
    assert list(row) == ["id", "schema", "tokenizer", "original", "edited"]
    assert list(row["edited"]) == ["text", "ids", "prompt_length", "offsets", "labels", "ended"]
    assert row["schema"] == SCHEMA == 2
    assert row["tokenizer"] == encoder.fingerprint
    assert row["original"]["text"] == "The bad cat\r\n"
    assert row["original"]["ids"] != row["edited"]["ids"]


@pytest.mark.parametrize(
    "other", [Encoder(metaspace()), Encoder(byte_level(), template="Q: {prompt}\nA: ")], ids=["tokenizer", "template"]
)
def test_another_encoder(tmp_path: Path, encoder: Encoder, labels: list[TokenLabels], other: Encoder) -> None:
    write_labels(tmp_path / "labels.jsonl", labels, encoder)
    expected = rf"line 1: row 'r0' .* {encoder.fingerprint}, .* {other.fingerprint}; label again with this tokenizer"
    with pytest.raises(ValueError, match=expected):
        read_labels(tmp_path / "labels.jsonl", other)


def spoil(path: Path, change: Any) -> None:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    change(rows[2])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(schema=1), r"line 3: row 'r2' has schema 1 and this errata reads 2; label again"),
        (lambda row: row.pop("schema"), r"line 3: no field 'schema'; label again"),
        (lambda row: row["edited"]["labels"].pop(), r"line 3: row 'r2', edited: .*; the file is damaged: label again"),
        (lambda row: row["original"]["offsets"].pop(), r"line 3: row 'r2', original: .*damaged"),
        (lambda row: row["original"]["ids"].pop(), r"line 3: row 'r2', original: .*damaged"),
        (
            lambda row: row["original"]["labels"].__setitem__(0, 6),
            r"line 3: row 'r2', original: .*labels \[0, 6\].*damaged",
        ),
        (lambda row: row["edited"].pop("ended"), r"line 3: no field 'ended'"),
        (lambda row: row["original"]["labels"].__setitem__(0, 1), r"line 3: row 'r2', original: .*labels \[0, 1\]"),
        (lambda row: row["edited"]["labels"].__setitem__(0, 4), r"line 3: row 'r2', edited: .*labels \[0, 1?,? ?4\]"),
        (
            lambda row: row["edited"]["ids"].__setitem__(0, 999),
            r"line 3: row 'r2', edited: ids from 2 to 999",
        ),
        *(
            (lambda row, side=side, weights=weights: row[side].update(weights=weights(row[side]["labels"])), message)
            for side, weights, message in [
                (
                    "edited",
                    lambda labels: [1.0] * (len(labels) - 1),
                    r"'r2', edited: .* give a list of one for each, the",
                ),
                ("original", lambda labels: [1.0] * (len(labels) + 1), r"'r2', original: \d+ weights for \d+ response"),
                ("edited", lambda labels: 1.0, r"'r2', edited: 1.0 as weights for"),
                (
                    "edited",
                    lambda labels: [math.nan] * len(labels),
                    r"'r2', edited: weight nan is no number of at most 1,000,000",
                ),
                (
                    "original",
                    lambda labels: ["1"] * len(labels),
                    r"'r2', original: weight '1' is no number of at most 1,000,000",
                ),
                ("original", lambda labels: [-1e-7] * len(labels), r"'r2', original: weight -1e-07 is below zero"),
            ]
        ),
        (lambda row: row.update(id="r1"), r"line 3: row 'r1' comes twice; the file is damaged: label again"),
    ],
)
def test_damaged_rows(tmp_path: Path, encoder: Encoder, labels: list[TokenLabels], change: Any, message: str) -> None:
    path = tmp_path / "labels.jsonl"
    write_labels(path, labels, encoder)
    spoil(path, change)
    with pytest.raises(ValueError, match=message):
        read_labels(path, encoder)


def test_a_torn_file(tmp_path: Path, encoder: Encoder, labels: list[TokenLabels]) -> None:
    path = tmp_path / "labels.jsonl"
    write_labels(path, labels, encoder)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"labels.jsonl, line 4: not whole .* the file is damaged: label again"):
        read_labels(path, encoder)
