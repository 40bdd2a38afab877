"""Is this judge to be trusted? Known defects are planted in good letters of the demo's world, and the judge is asked.

For each kind of defect some letters are written without a fault and once more with one fault of that kind, all else
word for word the same, so that it is known which is better and why. Beside the judge stand three that need no model:
one that knows the world's rules (the ceiling), one that picks the longer letter and one that sees nothing. Pairs of two
faultless letters in different words are a control: there is nothing to prefer.

    python recipes/judge_check.py --out runs/judge_check                                # the three alone
    python recipes/judge_check.py --out runs/judge_check --llm anthropic:MODEL --max-cost 2
    python recipes/judge_check.py --out runs/judge_check --llm MODEL@http://127.0.0.1:8000/v1

Answers are in a ledger: the same command again costs nothing. How to read the table: docs/winrate.md, A judge first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import tyro
from rich.console import Console
from rich.table import Table

from errata.commands.client import ClientFlags
from errata.demo.judge import DefectKind, judge
from errata.demo.world import make_prompts, write_with
from errata.runs import write_json
from errata.winrate import ChatJudge, Judge, JudgeCheck, Planted, ScoreJudge, check_judge

__all__ = ["GUIDELINE", "Settings", "main", "plant", "run"]

GUIDELINE = (
    "The request is a card of facts. A good answer is a letter that greets the customer by name, states every fact of "
    "the card exactly once and nothing that is not on it, in whole and correct sentences without a rude word, and ends "
    "with a polite closing."
)
"""What the world's rules are, for a judge that reads."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to check, and how much."""

    out: Path
    """Folder of the numbers."""
    pairs: int = 40
    """Of each kind of defect, and of the control."""
    seed: int = 0
    client: tyro.conf.OmitArgPrefixes[ClientFlags] = field(default_factory=ClientFlags)


def plant(pairs: int, rng: Random) -> tuple[list[Planted], list[Planted]]:
    """Good and spoiled letters, ``pairs`` of each kind of defect; and the control, two good letters to each card."""
    planted = []
    for kind in DefectKind:
        rows = iter(make_prompts(4 * pairs, rng, prefix=str(kind)))  # some letters have no room for a defect
        made = 0
        while made < pairs:
            row = next(rows)
            seed = rng.getrandbits(32)
            good, spoiled = (write_with(row.prompt, kinds, Random(seed)) for kinds in ([], [kind]))
            found = judge(row.prompt, spoiled)
            if judge(row.prompt, good).count == 0 and found.count == found.by_kind[kind] == 1:
                planted.append(Planted(id=row.id, prompt=str(row.prompt), good=good, spoiled=spoiled, kind=kind))
                made += 1
    control = []
    for row in make_prompts(pairs, rng, prefix="control"):
        good, other = (write_with(row.prompt, [], rng) for _ in range(2))
        control.append(Planted(id=row.id, prompt=str(row.prompt), good=good, spoiled=other, kind="none"))
    return planted, control


def judges(settings: Settings) -> dict[str, Judge]:
    """The three that need no model, and the chat model if one is named."""
    found: dict[str, Judge] = {
        "knows the rules": ScoreJudge(
            lambda answers: [-judge(prompt, text).count for _, prompt, text in answers], name="the world's rules"
        ),
        "picks the longer": ScoreJudge(
            lambda answers: [len(text.split()) for _, _, text in answers], name="picks the longer"
        ),
        "sees nothing": ScoreJudge(lambda answers: [0.0] * len(answers), name="sees nothing"),
    }
    if settings.client.llm is not None:
        chat = settings.client.open()
        found[settings.client.llm] = ChatJudge(chat, name=settings.client.llm, guideline=GUIDELINE)
    return found


def run(settings: Settings, asked: dict[str, Judge] | None = None) -> dict[str, JudgeCheck]:
    """Check every judge; the numbers are in ``judges.json`` of the folder."""
    planted, control = plant(settings.pairs, Random(settings.seed))
    found = {name: check_judge(one, planted, control=control) for name, one in (asked or judges(settings)).items()}
    write_json(settings.out / "judges.json", {name: asdict(check) for name, check in found.items()})
    return found


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


def tables(found: dict[str, JudgeCheck]) -> Sequence[Table]:
    """Accuracy by kind of defect, and what leads a judge astray."""
    kinds = Table("defect", *found, title="Good answer preferred, % (a tie ½)", title_justify="left")
    for slices in (lambda check: check.kinds, lambda check: check.lengths):
        rates = [{one.name: one.win_rate for one in slices(check)} for check in found.values()]
        # A judge without a valid verdict on a kind has no rate of it.
        for name in dict.fromkeys(name for of_judge in rates for name in of_judge):
            kinds.add_row(name, *(_percent(of_judge.get(name)) for of_judge in rates))
        kinds.add_section()
    kinds.add_row("all", *(_percent(one.accuracy.mean if one.accuracy else None) for one in found.values()))
    astray = Table("", *found, title="All pairs", title_justify="left")
    for name, cell in (
        ("right / tied / wrong", lambda one: f"{one.right} / {one.tied} / {one.wrong}"),
        ("tied where both are good, %", lambda one: _percent(one.control_tied)),
        ("invalid", lambda one: str(one.invalid)),
        ("orders agree, %", lambda one: _percent(one.consistency)),
        ("first chosen, %", lambda one: _percent(one.first_position)),
        ("cost, US dollars", lambda one: "–" if one.cost is None else f"{one.cost:.4f}"),
    ):
        astray.add_row(name, *map(cell, found.values()))
    return kinds, astray


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipe."""
    settings = tyro.cli(Settings, args=arguments, description=__doc__)
    console = Console()
    for table in tables(run(settings)):
        console.print(table, highlight=False, markup=False)
    console.print(f"→ {settings.out / 'judges.json'}", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
