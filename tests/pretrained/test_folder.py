"""One function says what a model reference is; a Hub id is the commit that it names, a folder what its files hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny
from client.servers import chat_model
from errata.cli import main
from errata.client import Ask, open_chat
from errata.data import write_rows
from errata.data.encoding import load_encoder
from errata.models import identity, load_causal, load_policy, read_card
from errata.pretrained import find_model, folder, is_hub_id
from errata.tuning import SFTConfig, train_sft
from pretrained.hub import REPO, offline, publish

ONE_STEP = SFTConfig(epochs=1, batch_size=8, learning_rate=1e-3)
ROWS = tiny.demonstrations(8)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Yesterday's model and today's."""
    path = tmp_path_factory.mktemp("sources")
    old, new = chat_model(path / "old"), chat_model(path / "new")
    found = tiny.weights(new)
    found["model.norm.weight"] *= 2
    save_file(found, new / "model.safetensors", metadata={"format": "pt"})
    return old, new


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    with offline(tmp_path / "hub"):
        yield tmp_path / "hub"


def test_a_hub_id_is_its_commit(sources: tuple[Path, Path], cache: Path) -> None:
    first = publish(cache, sources[0], "main", "v1")
    assert identity(REPO) == identity(f"{REPO}@main") == identity(f"{REPO}@v1") == [REPO, first]
    second = publish(cache, sources[1])
    assert identity(REPO) == [REPO, second] != [REPO, first]
    assert identity(Path(f"{REPO}@v1")) == identity(f"{REPO}@{first}") == [REPO, first]
    for revision, source in (("", sources[1]), ("@v1", sources[0]), (f"@{first}", sources[0])):
        model: Any = load_causal(f"{REPO}{revision}")
        assert torch.equal(model.model.norm.weight, tiny.weights(source)["model.norm.weight"]), revision


