"""What people do wrong, and what goes wrong: each is an error that says what to do or a count, and nothing is lost."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from errata.cli import main
from errata.doctor import examine
from errata.runs import StageFolder
from errata.workflows import LearnDetails, learn, learning
from workflows import toy

QUIET = Console(quiet=True)
DETAILS = replace(toy.DETAILS, method="sft")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad")
    toy.model(path)
    return path


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def alone(row: dict[str, Any]) -> dict[str, Any]:
    """Nobody knows of whom, and when."""
    return {name: row[name] for name in ("prompt", "draft", "sent")}


def test_drafts_that_were_all_sent_unchanged_teach_nothing(folder: Path, tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", [{**row, "sent": row["draft"]} for row in toy.rows(60)])
    with pytest.raises(ValueError, match=r"all 60 drafts of .* were sent unchanged"):
        learn(log, folder / "model", tmp_path / "run", toy.CONFIG, DETAILS, console=QUIET)


def test_five_rows_are_too_few(folder: Path, tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", toy.rows(6)[1:])
    with pytest.raises(ValueError, match=r"[0-5] edited rows are left to train on, and 20 are needed.*add rows"):
        learn(log, folder / "model", tmp_path / "run", toy.CONFIG, LearnDetails(), console=QUIET)
    assert not (tmp_path / "run" / "candidates").exists()


def test_a_conversation_for_a_model_without_a_chat_template_is_an_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": "user", "content": "say"}, {"role": "assistant", "content": "one"}]
    talks = [{**row, "prompt": [*turns, {"role": "user", "content": row["prompt"]}]} for row in toy.rows(60)]
    log = written(tmp_path / "log.jsonl", talks)
    files = [str(log), f"--model={folder / 'model'}", f"--out={tmp_path / 'run'}"]
    code = main(["learn", *files, "--min-rows=5", "--max-new-tokens=6"])
    shown = capsys.readouterr()
    assert code == 1
    assert "no prompt can be given to --model: " in shown.err
    assert "template" in shown.err
    assert "Traceback" not in shown.err


def test_prompts_longer_than_the_model_are_counted_or_said_to_be_all(folder: Path, tmp_path: Path) -> None:
    rows = toy.rows(60)
    long = [{**row, "prompt": f"{'cat ' * 80}{row['prompt']}"} for row in rows]
    every = written(tmp_path / "all.jsonl", long)
    with pytest.raises(ValueError, match=r"no prompt can be given to --model: the prompt has .* the limit is 64"):
        learn(every, folder / "model", tmp_path / "all", toy.CONFIG, DETAILS, console=QUIET)
    some = [*rows, *long[:30]]
    config = replace(toy.CONFIG, epochs=0.1)
    log = written(tmp_path / "log.jsonl", list(map(alone, some)))
    found = learn(log, folder / "model", tmp_path / "run", config, DETAILS, console=QUIET)
    left_out = found.split["not_drafted"]["the prompt is too long for --model, or cannot be encoded"]
    assert left_out > 0
    card = json.loads((tmp_path / "run" / "candidates" / "sft" / "errata.json").read_text())
    assert card["dropped_too_long"] > 0


@pytest.mark.slow
def test_a_run_that_is_killed_in_each_stage_goes_on_to_the_same_verdict(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each stage once, when it has written half of what it writes."""
    toy.log(tmp_path / "log.csv")
    (tmp_path / "style.py").write_text("def plain(prompt, draft):\n    return draft.replace(' rude', '')\n")
    config, details = replace(toy.CONFIG, epochs=6), replace(toy.DETAILS, method="figa", drafted_by="model")

    def run(out: Path) -> Any:
        editor = f"{tmp_path / 'style.py'}:plain"
        return learn(tmp_path / "log.csv", folder / "model", out, config, details, editor=editor, console=QUIET)

    whole = run(tmp_path / "whole")
    make, killed = StageFolder.make, list[str]()

    def half(self: StageFolder, path: Path, function: Callable[[Path], object], also: Any = ()) -> bool:
        def stopped(path: Path) -> None:
            partial = path.with_name(f".{path.name}.partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir(exist_ok=True) if not path.suffix else partial.write_text("half")
            killed.append(path.name)
            raise KeyboardInterrupt

        first = path not in seen
        seen.add(path)
        return make(self, path, stopped if first else function, also)

    seen: set[Path] = set()
    monkeypatch.setattr(StageFolder, "make", half)
    for _ in range(40):
        try:
            found = run(tmp_path / "run")
            break
        except KeyboardInterrupt:
            continue
    assert found == whole
    assert len(killed) >= 14, killed
    assert found.decision.promoted
    names = ("summary.json", "split/heldout.jsonl", "candidates/figa/model.safetensors", "heldout/figa.greedy.jsonl")
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_every_remedy_of_the_doctor_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    source = "\n".join(path.read_text() for path in Path(examine.__code__.co_filename).parent.glob("*.py"))
    # Of `errata edits filter`, and one that is advised only to who has given it.
    others = {"--max-edit-ratio", "--duplicates", "--deleted-weight"}
    advised = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", source)) - others
    assert len(advised) > 5
    with pytest.raises(SystemExit):
        main(["learn", "--help-all"])
    known = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", capsys.readouterr().out))
    assert advised - known == set()


def test_every_remedy_of_the_verdict_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["learn", "--help-all"])
    known = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", capsys.readouterr().out))
    package = Path(learning.__file__ or "").parent
    texts = [path.read_text() for path in [*package.glob("*.py"), *package.parent.glob("verdict*.py")]]
    advised = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", "\n".join(texts)))
    assert len(advised) > 15
    assert advised - known - {"--db", "--data", "--annotators"} == set()


def test_a_few_rows_are_said_to_be_few(folder: Path, tmp_path: Path) -> None:
    """Seven rows judge: no two decimals, and how many are needed."""
    log = written(tmp_path / "log.jsonl", list(map(alone, toy.rows(40))))
    told = Console(file=io.StringIO(), record=True, width=200)
    config = replace(toy.CONFIG, epochs=1, learning_rate=1e-6)
    found = learn(log, folder / "model", tmp_path / "run", config, replace(DETAILS, min_rows=5), console=told)
    assert found.measured.points.missed.rows < 10
    assert not found.decision.promoted
    assert not re.search(r"\d\.\d\d", found.decision.reasons[0])
    assert found.decision.next
