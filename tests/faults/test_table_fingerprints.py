"""The table of fingerprints: every flag of every verb that has one, as somebody types it.

They are the fields of the verbs' dataclasses, so a new one is in the table by itself: another value of it gives another
fingerprint, or it stands below with the reason why it changes no result. Nothing is trained here.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from errata import commands
from errata.commands.hub import HubFlags
from errata.data import write_rows
from errata.types import Correction, Preference
from errata.workflows.verdict import Limits
from faults.test_configs import _another, _fields
from runs.test_fingerprints import Seen, stop
from tuning.ppo_toy import reward_model

TRAINS = "--model={one} --out={out}"
CASES: dict[str, str] = {
    "tune sft": f"{TRAINS} --data={{rows}} --heldout={{edits}}",
    "tune figa": f"{TRAINS} --edits={{edits}} --heldout={{edits}}",
    "tune dpo": f"{TRAINS} --data={{edits}} --heldout={{edits}}",
    "reward train": f"{TRAINS} --data={{edits}} --heldout={{edits}} --sequence-coefficient=0.5",
    "reward train --kind=sequence": f"{TRAINS} --data={{edits}} --preferences={{pairs}} --heldout={{edits}}",
    "reward train --objective=eq3": f"{TRAINS} --data={{edits}} --heldout={{edits}}",
    "tune ppo": f"{TRAINS} --reward={{token}} --terminal-reward={{sequence}} --prompts={{prompts}} --critic={{one}}",
    "generate": "--model={one} --prompts={prompts} --out={out}.jsonl",
    "labels": "--edits={edits} --model={one} --out={out}.jsonl",
    "learn": "{edits} --model={one} --out={out}",
}
"""What is typed of each. That of `errata demo` is in tests/runs/test_fingerprints.py."""
OTHER: dict[str, Any] = {
    **{"model": "other", "critic": "other", "general": "rows", "guideline": "rows", "log": "other_edits"},
    **{"data": "other_edits", "edits": "other_edits", "heldout": "other_edits", "preferences": "other_pairs"},
    **{"prompts": "other_prompts", "reward": "other_token", "terminal_reward": "other_sequence"},
    **{"judge": "other_sequence", "learn judge": "local:m", "out": "elsewhere", "labels out": "lines"},
    **{"name": "another", "chunk": 3, "template": "say {prompt}", "lora_targets": "q_proj", "schedule": "linear"},
    **{"best_by": "measure", "normalize": "quotes", "editor": "json:dumps", "minibatch_size": 32, "attention": "eager"},
    **{
        "user_field": "who",
        "time_field": "when",
        "time_format": "iso",
        "push_to_hub": "ada/model",
        "from": "preference",
    },
    **{"max_length": 9, "tune ppo max_length": 5, "encoding": "utf-8-sig", "delimiter": ";"},
    **{"columns": (("prompt=prompt",),), "on_long": "truncate", "generate form": "alpaca_eval", "learn save": "merged"},
    "learn method": "sft",
}
"""Another value, where none can be made of the field's type; of one case with its name before."""
ADAPTER = {"lora_rank": 2}
NEEDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("lora_alpha", "lora_targets", "lora_layers", "lora_rslora", "lora_dora", "save"), ADAPTER),
    **{"lora_dropout": ADAPTER, "quantize": ADAPTER, "max_length": {"max_length": 11, "on_long": "drop"}},
    **{key: {"heldout": "prompts", "judge": "sequence", "evaluate_every": 5} for key in ("judge", "tune ppo heldout")},
    "learn judge": {},
    **{"on_long": {"max_length": 9, "on_long": "drop"}, "tune ppo on_long": {"max_length": 5, "on_long": "drop"}},
    "generate form": {"out": "elsewhere"},
}
"""What is set beside, whichever value it has."""
WHERE = "where it is written, or goes to afterwards"
READ = "how the file is read: its rows are in the fingerprint"
JUDGED = "no stage is made by it: a finished run can be judged again with others"
ALIKE: dict[str, str] = {
    **dict.fromkeys(("out", "push_to_hub", "hub_public"), WHERE),
    "workers": "how many processes there are",
    "preset": "it stands under the other flags, each of which is in the table",
    "labels model": "its tokenizer alone is read, and both have the same",
    **dict.fromkeys(("tune ppo on_long", "generate on_long"), "no prompt is cut: one that is too long is no row"),
    **{f"learn {one.name}": JUDGED for one in fields(Limits)},
    **dict.fromkeys(
        (f"learn {name}" for name in ("drafted_by", "judge", "guideline", "editor_rows", "max_cost")), JUDGED
    ),
    "learn editor": JUDGED,
}
"""What changes no result, and why; of one case with its name before."""
ROWS = ("columns", "encoding", "delimiter", "from", "empty_texts", "labels", "unit", "ties", "reasoning")
"""How rows are read and labelled. Where the fingerprint holds rows and labels, and not the file and the rules, it is
these that tell runs apart, and the flags are left out of the table."""
RULES = ("omissions", "inventions", "objective")
UNUSED = {
    "reward train --kind=sequence": ("kind", *RULES, "kept_coefficient", "sequence_coefficient"),
    "reward train --objective=eq3": ("objective", "kept_coefficient", "sequence_coefficient"),
    "reward train": ("objective",),
}
"""What a kind of reward model does not read, or what is another case of the table."""
REFUSED: dict[str, str] = {
    "generate backend": "vllm",
    "tune ppo lora_dropout": "lora-dropout",
    **{f"{case} quantize": "4 bits" for case in CASES if case.startswith("reward")},
    **{f"{case} stop_when_kept_falls": "a reward model has none" for case in CASES if case.startswith("reward")},
}
"""What a verb takes the usual value of alone, and what it says of another."""


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the table names, by its name there."""
    path = tmp_path_factory.mktemp("table")
    edits = tiny.corrections(5)
    edits += [
        Correction(id="number", prompt="say", original="one red cat", edited="one red cat 12"),
        Correction(id="moved", prompt="say", original="one one two cat", edited="one two dog cat"),
        Correction(id="omitted", prompt="say", original="one two cat dog", edited="one two six cat dog"),
        Correction(id="thinks", prompt="say", original="<think> one </think> two", edited="<think> six </think> red"),
        Correction(id="quoted", prompt="say", original="one “cat” rude", edited='one "cat"'),
        Correction(id="empty", prompt="say", original="one two", edited=""),
    ]
    rows = {
        "rows": tiny.demonstrations(4),
        "edits": edits,
        "other_edits": tiny.corrections(5, seed=1),
        "pairs": [Preference(id="p", prompt="say", chosen="one two red", rejected="one rude")],
        "other_pairs": [Preference(id="p", prompt="say", chosen="one", rejected="one two rude")],
        "prompts": tiny.prompts(4),
        "other_prompts": tiny.prompts(4, seed=1),
    }
    for name, each in rows.items():
        write_rows(path / f"{name}.jsonl", each)
    found = {name: path / f"{name}.jsonl" for name in rows}
    for seed, name in enumerate(("one", "other")):
        found[name] = tiny.llama(path / name, seed=seed)
        for kind in ("token", "sequence"):
            made = reward_model(path / f"{name}_{kind}", tiny.tokenizer(), kind=kind, seed=seed)
            found[kind if name == "one" else f"other_{kind}"] = made
    return found | {"out": path / "out", "elsewhere": path / "elsewhere.json", "lines": path / "elsewhere.jsonl"}


@pytest.fixture
def _stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("training.method", "tuning.ppo.loop", "reward.train"):
        __import__(f"errata.{name}")
        monkeypatch.setattr(sys.modules[f"errata.{name}"], "RunFolder", lambda out, told, *_: stop(told))
    monkeypatch.setattr("errata.winrate.responses._resume", lambda partial, made, *_: stop(made))
    monkeypatch.setattr("errata.labels.stream._open_parts", lambda _, plan: stop(plan))
    monkeypatch.setattr("errata.workflows.learning.context.claim_folder", lambda _, made: stop(made["fingerprint"]))
    monkeypatch.setattr("errata.workflows.learning.whole.check_editor", lambda run: None)  # there is no such judge
    monkeypatch.setattr("errata.demo.pipeline.run_stages", lambda _, *, settings, **__: stop(settings))
    monkeypatch.setattr(HubFlags, "check", lambda self: None)


def others(case: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every field of a command, and another value."""
    for name, default, hint, numeric in _fields(type(command)):
        if name in UNUSED.get(case, ()) or (name in ROWS and not case.startswith(("labels", "learn"))):
            continue
        if (key := f"{case} {name}" if f"{case} {name}" in OTHER else name) in OTHER:
            yield name, OTHER[key]
        elif isinstance(default, enum.Enum):
            yield name, next(each for each in type(default) if each is not default)
        else:
            yield name, _another(default, hint, numeric)