def test_a_moved_revision_is_another_model(sources: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    first = publish(cache, sources[0])
    card = train_sft(REPO, ROWS, load_encoder(REPO), ONE_STEP, tmp_path / "out")
    assert card["base_commit"] == first
    assert train_sft(REPO, ROWS, load_encoder(REPO), ONE_STEP, tmp_path / "out") == card, "the same is reused"
    publish(cache, sources[1])
    with pytest.raises(ValueError, match="was made by another run"):
        train_sft(REPO, ROWS, load_encoder(REPO), ONE_STEP, tmp_path / "out")
    assert train_sft(f"{REPO}@{first}", ROWS, load_encoder(REPO), ONE_STEP, tmp_path / "out") == card


def test_an_adapter_names_its_base_and_commit(sources: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    first = publish(cache, sources[0], "v1")
    config = SFTConfig(epochs=1, batch_size=8, lora_rank=2)
    train_sft(f"{REPO}@v1", ROWS, load_encoder(f"{REPO}@v1"), config, tmp_path / "out")
    noted = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (noted["base_model_name_or_path"], noted["revision"]) == (REPO, first)
    assert f"base_model: {REPO}\n" in (tmp_path / "out" / "README.md").read_text()
    texts = [path.read_text() for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".md", ".jsonl")]
    assert not any(str(cache) in text for text in texts), "nothing saved names a place in somebody's cache"


def test_a_local_folder_of_that_name_wins(
    sources: tuple[Path, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(cache, sources[0])
    assert is_hub_id(REPO)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sources[1], tmp_path / REPO)
    assert not is_hub_id(REPO)
    assert find_model(REPO).repo is None


@pytest.mark.parametrize("reference", [REPO, f"{REPO}@v9"])
def test_offline_and_not_in_the_cache(reference: str, cache: Path) -> None:
    for ask in (identity, load_causal, load_encoder, read_card):
        with pytest.raises(ValueError, match=r"config\.json") as caught:
            ask(reference)
        repo, _, revision = reference.partition("@")
        assert repo in str(caught.value)
        assert f"`hf download {repo} --revision {revision or 'main'}`" in str(caught.value)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_offline_and_half_in_the_cache(lost: str, sources: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    shutil.copytree(sources[0], tmp_path / "half")
    (tmp_path / "half" / lost).unlink()
    publish(cache, tmp_path / "half", "v1")
    with pytest.raises(ValueError, match=lost) as caught:
        (load_encoder if lost == "tokenizer.json" else load_causal)(f"{REPO}@v1")
    assert REPO in str(caught.value)
    assert f"`hf download {REPO} --revision v1`" in str(caught.value) or lost == "tokenizer.json"


@pytest.mark.parametrize("reference", ["nothing", "a/b/c", "/no/such/folder", "owner/na me", "owner/name@", "./x"])
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(ValueError, match=r"there is no model folder .*; give a local folder, a GGUF file, or"):
        find_model(reference)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="a file is no model folder"):
        find_model(tmp_path / "rows.jsonl")


def test_every_verb_takes_a_hub_id(sources: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    """Those that train take it as ``sft`` above does, by the same loader."""
    publish(cache, sources[0], "v1")
    model = f"{REPO}@v1"
    write_rows(tmp_path / "edits.jsonl", tiny.corrections(24))
    write_rows(tmp_path / "prompts.jsonl", tiny.prompts(3))
    edits, few, out = str(tmp_path / "edits.jsonl"), ["--epochs=1", "--batch-size=24"], str(tmp_path / "out")
    for verb in (
        ["doctor", "--data", edits, "--template", "{prompt}"],
        ["labels", "--edits", edits, "--out", f"{out}.jsonl"],
        ["view", "--edits", edits],
        ["edits", "diff", "--data", edits, "--unit", "token", "--out", f"{out}.diff.jsonl"],
        [
            "generate",
            "--prompts",
            str(tmp_path / "prompts.jsonl"),
            "--out",
            f"{out}.drafts.jsonl",
            "--max-new-tokens=3",
        ],
        ["reward", "train", "--data", edits, "--out", f"{out}.reward", *few],
        ["tune", "figa", "--edits", edits, "--out", f"{out}.figa", *few],
        ["tune", "dpo", "--data", edits, "--out", f"{out}.dpo", *few],
    ):
        assert main([*verb, "--model", model]) == 0, verb
    drafts = [json.loads(line) for line in Path(f"{out}.drafts.jsonl").read_text().splitlines()]
    assert len(drafts) == 3
    assert read_card(Path(f"{out}.figa"))["base_commit"] == find_model(model).commit


def test_a_contest_and_a_chat_take_a_hub_id(
    sources: tuple[Path, Path], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = publish(cache, sources[0])
    write_rows(tmp_path / "edits.jsonl", tiny.corrections(4))
    contest = ["winrate", "--references", str(tmp_path / "edits.jsonl"), "--max-new-tokens=3", "--temperature=0"]
    assert main([*contest, "--candidate", REPO, "--baseline", str(sources[0])]) == 0
    assert "tiny-1.5" in capsys.readouterr().out
    assert main([*contest, "--candidate", "no/rows.jsonl", "--baseline", REPO]) == 1
    assert "rows.jsonl" in capsys.readouterr().err
    ask = Ask(messages=({"role": "user", "content": "red cat"},), max_tokens=4)
    hub, local = open_chat(f"local:{REPO}"), open_chat(f"local:{sources[0]}")
    assert hub.server.name == f"local {REPO} {commit}"
    assert hub([ask])[0].text == local([ask])[0].text
    publish(cache, sources[1])
    assert open_chat(f"local:{REPO}").server.name != hub.server.name, "the ledger does not answer for another commit"


def test_the_environment_says_where_the_cache_is(sources: tuple[Path, Path], tmp_path: Path) -> None:
    publish(tmp_path / "home" / "hub", sources[0])
    write_rows(tmp_path / "edits.jsonl", tiny.corrections(4))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    twice = f"""
from errata.cli import main
command = ["labels", "--edits", "edits.jsonl", "--out", "out.jsonl", "--model"]
print(main([*command, "{REPO}"]), main([*command, "acme/other"]))
"""
    found = subprocess.run(
        [sys.executable, "-c", twice], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.endswith("0 1\n")
    assert "`hf download acme/other --revision main`" in found.stderr
    assert "Traceback" not in found.stderr


# The identity of a folder.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.llama(tmp_path / "m")


def keeping_times(path: Path, data: bytes) -> None:
    """Write a file of the same size and leave its time."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_weight_of_equal_size_and_time_is_another_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, before = model / "model.safetensors", identity(model)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    keeping_times(path, bytes(data))
    assert identity(model) != before
    # And of a file that is too large to be read whole, here one of more than 1,000 bytes.
    monkeypatch.setattr(folder, "_WHOLE", 1000)
    monkeypatch.setattr(folder, "_BLOCK", 16)
    monkeypatch.setattr(folder, "_BLOCKS", 50)
    seen = {json.dumps(identity(model))}
    for place in (9, -1, len(data) // 2):
        changed = bytearray(data)
        # A block lies at least every so many bytes: another weight matrix is seen, wherever it lies.
        for near in range(place, place + (len(data) // 40 if place > 9 else 1)):
            changed[near] ^= 1
        keeping_times(path, bytes(changed))
        seen.add(json.dumps(identity(model)))
    assert len(seen) == 4


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_configuration_and_tokenizer_are_part_of_a_model(name: str, model: Path) -> None:
    before = identity(model)
    keeping_times(model / name, (model / name).read_bytes().replace(b"\n", b" ", 1).replace(b"}", b"}"))
    assert identity(model) != before


def test_what_lies_beside_a_model_is_no_part_of_it(model: Path) -> None:
    before = identity(model)
    (model / "README.md").write_text("words")
    (model / "metrics.jsonl").write_text("{}")
    (model / "adapter").mkdir()
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert identity(model) == before


def test_a_run_on_changed_weights_is_not_reused(model: Path, tmp_path: Path) -> None:
    train_sft(model, ROWS, tiny.encoder(), ONE_STEP, tmp_path / "out")
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-3] ^= 1
    keeping_times(model / "model.safetensors", bytes(data))
    with pytest.raises(ValueError, match="was made by another run"):
        train_sft(model, ROWS, tiny.encoder(), ONE_STEP, tmp_path / "out")
    assert load_policy(model, ONE_STEP).origin.reference == str(model)
