"""An editor or a judge beside a finished run: blind, resumed, none mixed with another, and nothing trained again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from errata.client import Answer, Ask, Stop
from errata.edits.request import read_material
from errata.workflows import Learned, Waiting, learn, learned_html
from workflows import toy

QUIET = Console(quiet=True)


pytestmark = pytest.mark.slow  # the first test trains a model for all of them


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, its log, editors, and a finished run."""
    path = tmp_path_factory.mktemp("editor")
    toy.model(path)
    toy.log(path / "log.csv")
    (path / "editors.py").write_text(
        "def strict(prompt, draft):\n    return draft.replace(' rude', '')\n\n"
        "def fails(prompt, draft):\n    raise KeyError('style')\n\n"
        "def says_nothing(prompt, draft):\n    return None\n\n"
        "def says_a_number(prompt, draft):\n    return 3\n\n"
        "def sometimes(prompt, draft):\n    return None if 'one' in prompt else strict(prompt, draft)\n\n"
        "def rewrites(prompt, draft):\n    return 'all of this is new and mine' if 'rude' in draft else 'mine'\n"
    )
    run(path, None, path / "run")
    return path


def run(folder: Path, editor: str | None, out: Path, **details: Any) -> Learned:
    chosen = replace(toy.DETAILS, method="figa", **details)
    name = f"{folder / 'editors.py'}:{editor}" if editor and editor.isidentifier() and editor != "people" else editor
    return learn(folder / "log.csv", folder / "model", out, toy.CONFIG, chosen, editor=name, console=QUIET)


