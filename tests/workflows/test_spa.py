"""Curation with a generator, a scorer and an editor that are toys, and know what they were asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

import tiny
from errata.cli import main
from errata.data import read_corrections
from errata.models import Sampling
from errata.reward import encode_rollout, score_answers
from errata.types import Correction, Demonstration, PromptRow, Rollout
from errata.workflows import Answer, SPAReport, curate_spa, revise, sample_and_score, suggest_thresholds

ENCODER = tiny.encoder()
DRAFTS = {
    "a": ("say one", "one"),
    "b": ("say two red", "two two"),
    "c": ("tell six", "six cat rude"),
    "d": ("say red", "red"),
    "e": ("say dog", "dog sits here"),
}
"""Prompt and reference; the draft is the prompt said backwards."""
ROWS = [
    Demonstration(id=id, prompt=prompt, response=reference, extra={"source": f"file {id}"})
    for id, (prompt, reference) in DRAFTS.items()
]
REWARDS = {"a": (0.0, 5.0), "b": (2.0, 9.0), "c": (0.0, 2.0), "d": (0.5, 3.5), "e": (-1.0, 4.0)}
"""R(ŷ) and R(y): with η = 1, 3, 3.5, b falls to the first, c to the second, d to the third."""
ETA = {"eta1": 1.0, "eta2": 3.0, "eta3": 3.5}
SAMPLING = Sampling(seed=3)


def backwards(prompt: str) -> str:
    return " ".join(reversed(prompt.split()))


class World:
    """All three, and what each was asked."""

    def __init__(self, rewards: dict[str, tuple[float, float]] = REWARDS) -> None:
        self.sampled: list[str] = []
        self.scored: list[Answer] = []
        self.edited: list[tuple[str, str, str]] = []
        self.rewards = {
            **{(prompt, backwards(prompt)): rewards[id][0] for id, (prompt, _) in DRAFTS.items()},
            **{(prompt, reference): rewards[id][1] for id, (prompt, reference) in DRAFTS.items()},
        }
        self.dies_at = -1
        self.answer: Callable[[str], Any] = lambda draft: f"{draft} now"

    def generate(self, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Rollout]:
        assert sampling == SAMPLING
        self.sampled += [row.id for row in prompts]
        return [
            Rollout(
                id=row.id,
                prompt=row.prompt,
                prompt_ids=ENCODER.prompt_ids(row.prompt),
                response_ids=sampled_ids(str(row.prompt)),
                text=backwards(str(row.prompt)),
                ended=True,
            )
            for row in prompts
        ]

    def score(self, answers: Sequence[Answer]) -> list[float]:
        self.scored += answers
        return [self.rewards[str(prompt), text] for prompt, text, _ in answers]

    def edit(self, prompt: Any, draft: str, reference: str) -> Any:
        if len(self.edited) == self.dies_at:
            raise RuntimeError("the line is dead")
        self.edited.append((prompt, draft, reference))
        return self.answer(draft)


for _each in (World.generate, World.score, World.edit):
    _each.identity = f"the world's {_each.__name__}"  # type: ignore[attr-defined]


def sampled_ids(prompt: str) -> tuple[int, ...]:
    """Ids as no tokenizer would give them: nothing but keeping them has them in the result."""
    return (*(len(word) + 100 for word in prompt.split()), 2)


@pytest.fixture
def world() -> World:
    return World()


def curate(world: World, out: Path, rows: Sequence[Demonstration] = ROWS, **settings: Any) -> SPAReport:
    settings = {**ETA, "sampling": SAMPLING, **settings}
    return curate_spa(rows, world.generate, world.score, world.edit, out, **settings)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_what_is_kept_is_revised_with_ids_reference_and_fields(world: World, tmp_path: Path) -> None:
    report = curate(world, tmp_path)
    assert read_corrections(tmp_path / "edits.jsonl") == [
        Correction(
            id=row.id,
            prompt=row.prompt,
            original=backwards(str(row.prompt)),
            edited=f"{backwards(str(row.prompt))} now",
            original_ids=sampled_ids(str(row.prompt)),
            extra={
                "source": f"file {row.id}",
                "original_reward": REWARDS[row.id][0],
                "output_reward": REWARDS[row.id][1],
                "output": row.response,
            },
        )
        for row in (ROWS[0], ROWS[4])
    ]
    assert world.edited == [("say one", "one say", "one"), ("say dog", "dog say", "dog sits here")]
    assert [(step.rows, step.kept) for step in report.steps] == [(5, 4), (4, 3), (3, 2), (2, 2)]
    assert [step.name for step in report.steps[:3]] == ["R(ŷ) < 1", "R(y) > 3", "R(y) − R(ŷ) > 3.5"]
    assert (report.edits, report.unchanged, report.words_typed, report.words_deleted) == (2, 0, 2, 0)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report.as_dict()))


def test_what_is_dropped_says_by_what_and_why(world: World, tmp_path: Path) -> None:
    curate(world, tmp_path)
    dropped = {row.id: row for row in read_corrections(tmp_path / "dropped.jsonl")}
    assert {id: row.extra["dropped_by"] for id, row in dropped.items()} == {
        "b": "R(ŷ) < 1",
        "c": "R(y) > 3",
        "d": "R(y) − R(ŷ) > 3.5",
    }
    assert dropped["c"].extra["dropped_because"] == "R(ŷ) = 0, R(y) = 2"
    assert (dropped["b"].original_ids, dropped["b"].edited) == (sampled_ids("say two red"), "two two")
    assert ids(tmp_path / "kept.jsonl") == ["a", "e"]


def test_a_threshold_itself_does_not_pass(tmp_path: Path) -> None:
    world = World({**REWARDS, "a": (1.0, 9.0), "c": (-5.0, 3.0), "d": (0.0, 3.5)})
    assert curate(world, tmp_path).steps[2].examples[0].row.id == "d"
    assert ids(tmp_path / "edits.jsonl") == ["e"]


def test_drafts_are_scored_by_their_sampled_ids_and_references_as_text(world: World, tmp_path: Path) -> None:
    scored = sample_and_score(ROWS, world.generate, world.score, tmp_path, sampling=SAMPLING)
    prompts = [str(row.prompt) for row in ROWS]
    assert world.scored == [
        *((prompt, backwards(prompt), sampled_ids(prompt)) for prompt in prompts),
        *((prompt, reference, None) for prompt, reference in DRAFTS.values()),
    ]
    assert [row.edited for row in scored] == [row.response for row in ROWS]
    assert [(row.extra["original_reward"], row.extra["output_reward"]) for row in scored] == list(REWARDS.values())


def test_what_has_no_reward_is_dropped_and_the_file_stays_json(tmp_path: Path) -> None:
    world = World({**REWARDS, "a": (nan, 5.0), "b": (0.0, nan)})
    curate(world, tmp_path, eta1=inf, eta2=-inf, eta3=-inf)
    assert ids(tmp_path / "dropped.jsonl") == ["a", "b"]
    assert json.loads((tmp_path / "scored.jsonl").read_text().splitlines()[0])["original_reward"] is None
    assert "NaN" not in (tmp_path / "scored.jsonl").read_text()


def test_a_rerun_asks_nobody_and_gives_the_same_files(world: World, tmp_path: Path) -> None:
    first = curate(world, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = World()
    assert curate(again, tmp_path) == first
    assert not again.sampled
    assert not again.scored
    assert not again.edited
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("k", range(5))
def test_after_an_editor_died_only_the_rest_is_asked(k: int, tmp_path: Path) -> None:
    free = {"eta1": inf, "eta2": -inf, "eta3": -inf}
    world = World()
    world.dies_at = k
    with pytest.raises(RuntimeError, match="the line is dead"):
        curate(world, tmp_path, **free)
    assert not (tmp_path / "edits.jsonl").exists()
    assert len((tmp_path / "revisions.jsonl").read_bytes().splitlines()) == k
    again = World()
    assert curate(again, tmp_path, **free).edits == 5
    assert [draft for _, draft, _ in world.edited + again.edited] == [backwards(row) for row, _ in DRAFTS.values()]
    assert not again.sampled
    assert not again.scored
    assert ids(tmp_path / "edits.jsonl") == list(DRAFTS)


def test_an_answer_is_written_before_the_next_question(world: World, tmp_path: Path) -> None:
    """So that kill -9 during a question loses no answer: what another process reads is there whatever becomes of us."""
    scored = sample_and_score(ROWS, world.generate, world.score, tmp_path, sampling=SAMPLING)
    log = tmp_path / "revisions.jsonl"
    written: list[list[str]] = []

    def edit(prompt: object, draft: str, reference: str) -> str:
        written.append([json.loads(line)["revised"] for line in log.read_bytes().splitlines()])
        return draft

    revise(scored, edit, log)
    drafts = [row.original for row in scored]
    assert written == [drafts[:k] for k in range(5)]


def test_a_line_that_was_cut_off_is_asked_again_and_harms_none(world: World, tmp_path: Path) -> None:
    curate(world, tmp_path)
    log = tmp_path / "revisions.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-5])
    again = World()
    curate(again, tmp_path)
    assert [draft for _, draft, _ in again.edited] == ["dog say"]
    assert log.read_bytes() == whole


def test_other_thresholds_go_on_from_the_same_answers(world: World, tmp_path: Path) -> None:
    curate(world, tmp_path)
    again = World()
    assert curate(again, tmp_path, eta3=2.5).edits == 3
    assert [draft for _, draft, _ in again.edited] == ["red say"]
    last = World()
    assert curate(last, tmp_path, eta2=4.5).edits == 1
    assert not last.edited
    assert ids(tmp_path / "kept.jsonl") == ids(tmp_path / "edits.jsonl") == ["a"]


def test_results_of_other_thresholds_do_not_outlive_a_run_that_died(world: World, tmp_path: Path) -> None:
    curate(world, tmp_path)
    again = World()
    again.dies_at = 0
    with pytest.raises(RuntimeError):
        curate(again, tmp_path, eta3=2.5)
    assert ids(tmp_path / "kept.jsonl") == ["a", "d", "e"]
    assert not (tmp_path / "edits.jsonl").exists()
    assert not (tmp_path / "report.json").exists()


def test_another_draft_or_reference_is_another_question(world: World, tmp_path: Path) -> None:
    row = Correction(id="x", prompt="say one", original="one", edited="two")
    log = tmp_path / "log.jsonl"
    asked = [row, replace(row, id="y"), replace(row, original="six"), replace(row, edited="red"), row]
    asked.append(replace(row, prompt=[{"role": "user", "content": "say one"}]))
    edits, _ = revise(asked, world.edit, log)
    assert len(edits) == len(asked)
    assert len(world.edited) == 4


def test_what_cannot_be_revised_is_set_aside_counted_and_not_asked_again(world: World, tmp_path: Path) -> None:
    world.answer = lambda draft: None if draft == "one say" else draft
    report = curate(world, tmp_path)
    assert (report.steps[-1].rows, report.steps[-1].kept, report.edits, report.unchanged) == (2, 1, 1, 1)
    assert [(row.id, why) for row, _, why in report.steps[-1].examples] == [("a", "cannot be revised")]
    assert ids(tmp_path / "unrevised.jsonl") == ["a"]
    assert [row.edited for row in read_corrections(tmp_path / "edits.jsonl")] == ["dog say"]
    again = World()
    assert curate(again, tmp_path) == report
    assert not again.edited


def test_an_empty_text_is_a_revision(world: World, tmp_path: Path) -> None:
    world.answer = lambda draft: ""
    assert curate(world, tmp_path).edits == 2


def test_no_row_left_is_said(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no row would be kept \(R\(ŷ\) < -9: 0 of 5 kept; .*loosen"):
        curate(world, tmp_path, eta1=-9)
    world.answer = lambda draft: None
    with pytest.raises(ValueError, match="none of the 2 rows"):
        curate(world, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": ROWS[:4]},
        {"rows": [replace(ROWS[0], response="other"), *ROWS[1:]]},
        {"rows": [replace(ROWS[0], prompt="other"), *ROWS[1:]]},
        {"sampling": Sampling(seed=4)},
        {"made_by": {"model": "another"}},
    ],
)
def test_a_folder_of_another_run_is_refused(world: World, tmp_path: Path, change: dict[str, Any]) -> None:
    curate(world, tmp_path)
    with pytest.raises(ValueError, match="delete it, or give another"):
        curate(world, tmp_path, **change)


def test_functions_that_say_nothing_of_themselves_are_not_gone_on_with(world: World, tmp_path: Path) -> None:
    curate(world, tmp_path)
    silent = [lambda *asked: world.generate(*asked), lambda *asked: world.score(*asked), lambda *asked: "x"]
    with pytest.raises(ValueError, match="nobody can tell whether this generator made it; give it an attribute"):
        curate_spa(ROWS, silent[0], world.score, world.edit, tmp_path, **ETA, sampling=SAMPLING)
    with pytest.raises(ValueError, match="nobody can tell whether this score made it"):
        curate_spa(ROWS, world.generate, silent[1], world.edit, tmp_path, **ETA, sampling=SAMPLING)
    with pytest.raises(ValueError, match="holds answers, and nobody can tell whether this editor gave them"):
        curate_spa(ROWS, world.generate, world.score, silent[2], tmp_path, **ETA, sampling=SAMPLING)
    other: Any = lambda x, draft, y: f"{draft} here"  # noqa: E731
    other.identity = "another editor"
    curate_spa(ROWS, world.generate, world.score, other, tmp_path, **ETA, sampling=SAMPLING)
    assert [row.edited for row in read_corrections(tmp_path / "edits.jsonl")] == ["one say here", "dog say here"]
    named = {"generator": "world", "score": "world"}
    curate_spa(ROWS, silent[0], silent[1], other, tmp_path / "named", **ETA, sampling=SAMPLING, made_by=named)
    curate_spa(ROWS, silent[0], silent[1], other, tmp_path / "named", **ETA, sampling=SAMPLING, made_by=named)
    assert len(world.sampled) == 10, "once for either folder"


@pytest.mark.parametrize("name", ["samples.jsonl", "scored.jsonl"])
def test_a_file_that_was_cut_is_named(name: str, world: World, tmp_path: Path) -> None:
    curate(world, tmp_path)
    path = tmp_path / name
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=rf"{path} is not what was written there .* delete {path}, and rerun"):
        curate(world, tmp_path)
    path.unlink()
    assert curate(world, tmp_path).edits == 2


def test_a_damaged_answer_is_named(world: World, tmp_path: Path) -> None:
    curate(world, tmp_path)
    log = tmp_path / "revisions.jsonl"
    first, second = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first[:9] + b"\n" + second)
    with pytest.raises(ValueError, match=rf"{log}, line 1 is damaged; delete the line, and it is asked again"):
        curate(world, tmp_path)


def test_mistakes_are_named_before_anything_is_paid_for(world: World, tmp_path: Path) -> None:
    for name, message in (("output", r"row 'a': the fields \['output'\]"), ("rejected", r"row 'a': .*\['rejected'\]")):
        with pytest.raises(ValueError, match=message):
            curate(world, tmp_path, rows=[replace(ROWS[0], extra={name: "x"})])
    with pytest.raises(ValueError, match=r"sampling\.samples is 2"):
        curate(world, tmp_path, sampling=Sampling(samples=2))
    assert not world.sampled
    assert not list(tmp_path.iterdir())


def test_what_was_handed_in_must_give_one_for_each(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 rollouts for 5 prompts"):
        curate_spa(ROWS, lambda p, s: world.generate(p[1:], s), world.score, world.edit, tmp_path / "a", **ETA,
                   sampling=SAMPLING)  # fmt: skip
    with pytest.raises(ValueError, match="9 rewards for 10 answers"):
        curate_spa(ROWS, world.generate, lambda a: world.score(a[1:]), world.edit, tmp_path / "b", **ETA,
                   sampling=SAMPLING)  # fmt: skip
    world.answer = lambda draft: 7
    with pytest.raises(ValueError, match="row 'a': the editor gave no text but a int"):
        curate(world, tmp_path / "c")
    assert (tmp_path / "c/revisions.jsonl").read_bytes() == b""


def test_thresholds_are_quantiles_of_rows_that_have_both_rewards() -> None:
    rewards = [(k, 3 * k) for k in range(5)]
    rows = [
        Correction(id="", prompt="", original="", edited="", extra={"original_reward": low, "output_reward": high})
        for low, high in [*rewards, (None, 90), (-90, None)]
    ]
    assert suggest_thresholds(rows, original=0.75, output=0.25, gap=0.5) == (3, 3, 4)
    with pytest.raises(ValueError, match="no row has a reward"):
        suggest_thresholds(rows[5:])
    with pytest.raises(ValueError, match="uantile"):
        suggest_thresholds(rows, original=1.5)


def test_the_result_is_read_by_labels_with_its_ids(world: World, tmp_path: Path) -> None:
    """Through the command line, with ids that decode to the drafts but are the model's own."""
    rows = [tiny.demonstrations(3, seed=0)[k] for k in range(3)]
    model = tiny.llama(tmp_path / "model")

    def generate(prompts: Sequence[PromptRow], sampling: Sampling) -> list[Rollout]:
        return [
            Rollout(
                id=row.id,
                prompt=row.prompt,
                prompt_ids=(),
                response_ids=ENCODER.text_ids("cat sits"),
                text="cat sits",
                ended=False,
            )
            for row in prompts
        ]

    curate_spa(rows, generate, lambda a: [0.0] * len(a), lambda x, d, y: "cat runs", tmp_path / "spa", eta1=inf,
               eta2=-inf, eta3=-inf)  # fmt: skip
    labels = tmp_path / "labels.jsonl"
    assert (
        main(["labels", "--edits", f"{tmp_path / 'spa/edits.jsonl'}", "--model", f"{model}", "--out", f"{labels}"]) == 0
    )
    (line, *_) = labels.read_text().splitlines()
    assert f"{list(ENCODER.text_ids('cat sits'))}"[1:-1] in line


def test_answers_are_scored_by_their_ids_where_they_are_known() -> None:
    encoder = tiny.encoder()
    seen: list[Any] = []

    def reward(rows: Sequence[Any]) -> list[list[float]]:
        seen.extend(rows)
        return [[1.0] * len(row.response_ids) for row in rows]

    unended = encoder.text_ids("one two")
    assert score_answers(reward, encoder, [("say", "one two", unended), ("say", "one two", None)]) == [2, 3]
    assert seen[0] == replace(seen[0], ended=False)
    rollout = Rollout(
        id="", prompt="say", prompt_ids=encoder.prompt_ids("say"), response_ids=unended, text="one two", ended=False
    )
    assert seen[0].ids == encode_rollout(rollout).ids
    assert score_answers(reward, encoder, []) == []
