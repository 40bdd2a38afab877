"""The whole run on a toy: it promotes what is better, refuses what is not, and goes on where it was killed."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import tiny
from errata.data import read_corrections
from errata.training import run_offline
from errata.workflows import LearnConfig, LearnDetails, Learned, NotSafe, learn, learned_html, learned_terminal
from errata.workflows.learning import findings
from workflows import toy

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and its log."""
    path = tmp_path_factory.mktemp("learn")
    toy.model(path)
    toy.log(path / "log.csv")
    (path / "general.txt").write_text("red cat sits here now\n" * 40)
    return path


def run(
    folder: Path, out: Path, config: LearnConfig = toy.CONFIG, details: LearnDetails = toy.DETAILS, log: str = "log.csv"
) -> Learned:
    return learn(folder / log, folder / "model", out, config, details, console=QUIET)


@pytest.fixture(scope="module")
def promoted(folder: Path) -> tuple[Path, Learned]:
    found = run(folder, folder / "run")
    (folder / "run" / "report.html").write_text(learned_html(found))
    return folder / "run", found


def test_what_is_better_is_promoted_and_plain_transformers_loads_it(promoted: tuple[Path, Learned]) -> None:
    out, found = promoted
    assert found.decision.promoted
    points = found.measured.points
    assert (points.old.missed, points.new.missed, points.missed.by_row) == (1, 0, -1)
    assert (points.old.written, points.new.written) == (0, 1)
    assert (points.new.otherwise_share or 0) < (points.old.otherwise_share or 0)
    assert found.measured.drafter.own
    assert found.measured.drafter.again == 1
    assert found.measured.comparison["greedy"].difference.mean == pytest.approx(-1, abs=0.1)
    assert found.measured.old["greedy"].edit_cost.mean == found.logged_cost.mean == 1
    assert found.measured.new["greedy"].edit_cost.mean < 0.1
    assert found.measured.old["greedy"].length == 4
    assert found.measured.new["greedy"].length == pytest.approx(3, abs=0.1)
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    assert isinstance(model, LlamaForCausalLM)
    encoder = tiny.encoder()
    drawn = model.generate(
        torch.tensor([encoder.prompt_ids("say one two six one now two dog")]), max_new_tokens=4, do_sample=False
    )
    assert encoder.decode(drawn[0, -3:].tolist()) == "dog here"
    candidate = out / "candidates" / found.arm
    assert (candidate / "model.safetensors").read_bytes() == (out / "model" / "model.safetensors").read_bytes()


def test_the_sides_of_the_split_are_those_of_the_rule(promoted: tuple[Path, Learned]) -> None:
    out, found = promoted
    names = ("train", "train_accepted", "selection", "heldout", "heldout_accepted")
    sides = {name: read_corrections(out / "split" / f"{name}.jsonl") for name in names}
    assert {name: len(sides[name]) for name in names} == {name: found.split[name] for name in names}
    for name, rows in sides.items():
        assert all((row.original == row.edited) is name.endswith("accepted") for row in rows)
    users = [{row.extra["user"] for row in sides[name]} for name in ("train", "selection", "heldout")]
    assert not (users[0] | users[1]) & users[2]
    newest = max(row.extra["time"] for name in names[:3] for row in sides[name])
    assert newest < min(row.extra["time"] for row in sides["heldout"])


def test_nothing_private_is_stored(promoted: tuple[Path, Learned]) -> None:
    """No address and no number stands in any file, rows that were set aside, users and other columns included."""
    out, found = promoted
    for path in out.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            text = path.read_text()
            assert "@example.com" not in text, path
            assert "1234567" not in text, path
    assert (found.log["masked"], found.log["rows_masked"], found.log["bad_rows"]) == ({"email": 12}, 12, 2)
    assert found.log["fields_left_out"] == ["phone"]
    bad = [json.loads(line) for line in (out / "log" / "bad_rows.jsonl").read_text().splitlines()]
    assert bad[0]["raw"] == '["[EMAIL-1] wrote"]'


