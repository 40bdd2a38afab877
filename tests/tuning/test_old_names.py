"""What was called by its method's name until 0.1 goes on, with a warning; as a module it is a module."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import errata.tuning.figa as figa_module
import tiny
from errata.tuning import SFTConfig, dpo, figa, ppo, sft, train_figa


def test_an_import_of_a_submodule_is_the_module() -> None:
    for module in (sft, figa, dpo, ppo):
        assert isinstance(module, ModuleType)
    assert figa is figa_module
    assert figa_module.train_figa is train_figa


def test_the_old_call_trains_and_warns(tmp_path: Path) -> None:
    start = tiny.llama(tmp_path / "start")
    config = SFTConfig(epochs=1, batch_size=4)
    with pytest.warns(DeprecationWarning, match=r"errata\.tuning\.sft\(\) is now train_sft\(\)"):
        card = sft(start, tiny.demonstrations(4), tiny.encoder(), config, tmp_path / "out")
    assert card["stage"] == "sft"
    assert card["rows"] == 4
