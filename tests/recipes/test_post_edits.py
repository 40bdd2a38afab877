"""The recipe on a tiny world of post-edits, and two steps of it on a slice of the real ones where they are there."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from errata.data.rows import write_lines
from errata.reward import auc
from scripts import ROOT, load

REAL = ROOT.parent / "shared" / "data"
WORDS = ["river", "stone", "old", "green", "house", "market", "early", "train", "quiet", "letter"]
WRONG, RIGHT = "wrongly", "right"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load("recipes", "post_edits")


def sentence(number: int, lang: str, rng: random.Random) -> dict[str, Any]:
    """A source, and a translation in which one word is always wrong and its neighbour always superfluous."""
    clean = rng.sample(WORDS, rng.randrange(4, 8))
    at = rng.randrange(len(clean))
    flawed = [*clean[:at], WRONG, "indeed", *clean[at:]]
    edited = [*clean[:at], RIGHT, *clean[at:]]
    return {
        "id": f"{lang}-{number}",
        "lang": lang,
        "prompt": " ".join(word[::-1] for word in clean),
        "rejected": " ".join(flawed),
        "chosen": " ".join(edited),
        "word_tags": ["BAD" if word in (WRONG, "indeed") else "OK" for word in flawed],
    }


@pytest.fixture(scope="module")
def data(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)
    for name, langs, count in ((recipe.TRAIN, ["ro-en", "et-en"], 72), *((dev, ["x-en"], 20) for dev in recipe.DEV)):
        # The second dev file is another language pair.
        pairs = ["en-de"] if "en-de" in name else langs
        write_lines(folder / name, [sentence(k, pairs[k % len(pairs)], rng) for k in range(count)])
    return folder


def flags(data: Path, out: Path, **settings: object) -> list[str]:
    small = {"hidden-size": 32, "layers": 1, "vocabulary": 300, "heldout-rows": 16, "train-rows": 56} | settings
    return [f"--data={data}", f"--out={out}", *(f"--{key}={value}" for key, value in small.items())]


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run long enough to learn that two words are always struck out."""
    out = tmp_path_factory.mktemp("runs") / "post_edits"
    assert recipe.main(flags(data, out, **{"language-epochs": 2, "reward-epochs": 15})) == 0
    return out


def results(out: Path) -> dict[tuple[str, str], dict[str, float]]:
    summary = json.loads((out / "summary.json").read_text())
    return {(row["set"], row["scorer"]): row for row in summary["results"]}


