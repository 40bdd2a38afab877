"""``--help`` shows the usual flags of a verb, ``--help-all`` all of them."""

from __future__ import annotations

from typing import Any

import pytest

from errata import commands
from errata.commands.help import MOST, shown_flags
from errata.tuning import METHODS


def kind_of(verb: str) -> Any:
    return commands.load(commands.where_is(verb))


@pytest.mark.parametrize("verb", commands.COMMANDS)
def test_help_has_at_most_25_flags(verb: str) -> None:
    kinds = [kind_of(verb)]
    if hasattr(kinds[0], "of_method"):
        kinds = [kinds[0].of_method(method.name) for method in METHODS]
    assert [len(shown_flags(kind)) for kind in kinds if len(shown_flags(kind)) > MOST] == []


def test_the_others_are_counted_and_shown_by_help_all(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as stop:
            commands.parse("tune figa", [flag])
        assert stop.value.code == 0
        shown[flag] = capsys.readouterr().out
    for name in ("--model", "--learning-rate", "--good-weight", "--columns"):
        assert all(f"{name} " in said for said in shown.values())
    for name in ("--weight-decay", "--encoding", "--push-to-hub"):
        assert [f"{name} " in said for said in shown.values()] == [False, True]
    assert "37 more flags: --help-all; all of them in a file: --config." in shown["--help"]
    assert "more flags" not in shown["--help-all"]
    hidden: Any = commands.parse("tune figa", ["--model=m", "--out=o", "--weight-decay=0.25"])
    assert hidden.settings.weight_decay == 0.25