def changed(command: Any, values: Mapping[str, Any], at: Mapping[str, Path]) -> Any:
    """The command with other values, also in the dataclasses in it."""
    found = {}
    for one in fields(command):
        before, name = getattr(command, one.name), one.name.rstrip("_")
        if is_dataclass(before):
            found[one.name] = changed(before, values, at)
        elif name in values:
            value = values[name]
            value = at.get(value, value) if isinstance(value, str) and "Path" in str(one.type) else value
            found[one.name] = type(before)(value) if isinstance(before, enum.Enum) else value
    return replace(command, **found) if found else command


def told(command: Any) -> str:
    """The fingerprint, or what is said instead."""
    try:
        command.run()
    except Seen as seen:
        return str(seen)
    except (ValueError, OSError) as error:
        return f"said: {error}"
    return "said: nothing, and ended"


def wrong_of(
    case: str, name: str, value: Any, command: Any, at: Mapping[str, Path], known: dict[str, str]
) -> str | None:
    """What is wrong with a field, if anything; ``known`` are fingerprints that were asked for before."""
    if value is None:
        return "no other value is known; name one in OTHER"
    needs = NEEDS.get(f"{case} {name}", NEEDS.get(name, {}))
    command = changed(command, needs, at)
    usual = known.get(str(needs)) or known.setdefault(str(needs), told(command))
    other = told(changed(command, {name: value}, at))
    if usual.startswith("said: "):
        return usual
    refusal = REFUSED.get(f"{case} {name}")
    if refusal is not None or other.startswith("said: "):
        return None if refusal and refusal in other else other
    alike = ALIKE.get(f"{case} {name}", ALIKE.get(name))
    if alike is None:
        return "another value gives the same fingerprint" if usual == other else None
    return None if usual == other else f"it is in the fingerprint, and changes no result ({alike})"


@pytest.mark.usefixtures("_stopping")
@pytest.mark.parametrize("case", CASES)
def test_another_value_of_a_flag_is_another_run(case: str, at: dict[str, Path]) -> None:
    verb, _, more = case.partition(" --")
    command: Any = commands.parse(verb, [f"--{more}"] * bool(more) + CASES[case].format(**at).split())
    known = {"{}": told(command)}
    assert told(command) == known["{}"], "the same run is the same"
    found = {name: wrong_of(case, name, value, command, at, known) for name, value in others(case, command)}
    assert not any(found.values()), "\n".join(f"{name}: {said}" for name, said in found.items() if said)
