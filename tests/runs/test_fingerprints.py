"""Every fingerprint against every input that changes a result: another input is never another run's result.

Nothing is trained here: each function is stopped where it has said what tells its run from others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tiny
from errata.client import Ask
from errata.client.ledger import key_of
from errata.data import Encoder, OnLong
from errata.demo.pipeline import run_demo
from errata.demo.recipe import DemoConfig
from errata.labels import LabelRules, label_file
from errata.models import Sampling
from errata.reward import (
    ProjectedReward,
    RewardConfig,
    TokenRewardConfig,
    TokenScorer,
    train_sequence_reward,
    train_token_reward,
    train_token_reward_bradley_terry,
)
from errata.runs import fingerprint_of, identity_of
from errata.tuning import (
    DPOConfig,
    FIGAConfig,
    PPOConfig,
    SFTConfig,
    Stream,
    train_dpo,
    train_figa,
    train_ppo,
    train_sft,
)
from errata.types import Correction, Demonstration, Preference
from errata.winrate import ScoreJudge, generate
from errata.winrate.training import win_rate_over_start
from errata.workflows import LearnConfig, LearnDetails, learn, sample_and_score

ENCODER = tiny.encoder()
ROWS = tiny.demonstrations(3)
EDITS = tiny.corrections(3)
LABELS = tiny.labels(3)
PROMPTS = tiny.prompts(3)
LEFT, RIGHT = "say one\ntwo", "red"


class Seen(Exception):  # noqa: N818
    """What tells a run from others."""

    def __init__(self, *told: Any) -> None:
        super().__init__(json.dumps(told, sort_keys=True, default=str))


def stop(*told: Any, **more: Any) -> Any:
    raise Seen(told, more)


def rewards(name: str | None) -> Callable[..., Any]:
    """A function of rewards, as all are alike but for what they say of themselves."""

    def reward(rows: Any) -> Any:
        return [[float(len(name or "")) for _ in row.response_ids] for row in rows]

    if name is not None:
        reward.identity = name  # type: ignore[attr-defined]
    return reward


def pairs(rows: list[Correction]) -> list[Preference]:
    return [Preference(id=row.id, prompt=row.prompt, chosen=row.edited, rejected=row.original) for row in rows]


def moved(*, line_in_prompt: bool) -> tuple[str, str]:
    """The same text, and so the same ids, parted at another line: tokens that are learned from, or not."""
    return ("say one", "two red") if line_in_prompt else ("say one two", "red")


SPACES = Encoder(tiny.tokenizer(), template="{prompt} ")


def parted(line_in_prompt: bool) -> list[Demonstration]:
    prompt, response = moved(line_in_prompt=line_in_prompt)
    return [Demonstration(id="a", prompt=prompt, response=response)]


def parted_pairs(line_in_prompt: bool) -> list[Preference]:
    prompt, response = moved(line_in_prompt=line_in_prompt)
    return [Preference(id="a", prompt=prompt, chosen=response, rejected=f"{response} rude")]


STREAM = Stream(name="reward", reward=rewards("one"))
OWN = tiny.with_own_weights(LABELS)
OTHER_OWN = tiny.with_own_weights(LABELS, seed=5)
PPO = {"reward": [STREAM], "prompts": PROMPTS, "encoder": ENCODER, "config": PPOConfig(evaluate_every=1)}
TRAINED: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, dict[str, Any]]]] = {
    "sft": (
        train_sft,
        {"rows": ROWS, "encoder": ENCODER, "config": SFTConfig()},
        {
            "rows": {"rows": ROWS[:-1]},
            "config": {"config": SFTConfig(seed=1)},
            "template": {"encoder": Encoder(tiny.tokenizer(), template="say {prompt}\n")},
            "held-out rows": {"heldout": LABELS},
            "weights of rows": {"row_weights": {"d0": 0.5}},
        },
    ),
    "sft, where a response begins": (
        train_sft,
        {"rows": parted(True), "encoder": SPACES, "config": SFTConfig()},
        {"moved": {"rows": parted(False)}},
    ),
    "figa": (
        train_figa,
        {"labels": LABELS, "encoder": ENCODER, "config": FIGAConfig(), "heldout": OWN},
        {
            "labels": {"labels": LABELS[:-1]},
            "own weights": {"labels": OWN},
            "config": {"config": FIGAConfig(gate=1.0)},
            "held-out rows": {"heldout": OWN[:-1]},
            "own weights of held-out rows": {"heldout": OTHER_OWN},
            "weights of rows": {"row_weights": {"c0": 0.5}},
        },
    ),
    "dpo": (
        train_dpo,
        {"rows": pairs(EDITS), "encoder": ENCODER, "config": DPOConfig()},
        {
            "rows": {"rows": pairs(EDITS)[:-1]},
            "sides": {"rows": [replace(row, chosen=row.rejected, rejected=row.chosen) for row in pairs(EDITS)]},
            "config": {"config": DPOConfig(beta=0.2)},
            "held-out rows": {"heldout": LABELS},
        },
    ),
    "dpo, where a response begins": (
        train_dpo,
        {"rows": parted_pairs(True), "encoder": SPACES, "config": DPOConfig()},
        {"moved": {"rows": parted_pairs(False)}},
    ),
    "sequence reward": (
        train_sequence_reward,
        {"rows": pairs(EDITS), "encoder": ENCODER, "config": RewardConfig()},
        {
            "rows": {"rows": pairs(EDITS)[:-1]},
            "config": {"config": RewardConfig(seed=1)},
            "held-out rows": {"heldout": pairs(EDITS)},
        },
    ),
    "sequence reward, where a response begins": (
        train_sequence_reward,
        {"rows": parted_pairs(True), "encoder": SPACES, "config": RewardConfig()},
        {"moved": {"rows": parted_pairs(False)}},
    ),
    "token reward": (
        train_token_reward,
        {"labels": LABELS, "encoder": ENCODER, "config": TokenRewardConfig(sequence_coefficient=0.5)},
        {
            "labels": {"labels": LABELS[:-1]},
            "objective": {"objective": "soft"},
            "config": {"config": TokenRewardConfig(sequence_coefficient=0.6)},
            "preferences": {"preferences": pairs(EDITS)},
            "held-out rows": {"heldout": LABELS},
        },
    ),
    "Eq 3": (
        train_token_reward_bradley_terry,
        {"labels": LABELS, "encoder": ENCODER, "config": RewardConfig()},
        {
            "labels": {"labels": LABELS[:-1]},
            "objective": {"objective": "changed_sum"},
            "config": {"config": RewardConfig(seed=1)},
            "preferences": {"preferences": pairs(EDITS)},
            "held-out rows": {"heldout": LABELS},
        },
    ),
    "ppo": (
        train_ppo,
        {**PPO, "evaluate": rewards("an evaluation")},
        {
            "a function": {"reward": [replace(STREAM, reward=rewards("other"))]},
            "a function alone": {"reward": rewards("other")},
            "coefficient": {"reward": [replace(STREAM, coefficient=2.0)]},
            "clip": {"reward": [replace(STREAM, clip=2.0)]},
            "centred": {"reward": [replace(STREAM, centred=True)]},
            "penalties only": {"reward": [replace(STREAM, penalties_only=True)]},
            "terminal": {"reward": [replace(STREAM, terminal=True)]},
            "another stream": {"reward": [STREAM, replace(STREAM, name="other")]},
            "prompts": {"prompts": PROMPTS[:-1]},
            "template": {"encoder": Encoder(tiny.tokenizer(), template="say {prompt}\n")},
            "config": {"config": replace(PPO["config"], seed=1)},
            "evaluation": {"evaluate": rewards("another evaluation")},
            "what is noted": {"noted": {"judge": "x"}},
        },
    ),
}
CASES = [(name, change) for name, (_, _, changes) in TRAINED.items() for change in ("model", *changes)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny.llama(folder / name, seed=k) for k, name in enumerate(("one", "other"))}


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("training.method", "tuning.ppo.loop", "reward.train"):
        monkeypatch.setattr(sys.modules[f"errata.{name}"], "RunFolder", lambda out, *told: stop(*told))


def told(call: Callable[[], Any]) -> str:
    with pytest.raises(Seen) as seen:
        call()
    return str(seen.value)


@pytest.mark.usefixtures("stopping")
@pytest.mark.parametrize(("name", "change"), CASES)
def test_training(name: str, change: str, folders: Mapping[str, Path], tmp_path: Path) -> None:
    function, arguments, changes = TRAINED[name]

    def seen(model: str = "one", **changed: Any) -> str:
        return told(partial(function, folders[model], out=tmp_path / "out", **{**arguments, **changed}))

    assert seen() == seen(), "the same run is the same"
    assert seen() != (seen("other") if change == "model" else seen(**changes[change]))


@pytest.mark.usefixtures("stopping")
def test_a_critic_and_reward_models_of_other_weights_are_others(folders: Mapping[str, Path], tmp_path: Path) -> None:
    def seen(**changed: Any) -> str:
        return told(partial(train_ppo, folders["one"], out=tmp_path / "out", **{**PPO, **changed}))

    assert seen() != seen(critic=folders["other"])
    one, other = ([Stream(name="reward", reward=folders[name])] for name in ("one", "other"))
    assert seen(reward=one) == seen(reward=one) != seen(reward=other)


@pytest.mark.usefixtures("stopping")
@pytest.mark.parametrize("what", ["reward", "evaluate"])
def test_a_function_that_says_nothing_is_never_the_same(what: str, folders: Mapping[str, Path], tmp_path: Path) -> None:
    silent = rewards(None)
    call = partial(train_ppo, folders["one"], out=tmp_path / "out", **{**PPO, what: silent})
    assert told(call) != told(call)
    if what == "evaluate":  # what is noted speaks for it; and one that is never called changes nothing
        call = partial(call, noted={"heldout": "x"})
        assert told(call) == told(call)
        never = {**PPO, "config": PPOConfig(), "evaluate": silent}
        call = partial(train_ppo, folders["one"], out=tmp_path / "out", **never)
        assert told(call) == told(call)


def test_reward_models_and_judges_say_what_they_are(folders: dict[str, Path]) -> None:
    scorer = TokenScorer(None, 0, level_is_free=False)
    assert identity_of(scorer) is None, "a model that came from nowhere"
    known = replace(scorer, source=["folder", "abc"])
    others = [known, replace(known, shift=1.0), replace(known, scale=2.0), replace(known, source=["folder", "abd"])]
    projected = [
        ProjectedReward(reward=one, reward_encoder=ENCODER, policy_encoder=ENCODER, prompts=()) for one in others
    ]
    projected.append(replace(projected[0], reward_encoder=Encoder(tiny.tokenizer(), template="{prompt} ")))
    found = [fingerprint_of(identity_of(one)) for one in (*others, *projected)]
    assert len(set(found)) == len(found)
    assert identity_of(replace(projected[0], reward=scorer)) is None
    judges = [ScoreJudge(len, name=name) for name in ("a", "b")]
    evaluations = [
        win_rate_over_start(model, prompts, judge, ENCODER, sampling)
        for model, prompts, judge, sampling in (
            (folders["one"], PROMPTS, judges[0], Sampling()),
            (folders["other"], PROMPTS, judges[0], Sampling()),
            (folders["one"], PROMPTS[:2], judges[0], Sampling()),
            (folders["one"], PROMPTS, judges[1], Sampling()),
            (folders["one"], PROMPTS, judges[0], Sampling(seed=1)),
        )
    ]
    assert len({fingerprint_of(identity_of(one)) for one in evaluations}) == len(evaluations)


def generated(monkeypatch: pytest.MonkeyPatch, out: Path, **changed: Any) -> str:
    monkeypatch.setattr(sys.modules["errata.winrate.responses"], "_resume", lambda partial, made, *_: stop(made))
    arguments = {"prompts": PROMPTS, "sampling": Sampling(), "name": "m", "settings": {"model": "m"}, **changed}
    return told(partial(generate, arguments.pop("generator", None), out=out, **arguments))


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": PROMPTS[:-1]},
        {"prompts": [replace(row, extra={"topic": "x"}) for row in PROMPTS]},
        *({"sampling": replace(Sampling(), **{key: value + 1})} for key, value in asdict(Sampling()).items()),
        {"name": "n"},
        {"settings": {"model": "n"}},
        {"form": "alpaca_eval"},
        {"chunk": 3},
        {"settings": {}, "generator": rewards("a generator")},
    ],
)
def test_generate(change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = partial(generated, monkeypatch, tmp_path / "a.jsonl")
    assert seen() == seen() != seen(**change)


@pytest.mark.parametrize("change", ["source", "rules", "template", "max_length", "on_long"])
def test_labels(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("errata.labels.stream._open_parts", lambda _, plan: stop(plan))

    def seen(**changed: Any) -> str:
        given = {"source": "a", "rules": LabelRules(), "template": "auto", "max_length": 9, "on_long": OnLong.DROP}
        given |= changed
        source, rules = given.pop("source"), given.pop("rules")
        return told(
            lambda: label_file(
                EDITS,
                tmp_path / "a.jsonl",
                lambda: Encoder(tiny.tokenizer(), **given),
                rules,
                source=source,
                set_aside=tmp_path / "b",
            )
        )

    other = {"source": "b", "rules": LabelRules(omissions="blame"), "template": "{prompt} ", "max_length": 8}
    assert seen() == seen() != seen(**{change: {**other, "on_long": OnLong.TRUNCATE}[change]})


@pytest.mark.parametrize("change", ["log", "model", "config", "details", "general"])
def test_learn(change: str, folders: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["errata.workflows.learning.context"]
    monkeypatch.setattr(module, "claim_folder", lambda _, settings: stop(settings["fingerprint"]))
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)

    def seen(**changed: Any) -> str:
        given = {"log": tmp_path / "a", "model": folders["one"], "config": LearnConfig(), "details": LearnDetails()}
        return told(partial(learn, out=tmp_path / "out", **{**given, **changed}))

    other = {
        "log": tmp_path / "b",
        "model": folders["other"],
        "config": LearnConfig(epochs=1),
        "details": LearnDetails(seed=1),
        "general": tmp_path / "a",
    }
    assert seen() == seen() != seen(**{change: other[change]})


@pytest.mark.parametrize("change", ["rows", "sampling", "made_by", "generator", "score"])
def test_spa(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("errata.workflows.spa.claim_folder", lambda _, settings: stop(settings))

    def seen(**changed: Any) -> str:
        given = {"rows": ROWS, "generator": rewards("g"), "score": rewards("s"), "sampling": Sampling()}
        return told(partial(sample_and_score, out=tmp_path, **{**given, **changed}))

    other = {
        "rows": ROWS[:-1],
        "sampling": Sampling(seed=1),
        "made_by": {"generator": "h"},
        "generator": rewards("h"),
        "score": rewards("t"),
    }
    assert seen() == seen() != seen(**{change: other[change]})


def test_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("errata.demo.pipeline.run_stages", lambda _, *, settings, **__: stop(settings))

    def seen(config: DemoConfig) -> str:
        return told(partial(run_demo, replace(config, out=tmp_path)))

    for name, value in asdict(DemoConfig()).items():
        if name not in ("out", "seeds", "workers"):
            other = value + 1 if isinstance(value, int) else value / 2  # within the range of a share, too
            assert seen(DemoConfig()) != seen(replace(DemoConfig(), **{name: other})), name
    assert seen(DemoConfig()) == seen(DemoConfig(workers=1)) == seen(DemoConfig(seeds=2))


def test_the_ledger() -> None:
    ask = Ask(messages=({"role": "user", "content": "a"},))
    keys = [key_of(ask, server="s", model="m"), key_of(ask, server="t", model="m"), key_of(ask, server="s", model="n")]
    keys += [
        key_of(replace(ask, **change), server="s", model="m")
        for change in ({"messages": ({"role": "user", "content": "b"},)}, {"temperature": 0.5}, {"max_tokens": 7})
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(ask, server="s", model="m") == keys[0]
