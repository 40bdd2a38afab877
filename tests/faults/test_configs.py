"""``--config`` files that are damaged: a setting is what is typed there, or an error that names file and key."""

from __future__ import annotations

import dataclasses
import math
import random
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from tyro.conf import Positional

from errata import commands
from errata.cli import main
from errata.commands.config import fields_of
from errata.ranges import numeric_fields
from faults.harness import Ran, chunks, damaged, judge, run
from faults.test_rows import BYTES

pytestmark = pytest.mark.slow  # fifty inputs at a time

VERBS = [verb for verb in commands.COMMANDS if verb != "client costs"]
INPUTS, SIZE = 300, 100
WRONG = [
    *("many", "-1", "1e400", ".nan", ".inf", "-.inf", "0x10", "1:30", "1_0", "yes", "~", "", "[1]", "{a: 1}", "|"),
    *("2020-01-01", '"1"', "1.5", "!!python/name:os.system", "*a", "&a 1", "1" * 23, "true", "None"),
]
"""What stands in the place of a value."""


def required(verb: str) -> list[str]:
    """What a verb wants to have, as it is typed."""
    kind, found = commands.load(commands.COMMANDS[verb]), []
    hints = dict(fields_of(kind))
    for field in dataclasses.fields(kind):
        if (
            field.name in hints
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            positional = Positional in getattr(hints[field.name], "__metadata__", ()) or "Positional" in str(field.type)
            found += ["x"] if positional else [f"--{field.name.replace('_', '-')}=x"]
    return found


def settings_of(verb: str) -> dict[str, Any]:
    """Some value for every field of a verb that holds a number, a switch, a choice or a text, and that is not given."""
    kind = commands.load(commands.COMMANDS[verb])
    return {
        name: value
        for name, default, hint, numeric in _fields(kind)
        if (value := _another(default, hint, numeric)) is not None
    }


def _fields(kind: Any) -> Any:
    hints, numerics = dict(fields_of(kind)), numeric_fields(kind)
    for field in dataclasses.fields(kind):
        default = field.default if field.default is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(default):
            yield from _fields(type(default))
        else:
            name = field.name.rstrip("_")
            yield name, default, hints.get(name), numerics.get(field.name)


def _another(default: Any, hint: Any, numeric: Any) -> Any:
    if isinstance(default, bool):
        return not default
    if numeric is not None:
        tried = [1, 2, 0, 0.5, 3, 100, 1e-5, 0.99]
        return next((value for value in tried if value != default and numeric.takes(value)), None)
    if get_origin(hint) is Literal:
        return get_args(hint)[-1]
    if hint == str | None:
        return "1:30"
    return None


WITH_SETTINGS = [verb for verb in VERBS if settings_of(verb)]


def parsed(arguments: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Ran, Any]:
    """The verb's main function, up to where it would run."""
    told: list[Any] = []

    def note(command: Any) -> int:
        told.append(command)
        return 0

    with monkeypatch.context() as patched:
        patched.setattr(commands, "run", note)
        ran = run(arguments)
    return ran, told[0] if told else None


def plainly(data: bytes) -> dict[str, str] | None:
    """The keys and values of a file of one ``key: value`` a line and nothing else; None where it is another."""
    try:
        text = data.decode("utf-8-sig")
        node = yaml.compose(text)
    except (UnicodeDecodeError, yaml.YAMLError):
        return None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode) or not all(
        isinstance(each, yaml.ScalarNode) for pair in node.value for each in pair
    ):
        return None
    found = [(key.value.replace("-", "_"), value.value) for key, value in node.value]
    return dict(found) if len(dict(found)) == len(found) else None


def flat(command: Any) -> dict[str, Any]:
    """Every field of a command, those of the dataclasses in it, too."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        found |= flat(value) if dataclasses.is_dataclass(value) else {field.name.rstrip("_"): value}
    return found


def differences(one: Any, other: Any) -> list[str]:
    """The fields in which two commands differ."""
    return [name for name, value in flat(other).items() if flat(one)[name] != value]


def says(written: str, value: Any) -> bool:
    """Whether a value is what is written, as somebody reads it who knows YAML's numbers and switches."""
    if isinstance(value, bool):
        return written.lower() in (("true", "yes", "on") if value else ("false", "no", "off"))
    if value is None:
        return written.lower() in ("", "~", "null", "none")
    if isinstance(value, int | float):
        read = yaml.safe_load(written)
        return not isinstance(read, bool) and math.isclose(float(read), value)
    if isinstance(value, tuple):
        return written in value or any(written in each for each in value)
    return str(getattr(value, "value", value)) == written or str(value) == str(Path(written))


