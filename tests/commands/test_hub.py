"""``--push-to-hub``: refused before training where it could not end well, and never at the cost of the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny
from errata.cli import main
from errata.data import write_rows


class Hub:
    """What is called, and what it says."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.private, self.fails = True, ""

    def __call__(self, token: str | None = None) -> Any:
        self.calls.append(("token", {"token": token}))
        return self

    def create_repo(self, name: str, **how: Any) -> None:
        self.calls.append(("create", {"name": name, **how}))

    def repo_info(self, name: str) -> Any:
        return type("Info", (), {"private": self.private})

    def upload_folder(self, **how: Any) -> str:
        if self.fails:
            raise OSError(self.fails)
        self.calls.append(("upload", how))
        return f"https://hub/{how['repo_id']}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", found)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return found


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    tiny.llama(tmp_path / "start")
    write_rows(tmp_path / "edits.jsonl", tiny.corrections(8))
    flags = [f"--model={tmp_path / 'start'}", f"--out={tmp_path / 'out'}", "--epochs=1", "--batch-size=8"]
    return [*flags, "--push-to-hub=acme/tuned"]


def edits(given: list[str], tmp_path: Path) -> list[str]:
    return ["tune", "figa", f"--edits={tmp_path / 'edits.jsonl'}", *given]


def test_the_finished_folder_is_uploaded_private(
    hub: Hub, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(edits(given, tmp_path)) == 0
    names = [name for name, _ in hub.calls]
    assert names == ["token", "create", "upload"]
    assert hub.calls[0][1] == {"token": "hf_secret"}
    assert hub.calls[1][1] == {"name": "acme/tuned", "private": True, "exist_ok": True}
    assert hub.calls[2][1]["folder_path"] == tmp_path / "out"
    assert "https://hub/acme/tuned" in capsys.readouterr().out
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"hf_secret" not in path.read_bytes(), path
    # The same command again trains nothing and pushes again; where it is pushed is no part of the run.
    made = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert main([*edits(given, tmp_path), "--push-to-hub=acme/other"]) == 0
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == made
    assert hub.calls[-1][1]["repo_id"] == "acme/other"


def test_every_verb_that_trains_pushes(hub: Hub, given: list[str], tmp_path: Path) -> None:
    data = f"--data={tmp_path / 'edits.jsonl'}"
    for number, verb in enumerate((["tune", "sft"], ["tune", "dpo"], ["reward", "train"])):
        assert main([*verb, data, *given, f"--out={tmp_path / str(number)}"]) == 0
        assert hub.calls[-1][1]["folder_path"] == tmp_path / str(number)


def test_a_push_that_fails_leaves_the_model(
    hub: Hub, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fails = "the Hub is down"
    assert main(edits(given, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "is finished and whole, but was not pushed to acme/tuned (the Hub is down); rerun the same command" in said
    assert f"`hf upload acme/tuned {tmp_path / 'out'} . --private`" in said
    assert (tmp_path / "out" / "model.safetensors").exists()
    hub.fails = ""
    assert main(edits(given, tmp_path)) == 0


def test_what_is_public_is_not_written_to_unasked(
    hub: Hub, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.private = False
    assert main(edits(given, tmp_path)) == 1
    assert "it is there already, and public; give --hub-public" in capsys.readouterr().err
    assert "upload" not in dict(hub.calls)
    assert main([*edits(given, tmp_path), "--hub-public"]) == 0
    assert dict(hub.calls)["create"]["private"] is False


def test_an_adapter_on_a_local_base_is_told(
    hub: Hub, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*edits(given, tmp_path), "--lora-rank=2", "--save=adapter"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"its adapter names a base of this machine, {tmp_path / 'start'}: others cannot load it" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tuned", "names no owner; give owner/tuned"),
        ("a/b/c", "is no name on the Hub"),
        ("acme/tu ned", "is no name on the Hub"),
    ],
)
def test_a_name_that_is_none(
    name: str, words: str, hub: Hub, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*edits(given, tmp_path), f"--push-to-hub={name}"]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "before training"


def test_without_a_token_or_a_hub(
    hub: Hub, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.get_token", lambda: None)
        assert main(edits(given, tmp_path)) == 1
        assert (
            "--push-to-hub needs a token that may write: set HF_TOKEN or run `hf auth login`" in capsys.readouterr().err
        )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(edits(given, tmp_path)) == 1
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert main([*edits(given[:-1], tmp_path), "--hub-public"]) == 1
    assert "--hub-public is of --push-to-hub" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
