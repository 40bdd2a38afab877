"""The main job end to end at a toy size: files, resumption, the report. Whether anything is learned: tests/learning."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from errata.data import read_corrections, read_preferences
from errata.demo.pipeline import run_demo
from errata.demo.recipe import ARMS, DemoConfig
from errata.demo.stages import SeedRun
from errata.models import load_causal, read_card
from errata.winrate import read_summary

pytestmark = pytest.mark.slow

TINY = DemoConfig(
    prompts=24,
    heldout=10,
    curve_prompts=4,
    start_responses=64,
    start_epochs=1.0,
    ppo_steps=1,
    max_new_tokens=12,
    workers=1,
)


def numbers(path):
    """The summary without times."""
    summary = json.loads(path.read_text())
    for arm in summary["arms"]:
        del arm["seconds"]
    for curve in summary["curves"]:
        for point in curve["points"]:
            del point["seconds"]
    return summary


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = replace(TINY, out=tmp_path_factory.mktemp("demo") / "run")
    run_demo(config, Console(quiet=True))
    return config


def test_the_run_folder_uses_the_rooms_names(finished):
    rooms = {path.name for path in (finished.out / "seed-0").iterdir()}
    assert rooms == {"data", "edits", "labels", "reward", "tuning", "winrate"}


def test_the_summary_has_every_arm_decoded_both_ways(finished):
    summary = json.loads((finished.out / "winrate" / "summary.json").read_text())
    assert [arm["name"] for arm in summary["arms"]] == list(ARMS)
    keys = {"win_rate", "ci_low", "ci_high", "mean_defects", "edit_cost", "mean_length", "kl", "well_formed"}
    for arm in summary["arms"]:
        assert keys <= arm["sampled"].keys()
        assert keys <= arm["greedy"].keys()
    start = summary["arms"][0]
    assert start["greedy"]["win_rate"] == 0.5
    assert start["sampled"]["kl"] == 0
    assert {curve["arm"] for curve in summary["curves"]} == {arm for arm in ARMS if "ppo" in arm}
    assert summary["data"]["rejected"] == TINY.prompts


def test_the_report_is_one_file_that_asks_the_network_for_nothing(finished):
    page = (finished.out / "report.html").read_text()
    assert "figa_ppo_token" in page
    assert "src=" not in page
    assert "<script" not in page


def test_the_edited_are_the_rejected_with_their_sampled_ids(finished):
    folder = finished.out / "seed-0"
    preferences = {row.id: row for row in read_preferences(folder / "data" / "preferences.jsonl")}
    for row in read_corrections(folder / "edits" / "start.jsonl"):
        assert row.original == preferences[row.id].rejected
        assert row.original_ids == preferences[row.id].rejected_ids is not None


def test_every_arm_but_the_last_starts_from_the_start(finished):
    run = SeedRun(finished, 0)
    start = dict(load_causal(finished.out / "seed-0" / "data" / "start").named_parameters())
    for arm in ARMS[1:]:
        path = finished.out / "seed-0" / run.model_path(arm)
        assert read_card(path)["stage"] in ("sft", "dpo", "figa", "ppo")
        moved = [name for name, p in load_causal(path).named_parameters() if not p.equal(start[name])]
        assert moved, arm


def test_a_rerun_changes_nothing_and_makes_nothing(finished):
    before = (finished.out / "winrate" / "summary.json").read_text()
    stamp = (finished.out / "seed-0" / "tuning" / "figa" / "model.safetensors").stat().st_mtime_ns
    run_demo(finished, Console(quiet=True))
    assert (finished.out / "winrate" / "summary.json").read_text() == before
    assert (finished.out / "seed-0" / "tuning" / "figa" / "model.safetensors").stat().st_mtime_ns == stamp


def test_stages_that_are_gone_are_made_again_to_the_same_numbers(finished, tmp_path):
    again = replace(finished, out=tmp_path / "again")
    shutil.copytree(finished.out, again.out)
    for gone in ("tuning/figa", "edits/figa.jsonl", "labels/figa.jsonl", "reward/token_figa", "tuning/figa_ppo_token"):
        path = again.out / "seed-0" / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("figa", "figa_ppo_token"):
        (again.out / "seed-0" / "winrate" / "responses" / f"{name}.jsonl").unlink()
        (again.out / "seed-0" / "winrate" / f"{name}.json").unlink()
    run_demo(again, Console(quiet=True))
    assert numbers(again.out / "winrate" / "summary.json") == numbers(finished.out / "winrate" / "summary.json")


def test_what_a_study_takes_of_the_road_comes_with_all_that_it_is_made_of(tmp_path):
    run = SeedRun(DemoConfig(out=tmp_path), 0)
    names = [stage.path.relative_to(run.folder).as_posix() for stage in run.stages_for("labels/start.jsonl")]
    assert names == [
        "data/start",
        "data/prompts.jsonl",
        "data/preferences.jsonl",
        "edits/start.jsonl",
        "labels/start.jsonl",
    ]
    assert run.stages_for() == []


def test_other_settings_are_refused(finished):
    with pytest.raises(ValueError, match="other settings"):
        run_demo(replace(finished, prompts=25), Console(quiet=True))


def command(out: Path, workers: int) -> list[str]:
    settings = vars(replace(TINY, out=out, workers=workers))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return [
        sys.executable,
        "-c",
        "import sys; from errata.cli import main; sys.exit(main())",
        "demo",
        *flags,
    ]


def test_kill_9_in_the_middle_changes_no_number(finished, tmp_path):
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(out, 2), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (out / "seed-0" / "reward" / "token").exists():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    # The workers of the killed run notice that they are orphans, and write no more.
    time.sleep(1)
    run_demo(replace(finished, out=out), Console(quiet=True))
    assert numbers(out / "winrate" / "summary.json") == numbers(finished.out / "winrate" / "summary.json")


def test_seeds_may_be_added(finished, tmp_path):
    more = replace(finished, out=tmp_path / "more", seeds=2)
    shutil.copytree(finished.out, more.out)
    run_demo(more, Console(quiet=True))
    summary = read_summary(more.out / "winrate" / "summary.json")
    assert summary.seeds == (0, 1)
    figa = next(arm for arm in summary.arms if arm.name == "figa")
    assert figa.sampled.per_seed is not None
    assert len(figa.sampled.per_seed.win_rate) == 2
