"""The study's own arithmetic by hand, and the whole of it on tiny worlds with a few arms."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from errata.demo.editor import correct
from errata.demo.world import make_prompts
from errata.types import Encoded, Label, LabeledTokens, Preference, TokenLabels
from scripts import load

KEPT, INSERTED, DELETED = Label.KEPT, Label.INSERTED, Label.DELETED


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    module = load("recipes", "figa_study")
    # Short responses of two methods and one variation show all there is to see.
    module.DemoConfig = partial(module.DemoConfig, max_new_tokens=6)
    methods = ("DPO on preferences", "FIGA")
    module.CHOSEN = {name: module.CHOSEN[name] for name in methods}
    module.TRIES = {"FIGA": module.TRIES["FIGA"][:4]}
    module.FURTHER = module.FURTHER[:1]
    every = module.variations
    module.variations = lambda: {name: every()[name] for name in (module.AT_MORE_ROWS[-1],)}
    return module


def flags(out: Path, **settings: object) -> list[str]:
    small = {"seeds": 2, "wide-seeds": 2, "prompts": 9, "heldout": 2, "start-responses": 32, "workers": 1}
    lists = ["--rows", "3", "9", "--varied", "3", "6"]
    return [f"--out={out}", *(f"--{key}={value}" for key, value in (small | settings).items()), *lists]


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "study"
    assert recipe.main(flags(out)) == 0
    return out


@pytest.mark.slow
def test_a_whole_run_has_all_figures(recipe: ModuleType, finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["start"]["gone"] == [0, 0, 0]
    assert set(summary["methods"]) == set(recipe.CHOSEN)
    assert set(summary["variations"]) == {"as chosen", "signal: bag of words"}
    assert all(
        {rows: one["seeds"] for rows, one in found.items()} == {"3": 2, "9": 2} for found in summary["methods"].values()
    )
    for found in summary["variations"].values():
        assert {rows: one["seeds"] for rows, one in found.items()} == {"3": 2, "6": 2}
    assert summary["methods"]["FIGA"]["3"] == summary["variations"]["as chosen"]["3"]
    assert summary["methods"]["FIGA"]["3"]["greedy_less"] == [0, 0, 0]
    worth = summary["worth"]
    preferred = [worth[f"{what}, DPO"] for what in ("3 preferences", "9 preferences", "9 preferences without noise")]
    assert [one["typed"] for one in preferred] == [0, 0, 0]
    assert 0 < preferred[0]["read"] < preferred[1]["read"] == preferred[2]["read"]
    half, all_of_it = (worth[f"3 {what}corrections, FIGA"] for what in ("", "thorough "))
    assert half["read"] == all_of_it["read"] > 0
    assert 0 < half["typed"] < all_of_it["typed"]
    assert not list(finished.glob("seed-*/arms/*/"))  # no model is kept


@pytest.mark.slow
def test_thorough_corrections_leave_nothing(recipe: ModuleType, finished: Path) -> None:
    run = recipe.seed_run(recipe.Settings(out=finished, prompts=9, heldout=2, start_responses=32), 0)
    thorough, half = run.edits("thorough"), run.edits("start")
    assert [row.original for row in thorough] == [row.original for row in half]
    assert sum(recipe.edit_cost(row.prompt, row.edited) for row in thorough) == 0
    assert sum(recipe.edit_cost(row.prompt, row.edited) for row in half) > 0


@pytest.mark.slow
def test_a_rerun_makes_nothing_and_other_settings_are_refused(
    recipe: ModuleType, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arm = next(finished.glob("seed-0/arms/figa*.json"))
    before, stamp = (finished / "summary.json").read_text(), arm.stat().st_mtime_ns
    assert recipe.main(flags(finished)) == 0
    assert ((finished / "summary.json").read_text(), arm.stat().st_mtime_ns) == (before, stamp)
    assert recipe.main(flags(finished, heldout=3)) == 1
    assert "other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_the_search_has_seeds_of_its_own(
    recipe: ModuleType, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe.main([*flags(finished), "--search"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 1 + 4 + 2 + 2
    # All tries on few rows, the best three of each method on more, on another seed.
    assert {path.name for path in finished.glob("seed-1??")} == {"seed-100", "seed-101"}
    assert len(list((finished / "seed-100/arms").glob("* 3 *.json"))) == 5
    assert len(list((finished / "seed-101/arms").glob("* 6 *.json"))) == 3
    assert sum(line.endswith("|  |  |  |") for line in table) == 1


def test_all_methods_get_as_many_tries() -> None:
    module = load("recipes", "figa_study")
    assert {len({arm.name for arm in tries}) for tries in module.TRIES.values()} == {8}
    assert set(module.TRIES) == set(module.CHOSEN)
    for name, arm in module.CHOSEN.items():
        assert arm in module.TRIES[name]


def test_each_variation_changes_something_else() -> None:
    module = load("recipes", "figa_study")
    names = [arm.name for arm in (module.CHOSEN["FIGA"], *module.variations().values())]
    assert len(set(names)) == len(names)


def test_preferences_without_noise_are_of_fewer_defects(recipe: ModuleType) -> None:
    prompt = str(make_prompts(1, random.Random(0))[0].prompt)
    clean = correct(prompt, "", random.Random(0))
    texts = {"chosen": "", "rejected": clean, "chosen_ids": (1,), "rejected_ids": (2, 3)}
    row = Preference(id="a", prompt=prompt, **texts)
    found = recipe.without_noise(row)
    assert (found.chosen, found.chosen_ids, found.rejected, found.rejected_ids) == (clean, (2, 3), "", (1,))
    assert recipe.without_noise(found) is found
    tie = replace(row, rejected="")
    assert recipe.without_noise(tie) is tie


def side(*ids: int) -> LabeledTokens:
    return LabeledTokens(Encoded((9, *ids), 1, (), True), (KEPT,) * len(ids), "")


def test_a_bag_of_words_sees_no_order(recipe: ModuleType) -> None:
    row = TokenLabels(id="", original=side(1, 2, 1, 3, 1, 0), edited=side(3, 1, 4, 4, 0))
    found = recipe.bag_of_words(row)
    assert found.original.labels == (KEPT, DELETED, DELETED, KEPT, DELETED, KEPT)
    assert found.edited.labels == (KEPT, KEPT, INSERTED, INSERTED, KEPT)
    assert found.original.encoded == row.original.encoded