@pytest.fixture
def out(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def test_an_editor_decides_what_is_still_changed_in_fresh_drafts(trained: Path, out: Path) -> None:
    before = (out / "candidates" / "figa" / "model.safetensors").stat().st_mtime_ns
    found = run(trained, "strict", out)
    assert (out / "candidates" / "figa" / "model.safetensors").stat().st_mtime_ns == before
    assert found.measured.anew is not None
    assert (found.measured.anew.old, found.measured.anew.new, found.measured.anew.unedited) == (1.0, 0.0, 0)
    assert found.decision.promoted
    assert found.decision.reasons[0].startswith(
        "The editor strict still changes 0.0 words in a draft of the new model, 1.0"
    )
    assert "Drafts edited anew by the editor strict" in learned_html(found)
    (folder,) = out.glob("edited-figa-*")
    shown = [json.loads(line) for line in (folder / "drafts.jsonl").read_text().splitlines()]
    assert {frozenset(row) for row in shown} == {frozenset({"id", "prompt", "response"})}, "blind"
    assert run(trained, "strict", out) == found
    assert run(trained, "strict", out, editor_rows=10).measured.anew.words.rows == 10  # type: ignore[union-attr]
    assert len(list(out.glob("edited-figa-*"))) == 2


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("fails", r"the editor failed at row '.*': KeyError: 'style'"),
        ("says_nothing", "gave nothing for 76 of 76 drafts"),
        ("says_a_number", "the editor returned int for row"),
        ("nobody", "names no function"),
        ("no.such.module:nobody", "names no function"),
    ],
)
def test_an_editor_that_does_wrong_is_an_error_and_nothing_is_lost(
    trained: Path, out: Path, editor: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        run(trained, editor, out)
    assert run(trained, "strict", out).decision.promoted


def test_drafts_without_an_edit_are_counted(trained: Path, out: Path) -> None:
    found = run(trained, "sometimes", out)
    assert found.measured.anew is not None
    left_out = found.measured.anew.unedited
    assert 0 < left_out < 76
    assert found.measured.anew.words.rows == 38 - left_out // 2
    assert f"It gave nothing for {left_out} of 76 drafts." in found.decision.conditions[0].said


def test_an_editor_that_rewrites_everything_proves_nothing_and_takes_the_promotion_back(
    trained: Path, out: Path
) -> None:
    assert (out / "model").exists()
    found = run(trained, "rewrites", out)
    assert not found.decision.promoted
    assert "But it wrote 76 of 76 drafts anew" in found.decision.reasons[0]
    assert not (out / "model").exists()
    assert run(trained, None, out).decision.promoted
    assert (out / "model" / "config.json").exists()


def test_an_editor_that_is_none_is_refused_before_anything_is_read(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--editor strict:x names no function"):
        run(trained, "strict:x", tmp_path / "run")
    with pytest.raises(ValueError, match="--judge gpt names no chat model"):
        run(trained, None, tmp_path / "run", judge="gpt")
    assert not (tmp_path / "run").exists()


def chat_of(answer: Callable[[Ask], Any], asked: list[Ask]) -> Callable[..., Any]:
    """A stand-in for ``open_chat``."""

    def chat(asks: Sequence[Ask]) -> list[Answer]:
        asked.extend(asks)
        return [Answer(text="{…}", stop=Stop.END, value=answer(ask), model="m-1") for ask in asks]

    return lambda spec, **_: chat


def test_a_chat_model_edits(trained: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Ask] = []

    def answer(ask: Ask) -> dict[str, Any]:
        draft = read_material(ask.messages).response
        text = draft.replace(" rude", "")
        return {"why": "w", "verdict": "keep" if text == draft else "edit", "reasons": ["style"], "text": text}

    monkeypatch.setattr("errata.workflows.learning.editing.open_chat", chat_of(answer, asked))
    (trained / "style.txt").write_text("Never be rude.")
    found = run(trained, "anthropic:m", out, guideline=trained / "style.txt")
    assert found.measured.anew is not None
    assert (found.measured.anew.old, found.measured.anew.new) == (1.0, 0.0)
    assert len(asked) == 76
    assert all("Never be rude." in ask.messages[0]["content"] for ask in asked)
    run(trained, "anthropic:m", out, guideline=trained / "style.txt")
    assert len(asked) == 76, "nothing is asked twice"


@pytest.mark.parametrize(("likes", "promoted"), [("short", True), ("long", False)])
def test_a_judge_must_not_prefer_the_old_model(
    trained: Path, out: Path, monkeypatch: pytest.MonkeyPatch, likes: str, promoted: bool
) -> None:
    def answer(ask: Ask) -> dict[str, str]:
        text = ask.messages[0]["content"]
        first_is_long = " rude" in text.partition("<second")[0].rpartition("<first")[2]
        return {"reason": "r", "better": "first" if first_is_long is (likes == "long") else "second"}

    monkeypatch.setattr("errata.workflows.learning.editing.open_chat", chat_of(answer, []))
    found = run(trained, None, out, judge="anthropic:m")
    assert found.measured.judged is not None
    assert (found.measured.judged.pairs, found.measured.judged.rate) == (38, 1.0 if promoted else 0.0)
    assert found.decision.promoted is promoted


def test_people_edit_on_the_page_and_the_run_goes_on_when_they_are_done(trained: Path, out: Path) -> None:
    from errata.page.items import items_of
    from errata.page.store import NewRevision, Store

    with pytest.raises(
        Waiting,
        match=r"12 drafts .* wait .*\n\n  errata edits page --db \S+ --data \S+drafts.jsonl\n\n",
    ):
        run(trained, "people", out, editor_rows=6)
    (folder,) = out.glob("edited-figa-*")
    store = Store(f"sqlite:///{folder / 'page.db'}")
    store.add_items(items_of(folder / "drafts.jsonl"))
    store.add_annotator("ada")
    for k in range(12):
        if k == 11:
            with pytest.raises(Waiting, match="1 of 12 drafts are not edited yet"):
                run(trained, "people", out, editor_rows=6)
        number = store.next_task(1)
        assert number is not None
        draft = store.work(1, number).item.response
        text = draft.replace(" rude", "")
        outcome = "good" if text == draft else "edited"
        store.save(1, number, NewRevision(base=0, save_id=f"s{k}", kind="submit", text=text, outcome=outcome))
    store.close()
    found = run(trained, "people", out, editor_rows=6)
    assert found.measured.anew is not None
    assert (found.measured.anew.editor, found.measured.anew.old, found.measured.anew.new) == ("people", 1.0, 0.0)


def test_the_limits_of_the_verdict_can_be_changed_without_training_again(trained: Path, out: Path) -> None:
    found = run(trained, None, out, max_length_ratio=0.1, drafted_by="model")
    assert not found.decision.promoted
    assert found.lowered == ("--min-rows 10 (usually 20)",)
    assert run(trained, None, out, max_length_ratio=9).lowered[0] == "--max-length-ratio 9 (usually 1.5)"
