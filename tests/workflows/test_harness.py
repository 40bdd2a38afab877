"""The harness on a task of our own: its data is a file beside it, so nothing is fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import tiny
from errata.workflows.harness import TaskScore, forgotten, task_scores

TASK = """\
task: which_word
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - metric: acc
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.llama(tmp_path / "model")


@pytest.mark.slow
def test_a_task_of_our_own(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": "say", "choices": tiny.CLEAN[:2], "answer": k % 2} for k in range(6)]
    data, tasks = tmp_path / "rows.jsonl", tmp_path / "tasks"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks.mkdir()
    (tasks / "which_word.yaml").write_text(TASK.format(data=data))
    found = task_scores(model, ["which_word"], include=tasks)
    # One question with both answers in turn: half of them are right, whatever the model prefers.
    (score,) = found.values()
    assert list(found) == ["which_word acc"]
    assert (score.value, score.higher_is_better, score.rows) == (0.5, True, 6)
    assert score.stderr == pytest.approx(0.5 / 5**0.5)
    with pytest.raises(ValueError, match="no task 'nothing_of_the_kind'"):
        task_scores(model, ["nothing_of_the_kind"], include=tasks)


def test_without_the_harness_it_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ValueError, match=r"errata\[lm-eval\]"):
        task_scores(model, ["arc_easy"])


def test_forgotten_has_the_sign_of_each_figure() -> None:
    def score(value: float, better: bool) -> TaskScore:
        return TaskScore(value=value, stderr=None, higher_is_better=better, rows=1)

    before = {"a acc": score(0.75, True), "b perplexity": score(10, False), "c acc": score(1, True)}
    after = {"a acc": score(0.5, True), "b perplexity": score(12, False)}
    assert forgotten(before, after) == {"a acc": 0.25, "b perplexity": 2}
