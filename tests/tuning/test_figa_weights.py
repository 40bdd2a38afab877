"""Weights of any sign and size, given in place of the edit's, reach the loss as they are, whatever happens on the way.

Two processes: ``figa_weights`` in ``every_method``. Every layout of a batch: ``LAYOUTS`` in ``test_figa_twin``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import errata.tuning.figa as module
import tiny
from errata.cli import main
from errata.data import Encoder, write_rows
from errata.doctor.streams import own_batch, streams_of
from errata.labels import LabelRules, label, read_labels, write_labels
from errata.tuning import FIGAConfig, train_figa, weigh
from errata.tuning.figa import PAPER, collate_weighted
from errata.types import Correction, Label, TokenLabels
from tuning.every_method import StoppedError, patched, stopping_at

ENCODER = tiny.encoder()
ROW = Correction(
    id="a",
    prompt="say",
    original="rude red dog sits",
    edited="red cat sits here now",
    original_weights=((0, 4, 1e3), (5, 8, 1e-7)),
    edited_weights=((0, 3, -0.5), (4, 7, 1e3), (13, 17, 1e-7), (21, 21, -1e-7)),
)
EDITED = (-0.5, 1e3, 0.0, 1e-7, 0.0, -1e-7)
ORIGINAL = (1e3, 1e-7, 0.0, 0.0, 0.0)
CONFIG = FIGAConfig(
    learning_rate=1e-3, epochs=2, batch_size=8, micro_batch_size=8, save_every=2, gate=3.0, max_grad_norm=0.0
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("start"))


def own(count: int) -> list[TokenLabels]:
    return tiny.with_own_weights(tiny.labels(count, seed=4))


def test_weights_of_ones_own_stand_in_place_of_the_edits() -> None:
    pair = weigh(label(ROW, ENCODER), FIGAConfig())
    assert (pair.edited_weights, pair.original_weights) == (EDITED, ORIGINAL)


def test_a_side_without_weights_of_its_own_has_the_edits() -> None:
    plain = weigh(label(replace(ROW, original_weights=None, edited_weights=None), ENCODER), FIGAConfig(**PAPER))
    pair = weigh(label(replace(ROW, original_weights=None), ENCODER), FIGAConfig(**PAPER))
    assert (pair.edited_weights, pair.original_weights) == (EDITED, plain.original_weights)
    pair = weigh(label(replace(ROW, edited_weights=None), ENCODER), FIGAConfig(**PAPER))
    assert (pair.edited_weights, pair.original_weights) == (plain.edited_weights, ORIGINAL)
    pair = weigh(label(replace(ROW, edited_weights=(), original_weights=()), ENCODER), FIGAConfig(**PAPER))
    assert not pair.has_gradient, "no span is a weight of 0 on all, not the edit's"


def test_ignored_tokens_weigh_nothing_unless_somebody_says_so() -> None:
    thought = "<think> dog runs </think> "
    row = replace(ROW, original=thought + "rude cat", edited=thought + "cat", original_weights=None)
    labels = label(replace(row, edited_weights=None), ENCODER)
    assert Label.IGNORED in labels.edited.labels
    assert weigh(labels, FIGAConfig()).edited_weights == (0.0, 0.0, 0.0, 0.0, 0.5, 1.0)
    labels = label(replace(row, edited_weights=((8, 11, 2.0),)), ENCODER)
    assert Label.IGNORED in labels.edited.labels
    assert weigh(labels, FIGAConfig()).edited_weights == (0.0, 2.0, 0.0, 0.0, 0.0, 0.0)


def test_a_phrase_gives_its_weight_to_the_word_between() -> None:
    row = Correction(id="p", prompt="say", original="red dog sits here", edited="blue dog runs here")
    words, phrase = (
        weigh(label(row, ENCODER, LabelRules(unit=unit)), FIGAConfig(**PAPER)) for unit in ("word", "phrase")
    )
    assert (words.original_weights, words.edited_weights) == ((0.5, 0, 0.5, 0, 0), (1, 0, 1, 0, 1))
    assert (phrase.original_weights, phrase.edited_weights) == ((0.5, 0.5, 0.5, 0, 0), (1, 1, 1, 0, 1))


def test_they_survive_collation() -> None:
    """Each weight stands under its token, beside rows that are longer, whose padding has none."""
    longer = label(Correction(id="l", prompt="say one two", original="six " * 9, edited="six " * 7), ENCODER)
    inputs = collate_weighted(
        [weigh(row, FIGAConfig(**PAPER)) for row in (longer, label(ROW, ENCODER))], encoder=ENCODER
    )
    layout, weight_SK = inputs["layout"], inputs["weight_SK"]
    tokens = ENCODER.tokenizer.convert_ids_to_tokens
    read = iter(tokens(layout.target_N.tolist()))
    named_SK = [[next(read) if wanted else "" for wanted in line] for line in layout.wanted_SK.tolist()]
    for line, text, weights in ((1, ROW.edited, EDITED), (3, ROW.original, ORIGINAL)):
        named = [word if weight else "" for word, weight in zip([*text.split(), "</s>"], weights, strict=True)]
        assert named_SK[line][: len(named)] == named
        assert weight_SK[line, : len(weights)].tolist() == pytest.approx(weights, rel=1e-6)
        assert not weight_SK[line, len(weights) :].any()
        assert not any(named_SK[line][len(weights) :])


@pytest.mark.parametrize("length", range(4, 9))
def test_they_survive_truncation(length: int, tmp_path: Path) -> None:
    """They are cut with their tokens, the end's among them, and no other token takes their place."""
    short = Encoder(ENCODER.tokenizer, max_length=length, on_long="truncate")
    labels = label(ROW, short)
    assert labels.edited.weights == EDITED[: length - 2]
    assert labels.original.weights == ORIGINAL[: length - 2]
    write_labels(tmp_path / "labels.jsonl", [labels], short)
    assert read_labels(tmp_path / "labels.jsonl", short) == [labels]


