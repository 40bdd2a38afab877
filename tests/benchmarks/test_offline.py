"""The benchmark of training on corrections: that it measures what it says, and that TRL's losses are errata's."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import trainer as transformers_trainer

from errata.data import write_rows
from errata.models import logprobs
from errata.types import Correction
from scripts import load

TINY = {"hidden_size": 16, "layers": 1, "vocabulary": 600, "max_length": 96, "batch_size": 1, "rows": 2}


@pytest.fixture(scope="module")
def offline() -> ModuleType:
    return load("benchmarks", "offline")


@pytest.fixture(scope="module")
def shared(offline: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of the files: pairs of different lengths, and rows that cannot be used."""
    pairs = [
        ("say it", "a rude red cat sits here", "a red cat sits"),
        ("and so", "the blue dog runs", "the blue dog runs over here"),
        ("say it", "one two six", "one two seven eight"),
        ("so be it", "here is a cat or dog", "here sits no cat, no dog"),
        ("and so", "a cat or a dog", "now a dog or a red cat"),
        ("tell it", "six dogs run here", "six blue dogs run"),
        ("same", "the same", "the same"),
        ("empty", "not the same", ""),
        ("long", "word " * 200, "another word"),
        ("lines", "\n\nlines\n\n\nlines\n\n\nlines", "lines"),
    ]
    rows = [
        Correction(id=str(k), prompt=prompt, original=original, edited=edited)
        for k, (prompt, original, edited) in enumerate(pairs)
    ]
    folder = tmp_path_factory.mktemp("shared")
    write_rows(folder / f"{offline.FILES['mlqe']}.jsonl.gz", rows)
    return folder


def settings(offline: ModuleType, shared: Path, **more: Any) -> Any:
    return offline.Settings(**{**TINY, "shared": shared, "files": ("mlqe",), **more})


def test_every_contender_of_errata(
    offline: ModuleType,
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = [name for name in offline.CONTENDERS if not name.startswith("TRL")]
    of_method = importlib.import_module("errata.training.method")
    with_reference = of_method.with_reference

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(1)
        return with_reference(*args, **kwargs)

    # After the test it is taken off again, and what measurements wrap around it.
    monkeypatch.setattr(of_method, "with_reference", slowly)

    def in_this_process(told: Path, python: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(logprobs, "finish_of", logprobs.finish_of)  # put back what the textbook's contender replaces
            patch.setattr(transformers_trainer, "DEFAULT_CALLBACKS", list(transformers_trainer.DEFAULT_CALLBACKS))
            offline.measure(told)

    monkeypatch.setattr(offline, "start", in_this_process)
    monkeypatch.setattr(offline, "clock", time.perf_counter)
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items()]
    out = tmp_path / "bench.json"
    monkeypatch.setattr(
        "sys.argv",
        ["offline", *flags, f"--shared={shared}", "--no-losses", "--markdown", f"--out={out}", "--only", *ours],
    )
    offline.main()
    report = json.loads(out.read_text())
    measured = report["measured"]["mlqe"]
    assert list(measured) == ours
    for name, found in measured.items():
        passes = 3 if name == offline.UPPER else 1
        assert found["seconds"] > 0
        assert found["pairs_per_second"] == pytest.approx(2 * passes / found["seconds"])
        assert (found["later_pairs_per_second"] > 0) == (passes > 1)
        assert 0 < found["activation_bytes"] <= found["peak_bytes"]
    assert measured["DPO"]["seconds"] > 1  # the pass of the reference belongs to it
    printed = capsys.readouterr().out
    assert f"not in {shared}: summedits, fgrlhf, iterater, cad_imdb" in printed
    assert "| times as good | mlqe | mean | target |  |" in printed
    assert "FIGA, kept 0 / FIGA, kept 0, plain | " in printed
    assert "TRL SFT" not in printed


def test_rows_that_are_left_out(offline: ModuleType, shared: Path, tmp_path: Path) -> None:
    names, counts = offline.prepare(settings(offline, shared, rows=8, batch_size=2), tmp_path)
    assert names == ["mlqe"]
    assert counts["mlqe"] == {
        "read": 10,
        "unchanged or empty": 2,
        "too long": 1,
        "joined to other tokens": 1,
        "used": 6,
    }
    rows = offline.read_corrections(tmp_path / "mlqe.jsonl")
    assert sorted(row.id for row in rows) == ["0", "1", "2", "3", "4", "5"]


def test_targets_by_hand(offline: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(fast: float, small: float) -> dict[str, Any]:
        plain = {"pairs_per_second": 2.0, "activation_bytes": 60, "peak_bytes": 90}
        better = {"pairs_per_second": 2.0 * fast, "activation_bytes": 60 / small, "peak_bytes": 90}
        return {"FIGA, kept 0, plain": plain, "FIGA, kept 0": better}

    report = {
        "measured": {"mlqe": measured(2, 4), "iterater": measured(8, 2), "cad_imdb": measured(2, 1)},
        "losses": {
            "SFT": {"loss": 1e-5, "grad_norm": 1e-3, "moved": 0.1},
            "DPO": {"loss": 1e-3, "grad_norm": 1e-3, "moved": 0.1},
        },
        "rows": {},
        "settings": {"rounds": 1, "batch_size": 8, "hidden_size": 16, "layers": 1, "vocabulary": 600},
        "machine": "none",
    }
    offline.print_report(report, markdown=True)
    printed = capsys.readouterr().out
    assert "| FIGA, kept 0 / FIGA, kept 0, plain | 2.00 | 8.00 | 2.00 | 4.00 | ≥ 4 | met |" in printed
    assert "| FIGA, kept 0 / FIGA, kept 0, plain, on cad_imdb | 2.00 | 8.00 | 2.00 | 2.00 | ≥ 2.5 | missed |" in printed
    assert "| memory: FIGA, kept 0 / FIGA, kept 0, plain | 4.00 | 2.00 | 1.00 | 2.83 | ≥ 3 | missed |" in printed
    assert "SFT: the same loss as TRL's in every step, 1.0e-05 apart" in printed
    assert "DPO: NOT the same loss as TRL's in every step, 1.0e-03 apart" in printed


def test_mistakes_are_named(offline: ModuleType, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, message in (
        (["--only", "FIGA"], "FIGA: there is only FIGA, kept 0, textbook"),
        (["--files", "imdb"], "imdb: there is only summedits"),
        (["--rows=15"], "15 rows are not two batches of 8"),
    ):
        monkeypatch.setattr("sys.argv", ["offline", f"--shared={shared}", *flags])
        with pytest.raises(SystemExit, match=message):
            offline.main()


def test_without_the_files(
    offline: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["offline", f"--shared={tmp_path}"])
    offline.main()
    assert "Left out, for they are not in" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed")
def test_losses_of_trl(offline: ModuleType, shared: Path, tmp_path: Path) -> None:
    """In every step, after weights have moved, too; each in a process of its own, as TRL warns of much."""
    told = settings(offline, shared, rows=6, batch_size=2, hidden_size=64)
    offline.prepare(told, tmp_path)
    found = offline.same_losses(told, tmp_path, "mlqe")
    assert list(found) == ["SFT", "DPO"]
    for difference in found.values():
        assert difference["loss"] < offline.SAME_LOSS
        assert difference["grad_norm"] < offline.SAME_LOSS
        assert difference["moved"] > 10 * offline.SAME_LOSS
