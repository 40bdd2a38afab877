"""``errata view`` as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from errata.cli import main

ROWS = [
    {
        "id": "a",
        "prompt": "say",
        "original": "one rude cat sits here",
        "edited": "one cat sits now",
        "reason": "unsafe",
    },
    {"id": "b", "prompt": "say", "original": "two dog runs", "edited": "two dog runs here"},
    {"id": "c", "prompt": "say", "original": "six", "edited": "six"},
]
SCORES = [
    {"id": "a", "reward": 0, "tokens": ["one", "cat", "sits", "now", ""], "token_rewards": [0, 0.5, 0, -2, 0]},
    {"id": "b", "reward": 0, "tokens": ["two", "dog", "runs"], "token_rewards": [0, 0, 0]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view")
    tiny.llama(path / "model")
    (path / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SCORES))
    return path


def view(folder: Path, *flags: object) -> int:
    return main(["view", f"--model={folder / 'model'}", f"--edits={folder / 'edits.jsonl'}", *map(str, flags)])


def test_labels_by_default(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view(folder) == 0
    out = capsys.readouterr().out
    assert "colour is the label" in out
    assert "a · unsafe" in out
    assert "one·rude⁻·cat·sits⟦·here⁻⟧⟨end⟩" in out
    assert "3 of 3 rows shown\n" in out
    assert view(folder, "--rows=1") == 0
    assert "1 of 3 rows shown\n" in capsys.readouterr().out


def test_weights_are_those_of_figa_below_zero_where_it_unlearns(folder: Path) -> None:
    assert view(folder, "--show=weights", f"--out={folder / 'w.html'}") == 0
    page = (folder / "w.html").read_text()
    assert "full at ±1, the largest shown" in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert sorted(set(data["tables"]["weights"]["table"])) == [-0.2, 0, 0.5, 1]
    assert data["rows"][0]["reasons"] == ["unsafe"]


def test_rewards_of_a_file_and_what_it_lacks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view(folder, "--show=rewards", f"--reward={folder / 'scores.jsonl'}") == 0
    out = capsys.readouterr().out
    assert "full at ±2, the" in out
    assert "one·cat⁺·sits⟦·now⁻⟧⟨end⟩" in out
    assert "one·rude·cat·sits" in out
    # Row b was scored without its end, row c not at all, and only one side of a.
    assert "5 of their 6 texts have no rewards" in out


def test_mistakes_have_a_remedy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view(folder, "--show=rewards") == 1
    assert "--show rewards needs --reward" in capsys.readouterr().err
    assert view(folder, f"--reward={folder / 'edits.jsonl'}") == 1
    assert "line 1: no field 'token_rewards'; give a file of `errata reward score`" in capsys.readouterr().err
    assert view(folder, f"--labels={folder / 'edits.jsonl'}") == 1
    assert "give either --edits or --labels" in capsys.readouterr().err


def test_what_cannot_be_shown_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view(folder, "--max-length=7", "--on-long=drop") == 0
    out = capsys.readouterr().out
    assert "2 of 3 rows shown; left out, row 'a': prompt and response have" in out
    assert view(folder, "--max-length=7") == 1
    assert "row 'a': prompt and response have" in capsys.readouterr().err
    assert view(folder, "--max-length=1", "--on-long=drop") == 1
    assert "none of the first 3 rows could be labelled; row 'a'" in capsys.readouterr().err
    assert view(folder, "--rows=0") == 1
    assert "--rows 0 is out of range: give a whole number of 1 or more" in capsys.readouterr().err


def test_a_narrow_row_has_its_counts_on_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view(folder) == 0
    assert "nothing changed, 2 kept\n" in capsys.readouterr().out


def test_nothing_is_written_over_what_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, edits = folder / "model", folder / "edits.jsonl"
    before, elsewhere = edits.read_text(), folder / ".." / folder.name / "edits.jsonl"
    for verb in (
        ["view", f"--model={model}", f"--edits={edits}"],
        ["labels", f"--model={model}", f"--edits={edits}"],
        ["edits", "import", f"--data={edits}"],
        ["edits", "diff", f"--data={edits}"],
        ["edits", "stats", f"--data={edits}"],
        ["edits", "filter", f"--data={edits}", "--unchanged=drop"],
    ):
        assert main([*verb, f"--out={elsewhere}"]) == 1, verb
        assert "would take the place of the rows it is made of" in capsys.readouterr().err
    assert edits.read_text() == before
    assert main(["labels", f"--model={model}", f"--edits={edits}", f"--out={folder / 'labels.parquet'}"]) == 1
    assert ".jsonl or .jsonl.gz" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--unit=char", "--max-length=4"])
def test_labels_that_stand_take_no_rules(folder: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, labels = f"--model={folder / 'model'}", f"--labels={folder / 'labels.jsonl'}"
    assert main(["labels", model, f"--edits={folder / 'edits.jsonl'}", f"--out={folder / 'labels.jsonl'}"]) == 0
    assert main(["view", model, labels]) == 0
    for verb in (["view"], ["tune", "figa", f"--out={folder / 'tuned'}"]):
        assert main([*verb, model, labels, flag]) == 1
        assert "leave them out, or give --edits" in capsys.readouterr().err
