"""Fresh drafts edited blind: who counts, what is left out, and what a user's function may do wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from errata.types import Rollout
from errata.workflows.anew import Anew, blind, by_function, edited_anew, editor_function


def rollouts(*texts: str) -> list[Rollout]:
    return [
        Rollout(id=f"r{k}", prompt=f"prompt {k}", prompt_ids=(1,), response_ids=(2,), text=text, ended=True)
        for k, text in enumerate(texts)
    ]


DRAFTS = {"old": rollouts("the cat sat", "a b c d", "one"), "new": rollouts("the cat sits", "a b c", "one")}


def test_drafts_are_shuffled_under_names_that_tell_nothing() -> None:
    found = blind(DRAFTS, seed=1)
    assert sorted((one.model, one.row, one.draft) for one in found) == sorted(
        (model, one.id, one.text) for model, part in DRAFTS.items() for one in part
    )
    assert [one.id for one in found] == [f"draft-{k + 1:04}" for k in range(6)]
    assert [one.model for one in found] != ["old"] * 3 + ["new"] * 3
    assert found == blind(DRAFTS, seed=1) != blind(DRAFTS, seed=2)


def test_words_changed_are_paired_by_row() -> None:
    found = blind(DRAFTS)
    # The editor wants "sits", and no "d".
    edited = by_function(found, lambda prompt, draft: draft.replace("sat", "sits").replace(" d", ""))
    result = edited_anew(found, edited)
    by_row = {row: {m: result.words[m][k] for m in ("old", "new")} for k, row in enumerate(result.rows)}
    assert by_row == {"r0": {"old": 1, "new": 0}, "r1": {"old": 1, "new": 0}, "r2": {"old": 0, "new": 0}}
    assert (result.unedited, result.rewritten) == (0, 0)


def test_a_draft_without_an_edit_takes_its_row_along() -> None:
    found = blind(DRAFTS)
    edited = by_function(found, lambda prompt, draft: None if draft == "a b c d" else "all new words here")
    result = edited_anew(found, edited)
    assert set(result.rows) == {"r0", "r2"}
    assert result.unedited == 1
    assert result.rewritten == 5
    with pytest.raises(ValueError, match="gave nothing for 6 of 6 drafts"):
        edited_anew(found, {})


def fails(prompt: Any, draft: str) -> str:
    raise KeyError("style")


@pytest.mark.parametrize(
    ("edit", "message"),
    [(fails, r"failed at row 'r0': KeyError: 'style'"), (lambda prompt, draft: 3, "returned int for row 'r0'")],
)
def test_a_function_that_does_wrong_is_told_the_row(edit: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        by_function([Anew(id="draft-0001", row="r0", model="old", prompt="p", draft="d")], edit)


def test_a_function_in_a_file_is_known_by_its_source(tmp_path: Path) -> None:
    file = tmp_path / "style.py"
    file.write_text("def plain(prompt, draft):\n    return draft.upper()\n")
    edit, identity = editor_function(f"{file}:plain")
    assert edit("p", "x") == "X"
    assert editor_function(f"{file}:plain")[1] == identity
    file.write_text("def plain(prompt, draft):\n    return draft.lower()\n")
    assert editor_function(f"{file}:plain")[1] != identity


@pytest.mark.parametrize("spec", ["plain", "no.such.module:plain", "textwrap:nothing", "there/is/no.py:plain"])
def test_what_names_no_function_is_an_error(spec: str) -> None:
    with pytest.raises(ValueError, match="names no function"):
        editor_function(spec)
    with pytest.raises(ValueError, match="is no function"):
        editor_function("string:digits")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def edit(:\n", "SyntaxError"),
        ("raise RuntimeError('no key')\n", "RuntimeError: no key"),
        ("exit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_file_of_an_editor_that_cannot_be_imported_is_named(tmp_path: Path, source: str, said: str) -> None:
    path = tmp_path / "style.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=rf"--editor {path}:edit: {path} cannot be imported: {said}"):
        editor_function(f"{path}:edit")


def test_an_editor_that_ends_the_process_is_an_error_of_its_row() -> None:
    def leaves(prompt: str, draft: str) -> str:
        raise SystemExit(3)

    with pytest.raises(ValueError, match=r"the editor failed at row 'r\d': SystemExit: 3"):
        by_function(blind(DRAFTS), leaves)


def test_what_was_edited_before_it_failed_is_kept_and_only_the_rest_is_asked_for(tmp_path: Path) -> None:
    found, begun, asked, told = blind(DRAFTS), tmp_path / "begun.jsonl", list[str](), list[tuple[int, int]]()

    def edit(prompt: Any, draft: str) -> str | None:
        asked.append(draft)
        if len(asked) == 4:
            raise TimeoutError("no answer")
        return None if draft == "one" else f"{draft} ☃"

    with pytest.raises(ValueError, match="TimeoutError: no answer; 3 of 6 drafts are edited and kept"):
        by_function(found, edit, begun=begun)
    # Killed while the third was written down: it is asked for once more, and so are those that follow.
    begun.write_bytes(begun.read_bytes()[:-5])
    again = by_function(found, edit, begun=begun, told=lambda *done: told.append(done))
    assert asked == [one.draft for one in [*found[:4], *found[2:]]]
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert again == by_function(found, lambda prompt, draft: None if draft == "one" else f"{draft} ☃")
    assert by_function(found, fails, begun=begun) == again, "nobody is asked any more"
