"""Data sets of the Hub as files of rows: from a cache laid out by hand, and streamed where the Hub can be asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny
from errata.cli import main
from errata.data import read_corrections, read_demonstrations, read_prompts
from errata.data.hub import hub_data, identity_of_data
from pretrained.hub import offline

datasets = pytest.importorskip("datasets", reason="datasets is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

REPO, COMMIT = "acme/edits", "0123456789abcdef0123456789abcdef01234567"
EDITS = [{"prompt": f"say {k}", "draft": "rude cat", "sent": "cat", "team": "red"} for k in range(5)]
CHATS = [
    {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": f"cat {k}"}]} for k in (1, 2)
]


def publish(cache: Path, files: dict[str, Any], *, repo: str = REPO, commit: str = COMMIT, ref: str = "main") -> None:
    """As `hf download --repo-type dataset` leaves it."""
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / ref).write_text(commit)
    for name, content in files.items():
        path = folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    import pyarrow.parquet  # noqa: F401

    monkeypatch.chdir(tmp_path)
    with offline(tmp_path / "hub"):
        yield tmp_path / "hub"


def both(cache: Path) -> None:
    files = {f"data/{split}-00000-of-00001.parquet": EDITS[:count] for split, count in (("train", 5), ("test", 2))}
    publish(cache, {**files, "README.md": "---\nlicense: mit\n---\n"})


def test_a_split_is_read_as_a_file_is(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both(cache)
    rows = read_corrections(Path(f"{REPO}:train"))
    assert [(row.id, row.original, row.edited) for row in rows[:2]] == [
        ("row-1", "rude cat", "cat"),
        ("row-2", "rude cat", "cat"),
    ]
    assert rows[0].extra == {"team": "red"}
    assert f"split train of {REPO} on the Hub, commit {COMMIT[:12]}" in capsys.readouterr().err
    assert len(read_corrections(Path(f"{REPO}@main:test"))) == 2
    assert len(read_prompts(Path(f"{REPO}@{COMMIT}:test"))) == 2
    assert [row.response for row in read_demonstrations(Path(f"{REPO}:test"), columns={"sent": "sent"})] == ["cat"] * 2


def test_messages_and_the_only_split(cache: Path) -> None:
    publish(cache, {"train.jsonl": "\n".join(map(json.dumps, CHATS))})
    assert [row.response for row in read_demonstrations(Path(REPO))] == ["cat 1", "cat 2"]


def test_configurations(cache: Path) -> None:
    named = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("red", "blue"))
    card = f"---\nconfigs:\n{named}---\n"
    lines = {f"{name}.jsonl": json.dumps({**EDITS[0], "prompt": name}) for name in ("red", "blue")}
    publish(cache, {"README.md": card, **lines})
    assert read_corrections(Path(f"{REPO}:blue/train"))[0].prompt == "blue"
    with pytest.raises(ValueError, match=rf"red.*blue.*name one and a split: {REPO}:CONFIGURATION/SPLIT"):
        read_corrections(Path(REPO))


@pytest.mark.parametrize("name", [REPO, f"{REPO}:validation"])
def test_several_splits_and_none_of_them(name: str, cache: Path) -> None:
    both(cache)
    with pytest.raises(ValueError, match=rf"has the splits train, test; name one: {REPO}:train"):
        read_corrections(Path(name))


def test_no_code_of_a_data_set_is_run(cache: Path) -> None:
    publish(
        cache, {"edits.py": "import pathlib\npathlib.Path('ran').write_text('')\n", "train.jsonl": json.dumps(EDITS[0])}
    )
    read_corrections(Path(REPO))
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["acme/other", f"{REPO}@v9:train"])
def test_offline_and_not_in_the_cache(name: str, cache: Path) -> None:
    both(cache)
    for ask in (read_corrections, identity_of_data):
        with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set") as caught:
            ask(Path(name))
        repo, _, revision = name.partition(":")[0].partition("@")
        assert f"`hf download --repo-type dataset {repo} --revision {revision or 'main'}`" in str(caught.value)


def test_what_is_a_file_stays_one(cache: Path, tmp_path: Path) -> None:
    assert hub_data(Path("runs/edits.jsonl")) is None
    with pytest.raises(OSError, match=r"edits\.jsonl"):
        read_corrections(Path("runs/edits.jsonl"))
    both(cache)
    (tmp_path / "acme" / "edits").mkdir(parents=True)
    assert hub_data(Path(REPO)) is None, "a folder of that name wins"


def test_its_commit_tells_it_from_another(cache: Path) -> None:
    both(cache)
    assert identity_of_data(Path(f"{REPO}:train")) == [REPO, COMMIT, None, "train"]
    assert identity_of_data(Path("edits.jsonl")) is None


def test_where_the_hub_can_be_asked_rows_stream_from_that_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Hub:
        def dataset_info(self, repo: str, revision: str | None = None) -> Any:
            asked.append((repo, revision))
            return type("Info", (), {"sha": COMMIT})

    def load(*where: Any, **how: Any) -> Any:
        asked.append((where, how))
        return {"train": iter(EDITS)}

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(read_corrections(Path(f"{REPO}@v2"))) == 5
    how = {"name": None, "streaming": True, "revision": COMMIT}
    assert asked == [(REPO, "v2"), ((REPO,), how)]


def test_without_datasets(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both(cache)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'errata\[datasets\]'"):
        read_corrections(Path(f"{REPO}:train"))


def test_verbs_take_it(cache: Path, tmp_path: Path) -> None:
    both(cache)
    model = tiny.llama(tmp_path / "start")
    few = ["--epochs=1", "--batch-size=8", f"--model={model}"]
    assert main(["tune", "sft", f"--data={REPO}:train", f"--out={tmp_path / 'sft'}", *few]) == 0
    held = f"--heldout={REPO}:test"
    assert main(["tune", "figa", f"--edits={REPO}:train", held, f"--out={tmp_path / 'figa'}", *few]) == 0
    assert main(["doctor", f"--data={REPO}:train", f"--model={model}"]) in (0, 1, 3)
    assert json.loads((tmp_path / "figa" / "errata.json").read_text())["heldout_rows"] == 2
