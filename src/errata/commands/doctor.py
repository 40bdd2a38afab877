"""The verb ``doctor``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm
from tyro.conf import OmitArgPrefixes as Flat

from errata.commands.shared import (
    EncodingFlags,
    NormalizeFlags,
    Source,
    choice_of,
    console,
    set_aside,
    tell_normalized,
    with_methods,
)
from errata.data import iter_corrections
from errata.data.records import read_lines
from errata.doctor import Diagnosis, Severity, diagnosis_to_terminal, examine, read_model_facts
from errata.doctor.streams import supervisions
from errata.labels import LabelRules
from errata.runs import new_file
from errata.training import OfflineConfig, OfflineMethod
from errata.types import Correction

__all__ = ["Doctor"]

UNSAFE = 3


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """What will the loss really see? Rows, labels, weights and batches are followed to the end and compared.

    Exit code 0: safe to train. 1: the input could not be read. 3: errors were found (with --strict, or warnings).
    """

    codes = (UNSAFE,)
    shown = ("columns", "max_length", "on_long", "unit", "inventions", "normalize")

    data: Path
    """Corrections."""
    model: Path
    """For its tokenizer and configuration: a local folder, or owner/name[@revision] of the Hugging Face Hub."""
    method: str = "figa"
    """What is to be trained: a method of `errata tune`, or a token-level reward model."""
    strict: bool = False
    """Whether warnings count as errors."""
    out: Path | None = None
    """Write findings and figures here as JSON, too; rows that cannot be used go beside it."""
    normal: Flat[NormalizeFlags] = NormalizeFlags()
    rules: Flat[LabelRules] = LabelRules()
    preset: str = "default"
    """Whose settings of the method stand under what else is given."""
    source: Flat[Source] = Source()
    encoding: Flat[EncodingFlags] = EncodingFlags()
    settings: Flat[OfflineConfig] = OfflineConfig()

    @classmethod
    def of_method(cls, name: str) -> type[Any]:
        """The verb for a method: with its settings and presets, FIGA's where no setting of the method is a weight."""
        known = {each.name: each for each in supervisions()}
        method = known.get(name)
        if method is None or method.reads != "labels" or not isinstance(method, OfflineMethod):
            method = known["figa"]
        assert isinstance(method, OfflineMethod)
        settings: Any = Flat[method.config]  # type: ignore[name-defined,misc]
        preset = choice_of(["default", *method.presets])
        more = {"preset": (preset, "default"), "settings": (settings, method.config())}
        made = with_methods(cls, list(known), **more)
        made.presets = method.presets
        made.shown = {*cls.shown, *method.own_settings}
        return made

    def run(self) -> int:
        encoder, facts = self.encoding.encoder(self.model), read_model_facts(self.model)
        normalizer = self.normal.normalizer()
        with TemporaryDirectory() as folder:
            aside = Path(folder) / "bad_rows.jsonl" if self.out is None else set_aside(self.out)
            unreadable: list[tuple[int, str]] = []

            def rows() -> Iterable[Correction]:
                read = iter_corrections(self.data, set_aside=aside, **self.source.how)
                yield from map(normalizer, tqdm(read, unit=" rows", leave=False, delay=2, disable=None))
                # Only now is the file of unusable rows there.
                for _, line in read_lines(aside):
                    bad = json.loads(line)
                    unreadable.append((bad["line"], bad["error"]))

            found = examine(
                rows(),
                encoder,
                method=self.method,
                rules=self.rules,
                config=self.settings,
                model=facts,
                unreadable=unreadable,
            )
        tell_normalized(normalizer)
        console.print(diagnosis_to_terminal(found))
        if self.out is not None:
            with new_file(self.out) as partial:
                partial.write_text(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            console.print(f"→ {self.out}", highlight=False, markup=False)
        return UNSAFE if self._unsafe(found) else 0

    def _unsafe(self, found: Diagnosis) -> bool:
        return not found.safe or (self.strict and bool(found.of(Severity.WARNING)))
