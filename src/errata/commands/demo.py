"""The verb ``demo``."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import OmitArgPrefixes as Flat  # the fields of a stage's settings are flags of the verb itself

from errata.commands.shared import RESUMES, console
from errata.demo.pipeline import run_demo
from errata.demo.recipe import DemoConfig

__all__ = ["Demo"]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole road on an embedded world, in minutes, on a laptop: corrections in, better models and a report out.

    Everything is made here: a tiny model, its flawed answers, their corrections, reward models, nine policies, and an
    evaluation that says which is better and by how much. Stop it at any moment; rerun the same command to resume.
    """

    stopped = RESUMES

    settings: Flat[DemoConfig]

    def run(self) -> None:
        run_demo(self.settings, console)
