"""Whether the old model wrote the logged drafts, told by what it writes now; and a log of another model, end to end."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from errata.types import Rollout
from errata.workflows import learn
from errata.workflows.learning.findings import is_again
from workflows import toy

TEN = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("logged", "fresh", "ended", "again"),
    [
        (TEN, TEN, True, True),
        (TEN, TEN.replace("\n", " ").replace(" ", "\n"), True, True),
        (TEN, TEN.replace("ten", "eleven"), True, True),
        (TEN, TEN.replace("nine ten", "a b"), True, False),
        (f"{TEN} eleven twelve", TEN, True, False),
        (f"{TEN} eleven twelve", TEN, False, True),
        (f"{TEN} eleven twelve", "one two three", False, False),
        ("", "", True, True),
        ("", "one", True, False),
    ],
)
def test_nine_words_of_ten_are_the_same_as_far_as_both_go(logged: str, fresh: str, ended: bool, again: bool) -> None:
    one = Rollout(id="a", prompt="p", prompt_ids=(1,), response_ids=(2,), text=fresh, ended=ended)
    assert is_again(logged, one) is again


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.model(tmp_path_factory.mktemp("drafter"))


def test_a_log_that_another_model_wrote_is_said_to_be_one_and_its_distance_decides(model: Path, tmp_path: Path) -> None:
    """The logged drafts end otherwise than the model's own, and are nearer to what was sent."""
    rows = [
        {"prompt": row["prompt"], "draft": row["draft"].replace("rude", "now"), "sent": row["sent"]}
        for row in toy.rows(120)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = Console(file=io.StringIO(), record=True, width=300)
    config = replace(toy.CONFIG, epochs=1)

    def run(**more: object) -> list[str]:
        details = replace(toy.DETAILS, method="sft", **more)  # type: ignore[arg-type]
        out = tmp_path / "run"
        found = learn(tmp_path / "log.jsonl", model, out, config, details, console=told)
        assert found.measured.drafter.again == 0
        return [one.name for one in found.decision.conditions]

    assert {"edit_cost", "drafter"} <= set(run())
    assert "--model does not seem to have written the logged drafts: it writes 0 % of them again" in told.export_text()
    assert not {"edit_cost", "drafter"} & set(run(drafted_by="model"))


def test_drafts_that_are_cut_are_warned_of_before_training_and_refused(model: Path, tmp_path: Path) -> None:
    toy.log(tmp_path / "log.csv", count=120)
    told = Console(file=io.StringIO(), record=True, width=300)
    config = replace(toy.CONFIG, epochs=1, max_new_tokens=2)
    details = replace(toy.DETAILS, method="sft", split_by="prompt", user_field="none")
    found = learn(tmp_path / "log.csv", model, tmp_path / "run", config, details, console=told)
    text = told.export_text()
    assert "only 0 % of the old model's drafts come to an end within --max-new-tokens 2" in text
    assert text.index("only 0 %") < text.index("training sft")
    assert not found.decision.promoted
    assert found.decision.next.startswith("Let drafts come to an end: double --max-new-tokens")


def test_whoever_stops_at_the_warning_starts_anew_in_the_same_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the drafts that were cut is gone on with."""
    toy.log(tmp_path / "log.csv", count=120)
    details = replace(toy.DETAILS, method="sft", split_by="prompt", user_field="none")

    def run(tokens: int) -> None:
        config = replace(toy.CONFIG, epochs=1, max_new_tokens=tokens)
        learn(tmp_path / "log.csv", model, tmp_path / "run", config, details, console=Console(quiet=True))

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("errata.workflows.learning.candidates.run_offline", stop)
    lengths = []
    for tokens in (2, 6):
        with pytest.raises(KeyboardInterrupt):
            run(tokens)
        lines = (tmp_path / "run" / "heldout" / "old.greedy.jsonl").read_text().splitlines()
        lengths.append(max(len(json.loads(line)["ids"]) for line in lines))
    assert lengths == [2, 4]
