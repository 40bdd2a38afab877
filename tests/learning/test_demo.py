"""The demo's settings teach: what may be relied on, decoded alike. Close calls are for the report, not for a gate.

Models and settings are those of the demo as it is shipped; of rows there are half, of PPO's rounds a sixth.
"""

import json

import pytest
from rich.console import Console

from errata.demo.pipeline import run_demo
from errata.demo.recipe import DemoConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    few = {"start_responses": 2500, "prompts": 600, "heldout": 120, "ppo_steps": 8, "curve_prompts": 4}
    config = DemoConfig(out=tmp_path_factory.mktemp("demo") / "run", **few)
    run_demo(config, Console(quiet=True))
    summary = json.loads((config.out / "winrate" / "summary.json").read_text())
    return {arm["name"]: arm for arm in summary["arms"]}


def test_no_arm_collapses(arms):
    start = arms["start"]["sampled"]
    for name, arm in arms.items():
        found = arm["sampled"]
        assert found["well_formed"] > 0.5 * start["well_formed"], name
        assert 0.5 * start["mean_length"] < found["mean_length"] < 1.5 * start["mean_length"], name
        assert found["entropy"] > 0.2, name
        assert arm["greedy"]["well_formed"] > 0.8, name


@pytest.mark.parametrize("name", ["figa", "ppo_token", "ppo_penalties"])
def test_fewer_defects_than_the_start(arms, name):
    assert arms[name]["sampled"]["mean_defects"] < arms["start"]["sampled"]["mean_defects"]


def test_corrections_leave_less_to_correct(arms):
    assert arms["figa"]["sampled"]["edit_cost"] < arms["start"]["sampled"]["edit_cost"]
