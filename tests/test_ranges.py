"""Every number that a verb takes has a range, and is checked before anything is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errata.cli import main
from errata.client import Limits
from errata.commands import COMMANDS, load
from errata.models import Sampling
from errata.ranges import Numeric, Range, Ranged, Size, numeric_fields
from errata.tuning import FIGAConfig, PPOConfig, SFTConfig, Stream

POSITIONAL = {"learn": "log", "client check": "server"}


def parts_of(kind: type[Any]) -> Iterator[type[Any]]:
    """A command's dataclass, and those whose fields are its flags."""
    yield kind
    for hint in get_type_hints(kind).values():
        if is_dataclass(hint) and isinstance(hint, type):
            yield from parts_of(hint)


PARTS = sorted({part for where in COMMANDS.values() for part in parts_of(load(where))}, key=lambda part: part.__name__)
NUMBERS = [(part, name) for part in [*PARTS, Sampling, Stream, Limits] for name in numeric_fields(part)]


def required(part: type[Any]) -> dict[str, Any]:
    return {
        one.name: Path("nowhere") for one in fields(part) if one.default is MISSING and one.default_factory is MISSING
    }


def outside(numeric: Numeric) -> list[Any]:
    """Values that are in no such range: at its ends and beyond them, no numbers at all, and of another type."""
    bounds = numeric.range
    assert bounds is not None, "no range is declared; see errata.ranges"
    found: list[Any] = [math.nan, "3", True, [1], 10**400]
    found += [inf for inf in (math.inf, -math.inf) if inf not in (bounds.low, bounds.high)]
    found += [end for end in (bounds.above, bounds.below) if end is not None]
    step = 1 if numeric.whole else 1e-3
    found += [] if bounds.low in (None, -math.inf) else [bounds.low - step]
    found += [] if bounds.high in (None, math.inf) else [bounds.high + step]
    return found + ([1.5] if numeric.whole else []) + ([] if numeric.optional else [None])


@pytest.mark.parametrize(("part", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_a_number_out_of_its_range_is_named(part: type[Any], name: str) -> None:
    numeric, given_ = numeric_fields(part)[name], required(part)
    flag = f"--{name.replace('_', '-')} " if part not in (Stream, Limits) else f"{name} of the "
    values = outside(numeric)
    if part is Sampling:  # whose types are checked at every call (tests/conftest.py)
        values = [value for value in values if type(value) is (int if numeric.whole else float)]
    for value in values:
        with pytest.raises(ValueError, match=rf"^{re.escape(flag)}.* is out of range: give a (whole )?number"):
            part(**{**given_, name: value})
    part(**given_)  # its own defaults are within


@pytest.mark.parametrize("verb", COMMANDS)
def test_flags_are_checked_before_anything_is_loaded(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As somebody types it: the files that are named are not there, and it is the number that is complained of."""
    parts = list(parts_of(load(COMMANDS[verb])))
    numbers = {name: numeric for part in parts for name, numeric in numeric_fields(part).items()}
    named = [name for part in parts[:1] for name, hint in get_type_hints(part).items() if not is_dataclass(hint)]
    needed = [f"--{name.replace('_', '-')}=nowhere" for name in required(parts[0]) if name in named]
    positional = POSITIONAL.get(verb, "")
    needed = [positional if flag.startswith(f"--{positional}=") else flag for flag in needed]
    for name, numeric in list(numbers.items())[::8]:
        flag = f"--{name.replace('_', '-')}"
        value = -1 if numeric.whole else math.nan
        assert main([*verb.split(), *needed, f"{flag}={value}"]) == 1
        assert capsys.readouterr().err.startswith(f"errata: {flag} {value} is out of range")


def test_config_files_are_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.yaml").write_text("epochs: .nan\nmax_grad_norm: -1\n")
    given_ = ["--model=nowhere", "--data=nowhere", "--out=nowhere", f"--config={tmp_path / 'settings.yaml'}"]
    assert main(["tune", "sft", *given_]) == 1
    assert "errata: --epochs nan is out of range" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: SFTConfig(epochs=-1),
            "--epochs -1 is out of range: give a number above 0 and at most 1,000,000 (3 is usual)",
        ),
        (
            lambda: SFTConfig(micro_batch_size=0),
            "--micro-batch-size 0 is out of range: give a whole number of 1 or more (64 is usual)",
        ),
        (
            lambda: SFTConfig(lora_rank=100_000),
            "--lora-rank 100000 is out of range: give a whole number from 0 to 16,384 (8 to 64 are usual, 0 trains all "
            "weights)",
        ),
        (
            lambda: FIGAConfig(gate=-math.inf),
            "--gate -inf is out of range: give a number of 0 or more, or inf (4 is usual)",
        ),
        (
            lambda: Stream(name="words", reward=Path(), clip=0.0),
            "clip of the stream 'words' 0 is out of range: give a number above 0",
        ),
    ],
)
def test_what_is_said(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        make()


@given(st.floats() | st.integers())
def test_a_range_holds_what_it_says(value: float) -> None:
    assert Range(low=0, high=1).holds(value) == (0 <= value <= 1)
    assert Range(above=0, below=1).holds(value) == (0 < value < 1)
    assert Range(low=0, high=math.inf).holds(value) == (value >= 0)
    assert Range().holds(value) == (abs(value) <= 1.7976931348623157e308)


def test_numbers_of_numpy_are_numbers() -> None:
    assert SFTConfig(epochs=np.float32(2), batch_size=np.int64(8)).batch_size == 8  # type: ignore[arg-type]
    assert PPOConfig(target_kl=None).target_kl is None


def test_a_field_without_a_range_is_our_mistake() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Settings(Ranged):
        one: Size = 1
        other: int = 1

    globals()["Settings"] = Settings
    with pytest.raises(AssertionError, match=r"Settings\.other declares no range"):
        Settings()
    assert numeric_fields(Settings)["one"] == Numeric(True, False, Range(low=1, high=2**31 - 1))
