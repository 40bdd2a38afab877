"""The recipe's own arithmetic by hand, and two steps of the whole of it on tiny worlds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from errata.data.rows import write_lines
from errata.demo.world import make_prompts
from errata.reward import auc
from errata.types import Correction, Encoded, Label, LabeledTokens, Rollout, TokenLabels
from scripts import load

WORDS = ["river", "stone", "old", "green", "house", "market", "early", "train", "quiet", "letter"]
KEPT, DELETED, OMISSION = Label.KEPT, Label.DELETED, Label.OMISSION


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    module = load("recipes", "omissions")
    # Two arms show all there is to see in two steps.
    module.ARMS = {name: module.ARMS[name] for name in ("figa", "figa_elsewhere")}
    return module


def sentence(number: int, lang: str, rng: random.Random) -> dict[str, Any]:
    """A translation with one word wrong and one left out, or only the latter; tags as the field makes them."""
    clean = rng.sample(WORDS, rng.randrange(5, 9))
    gap, wrong = rng.randrange(len(clean) - 2), len(clean) - 2
    flawed = clean[:gap] + clean[gap + 1 :]
    tags = ["OK"] * len(flawed)
    if number % 2 and wrong - 1 not in (gap - 1, gap):
        flawed[wrong - 1], tags[wrong - 1] = "wrongly", "BAD"
    return {
        "id": f"{lang}-{number}",
        "lang": lang,
        "prompt": " ".join(word[::-1] for word in clean),
        "rejected": " ".join(flawed),
        "chosen": " ".join(clean),
        "word_tags": tags,
        "gap_tags": ["BAD" if k == gap else "OK" for k in range(len(flawed) + 1)],
    }


@pytest.fixture(scope="module")
def data(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)
    write_lines(folder / recipe.TRAIN, [sentence(k, ("ro-en", "et-en")[k % 3 == 2], rng) for k in range(90)])
    for name, lang in zip(recipe.DEV, ("ro-en", "en-de"), strict=True):
        write_lines(folder / name, [sentence(k, lang, rng) for k in range(20)])
    return folder


def flags(data: Path, out: Path, **settings: object) -> list[str]:
    small = {"seeds": 1, "prompts": 12, "heldout": 4, "start-responses": 32, "tag-seeds": 1, "train-rows": 48}
    small |= {"vocabulary": 300, "hidden-size": 32, "layers": 1, "dev-rows": 15}
    return [f"--data={data}", f"--out={out}", *(f"--{key}={value}" for key, value in (small | settings).items())]


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "omissions"
    assert recipe.main(flags(data, out)) == 0
    return out


@pytest.mark.slow
def test_a_whole_run_has_all_figures(recipe: ModuleType, finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for decoding in ("greedy", "sampled"):
        rows = {(row["arm"], row["figure"]): row for row in summary[decoding]}
        assert {arm for arm, _ in rows} == {"start", *recipe.ARMS}
        assert rows["start", "win"]["mean"] == 0.5
        assert {arm for (arm, _), row in rows.items() if "gain" in row} == {
            arm for arm, settings in recipe.ARMS.items() if settings.baseline != arm
        }
    for seed in summary["labels"]:
        blamed = {name: seed[name]["original_omission"] for name in recipe.LABELS}
        assert blamed["start"] == 0 < blamed["blame"] == blamed["elsewhere"]
    assert summary["auc"][0]
    assert set(summary["gaps"][0]) == {"words", "gaps", "gaps between OK words"}
    assert (finished / "demo/seed-0/tuning/figa_elsewhere/errata.json").exists()
    assert set(summary["rule"]) == {
        f"{pair}, {ties}" for pair in ("ro-en", "en-de") for ties in ("tagger", "departure")
    }


@pytest.mark.slow
def test_marks_are_the_gold_gaps_of_the_tiny_world(finished: Path) -> None:
    for found in json.loads((finished / "summary.json").read_text())["rule"].values():
        assert found["BAD"] == 15
        assert found["BAD, both words OK"] == 15
        assert found["precision"] == found["recall"] == found["f1"] == 1
        assert found["marks within a word"] == found["BAD and the token after it stays kept"] == 0


@pytest.mark.slow
def test_a_rerun_makes_nothing_and_other_settings_are_refused(
    recipe: ModuleType, data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = finished / "demo/seed-0/tuning/figa_elsewhere/model.safetensors"
    before, stamp = (finished / "summary.json").read_text(), model.stat().st_mtime_ns
    assert recipe.main(flags(data, finished)) == 0
    assert ((finished / "summary.json").read_text(), model.stat().st_mtime_ns) == (before, stamp)
    assert recipe.main(flags(data, finished, prompts=13)) == 1
    assert "other settings" in capsys.readouterr().err


def test_missing_tags_are_said_and_left_out(
    recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe.main([*flags(tmp_path / "nowhere", tmp_path / "out", seeds=0)]) == 0
    assert "no gap tags" in capsys.readouterr().out


def test_tags_that_do_not_fit_are_named(recipe: ModuleType, data: Path, tmp_path: Path) -> None:
    row = sentence(0, "ro-en", random.Random(1))
    row["gap_tags"].pop()
    for name in recipe.DEV:
        write_lines(tmp_path / name, [row])
    with pytest.raises(ValueError, match=r"row 'ro-en-0' of .* other tags"):
        recipe.dev_rows(recipe.Settings(data=tmp_path))


def test_elsewhere_blames_as_many_kept_tokens_and_none_after_a_gap(recipe: ModuleType) -> None:
    labels = [KEPT, OMISSION, DELETED, KEPT, KEPT, OMISSION, KEPT]
    seen: set[int] = set()
    for seed in range(50):
        found = recipe.elsewhere(labels, random.Random(seed))
        blamed = {k for k, name in enumerate(found) if name == OMISSION}
        assert len(blamed) == 2
        assert [name for k, name in enumerate(found) if k not in blamed] == [
            DELETED if k == 2 else KEPT for k in range(7) if k not in blamed
        ]
        seen |= blamed
    assert seen == {0, 3, 4, 6}


def encoded(*offsets: tuple[int, int]) -> Encoded:
    return Encoded(tuple(range(len(offsets) + 2)), 2, offsets, True)


def test_the_token_after_a_gap_holds_the_first_character_of_the_next_word(recipe: ModuleType) -> None:
    # "A", " ca", "t", a lone space, "é" in two bytes, "!", and the end.
    row = Correction(
        id="", prompt="", original="A cat é!", edited="", extra={"word_tags": ["OK", "BAD", "OK"], "gap_tags": []}
    )
    found = recipe.tokens_after_gaps(row, encoded((0, 1), (1, 4), (4, 5), (5, 6), (6, 7), (6, 7), (7, 8), (8, 8)))
    assert found == [0, 1, 4, 7]
    assert recipe.lone(row) == [True, False, False, True]


def test_openings_are_the_first_tokens_of_sentences(recipe: ModuleType) -> None:
    text = "Hi Ann. Go."
    assert recipe.openings(text, encoded((0, 2), (2, 6), (6, 7), (7, 10), (10, 11), (11, 11))) == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_figures_count_what_is_missing(recipe: ModuleType) -> None:
    row = str(make_prompts(1, random.Random(0))[0].prompt)
    whole = recipe.correct(row, "", random.Random(0))
    cut = whole[: whole.rindex(".", 0, -1) + 1]
    texts = (whole, cut, "", whole + whole[len(cut) :])  # the last closes twice
    found = recipe.figures([rollout(row, text) for text in texts], [rollout(row, cut)] * 4)
    assert found["no closing"] == [0, 1, 1, 0]
    assert found["closing"] == [0, 1, 1, 1]
    assert found["win"] == [1, 0.5, 0, 0.5]
    assert found["missing"][:2] == [0, 0]
    assert found["missing"][2] >= 4
    assert found["tokens"] == [len(text.split()) for text in texts]
    assert found["edit cost"][0] == 0 < found["edit cost"][1] < found["edit cost"][2]


def rollout(prompt: str, text: str) -> Rollout:
    ids = tuple(range(len(text.split())))
    return Rollout(id="", prompt=prompt, prompt_ids=(), response_ids=ids, text=text, ended=True)


def test_tokens_after_gaps_are_compared_with_their_like(recipe: ModuleType) -> None:
    text = "Hi. Go. By."
    offsets = ((0, 2), (2, 3), (3, 6), (6, 7), (7, 10), (10, 11), (11, 11))
    kinds = [
        (KEPT, KEPT, OMISSION, KEPT, KEPT, DELETED, KEPT),
        (KEPT, KEPT, KEPT, KEPT, KEPT, KEPT, OMISSION),
    ]
    rows = [
        TokenLabels(
            id=str(k),
            original=LabeledTokens(encoded(*offsets), tuple(labels), text),
            edited=LabeledTokens(encoded((0, 1)), (KEPT,), "x"),
        )
        for k, labels in enumerate(kinds)
    ]
    rewards = [[-1.0, 3.0, -2.0, 3.0, -3.0, -9.0, -4.0], [1.0, 3.0, -2.5, 3.0, 1.0, -7.0, -5.0]]
    found = recipe.demo_aucs(lambda _: rewards, rows, np.ones((2, 2), np.int64))
    suspicion = -np.array(rewards)
    kept = suspicion[np.array(kinds) == KEPT]
    gaps = [suspicion[0, 2], suspicion[1, 6]]
    assert found["bad, kept"][0] == auc([suspicion[0, 5]], kept)
    assert found["after a gap, kept"][0] == auc(gaps, kept)
    others = [suspicion[0, 0], suspicion[0, 4], *suspicion[1, [0, 2, 4]]]
    assert found["sentence after a gap, other sentences"][0] == auc(gaps[:1], others) == pytest.approx(3 / 5)
    assert found["end after a gap, other ends"][0] == 1


def test_differences_are_paired_and_from_the_arms_own_baseline(recipe: ModuleType) -> None:
    seeds = [
        {"start": {"missing": [9.0, 9.0]}, "figa": {"missing": [1.0, 3.0]}, "blame": {"missing": [0.0, 2.0]}},
        {"start": {"missing": [8.0, 6.0]}, "figa": {"missing": [5.0, 0.0]}, "blame": {"missing": [4.0, 1.0]}},
    ]
    rows = {row["arm"]: row for row in recipe.differences(seeds, {"figa": "figa", "blame": "figa"})}
    assert rows["start"] == {"arm": "start", "figure": "missing", "mean": 8.0}
    assert rows["figa"] == {"arm": "figa", "figure": "missing", "mean": 2.25}
    assert rows["blame"]["mean"] == 1.75
    assert rows["blame"]["gain"] == -0.5
    assert rows["blame"]["seeds"] == [-1.0, 0.0]
    low, high = rows["blame"]["interval"]
    assert low == -1
    assert -0.5 < high <= 0.5
    assert recipe.differences([], {"figa": "figa"}) == []


def test_the_gain_is_drawn_for_both_alike(recipe: ModuleType) -> None:
    draws = {"a": np.array([0.5, 0.2, 0.4]), "b": np.array([0.75, 0.3, 0.5])}
    found = recipe.compared({name: {"gaps": one, "no": one * np.nan} for name, one in draws.items()}, "a", "b")
    assert set(found) == {"gaps"}
    assert found["gaps"]["gain"] == 0.25
    assert found["gaps"]["interval"] == pytest.approx([0.1, 0.1])


def test_pairs_that_only_add_are_counted_apart(recipe: ModuleType) -> None:
    def row(label: Label, original: int, edited: int) -> TokenLabels:
        sides = [Encoded((0, 0, reward), 2, ((0, 1),), False) for reward in (original, edited)]
        return TokenLabels(
            id="", original=LabeledTokens(sides[0], (label,), "a"), edited=LabeledTokens(sides[1], (KEPT,), "a")
        )

    rows = [row(OMISSION, 1, 2), row(DELETED, 2, 1), row(KEPT, 3, 5)]
    reward = lambda texts: [[float(one.ids[-1])] for one in texts]  # noqa: E731
    assert recipe.pairs(reward, rows) == {"all": pytest.approx(2 / 3), "only insertions": 1}
    assert recipe.pairs(reward, rows[1:2]) == {"all": 0}
