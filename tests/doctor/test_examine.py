"""From corrections to a diagnosis: figures that can be counted by hand, and a finding for each thing that is wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from data.chats import CHATML, chat
from doctor import collators
from edits import tokenizers
from errata.data import Encoder
from errata.doctor import Diagnosis, ModelFacts, Severity, diagnosis_to_terminal, examine
from errata.labels import LabelRules
from errata.tuning import FIGAConfig
from errata.types import Correction, Encoded, TokenLabels, Unit

ENCODER = tiny.encoder()
ROWS = [
    Correction(id="a", prompt="say one two", original="rude one cat", edited="one dog sits here"),
    Correction(id="b", prompt="tell", original="two rude red cat runs", edited="two cat"),
    Correction(id="same", prompt="say six", original="six six", edited="six six"),
]
CONFIG = FIGAConfig(bad_weight=0.5, kept_weight=0.0)


def found(rows: list[Correction] | None = None, encoder: Encoder = ENCODER, **settings: Any) -> Diagnosis:
    return examine(ROWS if rows is None else rows, encoder, **{"config": CONFIG, **settings})


def one(original: str, edited: str, **more: Any) -> list[Correction]:
    return [Correction(id="x", prompt="say", original=original, edited=edited, **more)]


def test_figures_of_three_rows() -> None:
    figures = found(model=ModelFacts(vocabulary=18, positions=64)).figures
    assert figures["rows_in"] == figures["rows_trained"] == 3
    assert (figures["unchanged"], figures["without_label"], figures["without_gradient"]) == (1, 1, 0)
    # a: its four words and its end are good, its three words bad; b: its end is good, three words bad; same: its end.
    assert figures["weight_above_zero"] == 5 + 1 + 1
    assert figures["weight_below_zero"] == -0.5 * (3 + 3)
    assert figures["weighted_tokens"] == 7 + 6
    assert (figures["weight_sum_before"], figures["weight_sum_after"]) == (4, 4)
    assert (figures["ended"], figures["ended_with_weight"]) == (6, 3)
    assert figures["bos"] == {"1": 6}
    assert figures["longest"] == 1 + 3 + 5  # <s>, prompt, edited text, </s>
    assert figures["length_quantiles"]["0.5"] == 7
    assert (figures["positions"], figures["vocabulary"]) == (64, 18)
    assert figures["highest_id"] == 17
    # a has 4 edits over 4 words, b 3 over 5.
    assert figures["median_edit_ratio"] == pytest.approx((1 + 0.6) / 2)
    assert (figures["batches"], figures["sequences"]) == (1, 6)


def test_what_reads_no_labels_ignores_nothing() -> None:
    row = Correction(id="a", prompt="Say", original="<think>it</think> opens", edited="<think>it</think> never")
    for method, ignored in (("figa", True), ("sft", False), ("dpo", False)):
        figures = examine([row], Encoder(tokenizers.byte_level()), method=method).figures
        assert (figures["ignored_tokens"] > 0) == ignored


def test_by_method() -> None:
    sft = found(method="sft").figures
    assert (sft["weight_above_zero"], sft["weight_below_zero"], sft["sequences"]) == (5 + 3 + 3, 0, 3)
    dpo = found(method="dpo").figures
    assert (dpo["weight_above_zero"], dpo["weight_below_zero"]) == (4 + 3, -(3 + 6)), "the common first token cancels"
    assert (dpo["without_gradient"], dpo["rows_trained"]) == (1, 2)
    reward = found(method="reward").figures
    assert (reward["weight_above_zero"], reward["weight_below_zero"]) == (4, -(3 + 3))


def test_batches_are_as_long_as_asked_for_and_rows_may_stream() -> None:
    def rows() -> Iterator[Correction]:
        yield from ROWS * 1

    assert found(batch_size=2).figures["batches"] == 2
    assert examine(rows(), ENCODER, config=CONFIG, batch_size=2).figures == found(batch_size=2).figures


def test_a_sound_pipeline_is_safe_and_says_what_is_worth_knowing() -> None:
    diagnosis = found()
    assert diagnosis.safe
    assert diagnosis.names() == ("rewrites",)
    assert found(encoder=tiny.encoder(pad="</s>")).names() == ("rewrites", "pad_is_end")
    assert found(encoder=tiny.encoder(pad="</s>")).safe


@pytest.mark.parametrize(
    ("settings", "name", "severity"),
    [
        ({"rows": []}, "no_rows", "error"),
        ({"model": ModelFacts(vocabulary=17)}, "beyond_vocabulary", "error"),
        ({"model": ModelFacts(positions=8)}, "beyond_positions", "error"),
        ({"encoder": Encoder(tiny.tokenizer(), max_length=8)}, "too_long", "error"),
        ({"encoder": Encoder(tiny.tokenizer(), max_length=8, on_long="drop")}, "dropped", "warning"),
        ({"encoder": Encoder(tiny.tokenizer(), max_length=8, on_long="truncate")}, "truncated", "warning"),
        ({"encoder": Encoder(tiny.tokenizer(), max_length=4, on_long="truncate")}, "no_end_trained", "error"),
        ({"config": FIGAConfig(good_weight=0.0, kept_weight=0.0)}, "no_end_trained", "error"),
        ({"config": FIGAConfig(good_weight=0.1, kept_weight=0.0)}, "unlearns_more", "warning"),
        ({"rows": one("rude cat", "so cat")}, "unknown_in_changes", "warning"),
        ({"rows": one("so cat", "oh cat")}, "same_tokens", "error"),
        ({"rows": one("rude", "cat", original_ids=(12, 2))}, "sampled_ids_lie", "error"),
        ({"rows": one("rude </s>", "cat")}, "not_encoded", "error"),
        ({"rows": one("six", "six"), "method": "reward"}, "without_gradient", "note"),
        ({"rows": [*ROWS, replace(ROWS[2], id="again")]}, "duplicates", "warning"),
        ({"unreadable": [(7, "field 'prompt' is missing")]}, "unreadable", "warning"),
        ({"rows": one("cat sits", "cat sits 42")}, "inventions", "warning"),
        ({"collate": collators.drops_weights}, "weights_dropped", "error"),
    ],
    ids=lambda one: one if isinstance(one, str) else None,
)
def test_each_finding(settings: dict[str, Any], name: str, severity: str) -> None:
    diagnosis = found(**settings)
    (finding,) = [one for one in diagnosis.findings if one.name == name]
    assert finding.severity == severity
    assert finding.remedy
    assert "is None" not in str(finding)
    assert diagnosis.safe == (not diagnosis.of(Severity.ERROR))


@pytest.mark.parametrize(
    ("settings", "named", "not_named"),
    [
        ({"config": FIGAConfig(end_weight=0.0)}, "--end-weight", "--good-weight"),
        ({"config": FIGAConfig(good_weight=0.0)}, "--good-weight", "--max-length"),
        ({"encoder": Encoder(tiny.tokenizer(), max_length=4, on_long="truncate")}, "--max-length", "-weight"),
        ({"weights": lambda row: (None, [1.0] * (len(row.edited.labels) - 1) + [0.0])}, "hand in", "--"),
        ({"rows": one("rude", "cat", edited_weights=((0, 3, 1.0),))}, "own weights: [n, n, 1]", "--"),
    ],
)
def test_an_end_without_weight_names_what_took_it(settings: dict[str, Any], named: str, not_named: str) -> None:
    (finding,) = [one for one in found(**settings).findings if one.name == "no_end_trained"]
    assert named in finding.remedy
    assert not_named not in finding.remedy


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"good_weight": 0.1, "kept_weight": 0.0}, "lower --bad-weight, or raise --kept-weight or --good-weight"),
        ({"bad_weight": 0.0, "deleted_weight": 9.0}, "lower --deleted-weight, or raise --kept-weight or --good-weight"),
        ({"bad_weight": 9.0, "deleted_weight": 9.0}, "lower --bad-weight or --deleted-weight, or raise"),
    ],
)
def test_what_weighs_below_zero_is_what_is_to_be_lowered(settings: dict[str, float], remedy: str) -> None:
    (finding,) = [one for one in found(config=FIGAConfig(**settings)).findings if one.name == "unlearns_more"]
    assert finding.remedy.startswith(remedy)


def test_a_tokenizer_whose_offsets_lie_is_found() -> None:
    backend = Tokenizer(
        models.WordLevel({"</s>": 0, "<unk>": 1, "cat": 2, "dog": 3, "sits": 4, "ligature": 5}, "<unk>")
    )
    backend.normalizer = normalizers.Replace("&", "ligature")
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")

    class Lying(Encoder):
        def _tokenize(self, texts: Any) -> Any:
            return [(ids, [*offsets[1:], *offsets[:1]]) for ids, offsets in super()._tokenize(texts)]

    assert "offsets_lie" not in found(one("cat dog", "dog dog"), Encoder(tokenizer)).names()
    assert "offsets_lie" in found(one("cat dog", "dog dog"), Lying(tokenizer)).names()


def test_a_tokenizer_that_normalises_is_found() -> None:
    rows = one("The cat sat on the mat.", "The cat sat on the MAT; eat.")
    assert "text_not_writable" in found(rows, Encoder(tokenizers.word_piece())).names()
    assert "text_not_writable" not in found(rows, Encoder(tokenizers.byte_level())).names()
    assert "offsets_lie" not in found(rows, Encoder(tokenizers.word_piece())).names()
    assert "same_tokens" in found(one("the cat", "The cat"), Encoder(tokenizers.word_piece())).names()


def test_a_template_that_departs_is_found() -> None:
    stripping = CHATML.replace("m.content", "m.content | trim")
    assert stripping != CHATML
    rows = one(" one ", " two three ")
    assert "template" in found(rows, Encoder(chat(stripping, bos=None))).names()
    assert "template" not in found(rows, Encoder(chat(CHATML, bos=None))).names()


def test_sampled_ids_are_kept_and_a_collator_that_tokenises_again_is_found() -> None:
    tokenizer = tokenizers.byte_level()
    spelled = (*tokenizer.convert_tokens_to_ids(list("The")), tokenizer.eos_token_id)
    rows = [Correction(id="s", prompt="It opens at nine", original="The", edited="The cat sat", original_ids=spelled)]
    assert tokenizer("The")["input_ids"] != list(spelled[:-1])

    def again(features: list[Any]) -> dict[str, Any]:
        ids = [tokenizer(tokenizer.decode(one["input_ids"]))["input_ids"] for one in features]
        return {"input_ids": ids, "weights": [[1.0] * len(row) for row in ids]}

    encoder = Encoder(tokenizer)
    assert examine(rows, encoder).safe
    assert examine(rows, encoder, collate=collators.right).safe
    broken = examine(rows, encoder, collate=again, method="dpo")
    assert [one.rows for one in broken.findings if one.name == "tokenised_again"] == [1]
    assert "cut_silently" not in broken.names()


def test_double_bos_of_an_encoder_of_ones_own_is_found() -> None:
    class Doubling(Encoder):
        def encode_all(self, *arguments: Any) -> list[Encoded | ValueError]:
            rows = super().encode_all(*arguments)
            return [Encoded((1, *row.ids), row.prompt_length + 1, row.offsets, row.ended) for row in rows]

    doubled = found(encoder=Doubling(tiny.tokenizer()))
    assert "double_bos" in doubled.names()
    assert doubled.figures["bos"] == {"2": 6}


def test_weights_of_ones_own() -> None:
    def weights(row: TokenLabels) -> tuple[None, list[float]]:
        return None, [0.5] * len(row.edited.labels)

    figures = found(weights=weights).figures
    assert (figures["weight_above_zero"], figures["sequences"]) == (0.5 * 11, 3)
    assert found(weights=weights, collate=collators.right).safe
    assert "weights_dropped" in found(weights=weights, collate=collators.drops_weights).names()
    with pytest.raises(ValueError, match="row 'a': 1 weights for 5 response tokens"):
        found(weights=lambda row: (None, [1.0]))


def test_token_unit_says_how_often_it_labels_otherwise() -> None:
    assert "token_or_word" not in found().figures
    figures = found(rules=LabelRules(unit=Unit.TOKEN)).figures["token_or_word"]
    assert (figures["rows"], figures["tokens"], figures["share"]) == (3, 24, 0.0)


def test_rows_with_a_finding_are_shown_first() -> None:
    def drops_last(features: list[Any]) -> dict[str, Any]:
        return collators.right(features[:-1])

    rows = [*ROWS, Correction(id="last", prompt="say", original="one", edited="one two")]
    assert [row.labels.id for row in found(rows).rows] == ["a", "b", "last"]
    assert found(rows, collate=drops_last).rows[0].labels.id == "last"


def test_the_terminal_shows_figures_rows_findings_and_the_verdict() -> None:
    def shown(diagnosis: Diagnosis) -> str:
        console = Console(file=io.StringIO(), width=200)
        console.print(diagnosis_to_terminal(diagnosis))
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    text = shown(found())
    assert "safe to train: 0 errors, 1 warnings" in text
    assert "weight in the loss" in text
    assert "rows trained" in text
    broken = shown(found(collate=collators.drops_weights, rules=LabelRules(unit=Unit.TOKEN)))
    assert "✗ error   the batch has no weights" in broken
    assert "not safe to train: 1 errors" in broken
    assert "nothing" not in shown(found([])).splitlines()[-1]
    hostile = one("rude \x1b[31m", "cat \x1b[31m")
    assert "\x1b[31m" not in shown(found(hostile, Encoder(tokenizers.byte_level())))


def test_the_report_is_json() -> None:
    report = json.loads(json.dumps(found(rules=LabelRules(unit=Unit.TOKEN), model=ModelFacts(positions=8)).as_dict()))
    assert report["safe"] is False
    assert report["findings"][0]["name"] == "beyond_positions"
    assert report["findings"][0]["rows"] == 1
    assert report["findings"][0]["what"].endswith("up to 9 tokens, of 8")
