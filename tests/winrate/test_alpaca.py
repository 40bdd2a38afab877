"""AlpacaEval's files. What the official package said of the two files here, made once in an environment of its own:

    python -m venv alpaca && alpaca/bin/pip install alpaca_eval==0.6.6 'setuptools<81'
    alpaca/bin/python -c "import json, sys; from alpaca_eval.metrics import get_winrate; \
        print(get_winrate(json.load(open(sys.argv[1]))))" tests/winrate/alpaca/annotations.json
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from errata.types import Demonstration
from errata.winrate import (
    ScoreJudge,
    compare_rulings,
    contest,
    is_outputs,
    pair_up,
    read_annotations,
    read_outputs,
    write_annotations,
    write_outputs,
)

HERE = Path(__file__).parent / "alpaca"
OFFICIAL = {"win_rate": 69.03965, "standard_error": 6.587740500697158, "wins": 26, "losses": 12, "ties": 2}
OFFICIAL_VALID = {
    "win_rate": 68.56933513513515,
    "standard_error": 7.051118998454331,
    "wins": 24,
    "losses": 11,
    "ties": 2,
}


def test_equals_the_official_package() -> None:
    paired, rulings, judge, baseline = read_annotations(HERE / "annotations.json")
    (arm,) = compare_rulings(paired, rulings, judge, baseline_name=baseline).arms
    assert (arm.name, baseline, judge.name) == ("candidate", "reference", "made_up")
    assert 100 * arm.win_rate.mean == pytest.approx(OFFICIAL["win_rate"], rel=1e-9)
    assert 100 * arm.standard_error == pytest.approx(OFFICIAL["standard_error"], rel=1e-9)
    assert (arm.wins, arm.losses, arm.ties, arm.invalid) == (26, 12, 2, 0)


def test_what_the_official_package_leaves_out_is_counted() -> None:
    paired, rulings, judge, _ = read_annotations(HERE / "with_invalid.json")
    (arm,) = compare_rulings(paired, rulings, judge).arms
    assert (arm.prompts, arm.wins, arm.losses, arm.ties, arm.invalid) == (40, 24, 11, 2, 3)
    valid = [100 * ruling.score for ruling in rulings["candidate"] if ruling.valid]
    assert np.mean(valid) == pytest.approx(OFFICIAL_VALID["win_rate"], rel=1e-9)
    assert np.std(valid, ddof=1) / len(valid) ** 0.5 == pytest.approx(OFFICIAL_VALID["standard_error"], rel=1e-9)
    assert 100 * arm.win_rate.mean == pytest.approx(OFFICIAL_VALID["win_rate"], rel=1e-9)
    assert 100 * arm.standard_error == pytest.approx(OFFICIAL_VALID["standard_error"], rel=1e-9)
    assert 100 * arm.win_rate_invalid_tied == pytest.approx((37 * OFFICIAL_VALID["win_rate"] + 3 * 50) / 40)
    assert arm.invalid_ids == ("row-4", "row-21", "row-31")


def rows(*texts):
    return [Demonstration(id=f"p{k}", prompt=f"say {k}", response=text) for k, text in enumerate(texts)]


def test_annotations_there_and_back(tmp_path) -> None:
    arms, base = {"one": rows("a", "bb", "c"), "two": rows("aaa", "b", "ccc")}, rows("aa", "b", "cc")

    def score(answers):
        return [len(answer) for _, _, answer in answers]

    found, rulings = contest(arms, base, ScoreJudge(score, name="long"), baseline_name="base")
    write_annotations(tmp_path / "a.json", pair_up(arms, base), rulings, annotator="long", baseline="base")
    raw = json.loads((tmp_path / "a.json").read_text())
    assert raw[0] == {
        "instruction": "say 0",
        "output_1": "aa",
        "generator_1": "base",
        "output_2": "a",
        "generator_2": "one",
        "annotator": "long",
        "preference": 1.0,
    }
    again = read_annotations(tmp_path / "a.json")
    assert {arm: [ruling.score for ruling in made] for arm, made in again.rulings.items()} == {
        arm: [ruling.score for ruling in made] for arm, made in rulings.items()
    }
    back = compare_rulings(again.paired, again.rulings, again.judge, baseline_name=again.baseline)
    assert [arm.win_rate for arm in back.arms] == [arm.win_rate for arm in found.arms]
    assert back.differences == found.differences


def test_invalid_is_null_there_and_back(tmp_path) -> None:
    paired, rulings, _, _ = read_annotations(HERE / "with_invalid.json")
    write_annotations(tmp_path / "a.json", paired, rulings, annotator="x", baseline="reference")
    assert read_annotations(tmp_path / "a.json").rulings == rulings
    assert json.loads((tmp_path / "a.json").read_text())[3]["preference"] is None


def test_outputs_there_and_back(tmp_path) -> None:
    file = tmp_path / "outputs.json"
    write_outputs(file, [("say é", "one"), ([{"role": "user", "content": "say two"}], "two")], generator="mine")
    assert json.loads(file.read_text())[1] == {"instruction": "say two", "output": "two", "generator": "mine"}
    assert is_outputs(file)
    assert read_outputs(file) == [
        Demonstration(id="row-1", prompt="say é", response="one", extra={"generator": "mine"}),
        Demonstration(id="row-2", prompt="say two", response="two", extra={"generator": "mine"}),
    ]


def test_an_input_follows_its_instruction(tmp_path) -> None:
    file = tmp_path / "outputs.json"
    outputs = [
        {"instruction": "Translate.", "input": "Hut", "output": "hat"},
        {"instruction": "x", "output": "", "input": ""},
    ]
    file.write_text(json.dumps(outputs))
    assert [row.prompt for row in read_outputs(file)] == ["Translate.\n\nHut", "x"]


def test_other_files_are_no_outputs(tmp_path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('[{"prompt": "x", "response": "y"}]')
    assert not is_outputs(file)
    assert not is_outputs(tmp_path / "rows.jsonl")
    file.write_text('[{"instruction": "x", "output": 3}]')
    with pytest.raises(ValueError, match=r"row 1: field 'output' is 3"):
        read_outputs(file)


def test_annotations_of_one_reference_and_the_same_instructions(tmp_path) -> None:
    kept = json.loads((HERE / "annotations.json").read_text())[:4]
    file = tmp_path / "a.json"
    file.write_text(json.dumps([*kept[:3], {**kept[3], "generator_1": "other"}]))
    with pytest.raises(ValueError, match="references reference, other"):
        read_annotations(file)
    file.write_text(json.dumps([*kept[:3], {**kept[3], "generator_2": "other"}]))
    with pytest.raises(ValueError, match="not the same instructions"):
        read_annotations(file)
