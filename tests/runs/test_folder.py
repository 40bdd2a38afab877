"""Stages and finished folders are what was written, or an error that names the file and says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from errata.runs import CARD, Damaged, RunFolder, StageFolder, new_folder, read_json, sums_of, write_json, write_sums
from errata.runs.schedule import Stage, run_stages

SETTINGS = {"seed": 0}


def write(text: str, path: Path) -> None:
    path.write_text(text)


def write_two(path: Path) -> None:
    with new_folder(path) as folder:
        write("rows\n" * 9, folder / "rows.jsonl")
        write("{}", folder / "counts.json")


def stages(out: Path) -> list[Stage]:
    beside = out / "edits/aside.jsonl"

    def edit(path: Path) -> None:
        write("aside", beside)
        write("edits", path)

    return [
        Stage(out / "split", (), "two files", write_two),
        Stage(out / "edits/edits.jsonl", (), "a file, and one beside it", edit, also=(beside,)),
    ]


def run(out: Path) -> list[str]:
    """The stages that are made now."""
    (out / "edits").mkdir(parents=True, exist_ok=True)
    made: list[str] = []
    run_stages(
        stages(out),
        out=out,
        settings=SETTINGS,
        workers=1,
        console=Console(quiet=True),
        done=lambda stage, _: made.append(stage.path.name),
    )
    return made


def test_what_is_there_as_it_was_written_is_not_made_again(tmp_path: Path) -> None:
    assert run(tmp_path) == ["split", "edits.jsonl"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run(tmp_path) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    check = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert check.returncode == 0
    assert check.stdout.count(": OK") == 4


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("split/rows.jsonl", "split"),
        ("split/counts.json", "split"),
        ("edits/edits.jsonl", "edits/edits.jsonl"),
        ("edits/aside.jsonl", "edits/edits.jsonl"),
    ],
)
def test_a_file_that_was_cut_or_is_gone_is_named_and_the_remedy_works(file: str, stage: str, tmp_path: Path) -> None:
    run(tmp_path)
    whole = (tmp_path / file).read_text()
    (tmp_path / file).write_text(whole[:1])
    remedy = f"delete {tmp_path / stage}, and rerun the same command to make it again"
    with pytest.raises(Damaged, match=f"{tmp_path / file} is not what was written there .1 bytes now.; {remedy}"):
        run(tmp_path)
    if file != stage:
        (tmp_path / file).unlink()
        with pytest.raises(Damaged, match=f"{tmp_path / file} is missing; {remedy}"):
            run(tmp_path)
    path = tmp_path / stage
    (path / "rows.jsonl").unlink(missing_ok=True) if path.is_dir() else path.unlink()
    if path.is_dir():
        (path / "counts.json").unlink(missing_ok=True)
        path.rmdir()
    assert run(tmp_path) == [path.name]
    assert (tmp_path / file).read_text() == whole


def test_a_file_that_is_noted_nowhere_is_taken_as_it_is(tmp_path: Path) -> None:
    """Of a kill before the note, of an older run, or put there on purpose."""
    run(tmp_path)
    (tmp_path / "edits/edits.jsonl").write_text("better ones")
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines(keepends=True)
    (tmp_path / "SHA256SUMS").write_text("".join(line for line in lines if "edits" not in line))
    assert run(tmp_path) == []
    assert (tmp_path / "SHA256SUMS").read_text().count("edits/") == 2


def test_a_list_of_digests_that_was_cut_is_an_error(tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / "SHA256SUMS"
    path.write_text("half of a dig")
    with pytest.raises(Damaged, match=f"{path} is damaged; delete it"):
        run(tmp_path)


def test_a_stage_that_is_made_anew_forgets_what_it_was(tmp_path: Path) -> None:
    folder, path = StageFolder(tmp_path), tmp_path / "a.txt"
    assert folder.make(path, partial(write, "one"))
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        folder.make(path, lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    write("of a kill between the file and its note", path)
    assert StageFolder(tmp_path).is_made(path)


def finished(out: Path) -> RunFolder:
    with new_folder(out) as folder:
        write("weights " * 9, folder / "model.safetensors")
        write("a card", folder / "README.md")
        write_json(folder / CARD, {"fingerprint": "abc"})
        write_sums(folder, sums_of(folder, [folder / "model.safetensors", folder / CARD]))
    return RunFolder(out, "abc")


def test_a_finished_folder_is_compared_with_its_digests(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = finished(out)
    assert run.is_finished()
    write("my own words", out / "README.md")
    assert run.is_finished()
    write("weights", out / "model.safetensors")
    with pytest.raises(Damaged, match=rf"{out}/model.safetensors is not what .* delete {out}, and rerun"):
        run.is_finished()
    (out / "model.safetensors").unlink()
    with pytest.raises(Damaged, match=r"model\.safetensors is missing"):
        run.is_finished()
    (out / CARD).write_text('{"finger')
    with pytest.raises(ValueError, match=f"{out / CARD} is damaged"):
        run.is_finished()


def test_a_folder_of_before_there_were_digests_is_taken(tmp_path: Path) -> None:
    run = finished(tmp_path / "out")
    (tmp_path / "out" / "SHA256SUMS").unlink()
    assert run.is_finished()


def test_work_of_another_run_is_deleted_and_its_own_is_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out", "abc")
    assert not run.begin()
    (run.work / "step-2").mkdir()
    assert run.begin()
    assert (run.work / "step-2").exists()
    assert not RunFolder(tmp_path / "out", "other").begin()
    assert not (run.work / "step-2").exists()


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": 1})[:-2])
    with pytest.raises(ValueError, match=f"{tmp_path / 'a.json'} is damaged .*; delete it, and rerun the command that"):
        read_json(tmp_path / "a.json")


def test_runs_imports_next_to_nothing() -> None:
    program = "import sys, errata.runs; print(*{'torch', 'numpy', 'rich', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"
