from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from errata.runs import claim_folder, new_file, new_folder


def fail_after_writing(partial: Path) -> None:
    partial.write_text("half of the n")
    raise KeyError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.jsonl"
    with new_file(target) as partial:
        partial.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert names(target.parent) == ["a.jsonl"]


def test_an_error_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    target.write_text("old")
    with pytest.raises(KeyError), new_file(target) as partial:
        fail_after_writing(partial)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.jsonl"], "an error leaves nothing half-written behind"
    target.with_name(".a.jsonl.partial").write_text("of a run that was killed")
    with new_file(target) as partial:
        partial.write_text("new")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.jsonl"], "what a stopped run left is overwritten, not piled up"


def test_a_folder_takes_the_place_of_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    for content in ("one", "two"):
        with new_folder(target) as partial:
            (partial / content).write_text(content)
    assert names(target) == ["two"]
    assert names(target.parent) == ["model"]


def test_an_error_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with new_folder(target) as partial:
        (partial / "old").touch()
    with pytest.raises(KeyError), new_folder(target) as partial:
        fail_after_writing(partial / "leftover")
    assert names(target) == ["old"]
    with new_folder(target) as partial:
        assert names(partial) == [], "what a stopped run left is in nobody's way"
    assert names(target) == []


def test_a_kill_between_the_renames_leaves_nothing_rather_than_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    with new_folder(target) as partial:
        (partial / "old").touch()
    replace = os.replace

    def killed(source: Any, destination: Any) -> None:
        if destination == target:
            raise KeyboardInterrupt
        replace(source, destination)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), new_folder(target) as partial:
        (partial / "new").touch()
    assert not target.exists()
    monkeypatch.undo()
    with new_folder(target) as partial:
        (partial / "new").touch()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["model"]


def test_a_folder_is_claimed_for_one_setting_of_everything(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    claim_folder(folder, {"rows": (300, 1000), "data": Path("a")})
    claim_folder(folder, {"data": Path("a"), "rows": [300, 1000]})
    before = (folder / "settings.json").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run with other settings \(rows\); delete it, or give another --out"):
        claim_folder(folder, {"rows": (300,), "data": Path("a")})
    assert (folder / "settings.json").read_bytes() == before