def test_missing_data_is_skipped_with_a_word(
    recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe.main([f"--data={tmp_path / 'nowhere'}", f"--out={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "skipped" in said
    assert "--data" in said
    assert not (tmp_path / "out").exists()


def test_words_that_are_always_struck_out_are_found(finished: Path) -> None:
    found = results(finished)
    for pair in ("dev_x-en", "dev_en-de"):
        row = found[pair, "classes"]
        assert row["auc"] > 0.95
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
        assert row["mcc_low"] <= row["mcc"] <= row["mcc_high"]
        assert row["mcc"] > 0.5
        # The edit's own labels are the gold tags in this world, word for word.
        assert found[pair, "the edit itself"]["mcc"] == found[pair, "the edit itself"]["f1_bad"] == 1
        assert found[pair, "the edit itself"]["auc"] == 1


def test_prevalence_is_what_counting_gives(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for pair in ("dev_x-en", "dev_en-de"):
        share = summary["bad"][pair]
        assert share == pytest.approx(2 * 20 / summary["words"][pair])
        assert results(finished)[pair, "all BAD"]["f1_bad"] == pytest.approx(2 * share / (share + 1))
        assert results(finished)[pair, "random at the base rate"]["f1_bad"] == share


def test_each_objective_asked_for_is_a_scorer(
    recipe: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without classes, which the others are held against, there is nothing to hold."""
    given = flags(data, tmp_path, **{"language-epochs": 1, "reward-epochs": 1})
    assert recipe.main([*given, "--objectives", "soft", "changed_mean", "changed_sum"]) == 0
    scorers = [scorer for pair, scorer in results(tmp_path) if pair == "dev_x-en"]
    assert scorers[3:] == ["soft", "changed_mean", "changed_sum", "the edit itself"]
    assert json.loads((tmp_path / "summary.json").read_text())["auc_gains"] == []
    cards = {name: json.loads((tmp_path / "reward" / name / "errata.json").read_text()) for name in scorers[3:6]}
    assert len({card["fingerprint"] for card in cards.values()}) == 3
    with pytest.raises(SystemExit):
        recipe.main([*given, "--objectives", "none"])
    assert "none" in capsys.readouterr().err


def test_nothing_is_trained_on_heldout_rows(finished: Path) -> None:
    train, heldout = (
        {json.loads(line)["id"] for line in (finished / "edits" / f"{name}.jsonl").read_text().splitlines()}
        for name in ("train", "heldout")
    )
    assert [len(train), len(heldout)] == [56, 16]
    assert not train & heldout


def test_a_rerun_makes_only_what_is_not_there(
    recipe: ModuleType, data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((finished / "summary.json").read_text())
    model = finished / "reward" / "classes" / "model.safetensors"
    stamp = model.stat().st_mtime_ns
    (finished / "summary.json").unlink()
    assert recipe.main(flags(data, finished, **{"language-epochs": 2, "reward-epochs": 15})) == 0
    after = json.loads((finished / "summary.json").read_text())
    assert after["results"] == before["results"]
    assert model.stat().st_mtime_ns == stamp
    assert capsys.readouterr().out.count("already there") == 9


def test_a_folder_of_other_settings_is_refused(
    recipe: ModuleType, data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe.main(flags(data, finished, **{"language-epochs": 2, "reward-epochs": 14})) == 1
    assert "other settings" in capsys.readouterr().err


def test_word_tags_that_do_not_fit_are_named(recipe: ModuleType, finished: Path, data: Path, tmp_path: Path) -> None:
    row = recipe.read_corrections(finished / "edits" / "heldout.jsonl")[0]
    encoder = recipe.Encoder(recipe.load_tokenizer(finished / "data" / "blank"))
    encoded = encoder.encode(row.prompt, row.original)
    row.extra["word_tags"].pop()
    with pytest.raises(ValueError, match=f"row '{row.id}' has .* words and .* word_tags"):
        recipe.words_of([row], [encoded], [[0.0] * len(encoded.response_ids)])


def test_a_word_is_as_suspicious_as_its_most_suspicious_token(recipe: ModuleType) -> None:
    text = "A caté !"
    # "A", " ca", "t", both bytes of "é", a lone space, "!" and the end.
    offsets = [(0, 1), (1, 4), (4, 5), (5, 6), (5, 6), (6, 7), (7, 8), (8, 8)]
    scores = recipe.word_scores(text, offsets, [-1.0, 2.0, 4.0, 3.0, 9.0, 100.0, -3.0, 200.0])
    assert scores.tolist() == [-1.0, 9.0, -3.0]


def example(recipe: ModuleType) -> Any:
    rng = np.random.default_rng(0)
    # Few distinct scores, so that there are ties; sentences of different lengths.
    sentences = np.repeat(np.arange(6), [3, 1, 7, 4, 2, 5])
    return recipe.Words(rng.integers(0, 5, 22).astype(float), rng.random(22) < 0.4, sentences)


def test_auc_is_that_of_mann_whitney_on_each_resample(recipe: ModuleType) -> None:
    words = example(recipe)
    draws = recipe.resampled(6, seed=3)[:20]
    assert (draws[0] == 1).all()
    assert (draws.sum(1) == 6).all()
    assert draws[1:].min() == 0
    expected = []
    for draw in draws:
        # Each sentence as often as it was drawn, word by word.
        score = np.concatenate([np.tile(words.score[words.sentence == s], n) for s, n in enumerate(draw)])
        bad = np.concatenate([np.tile(words.bad[words.sentence == s], n) for s, n in enumerate(draw)])
        expected.append(auc(score[bad], score[~bad]))
    assert recipe.resampled_auc(words, draws) == pytest.approx(expected, nan_ok=True)


def test_mcc_is_the_correlation_and_f1_the_harmonic_mean(recipe: ModuleType) -> None:
    words = example(recipe)
    draws = np.array([[1] * 6, [2, 0, 0, 3, 1, 0]])
    tp, fp, fn, tn = recipe.confusion(words, 2.0, draws)
    assert (tp + fp + fn + tn).tolist() == [22, 2 * 3 + 3 * 4 + 2]
    called = words.score >= 2.0
    assert recipe.mcc(tp, fp, fn, tn)[0] == pytest.approx(np.corrcoef(called, words.bad)[0, 1])
    precision, recall = words.bad[called].mean(), called[words.bad].mean()
    assert recipe.f1(tp, fp, fn)[0] == pytest.approx(2 * precision * recall / (precision + recall))
    none = np.zeros(1)
    assert recipe.mcc(none, none, np.ones(1), np.ones(1)) == recipe.f1(none, none, none) == 0


def test_thresholds_are_the_best_of_all(recipe: ModuleType) -> None:
    words = example(recipe)
    one = np.ones((1, 6), np.int64)
    for_mcc, for_f1 = recipe.best_thresholds(words)
    tables = {value: recipe.confusion(words, value, one) for value in np.unique(words.score)}
    assert recipe.mcc(*tables[for_mcc]) == max(recipe.mcc(*table) for table in tables.values())
    assert recipe.f1(*tables[for_f1][:3]) == max(recipe.f1(*table[:3]) for table in tables.values())


def test_surprise_is_the_negative_logprob_whatever_the_batch(recipe: ModuleType, finished: Path) -> None:
    encoder = recipe.Encoder(recipe.load_tokenizer(finished / "data" / "blank"))
    model = recipe.load_causal(finished / "data" / "language")
    rows = [encoder.encode("source", "one"), encoder.encode("a longer source", "one two three")]
    with torch.no_grad():
        logits = model(torch.tensor([rows[0].ids])).logits.log_softmax(-1)[0]
    expected = [-float(logits[t - 1, rows[0].ids[t]]) for t in range(rows[0].prompt_length, len(rows[0].ids))]
    assert recipe.surprise(model, encoder.pad_id, rows)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.skipif(not REAL.exists(), reason="no ../shared/data: the real post-edits are not there")
def test_two_steps_on_real_post_edits(recipe: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "real"
    few = {"language-epochs": 1, "reward-epochs": 1, "train-rows": 64, "heldout-rows": 60, "dev-rows": 40}
    assert recipe.main(flags(REAL, out, **few)) == 0
    assert json.loads((out / "reward" / "eq3" / "errata.json").read_text())["steps"] == 2
    found = results(out)
    assert {pair for pair, _ in found} == {"dev_ro-en", "dev_et-en", "dev_en-de"}
    # errata's labels agree with the gold tags: what the reward model learns from is what it is measured on.
    assert all(row["mcc"] > 0.9 for (_, scorer), row in found.items() if scorer == "the edit itself")
