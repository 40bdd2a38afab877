"""A GGUF file is converted once, into a folder that its content names, and is then a model like any other."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from errata.cli import main
from errata.data import write_rows
from errata.data.encoding import load_encoder
from errata.models import identity, load_causal
from errata.pretrained import find_model
from errata.tuning import SFTConfig, train_sft
from pretrained.hub import offline, publish

pytest.importorskip("gguf", reason="gguf is not installed")
from pretrained.gguf_file import write_gguf  # which imports it

ROWS = tiny.demonstrations(8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ERRATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.Q4_1.gguf")


def test_it_is_converted_once_and_told(file: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_model(file)
    assert f"{file}: a GGUF file; its weights become float32, once, in {found.path}" in capsys.readouterr().err
    made = (found.path / "model.safetensors").stat().st_mtime_ns
    model: Any = load_causal(file)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert model.origin.reference == str(file)
    assert (found.path / "model.safetensors").stat().st_mtime_ns == made
    assert "a GGUF file" not in capsys.readouterr().err
    assert load_encoder(file).encode("cat", "cat").ids.count(load_encoder(file).tokenizer.vocab["cat"]) == 2


def test_its_content_tells_it_from_another(file: Path, tmp_path: Path, cache: Path) -> None:
    name, mark = identity(file)
    same, other = shutil.copy(file, tmp_path / "same.gguf"), write_gguf(tmp_path / "other.gguf", seed=1)
    assert name == str(file)
    assert identity(same)[1] == mark != identity(other)[1]
    find_model(file)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2, "one folder for each content"
    # Written over in its place it is another model.
    size = file.stat()
    shutil.copy(other, file)
    os.utime(file, ns=(size.st_atime_ns, size.st_mtime_ns + 1))
    assert identity(file)[1] == identity(other)[1]


def test_the_cache_is_where_the_environment_says(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERRATA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert find_model(file).path.parent == tmp_path / "xdg" / "errata" / "gguf"


def test_it_is_trained_and_saved_as_an_ordinary_folder(file: Path, tmp_path: Path) -> None:
    """As the folder that it was converted to is."""
    encoder, config = load_encoder(file), SFTConfig(epochs=1, batch_size=8, learning_rate=1e-3)
    train_sft(file, ROWS, encoder, config, tmp_path / "out")
    train_sft(shutil.copytree(find_model(file).path, tmp_path / "folder"), ROWS, encoder, config, tmp_path / "same")
    assert tiny.difference(tmp_path / "out", tmp_path / "same") == 0
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert "base_model: tiny.Q4_1.gguf\n" in (tmp_path / "out" / "README.md").read_text()
    assert train_sft(file, ROWS, encoder, config, tmp_path / "out")["rows"] == 8, "the same is reused"


def test_an_adapter_on_it_is_a_model(file: Path, tmp_path: Path) -> None:
    config = SFTConfig(epochs=1, batch_size=8, lora_rank=2, save="adapter")
    train_sft(file, ROWS, load_encoder(file), config, tmp_path / "out")
    assert find_model(tmp_path / "out").whole.path == find_model(file).path
    load_causal(tmp_path / "out")


def test_a_verb_takes_it(file: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", tiny.prompts(2))
    given = ["--prompts", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "out.jsonl"), "--max-new-tokens=3"]
    assert main(["generate", "--model", str(file), *given]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["generator"] for row in rows] == ["tiny.Q4_1.gguf"] * 2


def test_one_on_the_hub(file: Path, tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    shutil.copy(file, tmp_path / "repo" / "tiny.gguf")
    with offline(tmp_path / "hub"):
        publish(tmp_path / "hub", tmp_path / "repo", "v1", repo="acme/ggufs")
        assert find_model("acme/ggufs/tiny.gguf@v1").path == find_model(file).path
        with pytest.raises(ValueError, match=r"hf download acme/ggufs other.gguf --revision main"):
            find_model("acme/ggufs/other.gguf")


def test_a_damaged_file_and_one_in_a_folder(file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"bad.gguf could not be read as a GGUF file"):
        find_model(bad)
    (tmp_path / "folder").mkdir()
    shutil.copy(file, tmp_path / "folder")
    (tmp_path / "folder" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"give the file itself, .*tiny.Q4_1.gguf"):
        load_causal(tmp_path / "folder")


def test_without_the_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("errata.pretrained.gguf.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'errata\[gguf\]'"):
        find_model(file)
