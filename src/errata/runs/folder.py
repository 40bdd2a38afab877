"""The folder of a run that ends in one step, and the folder of a run of several stages."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errata.runs.files import read_record, write_json
from errata.runs.identity import HOW_TO_NAME
from errata.runs.lock import locked
from errata.runs.sums import check_sums, read_sums, sums_of, write_sums

__all__ = ["CARD", "RunFolder", "StageFolder", "changed_settings", "claim_folder"]

CARD = "errata.json"
"""The record beside a model, with the fingerprint of its run."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run that ends in one folder: ``out`` appears in one step, and until then its files lie in ``work``."""

    out: Path
    fingerprint: str
    unnamed: tuple[str, ...] = ()
    """Functions that change the result and do not say what they are: what is there may be of others of them."""

    @property
    def work(self) -> Path:
        """The hidden folder of checkpoints beside ``out``."""
        return self.out.with_name(f".{self.out.name}.training")

    def is_finished(self) -> bool:
        """Whether ``out`` holds the result of this very run, as it was written.

        Raises:
            ValueError: ``out`` holds something else (errata overwrites no result that it was not asked to make again);
                a file in it is damaged; or a function does not say what it is.
        """
        if not self.out.exists():
            return False
        self._refuse_unnamed(self.out)
        card = self.out / CARD
        if not card.exists() or read_record(card).get("fingerprint") != self.fingerprint:
            raise ValueError(
                f"{self.out} exists and was made by another run or other settings; delete it or name another --out"
            )
        check_sums(self.out, read_sums(self.out), f"delete {self.out}, and rerun the same command to make it again")
        return True

    def begin(self) -> bool:
        """Keep what this very run left in ``work``, and nothing that another did; whether there was anything.

        Raises:
            ValueError: checkpoints are there, and a function does not say whether it made them.
        """
        if self.work.exists() and any(path.is_dir() for path in self.work.iterdir()):
            self._refuse_unnamed(self.work)
        mark = self.work / "fingerprint"
        if mark.exists() and mark.read_bytes() == self.fingerprint.encode():
            return True
        # Checkpoints of other settings must not leak into this run.
        if mark.exists():
            words = f"{self.work} holds a run with other settings or data that did not end; this one starts anew"
            print(words, file=sys.stderr)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        mark.write_text(self.fingerprint, encoding="utf-8")
        return False

    def _refuse_unnamed(self, folder: Path) -> None:
        if self.unnamed:
            raise ValueError(
                f"{folder} is there, and nobody can tell whether it was made with this {self.unnamed[0]}, which is a "
                f"function without an identity; {HOW_TO_NAME}, delete {folder}, or name another --out"
            )


def changed_settings(folder: Path, settings: Mapping[str, Any]) -> list[str] | None:
    """Which settings are others than those noted in a folder's ``settings.json``; None where none are noted."""
    path = folder / "settings.json"
    if not path.exists():
        return None
    noted, asked = read_record(path), _plain(settings)
    return sorted(key for key in noted.keys() | asked.keys() if noted.get(key) != asked.get(key))


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings of a run in its folder's ``settings.json``: one with others must not go on from its stages.

    Args:
        folder: of the run.
        settings: those that change a number; not where the run lies, nor how many of its stages run at a time.

    Raises:
        ValueError: the folder holds a run with other settings (they are named).
    """
    changed = changed_settings(folder, settings)
    if changed:
        # A fingerprint says that something is another, and not what.
        names = ", ".join(key for key in changed if key != "fingerprint") or "rows, sampling or functions"
        raise ValueError(f"{folder} holds a run with other settings ({names}); delete it, or give another --out")
    if changed is None:
        write_json(folder / "settings.json", _plain(settings))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


class StageFolder:
    """The folder of a run of several stages, each of which writes its file or folder in one step.

    What a finished stage wrote is noted in ``SHA256SUMS``. A rerun takes it as it is, and does not go on from a file
    that was cut or changed. A file that is noted nowhere is taken: it was put there, or is of an older run.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.sums = out, read_sums(out)

    @classmethod
    @contextmanager
    def opened(cls, out: Path, settings: Mapping[str, Any]) -> Iterator[StageFolder]:
        """Lock the folder, claim it for these settings, and yield it.

        Raises:
            InUse: another process runs there.
            ValueError: as ``claim_folder``.
        """
        with locked(out):
            claim_folder(out, settings)
            yield cls(out)

    def is_made(self, path: Path, also: Iterable[Path] = ()) -> bool:
        """Whether a stage's file or folder is there, and what else it wrote, all of it as it was written.

        Raises:
            Damaged: a file is missing or has changed; it is named, and what to delete.
        """
        if not path.exists():
            return False
        noted = self._noted(path, also)
        check_sums(
            self.out,
            noted,
            f"delete {path}, and rerun the same command to make it again (if you changed it on purpose: delete its "
            f"line in {self.out / 'SHA256SUMS'})",
        )
        if not noted:
            self.note(path, also)
        return True

    def note(self, path: Path, also: Iterable[Path] = ()) -> None:
        """Note what a stage has written."""
        also = list(also)
        for name in self._noted(path, also):
            del self.sums[name]
        self.sums |= sums_of(self.out, [path, *also])
        write_sums(self.out, self.sums)

    def forget(self, path: Path, also: Iterable[Path] = ()) -> None:
        """What a stage wrote before is gone, and it writes anew."""
        noted = self._noted(path, also)
        if noted:
            self.sums = {name: found for name, found in self.sums.items() if name not in noted}
            write_sums(self.out, self.sums)

    def make(self, path: Path, make: Callable[[Path], object], also: Iterable[Path] = ()) -> bool:
        """Make a stage's file or folder, unless it is there; whether it was made now.

        Raises:
            Damaged: as ``is_made``.
        """
        also = list(also)
        if self.is_made(path, also):
            return False
        self.forget(path, also)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        self.note(path, also)
        return True

    def _noted(self, path: Path, also: Iterable[Path]) -> dict[str, str]:
        names = [each.relative_to(self.out).as_posix() for each in (path, *also)]
        return {
            name: found
            for name, found in self.sums.items()
            if any(name == each or name.startswith(f"{each}/") for each in names)
        }
