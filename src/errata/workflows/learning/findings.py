"""What was found, from the files that the stages wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from errata.edits import word_distance
from errata.runs import read_json
from errata.types import Correction, Rollout
from errata.workflows.learned import Candidate, Example, Learned
from errata.workflows.learning.context import DECODINGS, Arm, Run, interval
from errata.workflows.measure import TokenLogprobs, compare, describe, edit_costs
from errata.workflows.verdict import Limits, Measured, decide


def selection(run: Run) -> list[Candidate]:
    """How the candidates did on the rows that choose."""
    if len(run.arms) == 1:
        return [Candidate(name=run.arms[0], edit_cost=None)]
    rows = run.rows("selection")
    sent = {row.id: row.edited for row in rows}
    return [
        Candidate(name=arm, edit_cost=interval(edit_costs(run.drafts(arm, list(sent), folder="selection"), sent)))
        for arm in run.arms
    ]


def best(run: Run) -> Arm:
    """The candidate that left the least to correct on the rows that choose; of equals the first."""
    found = selection(run)
    costs = [one.edit_cost.mean if one.edit_cost else 0.0 for one in found]
    return run.arms[costs.index(min(costs))]


def learned(run: Run, arm: Arm) -> Learned:
    """Everything that was measured, and the verdict."""
    heldout, accepted = run.rows("heldout"), run.rows("heldout_accepted")
    scored = {name: read_json(run.out / "heldout" / f"{name}.json") for name in ("old", arm)}

    def drafts(name: str, rows: Sequence[Correction]) -> dict[str, list[Rollout]]:
        return {how: run.drafts(f"{name}.{how}", [row.id for row in rows]) for how in DECODINGS}

    def against(rows: Sequence[Correction], new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
        sent = {row.id: row.edited for row in rows}
        return {
            how: compare(edit_costs(new[how], sent), edit_costs(old[how], sent), users=run.users(rows))
            for how in DECODINGS
        }

    sent = {row.id: row.edited for row in heldout}
    old, new = drafts("old", heldout), drafts(arm, heldout)
    measured = Measured(
        old={how: describe(old[how], sent) for how in DECODINGS},
        new={how: describe(new[how], sent) for how in DECODINGS},
        comparison=against(heldout, new, old),
        old_tokens=TokenLogprobs(**scored["old"]["tokens"]),
        new_tokens=TokenLogprobs(**scored[arm]["tokens"]),
        old_general=scored["old"].get("general"),
        new_general=scored[arm].get("general"),
    )
    limits = Limits(**{name: getattr(run.details, name) for name in Limits.__dataclass_fields__})
    return Learned(
        decision=decide(measured, limits),
        measured=measured,
        arm=arm,
        candidates=tuple(selection(run)),
        logged_cost=interval([word_distance(row.original, row.edited) for row in heldout]),
        accepted=against(accepted, drafts(arm, accepted), drafts("old", accepted)) if len(accepted) > 1 else {},
        log=run.counts("log"),
        split=run.counts("split"),
        doctor=tuple(read_json(run.out / "doctor.json")["findings"]),
        general_tokens=scored["old"].get("general_tokens"),
        examples=tuple(_examples(heldout, old["greedy"], new["greedy"])),
    )


def _examples(rows: Sequence[Correction], old: Sequence[Rollout], new: Sequence[Rollout]) -> Iterator[Example]:
    """Rows on which the most was won, the most was lost, and some in between."""
    found = [
        Example(
            prompt=row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"],
            sent=row.edited,
            logged=row.original,
            old=before.text,
            new=after.text,
            old_cost=word_distance(before.text, row.edited),
            new_cost=word_distance(after.text, row.edited),
        )
        for row, before, after in zip(rows, old, new, strict=True)
    ]
    found.sort(key=lambda one: one.new_cost - one.old_cost)
    places = [0, 1, len(found) // 2, len(found) - 2, len(found) - 1]
    yield from (found[place] for place in dict.fromkeys(places) if 0 <= place < len(found))