def wrong(bare: Any, command: Any, data: bytes) -> str | None:
    """A setting that nobody wrote, or that is not what was written."""
    plain, found = plainly(data), differences(bare, command)
    if plain is None:
        return "no plain file of keys and values was taken"
    if "preset" not in plain and (strange := [name for name in found if name not in plain]):
        return f"{strange[0]}, which nobody wrote"
    held = flat(command)
    if lost := [name for name, written in plain.items() if not says(written, held[name])]:
        return f"{lost[0]} = {held[lost[0]]!r} for {plain[lost[0]]!r}"
    return None


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def damage(rng: random.Random, settings: dict[str, Any]) -> bytes:
    lines = [f"{name}: {_written(value)}" for name, value in settings.items()]
    if rng.random() < 0.35:
        return rng.choice(BYTES)(rng, "\n".join(lines).encode()) or b"\n"
    at = rng.randrange(len(lines))
    name = lines[at].partition(":")[0]
    lines[at] = rng.choice(
        [
            *([f"{name}: {rng.choice(WRONG)}"] * 6),
            f"{lines[at]}\n{name}: {rng.choice(WRONG)}",
            f"{lines[at]}\n{name.replace('_', '-')}: {rng.choice(WRONG)}",
            f"{name[:-1]}: 1",
            f"{name} {rng.choice(WRONG)}",
            f"\t{lines[at]}",
            f"  {lines[at]}",
            f"{lines[at]}\n---\n{lines[at]}",
            f"{name}:\n  {lines[at]}",
            f"<<: {{{lines[at]}}}",
            f"? {lines[at]}",
            f"- {lines[at]}",
        ]
    )
    return "\n".join(lines).encode()


@pytest.mark.parametrize("numbers", list(chunks(INPUTS, SIZE)), ids=lambda part: f"{part[0]}-{part[-1]}")
def test_a_damaged_config_file(numbers: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = cache(lambda verb: parsed([*verb.split(), *required(verb)], monkeypatch)[1])

    def one(rng: random.Random, number: int) -> None:
        verb = WITH_SETTINGS[number % len(WITH_SETTINGS)]
        every = settings_of(verb)
        settings = {name: every[name] for name in rng.sample(sorted(every), min(len(every), 4))}
        path = tmp_path / f"{number}.yaml"
        path.write_bytes(data := damage(rng, settings))
        typed = [*verb.split(), *required(verb)]
        ran, command = parsed([*typed, f"--config={path}"], monkeypatch)
        keys = [f"--{name.replace('_', '-')}" for name in plainly(data) or ()]
        judge(ran, names=[str(path), *keys], right=lambda _: wrong(bare(verb), command, data))

    damaged("configs", numbers, one)


@pytest.mark.parametrize("verb", VERBS)
def test_a_whole_config_file_says_what_it_says(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the damaged ones would be refused for what is not damaged."""
    typed = [*verb.split(), *required(verb)]
    bare = parsed(typed, monkeypatch)[1]
    # A preset has further settings under it, and bf16 is a dtype.
    settings = {name: value for name, value in settings_of(verb).items() if name not in ("preset", "bf16")}
    path = tmp_path / "whole.yaml"
    path.write_text("".join(f"{name}: {_written(value)}\n" for name, value in settings.items()))
    ran, command = parsed([*typed, f"--config={path}"], monkeypatch)
    assert ran.code == 0, ran.err
    assert set(differences(bare, command)) == set(settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guideline: a\nguideline: b\n", "key 'guideline' stands there twice"),
        ("max_cost: 1\nmax-cost: 2\n", "key 'max-cost' stands there twice"),
        ("guideline:\n", "key 'guideline' holds nothing; give it a value"),
        ("guideline: \xff", "is not YAML ('utf-8' codec"),
        ("false\n", "holds no mapping"),
        ("<<: {guideline: a}\n", "'<<' takes keys over from elsewhere"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_what_a_config_file_must_not_say(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text.encode("latin-1"))
    assert main(["winrate", f"--config={path}"]) == 1
    assert f"errata: {path}" in (told := capsys.readouterr().err)
    assert said in told


def test_a_text_is_what_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "guideline: yes\nllm: 1_000\nllm-url: 010\nseed: 0x10\nmax_cost: .inf\nprice_in: null\ndry_run: on\n"
    )
    command = parsed(["winrate", f"--config={path}"], monkeypatch)[1]
    client = command.client
    assert (command.guideline, client.llm, client.llm_url) == ("yes", "1_000", "010")
    assert (client.max_cost, client.price_in, client.dry_run) == (math.inf, None, True)
