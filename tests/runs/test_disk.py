"""A disk that is full: which file, why, and what to do, whoever wrote it. A limit of size stands in for it."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from errata.cli import main
from errata.data import write_rows
from errata.runs import Metrics, NotWritten, new_file, new_folder, writing
from workflows import toy

TOLD = "could not be written: "
REMEDY = "; free some space, and rerun the same command"


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may be larger than this; Python ignores the signal, and the write fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_text_and_what_libraries_write(tmp_path: Path) -> None:
    tensor, path = torch.zeros(5000), tmp_path / "file"
    for write in (
        lambda: path.write_text("x" * 20_000),
        lambda: save_file({"a": tensor}, path),
        lambda: torch.save(tensor, path),
    ):
        with room_for(9000), pytest.raises(NotWritten) as found, writing(tmp_path / "what"):
            write()
        assert str(found.value).startswith(f"{tmp_path / 'what'} {TOLD}")
        assert str(found.value).endswith(REMEDY)


def test_the_innermost_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with (
        room_for(9000),
        pytest.raises(NotWritten, match=f"{tmp_path}/.a.partial/b.txt {TOLD}File too large"),
        new_folder(tmp_path / "a") as folder,
        new_file(folder / "b.txt") as partial,
    ):
        partial.write_text("x" * 20_000)
    assert not (tmp_path / "a").exists()


def test_a_line_of_metrics(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", last_step=-1, writes=True)
    with room_for(3), pytest.raises(NotWritten, match=f"{tmp_path}/metrics.jsonl {TOLD}"):
        metrics.add({"step": 1})


def test_errors_of_others_pass_through(tmp_path: Path) -> None:
    """That an input may not be read is not the output's fault; nor is a damaged archive a full disk."""
    hidden = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "input.csv"))
    with pytest.raises(PermissionError) as found, new_file(tmp_path / "out"):
        raise hidden
    assert found.value is hidden
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04half")
    with pytest.raises(RuntimeError, match="PytorchStreamReader"), writing(tmp_path / "out"):
        torch.load(tmp_path / "half.pt")


def test_a_place_that_may_not_be_written(tmp_path: Path) -> None:
    partial = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".out.partial"))
    expected = f"{tmp_path}/out {TOLD}Permission denied; name another place"
    with pytest.raises(NotWritten, match=expected), new_file(tmp_path / "out"):
        raise partial


def test_what_is_renamed_is_on_the_disk_before_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_sync(opened: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{opened}")).name)
        fsync(opened)

    def noted_rename(source: Path, target: Path) -> None:
        done.append(f"→ {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    with new_file(tmp_path / "a") as path:
        path.write_text("x")
    assert done == [".a.partial", "→ a", tmp_path.name]
    done.clear()
    with new_folder(tmp_path / "b") as folder:
        (folder / "in").mkdir()
        (folder / "in" / "file").write_text("x")
    assert done == ["file", "in", ".b.partial", "→ b", tmp_path.name]


def test_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a checkpoint, which the Trainer writes, and at the end."""
    model = tiny.llama(tmp_path / "model")
    write_rows(tmp_path / "edits.jsonl", tiny.corrections(8))
    command = [*["tune", "sft", "--epochs", "2", "--batch-size", "4", "--micro-batch-size", "4"], "--model", str(model)]
    command += ["--data", str(tmp_path / "edits.jsonl"), "--out", str(tmp_path / "out")]
    for size, every in ((4000, "1"), (4000, "100")):
        with room_for(size):
            assert main([*command, "--save-every", every]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"errata: {tmp_path / 'out'} {TOLD}")
        assert said.endswith(REMEDY)
        assert not (tmp_path / "out").exists()


def test_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.log(tmp_path / "log.csv")
    model = tiny.llama(tmp_path / "model")
    with room_for(9000):
        assert main(["learn", f"{tmp_path}/log.csv", f"--model={model}", f"--out={tmp_path}/run"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"errata: {tmp_path}/run/log/rows.jsonl {TOLD}File too large{REMEDY}"