def test_they_survive_accumulation(start: Path, tmp_path: Path) -> None:
    labels = own(21)
    cards = {
        micro: train_figa(start, labels, ENCODER, replace(CONFIG, micro_batch_size=micro), tmp_path / str(micro))
        for micro in (8, 2, 1)
    }
    for micro in (2, 1):
        assert cards[micro]["count"] == cards[8]["count"]
        assert cards[micro]["loss"] == pytest.approx(cards[8]["loss"], rel=1e-4)
        assert tiny.difference(tmp_path / "8", tmp_path / str(micro)) < 1e-5
    assert cards[8]["rows_with_own_weights"] == 21
    assert tiny.difference(tmp_path / "8", start) > 3e-4
    one_step = replace(CONFIG, epochs=1, batch_size=32, micro_batch_size=1, gate=1e9)
    card = train_figa(start, labels, ENCODER, one_step, tmp_path / "one step")
    sides = [side for row in labels for side in (row.original, row.edited)]
    assert card["count"] == sum(weight != 0 for side in sides for weight in side.weights or ()), "none is too small"


def test_they_survive_resume(start: Path, tmp_path: Path) -> None:
    labels = own(21)
    train_figa(start, labels, ENCODER, CONFIG, tmp_path / "whole")
    with pytest.raises(StoppedError), patched(module, "figa_step_loss", stopping_at(4, module.figa_step_loss)):
        train_figa(start, labels, ENCODER, CONFIG, tmp_path / "resumed")
    work = tmp_path / ".resumed.training"
    assert [folder.name for folder in work.glob("checkpoint-*")] == ["checkpoint-2"]
    train_figa(start, labels, ENCODER, CONFIG, tmp_path / "resumed")
    assert tiny.difference(tmp_path / "whole", tmp_path / "resumed") == 0


def test_other_weights_are_another_run(start: Path, tmp_path: Path) -> None:
    train_figa(start, own(9), ENCODER, CONFIG, tmp_path / "out")
    with pytest.raises(ValueError, match="was made by another run"):
        train_figa(start, tiny.labels(9, seed=4), ENCODER, CONFIG, tmp_path / "out")


def test_they_survive_the_command_line(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file of corrections, at once and by way of labels: the same model bit for bit. The view has them, too."""
    mine = [replace(ROW, id=str(k), prompt=prompt.prompt) for k, prompt in enumerate(tiny.prompts(5))]
    write_rows(tmp_path / "edits.jsonl", [*mine, *tiny.corrections(4)])
    edits, labels, model = f"--edits={tmp_path / 'edits.jsonl'}", tmp_path / "labels.jsonl", f"--model={start}"
    assert main(["labels", model, edits, f"--out={labels}"]) == 0
    settings = ["--learning-rate=1e-3", "--epochs=1", "--batch-size=4", "--micro-batch-size=2", "--gate=9"]
    for name, source in (("edits", edits), ("labels", f"--labels={labels}")):
        assert main(["tune", "figa", model, source, f"--out={tmp_path / name}", *settings]) == 0
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("edits", "labels")]
    assert models[0] == models[1]
    assert json.loads((tmp_path / "labels" / "errata.json").read_text())["rows_with_own_weights"] == 5
    capsys.readouterr()
    assert main(["view", model, f"--labels={labels}", "--show=weights", f"--out={tmp_path / 'view.html'}"]) == 0
    data = json.loads((tmp_path / "view.html").read_text().split('id="data">')[1].split("</script>")[0])
    assert {*EDITED, *(-weight for weight in ORIGINAL)} <= set(data["tables"]["weights"]["table"])
    report = tmp_path / "report.json"
    assert main(["doctor", model, f"--data={tmp_path / 'edits.jsonl'}", f"--out={report}"]) == 0
    figures = json.loads(report.read_text())["figures"]
    assert figures["weight_sum_before"] == pytest.approx(figures["weight_sum_after"])
    assert figures["weighted_tokens_before"] == figures["weighted_tokens_after"]


def test_the_doctor_sees_them() -> None:
    labels = label(ROW, ENCODER)
    streams = streams_of(labels, "figa", FIGAConfig())
    assert (streams.edited, streams.original) == (EDITED, tuple(-weight for weight in ORIGINAL))
    batch = own_batch([labels], "figa", ENCODER, FIGAConfig())
    for line, weights in enumerate((streams.edited, streams.original)):
        found = batch["weights"][line, 2 : 2 + len(weights)].tolist()
        assert found == pytest.approx(weights, rel=1e-6)