def test_the_same_command_makes_nothing_again(promoted: tuple[Path, Learned], folder: Path) -> None:
    out, found = promoted
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert run(folder, out) == found
    changed = [path.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert changed == ["summary.json"]


def test_other_settings_in_the_same_folder_are_an_error_once_something_was_trained(
    promoted: tuple[Path, Learned], folder: Path
) -> None:
    out, _ = promoted
    with pytest.raises(ValueError, match=r"holds a run with other settings \(epochs\); delete it"):
        run(folder, out, replace(toy.CONFIG, epochs=1))
    with pytest.raises(ValueError, match="is not empty and holds no run of this kind"):
        run(folder, folder / "model")


@pytest.mark.parametrize(
    "gone",
    [
        ("candidates/sft", "selection", "heldout", "model", "summary.json"),
        ("heldout/old.greedy.jsonl", "heldout/old.json", "model"),
    ],
)
def test_stages_that_are_missing_are_made_to_the_same_numbers(
    promoted: tuple[Path, Learned], folder: Path, tmp_path: Path, gone: tuple[str, ...]
) -> None:
    out, found = promoted
    shutil.copytree(out, tmp_path / "run")
    for name in gone:
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.mkdir() if not path.suffix else partial.write_text("half of it")
    assert run(folder, tmp_path / "run") == found
    assert (tmp_path / "run" / "summary.json").read_bytes() == (out / "summary.json").read_bytes()
    assert (tmp_path / "run" / "model" / "config.json").exists()


def test_a_run_that_was_stopped_between_two_trainings_goes_on_to_the_same_numbers(
    promoted: tuple[Path, Learned], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill within a training leaves behind, and that it goes on: tests/models/test_training.py."""
    out, found = promoted

    candidates = import_module("errata.workflows.learning.candidates")

    def stop_at_the_second(method: Any, *given: Any, **named: Any) -> Any:
        if method.name == "sft":
            raise KeyboardInterrupt
        return run_offline(method, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(candidates, "run_offline", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "run")
    assert (tmp_path / "run" / "candidates" / "figa").exists()
    assert not (tmp_path / "run" / "selection").exists()
    assert run(folder, tmp_path / "run") == found
    assert (tmp_path / "run" / "summary.json").read_bytes() == (out / "summary.json").read_bytes()


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("log/rows.jsonl", "log/counts.json"),
        ("split/heldout.jsonl", "split"),
        ("doctor.json", "doctor.json"),
        ("candidates/figa/model.safetensors", "candidates/figa"),
        ("selection/sft.jsonl", "selection/sft.jsonl"),
        ("heldout/old.greedy.jsonl", "heldout/old.greedy.jsonl"),
        ("heldout/old.json", "heldout/old.json"),
        ("model/model.safetensors", "model"),
    ],
)
def test_nothing_is_decided_by_a_file_that_was_cut(
    promoted: tuple[Path, Learned], folder: Path, tmp_path: Path, file: str, stage: str
) -> None:
    """At a line, where it still can be read, or anywhere; the verdict of before stays as it is."""
    out, found = promoted
    shutil.copytree(out, tmp_path / "run")
    path = tmp_path / "run" / file
    data = path.read_bytes()
    cut = data[: len(data) // 2] if path.suffix != ".jsonl" else b"".join(data.splitlines(keepends=True)[:-1])
    path.write_bytes(cut)
    before = (tmp_path / "run" / "summary.json").stat().st_mtime_ns
    remedy = f"delete {tmp_path / 'run' / stage}, and rerun"
    with pytest.raises(ValueError, match=f"{path} is not what was written .* {remedy}"):
        run(folder, tmp_path / "run")
    if file != "model/model.safetensors":  # which comes after it
        assert (tmp_path / "run" / "summary.json").stat().st_mtime_ns == before
    made = tmp_path / "run" / stage
    shutil.rmtree(made) if made.is_dir() else made.unlink()
    if file.startswith(("log", "split", "candidates/figa", "selection", "heldout/old.greedy")):
        return  # the remedy is tried above, for what costs less
    assert run(folder, tmp_path / "run") == found


def test_a_cut_file_of_a_run_without_digests_is_named_where_it_can_be_seen(
    promoted: tuple[Path, Learned], folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(promoted[0], tmp_path / "run")
    path = tmp_path / "run" / "heldout" / "old.greedy.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for cut, told in ((b"".join(lines[1:]), "has no draft of row"), (b"".join(lines)[:-9], "; delete it, and rerun")):
        (tmp_path / "run" / "SHA256SUMS").unlink()
        path.write_bytes(cut)
        with pytest.raises(ValueError, match=f"{path}.*{told}"):
            run(folder, tmp_path / "run")
    path.unlink()
    assert run(folder, tmp_path / "run") == promoted[1]


def test_damaged_settings_are_named(promoted: tuple[Path, Learned], folder: Path, tmp_path: Path) -> None:
    shutil.copytree(promoted[0], tmp_path / "run")
    path = tmp_path / "run" / "settings.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        run(folder, tmp_path / "run")


def test_what_nobody_could_learn_is_refused(folder: Path, tmp_path: Path) -> None:
    """A change too small to change a draft: there is nothing to win, and one method needs no choice."""
    toy.log(folder / "other.csv", sent="{} rude here now")
    details = replace(toy.DETAILS, method="sft")
    config = replace(toy.CONFIG, learning_rate=1e-5, epochs=1)
    found = learn(
        folder / "other.csv",
        folder / "model",
        tmp_path / "run",
        config,
        details,
        general=folder / "general.txt",
        console=QUIET,
    )
    assert not found.decision.promoted
    assert found.decision.reasons[0].startswith(
        "Of the words that people changed, the new model would by itself still get 1.0 a draft wrong, the old model "
        "1.0: no difference over"
    )
    assert found.measured.points.missed.ties == 1
    assert not (tmp_path / "run" / "model").exists()
    assert (tmp_path / "run" / "candidates" / "sft").exists()
    assert found.measured.new_general == pytest.approx(found.measured.old_general, abs=0.05)
    assert found.accepted["greedy"].difference.mean == 0  # the drafts that went out are still written


def test_accepted_drafts_are_imitated_with_their_weight(folder: Path, tmp_path: Path) -> None:
    """With all of their weight the word that people strike out is learned, too: the model is not sure any more."""
    details = replace(toy.DETAILS, method="sft")
    cards = []
    for weight in (0.0, 0.5):
        run(folder, tmp_path / f"{weight}", replace(toy.CONFIG, epochs=1), replace(details, accepted_weight=weight))
        cards.append(json.loads((tmp_path / f"{weight}" / "candidates" / "sft" / "errata.json").read_text()))
    split = json.loads((tmp_path / "0.5" / "split" / "counts.json").read_text())
    assert split["train_accepted"] > 0
    assert cards[1]["rows"] - cards[0]["rows"] == split["train_accepted"]


def test_what_the_doctor_calls_an_error_is_not_trained_on(folder: Path, tmp_path: Path) -> None:
    rows = [{**row, "rejected_ids": [5, 2]} for row in toy.rows(240)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(NotSafe, match="the sampled ids do not decode to the original text") as stop:
        learn(tmp_path / "log.jsonl", folder / "model", tmp_path / "run", toy.CONFIG, toy.DETAILS, console=QUIET)
    assert stop.value.diagnosis.names()[0] == "sampled_ids_lie"
    assert not (tmp_path / "run" / "candidates").exists()


def test_too_few_rows_are_an_error_that_says_what_they_could_show(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"edited rows are held out, and 60 are needed .* about 0\.[1-9] words a draft"
    ):
        run(folder, tmp_path / "run", details=replace(toy.DETAILS, min_rows=60))
    # Nothing was trained: other settings start anew in the same folder.
    # What candidates that are gone were chosen by is not taken for that of the new ones.
    stale = [tmp_path / "run" / name for name in ("selection/old.jsonl", "general/old.json")]
    for path in stale:
        path.parent.mkdir()
        path.write_text("{}\n")
    details = replace(toy.DETAILS, selection_share=0.01, user_field="none", time_field="none")
    config = replace(toy.CONFIG, epochs=0.1)
    told = Console(record=True, file=io.StringIO(), width=300)
    found = learn(folder / "log.csv", folder / "model", tmp_path / "run", config, details, console=told)
    assert "fewer than 10 edited rows would be left to choose the checkpoint by" in told.export_text()
    assert [path for path in stale if path.exists()] == []
    assert (found.split["selection"], [one.name for one in found.candidates]) == (0, ["figa"])
    assert found.candidates[0].points is None


def test_too_few_users_are_an_error_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    rows = [{**row, "User": f"u{k // 60}"} for k, row in enumerate(toy.rows(240))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    details = replace(toy.DETAILS, split_by="prompt", method="sft", judge_by="users")
    with pytest.raises(ValueError, match=r"are of 4 users, and 6 are needed.* or --judge-by rows, which says nothing"):
        learn(tmp_path / "log.jsonl", folder / "model", tmp_path / "run", toy.CONFIG, details, console=QUIET)
    assert not (tmp_path / "run" / "candidates").exists()
    # The same people are on both sides, so rows decide unless something else is said.
    quick, by_rows = replace(toy.CONFIG, epochs=0.1), replace(details, judge_by="auto")
    found = learn(tmp_path / "log.jsonl", folder / "model", tmp_path / "run", quick, by_rows, console=QUIET)
    assert found.measured.comparison["greedy"].users is None
    assert found.measured.comparison["greedy"].by_user is not None
    assert not any("judge-by" in one for one in found.lowered)


def test_a_candidate_that_forgets_too_much_comes_after_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = [
        SimpleNamespace(name=name, points=SimpleNamespace(wrong=wrong), general=general)
        for name, wrong, general in (("old", 9.0, 3.0), ("figa", 3.0, 3.1), ("sft", 2.0, 3.11))
    ]
    monkeypatch.setattr(findings, "selection", lambda run: figures)
    given: Any = SimpleNamespace(arms=("figa", "sft"), details=LearnDetails())
    assert findings.best(given) == "figa"
    given.details = LearnDetails(max_general_rise=0.2)
    assert findings.best(given) == "sft"
    # Where all of them do, as where no text was given, words decide.
    given.details = LearnDetails(max_general_rise=0.01)
    assert findings.best(given) == "sft"
    for one in figures:
        one.general = None
    assert findings.best(given) == "sft"


def test_users_count_once(promoted: tuple[Path, Learned]) -> None:
    _, found = promoted
    missed = found.measured.points.missed
    assert missed.users == found.split["heldout_users"] < missed.rows
    assert f"1.0 fewer over {missed.users} users, 100 % (with 95 % certainty at least" in found.decision.reasons[0]
    assert f"over {missed.users} users, each of whom counts once" in " ".join(learned_html(found).split())


def test_a_log_without_a_prompt_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("draft,sent\na,b\n")
    with pytest.raises(ValueError, match=r"no usable row; .* line 2: field 'prompt' is missing; add it"):
        learn(tmp_path / "log.csv", folder / "model", tmp_path / "run", console=QUIET)


def test_a_log_as_a_spreadsheet_saves_it(folder: Path, tmp_path: Path) -> None:
    """Semicolons, Windows-1252, other names and empty cells; what was skipped is set aside and counted."""
    rows = ["Frage;Antwort;final_text;User;Date", "say é;a;b;ann;2026-01-01", "say two;a;;ann;2026-01-02", ";;;;"]
    (tmp_path / "log.csv").write_bytes("\r\n".join(rows).encode("cp1252"))
    columns = {"prompt": "Frage", "draft": "Antwort"}
    with pytest.raises(ValueError, match="1 rows cannot be split"):
        learn(tmp_path / "log.csv", folder / "model", tmp_path / "run", console=QUIET, columns=columns)
    counts = json.loads((tmp_path / "run" / "log" / "counts.json").read_text())
    found = [counts[name] for name in ("rows", "bad_rows", "user_field", "time_field")]
    assert found == [1, 2, "User", "Date"]
    assert [row.prompt for row in read_corrections(tmp_path / "run" / "log" / "rows.jsonl")] == ["say é"]


def test_a_field_that_no_row_has_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="--user-field sender: no row has it; the further fields are User, date, phone"
    ):
        run(folder, tmp_path / "run", details=replace(toy.DETAILS, user_field="sender"))


def test_rows_that_leave_no_room_for_a_draft_are_counted(folder: Path, tmp_path: Path) -> None:
    """The model has 64 positions: a prompt of 9 or 10 tokens and 55 new ones fit, or do not."""
    config = replace(toy.CONFIG, max_new_tokens=55, learning_rate=1e-5, epochs=0.1)
    found = run(
        folder, tmp_path / "run", config, replace(toy.DETAILS, method="sft", split_by="prompt", heldout_rows=15)
    )
    assert found.split["heldout"] == 15
    assert found.split["not_drafted"]["more than --heldout-rows"] > 1
    assert found.split["not_drafted"]["the prompt leaves no room for --max-new-tokens"] > 0


def test_the_report_is_one_page_in_which_nothing_of_the_log_is_markup(promoted: tuple[Path, Learned]) -> None:
    _, found = promoted
    hostile = replace(found.examples[0], prompt="<script>alert(1)</script>\u202e", new="</p><b>x</b>\x1b[2J")
    page = learned_html(replace(found, examples=(hostile,)))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "http" not in page.replace("http-equiv", "")
    for said in ("Promoted", "Next: Let some people", "sent by other users after it", "no proof that they were good"):
        assert said in page


def test_a_rewrite_is_shown_as_one_and_white_space_goes_with_it(promoted: tuple[Path, Learned]) -> None:
    _, found = promoted
    example = replace(found.examples[0], old="I like my red cat", sent="I like your blue dog")
    page = learned_html(replace(found, examples=(example,)))
    assert "I like <del>my red cat</del><ins>your blue dog</ins>" in page


def test_the_report_in_the_terminal(promoted: tuple[Path, Learned]) -> None:
    console = Console(width=80, record=True, quiet=False, file=io.StringIO())
    console.print(learned_terminal(promoted[1]))
    text = console.export_text()
    assert "Promoted (" in text
    assert re.search(r"−1\.0 \(−[12]\.\d to −0\.\d\)", text), "rows that agree are no certainty"
    assert "Masked in 12 rows" in text
